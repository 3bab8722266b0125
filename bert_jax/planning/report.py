"""The text of a plan: memory, time, cost, and whether the run fits."""

from collections.abc import Callable, Sequence

from bert_jax import console
from bert_jax.foundation import devices
from bert_jax.model import attention
from bert_jax.planning import costs, hlo, search
from bert_jax.planning import topology as topologies

_GIB = 2.0**30
UNKNOWN = "-"


def report(
    plan: costs.RunPlan,
    largest: search.FittingSettings | None,
    change: search.FittingSettings | None,
) -> str:
    """Returns the whole plan; its last two lines are whether it fits, and its bound.

    Args:
      plan: the plan.
      largest: the settings with the largest batch that fits, or None if none does.
      change: if the plan does not fit, the change that makes it fit, or None.
    """
    return "\n".join(
        [
            _head(plan),
            "",
            console.table(_phases(plan)),
            "",
            *_communication(plan),
            *_whole_run(plan),
            *_advice(plan, largest, change),
            *_notes(plan),
            "",
            verdict(plan),
        ]
    )


def verdict(plan: costs.RunPlan) -> str:
    """Returns the last two lines of each plan."""
    fits = "yes" if plan.fits else "no"
    return f"fits: {fits}\nbound by: {plan.bound}"


def _head(plan: costs.RunPlan) -> str:
    layout = plan.layout
    topology, chip, bert = layout.topology, layout.topology.chip, layout.bert
    mesh = " x ".join(f"{axis}={size}" for axis, size in layout.mesh.shape.items())
    source = (
        "the train step, compiled for these chips"
        if topology.compiles
        else f"formulas and the chip table; to compile the train step for {chip.name}: "
        'pip install "bert_jax[gpu-plan]"'
    )
    measured = (
        ", float32, measured now (not in the chip table)" if topology.measured else ""
    )
    return "\n".join(
        [
            f"model     {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
            f"{layout.num_params:,} parameters (padded vocabulary), "
            f"{layout.settings.run.dtype}",
            f"chips     {topology.num_chips} x {chip.name} ({topology.name}), mesh "
            f"{mesh}",
            f"per chip  {chip.peak_flops / 1e12:,.4g} TFLOP/s, "
            f"{gib(chip.memory_bytes)}, {chip.memory_bandwidth / 1e9:,.4g} GB/s"
            f"{measured}",
            f"source    {source}",
        ]
    )


def _phases(plan: costs.RunPlan) -> list[list[str]]:
    """Returns the table with one column per phase."""
    layout, phases = plan.layout, plan.phases
    run = layout.settings.run

    def row(name: str, cell: Callable[[costs.PhasePlan], str]) -> list[str]:
        return [name, *map(cell, phases)]

    return [
        row("sequence length", lambda x: f"{x.length:,}"),
        row("steps", lambda x: UNKNOWN if x.steps is None else f"{x.steps:,}"),
        row("sequences per step", lambda x: f"{run.batch_size:,}"),
        row("micro-batch per chip", lambda x: f"{layout.micro_batch_rows:,g}"),
        row("attention kernel", lambda x: _kernel(plan, x)),
        row("parameters per chip", lambda x: gib(layout.params_bytes)),
        row("optimizer state per chip", lambda x: gib(layout.optimizer_bytes)),
        row("activations, gradients per chip", lambda x: gib(x.cost.temporary_bytes)),
        row("peak memory per chip", lambda x: gib(x.cost.peak_bytes)),
        row("model TFLOP per chip (formula)", lambda x: tera(x.cost.useful_flops)),
        row("TFLOP per chip, all matmuls", lambda x: tera(x.cost.flops)),
        row("main memory traffic, GB", lambda x: giga(x.cost.main_bytes)),
        row("compute ms", lambda x: ms(x.time.compute)),
        row("memory ms", lambda x: ms(x.time.memory)),
        row("comm. ms", lambda x: ms(x.time.communication)),
        row("step ms, lower bound", lambda x: ms(x.time.seconds)),
        row("MFU, upper bound", lambda x: f"{x.time.utilization:.1%}"),
    ]


def _kernel(plan: costs.RunPlan, phase: costs.PhasePlan) -> str:
    return costs.attention_kernel(plan.layout, phase.length).kernel


def _communication(plan: costs.RunPlan) -> list[str]:
    """Returns the table of collectives."""
    rows = [
        [str(phase.length), *_collective(one, plan)]
        for phase in plan.phases
        for one in phase.cost.collectives
    ]
    if not rows:
        return ["no collectives", ""]
    header = ["L", "collective", "chips", "count", "GB", "GB sent per chip", "ms"]
    return [console.table([header, *rows], left=(1,)), ""]


def _collective(one: hlo.Collective, plan: costs.RunPlan) -> Sequence[str]:
    seconds = costs.collective_seconds(one, plan.layout.topology)
    sizes = (giga(one.bytes), giga(one.sent), ms(seconds))
    return (one.kind, str(one.group), f"{one.count:,}", *sizes)


