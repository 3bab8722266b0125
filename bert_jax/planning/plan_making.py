"""The plan of a run on some chips: needs, time, cost and whether it fits, by phase."""

import dataclasses
from collections.abc import Callable

from bert_jax.planning import estimate, prediction, program
from bert_jax.planning import topology as topologies
from bert_jax.settings import configuration

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Phase:
    """The steps of a run whose rows have one length.

    Attributes:
      length: tokens in a row.
      steps: how many; None if only a store could tell.
      needs: of one chip in one step, compiled or by formula.
      by_formula: the same by formula.
      compiled: None if the formula alone is known.
      prediction: how long a step takes at least.
    """

    length: int
    steps: int | None
    needs: prediction.Needs
    by_formula: prediction.Needs
    compiled: program.Compiled | None
    prediction: prediction.Prediction

    @property
    def refusal(self) -> str:
        """The compiler's words if it takes the program for too large, or nothing."""
        return "" if self.compiled is None else self.compiled.refusal


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on some chips."""

    layout: program.Layout
    phases: tuple[Phase, ...]

    @property
    def fits(self) -> bool:
        """Whether every phase fits into the memory of a chip."""
        room = self.layout.topology.chip.memory_bytes
        return all(not x.refusal and x.needs.peak_bytes <= room for x in self.phases)

    @property
    def largest(self) -> Phase:
        """The phase that needs most memory."""
        return max(self.phases, key=lambda phase: phase.by_formula.peak_bytes)

    @property
    def longest(self) -> Phase:
        """The phase that takes most time."""
        return max(self.phases, key=lambda x: (x.steps or 1) * x.prediction.seconds)

    @property
    def bound(self) -> str:
        """What takes longest in the phase that takes most time."""
        return self.longest.prediction.bound

    @property
    def tokens(self) -> int | float | None:
        """Places of all rows of the run."""
        rows = self.layout.settings.run.batch_size
        return _total([(x.steps, rows * x.length) for x in self.phases])

    @property
    def hours(self) -> float | None:
        """Of the whole run, at least."""
        each = [(x.steps, x.prediction.seconds / 3600) for x in self.phases]
        return _total(each)

    @property
    def chip_hours(self) -> float | None:
        """Hours times the chips that are paid for, used or not."""
        chips = self.layout.topology.num_chips
        return None if self.hours is None else self.hours * chips

    @property
    def dollars(self) -> float | None:
        """By the table of chips; None if it has no price."""
        price, hours = self.layout.topology.chip.dollars, self.chip_hours
        return None if price is None or hours is None else price * hours


def _total(each: list[tuple[int | None, int | float]]) -> int | float | None:
    if any(steps is None for steps, _ in each):
        return None
    return sum((steps or 0) * value for steps, value in each)


def make(
    settings: configuration.PretrainingConfig,
    topology: topologies.Topology,
    say: Say,
) -> Plan:
    """Returns the plan of a run; compiles its steps where that is possible.

    Raises:
      InputError: model, vocabulary, batch or mesh do not fit, or libtpu is missing.
    """
    layout = program.lay_out(settings, topology, for_compiling=topology.compiles)
    phases = [
        _phase(layout, length, steps, say) for length, steps in _lengths(settings)
    ]
    return Plan(layout, tuple(phases))


def _lengths(
    settings: configuration.PretrainingConfig,
) -> list[tuple[int, int | None]]:
    """Returns the lengths of the rows, and how many steps have each."""
    data, steps = settings.data, settings.run.num_train_steps
    if steps == -1:
        return [(data.max_seq_length, None)]
    each = [
        (data.first_seq_length, settings.first_steps),
        (data.max_seq_length, steps - settings.first_steps),
    ]
    return [(length, number) for length, number in each if number]


def _phase(layout: program.Layout, length: int, steps: int | None, say: Say) -> Phase:
    formula = estimate.needs(layout, length)
    compiled, needs = None, formula
    if layout.topology.compiles:
        say(describe(layout, length))
        compiled = program.compile_step(layout, length)
        say(f"compiled in {compiled.seconds:.0f} s")
        if not compiled.refusal:
            needs = of_compiled(compiled, formula)
    predicted = prediction.predict(needs, layout.topology)
    return Phase(length, steps, needs, formula, compiled, predicted)


def describe(layout: program.Layout, length: int) -> str:
    """Returns what is about to be compiled, for people who wait."""
    run, bert = layout.settings.run, layout.bert
    rows = run.batch_size / layout.chips
    loop = "unrolled" if run.unroll == -1 else f"in a loop of {run.unroll} at a time"
    return (
        f"compiling the step for {layout.topology.name}: {bert.num_hidden_layers} "
        f"layers of width {bert.hidden_size} {loop}, {rows:g} rows of {length} tokens "
        "a chip; this may take minutes"
    )


def of_compiled(
    compiled: program.Compiled, formula: prediction.Needs
) -> prediction.Needs:
    """Returns what a compiled step needs.

    Where it calls kernels whose work is not known, the formula's work is the least.
    """
    flops = compiled.cost.flops
    if compiled.cost.unknown_kernels:
        flops = max(flops, formula.flops)
    return prediction.Needs(
        formula.useful_flops,
        flops,
        compiled.cost.main_bytes,
        compiled.talk,
        compiled.arguments_bytes,
        compiled.temporary_bytes,
    )
