"""What a step and a whole run need on some chips: memory, time, cost, and if they fit.

The needs of a step are read from its compiled program, or estimated by formula for
chips that no program can be compiled for here. The time is the roofline of Williams et
al. 2009: work over peak, traffic over bandwidth, and communication over the links, each
as if the others took no time. It is a lower bound; how much longer a real step takes,
only a run can show.
"""

import dataclasses
from collections.abc import Callable

from bert_jax.config import pretraining
from bert_jax.model import attention
from bert_jax.model import costs as model_costs
from bert_jax.planning import hlo, program
from bert_jax.planning import topology as topologies

Log = Callable[[str], None]

COMPUTE, MEMORY, COMMUNICATION = "compute", "memory", "communication"
_FLOAT32 = 4
# Arrays of the size of the parameters that an update reads and writes: parameters,
# gradients and two moments are read, and all but the gradients written.
_UPDATE = 7
# Each saved activation is written and read again, and so is its gradient.
_PASSES = 4


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What one chip does in one step.

    Attributes:
      useful_flops: by the formula of `model.costs`.
      flops: of all matrix products, recomputed ones included.
      main_bytes: traffic with main memory.
      collectives: communication between the chips.
      arguments_bytes: memory of state and batch.
      temporary_bytes: all other memory.
    """

    useful_flops: float
    flops: float
    main_bytes: float
    collectives: tuple[hlo.Collective, ...]
    arguments_bytes: float
    temporary_bytes: float

    @property
    def peak_bytes(self) -> float:
        """The peak memory of one chip."""
        return self.arguments_bytes + self.temporary_bytes


def by_formula(layout: program.RunLayout, length: int) -> StepCost:
    """Returns the cost of a step on sequences of this length, estimated by formula."""
    settings, bert = layout.settings, layout.bert
    micro = settings.run.accumulation_steps
    execution, rows = settings.run.execution(), _rows(layout, length)
    saved = model_costs.activation_bytes(bert, execution, rows)
    params = layout.params_bytes
    weights = 2 * params  # read in bfloat16 by the forward and the backward pass
    traffic = _UPDATE * params + micro * (weights + params + _PASSES * saved)
    useful = useful_flops(layout, length)
    return StepCost(
        useful,
        useful * _with_recomputation(settings.run.remat),
        traffic,
        _collectives(layout, length),
        params + layout.optimizer_bytes,
        saved + params * (2 if micro > 1 else 1) + params / 2,
    )


def of_compiled(step: program.CompiledStep, formula: StepCost) -> StepCost:
    """Returns the cost of a compiled step.

    If it calls kernels whose work is unknown, its FLOPs are at least the formula's.
    """
    flops = step.cost.flops
    if step.cost.unknown_kernels:
        flops = max(flops, formula.flops)
    return StepCost(
        formula.useful_flops,
        flops,
        step.cost.main_bytes,
        step.collectives,
        step.arguments_bytes,
        step.temporary_bytes,
    )


def useful_flops(layout: program.RunLayout, length: int) -> float:
    """Returns one chip's share of the FLOPs of a step, by `model.costs`."""
    masking = layout.task.masking
    predicted = masking.predictions(length) / length
    cost = model_costs.training_flops_per_token(layout.bert, length, predicted)
    return cost * layout.settings.run.batch_size * length / layout.chips


def attention_kernel(layout: program.RunLayout, length: int) -> attention.KernelChoice:
    """Returns the kernel that computes attention on these chips, and why.

    Raises InputError if `run.attention` forces an unsupported kernel.
    """
    settings, bert = layout.settings, layout.bert
    case = attention.Case(
        platform=layout.topology.platform,
        capability=layout.topology.capability,
        dtype=settings.run.dtype,
        length=length,
        head_size=bert.head_size,
        dropout=bert.attention_probs_dropout_prob,
        packed=settings.data.pack,
    )
    return attention.choose(case, settings.run.attention)


