"""Objectives in pure JAX: masks drawn on the device, losses as sums or by row.

Every loss and metric is a sum with its weight; sums are added over devices, steps and
batches, and divided once. Masking follows arXiv:1810.04805 section 3.1 (80/10/10),
whole words as in Google's update of May 2019 and arXiv:1906.08101 (Chinese), n-grams
as in arXiv:1909.11942 section 4.1 (length n with probability proportional to 1 / n).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

MASKED = -1e9  # the logit of what cannot be chosen


@dataclasses.dataclass(frozen=True)
class Masking:
    """How tokens are chosen and replaced.

    Attributes:
      masked_lm_prob: share of the tokens that are no special tokens to predict.
      max_predictions: P, the most predictions in a row.
      max_seq_length: the L that P is for; shorter rows have fewer, in proportion.
      whole_word: choose all pieces of a word together.
      max_ngram: choose runs of 1 to this many words (or tokens).
      mask_id: id of [MASK].
      special_ids: ids that are never chosen and never a random replacement.
      vocab_size: ids of random replacements lie in [0, vocab_size).
      mask_share: share of the chosen tokens that becomes [MASK].
      random_share: share that becomes a random token; what remains stays as it is.
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
        """Returns the most predictions in a row of so many tokens.

        >>> masking = Masking(0.15, 80, 512, False, 1, 103, (0,), 1000)
        >>> masking.predictions(512), masking.predictions(128), masking.predictions(600)
        (80, 20, 80)
        """
        share = -(-self.max_predictions * length // self.max_seq_length)
        return min(self.max_predictions, share)


def mask_tokens(
    batch: dict[str, Array], key: jax.Array, masking: Masking
) -> dict[str, Array]:
    """Adds masks to a batch: `input_ids` corrupted, and what is to be predicted.

    Args:
      batch: `input_ids` [B, L] int32, `segment_ids` [B, L], `word_start` [B, L] bool.
      key: masks are a pure function of the key and the batch.

    Returns:
      The batch with new `input_ids`, and `masked_lm_positions`, `masked_lm_ids`
      [B, P] int32 and `masked_lm_weights` [B, P] float32 (0 where a row has fewer).
    """
    choose_key, kind_key, random_key = jax.random.split(key, 3)
    input_ids = batch["input_ids"]
    candidates = _candidates(input_ids, batch["segment_ids"], masking.special_ids)
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


def _candidates(
    input_ids: Int[Array, "B L"],
    segment_ids: Int[Array, "B L"],
    special_ids: tuple[int, ...],
) -> Bool[Array, "B L"]:
    special = jnp.zeros(input_ids.shape, bool)
    for special_id in special_ids:
        special |= input_ids == special_id
    return (segment_ids > 0) & ~special


def _choose(
    candidates: Bool[Array, "B L"],
    word_start: Bool[Array, "B L"],
    key: jax.Array,
    masking: Masking,
) -> Bool[Array, "B L"]:
    """Chooses groups of tokens in random order while they fit the row's budget."""
    order_key, ngram_key = jax.random.split(key)
    groups = _groups(candidates, word_start, ngram_key, masking)
    budget = _budget(candidates, masking)
    # One draw a group: every token takes the draw made at its group's index.
    draws = jax.random.uniform(order_key, groups.shape)
    scores = jnp.take_along_axis(draws, groups, axis=1)
    order = jnp.lexsort((groups, jnp.where(candidates, scores, 2.0)), axis=-1)
    sizes = _group_sizes(groups, candidates)
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
    """Numbers the groups of a row, from 0: tokens, words, or runs of either."""
    length = candidates.shape[1]
    before = jnp.pad(candidates, ((0, 0), (1, 0)))[:, :length]
    # Special tokens separate: what follows one starts a group even inside a word that
    # truncation has cut.
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
    """Joins consecutive groups into runs of n, with probability proportional to 1/n."""
    rates = -jnp.log(jnp.arange(1, max_ngram + 1, dtype=jnp.float32))
    lengths = 1 + jax.random.categorical(key, rates, shape=groups.shape)
    ends = jnp.cumsum(lengths, axis=1)
    return jax.vmap(lambda e, g: jnp.searchsorted(e, g, side="right"))(ends, groups)


def _budget(candidates: Bool[Array, "B L"], masking: Masking) -> Int[Array, "B 1"]:
    """Counts the tokens to choose in each row: a share, at least 1, at most P."""
    count = jnp.sum(candidates, axis=1, keepdims=True)
    share = jnp.round(count * masking.masked_lm_prob).astype(jnp.int32)
    most = masking.predictions(candidates.shape[1])
    return jnp.minimum(jnp.clip(share, 1, most), count)


def _group_sizes(
    groups: Int[Array, "B L"], candidates: Bool[Array, "B L"]
) -> Int[Array, "B L"]:
    """Returns, at every token, the number of candidates in its group."""
    length = groups.shape[1]

    def sizes(group: Array, candidate: Array) -> Array:
        return jax.ops.segment_sum(candidate.astype(jnp.int32), group, length)[group]

    return jax.vmap(sizes)(groups, candidates)


def _fill(
    groups: Int[Array, "B L"],
    sizes: Int[Array, "B L"],
    candidates: Bool[Array, "B L"],
    budget: Int[Array, "B 1"],
) -> Bool[Array, "B L"]:
    """Takes groups in the given order, passing over those that do not fit any more.

    Two sweeps: the second fills what the first left free when a large group came last.
    """
    picked = jnp.zeros_like(candidates)
    for _ in range(2):
        left = budget - jnp.sum(picked, axis=1, keepdims=True)
        fits = candidates & ~picked & (sizes <= left)
        used = jnp.cumsum(fits, axis=1)
        # `used` at the last token of a group is what its row would hold with it.
        ends = _last_of_group(used, groups)
        picked |= fits & (ends <= left)
    return picked


def _last_of_group(
    used: Int[Array, "B L"], groups: Int[Array, "B L"]
) -> Int[Array, "B L"]:
    length = used.shape[1]

    def last(row: Array, group: Array) -> Array:
        return jax.ops.segment_max(row, group, length)[group]

    return jax.vmap(last)(used, groups)


def _first_positions(
    chosen: Bool[Array, "B L"], count: int
) -> tuple[Int[Array, "B P"], Float[Array, "B P"]]:
    """Lists the chosen positions of each row in order, with weight 0 behind them."""
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
    """Draws what each token becomes if chosen: [MASK], itself, or a random token."""
    kind = jax.random.uniform(kind_key, input_ids.shape)
    ordinary = masking.vocab_size - len(masking.special_ids)
    random_ids = jax.random.randint(random_key, input_ids.shape, 0, ordinary)
    for special_id in sorted(masking.special_ids):
        random_ids += random_ids >= special_id
    random_until = masking.mask_share + masking.random_share
    random_or_kept = jnp.where(kind < random_until, random_ids, input_ids)
    return jnp.where(kind < masking.mask_share, masking.mask_id, random_or_kept)


def cross_entropy(
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
) -> Float[Array, ""]:
    """Sums the weighted negative log-likelihoods, in float32.

    Labels may be anything where the weight is 0; they are clamped into range.
    """
    labels = jnp.clip(labels, 0, logits.shape[-1] - 1)
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0))


