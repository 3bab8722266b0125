"""Vectors of texts: rows of like length go through the encoder together.

Rows are sorted by length and cut into batches of a fixed number of tokens, so that
little is padded and few shapes are compiled. Texts longer than a row are cut at its
end.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_rows, python_examples
from bert_jax.foundation import interrupts
from bert_jax.model import config, encoder, heads, network
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer

POOLINGS = ("mean", "cls", "max", "pooled")
# On a CPU, where larger batches are no faster and pad more: padding adds 19 % to the
# tokens of the texts of scripts/bench/encode.py, 23 % with 4,096 and 37 % with 8,192.
TOKENS_PER_BATCH = 2048
_ACCELERATOR = 16  # times as many

AHEAD = 2  # batches that the device computes while the host prepares the next one

Rows = list[list[int]]
Work = TypeVar("Work")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows that are computed together.

    Attributes:
      indices: of the rows among all rows.
      input_ids: [B, L] int32, filled with 0.
      lengths: [B] int32, the tokens of each row; 0 in rows that pad the batch.
    """

    indices: np.ndarray
    input_ids: np.ndarray
    lengths: np.ndarray


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


def batches(rows: Rows, longest: int) -> Iterator[Batch]:
    """Yields all rows, the longest first, in batches of a fixed number of tokens."""
    is_cpu = jax.default_backend() == "cpu"
    tokens = TOKENS_PER_BATCH if is_cpu else TOKENS_PER_BATCH * _ACCELERATOR

    def padded(most: int) -> int:
        return example_rows.bucket(most, longest)

    def batch_size(length: int) -> int:
        return max(1, tokens // length)

    all_lengths = np.array([len(row) for row in rows], np.int64)
    for indices, length in example_rows.by_length(all_lengths, padded, batch_size):
        interrupts.check()
        size = min(batch_size(length), 1 << (len(indices) - 1).bit_length())
        ids = np.zeros((size, length), np.int32)
        lengths = np.zeros(size, np.int32)
        for position, index in enumerate(indices):
            lengths[position] = len(rows[index])
            ids[position, : lengths[position]] = rows[index]
        yield Batch(indices, ids, lengths)


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
    return _gathered(rows, bert.max_length, size, call)


def trained_vectors(
    model: network.Network, params: PyTree, rows: Rows
) -> Float[np.ndarray, "n W"]:
    """Returns the vectors of rows by a model with a head of kind `vectors`, float32."""
    call = functools.partial(_trained, model, params)
    return _gathered(rows, model.config.max_length, trained_size(model), call)


def trained_size(model: network.Network) -> int:
    """Returns W, the size of `trained_vectors`."""
    return 2 * model.head.recurrent_size or model.config.hidden_size


def _gathered(
    rows: Rows, longest: int, width: int, call: Callable[[Any, Any], Any]
) -> Float[np.ndarray, "n W"]:
    """Returns the vectors that a function of ids and lengths computes, in row order."""
    vectors = np.empty((len(rows), width), np.float32)
    computed = computed_ahead(
        batches(rows, longest), lambda batch: call(batch.input_ids, batch.lengths)
    )
    for batch, outputs in computed:
        vectors[batch.indices] = outputs[: len(batch.indices)]
    return vectors


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
    computed = computed_ahead(
        batches(rows, bert.max_length),
        lambda batch: call(batch.input_ids, batch.lengths),
    )
    for batch, states in computed:
        for position, index in enumerate(batch.indices):
            vectors[index] = states[position, : batch.lengths[position]].copy()
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
    input_ids: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    *,
    hidden_states: bool = False,
) -> dict[str, Any]:
    """Runs the encoder, with the pooler if there is one, on rows of these lengths."""
    pooler = (heads.HeadSpec("pooler"),) if "pooler" in params else ()
    model = network.Network(bert, execution, pooler)
    batch = {"input_ids": input_ids, "segment_ids": _segments(input_ids, lengths)}
    return model.apply(params, batch, dropout_key=None, hidden_states=hidden_states)


def _segments(
    input_ids: Int[Array, "B L"], lengths: Int[Array, " B"]
) -> Int[Array, "B L"]:
    """Returns 1 for the tokens of rows of these lengths, 0 for padding."""
    positions = jnp.arange(input_ids.shape[1], dtype=jnp.int32)[None]
    return (positions < lengths[:, None]).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pooled(
    bert: config.BertConfig,
    execution: encoder.Execution,
    pooling: str | tuple[str, ...],
    params: PyTree,
    input_ids: Int[Any, "B L"],
    lengths: Int[Any, " B"],
    skipped: int | Int[Any, ""] = 0,
) -> Float[Array, "B W"]:
    """Computes one vector a row."""
    modes = (pooling,) if isinstance(pooling, str) else pooling
    outputs = _run(bert, execution, params, input_ids, lengths)
    return jnp.concatenate([_pool(outputs, m, skipped, lengths) for m in modes], axis=1)


def _pool(
    outputs: dict[str, Array],
    mode: str,
    skipped: int | Int[Any, ""],
    lengths: Int[Any, " B"],
) -> Float[Array, "B D"]:
    """Computes one vector a row, without the first `skipped` of its tokens."""
    if mode == "pooled":
        return outputs["pooled_output"].astype(jnp.float32)
    states = outputs["sequence_output"].astype(jnp.float32)
    positions = jnp.arange(states.shape[1], dtype=jnp.int32)[None]
    real = ((positions >= skipped) & (positions < lengths[:, None]))[..., None]
    if mode in ("cls", "lasttoken"):
        first = jnp.where(lengths > skipped, skipped, 0)
        at = first if mode == "cls" else jnp.maximum(lengths - 1, 0)
        return jnp.take_along_axis(states, at[:, None, None], axis=1)[:, 0]
    if mode == "max":
        highest = jnp.max(jnp.where(real, states, -jnp.inf), axis=1)
        return jnp.where(jnp.any(real, axis=1), highest, 0.0)
    weights = jnp.where(real, 1.0, 0.0)
    if mode == "weightedmean":
        weights = weights * (positions[..., None] + 1)
    counts = jnp.maximum(jnp.sum(weights, axis=1), 1.0)
    if mode == "mean_sqrt_len_tokens":
        counts = jnp.sqrt(counts)
    return jnp.sum(jnp.where(real, states, 0.0) * weights, axis=1) / counts


@functools.partial(jax.jit, static_argnums=0)
def _trained(
    model: network.Network,
    params: PyTree,
    input_ids: Int[Any, "B L"],
    lengths: Int[Any, " B"],
) -> Float[Array, "B W"]:
    """Computes the vector of each row as the head of a bi-encoder does."""
    batch = {"input_ids": input_ids, "segment_ids": _segments(input_ids, lengths)}
    return model.apply(params, batch, dropout_key=None)["vectors"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _states(
    bert: config.BertConfig,
    execution: encoder.Execution,
    layers: tuple[int, ...],
    params: PyTree,
    input_ids: Int[Any, "B L"],
    lengths: Int[Any, " B"],
) -> Float[Array, "B L K D"]:
    """Computes the states of all tokens after the chosen layers."""
    outputs = _run(bert, execution, params, input_ids, lengths, hidden_states=True)
    states = outputs["hidden_states"]
    return jnp.stack([states[i] for i in layers], axis=2).astype(jnp.float32)
