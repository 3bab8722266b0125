"""Scores as text, and the files of an evaluation.

`NAME.json` has all numbers in full precision, `NAME_confusion.png` and
`NAME_reliability.png` are plots of them, `NAME_errors.tsv` lists the worst errors. Each
file appears only when it is complete, and is removed if a later evaluation has no such
result.

Class names in plots need an installed font with all their characters, or one of
`_FONT_PACKAGES`. Without one, as for Chinese on many servers, classes are shown by
number, in the order of the table, and a warning explains how to install a font.
"""

import functools
import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes

from bert_jax import console, errors
from bert_jax.foundation import files
from bert_jax.metrics import scores
from bert_jax.training import curves

_MAX_CONFUSION = 12  # classes: a wider matrix does not fit into a terminal
_LINE = 100  # columns of the text of an error
_HEADING = 12  # columns of a class in the header of the confusion matrix
_ERROR_COLUMNS = ("badness", "where", "expected", "found", "text")
_NUMBERED = "classes by number, in the order of the table"
# Packages with fonts that have Chinese characters; nothing registers these fonts.
_FONT_PACKAGES = ("zhplot", "mplfonts", "matplotlib_fontja")
_FONT_ENDINGS = (".ttf", ".otf", ".ttc")
_MAX_COUNTS = 30  # classes: numbers in smaller cells are illegible
_NAME_COLUMNS = 24
_GREY = "#6b7280"

_log = logging.getLogger(__name__)


def text(scored: scores.Scores, max_errors: int = 10) -> str:
    """Returns the metrics, the classes, the confusion and the worst errors."""
    blocks = [_metrics(scored)]
    if scored.unseen:
        blocks.append(_unseen(scored.unseen))
    if scored.classes:
        blocks.append(_classes(scored))
    if scored.confusion and len(scored.confusion.labels) <= _MAX_CONFUSION:
        blocks.append(_confusion(scored.confusion))
    if scored.errors and max_errors:
        blocks.append(_errors(scored.errors[:max_errors]))
    return "\n\n".join(blocks)


def _metrics(scored: scores.Scores) -> str:
    """Returns one line per metric, without those that repeat the accuracy.

    If each example has exactly one class, true and predicted, micro averages are the
    accuracy by definition.
    """
    shown = scored.metrics
    if "accuracy" in shown:
        shown = {n: x for n, x in shown.items() if not n.startswith("micro_")}
    positive = _cell(scored.positive)
    rows = [
        [console.visible(scores.named(n, positive)), _number(x)]
        for n, x in shown.items()
    ]
    return console.table([["metric", "value"], *rows])


def _unseen(counts: Mapping[str, int]) -> str:
    """Returns the labels not seen in training, one per line."""
    rows = [[_cell(label), f"{count:,}"] for label, count in counts.items()]
    head = ["labels not seen in training (errors)", "count"]
    return console.table([head, *rows])


def _classes(scored: scores.Scores) -> str:
    """Returns one line per class."""
    names = list(dict.fromkeys(name for row in scored.classes for name in row))
    rows = [
        [_cell(row[name]) if name in row else "-" for name in names]
        for row in scored.classes
    ]
    return console.table([names, *rows])


def _confusion(confusion: scores.Confusion) -> str:
    """Returns the matrix: one row per true class, one column per predicted class."""
    heads = [
        console.shorten(console.visible(label), _HEADING) for label in confusion.labels
    ]
    rows = [
        [_cell(label), *(f"{x:,}" for x in counts)]
        for label, counts in zip(confusion.labels, confusion.counts, strict=True)
    ]
    return console.table([["true \\ predicted", *heads], *rows])