def _whole_run(plan: costs.RunPlan) -> list[str]:
    """Returns the lower bound of time and cost of the whole run."""
    if plan.hours is None or plan.tokens is None or plan.chip_hours is None:
        return [
            "whole run: unknown, as the length of an epoch depends on the store: set "
            "run.num_train_steps"
        ]
    text = (
        f"whole run: {plan.tokens:,} tokens, at least {number(plan.hours)} hours, "
        f"{number(plan.chip_hours)} chip-hours"
    )
    price = plan.layout.topology.chip.dollars
    if plan.dollars is None or price is None:
        return [text]
    return [
        f"{text}, {number(plan.dollars)} USD",
        f"price: {price:.2f} USD per chip-hour ({devices.PRICES})",
    ]


def _advice(
    plan: costs.RunPlan,
    largest: search.FittingSettings | None,
    change: search.FittingSettings | None,
) -> list[str]:
    lines = [_largest(plan, largest)]
    if plan.fits:
        return lines
    for phase in plan.phases:
        if phase.refusal:
            lines.append(f"compiler error at length {phase.length}: {phase.refusal}")
    if change is None:
        lines.append(
            "no single change makes it fit: change several settings, or the chips"
        )
    else:
        lines.append(
            f"to make it fit: --config.{change.change} ({gib(change.peak_bytes)} per "
            f"chip, {_by(change)})"
        )
    return lines


def _largest(plan: costs.RunPlan, largest: search.FittingSettings | None) -> str:
    if largest is None:
        return "largest batch that fits: none, not even one sequence per chip"
    parts = plan.layout.settings.run.batch_size / plan.layout.micro_batch_rows
    rows = largest.settings.run.batch_size / parts
    return (
        f"largest batch that fits: {rows:g} sequences per chip and micro-batch "
        f"({largest.change}), {gib(largest.peak_bytes)}, {_by(largest)}"
    )


def _by(found: search.FittingSettings) -> str:
    return "compiled" if found.compiled else "by formula"


def _notes(plan: costs.RunPlan) -> list[str]:
    """Returns the limits of the figures."""
    notes = []
    topology = plan.layout.topology
    counted = [x.compiled for x in plan.phases if x.compiled and not x.refusal]
    if any(x.cost.unknown_loops for x in counted):
        notes.append("loops with unknown trip counts are counted once")
    if any(x.cost.unknown_kernels for x in counted):
        notes.append(
            "FLOPs of unknown kernels are not counted: the total is at least the "
            "formula's"
        )
    if counted and topology.name not in topologies.HERE and topology.chip.cores:
        notes.append(
            "missing without a GPU: autotuning; matrix products have the compiler's "
            "default tiles"
        )
        if any(_kernel(plan, x) == attention.CUDNN for x in plan.phases):
            notes.append(
                "missing without a GPU: the workspace of cuDNN's attention, and shapes "
                "that cuDNN would reject"
            )
    if any(x.refusal for x in plan.phases):
        notes.append("figures of phases that do not compile are by formula")
    if plan.layout.settings.data.pack:
        notes.append(
            "sequences are packed: attention is counted over whole sequences, which is "
            "an upper bound"
        )
    return notes


def comparison(rows: Sequence[tuple[str, costs.RunPlan]]) -> str:
    """Returns a table of named plans: the longest phase of each."""
    header = [
        "",
        "chips",
        "GiB",
        "of",
        "compute ms",
        "memory ms",
        "comm. ms",
        "tokens/s",
        "MFU",
        "hours",
        "USD",
        "fits",
        "bound by",
    ]
    table = [header]
    for name, plan in rows:
        longest, topology = plan.longest, plan.layout.topology
        times = longest.time
        tokens = plan.layout.settings.run.batch_size * longest.length
        peak = max(x.cost.peak_bytes for x in plan.phases)
        table.append(
            [
                name,
                str(topology.num_chips),
                f"{peak / _GIB:.2f}",
                f"{topology.chip.memory_bytes / _GIB:.2f}",
                ms(times.compute),
                ms(times.memory),
                ms(times.communication),
                f"{tokens / times.seconds:,.0f}",
                f"{times.utilization:.1%}",
                UNKNOWN if plan.hours is None else number(plan.hours),
                UNKNOWN if plan.dollars is None else number(plan.dollars),
                "yes" if plan.fits else "no",
                plan.bound,
            ]
        )
    return console.table(table, left=(0, 12))


def gib(size: int | float) -> str:
    """Returns bytes in GiB.

    >>> gib(16 * 2**30)
    '16.00 GiB'
    """
    return f"{size / _GIB:,.2f} GiB"


def giga(size: int | float) -> str:
    """Returns a number in units of 1e9, with three significant digits."""
    return number(size / 1e9)


def tera(work: int | float) -> str:
    """Returns a number in units of 1e12, with three significant digits."""
    return number(work / 1e12)


def ms(seconds: int | float) -> str:
    """Returns seconds as milliseconds, with three significant digits."""
    return number(seconds * 1000)


def number(value: int | float) -> str:
    """Returns a number with three significant digits, and all integer digits.

    >>> number(1234.5), number(12.345), number(0.012345), number(0)
    ('1,234', '12.3', '0.0123', '0')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
