"""Compares a model with the same model in another format, run by its library.

Both sides see the same rows of tokens; every layer and head is compared over the real
tokens. The parameters of both are compared bit for bit as well, which needs no library.
"""

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, PyTree

from bert_jax import checkpoints, console, errors
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    mapping,
    tensors,
    weights,
)
from bert_jax.data import stream
from bert_jax.foundation import json_file
from bert_jax.model import encoder, network
from bert_jax.text.tokenizer import Tokenizer

Batch = dict[str, Int32[np.ndarray, "B L"]]
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
    *("model_type", "num_attention_heads", "num_hidden_layers", "hidden_act"),
    *("layer_norm_eps", "position_offset", "global_attn_every_n_layers"),
    *("local_attention", "global_rope_theta", "local_rope_theta"),
)
_EXTRAS = {"torch": "torch", "transformers": "torch", "tensorflow": "data"}


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceOutputs:
    """What the other side computes.

    Attributes:
      made_by: the library, its version and the class.
      values: `embeddings`, `layer 1` to `layer n`, and whatever the class returns.
      notes: tensors that it did not find or did not want.
    """

    made_by: str
    values: dict[str, np.ndarray]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """The difference of two sides after one layer, over the real tokens.

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
        """Returns whether one of the differences is within the bound; NaN is not."""
        return self.absolute <= bound or self.relative <= bound


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was compared, and what came of it.

    Attributes:
      other: the library and class that were run, and on what; or why none was.
      parameters: how the parameters of both sides compare, in a line.
      layers: in the order of computation; empty if no outputs were compared.
      bound: what a layer may differ by, `BOUND` or `ROUNDED_BOUND`.
      problems: what is wrong besides the layers.
      notes: what to know that is not wrong.
      activation: which programs compute it in another form; "" for none.
    """

    other: str
    parameters: str
    layers: tuple[LayerDifference, ...] = ()
    bound: float = BOUND
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    activation: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong with whatever was compared."""
        return not self.problems and self.first_differing is None

    @property
    def first_differing(self) -> LayerDifference | None:
        """The first layer, in the order of computation, that is out of bounds."""
        return next((x for x in self.layers if not x.passes(self.bound)), None)

    @property
    def worst(self) -> LayerDifference | None:
        """The layer with the largest relative difference; NaN is larger than all."""

        def size(layer: LayerDifference) -> float:
            return math.inf if math.isnan(layer.relative) else layer.relative

        return max(self.layers, key=size, default=None)

    def table(self) -> str:
        """Returns all of it for people, in aligned columns."""
        lines = [self.other, f"parameters: {self.parameters}"]
        if self.layers:
            rows = [("layer", "largest value", "absolute", "relative")]
            for x in self.layers:
                differences = (f"{x.absolute:.1e}", f"{x.relative:.1e}")
                rows.append((x.name, f"{x.largest:.4f}", *differences))
            lines.append(console.table(rows))
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
            return "passed: the parameters are equal"
        return f"passed: the worst layer is {worst.name} ({allowed})"


def verify(
    mine: checkpoints.LoadedModel,
    other: Path,
    choice: weights.Choice = weights.WHOLE,
) -> Verification:
    """Compares a model with a folder that should hold the same one.

    Args:
      mine: the model, which is run in float32 here.
      other: a model folder, or a file in it; run by the library of its format.
      choice: what the reader of `other` may do without.

    Raises:
      InputError: `other` cannot be read at all. A difference raises nothing.
      CheckpointError: it is a workdir without a usable checkpoint.
    """
    folder = checkpoints.open(other)
    found = folder.read(choice, needs_tokenizer=False)
    parameters, is_rounded, problems = _compare_parameters(mine.weights, found)
    problems += _other_problems(mine.weights, found.weights)
    kinds = mine.format, found.format
    gelu = hf_config.gelu_note(mine.weights.config, kinds, keras_hub=False)
    bound = ROUNDED_BOUND if is_rounded else BOUND
    done = Verification("", parameters, (), bound, problems, activation=gelu)
    absent = [m for m in _NEEDS[found.format] if importlib.util.find_spec(m) is None]
    if absent:
        reason = errors.missing_extra(absent[0], _EXTRAS[absent[0]])
        text = f"no outputs were compared: {reason}"
        return dataclasses.replace(done, other=text)
    rows = sample_rows(mine)
    try:
        theirs = _reference(found, folder.files.path, rows, choice)
    except Exception as error:  # of any kind: what a library makes of a wrong folder
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"the library of this format cannot run it ({reason})"
        return dataclasses.replace(
            done, other="no outputs were compared", problems=(*problems, problem)
        )
    return _with_outputs(done, outputs(mine.weights, rows), theirs, rows)


def _with_outputs(
    done: Verification,
    ours: dict[str, np.ndarray],
    theirs: ReferenceOutputs,
    rows: Batch,
) -> Verification:
    """Adds the differences of the layers to what was verified already."""
    mask = rows["segment_ids"] > 0
    both = [name for name in ours if name in theirs.values]
    one_sided = sorted(ours.keys() ^ theirs.values.keys())
    notes = list(theirs.notes)
    if one_sided:
        notes.append(f"only one side returns {', '.join(one_sided)}")
    return dataclasses.replace(
        done,
        other=f"{theirs.made_by}: {len(mask)} rows of at most {mask.shape[1]} tokens",
        layers=tuple(_layer(x, ours[x], theirs.values[x], mask) for x in both),
        notes=tuple(notes),
    )


def outputs(given: weights.Weights, rows: Batch) -> dict[str, np.ndarray]:
    """Runs our model in float32, every layer and head.

    Returns `embeddings` and `layer 1` to `layer n` [B, L, D], then the outputs of
    `network.Network` by their names.
    """
    execution = encoder.Execution(vocab_multiple=1)
    model = network.for_parts(given.config, execution, given.parts, given.num_labels)

    @jax.jit
    def run(params: PyTree, batch: dict[str, Array]) -> dict[str, Any]:
        outputs = model.apply(params, batch, dropout_key=None, hidden_states=True)
        if "mlm_scores" in outputs:
            outputs["mlm_logits"] = outputs["mlm_scores"].logits()
        return outputs

    with jax.default_matmul_precision("highest"):  # else a GPU rounds to TF32
        outputs = run(given.params, jax.tree.map(jnp.asarray, rows))
    states = np.asarray(outputs["hidden_states"])
    values = {f"layer {number}": state for number, state in enumerate(states)}
    values = {"embeddings": values.pop("layer 0")} | values
    return values | {x: np.asarray(outputs[x]) for x in _HEADS if x in outputs}


def _reference(
    found: checkpoints.LoadedModel,
    path: Path,
    rows: Batch,
    choice: weights.Choice,
) -> ReferenceOutputs:
    """Runs the other side."""
    if found.format == "huggingface":
        return transformers_outputs(path, found.weights, rows, choice)
    if found.format == "tensorflow1":
        tf = stream.load_tensorflow()
        of_tokens = "tagger" in found.weights.parts
        result = tensorflow1_outputs(tf, path, rows, of_tokens=of_tokens)
        name = f"TensorFlow {tf.__version__}, {found.report.source}"
        return ReferenceOutputs(name, result, ())
    return ReferenceOutputs(found.report.source, outputs(found.weights, rows), ())


def _layer(
    name: str, ours: np.ndarray, theirs: np.ndarray, mask: Bool[np.ndarray, "B L"]
) -> LayerDifference:
    """Compares one layer; outputs of other shapes differ infinitely."""
    if ours.shape != theirs.shape:
        return LayerDifference(name, math.nan, math.inf)
    if ours.ndim == 3 or name == "rtd_logits":  # the rest has no axis of tokens
        ours, theirs = ours[mask], theirs[mask]
    difference = np.abs(ours - theirs)
    return LayerDifference(name, float(np.abs(theirs).max()), float(difference.max()))


def _compare_parameters(
    mine: weights.Weights, found: checkpoints.LoadedModel
) -> tuple[str, bool, tuple[str, ...]]:
    """Compares all parameters bit for bit, after rounding ours to the stored dtype.

    Returns a line about it, whether rounding changed anything, and what is wrong.
    """
    ours, theirs = mapping.flatten(mine.params), mapping.flatten(found.weights.params)
    dtypes = {row.ours: row.dtype for row in found.report.rows}
    one_sided_names = sorted(ours.keys() ^ theirs.keys())
    rounded, differing = set(), []
    for path in sorted(ours.keys() & theirs.keys()):
        stored = _rounded(ours[path], dtypes[path])
        if not np.array_equal(stored, ours[path]):
            rounded.add(dtypes[path])
        if not np.array_equal(stored, theirs[path]):
            differing.append(path)
    line = f"{mine.num_parameters:,} numbers in {len(ours)} arrays"
    problems = []
    if one_sided_names:
        problems.append(f"only one side has {weights.shortened(one_sided_names)}")
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
    """Returns what is wrong with two models that may have the same parameters."""
    problems = []
    for name in _DECISIVE:
        ours, theirs = getattr(mine.config, name), getattr(other.config, name)
        if ours != theirs:
            problems.append(f"{name} is {ours} on one side and {theirs} on the other")
    if mine.class_names != other.class_names:
        problems.append(f"the labels are {mine.labels} and {other.labels}")
    wrong = [
        path
        for path, x in mapping.flatten(mine.params).items()
        if not np.isfinite(x).all()
    ]
    if wrong:
        problems.append(f"not all numbers are finite in {weights.shortened(wrong)}")
    return tuple(problems)


# The rows that both sides see.

_LONGEST = 64  # tokens in a row
_TEXTS = (
    "The train to the coast leaves at half past nine.",
    "Water boils at 100 degrees, and ice melts at 0!",
    "今天天气很好，我们去公园散步。",
    "北京大学图书馆在2008年开放。",
)


def sample_rows(mine: checkpoints.LoadedModel) -> Batch:
    """Makes rows of several lengths for a model, always the same ones.

    They are texts in English and Chinese and tokens from all over the vocabulary, or,
    without a tokenizer, random ids. Every second row changes its token type half-way.

    Returns `input_ids`, `token_type_ids` and `segment_ids` (0 is padding).
    """
    bert = mine.weights.config
    longest = min(_LONGEST, mine.max_seq_length, bert.max_length)
    result = _random_rows(bert.vocab_size, longest)
    if mine.tokenizer is not None:
        result = [*_text_rows(mine.tokenizer), *_piece_rows(mine.tokenizer, longest)]
    # RoBERTa takes this id for padding in any position.
    result = [[i for i in row if i != bert.pad_token_id][:longest] for row in result]
    shape = len(result), max(map(len, result))
    input_ids = np.full(shape, bert.pad_token_id, np.int32)
    token_type_ids, segment_ids = np.zeros((2, *shape), np.int32)
    for number, row in enumerate(result):
        input_ids[number, : len(row)] = row
        segment_ids[number, : len(row)] = 1
        second = number % max(1, min(2, bert.type_vocab_size))
        token_type_ids[number, len(row) // 2 : len(row)] = second
    return {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "segment_ids": segment_ids,
    }


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


# What transformers computes.

_RENAMED = {
    "pooler_output": "pooled_output",
    "seq_relationship_logits": "nsp_logits",
    "sop_logits": "nsp_logits",
    "prediction_logits": "mlm_logits",
    "logits": "logits",
}
_PROGRAMS = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "custom_pipelines",
)
# Classes that call `logits` what has a name of its own here.
_LOGITS = {
    "ForMaskedLM": "mlm_logits",
    "LMHeadModel": "mlm_logits",
    "ForNextSentencePrediction": "nsp_logits",
    "ElectraForPreTraining": "rtd_logits",
}


def transformers_outputs(
    path: Path,
    given: weights.Weights,
    rows: Batch,
    choice: weights.Choice = weights.WHOLE,
) -> ReferenceOutputs:
    """Runs the model of a folder, or of a file's folder, in float32.

    Tensors below a prefix that `transformers` does not look for are renamed.

    Args:
      given: what was read from it; its parts decide if config.json names no class.
      rows: those of `sample_rows`.
      choice: that of the reader.

    Raises:
      ImportError: torch or transformers is not installed.
      Exception: whatever `transformers` raises for a folder that it cannot load.
    """
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    arrays = {"input_ids": rows["input_ids"], "attention_mask": rows["segment_ids"]}
    with _quiet(transformers), torch.no_grad():
        renamed = huggingface.renamed(path, choice)
        state = renamed and {key: torch.tensor(x) for key, x in renamed.items()}
        model, info = _load(transformers, path, given, state)
        name = type(model).__name__
        if "token_type_ids" in inspect.signature(model.forward).parameters:
            arrays["token_type_ids"] = rows["token_type_ids"]
        tensors = {key: torch.tensor(x.astype(np.int64)) for key, x in arrays.items()}
        if name.endswith("ForMultipleChoice"):  # [1, B, L]: of one question
            tensors = {key: x[None] for key, x in tensors.items()}
        found = model(**tensors, output_hidden_states=True, return_dict=True)
    values = {key: x.numpy() for key, x in found.items() if torch.is_tensor(x)}
    states = [state.numpy() for state in found.hidden_states]
    made_by = f"transformers {transformers.__version__}, {name}"
    return ReferenceOutputs(made_by, _renamed(name, values, states), _notes(info))


def _load(
    transformers: Any,
    path: Path,
    given: weights.Weights,
    state: dict[str, Any] | None,
) -> tuple[Any, dict[str, Any]]:
    """Returns the model in float32, and which tensors were missing or left over."""
    folder = path if path.is_dir() else path.parent
    tree = json_file.read_object(huggingface.config_file(folder))
    of_class = getattr(transformers, _class_name(transformers, tree, given))
    # What names a program of elsewhere is left out.
    kept = {key: x for key, x in tree.items() if key not in _PROGRAMS}
    in_float32 = kept | {
        "model_type": given.config.model_type,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    model, info = of_class.from_pretrained(
        None if state else str(folder),
        state_dict=state,
        config=of_class.config_class.from_dict(in_float32),
        local_files_only=True,
        output_loading_info=True,
    )
    return model.eval(), info


def _class_name(transformers: Any, tree: dict[str, Any], given: weights.Weights) -> str:
    """Returns the class in config.json, if it is one of this model type.

    Otherwise that with exactly the parts that were read, or that of the encoder only.
    """
    model_type = given.config.model_type
    prefix = mapping.CLASS_PREFIX[model_type]
    classes = tree.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else ""
    is_known = isinstance(name, str) and re.fullmatch(rf"{prefix}\w*", name)
    if is_known and hasattr(transformers, name):
        return name
    try:
        return prefix + hf_config.class_of(model_type, frozenset(given.parts))
    except errors.InputError:
        return f"{prefix}Model"


def _renamed(
    of_class: str, values: dict[str, np.ndarray], states: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns hidden states and outputs by our names."""
    result = {f"layer {number}": state for number, state in enumerate(states)}
    result["embeddings"] = result.pop("layer 0")
    if "start_logits" in values:
        ends = values["start_logits"], values["end_logits"]
        result["logits"] = np.stack(ends, axis=-1)
    own = [ours for end, ours in _LOGITS.items() if of_class.endswith(end)]
    renamed = _RENAMED | {"logits": own[0]} if own else _RENAMED
    result |= {renamed[key]: x for key, x in values.items() if key in renamed}
    if of_class.endswith("ForMultipleChoice"):
        result["logits"] = result["logits"].T
    return result


