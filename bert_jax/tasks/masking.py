"""Which tokens of a batch are masked, and what replaces them.

Masking follows arXiv:1810.04805, section 3.1 (80/10/10); whole-word masking, Google's
update of May 2019 and arXiv:1906.08101 (Chinese); n-gram masking, arXiv:1909.11942,
section 4.1 (length n with probability proportional to 1 / n).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Masking:
    """How tokens are chosen and replaced.

    Attributes:
      masked_lm_prob: fraction of the tokens, special tokens excluded, to predict.
      max_predictions: P, the maximum number of predictions per row.
      max_seq_length: the length that P is for; P is scaled down for shorter rows.
      whole_word: choose all subwords of a word together.
      max_ngram: choose runs of up to this many words (or tokens).
      mask_id: id of [MASK].
      special_ids: ids that are never chosen and never used as replacements.
      vocab_size: random replacements are sampled from [0, vocab_size).
      mask_share: fraction of the chosen tokens that is replaced by [MASK].
      random_share: fraction replaced by a random token; the rest is unchanged.
    """

    masked_lm_prob: float
    max_predictions: int
    max_seq_length: int
    whole_word: bool
    max_ngram: int
    mask_id: int
    special_ids: tuple[int, ...]
    vocab_size: int
    mask_share: float = 0.8
    random_share: float = 0.1

    def predictions(self, length: int) -> int:
        """Returns the maximum number of predictions in a row of `length` tokens.

        >>> masking = Masking(0.15, 80, 512, False, 1, 103, (0,), 1000)
        >>> masking.predictions(512), masking.predictions(128), masking.predictions(600)
        (80, 20, 80)
        """
        share = -(-self.max_predictions * length // self.max_seq_length)
        return min(self.max_predictions, share)


def mask_tokens(
    batch: dict[str, Array], key: jax.Array, masking: Masking
) -> dict[str, Array]:
    """Masks a batch: corrupts `input_ids` and adds the positions to predict.

    Args:
      batch: `input_ids` [B, L] int32, `segment_ids` [B, L], `word_start` [B, L] bool.
      key: the random key; the masks are a pure function of it and the batch.

    Returns:
      The batch with new `input_ids`, and `masked_lm_positions`, `masked_lm_ids`
      [B, P] int32 and `masked_lm_weights` [B, P] float32 (0 for unused slots).
    """
    choose_key, kind_key, random_key = jax.random.split(key, 3)
    input_ids = batch["input_ids"]
    candidates = batch["segment_ids"] > 0
    for special_id in masking.special_ids:
        candidates &= input_ids != special_id
    chosen = _choose(candidates, batch["word_start"], choose_key, masking)
    positions, weights = _first_positions(
        chosen, masking.predictions(input_ids.shape[1])
    )
    replacement = _replacements(input_ids, kind_key, random_key, masking)
    return {
        **batch,
        "input_ids": jnp.where(chosen, replacement, input_ids),
        "masked_lm_positions": positions,
        "masked_lm_ids": jnp.take_along_axis(input_ids, positions, axis=1),
        "masked_lm_weights": weights,
    }


def _choose(
    candidates: Bool[Array, "B L"],
    word_start: Bool[Array, "B L"],
    key: jax.Array,
    masking: Masking,
) -> Bool[Array, "B L"]:
    """Chooses groups of tokens in random order, within the budget of each row."""
    order_key, ngram_key = jax.random.split(key)
    groups = _groups(candidates, word_start, ngram_key, masking)
    budget = _budget(candidates, masking)
    # One sample per group: a token takes the sample at its group's index.
    samples = jax.random.uniform(order_key, groups.shape)
    scores = jnp.take_along_axis(samples, groups, axis=1)
    order = jnp.lexsort((groups, jnp.where(candidates, scores, 2.0)), axis=-1)
    sizes = _of_groups(jax.ops.segment_sum, candidates.astype(jnp.int32), groups)
    picked = _fill(
        jnp.take_along_axis(groups, order, axis=1),
        jnp.take_along_axis(sizes, order, axis=1),
        jnp.take_along_axis(candidates, order, axis=1),
        budget,
    )
    inverse = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(picked, inverse, axis=1)


def _groups(
    candidates: Bool[Array, "B L"],
    word_start: Bool[Array, "B L"],
    key: jax.Array,
    masking: Masking,
) -> Int[Array, "B L"]:
    """Numbers the groups of a row from 0: tokens, words, or runs of either."""
    length = candidates.shape[1]
    before = jnp.pad(candidates, ((0, 0), (1, 0)))[:, :length]
    # The token after a special token starts a group, even in a word that truncation
    # has cut.
    starts = ~candidates | ~before
    starts |= word_start if masking.whole_word else jnp.ones_like(word_start)
    groups = jnp.cumsum(starts, axis=1) - 1
    if masking.max_ngram == 1:
        return groups
    runs = _runs(groups, key, masking.max_ngram)
    parted = jnp.pad(runs[:, 1:] != runs[:, :-1], ((0, 0), (1, 0)))
    return jnp.cumsum(parted | ~candidates | ~before, axis=1) - 1


def _runs(
    groups: Int[Array, "B L"], key: jax.Array, max_ngram: int
) -> Int[Array, "B L"]:
    """Joins groups into runs of length n with probability proportional to 1/n."""
    rates = -jnp.log(jnp.arange(1, max_ngram + 1, dtype=jnp.float32))
    lengths = 1 + jax.random.categorical(key, rates, shape=groups.shape)
    ends = jnp.cumsum(lengths, axis=1)
    return jax.vmap(lambda e, g: jnp.searchsorted(e, g, side="right"))(ends, groups)


def _budget(candidates: Bool[Array, "B L"], masking: Masking) -> Int[Array, "B 1"]:
    """Returns how many tokens to choose in each row: at least 1, at most P."""
    count = jnp.sum(candidates, axis=1, keepdims=True)
    share = jnp.round(count * masking.masked_lm_prob).astype(jnp.int32)
    most = masking.predictions(candidates.shape[1])
    return jnp.minimum(jnp.clip(share, 1, most), count)


def _fill(
    groups: Int[Array, "B L"],
    sizes: Int[Array, "B L"],
    candidates: Bool[Array, "B L"],
    budget: Int[Array, "B 1"],
) -> Bool[Array, "B L"]:
    """Picks groups in the given order, skipping those that exceed the budget.

    The second pass uses the budget that is left after the first skipped a large group.
    """
    picked = jnp.zeros_like(candidates)
    for _ in range(2):
        left = budget - jnp.sum(picked, axis=1, keepdims=True)
        fits = candidates & ~picked & (sizes <= left)
        used = jnp.cumsum(fits, axis=1)
        # `used` at the last token of a group is the total if the group is picked.
        ends = _of_groups(jax.ops.segment_max, used, groups)
        picked |= fits & (ends <= left)
    return picked


def _of_groups(
    reduce: Callable[..., Array], values: Int[Array, "B L"], groups: Int[Array, "B L"]
) -> Int[Array, "B L"]:
    """Returns for each token the reduced values of its group."""
    length = groups.shape[1]
    return jax.vmap(lambda v, group: reduce(v, group, length)[group])(values, groups)


def _first_positions(
    chosen: Bool[Array, "B L"], count: int
) -> tuple[Int[Array, "B P"], Float[Array, "B P"]]:
    """Returns the chosen positions of each row in order, padded with weight 0."""
    order = jnp.argsort(~chosen, axis=1, stable=True)[:, :count]
    weights = jnp.take_along_axis(chosen, order, axis=1)
    order = jnp.where(weights, order, 0)
    missing = ((0, 0), (0, count - order.shape[1]))  # rows shorter than P
    return jnp.pad(order, missing), jnp.pad(weights, missing).astype(jnp.float32)


def _replacements(
    input_ids: Int[Array, "B L"],
    kind_key: jax.Array,
    random_key: jax.Array,
    masking: Masking,
) -> Int[Array, "B L"]:
    """Samples the replacement of each token: [MASK], a random token, or itself."""
    kind = jax.random.uniform(kind_key, input_ids.shape)
    ordinary = masking.vocab_size - len(masking.special_ids)
    random_ids = jax.random.randint(random_key, input_ids.shape, 0, ordinary)
    for special_id in sorted(masking.special_ids):
        random_ids += random_ids >= special_id
    random_until = masking.mask_share + masking.random_share
    random_or_kept = jnp.where(kind < random_until, random_ids, input_ids)
    return jnp.where(kind < masking.mask_share, masking.mask_id, random_or_kept)


EVAL_SEED = 0


def eval_masking(training: Masking, max_seq_length: int) -> Masking:
    """Returns the evaluation masking: 15% of the tokens, all replaced by [MASK].

    No chosen token is kept: a kept token shows the model the answer, which would be
    unfair to the baselines.
    """
    return dataclasses.replace(
        training,
        masked_lm_prob=0.15,
        max_predictions=-(-max_seq_length * 15 // 100),
        max_seq_length=max_seq_length,
        whole_word=False,
        max_ngram=1,
        mask_share=1.0,
        random_share=0.0,
    )
