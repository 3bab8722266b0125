"""How the ids of one text, or of two, are joined with special tokens into a sequence.

BERT:    [CLS] a [SEP]          [CLS] a [SEP] b [SEP]      token types 0 and 1
RoBERTa: <s> a </s>             <s> a </s></s> b </s>      all token types 0
"""

import dataclasses
from typing import Any

from bert_jax import errors

# The parts of a sequence in order: "A", "B" or the id of a special token; and the token
# type of each.
Parts = tuple[tuple[int | str, int], ...]


@dataclasses.dataclass(frozen=True)
class RowTemplate:
    """The parts of a sequence of one text, and of one of two texts."""

    single: Parts
    pair: Parts

    def build(
        self, ids_a: list[int], ids_b: list[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Returns the ids of a sequence, and the token type of each."""
        texts = {"A": ids_a, "B": ids_b or []}
        ids: list[int] = []
        types: list[int] = []
        for part, type_id in self.single if ids_b is None else self.pair:
            part_ids = texts[part] if isinstance(part, str) else [part]
            ids += part_ids
            types += [type_id] * len(part_ids)
        return ids, types


def bert(cls_id: int, sep_id: int) -> RowTemplate:
    """Returns BERT's template.

    >>> bert(2, 3).build([7, 8], [9])
    ([2, 7, 8, 3, 9, 3], [0, 0, 0, 0, 1, 1])
    """
    single: Parts = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return RowTemplate(single, (*single, ("B", 1), (sep_id, 1)))


def roberta(cls_id: int, sep_id: int) -> RowTemplate:
    """Returns RoBERTa's template.

    >>> roberta(0, 2).build([7, 8], [9])
    ([0, 7, 8, 2, 2, 9, 2], [0, 0, 0, 0, 0, 0, 0])
    """
    single: Parts = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return RowTemplate(single, (*single, (sep_id, 0), ("B", 0), (sep_id, 0)))


def of_post_processor(tree: Any, where: str) -> RowTemplate | None:
    """Reads the `post_processor` of a tokenizer.json; None if it adds no tokens.

    Raises:
      InputError: its type is unknown, or it is broken.
    """
    if tree is None:
        return None
    try:
        return _read(tree)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise errors.InputError(
            f"{where}: its post_processor cannot be read ({type(error).__name__}:"
            f" {error}). Write one of type TemplateProcessing."
        ) from None


def _read(tree: dict[str, Any]) -> RowTemplate | None:
    """Reads a post-processor, or the first one of a sequence that adds tokens."""
    match tree["type"]:
        case "Sequence":
            templates = (_read(inner) for inner in tree["processors"])
            return next((each for each in templates if each is not None), None)
        case "ByteLevel":
            return None
        case "BertProcessing":
            return bert(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "RobertaProcessing":
            return roberta(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "TemplateProcessing":
            special = tree["special_tokens"]
            return RowTemplate(
                _parts(tree["single"], special), _parts(tree["pair"], special)
            )
    raise ValueError(f"type {tree['type']!r} is unknown")


def _parts(template: list[dict[str, Any]], special: dict[str, Any]) -> Parts:
    """Reads one template of a tokenizer.json."""
    parts: list[tuple[int | str, int]] = []
    for entry in template:
        ((kind, part),) = entry.items()
        type_id = _integer(part["type_id"])
        if kind == "Sequence" and part["id"] in ("A", "B"):
            parts.append((part["id"], type_id))
        elif kind == "SpecialToken":
            ids = special[part["id"]]["ids"]
            parts += [(_integer(index), type_id) for index in ids]
        else:
            raise ValueError(f"{entry} is neither a Sequence nor a SpecialToken")
    return tuple(parts)


def _integer(value: Any) -> int:
    """Returns a value that is an id or a token type."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not an id")
    return value
