"""Losses and correct predictions in pure JAX, summed or per row.

Every loss and metric is a sum with a weight. Sums are accumulated over devices, steps
and batches, and divided once.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

MASKED = -1e9  # the logit of a class that cannot be chosen


def cross_entropy(
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
) -> Float[Array, ""]:
    """Sums the weighted negative log-likelihoods, in float32.

    Labels with weight 0 may be out of range; they are clamped.
    """
    labels = jnp.clip(labels, 0, logits.shape[-1] - 1)
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0))


def in_parts(
    sums: Callable[..., PyTree], parts: int, *arrays: Array
) -> PyTree[Float[Array, ""]]:
    """Computes `sums(*arrays)` in chunks along the second axis, to save memory.

    Each chunk is rematerialized in the backward pass, so the logits of only one chunk
    are in memory at a time.

    Args:
      sums: returns a tree of sums over its arguments; zeros must contribute nothing.
      parts: the number of chunks; 1 calls `sums` directly.
      arrays: [B, P, ...], split along P, which is zero-padded to a multiple of `parts`.
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
    """Sums the weights of the predictions whose argmax is the label.

    The argmax is the first index of the maximum, which the loss computes, too; on a CPU
    XLA computes `jnp.argmax` element by element, which took 6 % of the demo's step.
    """
    logits = logits.astype(jnp.float32)
    best = jnp.max(logits, axis=-1, keepdims=True)
    classes = jnp.arange(logits.shape[-1])
    argmax = jnp.min(jnp.where(logits == best, classes, logits.shape[-1]), axis=-1)
    return jnp.sum((argmax == labels) * weights)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Modifications of a loss; by default none.

    Attributes:
      label_smoothing: fraction of the target that is spread evenly over all classes,
        as in torch (arXiv:1512.00567, section 7).
      focal_gamma: exponent that down-weights well-classified examples
        (arXiv:1708.02002, equation 4); 0 = cross-entropy.
      class_weights: one weight per class; empty means equal weights. For a mean, divide
        by the sum of the labels' weights.
      r_drop: weight of the divergence between two passes with independent dropout
        (arXiv:2106.14448); 0 = one pass.
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] = ()
    r_drop: float = 0.0

    @property
    def of_classes(self) -> Float[Array, " C"]:
        """The class weights as an array."""
        return jnp.array(self.class_weights, jnp.float32)


def class_losses(
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    recipe: Recipe = Recipe(),
    allowed: Bool[Array, "... C"] | None = None,
) -> Float[Array, "..."]:
    """Returns sum over c of target * weight * (1 - p)**gamma * -log p, in float32.

    Labels are clamped into range, so those of rows with weight 0 may have any value.

    Args:
      allowed: the valid classes, such as the real tokens of a padded row; None for all.
    """
    classes = logits.shape[-1]
    if allowed is None:
        allowed = jnp.ones(logits.shape, bool)
    log_probs = jax.nn.log_softmax(masked(logits, allowed), axis=-1)
    costs = jnp.where(allowed, -log_probs, 0.0)
    if recipe.focal_gamma:
        costs = costs * _missing(log_probs) ** recipe.focal_gamma
    if recipe.class_weights:
        costs = costs * jnp.broadcast_to(recipe.of_classes, costs.shape)
    labels = jnp.clip(labels, 0, classes - 1)
    picked = jnp.take_along_axis(costs, labels[..., None], axis=-1)[..., 0]
    smoothing = recipe.label_smoothing
    if not smoothing:
        return picked
    count = jnp.maximum(jnp.sum(allowed, axis=-1), 1)
    spread = jnp.sum(costs, axis=-1) / count
    return (1.0 - smoothing) * picked + smoothing * spread


def masked(
    logits: Float[Array, "... C"], allowed: Bool[Array, "... C"]
) -> Float[Array, "... C"]:
    """Returns float32 logits with those of classes that are not allowed masked out."""
    return jnp.where(allowed, logits.astype(jnp.float32), MASKED)


def binary_losses(
    logits: Float[Array, "... C"],
    labels: Num[Array, "... C"] | Bool[Array, "... C"],
    recipe: Recipe = Recipe(),
) -> Float[Array, "... C"]:
    """Returns the binary cross-entropy of each class (multi-label), in float32.

    Labels are from 0 to 1. The options are those of `class_losses` for two classes;
    class weights multiply the positive term of the loss.
    """
    smoothing = recipe.label_smoothing
    logits, labels = logits.astype(jnp.float32), labels.astype(jnp.float32)
    labels = labels * (1.0 - smoothing) + 0.5 * smoothing
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    costs = [-labels * yes, -(1.0 - labels) * no]
    if recipe.class_weights:
        costs[0] = costs[0] * jnp.broadcast_to(recipe.of_classes, logits.shape)
    if recipe.focal_gamma:
        costs = [
            cost * _missing(log_prob) ** recipe.focal_gamma
            for cost, log_prob in zip(costs, (yes, no), strict=True)
        ]
    return costs[0] + costs[1]


def _missing(log_probs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 1 - p, clamped above 0 so that its powers have finite gradients."""
    return jnp.maximum(-jnp.expm1(log_probs), 1e-12)


def symmetric_kl(
    p_logits: Float[Array, "... C"], q_logits: Float[Array, "... C"]
) -> Float[Array, "..."]:
    """Returns (KL(p, q) + KL(q, p)) / 2 over the classes (R-Drop, arXiv:2106.14448)."""
    log_p = jax.nn.log_softmax(p_logits.astype(jnp.float32), axis=-1)
    log_q = jax.nn.log_softmax(q_logits.astype(jnp.float32), axis=-1)
    both_ways = (jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)
    return 0.5 * jnp.sum(both_ways, axis=-1)
