"""How the ids of one text, or of two, become a row with its special pieces.

BERT:    [CLS] a [SEP]          [CLS] a [SEP] b [SEP]      token types 0 and 1
RoBERTa: <s> a </s>             <s> a </s></s> b </s>      all token types 0
"""

import dataclasses
from typing import Any

from bert_jax import errors

# What a row holds in turn: "A", "B" or the id of a special piece, and its token type.
Template = tuple[tuple[int | str, int], ...]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of rows of one text and of two."""

    single: Template
    pair: Template

    def build(
        self, ids_a: list[int], ids_b: list[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Returns the ids of a row, and the token type of each."""
        parts = {"A": ids_a, "B": ids_b or []}
        ids: list[int] = []
        types: list[int] = []
        for what, kind in self.single if ids_b is None else self.pair:
            piece = parts[what] if isinstance(what, str) else [what]
            ids += piece
            types += [kind] * len(piece)
        return ids, types


def bert(cls_id: int, sep_id: int) -> Rows:
    """Returns BERT's rows.

    >>> bert(2, 3).build([7, 8], [9])
    ([2, 7, 8, 3, 9, 3], [0, 0, 0, 0, 1, 1])
    """
    single: Template = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return Rows(single, (*single, ("B", 1), (sep_id, 1)))


def roberta(cls_id: int, sep_id: int) -> Rows:
    """Returns RoBERTa's rows.

    >>> roberta(0, 2).build([7, 8], [9])
    ([0, 7, 8, 2, 2, 9, 2], [0, 0, 0, 0, 0, 0, 0])
    """
    single: Template = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return Rows(single, (*single, (sep_id, 0), ("B", 0), (sep_id, 0)))


def of_post_processor(tree: Any, where: str) -> Rows | None:
    """Reads rows from the `post_processor` of a tokenizer.json; None if it has none.

    Raises:
      InputError: it is of a kind that makes no rows of BERT's, or broken.
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


def _read(tree: dict[str, Any]) -> Rows | None:
    """Reads one post-processor, or the one in a sequence that makes rows."""
    match tree["type"]:
        case "Sequence":
            every = (_read(inner) for inner in tree["processors"])
            return next((rows for rows in every if rows is not None), None)
        case "ByteLevel":
            return None
        case "BertProcessing":
            return bert(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "RobertaProcessing":
            return roberta(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "TemplateProcessing":
            special = tree["special_tokens"]
            return Rows(
                _template(tree["single"], special), _template(tree["pair"], special)
            )
    raise ValueError(f"type {tree['type']!r} is unknown")


def _template(pieces: list[dict[str, Any]], special: dict[str, Any]) -> Template:
    """Reads one template of tokenizer.json."""
    made: list[tuple[int | str, int]] = []
    for piece in pieces:
        ((kind, part),) = piece.items()
        type_id = _integer(part["type_id"])
        if kind == "Sequence" and part["id"] in ("A", "B"):
            made.append((part["id"], type_id))
        elif kind == "SpecialToken":
            ids = special[part["id"]]["ids"]
            made += [(_integer(index), type_id) for index in ids]
        else:
            raise ValueError(f"{piece} is no part of a row")
    return tuple(made)


def _integer(value: Any) -> int:
    """Returns a value that is an id or a token type."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no id")
    return value
