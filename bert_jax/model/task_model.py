"""A BERT with the head of one task: what is fine-tuned.

Heads that Hugging Face also has keep its layout (arXiv:1810.04805, section 4): pooler,
dropout and a linear map for texts; dropout and a linear map for tokens, for the ends of
answers and for choices. A BiLSTM over all tokens, other poolings and a CRF are ours.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from bert_jax import errors, fields
from bert_jax.fields import REQUIRED, field
from bert_jax.model import config, crf, dropout, encoder, heads, recurrent
from bert_jax.model import parts as model_parts

Encode = Callable[..., Float[Array, "R S D"]]


def encode_packed(
    encoder: Encode,
    input_ids: Int[Array, "B L"],
    token_type_ids: Int[Array, "B L"],
    packed: Int[Array, "R S"],
) -> Float[Array, "B L D"]:
    """Returns the states of texts that are packed into shared rows for the encoder.

    The encoder sees R rows of S tokens, in which each text is a segment with positions
    of its own, so that hardly a token is padding; heads, losses and metrics see [B, L].
    States of padding have no meaning.

    Args:
      encoder: (input_ids, token_type_ids, segment_ids, position_ids) -> [R, S, D].
      packed: the token of the B * L at each position, from 1; 0 = none.
    """
    texts, length = input_ids.shape
    token = packed - 1
    is_token = token >= 0

    def shared(x: Int[Array, "..."]) -> Int[Array, "R S"]:
        return jnp.where(is_token, x, 0)

    states = encoder(
        shared(input_ids.reshape(-1)[token]),
        shared(token_type_ids.reshape(-1)[token]),
        shared(token // length + 1),
        shared(token % length),
    )
    # The position of each token; those without one are out of range and dropped.
    target = jnp.where(is_token, token, texts * length).reshape(-1)
    place = jnp.zeros(texts * length, jnp.int32)
    place = place.at[target].set(jnp.arange(packed.size, dtype=jnp.int32), mode="drop")
    return states.reshape(-1, states.shape[-1])[place].reshape(texts, length, -1)


POOLINGS = ("cls", "mean", "max", "bilstm")
KINDS = ("classifier", "tagger", "span", "multiple_choice", "vectors")
# Those that pool a text, and those whose rows hold several texts.
_POOLED = ("classifier", "multiple_choice", "vectors")
_SEVERAL = ("multiple_choice", "vectors")
# Deviation of the standard normal that is cut at two deviations.
_CUT = 0.87962566


@dataclasses.dataclass(frozen=True)
class Head:
    """What sits on the encoder.

    Attributes:
      kind: `classifier` [B, C], `tagger` [B, L, C], `span` [B, L, 2] (start, end),
        `multiple_choice` [B, K] or `vectors` [B, K, D] (pooled texts, no linear map).
      at_predicate: whether a tagger also sees the token at `predicate_positions`
        [B, Q], and gives logits [B, Q, L, C] (all predicates of a row in one pass).

    Raises:
      InputError: a value is unknown, or two do not go together.
    """

    kind: str = field(REQUIRED, "What the head gives.", choices=KINDS)
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
                    f"head.{name} is for taggers: a head of kind {self.kind} has none"
                )
        self._check_recurrent()
        self._check_transform()

    def _check_recurrent(self) -> None:
        if not self.pools:
            return
        if self.pooling == "bilstm" and not self.recurrent_size:
            raise errors.InputError(
                "head.pooling is 'bilstm' and head.recurrent_size is 0: give the width "
                "of a direction"
            )
        if self.pooling == "cls" and self.recurrent_size:
            raise errors.InputError(
                f"head.recurrent_size is {self.recurrent_size} and head.pooling 'cls', "
                "which does not read the BiLSTM: pool by bilstm, mean or max"
            )

    def _check_transform(self) -> None:
        if not self.transform:
            return
        if self.kind == "vectors":
            raise errors.InputError(
                "head.transform is true, and matching compares vectors of the encoder: "
                "leave it false"
            )
        if self.recurrent_size:
            raise errors.InputError(
                "head.transform reads the encoder, and head.recurrent_size is "
                f"{self.recurrent_size}: set one of them"
            )
        if self.pools and self.pooling != "mean":
            raise errors.InputError(
                f"head.transform is true and head.pooling {self.pooling!r}: a head on "
                "[CLS] has these layers already, as its pooler. Set head.pooling=mean, "
                "or leave head.transform false"
            )

    @property
    def pools(self) -> bool:
        """Whether it scores whole texts, by one vector each."""
        return self.kind in _POOLED

    @property
    def has_several_texts(self) -> bool:
        """Whether its rows hold K texts, as [B, K, L]."""
        return self.kind in _SEVERAL


def parts(head: Head) -> tuple[str, ...]:
    """Returns the names of the parts of a model with this head.

    >>> parts(Head("classifier", classes=2))
    ('encoder', 'pooler', 'classifier')
    >>> parts(Head("tagger", classes=9, recurrent_size=64, crf=True))
    ('encoder', 'recurrent', 'tagger', 'crf')
    """
    has = {
        "pooler": head.pools and head.pooling == "cls",
        "recurrent": head.recurrent_size > 0,
        model_parts.TRANSFORM: head.transform,
        "at_predicate": head.at_predicate,
        head.kind: head.kind != "vectors",
        "crf": head.crf,
    }
    return ("encoder", *(name for name, there in has.items() if there))


class TaskModel(nn.Module):
    """The outputs of an encoder with one head, by name.

    `logits` float32 (shapes under `Head`) or, of the kind `vectors`, `vectors`; with a
    CRF also its `transitions` [C, C], `starts` and `ends` [C], float32. Logits of
    padding are numbers that mean nothing. Each text begins at the first position of
    its row; with `packed` (see `packed_texts`) the encoder alone sees rows that several
    share, and the outputs are the same.
    """

    config: config.BertConfig
    execution: encoder.Execution
    head: Head

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "B *K L"],
        token_type_ids: Int[Array, "B *K L"],
        segment_ids: Int[Array, "B *K L"],
        predicate_positions: Int[Array, "B Q"] | None = None,
        packed: Int[Array, "R S"] | None = None,
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "..."]]:
        head, texts = self.head, input_ids.shape[:-1]
        if len(texts) != 1 + head.has_several_texts:
            raise ValueError(f"{head.kind} got input_ids of shape {input_ids.shape}")
        flat = (input_ids, token_type_ids, segment_ids)
        ids, types, segments = (x.reshape(-1, x.shape[-1]) for x in flat)
        x = self._encode(ids, types, segments, packed, deterministic)
        if head.pools:
            return self._score_texts(x, segments, texts, deterministic)
        x = self._recurrent(x, segments)[0]
        x = self._drop(self._transform(x), deterministic)
        if head.at_predicate:
            if predicate_positions is None:
                raise ValueError("a head with at_predicate needs predicate_positions")
            x = AtPredicate(self.config, name="at_predicate")(x, predicate_positions)
        return self._score_tokens(x)

    def _encode(
        self,
        ids: Int[Array, "B L"],
        types: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        packed: Int[Array, "R S"] | None,
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        bert = heads.make_encoder(self.config, self.execution, "encoder")
        bert = functools.partial(bert, deterministic=deterministic)
        if packed is not None:
            return encode_packed(bert, ids, types, packed)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        return bert(ids, types, segments, jnp.where(segments > 0, places, 0))

    def _recurrent(
        self, x: Float[Array, "B L D"], segments: Int[Array, "B L"]
    ) -> tuple[Float[Array, "B L W"], Float[Array, "B W"] | None]:
        """Returns what the head sees of each token, and the BiLSTM's last states."""
        size = self.head.recurrent_size
        if not size:
            return x, None
        return recurrent.BiLSTM(size, name="recurrent")(x, segments)

    def _transform(self, rows: Float[Array, "B P W"]) -> Float[Array, "B P W"]:
        if not self.head.transform:
            return rows
        return heads.HeadTransform(self.config, name=model_parts.TRANSFORM)(rows)

    def _drop(self, x: Float[Array, "..."], deterministic: bool) -> Array:
        # A name of its own, so that its keys do not depend on the other parts.
        drop = dropout.Dropout(self.head.dropout, name="dropout")
        return drop(x, deterministic=deterministic)

    def _score_texts(
        self,
        x: Float[Array, "N L D"],
        segments: Int[Array, "N L"],
        texts: tuple[int, ...],
        deterministic: bool,
    ) -> dict[str, Float[Array, "..."]]:
        head = self.head
        pooled = self._pool(x, segments)
        if head.kind == "vectors":
            return {"vectors": pooled.reshape(*texts, -1).astype(jnp.float32)}
        classes = 1 if head.kind == "multiple_choice" else head.classes
        linear = _output_head(self.config, classes, head.kind)
        logits = linear(self._drop(pooled, deterministic)[:, None])
        if head.kind == "multiple_choice":
            return {"logits": logits.reshape(texts)}
        return {"logits": logits[:, 0]}

    def _pool(
        self, x: Float[Array, "N L D"], segments: Int[Array, "N L"]
    ) -> Float[Array, "N W"]:
        """Returns one vector for each text."""
        pooling = self.head.pooling
        if pooling == "cls":
            first = jnp.zeros((x.shape[0], 1), jnp.int32)
            return heads.Pooler(self.config, name="pooler")(x, first)[:, 0]
        x, last = self._recurrent(x, segments)
        if pooling == "bilstm":
            assert last is not None  # `Head` has checked it
            return last
        if pooling == "max":
            return _max(x, segments > 0)
        mean = heads.mean_of_tokens(x, segments > 0)
        return self._transform(mean[:, None])[:, 0]

    def _score_tokens(self, x: Float[Array, "..."]) -> dict[str, Float[Array, "..."]]:
        head = self.head
        classes = 2 if head.kind == "span" else head.classes
        linear = _output_head(self.config, classes, head.kind)
        logits = linear(x.reshape(x.shape[0], -1, x.shape[-1]))
        outputs = {"logits": logits.reshape(*x.shape[:-1], classes)}
        if head.crf:
            outputs |= crf.Transitions(classes, name="crf")()._asdict()
        return outputs