def _notes(info: dict[str, Any]) -> tuple[str, ...]:
    """Returns which tensors a class initialized at random, or did not use."""
    return tuple(
        f"transformers {what}: {weights.shortened(sorted(info[key]))}"
        for key, what in (
            ("missing_keys", "lacks and initializes at random"),
            ("unexpected_keys", "has no use for"),
        )
        if info[key]
    )


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences messages, progress bars and warnings, and puts them back after."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# What Google's model computes, in plain TensorFlow.


def tensorflow1_outputs(
    tf: Any, path: Path, rows: Batch, *, of_tokens: bool
) -> dict[str, np.ndarray]:
    """Returns `embeddings`, `layer 1` to `layer n`, and the outputs of all heads.

    Args:
      tf: the module tensorflow.
      path: a folder with one checkpoint, or the prefix of a checkpoint.
      rows: those of `sample_rows`.
      of_tokens: whether `output_weights` score every token, or the pooled row.
    """
    index = next(path.glob("*.index")) if path.is_dir() else path
    bert = _Bert(tf, index.with_name(index.name.removesuffix(".index")))
    x = bert.embed(rows["input_ids"], rows["token_type_ids"])
    result = {"embeddings": x}
    for number in range(bert.config["num_hidden_layers"]):
        x = bert.layer(x, rows["segment_ids"] > 0, f"bert/encoder/layer_{number}")
        result[f"layer {number + 1}"] = x
    pooled = x[:, 0]
    if bert.has("bert/pooler/dense/kernel"):
        pooled = tf.tanh(bert.dense(pooled, "bert/pooler/dense"))
        result["pooled_output"] = pooled
    if bert.has("cls/seq_relationship/output_weights"):
        result["nsp_logits"] = bert.scores(pooled, "cls/seq_relationship/output")
    if bert.has("cls/predictions/output_bias"):
        result["mlm_logits"] = bert.predictions(x)
    if bert.has("cls/squad/output_weights"):
        result["logits"] = bert.scores(x, "cls/squad/output")
    if bert.has("output_weights"):
        result["logits"] = bert.scores(x if of_tokens else pooled, "output")
    return {name: value.numpy() for name, value in result.items()}


