"""The optimizer: its configuration, rate, decay, AdamW, StableAdamW, LAMB and Muon.

All optimizers correct the bias of their moments; Google's BERT optimizer did not,
which matters for quoted recipes. Decay goes by the name of a parameter, never by its
rank: stacked layers turn biases and LayerNorm vectors into matrices.

`keep_average` keeps an exponential mean of the parameters in the optimizer's state. It
is unbiased, as Adam's moments are: step t has the weight decay**(T - t), divided by the
sum of the weights of all T steps, so that a short run is not mixed with its
initialization.

`layer_scales` and `replace_top_layers` treat layers differently. Layers are stacked on
the first axis of every leaf below a node named STACKED, the lowest first. Howard and
Ruder 2018 (arXiv:1801.06146, section 3.2) give lower layers lower rates; Zhang et al.
2021 (arXiv:2006.05987, section 5) reinitialize the top ones.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax import contrib

from bert_jax import errors
from bert_jax.foundation import fields
from bert_jax.foundation.fields import REQUIRED, field


class Averages(NamedTuple):
    """How many steps are in the average, and the average: a tree like the parameters.

    Before the first step it is the parameters.
    """

    count: Int[Array, ""]
    average: PyTree


def keep_average(decay: float) -> optax.GradientTransformation:
    """Returns the last part of a chain: it changes no update and averages the results.

    Raises InputError unless 0 < decay < 1.
    """
    if not 0.0 < decay < 1.0:
        raise errors.InputError(
            f"the decay of averages must be above 0 and below 1; found {decay}"
        )

    def init_fn(params: PyTree) -> Averages:
        # Copies: a state is donated, and may not hold a buffer twice.
        return Averages(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        count = state.count + 1
        share = (1.0 - decay) / (1.0 - decay ** count.astype(jnp.float32))

        def moved(average: Array, param: Array, update: Array) -> Array:
            return average + share.astype(average.dtype) * (param + update - average)

        average = jax.tree.map(moved, state.average, params, updates)
        return updates, Averages(count, average)

    return optax.GradientTransformation(init_fn, update_fn)


def read_average(opt_state: PyTree) -> PyTree | None:
    """Returns the averages that an optimizer state holds, or None."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Averages))
    found = [node.average for node in nodes if isinstance(node, Averages)]
    return found[0] if found else None


NAMES = ("adamw", "lamb", "stable_adamw", "muon")
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
    """The optimizer and its learning rate schedule.

    Raises InputError, naming the key, for a value that is not allowed.
    """

    learning_rate: float = field(
        REQUIRED, "Peak of the learning rate.", above=0, high=1
    )
    name: str = field(
        "adamw",
        "AdamW, LAMB for large batches, StableAdamW, which clips its updates, or Muon "
        "for the matrices of the layers with AdamW for all else.",
        choices=NAMES,
    )
    warmup_steps: int = field(
        0, "Steps in which the rate rises linearly from 0.", low=0
    )
    weight_decay: float = field(
        0.01, "Decoupled weight decay; biases and norms have none.", low=0, below=1
    )
    schedule: str = field(
        "linear",
        "The rate after the warm-up: decays over the whole run (`linear`, "
        "`polynomial`), at its end only (`wsd`), or not at all.",
        choices=SCHEDULES,
    )
    end_learning_rate: float = field(
        0.0, "Rate at the end; not read by `constant`.", low=0, high=1
    )
    power: float = field(1.0, "Exponent of the schedule `polynomial`.", above=0)
    decay_fraction: float = field(
        0.1, "Fraction of the steps in which `wsd` decays.", above=0, high=1
    )
    beta1: float = field(0.9, "Decay of the first moment.", low=0, below=1)
    beta2: float = field(0.999, "Decay of the second moment.", low=0, below=1)
    epsilon: float = field(
        1e-6, "Added to the root of the second moment.", above=0, high=1
    )
    max_grad_norm: float = field(
        1.0, "Gradients are clipped to this global norm.", above=0
    )

    def __post_init__(self) -> None:
        fields.check("optimizer", self)
        self._check_end()

    def _check_end(self) -> None:  # fine-tuning has another, for sweeps
        self.check_end(self.learning_rate, "optimizer.learning_rate")

    def check_end(self, peak: float, name: str) -> None:
        """Raises InputError for a peak of the rate, of a key `name`, below its end."""
        if self.end_learning_rate > peak:
            allowed = f"at most {name} ({peak:g})"
            raise _wrong("end_learning_rate", self.end_learning_rate, allowed)


