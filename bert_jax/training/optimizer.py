"""The optimizer: its checked configuration, rate, decay, AdamW, StableAdamW and LAMB.

All optimizers correct the bias of their moments; Google's BERT optimizer did not,
which matters for quoted recipes. Decay goes by the name of a parameter, never by its
rank: stacked layers turn biases and LayerNorm vectors into matrices.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.training import averages

NAMES = ("adamw", "lamb", "stable_adamw")
SCHEDULES = ("linear", "polynomial", "wsd", "constant")

# The rule for weight decay (and for LAMB's trust ratio), by the leaf's name.
DECAYED = ("kernel", "embedding", "lora_a", "lora_b")
NOT_DECAYED = ("bias", "scale", "transitions", "starts", "ends")  # the last of a CRF

# A leaf below a node of this name holds all layers, stacked on its first axis.
STACKED = "layers"

Schedule = Callable[[Any], Any]


@no_type_check  # its values are a user's: `__post_init__` checks types with messages
@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The settings of the optimizer, each checked (see `_RANGES`).

    `power` is read by the schedule "polynomial" alone, `decay_fraction` (the share of
    the steps in which the rate falls) by "wsd" alone, `end_learning_rate` by all but
    "constant". Raises InputError, naming the key, for a value that cannot be meant.
    """

    learning_rate: float
    name: str = "adamw"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    schedule: str = "linear"
    end_learning_rate: float = 0.0
    power: float = 1.0
    decay_fraction: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _check_choice("name", self.name, NAMES)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_whole("warmup_steps", self.warmup_steps)
        for field, (accepts, words) in _RANGES.items():
            value = _number(field, getattr(self, field), accepts, words)
            object.__setattr__(self, field, value)
        self._check_end()

    def _check_end(self) -> None:
        self.check_end(self.learning_rate, "optimizer.learning_rate")

    def check_end(self, peak: float, name: str) -> None:
        """Raises InputError for a peak of the rate, of a key `name`, below its end."""
        if self.end_learning_rate > peak:
            allowed = f"at most {name} ({peak:g})"
            raise _wrong("end_learning_rate", self.end_learning_rate, allowed)


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "weight_decay": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "end_learning_rate": (lambda x: 0 <= x <= 1, "from 0 to 1"),
    "power": (lambda x: x > 0, "above 0"),
    "decay_fraction": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "beta1": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "beta2": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "epsilon": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "max_grad_norm": (lambda x: x > 0, "above 0"),
}


def _wrong(field: str, value: object, allowed: str) -> errors.InputError:
    return errors.InputError(f"optimizer.{field} must be {allowed}; found {value!r}")


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise _wrong(field, value, "one of " + ", ".join(choices))


