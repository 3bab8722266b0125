"""The BERT encoder: embeddings and post-LayerNorm layers (arXiv:1810.04805, section 3).

Parameters are float32 and stacked over layers (`layers/...` with a leading layer axis),
however the layers are executed. Dimension letters of the whole package:

    B batch   L sequence length   P predictions   S segments (packed sequences)
    D hidden  N heads   H head width   F intermediate   V vocabulary   C classes
    E embedding width (D, where it is not factorised)

The embeddings and each layer sow their output as `hidden_state` into the collection
`intermediates`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import spmd
from jaxtyping import Array, Float, Int

from bert_jax.foundation import fields
from bert_jax.foundation.fields import field
from bert_jax.model import attention, config, layers

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REMAT_POLICIES = {
    "none": None,  # keep every activation
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the model runs; no option changes the parameters or the function.

    Attributes:
      packed: whether a sequence may hold several segments; True is right for all.
      vocab_multiple: the embedding table is padded to a multiple of this, inside only.

    Raises:
      InputError: a value is not allowed.
    """

    dtype: str = field(
        "float32",
        "Of activations and matrix products; parameters, softmax, LayerNorm statistics "
        "and losses stay float32.",
        choices=tuple(DTYPES),
    )
    unroll: int = field(
        1,
        "Layers per step of the loop over layers: 1 compiles fastest; -1 unrolls all "
        "and runs fastest.",
        low=1,
        also=-1,
    )
    remat: str = field(
        "none",
        "What the backward pass recomputes: `none`, `dots` (all but the products with "
        "weights) or `full` (everything inside a layer).",
        choices=tuple(REMAT_POLICIES),
    )
    attention: str = field(
        attention.AUTO,
        "The attention kernel: `xla`, `cudnn` (NVIDIA GPUs), `splash` (TPUs), or "
        "`auto` for the fastest that the device supports; the log reports which, and "
        "why.",
        choices=attention.KERNELS,
    )
    packed: bool = True
    vocab_multiple: int = 128

    def __post_init__(self) -> None:
        fields.check("run", self)

    def padded(self, vocab_size: int) -> int:
        """Returns the number of rows of the embedding table."""
        return -(-vocab_size // self.vocab_multiple) * self.vocab_multiple


class Embeddings(nn.Module):
    """Sum of token, position and token-type embeddings, then LayerNorm and dropout."""

    config: config.BertConfig
    execution: Execution

    def setup(self) -> None:
        cfg, stddev = self.config, self.config.initializer_range
        table = functools.partial(
            layers.Table, width=cfg.embedding_width, stddev=stddev
        )
        rows = self.execution.padded(cfg.vocab_size)
        self.word_embeddings = table(rows, axes=("vocab", "embed"))
        positions = cfg.max_position_embeddings
        self.position_embeddings = table(positions, axes=("positions", "embed"))
        if cfg.type_vocab_size:
            types = cfg.type_vocab_size
            self.token_type_embeddings = table(types, axes=(None, "embed"))
        self.layer_norm = layers.LayerNorm(cfg.layer_norm_eps)
        if cfg.projects_embeddings:
            widths = (cfg.embedding_width, cfg.hidden_size)
            axes = (None, "embed")
            self.projection = layers.Projection("BLE,ED->BLD", widths, axes, 1, stddev)
        self.dropout = layers.Dropout(cfg.hidden_dropout_prob)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        position_ids: Int[Array, "B L"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        positions = position_ids + self.config.position_offset
        x = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        if self.config.type_vocab_size:
            x = x + self.token_type_embeddings(token_type_ids)
        x = self.dropout(self.layer_norm(x), deterministic=deterministic)
        x = x.astype(DTYPES[self.execution.dtype])
        if self.config.projects_embeddings:
            x = self.projection(x)
        return spmd.with_logical_constraint(x, ("batch", "length", "embed"))


def mix_heads(
    module: Any,
    query: attention.Heads,
    key: attention.Heads,
    value: attention.Heads,
    segment_ids: Int[Array, "B L"],
    *,
    deterministic: bool,
    window: int | None = None,
) -> attention.Heads:
    """Returns `attention.attend` inside a module with a `config` and an `execution`."""
    execution = module.execution
    rate = 0.0 if deterministic else module.config.attention_probs_dropout_prob
    # `init` has few tokens, outside a mesh.
    kernel = attention.XLA if module.is_initializing() else execution.attention
    options = attention.AttentionOptions(kernel, rate, execution.packed, window)
    dropout_key = module.make_rng("dropout") if rate else None
    return attention.attend(
        query, key, value, segment_ids, options, dropout_key=dropout_key
    )


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection."""

    config: config.BertConfig
    execution: Execution

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        segment_ids: Int[Array, "B L"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        cfg = self.config
        inner = (cfg.num_attention_heads, cfg.head_size)
        project = functools.partial(
            layers.Projection,
            equation="BLD,DNH->BLNH",
            shape=(cfg.hidden_size, *inner),
            axes=("embed", "heads", "head_dim"),
            bias_rank=2,
            stddev=cfg.initializer_range,
        )
        mixed = mix_heads(
            self,
            project(name="query")(x),
            project(name="key")(x),
            project(name="value")(x),
            segment_ids,
            deterministic=deterministic,
        )
        return layers.Projection(
            equation="BLNH,NHD->BLD",
            shape=(*inner, cfg.hidden_size),
            axes=("heads", "head_dim", "embed"),
            bias_rank=1,
            stddev=cfg.initializer_range,
            name="output",
        )(mixed)


class EncoderLayer(nn.Module):
    """One post-LayerNorm layer: attention, then a two-layer perceptron.

    Returns (x, None), the carry and output that `nn.scan` wants.
    """

    config: config.BertConfig
    execution: Execution
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], segment_ids: Int[Array, "B L"]):
        cfg = self.config
        widths, stddev = (cfg.hidden_size, cfg.intermediate_size), cfg.initializer_range
        drop = layers.Dropout(cfg.hidden_dropout_prob)
        mixed = SelfAttention(cfg, self.execution, name="attention")(
            x, segment_ids, deterministic=self.deterministic
        )
        mixed = drop(mixed, deterministic=self.deterministic)
        x = layers.LayerNorm(cfg.layer_norm_eps, name="attention_layer_norm")(x + mixed)
        inner = layers.Projection(
            "BLD,DF->BLF",
            widths,
            ("embed", "mlp"),
            1,
            stddev,
            activation=layers.ACTIVATIONS[cfg.hidden_act],
            name="intermediate",
        )(x)
        outer = layers.Projection(
            "BLF,FD->BLD", widths[::-1], ("mlp", "embed"), 1, stddev, name="output"
        )(inner)
        outer = drop(outer, deterministic=self.deterministic)
        x = layers.LayerNorm(cfg.layer_norm_eps, name="output_layer_norm")(x + outer)
        self.sow("intermediates", "hidden_state", x)
        return x, None


class SharedLayers(nn.Module):
    """Runs `length` layers that have one set of parameters (ALBERT, section 3.1).

    Its parameters are those of the layer, under the same names.
    """

    config: config.BertConfig
    execution: Execution
    deterministic: bool
    layer: Callable[..., nn.Module]
    length: int
    unroll: int

    def setup(self) -> None:
        self.repeated = nn.scan(
            self.layer,  # pyright: ignore[reportArgumentType]
            variable_broadcast="params",
            variable_axes={"intermediates": 0},
            split_rngs={"params": False, "dropout": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=self.length,
            unroll=self.unroll,
        )(self.config, self.execution, self.deterministic)
        nn.share_scope(self, self.repeated)

    def __call__(self, x: Float[Array, "B L D"], segment_ids: Int[Array, "B L"]):
        return self.repeated(x, segment_ids)


class Bert(nn.Module):
    """The encoder: ids in, `sequence_output` [B, L, D] out."""

    config: config.BertConfig
    execution: Execution

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.execution)

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        position_ids: Int[Array, "B L"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        x = self.embeddings(
            input_ids, token_type_ids, position_ids, deterministic=deterministic
        )
        self.sow("intermediates", "hidden_state", x)
        stack = self._stack()(self.config, self.execution, deterministic, name="layers")
        sequence_output, _ = stack(x, segment_ids)
        return sequence_output

    def word_embedding_table(self) -> Float[Array, "V D"]:
        """Returns the token embeddings, with the rows that pad the vocabulary."""
        return self.embeddings.word_embeddings.whole()

    def _stack(self):
        layer, groups = EncoderLayer, self.config.num_groups
        length = self.config.num_hidden_layers // groups
        if self.execution.remat != "none":
            policy = REMAT_POLICIES[self.execution.remat]
            # Inside a loop the compiler cannot undo rematerialization by CSE.
            looped = any(self._unroll(number) < number for number in (groups, length))
            layer = nn.remat(layer, policy=policy, prevent_cse=not looped)
        if length > 1:
            layer = functools.partial(
                SharedLayers, layer=layer, length=length, unroll=self._unroll(length)
            )
        return nn.scan(
            layer,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=groups,
            unroll=self._unroll(groups),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )

    def _unroll(self, length: int) -> int:
        """Returns how many steps of a loop of this length are one."""
        unroll = self.execution.unroll
        return length if unroll == -1 else min(unroll, length)
