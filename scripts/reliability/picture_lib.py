"""The plot of a soak: memory, handles and disk usage by step.

A library of inject_faults.py.
"""

from collections.abc import Sequence
from pathlib import Path

import growth_lib
from matplotlib import ticker
from matplotlib.axes import Axes

from bert_jax.training import curves

_PANELS = (
    ("Resident memory", "MB", {"memory": 1.0}),
    ("Handles and threads", "number", {"handles": 1.0, "threads": 1.0}),
    ("Bytes on disk", "MB", {"saved": 1e-6, "logged": 1e-6}),
    ("Checkpoints", "number", {"checkpoints": 1.0}),
)
_NAMES = {
    "memory": "of the process",
    "handles": "open handles",
    "threads": "threads",
    "saved": "checkpoints",
    "logged": "metrics, events, examples",
    "checkpoints": "finished checkpoints",
}


def draw(
    samples: Sequence[growth_lib.Sample],
    grown: growth_lib.Growth,
    path: Path,
) -> None:
    """Writes the plot as PNG."""
    figure = curves.blank(12, 8.5)
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (title, unit, names) in zip(panels, _PANELS, strict=True):
        curves.style(axes, title, unit)
        _draw(axes, samples, names)
    warm = growth_lib.WARM_UP * samples[-1].step
    text = f"{grown.memory:+.2f} MB per 1,000 steps after step {warm:,.0f}"
    figure.axes[0].lines[0].set_label(text)
    for axes in figure.axes:
        # Below the axes, where it covers no line.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
                    frameon=False, fontsize=9, labelcolor=curves.INK)  # fmt: skip
    path.write_bytes(curves.encode(figure))


def _draw(
    axes: Axes, samples: Sequence[growth_lib.Sample], names: dict[str, float]
) -> None:
    steps = [sample.step for sample in samples]
    for color, (name, unit) in zip(curves.COLORS, names.items(), strict=False):
        values = [unit * getattr(sample, name) for sample in samples]
        axes.plot(steps, values, color=color, lw=1.0, label=_NAMES[name])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_xlabel("step", fontsize=10, color="#6b7280")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
