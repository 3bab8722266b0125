"""The rows of tokens on which two sides of a model are compared.

They come from the model's own vocabulary, are of several lengths, and are the same
every time.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int32

from bert_jax.checkpoints import model_folders
from bert_jax.text.tokenizer import Tokenizer

_LONGEST = 64  # tokens in a row
_TEXTS = (
    "The train to the coast leaves at half past nine.",
    "Water boils at 100 degrees, and ice melts at 0!",
    "今天天气很好，我们去公园散步。",
    "北京大学图书馆在2008年开放。",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows of tokens that both sides see.

    Attributes:
      input_ids: [B, L] int32, filled with the model's `pad_token_id`.
      token_type_ids: [B, L] int32.
      mask: [B, L] bool, which tokens are real.
    """

    input_ids: Int32[np.ndarray, "B L"]
    token_type_ids: Int32[np.ndarray, "B L"]
    mask: Bool[np.ndarray, "B L"]


def rows(mine: model_folders.Folder) -> Rows:
    """Makes rows of several lengths for a model, always the same ones.

    They are texts in English and Chinese and pieces from all over the vocabulary, or,
    without a tokenizer, random ids. Every second row changes its token type half-way.
    """
    bert = mine.weights.config
    longest = min(_LONGEST, mine.max_seq_length, bert.max_length)
    made = _random_rows(bert.vocab_size, longest)
    if mine.tokenizer is not None:
        made = [*_text_rows(mine.tokenizer), *_piece_rows(mine.tokenizer, longest)]
    # RoBERTa takes this id for padding wherever it stands.
    made = [[i for i in row if i != bert.pad_token_id][:longest] for row in made]
    length = max(map(len, made))
    input_ids = np.full((len(made), length), bert.pad_token_id, np.int32)
    token_type_ids = np.zeros_like(input_ids)
    for number, row in enumerate(made):
        input_ids[number, : len(row)] = row
        second = number % max(1, min(2, bert.type_vocab_size))
        token_type_ids[number, len(row) // 2 : len(row)] = second
    lengths = np.array([len(row) for row in made])
    return Rows(input_ids, token_type_ids, np.arange(length) < lengths[:, None])


def _text_rows(tokenizer: Tokenizer) -> list[list[int]]:
    """Returns a row of each text, and one of the two of each language."""
    ids = tokenizer.encode(list(_TEXTS))
    texts = [(one, None) for one in ids] + [(ids[0], ids[1]), (ids[2], ids[3])]
    return [tokenizer.build(a, b)[0] for a, b in texts]


def _piece_rows(tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """Returns rows of pieces from all over the vocabulary, its first and last too."""
    special = set(tokenizer.special_ids)
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special]
    if not ordinary:
        return []
    picked = np.linspace(0, len(ordinary) - 1, 3 * longest).astype(int)
    ids = [ordinary[i] for i in picked]
    return [
        tokenizer.build(ids[0::3])[0],
        tokenizer.build(ids[1::3][: longest // 2])[0],
        tokenizer.build(ids[2::3])[0][:longest],
    ]


def _random_rows(vocab_size: int, longest: int) -> list[list[int]]:
    """Returns rows of random ids of the whole table, of five lengths."""
    rng = np.random.default_rng(0)
    lengths = [max(2, longest * part // 5) for part in (5, 2, 4, 1, 3)]
    return [rng.integers(0, vocab_size, length).tolist() for length in lengths]
