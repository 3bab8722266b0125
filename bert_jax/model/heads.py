"""What sits on the encoder, as a description and as modules (arXiv:1810.04805, 3, 4).

`HeadSpec` describes a head and names the parts of the parameter tree that it has; the
modules below compute them, and `model.network` connects them to an encoder. Heads that
Hugging Face also has keep its layout: pooler, dropout and a linear map for texts;
dropout and a linear map for tokens, for the ends of answers and for choices. In
pretraining the MLM head sees only the tokens to be predicted, and its decoder is the
token embedding table (tied). Logits are float32.
"""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from bert_jax import errors
from bert_jax.foundation import fields
from bert_jax.foundation.fields import REQUIRED, field
from bert_jax.model import config, layers

# Heads that bear the name of a task.
SPAN, MULTIPLE_CHOICE = "span", "multiple_choice"
POOLINGS = ("cls", "mean", "max", "bilstm")
TRANSFORM = "head_transform"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of head, and what other libraries call it.

    Attributes:
      title: for people.
      reads: `text`, one vector of a text; `tokens`; or "" for a part of pretraining, or
        one that other heads read.
      has_classes: whether it has an output for each label.
      transformers: the end of its class; "" where only some models have one.
      pipeline: its task on Hugging Face's hub.
      tensor, google: its linear map in the files of transformers and of Google.
    """

    title: str
    reads: str = ""
    has_classes: bool = False
    transformers: str = ""
    pipeline: str = ""
    tensor: str = ""
    google: str = ""


KINDS = {
    "classifier": Kind(
        "classifier of texts",
        reads="text",
        has_classes=True,
        transformers="ForSequenceClassification",
        pipeline="text-classification",
        tensor="classifier",
        google="output",
    ),
    "tagger": Kind(
        "classifier of tokens",
        reads="tokens",
        has_classes=True,
        transformers="ForTokenClassification",
        pipeline="token-classification",
        tensor="classifier",
        google="output",
    ),
    SPAN: Kind(
        "head for answers in a text",
        reads="tokens",
        transformers="ForQuestionAnswering",
        pipeline="question-answering",
        tensor="qa_outputs",
        google="cls/squad/output",
    ),
    MULTIPLE_CHOICE: Kind(
        "multiple-choice head",
        reads="text",
        transformers="ForMultipleChoice",
        pipeline="multiple-choice",
        tensor="classifier",
        google="output",
    ),
    "vectors": Kind("vectors of texts", "text"),
    "mlm_head": Kind(
        "head for masked tokens", transformers="ForMaskedLM", pipeline="fill-mask"
    ),
    "nsp_head": Kind(
        "head for pairs of sentences", google="cls/seq_relationship/output"
    ),
    "rtd_head": Kind("head for replaced tokens"),
    "pooler": Kind("pooler"),
    TRANSFORM: Kind("layer before the head"),
}
# Standard deviation of a standard normal truncated at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """A head: its outputs, and the vectors of the encoder that it reads.

    Attributes:
      kind: of a task, `classifier` [B, C], `tagger` [B, L, C], `span` [B, L, 2] (start,
        end), `multiple_choice` [B, K] or `vectors` [B, K, D] (pooled texts, no linear
        map); of pretraining, `mlm_head`, `nsp_head` or `rtd_head`; or a part that other
        heads read, without them: `pooler` or `head_transform`.
      at_predicate: whether a tagger also reads the token at `predicate_positions`
        [B, Q], and returns logits [B, Q, L, C] (all predicates of a row in one pass).

    Raises:
      InputError: a value is unknown, or two cannot be combined.
    """

    kind: str = field(REQUIRED, "What the head computes.", choices=tuple(KINDS))
    classes: int = field(1, "Number of classes (C).", low=1)
    pooling: str = field(
        "cls",
        "How a text becomes a vector: `cls` through the pooler, `mean` or `max` over "
        "its tokens, or the last states of the `bilstm`.",
        choices=POOLINGS,
    )
    recurrent_size: int = field(
        0, "Width of each direction of a BiLSTM over the tokens; 0 = none.", low=0
    )
    crf: bool = field(False, "Score whole sequences of tags with a linear-chain CRF.")
    at_predicate: bool = False
    dropout: float = field(0.1, "Dropout before the last layer.", low=0.0, below=1.0)
    transform: bool = field(
        False,
        "A dense layer, its activation and ModernBERT's norm before the dropout, over "
        "each token, or over their mean with pooling `mean`, as in the classes of "
        "transformers.",
    )

    def __post_init__(self) -> None:
        fields.check("head", self)
        for name in ("crf", "at_predicate"):
            if getattr(self, name) and self.kind != "tagger":
                raise errors.InputError(
                    f"head.{name} is for taggers: remove it from a {self.kind} head"
                )
        if self.pools:
            check_bilstm(self.pooling, self.recurrent_size)
        if self.pools and self.pooling == "cls" and self.recurrent_size:
            raise errors.InputError(
                f"head.recurrent_size is {self.recurrent_size} and head.pooling 'cls', "
                "which does not read the BiLSTM: pool by bilstm, mean or max"
            )
        self._check_transform()

    def _check_transform(self) -> None:
        if not self.transform:
            return
        problem = ""
        if self.kind == "vectors":
            problem = "matching compares vectors of the encoder"
        elif self.recurrent_size:
            problem = f"head.recurrent_size is {self.recurrent_size}: both read tokens"
        elif self.pools and self.pooling != "mean":
            problem = f"head.pooling is {self.pooling!r}, and it goes with mean only"
        if problem:
            raise errors.InputError(
                f"head.transform is true, but {problem}. Set it to false"
            )

    @property
    def pools(self) -> bool:
        """Whether it scores whole texts, by one vector each."""
        return KINDS[self.kind].reads == "text"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts in the parameter tree.

        >>> HeadSpec("classifier", classes=2).parts
        ('pooler', 'classifier')
        >>> HeadSpec("tagger", classes=9, recurrent_size=64, crf=True).parts
        ('recurrent', 'tagger', 'crf')
        """
        reads_cls = self.pools and self.pooling == "cls"
        has = {
            "pooler": reads_cls or self.kind == "nsp_head",
            "recurrent": self.recurrent_size > 0,
            TRANSFORM: self.transform,
            "at_predicate": self.at_predicate,
            self.kind: self.kind != "vectors",
            "crf": self.crf,
        }
        return tuple(name for name, is_part in has.items() if is_part)


