"""A plan as people read it: what it needs, how long, how much, and whether it fits."""

from collections.abc import Sequence

from bert_jax.planning import (
    collectives,
    estimate,
    fitting,
    plan_making,
    prediction,
)
from bert_jax.reporting import text_table
from bert_jax.training import chips

_GIB = 2.0**30
UNKNOWN = "-"


def report(
    plan: plan_making.Plan,
    largest: fitting.Found | None,
    change: fitting.Found | None,
) -> str:
    """Returns the whole plan; its last two lines say whether it fits, and its bound.

    Args:
      largest: the settings with the largest batch that fits, or None if none does.
      change: of a plan that does not fit, what makes it fit.
    """
    return "\n".join(
        [
            _head(plan),
            "",
            text_table.table(_needs(plan)),
            "",
            *_talk(plan),
            *_recipe(plan),
            *_advice(plan, largest, change),
            *_notes(plan),
            "",
            verdict(plan),
        ]
    )


def verdict(plan: plan_making.Plan) -> str:
    """Returns the two lines that end every plan."""
    fits = "yes" if plan.fits else "no"
    return f"fits: {fits}\nbound by: {plan.bound}"


def _head(plan: plan_making.Plan) -> str:
    layout = plan.layout
    topology, chip, bert = layout.topology, layout.topology.chip, layout.bert
    mesh = " x ".join(f"{axis}={size}" for axis, size in layout.mesh.shape.items())
    source = (
        "the train step, compiled for these chips"
        if topology.compiles
        else f"formulas and the table of chips: nothing compiles for {chip.name} here"
    )
    measured = (
        ", float32, measured now: the table of chips lacks it"
        if topology.measured
        else ""
    )
    return "\n".join(
        [
            f"model     {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
            f"{layout.num_params:,} parameters (vocabulary padded), "
            f"{layout.settings.run.dtype}",
            f"chips     {topology.num_chips} x {chip.name} ({topology.name}), mesh "
            f"{mesh}",
            f"a chip    {chip.peak_flops / 1e12:,.4g} TFLOP/s, "
            f"{gib(chip.memory_bytes)}, {chip.memory_bandwidth / 1e9:,.4g} GB/s"
            f"{measured}",
            f"source    {source}",
        ]
    )


def _needs(plan: plan_making.Plan) -> list[list[str]]:
    """Returns the table with a column a phase."""
    layout, phases = plan.layout, plan.phases
    run = layout.settings.run

    def row(name: str, cell) -> list[str]:
        return [name, *(cell(phase) for phase in phases)]

    made = [
        row("tokens in a row", lambda x: f"{x.length:,}"),
        row("steps", lambda x: UNKNOWN if x.steps is None else f"{x.steps:,}"),
        row("rows a step", lambda x: f"{run.batch_size:,}"),
        row("rows a chip at a time", lambda x: f"{layout.rows_a_chip:,g}"),
        row("attention", lambda x: estimate.attention(layout, x.length).kernel),
        row("parameters a chip", lambda x: gib(layout.params_bytes)),
        row("optimizer a chip", lambda x: gib(layout.optimizer_bytes)),
        row("activations, gradients a chip", lambda x: gib(_temporary(x))),
        row("peak a chip", lambda x: gib(_peak(x))),
        row("TFLOP a chip, formula", lambda x: tera(x.needs.useful_flops)),
        row("TFLOP a chip, all products", lambda x: tera(x.needs.flops)),
        row("GB moved, main memory", lambda x: giga(x.needs.main_bytes)),
    ]
    if any(x.compiled is not None and not x.refusal for x in phases):
        made += _reported(plan)
    times = [
        ("ms to compute", lambda x: ms(x.prediction.compute)),
        ("ms to move", lambda x: ms(x.prediction.memory)),
        ("ms to communicate", lambda x: ms(x.prediction.communication)),
        ("ms a step, at least", lambda x: ms(x.prediction.seconds)),
        ("utilisation, at most", lambda x: f"{x.prediction.utilisation:.1%}"),
    ]
    return made + [row(name, cell) for name, cell in times]


def _reported(plan: plan_making.Plan) -> list[list[str]]:
    """Returns what XLA's own account says, beside ours."""
    every, flops, moved = (
        ["GB moved, all memories"],
        ["TFLOP, XLA's account *"],
        ["GB moved, XLA's account *"],
    )
    for phase in plan.phases:
        compiled = phase.compiled
        if compiled is None or compiled.refusal:
            cells = (UNKNOWN,) * 3
        else:
            cells = (
                giga(compiled.cost.bytes),
                tera(compiled.reported_flops),
                giga(compiled.reported_bytes),
            )
        for row, cell in zip((every, flops, moved), cells, strict=True):
            row.append(cell)
    return [every, flops, moved]


def _temporary(phase: plan_making.Phase) -> float:
    return phase.needs.temporary_bytes


