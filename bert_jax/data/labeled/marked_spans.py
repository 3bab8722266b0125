"""A text whose noun and pronoun are marked: the records of CLUEWSC2020.

    {"text": "...", "target": {"span1_text": "床", "span1_index": 5, "span2_text": ...}}

The first span, a noun, becomes `_床_`, the second, a pronoun, `[它]`, as in CLUE's own
baselines, so that a model of texts can see which two are asked for.
"""

from collections.abc import Mapping
from typing import Any

from bert_jax import errors

_MARKS = {"span1": ("_", "_"), "span2": ("[", "]")}
_PARTS = tuple(f"{span}_{part}" for span in _MARKS for part in ("text", "index"))


def is_target(value: Any) -> bool:
    """Says whether a cell has the two spans of CLUEWSC2020."""
    return isinstance(value, Mapping) and all(part in value for part in _PARTS)


def mark(text: str, target: Mapping[str, Any], where: str) -> str:
    """Returns the text with both spans between their marks.

    Raises:
      InputError: a span does not stand where it says, or both overlap.

    >>> target = {"span1_text": "猫", "span1_index": 0}
    >>> mark("猫说它饿", target | {"span2_text": "它", "span2_index": 2}, "f:1")
    '_猫_说[它]饿'
    """
    places = sorted((*_place(text, target, span, where), span) for span in _MARKS)
    (_, end, _), (start, _, _) = places
    if end > start:
        raise errors.InputError(
            f"{where}: span1 and span2 of the target overlap. Mend the record."
        )
    for start, end, span in reversed(places):
        before, behind = _MARKS[span]
        text = f"{text[:start]}{before}{text[start:end]}{behind}{text[end:]}"
    return text


def _place(
    text: str, target: Mapping[str, Any], span: str, where: str
) -> tuple[int, int]:
    """Returns where a span stands, [start, end)."""
    surface, start = target[f"{span}_text"], target[f"{span}_index"]
    if (
        not isinstance(surface, str)
        or type(start) is not int
        or not surface
        or start < 0
        or not text.startswith(surface, start)
    ):
        raise errors.InputError(
            f"{where}: {span} of the target, {surface!r}, does not stand at character "
            f"{start!r} of the text. Mend the record."
        )
    return start, start + len(surface)
