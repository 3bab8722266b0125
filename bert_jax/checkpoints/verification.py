"""Holds a model against the same model in another format, run by that format's library.

Both sides see the same rows of tokens; every layer and head is compared over the real
tokens. The parameters of both are compared bit for bit as well, which needs no library.
"""

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from bert_jax import errors
from bert_jax.checkpoints import (
    activations,
    huggingface_reference,
    model_folders,
    places,
    tensorflow1_reference,
    tensors,
    verification_rows,
    weights,
)
from bert_jax.data import quiet_tensorflow
from bert_jax.model import encoder, parts

# A layer passes if its largest difference is at most this, or at most this share of its
# largest value. Float32 sums in another order differ by 1e-6 to 1e-5.
BOUND = 1e-4
# The same where the other side's parameters were rounded to 16 bits.
ROUNDED_BOUND = 2e-2

# What comes after the layers, in this order.
_HEADS = ("pooled_output", "nsp_logits", "mlm_logits", "rtd_logits", "logits")
_NEEDS = {
    "huggingface": ("torch", "transformers"),
    "tensorflow1": ("tensorflow",),
    "bert_jax": (),
    "workdir": (),
}
# Of an architecture, what decides its outputs and does not show in the parameters.
_DECISIVE = (
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "hidden_act",
    "layer_norm_eps",
    "position_offset",
    "global_attn_every_n_layers",
    "local_attention",
    "global_rope_theta",
    "local_rope_theta",
)
_EXTRAS = {"torch": "torch", "transformers": "torch", "tensorflow": "data"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """How far two sides are apart after one layer, over the real tokens.

    Attributes:
      name: `embeddings`, `layer 1`, ..., `pooled_output` or the logits of a head.
      largest: the largest absolute value of the other side.
      absolute: the largest absolute difference.
    """

    name: str
    largest: float
    absolute: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest value."""
        if self.absolute == 0.0:
            return 0.0
        return self.absolute / self.largest if self.largest else math.inf

    def passes(self, bound: float) -> bool:
        """Says whether one of the differences is within the bound; NaN is not."""
        return self.absolute <= bound or self.relative <= bound


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was compared, and what came of it.

    Attributes:
      other: the library and class that were run, and on what; or why none was.
      parameters: how the parameters of both sides compare, in a line.
      layers: in the order of computation; empty if no outputs were compared.
      bound: what a layer may differ by, `BOUND` or `ROUNDED_BOUND`.
      problems: what is wrong apart from the layers.
      notes: what to know that is not wrong.
      activation: which programs compute it in another form; "" for none.
    """

    other: str
    parameters: str
    layers: tuple[Layer, ...] = ()
    bound: float = BOUND
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    activation: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong with whatever was compared."""
        return not self.problems and self.first_differing is None

    @property
    def first_differing(self) -> Layer | None:
        """The first layer, in the order of computation, that is out of bounds."""
        return next((x for x in self.layers if not x.passes(self.bound)), None)

    @property
    def worst(self) -> Layer | None:
        """The layer with the largest relative difference; NaN is larger than all."""

        def size(layer: Layer) -> float:
            return math.inf if math.isnan(layer.relative) else layer.relative

        return max(self.layers, key=size, default=None)

    def table(self) -> str:
        """Returns all of it for people, in aligned columns."""
        lines = [self.other, f"parameters: {self.parameters}"]
        if self.layers:
            width = max(len("layer"), *(len(x.name) for x in self.layers))
            heads = ("largest value", "absolute", "relative")
            lines.append("layer".ljust(width) + "".join(f"{x:>15}" for x in heads))
            for x in self.layers:
                cells = f"{x.largest:>15.4f}{x.absolute:>15.1e}{x.relative:>15.1e}"
                lines.append(x.name.ljust(width) + cells)
        notes = (*self.notes, self.activation) if self.activation else self.notes
        lines += [f"note: {note}" for note in notes]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        """Returns the last line of the table."""
        first, worst = self.first_differing, self.worst
        allowed = f"{self.bound:.0e} allowed, absolute or relative"
        if self.bound == ROUNDED_BOUND:
            allowed += ", for parameters rounded to 16 bits"
        if first is not None:
            return f"FAILED: the first layer that differs is {first.name} ({allowed})"
        if self.problems:
            return "FAILED: see the problems above"
        if worst is None:
            return "passed, by its parameters alone"
        return f"passed: the worst layer is {worst.name} ({allowed})"


def verify(
    mine: model_folders.Folder,
    other: Path,
    kind: str,
    choice: weights.Choice | None = None,
) -> Verification:
    """Compares a model with a folder that should hold the same one.

    Args:
      mine: the model, which is run in float32 here.
      other: a folder of one of `model_folders.KINDS`, or a file in it.
      kind: which, so that the library that reads such folders is run.
      choice: what the reader of `other` may do without.

    Raises:
      InputError: `other` cannot be read at all. A difference raises nothing.
      CheckpointError: it is a workdir without a usable checkpoint.
    """
    found = model_folders.read(other, choice, needs_tokenizer=False)
    parameters, is_rounded, problems = _compare_parameters(mine.weights, found)
    problems += _other_problems(mine.weights, found.weights)
    kinds = mine.kind, kind
    gelu = activations.gelu_note(mine.weights.config, kinds, keras_hub=False)
    done = Verification("", parameters, problems=problems, activation=gelu)
    if is_rounded:
        done = dataclasses.replace(done, bound=ROUNDED_BOUND)
    absent = [m for m in _NEEDS[kind] if importlib.util.find_spec(m) is None]
    if absent:
        reason = errors.missing_extra(absent[0], _EXTRAS[absent[0]])
        text = f"no outputs were compared: {reason}"
        return dataclasses.replace(done, other=text)
    return _with_outputs(done, mine, found, other, kind, choice)


def _with_outputs(
    done: Verification,
    mine: model_folders.Folder,
    found: model_folders.Folder,
    other: Path,
    kind: str,
    choice: weights.Choice | None,
) -> Verification:
    """Runs both sides and adds the layers to what was verified already."""
    seen = verification_rows.rows(mine)
    ours = outputs(mine.weights, seen)
    try:
        theirs = _reference(found, other, kind, seen, choice)
    except Exception as error:  # of any kind: what a library makes of a wrong folder
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"the library of this format cannot run it ({reason})"
        return dataclasses.replace(
            done,
            other="no outputs were compared",
            problems=(*done.problems, problem),
        )
    both = [name for name in ours if name in theirs.values]
    one_sided = sorted(ours.keys() ^ theirs.values.keys())
    notes = list(theirs.notes)
    if one_sided:
        notes.append(f"only one side returns {', '.join(one_sided)}")
    count, length = seen.input_ids.shape
    return dataclasses.replace(
        done,
        other=f"{theirs.made_by}: {count} rows of at most {length} tokens",
        layers=tuple(_layer(x, ours[x], theirs.values[x], seen.mask) for x in both),
        notes=tuple(notes),
    )


def outputs(
    given: weights.Weights, seen: verification_rows.Rows
) -> dict[str, np.ndarray]:
    """Runs our model in float32, every layer and head.

    Returns `embeddings` and `layer 1` to `layer n` [B, L, D], then the outputs of
    `parts.Parts` by their names.
    """
    execution = encoder.Execution(vocab_multiple=1)
    model = parts.Parts(given.config, execution, given.parts, given.num_labels)
    positions = np.arange(seen.mask.shape[1], dtype=np.int32) * seen.mask
    segments = seen.mask.astype(np.int32)
    arrays = seen.input_ids, seen.token_type_ids, segments, positions

    @jax.jit
    def run(params: PyTree, *arrays: Int[Array, "B L"]) -> Any:
        return model.apply(
            {"params": params}, *arrays, deterministic=True, mutable=["intermediates"]
        )

    with jax.default_matmul_precision("highest"):  # else a GPU rounds to TF32
        made, kept = run(given.params, *map(jnp.asarray, arrays))
    states = np.asarray(parts.hidden_states(kept["intermediates"]["encoder"]))
    values = {f"layer {number}": state for number, state in enumerate(states)}
    values = {"embeddings": values.pop("layer 0")} | values
    return values | {x: np.asarray(made[x]) for x in _HEADS if x in made}


def _reference(
    found: model_folders.Folder,
    other: Path,
    kind: str,
    seen: verification_rows.Rows,
    choice: weights.Choice | None,
) -> huggingface_reference.Reference:
    """Runs the other side."""
    arrays = seen.input_ids, seen.token_type_ids, seen.mask
    other = model_folders.weights_at(other)
    if kind == "huggingface":
        return huggingface_reference.outputs(other, found.weights, *arrays, choice)
    if kind == "tensorflow1":
        tf = quiet_tensorflow.load()
        of_tokens = "tagger" in found.weights.parts
        made = tensorflow1_reference.outputs(tf, other, *arrays, of_tokens=of_tokens)
        name = f"TensorFlow {tf.__version__}, {found.report.source}"
        return huggingface_reference.Reference(name, made, ())
    made = outputs(found.weights, seen)
    return huggingface_reference.Reference(found.report.source, made, ())


def _layer(
    name: str, ours: np.ndarray, theirs: np.ndarray, mask: Bool[np.ndarray, "B L"]
) -> Layer:
    """Compares one layer; outputs of other shapes are infinitely far apart."""
    if ours.shape != theirs.shape:
        return Layer(name, math.nan, math.inf)
    if ours.ndim == 3 or name == "rtd_logits":  # the rest has no axis of tokens
        ours, theirs = ours[mask], theirs[mask]
    difference = np.abs(ours - theirs)
    return Layer(name, float(np.abs(theirs).max()), float(difference.max()))


def _compare_parameters(
    mine: weights.Weights, found: model_folders.Folder
) -> tuple[str, bool, tuple[str, ...]]:
    """Compares all parameters bit for bit, after rounding ours to the stored dtype.

    Returns a line about it, whether rounding changed anything, and what is wrong.
    """
    ours, theirs = places.flat(mine.params), places.flat(found.weights.params)
    dtypes = {row.ours: row.dtype for row in found.report.rows}
    apart = sorted(ours.keys() ^ theirs.keys())
    rounded, differing = set(), []
    for path in sorted(ours.keys() & theirs.keys()):
        stored = _rounded(ours[path], dtypes[path])
        if not np.array_equal(stored, ours[path]):
            rounded.add(dtypes[path])
        if not np.array_equal(stored, theirs[path]):
            differing.append(path)
    line = f"{mine.num_parameters:,} numbers in {len(ours)} arrays"
    problems = []
    if apart:
        problems.append(f"only one side has {weights.shortened(apart)}")
    if differing:
        problems.append(
            f"{len(differing)} arrays of parameters differ: "
            f"{weights.shortened(differing)}"
        )
    if not problems:
        after = f" once rounded to {', '.join(sorted(rounded))}" if rounded else ""
        line += f", equal bit for bit{after}"
    return line, bool(rounded), tuple(problems)


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Returns float32 values as they come back from a file of a dtype."""
    if dtype in ("float32", "float64"):
        return array
    with np.errstate(over="ignore"):
        return array.astype(tensors.DTYPES[dtype]).astype(np.float32)


def _other_problems(mine: weights.Weights, other: weights.Weights) -> tuple[str, ...]:
    """Says what is wrong with two models that may have the same parameters."""
    problems = []
    for name in _DECISIVE:
        ours, theirs = getattr(mine.config, name), getattr(other.config, name)
        if ours != theirs:
            problems.append(f"{name} is {ours} on one side and {theirs} on the other")
    if mine.class_names != other.class_names:
        problems.append(f"the labels are {mine.labels} and {other.labels}")
    wrong = [
        path for path, x in places.flat(mine.params).items() if not np.isfinite(x).all()
    ]
    if wrong:
        problems.append(f"not all numbers are finite in {weights.shortened(wrong)}")
    return tuple(problems)
