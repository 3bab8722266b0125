"""Losses and hits in pure JAX, as sums or by row.

Every loss and metric is a sum with its weight; sums are added over devices, steps and
batches, and divided once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

MASKED = -1e9  # the logit of what cannot be chosen


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


Logits = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Changes to a loss; by default there is none.

    Attributes:
      label_smoothing: share of the target that is spread over all classes.
      focal_gamma: exponent of the focal loss (arXiv:1708.02002); 0 = cross-entropy.
      class_weights: one a class, or empty for all alike.
      r_drop: weight of the divergence between two passes with their own dropout
        (arXiv:2106.14448); 0 = one pass.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] = ()
    r_drop: float = 0.0


def regularized(
    r_drop: float,
    forward: Callable[[Array], Logits],
    loss_of: Callable[[Logits], Float[Array, ""]],
    divergence: Callable[[Logits, Logits], Float[Array, ""]],
    key: Array,
) -> tuple[Float[Array, ""], Logits]:
    """Returns the summed loss of a batch, and the outputs that metrics are read from.

    With R-Drop it is the mean of the losses of two passes, plus `r_drop` times their
    divergence, as in the authors' code.

    Args:
      forward: outputs with the dropout of a key.
      loss_of: sums the losses of a batch.
      divergence: sums the symmetric divergences of two outputs.
    """
    if not r_drop:
        outputs = forward(key)
        return loss_of(outputs), outputs
    keys = jax.random.split(key)
    first, second = forward(keys[0]), forward(keys[1])
    mean: Any = (loss_of(first) + loss_of(second)) / 2
    return mean + r_drop * divergence(first, second), first