class _Bert:
    """The parts of BERT, each from the variables below a name."""

    def __init__(self, tf: Any, prefix: Path) -> None:
        self.tf = tf
        self.config = json.loads((prefix.parent / "bert_config.json").read_bytes())
        reader = tf.train.load_checkpoint(str(prefix))
        self.has, self.get = reader.has_tensor, reader.get_tensor
        self.table = self.get("bert/embeddings/word_embeddings")

    def embed(self, input_ids: Any, token_type_ids: Any) -> Any:
        x = self.tf.gather(self.table, input_ids)
        x += self.get("bert/embeddings/position_embeddings")[: input_ids.shape[1]]
        types = self.get("bert/embeddings/token_type_embeddings")
        x += self.tf.gather(types, token_type_ids)
        return self.norm(x, "bert/embeddings/LayerNorm")

    def layer(self, x: Any, mask: Any, name: str) -> Any:
        seen = self.attend(x, mask, f"{name}/attention/self")
        seen = self.dense(seen, f"{name}/attention/output/dense")
        x = self.norm(x + seen, f"{name}/attention/output/LayerNorm")
        inner = self.activation(self.dense(x, f"{name}/intermediate/dense"))
        inner = self.dense(inner, f"{name}/output/dense")
        return self.norm(x + inner, f"{name}/output/LayerNorm")

    def attend(self, x: Any, mask: Any, name: str) -> Any:
        tf, heads = self.tf, self.config["num_attention_heads"]
        query, key, value = (
            tf.stack(tf.split(self.dense(x, f"{name}/{of}"), heads, axis=-1), axis=1)
            for of in ("query", "key", "value")
        )
        scores = tf.matmul(query, key, transpose_b=True) / query.shape[-1] ** 0.5
        # Google's code adds this to what must not be seen.
        scores += tf.where(mask, 0.0, -10000.0)[:, None, None]
        seen = tf.matmul(tf.nn.softmax(scores), value)
        return tf.concat(tf.unstack(seen, axis=1), axis=-1)

    def predictions(self, x: Any) -> Any:
        x = self.activation(self.dense(x, "cls/predictions/transform/dense"))
        x = self.norm(x, "cls/predictions/transform/LayerNorm")
        logits = self.tf.einsum("bld,vd->blv", x, self.table)
        return logits + self.get("cls/predictions/output_bias")

    def scores(self, x: Any, name: str) -> Any:
        kernel = self.get(f"{name}_weights")  # [C, D], unlike all others
        return self.tf.einsum("...d,cd->...c", x, kernel) + self.get(f"{name}_bias")

    def dense(self, x: Any, name: str) -> Any:
        kernel = self.get(f"{name}/kernel")
        return self.tf.einsum("...d,de->...e", x, kernel) + self.get(f"{name}/bias")

    def norm(self, x: Any, name: str) -> Any:
        own = "layer_norm_eps" in self.config  # Google's has a constant
        epsilon = self.config["layer_norm_eps"] if own else 1e-12
        mean, variance = self.tf.nn.moments(x, -1, keepdims=True)
        x = (x - mean) / self.tf.sqrt(variance + epsilon)
        return x * self.get(f"{name}/gamma") + self.get(f"{name}/beta")

    def activation(self, x: Any) -> Any:
        nn, name = self.tf.nn, self.config["hidden_act"]
        if name in ("gelu", "gelu_new"):  # exact, as first published, and by tanh
            return nn.gelu(x, approximate=name == "gelu_new")
        return {"relu": nn.relu, "tanh": nn.tanh}[name](x)