def check_bilstm(pooling: str, recurrent_size: int) -> None:
    """Raises InputError for pooling by a BiLSTM that has no width."""
    if pooling == "bilstm" and not recurrent_size:
        raise errors.InputError(
            "head.pooling is 'bilstm' and head.recurrent_size is 0: set the width of a "
            "direction, as in 128"
        )


def heads_of(parts: Collection[str], num_labels: int) -> tuple[HeadSpec, ...]:
    """Returns the heads of a checkpoint with these parts, for inference.

    Where there is a `head_transform`, a classifier or a multiple_choice reads the mean
    of the tokens through it, and a tagger or span every token.

    Args:
      parts: names of `network.PARTS`.
      num_labels: C, of classifier and tagger.
    """
    transform = TRANSFORM in parts
    readers = {name for name in parts if name in KINDS and KINDS[name].reads}
    others = {"encoder", TRANSFORM} if readers else {"encoder"}
    return tuple(
        HeadSpec(
            name,
            num_labels if KINDS[name].has_classes else 1,
            pooling="mean" if transform and KINDS[name].reads == "text" else "cls",
            dropout=0.0,
            transform=transform and name in readers,
        )
        for name in parts
        if name not in others
    )


def take_rows(
    sequence_output: Float[Array, "B L D"], positions: Int[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Gathers the vectors of each sequence at `positions`.

    The gradient is added to zeros [B, L, 1, D]. Of the shape [B, L, D], XLA for GPUs
    would have one array of zeros in memory for this and for every dropout, and read it
    each time: 2 % of the traffic of BERT-base.
    """
    rows = sequence_output[:, :, None]
    return jnp.take_along_axis(rows, positions[..., None, None], axis=1)[:, :, 0]


class HeadTransform(nn.Module):
    """A dense layer and tanh: the pooler of [CLS] rows, or a part before a head.

    Instead of tanh, ELECTRA uses gelu, DistilBERT relu, and ModernBERT gelu and a norm;
    it has them before every head (arXiv:2412.13663; its `PredictionHead`).
    """

    config: config.BertConfig

    @nn.compact
    def __call__(self, rows: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        cfg = self.config
        rows = _dense(cfg, cfg.hidden_size, "dense", has_bias=not cfg.is_modern)(rows)
        rows = layers.ACTIVATIONS[cfg.pooler_act](rows)
        return _norm(cfg)(rows) if cfg.is_modern else rows


def mean_of_tokens(
    x: Float[Array, "B L D"], is_token: Bool[Array, "B L"]
) -> Float[Array, "B D"]:
    """Returns the mean over the tokens, added up in float32; 0 if there are none."""
    kept = jnp.where(is_token[..., None], x.astype(jnp.float32), 0.0)
    count = jnp.maximum(jnp.sum(is_token, axis=1, keepdims=True), 1)
    return (jnp.sum(kept, axis=1) / count).astype(x.dtype)


class TokenScores(NamedTuple):
    """Logits of tokens before they are computed: rows * table + bias.

    They are the largest array of pretraining, so a caller that only needs a sum over
    them computes them part by part (`losses.in_parts`).
    """

    rows: Float[Array, "B P E"]
    table: Float[Array, "V E"]
    bias: Float[Array, " V"]

    def logits(self) -> Float[Array, "B P V"]:
        """Computes the logits, in float32."""
        logits = jnp.einsum(
            "BPE,VE->BPV",
            self.rows,
            self.table.astype(self.rows.dtype),
            preferred_element_type=jnp.float32,
        )
        return logits + jnp.broadcast_to(self.bias, logits.shape)


class MLMHead(nn.Module):
    """Predicts tokens: dense, activation, LayerNorm, then the embedding table.

    If the embeddings of the model are not tied, it has its own decoder table.
    """

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, rows: Float[Array, "B P D"], table: Float[Array, "V E"]
    ) -> TokenScores:
        cfg = self.config
        inner = cfg.embedding_width
        rows = _dense(cfg, inner, "transform", has_bias=not cfg.is_modern)(rows)
        rows = _norm(cfg)(layers.ACTIVATIONS[cfg.mlm_act](rows))
        if not cfg.tie_word_embeddings:
            initializer = layers.normal(cfg.initializer_range, "vocab", "embed")
            table = self.param("decoder", initializer, table.shape)
        bias = self.param("bias", layers.constant(0.0, "vocab"), table.shape[:1])
        # Rows that pad the vocabulary never win and never share probability.
        real = jnp.arange(table.shape[0]) < cfg.vocab_size
        return TokenScores(rows, table, jnp.where(real, bias, -1e9))


class OutputHead(nn.Module):
    """Scores `classes` classes for each row, pooled or of a token, by a linear map.

    Of `nsp_head`, class 0 = B follows A, 1 = it does not (NSP), or swapped (SOP).
    """

    config: config.BertConfig
    classes: int

    @nn.compact
    def __call__(self, rows: Float[Array, "B P D"]) -> Float[Array, "B P C"]:
        dense = _dense(self.config, self.classes, "dense", rows.shape[-1])
        return dense(rows).astype(jnp.float32)


class RTDHead(nn.Module):
    """Scores each token: above 0 = replaced (ELECTRA's discriminator, section 2)."""

    config: config.BertConfig

    @nn.compact
    def __call__(self, sequence_output: Float[Array, "B L D"]) -> Float[Array, "B L"]:
        cfg = self.config
        inner = _dense(cfg, cfg.hidden_size, "transform")(sequence_output)
        inner = layers.ACTIVATIONS[cfg.hidden_act](inner)
        return _dense(cfg, 1, "prediction")(inner)[..., 0].astype(jnp.float32)


def _norm(cfg: config.BertConfig) -> layers.LayerNorm:
    return layers.LayerNorm(cfg.layer_norm_eps, cfg.norms_have_bias, name="layer_norm")


def _dense(
    cfg: config.BertConfig,
    width: int,
    name: str,
    inputs: int = -1,
    has_bias: bool = True,
) -> layers.Projection:
    """Returns a linear map of rows of `inputs` (-1: the hidden size) to `width`."""
    return layers.Projection(
        "BPD,DE->BPE",
        (cfg.hidden_size if inputs == -1 else inputs, width),
        ("embed", None),
        1,
        cfg.initializer_range,
        has_bias,
        name=name,
    )


def task_output(cfg: config.BertConfig, classes: int, name: str) -> OutputHead:
    """Returns a linear map whose fresh kernel deviates by `initializer_range`.

    As in transformers. Our normal is truncated at two standard deviations, which makes
    it narrower unless its scale is raised, and a head that starts smaller learns later:
    after 100 steps on CoNLL-2003, 56.1 against 58.4 % F1 with the same seed.
    """
    scaled = dataclasses.replace(
        cfg, initializer_range=cfg.initializer_range / _TRUNCATED_STDDEV
    )
    return OutputHead(scaled, classes, name=name)


class AtPredicate(nn.Module):
    """Joins the state of every token with that of each predicate, by a hidden layer.

    It is gelu(T token + P predicate), as wide as the encoder (arXiv:1904.05255, section
    3.2). A purely linear map of both cannot swap the roles of two tokens between two
    predicates: it is the sum of a term of the token and a term of the predicate.
    """

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L W"], positions: Int[Array, "B Q"]
    ) -> Float[Array, "B Q L D"]:
        cfg = self.config
        token = task_output(cfg, cfg.hidden_size, "token")
        predicate = task_output(cfg, cfg.hidden_size, "predicate")
        at = predicate(take_rows(x, positions))
        joined = token(x)[:, None] + at[:, :, None]
        return jax.nn.gelu(joined, approximate=False).astype(x.dtype)


def max_of_tokens(x: Float[Array, "N L D"], is_token: Array) -> Float[Array, "N D"]:
    """Returns the greatest value over the tokens; 0 if there are none."""
    kept = jnp.where(is_token[..., None], x, -jnp.inf).max(axis=1)
    return jnp.where(jnp.any(is_token, axis=1, keepdims=True), kept, 0.0)


# The gates of an LSTM are in the order input, forget, cell, output, as in torch.
_GATES, _FORGET = 4, 1


class BiLSTM(nn.Module):
    """An LSTM in both directions over a row (Hochreiter and Schmidhuber 1997).

    Padding leaves the states untouched, wherever it is: the backward direction begins
    at the last real token, and the last states are those after real tokens. The biases
    of the forget gates begin at 1 (Gers et al. 2000). States are float32; `hidden` (H)
    is the width of each direction.
    """

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], segment_ids: Int[Array, "B L"]
    ) -> tuple[Float[Array, "B L W"], Float[Array, "B W"]]:
        """Returns the states at every token (0 at padding) and the last states.

        Their width is 2 H: the forward direction comes first. A row that is all
        padding gives zeros.
        """
        is_token = segment_ids > 0
        outputs, last = zip(
            _Direction(self.hidden, False, name="forward")(x, is_token),
            _Direction(self.hidden, True, name="backward")(x, is_token),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(last, axis=-1)


class _Direction(nn.Module):
    """One direction: the inputs of all tokens at once, then one step a token."""

    hidden: int
    backward: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], is_token: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L H"], Float[Array, "B H"]]:
        inputs = _Input(self.hidden, name="input")(x)
        kernel = _State(self.hidden, name="state")()

        def step(carry: tuple[Array, Array], now: tuple[Array, Array]):
            hidden, cell = carry
            new = _cell(hidden, cell, now[0], kernel)
            real = now[1][:, None]
            hidden, cell = (
                jnp.where(real, after, before)
                for after, before in zip(new, carry, strict=True)
            )
            return (hidden, cell), jnp.where(real, hidden, 0.0)

        zeros = jnp.zeros((x.shape[0], self.hidden), jnp.float32)
        over = (jnp.moveaxis(inputs, 1, 0), is_token.T)
        (last, _), outputs = lax.scan(step, (zeros, zeros), over, reverse=self.backward)
        return jnp.moveaxis(outputs, 0, 1).astype(x.dtype), last.astype(x.dtype)