def _check_whole(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(field, value, "a whole number of at least 0")


def _number(
    field: str, value: Any, accepts: Callable[[float], bool], words: str
) -> float:
    """Returns the value as a float, or raises InputError with the allowed range."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and accepts(value)):
        raise _wrong(field, value, f"a finite number {words}")
    return float(value)


def learning_rate(
    config: OptimizerConfig, num_train_steps: int, *, peak: Any = None
) -> Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    The decay runs from step 0 over all steps and a linear warm-up from 0 replaces its
    beginning, as in Google's `optimization.py`; so step 0 has rate 0 when there is a
    warm-up. Raises InputError if the warm-up, or the warm-up and the decay of "wsd",
    do not fit into the steps.

    `peak`, which may be traced and so is not checked, stands in for
    `config.learning_rate`.
    """
    _check_steps(config, num_train_steps)
    peak = config.learning_rate if peak is None else peak
    decay = _decay_schedule(config, num_train_steps, peak)
    warmup_steps = config.warmup_steps
    if warmup_steps == 0:
        return decay

    def rate(step: Any) -> Any:
        warmup = peak * step / warmup_steps
        return jnp.where(step < warmup_steps, warmup, decay(step))

    return rate


def _check_steps(config: OptimizerConfig, num_train_steps: int) -> None:
    if num_train_steps < 1:
        raise errors.InputError(
            f"run.num_train_steps must be at least 1; found {num_train_steps}"
        )
    if config.warmup_steps > num_train_steps:
        allowed = f"at most run.num_train_steps ({num_train_steps})"
        raise _wrong("warmup_steps", config.warmup_steps, allowed)
    decay_steps = wsd_decay_steps(config, num_train_steps)
    if config.schedule == "wsd" and config.warmup_steps + decay_steps > num_train_steps:
        allowed = (
            f"at most {num_train_steps - decay_steps}, because the last {decay_steps} "
            f"of {num_train_steps} steps are the decay of the schedule wsd"
        )
        raise _wrong("warmup_steps", config.warmup_steps, allowed)


def wsd_decay_steps(config: OptimizerConfig, num_train_steps: int) -> int:
    """Returns the steps at the end of a run in which the schedule "wsd" decays."""
    return max(1, round(config.decay_fraction * num_train_steps))


def _decay_schedule(
    config: OptimizerConfig, num_train_steps: int, peak: Any
) -> Schedule:
    """Returns the schedule without its warm-up."""
    if config.schedule == "constant":
        return optax.constant_schedule(peak)
    decay_steps = num_train_steps
    if config.schedule == "wsd":
        decay_steps = wsd_decay_steps(config, num_train_steps)
    return optax.polynomial_schedule(
        init_value=peak,
        end_value=config.end_learning_rate,
        power=config.power if config.schedule == "polynomial" else 1.0,
        transition_steps=decay_steps,
        transition_begin=num_train_steps - decay_steps,
    )


def decay_mask(params: PyTree) -> PyTree:
    """Returns, in the tree of `params`, whether weight decay applies to each leaf.

    The name of the leaf decides: kernels and embeddings decay, biases, LayerNorm
    scales and the moves of a CRF do not. Raises InputError for a leaf that no rule
    names.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _decays(path), params)


def _decays(path: tuple[Any, ...]) -> bool:
    name = keys(path)[-1]
    if name not in DECAYED + NOT_DECAYED:
        raise errors.InputError(
            f"the parameter {'/'.join(keys(path))} matches no rule for weight decay: "
            f"its name must be one of {', '.join(DECAYED + NOT_DECAYED)}"
        )
    return name in DECAYED


def keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Returns the keys of a path in a tree of dicts."""
    return tuple(str(getattr(entry, "key", entry)) for entry in path)


def make(
    config: OptimizerConfig,
    num_train_steps: int,
    *,
    peak: Any = None,
    scales: PyTree | None = None,
    average_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the optimizer: clipping by the global norm, moments, decay, rate.

    AdamW is Loshchilov and Hutter 2019 with the decay multiplied by the rate; LAMB is
    You et al. 2020, algorithm 2 (see `_scale_by_trust_ratio`); StableAdamW is Wortsman
    et al. 2023 (arXiv:2304.13013), algorithm 2 (see `_scale_by_surprise`).

    Args:
      peak: stands in for `config.learning_rate`; see `learning_rate`.
      scales: the tree of the parameters; each leaf, a number or an array that
        broadcasts to the parameter, multiplies its updates. What has scale 0 stays as
        it is, to the bit, and its gradient is outside the norm that is clipped.
      average_decay: above 0, the state holds averages of the parameters
        (`averages.read`).
    """
    moments = [
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    ]
    if config.name == "stable_adamw":
        moments = [_scale_by_surprise(optax.chain(*moments), config)]
    parts = [optax.clip_by_global_norm(config.max_grad_norm), *moments]
    if config.name == "lamb":
        parts.append(_scale_by_trust_ratio())
    schedule = learning_rate(config, num_train_steps, peak=peak)
    parts.append(optax.scale_by_learning_rate(schedule))
    if scales is not None:
        first = optax.stateless(lambda grads, _: zero_frozen(grads, scales))
        last = optax.stateless(lambda updates, _: _multiply(updates, scales))
        parts = [first, *parts, last]
    if average_decay:
        parts.append(averages.keep(average_decay))
    return optax.chain(*parts)


def is_frozen(scale: Any) -> bool:
    """Returns whether a leaf with this scale, a number or numpy array, never changes.

    >>> is_frozen(0.0), is_frozen(np.array([[0.0], [0.5]]))
    (True, False)
    """
    return not np.any(scale)


def zero_frozen(grads: PyTree, scales: PyTree) -> PyTree:
    """Returns the gradients with zeros where the scale is 0."""

    def zeroed(grad: Array, scale: Any) -> Array:
        return jnp.where(scale == 0, jnp.zeros_like(grad), grad)

    return jax.tree.map(zeroed, grads, scales)


def _multiply(updates: PyTree, scales: PyTree) -> PyTree:
    return jax.tree.map(lambda update, scale: update * scale, updates, scales)


def _scale_by_surprise(
    adamw: optax.GradientTransformation, config: OptimizerConfig
) -> optax.GradientTransformation:
    """Divides each update by the RMS of gradient / sqrt(second moment), if above 1.

    It is far above 1 when gradients grow faster than the second moment follows, which
    is when AdamW steps too far (section 3.4 of the paper). Layer by layer when stacked.

    Args:
      adamw: a chain of Adam and the decay, whose sum is divided.
    """

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        grads = updates
        steps, state = adamw.update(grads, state, params)
        seen = 1.0 - config.beta2 ** state[0].count

        def divided(path: Any, step: Array, grad: Array, moment: Array) -> Array:
            axes, stacked = _axes(path, grad)
            square = jnp.square(grad) / jnp.maximum(moment / seen, config.epsilon**2)
            rms = jnp.sqrt(jnp.mean(square, axis=axes, keepdims=stacked))
            return step / jnp.broadcast_to(jnp.maximum(rms, 1.0), step.shape)

        made = jax.tree_util.tree_map_with_path(divided, steps, grads, state[0].nu)
        return made, state

    return optax.GradientTransformation(adamw.init, update_fn)


def _axes(path: tuple[Any, ...], leaf: Array) -> tuple[tuple[int, ...], bool]:
    """Returns the axes of one tensor, and whether there is another, of the layers."""
    stacked = STACKED in keys(path)
    return tuple(range(1 if stacked else 0, leaf.ndim)), stacked


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    """Scales each update to the norm of its weights, layer by layer when stacked.

    As in the authors' code for BERT, leaves without weight decay (biases, LayerNorm
    scales) keep their update, and so does a tensor whose norm is zero.
    """

    def scale(path: tuple[Any, ...], update: Array, param: Array) -> Array:
        if not _decays(path):
            return update
        return update * _trust_ratio(update, param, *_axes(path, param))

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        scaled = jax.tree_util.tree_map_with_path(scale, updates, params)
        return scaled, state

    return optax.GradientTransformation(optax.init_empty_state, update_fn)


def _trust_ratio(
    update: Float[Array, "..."],
    param: Float[Array, "..."],
    axes: tuple[int, ...],
    stacked: bool,
) -> Float[Array, "..."]:
    """Returns |param| / |update|, of shape [] or, when stacked, [layers, 1, ..., 1]."""
    param_norm = jnp.sqrt(jnp.sum(jnp.square(param), axis=axes, keepdims=stacked))
    update_norm = jnp.sqrt(jnp.sum(jnp.square(update), axis=axes, keepdims=stacked))
    usable = (param_norm > 0) & (update_norm > 0)
    return jnp.where(usable, param_norm / jnp.where(usable, update_norm, 1.0), 1.0)
