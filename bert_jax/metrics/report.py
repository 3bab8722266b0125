"""Scores as text, and the files of an evaluation.

`NAME.json` has all numbers in full precision, `NAME_confusion.png` and
`NAME_reliability.png` are plots of them, `NAME_errors.tsv` lists the worst errors. Each
file appears only when it is complete, and is removed if a later evaluation has no such
result.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_jax import console, errors
from bert_jax.foundation import files
from bert_jax.metrics import plots, scores

_MAX_CONFUSION = 12  # classes: a wider matrix does not fit into a terminal
_LINE = 100  # columns of the text of an error
_HEADING = 12  # columns of a class in the header of the confusion matrix
_ERROR_COLUMNS = ("badness", "where", "expected", "found", "text")


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
        "_confusion.png": scored.confusion and plots.confusion(scored.confusion),
        "_reliability.png": scored.confidences
        and plots.reliability(scored.confidences),
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
