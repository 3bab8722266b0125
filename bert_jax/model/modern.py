"""The modern encoder: pre-norm layers, rotary positions, GeGLU, local attention.

ModernBERT (Warner et al. 2024, arXiv:2412.13663, section 2.1). Every k-th layer, from
the first on, attends to the whole sequence and the others to what is near, with angles
of positions (arXiv:2104.09864) of another base. The first layer has no norm before its
attention, because the embeddings end in one. Nothing has a bias unless the config
sets one. The letters of shapes are those of `encoder`, whose parts it reuses.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import spmd
from jaxtyping import Array, Float, Int, PyTree

from bert_jax.model import config, encoder, layers

# The parameter that every layer but the first has.
FIRST_LACKS = "attention_layer_norm"


class Rotation(NamedTuple):
    """Cosine and sine of the angles of each position, float32."""

    cosine: Float[Array, "B L 1 P"]
    sine: Float[Array, "B L 1 P"]


def rotation(
    position_ids: Int[Array, "B L"], theta: int | float, head_size: int
) -> Rotation:
    """Returns the angles position / theta^(2 i / H) of the pairs i = 0 ... H/2 - 1."""
    exponents = jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size
    angles = position_ids[..., None].astype(jnp.float32) * jnp.broadcast_to(
        theta**-exponents, (*position_ids.shape, head_size // 2)
    )
    return Rotation(jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None])


def rotate(x: Float[Array, "B L N H"], by: Rotation) -> Float[Array, "B L N H"]:
    """Turns each pair (x_i, x_{i + H/2}) by its angle, in float32.

    The scalar product of two rotated vectors depends only on the distance between their
    positions (arXiv:2104.09864, section 3.2).
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = (jnp.broadcast_to(y, first.shape) for y in by)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def parts(x: Float[Array, "B L P ..."]) -> list[Float[Array, "B L ..."]]:
    """Returns the P arrays that one product has computed.

    The gradient of a split joins theirs; that of slices would pad each with zeros and
    add them.
    """
    return [jnp.squeeze(part, 2) for part in jax.lax.split(x, (1,) * x.shape[2], 2)]


class Attention(nn.Module):
    """Self-attention over turned queries and keys, with its output projection."""

    config: config.BertConfig
    execution: encoder.Execution
    window: int | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        segment_ids: Int[Array, "B L"],
        by: Rotation,
        *,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        cfg = self.config
        inner = (cfg.num_attention_heads, cfg.head_size)
        query_key_value = layers.Projection(
            "BLD,DTNH->BLTNH",
            (cfg.hidden_size, 3, *inner),
            ("embed", None, "heads", "head_dim"),
            3,
            cfg.initializer_range,
            cfg.attention_bias,
            name="query_key_value",
        )(x)
        query, key, value = parts(query_key_value)
        mixed = encoder.mix_heads(
            self,
            rotate(query, by),
            rotate(key, by),
            value,
            segment_ids,
            deterministic=deterministic,
            window=self.window,
        )
        mixed = layers.Projection(
            "BLNH,NHD->BLD",
            (*inner, cfg.hidden_size),
            ("heads", "head_dim", "embed"),
            1,
            _output_stddev(cfg),
            cfg.attention_bias,
            name="output",
        )(mixed)
        drop = layers.Dropout(cfg.attention_probs_dropout_prob)
        return drop(mixed, deterministic=deterministic)


