"""Vectors of texts: texts share rows of the encoder, so that little is padded.

A batch has R rows of S tokens, and attention stays inside a text (`segment_ids`). R and
S are of few sizes, so that few programs are compiled. Texts longer than a row of the
model are cut at its end.
"""

import bisect
import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_rows, python_examples
from bert_jax.foundation import interrupts
from bert_jax.model import config, encoder, heads, network
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer

POOLINGS = ("mean", "cls", "max", "pooled")
# The most tokens of a batch on a CPU, where larger batches are no faster.
TOKENS_PER_BATCH = 2048
_ACCELERATOR = 16  # times as many

# What a batch of R rows of S tokens costs on a CPU, as a number of tokens:
# R S (1 + S / _ATTENTION) + _WEIGHTS, of MiniLM (L6 H384).
_ATTENTION = 1200
_WEIGHTS = 24
_SHORTEST = 64  # batches of several rows have none that is shorter
_STEP = 4  # between the lengths of short rows

AHEAD = 2  # batches that the device computes while the host prepares the next one

Rows = list[list[int]]
Work = TypeVar("Work")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Texts that are computed together, in R rows of S tokens.

    Attributes:
      inputs: `input_ids`, `segment_ids` and `position_ids`, each [R, S] int32 and 0 in
        padding; segment k + 1 of a row is its text in slot k.
      indices: [n], the number of each text among all texts.
      row, slot, first: [n], the row of each text, its slot there and its first token.
    """

    inputs: dict[str, np.ndarray]
    indices: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    slot: Int[np.ndarray, " n"]
    first: Int[np.ndarray, " n"]


def rows_of(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_seq_length: int,
    *,
    prompt: str = "",
    truncation: str = "",
    coverage: Coverage | None = None,
) -> Rows:
    """Returns [CLS] text [SEP] of each text, cut to `max_seq_length` tokens.

    Args:
      prompt: written before every text.
      truncation: `head_tail` removes the middle of a text; all others its end.
      coverage: counted up with the tokens of the texts.

    Raises:
      InputError: `texts` is a single string or has an element that is not a string, or
        a row has no room for a token of a text.
    """
    texts = python_examples.texts_of(texts)
    room = max_seq_length - len(tokenizer.build([])[0])
    if room < 1:
        raise errors.InputError(
            f"rows of {max_seq_length} tokens have no room for text between the "
            "special tokens: use a model with longer rows"
        )
    texts = [prompt + text for text in texts]
    encoded = tokenizer.encode(texts)
    if coverage is not None:
        coverage.add(texts, encoded, tokenizer.unk_id)
        coverage.texts += len(texts)
        coverage.truncated += sum(len(ids) > room for ids in encoded)
    if truncation == "head_tail":
        return [tokenizer.build(encoding.head_tail(x, room))[0] for x in encoded]
    return [tokenizer.build(ids[:room])[0] for ids in encoded]


def prompt_length(tokenizer: Tokenizer, prompt: str, max_seq_length: int) -> int:
    """Returns how many tokens of a row come before the text, [CLS] among them.

    As sentence-transformers counts them: those of a row with only the prompt, without
    the special token at its end; 0 where there is no prompt.
    """
    if not prompt:
        return 0
    (row,) = rows_of(tokenizer, [prompt], max_seq_length)
    return len(row) - (row[-1] in tokenizer.special_ids)


def batches(rows: Rows, *, shared: bool = True) -> Iterator[Batch]:
    """Yields all texts, the longest first; a row is one text unless it is shared."""
    waiting: dict[int, list[int]] = {}
    for index in reversed(range(len(rows))):
        waiting.setdefault(max(1, len(rows[index])), []).append(index)
    while waiting:
        interrupts.check()
        counts = {length: len(indices) for length, indices in waiting.items()}
        length, filled = _layout(counts, shared)
        numbered = [[waiting[size].pop() for size in row] for row in filled]
        waiting = {size: indices for size, indices in waiting.items() if indices}
        yield _batch(rows, numbered, length)


def _layout(counts: dict[int, int], shared: bool) -> tuple[int, list[list[int]]]:
    """Returns the row length of the next batch, and the lengths of the texts of a row.

    Of all row lengths, the one that costs least for each token of a text.

    Args:
      counts: the number of texts of each length.
    """
    longest = max(counts)
    total = sum(length * count for length, count in counts.items())
    most = min(total, max(2 * longest, 4 * _SHORTEST)) if shared else longest
    found: dict[float, tuple[int, list[list[int]]]] = {}
    length = longest
    while not found or length <= most:
        length = example_rows.bucket(length, 1 << 30, _STEP)
        filled = _fill(counts, length, shared)
        cost = len(filled) * length * (1 + length / _ATTENTION) + _WEIGHTS
        found.setdefault(cost / sum(map(sum, filled)), (length, filled))
        length += 1
    return found[min(found)]


def _fill(counts: dict[int, int], length: int, shared: bool) -> list[list[int]]:
    """Returns rows of the longest texts that fit, a power of two of them."""
    is_cpu = jax.default_backend() == "cpu"
    tokens = TOKENS_PER_BATCH if is_cpu else TOKENS_PER_BATCH * _ACCELERATOR
    is_only = shared and length < _SHORTEST
    most_rows = 1 if is_only else max(1, tokens // length)
    most_texts = _slots(length) if shared else 1
    left, sizes, rows = dict(counts), sorted(counts), []
    while sizes and len(rows) < most_rows:
        row, room = [], length
        while len(row) < most_texts and (at := bisect.bisect_right(sizes, room)):
            size = sizes[at - 1]
            row.append(size)
            room -= size
            left[size] -= 1
            if not left[size]:
                del sizes[at - 1]
        rows.append(row)
    return rows[: 1 << (len(rows).bit_length() - 1)]


def _slots(length: int) -> int:
    """Returns the most texts that share a row of this length."""
    return min(max(1, length // 2), _SHORTEST)


def _batch(rows: Rows, numbered: list[list[int]], length: int) -> Batch:
    """Returns the batch whose rows are these texts."""
    names = ("input_ids", "segment_ids", "position_ids")
    inputs = {name: np.zeros((len(numbered), length), np.int32) for name in names}
    found: list[tuple[int, int, int, int]] = []
    for row, indices in enumerate(numbered):
        first = 0
        for slot, index in enumerate(indices):
            end = first + len(rows[index])
            inputs["input_ids"][row, first:end] = rows[index]
            inputs["segment_ids"][row, first:end] = slot + 1
            inputs["position_ids"][row, first:end] = np.arange(end - first)
            found.append((index, row, slot, first))
            first = max(end, first + 1)
    return Batch(inputs, *np.array(found, np.int64).T)


def computed_ahead(
    batches: Iterable[Work], compute: Callable[[Work], Any]
) -> Iterator[tuple[Work, Any]]:
    """Yields each batch with its outputs on the host, in order.

    The device computes up to `AHEAD` batches while the host prepares the next one.

    Args:
      compute: dispatches a batch, and returns its outputs on the device.
    """
    waiting: collections.deque[tuple[Work, Any]] = collections.deque()
    for batch in batches:
        waiting.append((batch, compute(batch)))
        if len(waiting) > AHEAD:
            done, outputs = waiting.popleft()
            yield done, jax.device_get(outputs)
    for done, outputs in waiting:
        yield done, jax.device_get(outputs)


def sentence_vectors(
    bert: config.BertConfig,
    params: PyTree,
    rows: Rows,
    pooling: str | tuple[str, ...],
    execution: encoder.Execution,
    *,
    skipped: int = 0,
) -> Float[np.ndarray, "n W"]:
    """Returns one vector a row, float32; W is D for each way of pooling.

    Args:
      pooling: `mean` over the tokens, the `cls` token, `max` of each dimension, another
        mode of `sentence_encoder.Pooling`, or `pooled`, the output of the pooler for
        [CLS]; or several of them, whose vectors are concatenated.
      skipped: tokens at the head of each row that are not pooled.
    """
    call = functools.partial(_pooled, bert, execution, pooling, params, skipped=skipped)
    size = bert.hidden_size * (1 if isinstance(pooling, str) else len(pooling))
    vectors = np.empty((len(rows), size), np.float32)
    computed = computed_ahead(batches(rows), lambda batch: call(batch.inputs))
    for batch, outputs in computed:
        vectors[batch.indices] = outputs[batch.row, batch.slot]
    return vectors


def trained_vectors(
    model: network.Network, params: PyTree, rows: Rows
) -> Float[np.ndarray, "n W"]:
    """Returns the vectors of rows by a model with a head of kind `vectors`, float32."""
    if not model.head.recurrent_size:
        pooling = {"cls": "pooled"}.get(model.head.pooling, model.head.pooling)
        return sentence_vectors(model.config, params, rows, pooling, model.execution)
    # The BiLSTM reads rows of one text.
    vectors = np.empty((len(rows), trained_size(model)), np.float32)
    computed = computed_ahead(
        batches(rows, shared=False), lambda batch: _trained(model, params, batch.inputs)
    )
    for batch, outputs in computed:
        vectors[batch.indices] = outputs[batch.row]
    return vectors


def trained_size(model: network.Network) -> int:
    """Returns W, the size of `trained_vectors`."""
    return 2 * model.head.recurrent_size or model.config.hidden_size


def token_vectors(
    bert: config.BertConfig,
    params: PyTree,
    rows: Rows,
    layers: tuple[int, ...],
    execution: encoder.Execution,
) -> list[Float[np.ndarray, "L K D"]]:
    """Returns the vectors of every token of every row, float32, after these layers.

    Args:
      layers: numbers from 0 (embeddings) to n, or from the end (-1 is the last).
    """
    vectors: list[Any] = [None] * len(rows)
    call = functools.partial(_states, bert, execution, layers, params)
    computed = computed_ahead(batches(rows), lambda batch: call(batch.inputs))
    for batch, states in computed:
        places = zip(batch.indices, batch.row, batch.first, strict=True)
        for index, row, first in places:
            end = first + len(rows[index])
            vectors[index] = states[row, first:end].copy()
    return vectors


def check_layers(layers: tuple[int, ...], bert: config.BertConfig) -> None:
    """Raises InputError unless the model has all these layers."""
    most = bert.num_hidden_layers
    wrong = [layer for layer in layers if not -most - 1 <= layer <= most]
    if wrong or not layers:
        raise errors.InputError(
            f"the model has no layer {wrong[0] if wrong else None}: 0 is the "
            f"embeddings, 1 to {most} are its layers, and -1 is the last"
        )


def normalized(vectors: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    """Returns vectors of length 1 in the same directions."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _run(
    bert: config.BertConfig,
    execution: encoder.Execution,
    params: PyTree,
    inputs: Mapping[str, Any],
    *,
    hidden_states: bool = False,
) -> dict[str, Any]:
    """Runs the encoder, with the pooler if there is one, on rows that texts share."""
    pooler = (heads.HeadSpec("pooler"),) if "pooler" in params else ()
    model = network.Network(bert, dataclasses.replace(execution, packed=True), pooler)
    return model.apply(params, inputs, dropout_key=None, hidden_states=hidden_states)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pooled(
    bert: config.BertConfig,
    execution: encoder.Execution,
    pooling: str | tuple[str, ...],
    params: PyTree,
    inputs: dict[str, Int[Any, "R S"]],
    skipped: int | Int[Any, ""] = 0,
) -> Float[Array, "R K W"]:
    """Computes one vector a slot of a row, K to a row; 0 where there is no text."""
    modes = (pooling,) if isinstance(pooling, str) else pooling
    segments = inputs["segment_ids"]
    slots = jnp.arange(_slots(segments.shape[1]), dtype=jnp.int32)
    is_of = segments[:, None, :] == slots[None, :, None] + 1
    texts = _Texts(is_of, inputs["position_ids"], skipped)
    positions = {"cls_positions": texts.first}
    outputs = _run(bert, execution, params, dict(inputs) | positions)
    vectors = jnp.concatenate([_pool(outputs, m, texts) for m in modes], axis=-1)
    return jnp.where(texts.lengths[..., None] > 0, vectors, 0.0)


