"""The picture of a run: losses, accuracies, learning rate and throughput by step.

It knows nothing of tasks: the last part of a name ("eval/mlm_loss" -> "mlm_loss")
selects the panel of a series, its first part marks it as training or evaluation.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

# What belongs to the scores: shares, and correlations.
_SCORES = ("accuracy", "entity_f1", "role_f1", "/f1", "spearman", "matthews", "mrr")
# (title, which metrics, unit of the axis)
_PANELS = (
    ("Loss", lambda name: name.endswith("loss"), "nats"),
    ("Scores", lambda name: name.endswith(_SCORES), "percent"),
    ("Learning rate", lambda name: _metric(name) == "learning_rate", "rate"),
    ("Throughput", lambda name: _metric(name) == "tokens_per_second", "tokens / s"),
)
COLORS = ("#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#475569")
INK, FAINT = "#1f2937", "#e5e7eb"

_FEW = 40  # points; up to that many get a marker each

Series = dict[str, list[tuple[int, float]]]


def png(lines: Sequence[dict[str, Any]]) -> bytes:
    """Returns a PNG that plots the lines of `metrics.jsonl`."""
    series = _series(lines)
    colors = _colors(series)
    figure = blank(12, 8.5)
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (title, belongs, unit) in zip(panels, _PANELS, strict=True):
        chosen = {n: points for n, points in series.items() if belongs(n)}
        style(axes, title, unit)
        _label(axes, unit)
        _draw(axes, chosen, colors)
    return encode(figure)


def blank(width: int | float, height: int | float) -> Figure:
    """Returns an empty figure; width and height are in inches, at 120 dpi."""
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    backend_agg.FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12, wspace=0.03)
    return figure


def encode(figure: Figure) -> bytes:
    """Returns a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _series(lines: Sequence[dict[str, Any]]) -> Series:
    """Returns the points (step, value) of every name, without nulls."""
    result: Series = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                result.setdefault(name, []).append((line["step"], float(value)))
    return result


def _metric(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _subject(name: str) -> str:
    """Returns the subject of a series, however it is measured.

    >>> _subject("train/mlm_loss"), _subject("eval/mlm_accuracy"), _subject("eval/loss")
    ('mlm', 'mlm', '')
    """
    return re.sub(r"_?(loss|accuracy)\Z", "", _metric(name))


def _colors(series: Series) -> dict[str, str]:
    """Returns a color for each subject of losses and scores, the same in both panels.

    The other panels have one series each, in the first color.
    """
    shared = [name for name in series if any(x[1](name) for x in _PANELS[:2])]
    subjects = sorted({_subject(name) for name in shared})
    return {subject: COLORS[at % len(COLORS)] for at, subject in enumerate(subjects)}


def style(axes: Axes, title: str, unit: str) -> None:
    """Styles axes for this project: title left, unit right, a faint grid."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK)
    axes.set_title(unit, loc="right", fontsize=10, color="#6b7280")
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, colors=INK, length=0, labelbottom=True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")


def _label(axes: Axes, unit: str) -> None:
    axes.set_xlabel("step", fontsize=10, color="#6b7280")
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    if unit == "percent":
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1, symbol=" %"))
    elif unit == "tokens / s":
        axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=" "))
    elif unit == "rate":
        axes.yaxis.set_major_formatter(lambda rate, _: _scientific(rate))


def _scientific(rate: float) -> str:
    """Returns a rate as in a recipe.

    >>> _scientific(0.0025), _scientific(0.0)
    ('2.5e-3', '0')
    """
    return f"{rate:.1e}".replace("e-0", "e-").replace("e+00", "") if rate else "0"


def _draw(axes: Axes, series: Series, colors: Mapping[str, str]) -> None:
    """Plots the series: one color a subject, training thin, evaluation with dots."""
    if not series:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center",
                  va="center", color="#9ca3af", fontsize=11)  # fmt: skip
        return
    for name, points in sorted(series.items(), key=lambda item: _metric(item[0])):
        color = colors.get(_subject(name), COLORS[0])
        is_only = sum(_metric(other) == _metric(name) for other in series) == 1
        _line(axes, name, points, color, is_only=is_only)
    values = [value for points in series.values() for _, value in points]
    if min(values) >= 0:
        axes.set_ylim(bottom=0, top=max(values) * 1.06 or 1.0)
    if len(series) > 1:
        # Below the axes, where it hides no line.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
                    frameon=False, fontsize=9, labelcolor=INK)  # fmt: skip


def _line(
    axes: Axes,
    name: str,
    points: list[tuple[int, float]],
    color: str,
    *,
    is_only: bool,
) -> None:
    steps, values = zip(*points, strict=True)
    if not name.startswith("eval/"):
        marker = "." if len(points) <= _FEW else ""
        style = {"linewidth": 1.2, "alpha": 0.75, "marker": marker}
        axes.plot(steps, values, color=color, label=name, **style)
    elif is_only and len(set(values)) == 1:
        # A baseline: the same at every evaluation, and nothing that is trained.
        label, dashes = f"{name} {values[0]:.3g}", (0, (4, 3))
        axes.axhline(values[0], color=color, lw=1.3, ls=dashes, label=label)
    else:
        axes.plot(steps, values, "o-", color=color, lw=2, markersize=4, label=name)