def _wrong(name: str, value: object, allowed: str) -> errors.InputError:
    return errors.InputError(f"optimizer.{name} is {value!r}: it must be {allowed}")


def learning_rate(
    config: OptimizerConfig, num_train_steps: int, *, peak: Any = None
) -> Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    The decay runs from step 0 over all steps and a linear warm-up from 0 replaces its
    beginning, as in Google's `optimization.py`; so step 0 has rate 0 when there is a
    warm-up. Raises InputError if the warm-up, or the warm-up and the decay of "wsd",
    do not fit into the steps.

    `peak`, which may be traced and so is not checked, replaces
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

    Its name decides (`DECAYED`). Raises InputError for a name without a rule.
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
    You et al. 2020, algorithm 2; StableAdamW is Wortsman et al. 2023
    (arXiv:2304.13013), algorithm 2. Muon is Jordan et al. 2024 with the scale of Liu
    et al. 2025 (arXiv:2502.16982, section 2.2), so that rates and decay of AdamW apply;
    its momentum is optax's 0.95, and beta1 and beta2 are those of the other parameters.

    Args:
      peak: replaces `config.learning_rate`; see `learning_rate`.
      scales: the tree of the parameters; each leaf, a number or an array that
        broadcasts to the parameter, multiplies its updates. What has scale 0 stays as
        it is, to the bit, and its gradient is outside the norm that is clipped.
      average_decay: above 0, the state holds averages of the parameters.
    """
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    if config.name == "muon":
        adam = optax.partition({"muon": _scale_by_muon(), "adam": adam}, _kinds)
    moments = [
        adam,
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
        last = optax.stateless(
            lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)
        )
        parts = [first, *parts, last]
    if average_decay:
        parts.append(keep_average(average_decay))
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

        return (
            jax.tree_util.tree_map_with_path(divided, steps, grads, state[0].nu),
            state,
        )

    return optax.GradientTransformation(adamw.init, update_fn)


def _scale_by_muon() -> optax.GradientTransformation:
    """Makes the momentum of each matrix orthogonal, by five Newton-Schulz steps.

    An update has the RMS 0.2, about that of AdamW (Liu et al. 2025, section 2.2).
    """
    orthogonal = contrib.scale_by_muon(weight_dimension_numbers=_matrices)

    def scale(path: Any, update: Array) -> Array:
        axes: Any = _matrix_axes(path)  # tuples, though an int would do
        rows, columns = (
            math.prod(update.shape[axis] for axis in side)
            for side in (axes.reduction_axis, axes.output_axis)
        )
        return update * (0.2 * math.sqrt(max(rows, columns)))

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        updates, state = orthogonal.update(updates, state, params)
        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(orthogonal.init, update_fn)


def _kinds(params: PyTree) -> PyTree:
    """Returns "muon" for kernels of the layers, and "adam" for all else."""

    def kind(path: Any, _: Any) -> str:
        names = keys(path)
        return "muon" if STACKED in names and names[-1] == "kernel" else "adam"

    return jax.tree_util.tree_map_with_path(kind, params)


def _matrices(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: _matrix_axes(path), params)


def _matrix_axes(path: tuple[Any, ...]) -> contrib.MuonDimensionNumbers:
    """Returns the input and output axes of a stacked kernel.

    Along its other axes it is several matrices: of the layers, and of what one kernel
    computes at once (Q, K and V; both halves of GeGLU).
    """
    names = keys(path)
    if "attention" not in names:  # [n, D, I], [n, D, 2, I] or [n, I, D]
        return contrib.MuonDimensionNumbers((1,), (-1,))
    if names[-2] == "output":  # [n, heads, head width, D]
        return contrib.MuonDimensionNumbers((1, 2), (3,))
    return contrib.MuonDimensionNumbers(
        (1,), (-2, -1)
    )  # [n, D, heads, width], QKV once


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


def layer_scales(
    params: PyTree,
    *,
    num_layers: int,
    below: tuple[str, ...],
    layer_decay: float = 1.0,
    frozen_layers: int = 0,
    freeze_below: bool = False,
    trained_parts: Sequence[str] = (),
) -> PyTree:
    """Returns the factor of the learning rate of each parameter, for `optimizer.make`.

    Parameters above the layers have 1, layer i of n `layer_decay ** (n - 1 - i)`, and
    those below the layers `layer_decay ** n`. Frozen parameters have 0.

    Args:
      params: parameters or their shapes.
      num_layers: n, of the model.
      below: the path of the parameters below the first layer (embeddings).
      layer_decay: above 0 and at most 1.
      frozen_layers: k: the first k layers, and all below them, are frozen.
      freeze_below: freezes only the parameters below the layers.
      trained_parts: if any are named, all else at the top of the tree is frozen.

    Returns:
      A tree of numbers, and of arrays [n, 1, ..., 1] for stacked leaves; those that
      have fewer rows than the others are of the top layers.

    Raises:
      InputError: a value is out of range, a part is unknown, or layers share their
        parameters.
    """
    _check(params, num_layers, layer_decay, frozen_layers, trained_parts)
    rates = layer_decay ** np.arange(num_layers - 1, -1, -1, dtype=np.float64)
    rates[:frozen_layers] = 0.0
    lowest = 0.0 if freeze_below or frozen_layers else layer_decay**num_layers

    def scale(path: Any, leaf: Any) -> Any:
        names = keys(path)
        if trained_parts and names[0] not in trained_parts:
            return 0.0
        if STACKED in names:
            own = rates[num_layers - leaf.shape[0] :].astype(np.float32)
            return own.reshape(-1, *(1,) * (leaf.ndim - 1))
        return lowest if names[: len(below)] == below else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def _check(
    params: PyTree,
    num_layers: int,
    layer_decay: float,
    frozen_layers: int,
    trained_parts: Sequence[str],
) -> None:
    if not 0.0 < layer_decay <= 1.0:
        raise errors.InputError(
            f"the decay of rates by layer must be above 0 and at most 1; found "
            f"{layer_decay}"
        )
    if not 0 <= frozen_layers <= num_layers:
        raise errors.InputError(
            f"recipe.frozen_layers is {frozen_layers}: this model has {num_layers}"
        )
    if unknown := sorted(set(trained_parts) - set(params)):
        raise errors.InputError(
            f"unknown part {', '.join(unknown)} to train: the parts are "
            f"{', '.join(sorted(params))}"
        )
    _check_stack(params, num_layers)


def _check_stack(params: PyTree, num_layers: int) -> None:
    """Raises InputError unless the stacked leaves with most rows have one a layer."""
    stacked = {
        keys(path): leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if STACKED in keys(path)
    }
    rows = max(stacked.values(), default=num_layers)
    if rows != num_layers:
        name = next(name for name in stacked if stacked[name] == rows)
        raise errors.InputError(
            f"{num_layers} layers share the parameters of {rows} here "
            f"({'/'.join(name)}): they cannot be treated differently"
        )


def replace_top_layers(
    params: PyTree, initial: PyTree, count: int, *, num_layers: int
) -> PyTree:
    """Returns `params` with the last `count` layers of `initial`, a tree like it.

    Raises InputError if there are not as many, or layers share their parameters.
    """
    if not 0 <= count <= num_layers:
        raise errors.InputError(
            f"recipe.reinit_layers is {count}: this model has {num_layers} layers"
        )
    _check_stack(params, num_layers)
    kept = num_layers - count

    def replaced(path: Any, leaf: Any, fresh: Any) -> Any:
        if STACKED not in keys(path):
            return leaf
        own = kept - (num_layers - leaf.shape[0])  # it may start above the first layer
        return jnp.concatenate([leaf[: max(own, 0)], fresh[max(own, 0) :]])

    return jax.tree_util.tree_map_with_path(replaced, params, initial)