def in_parts(
    sums: Callable[..., PyTree], parts: int, *arrays: Array
) -> PyTree[Float[Array, ""]]:
    """Returns `sums(*arrays)` as the sum over parts of the second axis.

    What a part computes is not kept for the backward pass, which computes it again: so
    the logits of one part are alive at a time, and never those of all.

    Args:
      sums: returns a tree of sums over what it is given; zeros must add nothing.
      parts: how many; 1 is `sums` itself.
      arrays: [B, P, ...], cut alike, with zeros behind where P has a remainder.
    """
    if parts == 1:
        return sums(*arrays)
    length = arrays[0].shape[1]
    missing = -length % parts
    cut = []
    for x in arrays:
        x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
        x = x.reshape(x.shape[0], parts, -1, *x.shape[2:])
        cut.append(jnp.moveaxis(x, 1, 0))
    like = jax.eval_shape(sums, *(x[0] for x in cut))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    def add(total: PyTree, part: list[Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, jax.checkpoint(sums)(*part)), None

    return jax.lax.scan(add, zeros, cut)[0]


def correct(
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
) -> Float[Array, ""]:
    """Sums the weights of the predictions whose best class is the label."""
    return jnp.sum((jnp.argmax(logits, axis=-1) == labels) * weights)


def class_losses(
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    *,
    smoothing: int | float = 0.0,
    focal_gamma: int | float = 0.0,
    class_weights: Float[Array, " C"] | None = None,
    allowed: Bool[Array, "... C"] | None = None,
) -> Float[Array, "..."]:
    """Returns sum over c of target * weight * (1 - p)**gamma * -log p, in float32.

    Without options it is the negative log-likelihood of the label. Labels are clamped
    into range, so those of rows without weight may be anything.

    Args:
      smoothing: share of the target that is spread over all classes evenly, as in
        torch (arXiv:1512.00567, section 7).
      focal_gamma: how much less the classes weigh that are already right
        (arXiv:1708.02002, equation 4).
      class_weights: of each class; a mean divides by the sum of those of the labels.
      allowed: the classes that there are, as the tokens of a padded row; None for all.
    """
    classes = logits.shape[-1]
    if allowed is None:
        allowed = jnp.ones(logits.shape, bool)
    log_probs = jax.nn.log_softmax(masked(logits, allowed), axis=-1)
    costs = jnp.where(allowed, -log_probs, 0.0)
    if focal_gamma:
        costs = costs * _missing(log_probs) ** focal_gamma
    if class_weights is not None:
        costs = costs * jnp.broadcast_to(class_weights, costs.shape)
    labels = jnp.clip(labels, 0, classes - 1)
    picked = jnp.take_along_axis(costs, labels[..., None], axis=-1)[..., 0]
    if not smoothing:
        return picked
    count = jnp.maximum(jnp.sum(allowed, axis=-1), 1)
    spread = jnp.sum(costs, axis=-1) / count
    return (1.0 - smoothing) * picked + smoothing * spread


def masked(
    logits: Float[Array, "... C"], allowed: Bool[Array, "... C"]
) -> Float[Array, "... C"]:
    """Returns logits, in float32, by which only what is allowed is ever chosen."""
    return jnp.where(allowed, logits.astype(jnp.float32), MASKED)


def binary_losses(
    logits: Float[Array, "... C"],
    labels: Num[Array, "... C"] | Bool[Array, "... C"],
    *,
    smoothing: int | float = 0.0,
    focal_gamma: int | float = 0.0,
    positive_weights: Float[Array, " C"] | None = None,
) -> Float[Array, "... C"]:
    """Returns the loss of every decision of its own (multi-label), in float32.

    Labels lie from 0 to 1. Options as for `class_losses`, of the two classes yes and
    no; `positive_weights` multiply the loss where the label is yes.
    """
    logits, labels = logits.astype(jnp.float32), labels.astype(jnp.float32)
    labels = labels * (1.0 - smoothing) + 0.5 * smoothing
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    costs = [-labels * yes, -(1.0 - labels) * no]
    if positive_weights is not None:
        costs[0] = costs[0] * jnp.broadcast_to(positive_weights, logits.shape)
    if focal_gamma:
        costs = [
            cost * _missing(log_prob) ** focal_gamma
            for cost, log_prob in zip(costs, (yes, no), strict=True)
        ]
    return costs[0] + costs[1]


def _missing(log_probs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 1 - p, above 0 so that its powers have gradients."""
    return jnp.maximum(-jnp.expm1(log_probs), 1e-12)


def symmetric_kl(
    p_logits: Float[Array, "... C"], q_logits: Float[Array, "... C"]
) -> Float[Array, "..."]:
    """Returns (KL(p, q) + KL(q, p)) / 2 over the classes (R-Drop, arXiv:2106.14448)."""
    log_p = jax.nn.log_softmax(p_logits.astype(jnp.float32), axis=-1)
    log_q = jax.nn.log_softmax(q_logits.astype(jnp.float32), axis=-1)
    apart = (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)
    return 0.5 * jnp.sum(apart, axis=-1)
