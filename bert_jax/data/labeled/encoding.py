"""Texts and pairs of texts as rows of a model, cut by a named strategy and counted."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bert_jax import errors
from bert_jax.foundation import interrupts
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer

TRUNCATED = "rows cut"
EMPTY = "texts without a token"


@dataclasses.dataclass(frozen=True)
class Text:
    """One text or a pair, and where it is from."""

    where: str
    text: str
    pair: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """Rows of ids.

    Attributes:
      columns: `input_ids`, `token_type_ids`, `segment_ids`: one array [l] int32 a row.
      notes: what a user must know: rows cut, tokens that they lost, empty texts.
      coverage: of the texts, each row one of them.
    """

    columns: dict[str, list[np.ndarray]]
    notes: dict[str, int]
    coverage: Coverage


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    max_seq_length: int,
    truncation: str = "longest_first",
) -> Encoded:
    """Returns one row a text or pair, of at most `max_seq_length` tokens.

    Raises:
      InputError: a text is too long and `truncation` is `refuse`.
    """
    coverage = Coverage(texts=len(texts))
    first = _ids(tokenizer, [text.text for text in texts], coverage)
    paired = [at for at, text in enumerate(texts) if text.pair is not None]
    pairs = _ids(tokenizer, [texts[at].pair or "" for at in paired], coverage)
    second = dict(zip(paired, pairs, strict=True))
    columns = {"input_ids": [], "token_type_ids": [], "segment_ids": []}
    lost = empty = 0
    for at, text in enumerate(texts):
        interrupts.check()
        a, b = first[at], second.get(at)
        empty += not a or b == []
        more = len(tokenizer.build(a, b)[0]) - max_seq_length
        if more > 0:
            a, b = _cut(text, a, b, more, truncation, max_seq_length)
            coverage.truncated, lost = coverage.truncated + 1, lost + more
        ids, types = tokenizer.build(a, b)
        row = ids, types, [1] * len(ids)
        for column, values in zip(columns.values(), row, strict=True):
            column.append(np.array(values, np.int32))
    notes = {TRUNCATED: coverage.truncated, "tokens cut off": lost}
    return Encoded(columns, notes | ({EMPTY: empty} if empty else {}), coverage)


def _ids(tokenizer: Tokenizer, texts: list[str], found: Coverage) -> list[list[int]]:
    """Returns the ids of texts, which are counted."""
    ids = tokenizer.encode(texts)
    found.add(texts, ids, tokenizer.unk_id)
    return ids


def _cut(
    text: Text,
    a: list[int],
    b: list[int] | None,
    more: int,
    truncation: str,
    max_seq_length: int,
) -> tuple[list[int], list[int] | None]:
    """Takes `more` tokens from a text or a pair."""
    if truncation == "refuse":
        raise errors.SettingError(
            f"{text.where}: {more + max_seq_length} tokens do not fit into rows of "
            f"{max_seq_length}",
            "raise data.max_seq_length, or set data.truncation",
        )
    if b is None and truncation == "head_tail":
        return head_tail(a, len(a) - more), None
    if b is None:
        return a[: _room(text, a, more, max_seq_length)], None
    if truncation == "only_first":
        return a[: _room(text, a, more, max_seq_length)], b
    if truncation == "only_second":
        return a, b[: _room(text, b, more, max_seq_length)]
    keep_a, keep_b = _longest_first(len(a), len(b), more)
    if min(keep_a, keep_b) < 1:
        _room(text, min(a, b, key=len), more, max_seq_length)
    return a[:keep_a], b[:keep_b]


def head_tail(ids: list[int], room: int) -> list[int]:
    """Returns `room` of the ids: a quarter from the head, the rest from the tail.

    >>> head_tail([1, 2, 3, 4, 5, 6], 4)
    [1, 4, 5, 6]
    """
    if len(ids) <= room:
        return ids
    head = room // 4
    return ids[:head] + ids[len(ids) - (room - head) :]


def _room(text: Text, ids: list[int], more: int, max_seq_length: int) -> int:
    """Returns how many of the tokens stay; raises InputError if none does."""
    if len(ids) > more:
        return len(ids) - more
    raise errors.SettingError(
        f"{text.where}: rows of {max_seq_length} tokens leave no room for a text that "
        "is to be cut",
        "raise data.max_seq_length, or choose another data.truncation",
    )


def _longest_first(a: int, b: int, more: int) -> tuple[int, int]:
    """Returns what stays of two lengths when the longer one loses token by token.

    >>> _longest_first(10, 4, 3)
    (7, 4)
    >>> _longest_first(10, 4, 8)
    (3, 3)
    """
    down = min(more, abs(a - b))
    a, b = (a - down, b) if a > b else (a, b - down)
    rest = more - down
    return a - rest // 2, b - (rest - rest // 2)