def _rows(layout: program.RunLayout, length: int) -> model_costs.Rows:
    return model_costs.Rows(
        layout.micro_batch_rows,
        length,
        layout.task.masking.predictions(length),
        layout.tensor,
        attention_kernel(layout, length).kernel != attention.XLA,
    )


def _with_recomputation(remat: str) -> float:
    """Returns the factor on the FLOPs: a forward pass is a third of a step.

    `dots` saves the products with weights, and recomputes those of attention.
    """
    return 4 / 3 if remat == "full" else 1.0


def _collectives(layout: program.RunLayout, length: int) -> tuple[hlo.Collective, ...]:
    """Returns the communication of a mesh: gradients, weights and partial sums."""
    micro, whole = layout.settings.run.accumulation_steps, layout.params_bytes
    data, fsdp, tensor = layout.mesh.shape.values()
    rows = _rows(layout, length)
    width = 2 if layout.settings.run.dtype == "bfloat16" else _FLOAT32
    activation = rows.tokens * layout.bert.hidden_size * width
    sums = 4 * layout.bert.num_hidden_layers * micro
    every = [
        _collective("all-reduce", data, micro, whole),
        _collective("all-gather", fsdp, 2 * micro, whole * fsdp),
        _collective("reduce-scatter", fsdp, micro, whole * fsdp),
        _collective("all-reduce", tensor, sums, activation),
    ]
    return tuple(one for one in every if one.group > 1)


