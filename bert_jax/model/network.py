"""One network for everything: the encoder with its heads, and one pure `apply`.

Pretraining has the heads (mlm_head, nsp_head), a fine-tuned model one head of a task, a
foreign checkpoint the heads it comes with (`heads.heads_of`). The top level of the
parameter tree names the parts: the encoder, the heads and what they read.

`Network` is a plain object around one linen module: its `apply` takes parameters and a
batch, so no caller has to know linen.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from bert_jax import errors
from bert_jax.model import config, crf, encoder, heads, layers, modern
from bert_jax.model.heads import HeadSpec, TokenScores

# What a model of another library or an export can have, in the order of its files.
# `head_transform` precedes the heads that read tokens, or the mean of them.
PARTS = (
    "encoder",
    "pooler",
    heads.TRANSFORM,
    "nsp_head",
    "classifier",
    heads.MULTIPLE_CHOICE,
    "mlm_head",
    "rtd_head",
    "tagger",
    heads.SPAN,
)
# Of our fine-tuned models only; no other format can hold them.
TASK_PARTS = ("recurrent", "at_predicate", "crf")
# Parameters whose first axis is the vocabulary.
PER_TOKEN = (
    "encoder/embeddings/word_embeddings/embedding",
    "mlm_head/decoder",
    "mlm_head/bias",
)

Batch = Mapping[str, Any]
Encode = Callable[..., Float[Array, "R S D"]]


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder with heads: its parameters, and its outputs by name.

    Attributes:
      config: the architecture of the encoder.
      execution: how it runs; it changes no parameter but the padding of the vocabulary.
      heads: what sits on the encoder; none computes its states only.
    """

    config: config.BertConfig
    execution: encoder.Execution
    heads: tuple[HeadSpec, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names at the top level of the parameter tree."""
        of_heads = (name for head in self.heads for name in head.parts)
        return ("encoder", *dict.fromkeys(of_heads))

    @property
    def head(self) -> HeadSpec:
        """The only head, of a network that has one."""
        (head,) = self.heads
        return head

    def init(self, key: Array) -> PyTree:
        """Returns new parameters, boxed with the names of their logical axes.

        The initial value of a parameter depends on the key and its own path only.
        """
        ids = jnp.zeros((1, 8), jnp.int32)
        batch = {
            "input_ids": ids,
            "segment_ids": ids,
            "predicate_positions": ids[:, :1],
        }
        variables: Any = self._module.init(key, batch, deterministic=True)
        return variables["params"]

    def shapes(self) -> PyTree:
        """Returns `init`'s parameters as `jax.ShapeDtypeStruct`, without allocating."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def apply(
        self,
        params: PyTree,
        batch: Batch,
        *,
        dropout_key: Array | None,
        hidden_states: bool = False,
    ) -> dict[str, Any]:
        """Returns the outputs for a batch by name: a pure function.

        `sequence_output` [*B, L, D] and by head or part, float32 where it is logits:

        - `pooler`: `pooled_output` [B, D], or [B, S, D] with `cls_positions`
        - `mlm_head`: `mlm_scores`, a `TokenScores` of [B, P, V] with
          `masked_lm_positions` [B, P], of all tokens without
        - `nsp_head`: `nsp_logits` [B, 2], or [B, S, 2] with `cls_positions`
        - `rtd_head`: `rtd_logits` [B, L]
        - `classifier`, `tagger`, `span`, `multiple_choice`: `logits`, with shapes as in
          `HeadSpec`; with a CRF also `transitions` [C, C], `starts` and `ends` [C]
        - `vectors`: `vectors`

        Logits of padding are numbers without a meaning.

        Args:
          params: with at least the parts of this network, unboxed.
          batch: `input_ids` [*B, L] and `segment_ids` (0 is padding); `token_type_ids`,
            0 if absent; `position_ids`, counted from the first token of a row if
            absent; `cls_positions` [B, S], `masked_lm_positions` [B, P],
            `predicate_positions` [B, Q]; and `packed` [R, S], with which the encoder
            runs on R shared rows (`encode_packed`). Other keys are not read.
          dropout_key: None computes without dropout.
          hidden_states: also returns `hidden_states` [n + 1, B, L, D]: the embeddings,
            then the output of each layer.
        """
        result: Any = self._module.apply(
            {"params": params},
            dict(batch),
            deterministic=dropout_key is None,
            rngs={} if dropout_key is None else {"dropout": dropout_key},
            mutable=["intermediates"] if hidden_states else False,
        )
        if not hidden_states:
            return result
        outputs, sown = result
        states = stacked_states(sown["intermediates"]["encoder"])
        return outputs | {"hidden_states": states}

    @property
    def _module(self) -> "_Heads":
        return _Heads(self.config, self.execution, self.heads)


