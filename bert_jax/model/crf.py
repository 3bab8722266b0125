"""A linear-chain conditional random field over tags (Lafferty et al. 2001).

A path scores the logits of its tags, the transitions between them, and how it starts
and ends. Positions outside the mask are skipped, wherever they are: the chain goes
from one position of the mask directly to the next. All is float32 and exact: the
forward algorithm and Viterbi, with one step a position.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bert_jax.model import layers

# The score of a forbidden move: finite, for finite gradients, and far below logits.
FORBIDDEN = -1e4


class PathScores(NamedTuple):
    """Scores of transitions from tag (first axis) to tag, of starts and of ends."""

    transitions: Float[Array, "C C"]
    starts: Float[Array, " C"]
    ends: Float[Array, " C"]


class Allowed(NamedTuple):
    """Which moves a path may make, in the order of `Scores`."""

    transitions: Bool[Any, "C C"]
    starts: Bool[Any, " C"]
    ends: Bool[Any, " C"]


class Transitions(nn.Module):
    """The parameters of a CRF; they start at zero, which is a softmax per token."""

    classes: int

    @nn.compact
    def __call__(self) -> PathScores:
        def zeros(name: str, rank: int) -> Array:
            initializer = layers.constant(0.0, *(None,) * rank)
            return self.param(name, initializer, (self.classes,) * rank)

        return PathScores(zeros("transitions", 2), zeros("starts", 1), zeros("ends", 1))


def forbid(scores: PathScores, allowed: Allowed) -> PathScores:
    """Returns the scores with all moves that are not allowed at `FORBIDDEN`."""
    kept = (
        jnp.where(may, score, FORBIDDEN)
        for may, score in zip(allowed, scores, strict=True)
    )
    return PathScores(*kept)


def negative_log_likelihood(
    logits: Float[Array, "B L C"],
    tags: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    scores: PathScores,
) -> Float[Array, " B"]:
    """Returns -log of the probability of each row's tags; 0 where the mask is empty.

    Tags may be anything outside the mask.
    """
    return log_partition(logits, mask, scores) - path_score(logits, tags, mask, scores)


def path_score(
    logits: Float[Array, "B L C"],
    tags: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    scores: PathScores,
) -> Float[Array, " B"]:
    """Returns the score of each row's tags; 0 where the mask is empty."""
    tags = jnp.clip(jnp.where(mask, tags, 0), 0, logits.shape[-1] - 1)
    latest = _latest(mask)
    before = jnp.pad(latest, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    previous = jnp.take_along_axis(tags, jnp.maximum(before, 0), axis=1)
    moved = scores.transitions[previous, tags]
    moved = jnp.where(before >= 0, moved, scores.starts[tags])
    own = jnp.take_along_axis(logits.astype(jnp.float32), tags[..., None], axis=2)
    total = jnp.sum(jnp.where(mask, own[..., 0] + moved, 0.0), axis=1)
    last = jnp.take_along_axis(tags, jnp.maximum(latest[:, -1:], 0), axis=1)[:, 0]
    return total + jnp.where(latest[:, -1] >= 0, scores.ends[last], 0.0)


def _latest(mask: Bool[Array, "B L"]) -> Int[Array, "B L"]:
    """Returns the last position of the mask up to each position, or -1."""
    positions = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
    return lax.cummax(jnp.where(mask, positions, -1), axis=1)


def log_partition(
    logits: Float[Array, "B L C"], mask: Bool[Array, "B L"], scores: PathScores
) -> Float[Array, " B"]:
    """Returns log of the sum over all paths of exp(score); 0 where the mask is empty.

    Lafferty et al. 2001, section 3, by the forward algorithm.
    """

    def step(carry: tuple[Array, Array], now: tuple[Array, Array]):
        alpha, begun = carry
        logit, used = now
        moved = alpha[:, :, None] + _like_rows(scores.transitions, alpha)
        entered = jax.nn.logsumexp(moved, axis=1)
        alpha, begun = _advance(alpha, begun, entered, logit, used, scores)
        return (alpha, begun), None

    (alpha, begun), _ = lax.scan(step, *_start(logits, mask))
    total = jax.nn.logsumexp(alpha + _like_rows(scores.ends, alpha), axis=1)
    return jnp.where(begun, total, 0.0)


def viterbi(
    logits: Float[Array, "B L C"], mask: Bool[Array, "B L"], scores: PathScores
) -> Int[Array, "B L"]:
    """Returns the best path of each row as int32, with 0 outside the mask.

    With scores from `forbid` no path has a forbidden move, as long as one without
    exists and logits are small compared with `FORBIDDEN`.
    """

    def step(carry: tuple[Array, Array], now: tuple[Array, Array]):
        alpha, begun = carry
        logit, used = now
        moved = alpha[:, :, None] + _like_rows(scores.transitions, alpha)
        own = jnp.broadcast_to(jnp.arange(alpha.shape[1]), alpha.shape)
        pointer = jnp.where(used[:, None], jnp.argmax(moved, axis=1), own)
        entered = jnp.max(moved, axis=1)
        return _advance(alpha, begun, entered, logit, used, scores), pointer

    (alpha, _), pointers = lax.scan(step, *_start(logits, mask))
    best = jnp.argmax(alpha + _like_rows(scores.ends, alpha), axis=1)

    def back(tag: Array, pointer: Array) -> tuple[Array, Array]:
        return jnp.take_along_axis(pointer, tag[:, None], axis=1)[:, 0], tag

    _, path = lax.scan(back, best, pointers, reverse=True)
    return jnp.where(mask, path.T, 0).astype(jnp.int32)


def _start(
    logits: Float[Array, "B L C"], mask: Bool[Array, "B L"]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns the first carry of a scan over positions, and what it scans."""
    batch, _, classes = logits.shape
    carry = jnp.zeros((batch, classes), jnp.float32), jnp.zeros(batch, bool)
    return carry, (jnp.moveaxis(logits.astype(jnp.float32), 1, 0), mask.T)


def _advance(
    alpha: Float[Array, "B C"],
    begun: Bool[Array, " B"],
    entered: Float[Array, "B C"],
    logit: Float[Array, "B C"],
    used: Bool[Array, " B"],
    scores: PathScores,
) -> tuple[Float[Array, "B C"], Bool[Array, " B"]]:
    """Returns the scores of the paths to each tag, and which rows have begun."""
    starts = _like_rows(scores.starts, alpha)
    reached = jnp.where(begun[:, None], entered, starts) + logit
    return jnp.where(used[:, None], reached, alpha), begun | used


def _like_rows(x: Float[Array, "..."], rows: Float[Array, "B C"]) -> Array:
    """Returns x once for every row of the batch."""
    return jnp.broadcast_to(x, (rows.shape[0], *x.shape))