class ModernLayer(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + GeGLU(norm(x)).

    GeGLU (arXiv:2002.05202) is two products of the input, the activation of the one
    times the other, and a product of that.
    """

    config: config.BertConfig
    execution: encoder.Execution
    deterministic: bool
    number: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], segment_ids: Int[Array, "B L"], by: Rotation
    ) -> Float[Array, "B L D"]:
        cfg = self.config
        norm = functools.partial(layers.LayerNorm, cfg.layer_norm_eps, cfg.norm_bias)
        window = None if cfg.is_global(self.number) else cfg.local_attention // 2
        mix = Attention(cfg, self.execution, window, name="attention")
        before = x if self.number == 0 else norm(name=FIRST_LACKS)(x)
        x = x + mix(before, segment_ids, by, deterministic=self.deterministic)
        project = functools.partial(
            layers.Projection, bias_rank=1, has_bias=cfg.mlp_bias
        )
        inner = project(
            equation="BLD,DGF->BLGF",
            shape=(cfg.hidden_size, 2, cfg.intermediate_size),
            axes=("embed", None, "mlp"),
            bias_rank=2,
            stddev=cfg.initializer_range,
            name="intermediate",
        )(norm(name="mlp_layer_norm")(x))
        act = jax.checkpoint(layers.ACTIVATIONS[cfg.hidden_act])
        gate, up = parts(inner)
        inner = act(gate) * up
        drop = layers.Dropout(cfg.hidden_dropout_prob)
        return x + project(
            equation="BLF,FD->BLD",
            shape=(cfg.intermediate_size, cfg.hidden_size),
            axes=("mlp", "embed"),
            stddev=_output_stddev(cfg),
            name="output",
        )(drop(inner, deterministic=self.deterministic))


def _output_stddev(cfg: config.BertConfig) -> float:
    """Returns the standard deviation of a kernel that adds to x, 2 n times in all."""
    return cfg.initializer_range / math.sqrt(2 * cfg.num_hidden_layers)


class ModernLayers(nn.Module):
    """All layers, in groups of the one pattern of near and far.

    The parameters are those of the layers, stacked on the first axis; what the first
    layer lacks has one row less. The first layer runs on its own. After it, each step
    of the loop runs one group, which ends with a global layer; the layers that do not
    fill a group come last.
    """

    config: config.BertConfig
    execution: encoder.Execution
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        segment_ids: Int[Array, "B L"],
        position_ids: Int[Array, "B L"],
    ) -> Float[Array, "B L D"]:
        cfg = self.config
        if self.is_initializing():
            for name, leaves in self._init_params(self.make_rng("params")).items():
                self.put_variable("params", name, leaves)
        params: Any = nn.unbox(self.variables["params"])
        far, near = (
            rotation(position_ids, theta, cfg.head_size)
            for theta in (cfg.global_rope_theta, cfg.local_rope_theta)
        )

        def run(number: int, own: Any, x: Array, *, looped: bool = False) -> Array:
            by = far if cfg.is_global(number) else near
            return self._layer(number, looped)(own, x, segment_ids, by)

        first = {name: tree for name, tree in params.items() if name != FIRST_LACKS}
        keys = self._keys()
        x = run(0, (_rows(first, 0), None if keys is None else keys[0]), x)
        later = params | {name: _rows(first[name], slice(1, None)) for name in first}
        rest = (later, None if keys is None else keys[1:])
        return self._run_rest(run, x, rest)

    def _run_rest(self, run: Callable[..., Array], x: Array, rest: Any) -> Array:
        """Runs the layers after the first, and sows the outputs of all layers."""
        count = self.config.num_hidden_layers - 1
        size = self.config.global_attn_every_n_layers
        size = size if size <= count else 1  # they are all of one kind
        groups = count // size if self.execution.unroll != -1 else 0
        states = [x[None]]

        def group(x: Array, own: Any) -> tuple[Array, Any]:
            outputs = []
            for index in range(size):
                x = run(1 + index, _rows(own, index), x, looped=True)
                outputs.append(x)
            return x, jnp.stack(outputs) if keep else None

        keep = self.is_mutable_collection("intermediates")
        if groups:
            looped = jax.tree.map(
                lambda leaf: leaf[: groups * size].reshape(
                    groups, size, *leaf.shape[1:]
                ),
                rest,
            )
            unroll = max(1, min(self.execution.unroll // size, groups))
            x, outputs = jax.lax.scan(group, x, looped, unroll=unroll)
            states += [outputs.reshape(-1, *x.shape)] if keep else []
        for index in range(groups * size, count):
            x = run(1 + index, _rows(rest, index), x)
            states.append(x[None])
        if keep:
            self.sow("intermediates", "hidden_state", jnp.concatenate(states))
        return x

    def _layer(self, number: int, looped: bool) -> Callable[..., Array]:
        """Returns (own parameters and key), x, segments, angles -> x of a layer."""
        layer = ModernLayer(
            self.config, self.execution, self.deterministic, number, parent=None
        )

        def apply(own: Any, x: Array, segment_ids: Array, by: Rotation) -> Array:
            params, key = own
            rngs = {} if key is None else {"dropout": key}
            result: Any = layer.apply({"params": params}, x, segment_ids, by, rngs=rngs)
            return result

        if self.execution.remat == "none":
            return apply
        policy = encoder.REMAT_POLICIES[self.execution.remat]
        # Inside a loop the compiler cannot undo rematerialization by CSE.
        return jax.checkpoint(apply, policy=policy, prevent_cse=not looped)

    def _keys(self) -> Array | None:
        """Returns a key for the dropout of each layer, if there is dropout."""
        cfg = self.config
        rates = cfg.hidden_dropout_prob, cfg.attention_probs_dropout_prob
        if self.deterministic or not any(rates):
            return None
        return jax.random.split(self.make_rng("dropout"), cfg.num_hidden_layers)

    def _init_params(self, key: Array) -> dict[str, PyTree]:
        """Initializes the parameters of all layers, boxed with their axis names."""
        cfg = self.config
        # Layer 1 has all that a layer can have; number and length change no shape.
        layer = ModernLayer(cfg, self.execution, True, number=1, parent=None)
        one = jnp.zeros((1, 1), jnp.int32)
        x = jnp.zeros((1, 1, cfg.hidden_size))
        by = rotation(one, 1.0, cfg.head_size)

        def init_layer(key: Array) -> Any:
            return layer.init(key, x, one, by)["params"]

        result = jax.vmap(init_layer)(jax.random.split(key, cfg.num_hidden_layers))
        lacked = result.pop(FIRST_LACKS)
        if cfg.num_hidden_layers > 1:
            result[FIRST_LACKS] = _rows(lacked, slice(1, None))
        return jax.tree.map(
            lambda box: box.add_axis(0, {nn.PARTITION_NAME: "layers"}),
            result,
            is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned),
        )


def _rows(tree: PyTree, index: int | slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], tree)


class ModernEmbeddings(nn.Module):
    """Token embeddings, a norm and dropout; positions only enter in attention."""

    config: config.BertConfig
    execution: encoder.Execution

    def setup(self) -> None:
        cfg = self.config
        self.word_embeddings = layers.Table(
            self.execution.padded(cfg.vocab_size),
            cfg.hidden_size,
            ("vocab", "embed"),
            cfg.initializer_range,
        )
        self.layer_norm = layers.LayerNorm(cfg.layer_norm_eps, cfg.norm_bias)
        self.dropout = layers.Dropout(cfg.hidden_dropout_prob)

    def __call__(
        self, input_ids: Int[Array, "B L"], *, deterministic: bool
    ) -> Float[Array, "B L D"]:
        x = self.layer_norm(self.word_embeddings(input_ids))
        x = self.dropout(x, deterministic=deterministic)
        x = x.astype(encoder.DTYPES[self.execution.dtype])
        return spmd.with_logical_constraint(x, ("batch", "length", "embed"))


class ModernBert(nn.Module):
    """The encoder, called as `encoder.Bert` is: `sequence_output` [B, L, D].

    It sows its embeddings and the outputs of its layers, the last one after the norm.
    """

    config: config.BertConfig
    execution: encoder.Execution

    def setup(self) -> None:
        cfg = self.config
        self.embeddings = ModernEmbeddings(cfg, self.execution)
        self.final_layer_norm = layers.LayerNorm(cfg.layer_norm_eps, cfg.norm_bias)

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
        del token_type_ids  # the model has none: only the tokens separate two texts
        x = self.embeddings(input_ids, deterministic=deterministic)
        self.sow("intermediates", "hidden_state", x)
        stack = ModernLayers(self.config, self.execution, deterministic, name="layers")
        sequence_output = self.final_layer_norm(stack(x, segment_ids, position_ids))
        self.sow("intermediates", "hidden_state", sequence_output)
        return sequence_output

    def word_embedding_table(self) -> Float[Array, "V D"]:
        """Returns the token embeddings, with the rows that pad the vocabulary."""
        return self.embeddings.word_embeddings.whole()