def for_pretraining(
    bert: config.BertConfig,
    execution: encoder.Execution,
    *,
    sentence_pairs: bool = True,
) -> Network:
    """Returns the network of pretraining; the RoBERTa recipe predicts no pairs."""
    kinds = ("mlm_head", "nsp_head") if sentence_pairs else ("mlm_head",)
    return Network(bert, execution, tuple(map(HeadSpec, kinds)))


def for_parts(
    bert: config.BertConfig,
    execution: encoder.Execution,
    parts: Collection[str],
    num_labels: int = 2,
) -> Network:
    """Returns the network of a checkpoint with these parts (`heads.heads_of`)."""
    return Network(bert, execution, heads.heads_of(parts, num_labels))


def make_encoder(
    bert: config.BertConfig, execution: encoder.Execution, name: str | None = None
) -> encoder.Bert | modern.ModernBert:
    """Returns the encoder of an architecture; all encoders are called alike."""
    kind = modern.ModernBert if bert.is_modern else encoder.Bert
    return kind(bert, execution, name=name)


class _Heads(nn.Module):
    """The linen module of a `Network`: the encoder, then each head.

    The names of its children are the parts. Initial values and dropout are random by
    these names, so they stay as they are.
    """

    config: config.BertConfig
    execution: encoder.Execution
    heads: tuple[HeadSpec, ...]

    @nn.compact
    def __call__(self, batch: Batch, *, deterministic: bool) -> dict[str, Any]:
        rows, texts = _flat(batch), batch["input_ids"].shape[:-1]
        bert = make_encoder(self.config, self.execution, "encoder")
        encode = functools.partial(bert, deterministic=deterministic)
        x = self._encode(encode, rows)
        outputs: dict[str, Any] = {"sequence_output": x.reshape(*texts, *x.shape[1:])}
        if any("pooler" in head.parts for head in self.heads):
            outputs["pooled_output"] = self._pooled(x, batch)
        for head in self.heads:
            if head.kind == "mlm_head":
                table = bert.word_embedding_table()
                outputs["mlm_scores"] = self._token_scores(x, batch, table)
            elif head.kind == "nsp_head":
                outputs["nsp_logits"] = self._pair_logits(outputs["pooled_output"])
            elif head.kind == "rtd_head":
                rtd_head = heads.RTDHead(self.config, name="rtd_head")
                outputs["rtd_logits"] = rtd_head(x)
            elif head.kind == heads.TRANSFORM:
                self._transform(x)  # its parameters are part of the tree
            elif head.pools:
                vectors = self._vectors(head, x, rows["segment_ids"], outputs)
                outputs |= self._score_texts(head, vectors, texts, deterministic)
            elif head.kind != "pooler":
                outputs |= self._score_tokens(head, x, rows, texts, deterministic)
        return outputs

    def _encode(self, encode: Encode, rows: Batch) -> Float[Array, "N L D"]:
        ids, types = rows["input_ids"], rows["token_type_ids"]
        if "packed" in rows:
            return encode_packed(encode, ids, types, rows["packed"])
        return encode(ids, types, rows["segment_ids"], rows["position_ids"])

    def _pooled(self, x: Float[Array, "N L D"], batch: Batch) -> Array:
        """Returns the pooler's output at `cls_positions`, or for the first token."""
        pooler = heads.HeadTransform(self.config, name="pooler")
        if "cls_positions" in batch:
            return pooler(heads.take_rows(x, batch["cls_positions"]))
        first = jnp.zeros((x.shape[0], 1), jnp.int32)
        return pooler(heads.take_rows(x, first))[:, 0]

    def _token_scores(
        self, x: Float[Array, "B L D"], batch: Batch, table: Float[Array, "V E"]
    ) -> TokenScores:
        if "masked_lm_positions" in batch:
            x = heads.take_rows(x, batch["masked_lm_positions"])
        return heads.MLMHead(self.config, name="mlm_head")(x, table)

    def _pair_logits(self, pooled: Float[Array, "B *S D"]) -> Float[Array, "B *S 2"]:
        linear = heads.OutputHead(self.config, 2, name="nsp_head")
        return linear(pooled) if pooled.ndim == 3 else linear(pooled[:, None])[:, 0]

    def _vectors(
        self,
        head: HeadSpec,
        x: Float[Array, "N L D"],
        segments: Int[Array, "N L"],
        outputs: Mapping[str, Any],
    ) -> Float[Array, "N W"]:
        """Returns one vector for each text."""
        if head.pooling == "cls":
            return outputs["pooled_output"]
        x, last = self._recurrent(head, x, segments)
        if head.pooling == "bilstm":
            assert last is not None  # `HeadSpec` has checked it
            return last
        if head.pooling == "max":
            return heads.max_of_tokens(x, segments > 0)
        mean = heads.mean_of_tokens(x, segments > 0)
        return self._transform(mean[:, None])[:, 0] if head.transform else mean

    def _score_texts(
        self,
        head: HeadSpec,
        vectors: Float[Array, "N W"],
        texts: tuple[int, ...],
        deterministic: bool,
    ) -> dict[str, Array]:
        if head.kind == "vectors":
            return {"vectors": vectors.reshape(*texts, -1).astype(jnp.float32)}
        classes = 1 if head.kind == heads.MULTIPLE_CHOICE else head.classes
        linear = heads.task_output(self.config, classes, head.kind)
        logits = linear(self._drop(head, vectors, deterministic)[:, None])[:, 0]
        if head.kind == heads.MULTIPLE_CHOICE:
            return {"logits": logits.reshape(texts[0], -1)}
        return {"logits": logits.reshape(*texts, classes)}

    def _score_tokens(
        self,
        head: HeadSpec,
        x: Float[Array, "N L D"],
        rows: Batch,
        texts: tuple[int, ...],
        deterministic: bool,
    ) -> dict[str, Array]:
        x = self._recurrent(head, x, rows["segment_ids"])[0]
        x = self._transform(x) if head.transform else x
        x = self._drop(head, x, deterministic)
        if head.at_predicate:
            at_predicate = heads.AtPredicate(self.config, name="at_predicate")
            x = at_predicate(x, rows["predicate_positions"])
        classes = 2 if head.kind == heads.SPAN else head.classes
        linear = heads.task_output(self.config, classes, head.kind)
        logits = linear(x.reshape(x.shape[0], -1, x.shape[-1]))
        outputs = {"logits": logits.reshape(*texts, *x.shape[1:-1], classes)}
        if head.crf:
            outputs |= crf.Transitions(classes, name="crf")()._asdict()
        return outputs

    def _recurrent(
        self, head: HeadSpec, x: Float[Array, "N L D"], segments: Array
    ) -> tuple[Float[Array, "N L W"], Float[Array, "N W"] | None]:
        """Returns the inputs of the head per token, and the BiLSTM's last states."""
        if not head.recurrent_size:
            return x, None
        return heads.BiLSTM(head.recurrent_size, name="recurrent")(x, segments)

    def _transform(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        return heads.HeadTransform(self.config, name=heads.TRANSFORM)(x)

    def _drop(self, head: HeadSpec, x: Array, deterministic: bool) -> Array:
        if deterministic or head.dropout == 0.0:
            return x
        # Named, so that its keys do not depend on the other parts.
        drop = layers.Dropout(head.dropout, name="dropout")
        return drop(x, deterministic=False)


def _flat(batch: Batch) -> dict[str, Any]:
    """Returns the inputs of the encoder and the heads, as [N, L]; no absent keys."""
    ids, segments = batch["input_ids"], batch["segment_ids"]
    positions = jnp.arange(ids.shape[-1], dtype=jnp.int32)
    defaults = {
        "token_type_ids": jnp.zeros_like(ids),
        "position_ids": jnp.where(segments > 0, positions, 0),
    }
    whole = defaults | dict(batch)
    per_token = ("input_ids", "segment_ids", *defaults)
    rows = {name: whole[name].reshape(-1, ids.shape[-1]) for name in per_token}
    others = ("packed", "predicate_positions")
    return rows | {name: batch[name] for name in others if name in batch}


def encode_packed(
    encode: Encode,
    input_ids: Int[Array, "B L"],
    token_type_ids: Int[Array, "B L"],
    packed: Int[Array, "R S"],
) -> Float[Array, "B L D"]:
    """Returns the states of texts that are packed into shared rows for the encoder.

    The encoder sees R rows of S tokens, in which each text is a segment with its own
    positions, so that hardly any token is padding; heads, losses and metrics see
    [B, L]. States of padding have no meaning.

    Args:
      encode: (input_ids, token_type_ids, segment_ids, position_ids) -> [R, S, D].
      packed: the token of the B * L at each position, from 1; 0 = none.
    """
    texts, length = input_ids.shape
    token = packed - 1
    is_token = token >= 0

    def shared(x: Int[Array, "..."]) -> Int[Array, "R S"]:
        return jnp.where(is_token, x, 0)

    states = encode(
        shared(input_ids.reshape(-1)[token]),
        shared(token_type_ids.reshape(-1)[token]),
        shared(token // length + 1),
        shared(token % length),
    )
    # The position of each token; padding is out of range and dropped.
    target = jnp.where(is_token, token, texts * length).reshape(-1)
    position = jnp.zeros(texts * length, jnp.int32)
    numbers = jnp.arange(packed.size, dtype=jnp.int32)
    position = position.at[target].set(numbers, mode="drop")
    return states.reshape(-1, states.shape[-1])[position].reshape(texts, length, -1)


def stacked_states(intermediates: PyTree) -> Float[Array, "n B L D"]:
    """Returns what an encoder has sown: the embeddings, then each layer's output.

    What an encoder computes after its layers counts as the output of the last one.

    Args:
      intermediates: the encoder's part of the collection of that name.
    """
    first, *last = intermediates["hidden_state"]
    (states,) = intermediates["layers"]["hidden_state"]
    states = states.reshape(-1, *first.shape)  # groups of layers are an axis
    if last:
        states = jnp.concatenate([states[:-1], last[0][None]])
    return jnp.concatenate([first[None], states])


def shapes(
    bert: config.BertConfig, parts: Collection[str], num_labels: int
) -> dict[str, Any]:
    """Returns the shapes of a checkpoint's parameters, the vocabulary not padded."""
    unpadded = encoder.Execution(vocab_multiple=1)
    return nn.unbox(for_parts(bert, unpadded, parts, num_labels).shapes())


def missing_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the parts that others of these need and that are not among them."""
    needed = {"encoder"}.union(*(needed_by(name, parts) for name in parts))
    return tuple(sorted(needed - set(parts)))


def needed_by(name: str, parts: Collection[str]) -> frozenset[str]:
    """Returns the other parts that a part reads, in a model of these parts.

    >>> sorted(needed_by("classifier", ("encoder", "pooler", "classifier")))
    ['encoder', 'pooler']
    """
    if name not in heads.KINDS:  # the encoder, or a part of our fine-tuned models
        return frozenset({"encoder"})
    read_with = (name, heads.TRANSFORM) if heads.TRANSFORM in parts else (name,)
    (head, *_) = heads.heads_of(read_with, 1)
    return frozenset({"encoder", *head.parts} - {name})


def pad_vocabulary(params: PyTree, rows: int) -> PyTree:
    """Adds rows of zeros to what has a row for each token, up to `rows` of them."""

    def padded(x: Any) -> Any:
        return np.pad(x, [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1))

    return _with_rows(params, padded)


def cut_vocabulary(params: PyTree, rows: int) -> PyTree:
    """Removes what `pad_vocabulary` adds."""
    return _with_rows(params, lambda x: x[:rows])


def _with_rows(params: PyTree, change: Any) -> PyTree:
    """Applies `change` to the arrays whose first axis is the vocabulary."""

    def changed(path: Any, x: Any) -> Any:
        return change(x) if _name(path) in PER_TOKEN else x

    return jax.tree_util.tree_map_with_path(changed, params)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


# Low-rank updates of the kernels of layers (LoRA, Hu et al. 2021, arXiv:2106.09685).
# A kernel W, seen as a matrix from its inputs to its outputs, becomes W + alpha / rank
# * A B. A is random and B is zero, so that training starts at the given model. All
# layers are stacked: A is [n, in, rank] and B [n, rank, out].
_STACKED = "layers"
_KERNEL, _A, _B = "kernel", "lora_a", "lora_b"


def init_lora(key: Array, params: PyTree, names: Sequence[str], rank: int) -> PyTree:
    """Returns the updates of the kernels of these names: a tree of `lora_a`, `lora_b`.

    The tree has the keys of `params` down to the module of each kernel.

    Args:
      key: A is sampled from N(0, 1 / in).
      params: parameters or their shapes.
      names: ends of the paths of modules in a layer, as `attention/query`,
        `intermediate` or `output` (which is two: in the attention and after it).

    Raises:
      InputError: the rank is below 1, or no kernel has one of the names (the message
        lists those that exist).

    >>> kernel, bias = jnp.zeros((2, 6, 3, 4)), jnp.zeros((2, 3, 4))
    >>> layer = {"query": {"kernel": kernel, "bias": bias}}
    >>> adapters = init_lora(jax.random.key(0), {"layers": layer}, ["query"], 5)
    >>> jax.tree.map(jnp.shape, adapters["layers"]["query"])
    {'lora_a': (2, 6, 5), 'lora_b': (2, 5, 12)}
    """
    if rank < 1:
        raise errors.InputError(f"the rank of LoRA is {rank}: use at least 1")
    kernels = _kernels_of_layers(params)
    for name in names:
        if not any(_ends(path, name) for path in kernels):
            known = sorted(path.split(f"{_STACKED}/", 1)[1] for path in kernels)
            raise errors.InputError(
                f"LoRA finds no kernel {name!r} in the layers: there are "
                f"{', '.join(known)}"
            )
    chosen = [path for path in kernels if any(_ends(path, name) for name in names)]
    result: dict[str, Any] = {}
    for path, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        node = result
        for part in path.split("/"):
            node = node.setdefault(part, {})
        layers, inputs, outputs = _matrix(path, kernels[path].shape)
        a = jax.random.normal(own, (layers, inputs, rank)) * inputs**-0.5
        node |= {_A: a, _B: jnp.zeros((layers, rank, outputs))}
    return result


def _kernels_of_layers(params: PyTree) -> dict[str, Any]:
    """Returns the kernels in the layers, by the path of their module."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = [(_name(path).split("/"), leaf) for path, leaf in leaves]
    return {
        "/".join(names[:-1]): leaf
        for names, leaf in named
        if _STACKED in names and names[-1] == _KERNEL
    }


def _ends(path: str, name: str) -> bool:
    return f"/{path}".endswith(f"/{name}")


def _matrix(path: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns the layers, inputs and outputs of a kernel.

    Its inputs are its first axis, those of what follows heads the first two.
    """
    layers, *own = shape
    inputs = math.prod(own[: 2 if _ends(path, "attention/output") else 1])
    return layers, inputs, math.prod(own) // inputs


def merge_lora(params: PyTree, lora: PyTree, alpha: int | float) -> PyTree:
    """Returns `params` with the updates of `init_lora` added to their kernels."""
    merged = dict(params)
    for name, update in lora.items():
        if _A not in update:
            merged[name] = merge_lora(params[name], update, alpha)
            continue
        kernel, scale = params[name][_KERNEL], alpha / update[_A].shape[-1]
        product = scale * jnp.einsum("nir,nro->nio", update[_A], update[_B])
        added = (kernel + product.reshape(kernel.shape)).astype(kernel.dtype)
        merged[name] = params[name] | {_KERNEL: added}
    return merged