def _cell(
    hidden: Float[Array, "B H"],
    cell: Float[Array, "B H"],
    inputs: Float[Array, "B 4 H"],
    kernel: Float[Array, "H 4 H"],
) -> tuple[Float[Array, "B H"], Float[Array, "B H"]]:
    """Returns the states after one more token."""
    gates = inputs + jnp.einsum("BH,HKG->BKG", hidden, kernel)
    enter, forget, leave = (jax.nn.sigmoid(gates[:, k]) for k in (0, _FORGET, 3))
    cell = forget * cell + enter * jnp.tanh(gates[:, 2])
    return leave * jnp.tanh(cell), cell


class _Input(nn.Module):
    """What every token adds to the gates."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L 4 H"]:
        shape = (x.shape[-1], _GATES, self.hidden)
        kernel = self.param("kernel", _uniform(self.hidden, "embed", None, None), shape)
        bias = self.param("bias", _biases, shape[1:])
        product = jnp.einsum("BLD,DKH->BLKH", x, kernel.astype(x.dtype))
        product = product.astype(jnp.float32)
        return product + jnp.broadcast_to(bias, product.shape)


class _State(nn.Module):
    """What the state before adds to the gates: its kernel."""

    hidden: int

    @nn.compact
    def __call__(self) -> Float[Array, "H 4 H"]:
        initializer = _uniform(self.hidden, None, None, None)
        return self.param("kernel", initializer, (self.hidden, _GATES, self.hidden))


def _uniform(hidden: int, *axes: str | None) -> layers.Initializer:
    """Returns the initializer of torch, U(-1/sqrt(H), 1/sqrt(H))."""
    bound = hidden**-0.5

    def sample(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return nn.with_logical_partitioning(sample, axes)


def _biases(key: Array, shape: tuple[int, ...]) -> Float[Array, "4 H"]:
    del key
    return jnp.zeros(shape, jnp.float32).at[_FORGET].set(1.0)