def _collective(kind: str, group: int, count: int, size: int | float) -> hlo.Collective:
    sent = hlo.sent_bytes(kind, group, count * size)
    return hlo.Collective(kind, group, count, float(count * size), sent)


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The shortest time of one step, by cause, in seconds.

    Attributes:
      utilization: useful FLOPs over the chip's peak for the duration of the step (MFU).
    """

    compute: float
    memory: float
    communication: float
    utilization: float

    @property
    def seconds(self) -> float:
        """The time of the step: the longest of the three."""
        return max(self.compute, self.memory, self.communication)

    @property
    def bound(self) -> str:
        """The cause that takes longest."""
        causes = {
            COMPUTE: self.compute,
            MEMORY: self.memory,
            COMMUNICATION: self.communication,
        }
        return max(causes, key=lambda cause: causes[cause])


def step_time(cost: StepCost, topology: topologies.Topology) -> StepTime:
    """Returns the shortest time of a step on these chips."""
    chip = topology.chip
    compute = cost.flops / chip.peak_flops
    memory = cost.main_bytes / chip.memory_bandwidth
    each = (collective_seconds(one, topology) for one in cost.collectives)
    communication = sum(each, 0.0)
    longest = max(compute, memory, communication)
    utilization = cost.useful_flops / chip.peak_flops / longest
    return StepTime(compute, memory, communication, utilization)


def collective_seconds(one: hlo.Collective, topology: topologies.Topology) -> float:
    """Returns the time of collectives over all links of a chip at once.

    Groups larger than a slice or machine communicate in two stages: within each over
    the links, then between them over the network, where each chip sends its part.
    """
    chip, linked = topology.chip, topology.linked
    if one.group <= linked:
        return one.sent / chip.interconnect
    inside = hlo.sent_bytes(one.kind, linked, one.bytes) / chip.interconnect
    domains = -(-one.group // linked)
    part = one.bytes / linked
    return inside + hlo.sent_bytes(one.kind, domains, part) / chip.network


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """The steps of a run with one sequence length.

    Attributes:
      length: tokens per sequence.
      steps: the number of steps; None if it depends on the store.
      cost: of one chip in one step, from the compiled program or by formula.
      formula: the cost by formula.
      compiled: the compiled step, or None if nothing can be compiled.
      time: the shortest time of a step.
    """

    length: int
    steps: int | None
    cost: StepCost
    formula: StepCost
    compiled: program.CompiledStep | None
    time: StepTime

    @property
    def refusal(self) -> str:
        """The compiler's message if the program does not fit, or ""."""
        return "" if self.compiled is None else self.compiled.refusal


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What a run needs on some chips.

    Attributes:
      layout: the run laid out on its chips.
      phases: one for each sequence length, in order.
    """

    layout: program.RunLayout
    phases: tuple[PhasePlan, ...]

    @property
    def fits(self) -> bool:
        """Whether each phase fits into the memory of a chip."""
        room = self.layout.topology.chip.memory_bytes
        return all(not x.refusal and x.cost.peak_bytes <= room for x in self.phases)

    @property
    def largest(self) -> PhasePlan:
        """The phase that needs most memory."""
        return max(self.phases, key=lambda phase: phase.formula.peak_bytes)

    @property
    def longest(self) -> PhasePlan:
        """The phase that takes most time."""
        return max(self.phases, key=lambda x: (x.steps or 1) * x.time.seconds)

    @property
    def bound(self) -> str:
        """What bounds the phase that takes most time."""
        return self.longest.time.bound

    @property
    def tokens(self) -> int | float | None:
        """Tokens of the whole run, padding included."""
        rows = self.layout.settings.run.batch_size
        return _total([(x.steps, rows * x.length) for x in self.phases])

    @property
    def hours(self) -> float | None:
        """Shortest duration of the whole run."""
        return _total([(x.steps, x.time.seconds / 3600) for x in self.phases])

    @property
    def chip_hours(self) -> float | None:
        """Hours times the chips that are paid for, used or not."""
        chips = self.layout.topology.num_chips
        return None if self.hours is None else self.hours * chips

    @property
    def dollars(self) -> float | None:
        """The price of the run by the chip table, or None if no price is listed."""
        price, hours = self.layout.topology.chip.dollars, self.chip_hours
        return None if price is None or hours is None else price * hours


def _total(each: list[tuple[int | None, int | float]]) -> int | float | None:
    if any(steps is None for steps, _ in each):
        return None
    return sum((steps or 0) * value for steps, value in each)


def plan(
    settings: pretraining.PretrainingConfig, topology: topologies.Topology, log: Log
) -> RunPlan:
    """Returns the plan of a run; compiles its steps if programs can be compiled here.

    Raises:
      InputError: model, vocabulary, batch or mesh do not fit, or the compiler of
        the chips is missing.
    """
    layout = program.lay_out(settings, topology, for_compiling=topology.compiles)
    phases = [
        _phase(layout, length, steps, log) for length, steps in _lengths(settings)
    ]
    return RunPlan(layout, tuple(phases))


def _lengths(
    settings: pretraining.PretrainingConfig,
) -> list[tuple[int, int | None]]:
    """Returns each sequence length, and how many steps have it."""
    data, steps = settings.data, settings.run.num_train_steps
    if steps == -1:
        return [(data.max_seq_length, None)]
    each = [
        (data.first_seq_length, settings.first_steps),
        (data.max_seq_length, steps - settings.first_steps),
    ]
    return [(length, number) for length, number in each if number]


def _phase(
    layout: program.RunLayout, length: int, steps: int | None, log: Log
) -> PhasePlan:
    formula = by_formula(layout, length)
    compiled, cost = None, formula
    if layout.topology.compiles:
        log(compile_message(layout, length))
        compiled = program.compile_step(layout, length)
        log(f"compiled in {compiled.seconds:.0f} s")
        if not compiled.refusal:
            cost = of_compiled(compiled, formula)
    time = step_time(cost, layout.topology)
    return PhasePlan(length, steps, cost, formula, compiled, time)


def compile_message(layout: program.RunLayout, length: int) -> str:
    """Returns a progress message that describes what is about to be compiled."""
    run, bert = layout.settings.run, layout.bert
    rows = run.batch_size / layout.chips
    loop = "unrolled" if run.unroll == -1 else f"in a loop, {run.unroll} per iteration"
    return (
        f"compiling the train step for {layout.topology.name}: "
        f"{bert.num_hidden_layers} layers of width {bert.hidden_size} {loop}, "
        f"{rows:g} sequences of {length} tokens per chip; this may take minutes"
    )
