"""Counts that a masked language model must beat: unigram and left-neighbour bigram.

Both are fitted on the training tokens of a store and scored on the same masked
positions as the model. The bigram is shown the true left neighbour even where the model
sees [MASK] there, which flatters it.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from bert_jax import interrupts
from bert_jax.data.corpus import store

MAX_TOKENS = 20_000_000  # counted from the start of the store; bounds time and memory
PRIOR = 10.0  # unigram counts mixed into every row of the bigram


@dataclasses.dataclass(frozen=True)
class Counts:
    """Token and pair counts over a vocabulary of V; special tokens count nothing.

    `pairs` are the sorted keys `left * V + right`, `pair_counts` their counts.
    """

    unigram: Float[np.ndarray, " V"]
    pairs: Int[np.ndarray, " K"]
    pair_counts: Int[np.ndarray, " K"]
    left_counts: Float[np.ndarray, " V"]
    best_right: Int[np.ndarray, " V"]


def count(train: store.Store, vocab_size: int, special_ids: tuple[int, ...]) -> Counts:
    """Counts the first `MAX_TOKENS` tokens of a store; special tokens are no answer."""
    unigram = np.zeros(vocab_size)
    keys, left = np.zeros(0, np.int64), MAX_TOKENS
    counts = np.zeros(0, np.int64)
    for shard in train.shards:
        interrupts.check()
        tokens = np.asarray(shard.tokens[:left]).astype(np.int64)
        left -= len(tokens)
        unigram += np.bincount(tokens, minlength=vocab_size)
        found, times = np.unique(
            (tokens[:-1] * vocab_size + tokens[1:])[~_ends(shard, len(tokens))],
            return_counts=True,
        )
        keys, counts = _merge(keys, counts, found, times)
    ordinary = ~np.isin(keys % vocab_size, special_ids)
    keys, counts = keys[ordinary], counts[ordinary]
    unigram[list(special_ids)] = 0
    return Counts(
        unigram=unigram,
        pairs=keys,
        pair_counts=counts,
        left_counts=np.bincount(keys // vocab_size, counts, vocab_size),
        best_right=_best_right(keys, counts, unigram),
    )


def _ends(shard: store.Shard, count: int) -> Bool[np.ndarray, " pairs"]:
    """Marks the pairs whose right token begins another document."""
    starts = shard.sentence_offsets[shard.document_offsets]
    inner = starts[(starts > 0) & (starts < count)]
    ends = np.zeros(max(count - 1, 0), bool)
    ends[inner - 1] = True
    return ends


def _merge(keys: np.ndarray, counts: np.ndarray, found: np.ndarray, times: np.ndarray):
    merged, inverse = np.unique(np.concatenate([keys, found]), return_inverse=True)
    total = np.bincount(inverse, np.concatenate([counts, times]), len(merged))
    return merged, total.astype(np.int64)


def _best_right(
    keys: np.ndarray, counts: np.ndarray, unigram: np.ndarray
) -> Int[np.ndarray, " V"]:
    """Returns the likeliest right neighbour of each token; unseen: the unigram's."""
    vocab_size = len(unigram)
    best = np.full(vocab_size, int(np.argmax(unigram)))
    rising = np.argsort(counts, kind="stable")  # the last write wins
    best[keys[rising] // vocab_size] = keys[rising] % vocab_size
    return best


def score(
    counts: Counts,
    labels: Integer[np.ndarray, " T"],
    left: Integer[np.ndarray, " T"],
) -> dict[str, tuple[float, float]]:
    """Returns (sum, weight) of loss and hits of both baselines at masked tokens.

    Args:
      labels: the tokens that were masked.
      left: the token before each, uncorrupted ([CLS] or [SEP] at a start).
    """
    vocab_size, labels = len(counts.unigram), labels.astype(np.int64)
    left = left.astype(np.int64)
    smooth = (counts.unigram + 1) / (counts.unigram + 1).sum()
    keys = left * vocab_size + labels
    at = np.minimum(np.searchsorted(counts.pairs, keys), len(counts.pairs) - 1)
    seen = np.where(counts.pairs[at] == keys, counts.pair_counts[at], 0)
    pair = (seen + PRIOR * smooth[labels]) / (counts.left_counts[left] + PRIOR)
    weight = float(len(labels))
    return {
        "unigram_loss": (float(-np.log(smooth[labels]).sum()), weight),
        "unigram_accuracy": (
            float((labels == np.argmax(counts.unigram)).sum()),
            weight,
        ),
        "bigram_loss": (float(-np.log(pair).sum()), weight),
        "bigram_accuracy": (float((labels == counts.best_right[left]).sum()), weight),
    }