def _errors(wrong: tuple[scores.PredictionError, ...]) -> str:
    lines = ["the worst errors"]
    for number, error in enumerate(wrong, start=1):
        expected, predicted = _cell(error.expected), _cell(error.predicted)
        lines += [
            f"{number:>3}. {error.severity:.4f}  {expected}, predicted as {predicted}  "
            f"({console.visible(error.where)})",
            f"     {console.shorten(console.visible(error.text), _LINE)}",
        ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return console.shorten(console.visible(value), _LINE // 2)
    return _number(value)


def _number(value: float | int) -> str:
    """Returns a float with four decimals, or an integer.

    >>> _number(0.87654), _number(12345), _number(float("nan"))
    ('0.8765', '12,345', 'undefined')
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if math.isfinite(value) else "undefined"


def write(
    scored: scores.Scores, folder: Path, name: str, about: Mapping[str, Any]
) -> list[Path]:
    """Writes the files of an evaluation, and returns those that it has.

    `NAME.json` is an object with `about`, `metrics`, `classes`, `confusion` (labels and
    counts[true][predicted]), `calibration` (the bins, or null), `unseen_labels` (label
    not seen in training -> how often it is true), and `errors`. A metric that is not
    finite is null.

    Args:
      scored: the scores.
      folder: created if missing.
      name: the stem of the files, as `dev`.
      about: the data and the model that were scored; a JSON object.

    Raises:
      StorageError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.StorageError(
            f"cannot create the folder {folder}: {error.strerror}"
        ) from None
    contents = {
        ".json": _json(scored, about),
        "_confusion.png": scored.confusion and plot_confusion(scored.confusion),
        "_reliability.png": scored.confidences and plot_reliability(scored.confidences),
        "_errors.tsv": _tsv(scored.errors) if scored.errors else None,
    }
    written = []
    for ending, content in contents.items():
        path = folder / f"{name}{ending}"
        if content is None:
            files.remove(path)
            continue
        with files.writing(path) as file:
            file.write(content)
        written.append(path)
    return written


def _json(scored: scores.Scores, about: Mapping[str, Any]) -> bytes:
    tree = {
        "about": dict(about),
        "metrics": scored.metrics,
        "classes": scored.classes,
        "confusion": scored.confusion
        and {
            "labels": scored.confusion.labels,
            "counts": scored.confusion.counts.tolist(),
        },
        "calibration": scored.confidences and _calibration(scored.confidences),
        "unseen_labels": dict(scored.unseen),
        "errors": [_error(error) for error in scored.errors],
    }
    content = json.dumps(_finite(tree), indent=2, ensure_ascii=False, allow_nan=False)
    # An unpaired surrogate is written as a JSON escape.
    return f"{content}\n".encode("utf-8", "backslashreplace")


def _error(error: scores.PredictionError) -> dict[str, Any]:
    return {
        "badness": error.severity,
        "where": error.where,
        "text": error.text,
        "expected": error.expected,
        "found": error.predicted,
    }


def _calibration(confidences: scores.Confidences) -> list[dict[str, Any]]:
    bins = scores.calibration(confidences)
    columns = (bins.edges[:-1], bins.edges[1:], bins.counts, bins.confidences)
    names = ("above", "up_to", "count", "confidence", "accuracy")
    rows = zip(
        *(column.tolist() for column in (*columns, bins.accuracies)), strict=True
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _finite(tree: Any) -> Any:
    """Returns the tree with None for each number that JSON cannot represent."""
    if isinstance(tree, Mapping):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree


def _tsv(wrong: tuple[scores.PredictionError, ...]) -> bytes:
    r"""Returns one line per error, the worst first; a tab within a text is \t."""
    lines = ["\t".join(_ERROR_COLUMNS)]
    for error in wrong:
        texts = (error.where, error.expected, error.predicted, error.text)
        lines.append("\t".join([f"{error.severity:.6f}", *map(console.visible, texts)]))
    return "".join(f"{line}\n" for line in lines).encode()


def plot_confusion(counted: scores.Confusion) -> bytes:
    """Returns the confusion matrix, colored by the fraction of each row."""
    count = len(counted.labels)
    side = min(max(4.5, 2.2 + 0.55 * count), 16.0)
    cell = (side - 2.2) / count  # inches, approximately
    figure = curves.blank(side + 0.8, side)
    axes = figure.subplots()
    totals = counted.counts.sum(axis=1, keepdims=True)
    fractions = counted.counts / totals.clip(min=1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    title = {"fontsize": 13, "fontweight": "bold", "color": curves.INK}
    axes.set_title("Confusion", loc="left", **title)
    axes.set_ylabel("true", fontsize=10, color=_GREY)
    axes.set_xlabel("predicted", fontsize=10, color=_GREY)
    axes.tick_params(colors=curves.INK, length=0)
    axes.spines[:].set_visible(False)
    _name_classes(axes, counted.labels, cell)
    if count <= _MAX_COUNTS:
        size = max(5.0, min(11.0, 15 * cell))
        for row, column in np.argwhere(counted.counts).tolist():
            number = counted.counts[row, column]
            color = "white" if fractions[row, column] > 0.55 else curves.INK
            axes.text(column, row, f"{number:,}", ha="center", va="center",
                      color=color, fontsize=size)  # fmt: skip
    return curves.encode(figure)


def _name_classes(axes: Axes, labels: tuple[str, ...], cell: float) -> None:
    """Labels both axes with names, or with numbers and a note about them."""
    names = [console.shorten(console.visible(x), _NAME_COLUMNS) for x in labels]
    font = font_with("".join(names))
    if font is None:
        _log.warning(
            "no font has all the characters of the labels (%s), so plots show classes "
            'by number. Install one: pip install "bert_jax[zh]" for Chinese, or '
            "apt-get install fonts-noto",
            console.shorten(", ".join(names), 2 * _NAME_COLUMNS),
        )
        names = [str(number) for number in range(len(labels))]
        axes.set_title(_NUMBERED, loc="right", fontsize=10, color=_GREY)
    ticks = range(len(names))
    size = 10 if len(names) <= _MAX_COUNTS else max(3.0, 300 / len(names))
    widest = 0.09 * max(map(console.width, names))
    slant = 0 if widest <= cell else 45
    axes.set_xticks(ticks, names, rotation=slant, rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    for text in axes.get_xticklabels():
        text.set_horizontalalignment("right" if slant else "center")
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set_fontproperties(font)
        text.set_fontsize(size)
        text.set_parse_math(False)  # a class may be named $x$


def font_with(characters: str) -> font_manager.FontProperties | None:
    """Returns an installed font that has all the characters, or None.

    matplotlib's own comes first, then upright and regular ones. Fonts that have a box
    for each character do not count. If none of the fonts known to matplotlib fits,
    those installed since, and those of `_FONT_PACKAGES`, are added.
    """
    font = _listed_font(characters)
    return _listed_font(characters) if font is None and _add_fonts() else font


@functools.cache
def _add_fonts() -> bool:
    """Adds the fonts missing from matplotlib's list, which is created once and kept.

    Returns whether there are any.
    """
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    new = {*font_manager.findSystemFonts(), *_fonts_of_packages()} - listed
    for path in sorted(new):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError) as error:
            _log.debug("%s is not a font that matplotlib can read: %s", path, error)
    return bool(new)


def _fonts_of_packages() -> list[str]:
    """Returns the font files of installed packages, without importing these."""
    found: list[str] = []
    for name in _FONT_PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in spec.submodule_search_locations or () if spec else ():
            files = Path(folder).rglob("*")
            found += [str(x) for x in files if x.suffix.lower() in _FONT_ENDINGS]
    return found


def _listed_font(characters: str) -> font_manager.FontProperties | None:
    """Returns a font in matplotlib's list with all the characters, or None."""
    needed = set(map(ord, characters)) - {ord(" ")}
    for entry in sorted(font_manager.fontManager.ttflist, key=_preference):
        if not entry.name.startswith("Last Resort") and _has(entry.fname, needed):
            return font_manager.FontProperties(fname=entry.fname)
    return None


def _preference(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str, str]:
    return (
        entry.name != "DejaVu Sans",
        entry.style != "normal",
        str(entry.weight) not in ("400", "regular", "normal", "book"),
        entry.name,
        str(entry.fname),
    )


def _has(path: str, needed: set[int]) -> bool:
    """Reports whether a font has these code points at any size."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):  # moved since it was listed, or unreadable
        return False
    return bool(font.scalable) and needed <= font.get_charmap().keys()


def plot_reliability(confidences: scores.Confidences) -> bytes:
    """Returns accuracy by confidence in 15 bins, and the number of examples in each."""
    bins = scores.calibration(confidences)
    figure = curves.blank(6.5, 7.5)
    upper, lower = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
    curves.style(upper, "Reliability", f"ECE {bins.expected_error:.4f}")
    curves.style(lower, "Examples", "in each bin")
    _plot_accuracies(upper, bins)
    lower.bar(bins.edges[:-1], bins.counts, 1 / len(bins.counts), align="edge",
              color=curves.COLORS[0], edgecolor="white")  # fmt: skip
    lower.set_xlabel("confidence", fontsize=10, color=_GREY)
    lower.set_xlim(0, 1)
    return curves.encode(figure)


def _plot_accuracies(axes: Axes, bins: scores.CalibrationBins) -> None:
    """Plots the accuracy of each bin, and its gap to the confidence."""
    filled = bins.counts > 0
    left, width = bins.edges[:-1][filled], 1 / len(bins.counts)
    accuracy, confidence = bins.accuracies[filled], bins.confidences[filled]
    axes.bar(left, accuracy, width, align="edge", color=curves.COLORS[0],
             edgecolor="white", label="accuracy")  # fmt: skip
    axes.bar(left, confidence - accuracy, width, bottom=accuracy, align="edge",
             alpha=0.25, color=curves.COLORS[1], hatch="//", edgecolor=curves.COLORS[1],
             label="gap to the confidence")  # fmt: skip
    axes.plot([0, 1], [0, 1], color=_GREY, lw=1.3, ls=(0, (4, 3)),
              label="perfectly calibrated")  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy", fontsize=10, color=_GREY)
    axes.legend(loc="upper left", frameon=True, framealpha=0.85, edgecolor="none",
                fontsize=10, labelcolor=curves.INK)  # fmt: skip