class _Texts:
    """The texts of rows: K slots in each of R rows of S tokens.

    Attributes:
      is_real: [R, K, S], the tokens of each slot that are pooled: without the first
        `skipped`.
      first, lengths, skipped: [R, K], the first token of each slot, their number, and
        how many are not pooled.
    """

    def __init__(
        self,
        is_of: Bool[Array, "R K S"],
        position_ids: Int[Array, "R S"],
        skipped: int | Int[Any, ""],
    ) -> None:
        self.position_ids = position_ids
        self.is_real = is_of & (position_ids[:, None] >= skipped)
        self.first = jnp.argmax(is_of, axis=-1).astype(jnp.int32)
        self.lengths = jnp.sum(is_of, axis=-1, dtype=jnp.int32)
        self.skipped = jnp.where(self.lengths > skipped, skipped, 0)


def _pool(outputs: dict[str, Array], mode: str, texts: _Texts) -> Float[Array, "R K D"]:
    """Computes one vector a slot."""
    if mode == "pooled":
        return outputs["pooled_output"].astype(jnp.float32)
    states = outputs["sequence_output"].astype(jnp.float32)
    if mode in ("cls", "lasttoken"):
        last = jnp.maximum(texts.first + texts.lengths - 1, 0)
        at = texts.first + texts.skipped if mode == "cls" else last
        return jnp.take_along_axis(states, at[..., None], axis=1)
    if mode == "max":
        return _highest(states, texts)
    weights = texts.is_real.astype(jnp.float32)
    if mode == "weightedmean":
        weights = weights * (texts.position_ids[:, None] + 1)
    counts = jnp.maximum(jnp.sum(weights, axis=-1), 1.0)
    if mode == "mean_sqrt_len_tokens":
        counts = jnp.sqrt(counts)
    is_token = jnp.any(texts.is_real, axis=1)[..., None]
    sums = jnp.einsum(
        "RKS,RSD->RKD",
        weights,
        jnp.where(is_token, states, 0.0),
        precision=jax.lax.Precision.HIGHEST,
    )
    return sums / counts[..., None]