def _peak(phase: plan_making.Phase) -> float:
    return phase.needs.peak_bytes


def _talk(plan: plan_making.Plan) -> list[str]:
    """Returns the table of collectives, if the chips talk at all."""
    rows = [
        [str(phase.length), *_collective(one, plan)]
        for phase in plan.phases
        for one in phase.needs.talk
    ]
    if not rows:
        return ["no collectives", ""]
    header = ["L", "collective", "chips", "count", "GB", "GB sent a chip", "ms"]
    return [text_table.table([header, *rows], left=(1,)), ""]


def _collective(one: collectives.Collective, plan: plan_making.Plan) -> Sequence[str]:
    seconds = prediction.talk_seconds(one, plan.layout.topology)
    sizes = (giga(one.bytes), giga(one.sent), ms(seconds))
    return (one.kind, str(one.group), f"{one.count:,}", *sizes)


def _recipe(plan: plan_making.Plan) -> list[str]:
    """Returns what the whole run takes, at least."""
    if plan.hours is None or plan.tokens is None or plan.chip_hours is None:
        return [
            "whole run: unknown, for epochs of a store that is not read: set "
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
        f"price: {price:.2f} USD a chip-hour ({chips.PRICES})",
    ]


def _advice(
    plan: plan_making.Plan,
    largest: fitting.Found | None,
    change: fitting.Found | None,
) -> list[str]:
    made = []
    if largest is not None:
        run = largest.settings.run
        parts = plan.layout.settings.run.batch_size / plan.layout.rows_a_chip
        rows = run.batch_size / parts
        made.append(
            f"largest batch that fits: {rows:g} rows a chip at a time "
            f"({largest.change}), {gib(largest.peak_bytes)}, {_by(largest)}"
        )
    else:
        made.append("largest batch that fits: none, not even one row a chip")
    if plan.fits:
        return made
    for phase in plan.phases:
        if phase.refusal:
            made.append(f"the compiler at {phase.length} tokens: {phase.refusal}")
    if change is None:
        made.append("no change of one setting makes it fit: change several, or chips")
    else:
        made.append(
            f"to make it fit: --config.{change.change} ({gib(change.peak_bytes)} a "
            f"chip, {_by(change)})"
        )
    return made


def _by(found: fitting.Found) -> str:
    return "compiled" if found.compiled else "by formula"


def _notes(plan: plan_making.Plan) -> list[str]:
    """Returns what limits the figures."""
    made = []
    counted = [x.compiled for x in plan.phases if x.compiled and not x.refusal]
    if counted:
        made.append(
            "* XLA counts a loop once, adds single operations to the products and fast "
            "memory to the bytes; ours count every trip, and products alone"
        )
    if any(x.unknown_loops for x in counted):
        made.append("some loops have trips that are not known, and count once")
    if any(x.cost.unknown_kernels for x in counted):
        made.append(
            "kernels whose work is not known: products are at least the formula's"
        )
    if any(x.refusal for x in plan.phases):
        made.append("what does not compile is shown by formula")
    if plan.layout.settings.data.pack:
        made.append(
            "rows are packed: attention is counted over whole rows, which is its most"
        )
    return made


def comparison(rows: Sequence[tuple[str, plan_making.Plan]]) -> str:
    """Returns a table of plans, by name: the longest phase of each."""
    header = [
        "",
        "chips",
        "GiB",
        "of",
        "compute ms",
        "move ms",
        "talk ms",
        "tokens/s",
        "utilisation",
        "hours",
        "USD",
        "fits",
        "bound by",
    ]
    table = [header]
    for name, plan in rows:
        longest, topology = plan.longest, plan.layout.topology
        times = longest.prediction
        tokens = plan.layout.settings.run.batch_size * longest.length
        peak = max(x.needs.peak_bytes for x in plan.phases)
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
                f"{times.utilisation:.1%}",
                UNKNOWN if plan.hours is None else number(plan.hours),
                UNKNOWN if plan.dollars is None else number(plan.dollars),
                "yes" if plan.fits else "no",
                plan.bound,
            ]
        )
    return text_table.table(table, left=(0, 12))


def gib(size: int | float) -> str:
    """Returns bytes in GiB.

    >>> gib(16 * 2**30)
    '16.00 GiB'
    """
    return f"{size / _GIB:,.2f} GiB"


def giga(size: int | float) -> str:
    """Returns a number in thousands of millions, with three figures."""
    return number(size / 1e9)


def tera(work: int | float) -> str:
    """Returns a number in millions of millions, with three figures."""
    return number(work / 1e12)


def ms(seconds: int | float) -> str:
    """Returns seconds in milliseconds, with three figures."""
    return number(seconds * 1000)


def number(value: int | float) -> str:
    """Returns a number with three figures, and all those before the point.

    >>> number(1234.5), number(12.345), number(0.012345), number(0)
    ('1,234', '12.3', '0.0123', '0')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