def _output_head(cfg: config.BertConfig, classes: int, name: str) -> heads.OutputHead:
    """Returns a linear map whose fresh kernel deviates by `initializer_range`.

    As in transformers. Ours is cut at two deviations, which makes it narrower unless
    it is drawn wider, and a head that begins smaller learns later: of 100 steps on
    CoNLL-2003, 56.1 and 58.4 % F1 of the same draw.
    """
    drawn = dataclasses.replace(cfg, initializer_range=cfg.initializer_range / _CUT)
    return heads.OutputHead(drawn, classes, name=name)


class AtPredicate(nn.Module):
    """Joins the state of every token with that of each predicate, by a hidden layer.

    It is gelu(T token + P predicate), as wide as the encoder (arXiv:1904.05255, section
    3.2). A linear map of both alone cannot swap the roles of two tokens between two
    predicates: it is a sum of what it says of the token and of the predicate.
    """

    config: config.BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L W"], positions: Int[Array, "B Q"]
    ) -> Float[Array, "B Q L D"]:
        cfg = self.config
        token = _output_head(cfg, cfg.hidden_size, "token")
        predicate = _output_head(cfg, cfg.hidden_size, "predicate")
        at = predicate(heads.take_rows(x, positions))
        joined = token(x)[:, None] + at[:, :, None]
        return jax.nn.gelu(joined, approximate=False).astype(x.dtype)


def _max(x: Float[Array, "N L D"], is_token: Array) -> Float[Array, "N D"]:
    """Returns the greatest value over the tokens; 0 if there are none."""
    kept = jnp.where(is_token[..., None], x, -jnp.inf).max(axis=1)
    return jnp.where(jnp.any(is_token, axis=1, keepdims=True), kept, 0.0)


def initialiser(model: TaskModel, sequence_length: int = 8, rows: int = 1):
    """Returns the pure function key -> parameters, boxed, of a model for a task."""
    texts = (rows, 1) if model.head.has_several_texts else (rows,)
    ids = jnp.zeros((*texts, sequence_length), jnp.int32)
    predicates = jnp.zeros((rows, 1), jnp.int32) if model.head.at_predicate else None

    def init(key: jax.Array) -> dict:
        made: Any = model.init(key, ids, ids, ids, predicates, deterministic=True)
        return made["params"]

    return init