def _highest(states: Float[Array, "R S D"], texts: _Texts) -> Float[Array, "R K D"]:
    """Computes the maximum of each dimension over the tokens of each slot."""
    rows, slots, length = texts.is_real.shape
    number = jnp.arange(rows * slots, dtype=jnp.int32).reshape(rows, slots, 1)
    # The slot of each token; those that are not pooled are out of range and dropped.
    slot = jnp.min(jnp.where(texts.is_real, number, rows * slots), axis=1)
    highest = jax.ops.segment_max(
        states.reshape(rows * length, -1), slot.reshape(-1), rows * slots
    ).reshape(rows, slots, -1)
    return jnp.where(jnp.any(texts.is_real, axis=-1, keepdims=True), highest, 0.0)


@functools.partial(jax.jit, static_argnums=0)
def _trained(
    model: network.Network, params: PyTree, inputs: dict[str, Int[Any, "B L"]]
) -> Float[Array, "B W"]:
    """Computes the vector of each row as the head of a bi-encoder does."""
    return model.apply(params, inputs, dropout_key=None)["vectors"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _states(
    bert: config.BertConfig,
    execution: encoder.Execution,
    layers: tuple[int, ...],
    params: PyTree,
    inputs: dict[str, Int[Any, "R S"]],
) -> Float[Array, "R S K D"]:
    """Computes the states of all tokens after the chosen layers."""
    outputs = _run(bert, execution, params, inputs, hidden_states=True)
    states = outputs["hidden_states"]
    return jnp.stack([states[i] for i in layers], axis=2).astype(jnp.float32)
