"""The architecture of a BERT, under the names of the published bert_config.json.

`BertConfig(**bert_config.json)` is the loader; `published(name)` gives the released
sizes: Devlin et al. 2018 (arXiv:1810.04805), section 3, and the 24 small models of
Turc et al. 2019 (arXiv:1908.08962), table 1. `model_type` tells BERT from the models
that differ from it in a few places: RoBERTa (arXiv:1907.11692), ALBERT
(arXiv:1909.11942), ELECTRA (arXiv:2003.10555) and DistilBERT (arXiv:1910.01108), or
ModernBERT (arXiv:2412.13663), whose layers are others (`model/modern.py`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bert_jax import errors

ACTIVATIONS = ("gelu", "gelu_new", "relu", "tanh")
MODEL_TYPES = ("bert", "roberta", "albert", "electra", "distilbert", "modernbert")
VOCAB_SIZES = {
    "english-uncased": 30522,
    "english-cased": 28996,
    "chinese": 21128,
    "multilingual-uncased": 105879,
    "multilingual-cased": 119547,
}
# (num_hidden_layers, hidden_size) of the sizes that have a name.
SIZES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
    "xlarge": (24, 2048),  # Megatron-LM's 1.3 B (arXiv:1909.08053), with BERT's layers
}
GRID_LAYERS = (2, 4, 6, 8, 10, 12)
GRID_WIDTHS = (128, 256, 512, 768)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The keys of bert_config.json, with the defaults of BERT-base (English uncased).

    The five `pooler_*` keys and `directionality`, which the Chinese and multilingual
    files carry and no code of the original reads, are accepted and dropped.

    Attributes:
      type_vocab_size: 0 is a model without token types (DistilBERT, ModernBERT).
      model_type: one of `MODEL_TYPES`, as in Hugging Face's config.json.
      embedding_size: E, the width of the embedding tables; -1 is the hidden size.
      num_hidden_groups: groups of layers that share parameters, all of one size; -1
        gives every layer its own. ALBERT has one group.
      pad_token_id: read by RoBERTa, whose positions begin behind it.
      tie_word_embeddings: whether the MLM head decodes with the token embeddings.
      global_attn_every_n_layers: of ModernBERT, as all that follow: the first of so
        many layers attends to the whole sequence, the others to what is near.
      local_attention: tokens that a layer sees that attends to what is near, half of
        them to either side.
      global_rope_theta, local_rope_theta: bases of the angles of rotary positions.
      norm_bias, attention_bias, mlp_bias: whether these have biases.

    Raises:
      InputError: a value has the wrong type or range, the sizes do not fit, or a key
        is set that models of this type do not read.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    model_type: str = "bert"
    embedding_size: int = -1
    num_hidden_groups: int = -1
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    directionality: dataclasses.InitVar[str] = "bidi"
    pooler_fc_size: dataclasses.InitVar[int] = 768
    pooler_num_attention_heads: dataclasses.InitVar[int] = 12
    pooler_num_fc_layers: dataclasses.InitVar[int] = 3
    pooler_size_per_head: dataclasses.InitVar[int] = 128
    pooler_type: dataclasses.InitVar[str] = "first_token_transform"

    def __post_init__(self, directionality, *unused_pooler):
        del unused_pooler  # BERT's pooler is one dense layer of the hidden size
        if directionality != "bidi":
            raise errors.InputError(
                f"model.directionality is {directionality!r}: BERT reads both ways, "
                "the only known value is 'bidi'"
            )
        for name, lowest in _COUNTS.items():
            _check(name, getattr(self, name), int, lowest, 2**31 - 1)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            _check(name, getattr(self, name), float, 0.0, 0.999)
        _check("initializer_range", self.initializer_range, float, 1e-6, 10.0)
        _check("layer_norm_eps", self.layer_norm_eps, float, 1e-15, 1.0)
        for name in ("global_rope_theta", "local_rope_theta"):
            _check(name, getattr(self, name), float, 1.0, 1e9)
        _one_of("hidden_act", self.hidden_act, ACTIVATIONS)
        _one_of("model_type", self.model_type, MODEL_TYPES)
        for name in ("tie_word_embeddings", "norm_bias", "attention_bias", "mlp_bias"):
            if not isinstance(getattr(self, name), bool):
                raise errors.InputError(
                    f"model.{name} is {getattr(self, name)!r}: write true or false"
                )
        self._check_fit()
        self._check_read()

    def _check_fit(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise errors.InputError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}"
            )
        for name in ("embedding_size", "num_hidden_groups"):
            if getattr(self, name) == 0:
                raise errors.InputError(f"model.{name} is 0: use at least 1, or -1")
        if self.num_hidden_layers % self.num_groups:
            raise errors.InputError(
                f"model.num_hidden_layers {self.num_hidden_layers} is not a multiple "
                f"of model.num_hidden_groups {self.num_groups}"
            )
        if self.max_length < 1:
            raise errors.InputError(
                f"model.max_position_embeddings {self.max_position_embeddings} leaves "
                f"no position: those of {self.model_type} begin at "
                f"{self.position_offset}"
            )

    def _check_read(self) -> None:
        """Raises InputError for a key that this type of model would not read."""
        bert_keys = "embedding_size", "num_hidden_groups"
        idle = bert_keys if self.is_modern else MODERN_KEYS
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in idle and value != field.default:
                raise errors.InputError(
                    f"model.{field.name} is {value!r}, and {self.model_type} does not "
                    "read it: leave it unset"
                )
        if self.is_modern and self.type_vocab_size:
            raise errors.InputError(
                f"model.type_vocab_size is {self.type_vocab_size}, and modernbert has "
                "no token types: set it to 0"
            )
        if self.is_modern and self.head_size % 2:
            raise errors.InputError(
                f"model.hidden_size {self.hidden_size} gives "
                f"{self.num_attention_heads} heads an odd width, and rotary positions "
                "turn pairs: change model.num_attention_heads"
            )

    @property
    def is_modern(self) -> bool:
        """Whether its layers are those of ModernBERT."""
        return self.model_type == "modernbert"

    def is_global(self, layer: int) -> bool:
        """Whether a layer, counted from 0, attends to the whole sequence."""
        return not self.is_modern or layer % self.global_attn_every_n_layers == 0

    @property
    def norms_have_bias(self) -> bool:
        """Whether the norms add a bias."""
        return self.norm_bias or not self.is_modern

    @property
    def has_position_table(self) -> bool:
        """Whether positions are embedded, and not turned into angles."""
        return not self.is_modern

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def embedding_width(self) -> int:
        """E, the width of the embedding tables."""
        return self.hidden_size if self.embedding_size == -1 else self.embedding_size

    @property
    def projects_embeddings(self) -> bool:
        """Whether a linear map leads from the tables to the hidden size."""
        return self.model_type == "albert" or self.embedding_width != self.hidden_size

    @property
    def num_groups(self) -> int:
        """How many layers have parameters of their own."""
        shared = self.num_hidden_groups != -1
        return self.num_hidden_groups if shared else self.num_hidden_layers

    @property
    def position_offset(self) -> int:
        """The row of the position table that the first token of a row takes."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_length(self) -> int:
        """The most tokens in a row that the position table serves."""
        return self.max_position_embeddings - self.position_offset

    @property
    def pooler_act(self) -> str:
        """The activation between the [CLS] row and a classifier."""
        acts = {"electra": "gelu", "distilbert": "relu", "modernbert": "gelu"}
        return acts[self.model_type] if self.model_type in acts else "tanh"

    @property
    def mlm_act(self) -> str:
        """The activation inside the MLM head."""
        fixed = self.model_type in ("roberta", "electra", "modernbert")
        return "gelu" if fixed else self.hidden_act


# The lowest value of each; -1 stands for what is derived.
_COUNTS = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "max_position_embeddings": 1,
    "type_vocab_size": 0,
    "embedding_size": -1,
    "num_hidden_groups": -1,
    "pad_token_id": 0,
    "global_attn_every_n_layers": 1,
    "local_attention": 2,
}
# What ModernBERT alone reads.
MODERN_KEYS = (
    "global_attn_every_n_layers",
    "local_attention",
    "global_rope_theta",
    "local_rope_theta",
    "norm_bias",
    "attention_bias",
    "mlp_bias",
)


def published(name: str) -> BertConfig:
    """Returns a released architecture by its size and, optionally, its language.

    Args:
      name: `tiny|mini|small|medium|base|large|xlarge` or `L<layers>_H<width>` of the
        grid of 24 small models, optionally followed by `-` and a key of `VOCAB_SIZES`.

    Raises:
      InputError: the name is not one of these.

    >>> published("base-chinese").vocab_size
    21128
    >>> published("L4_H256") == published("mini")
    True
    """
    size, _, language = name.partition("-")
    language = language or "english-uncased"
    if language not in VOCAB_SIZES:
        raise errors.InputError(
            f"unknown language {language!r} in model size {name!r}: use one of "
            f"{', '.join(VOCAB_SIZES)}"
        )
    layers, width = _shape(size)
    return BertConfig(
        vocab_size=VOCAB_SIZES[language],
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )


def published_names() -> list[str]:
    """Lists every size that `published` knows, without languages."""
    grid = [f"L{n}_H{width}" for n in GRID_LAYERS for width in GRID_WIDTHS]
    return [*SIZES, *grid]


def _shape(size: str) -> tuple[int, int]:
    if size in SIZES:
        return SIZES[size]
    match = re.fullmatch(r"L(\d+)_H(\d+)", size)
    if match:
        layers, width = int(match[1]), int(match[2])
        if layers in GRID_LAYERS and width in GRID_WIDTHS:
            return layers, width
    raise errors.InputError(
        f"unknown model size {size!r}: use one of {', '.join(SIZES)}, or L<layers>_H"
        f"<width> with layers in {GRID_LAYERS} and width in {GRID_WIDTHS}"
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise errors.InputError(
            f"model.{name} is {value!r}: use one of {', '.join(known)}"
        )


def from_json(values: Mapping[str, Any]) -> BertConfig:
    """Returns the architecture that these keys of a JSON object say.

    Raises:
      InputError: a value has the wrong type or range, or the sizes do not fit.
    """
    for field in dataclasses.fields(BertConfig):
        if field.name in values:
            _check_type(field.name, values[field.name], type(field.default))
    return BertConfig(**values)


def _check_type(name: str, value: Any, kind: type) -> None:
    accepted = (int, float) if kind is float else (kind,)
    is_flag = isinstance(value, bool) and kind is not bool
    if is_flag or not isinstance(value, accepted):
        raise errors.InputError(
            f"model.{name} is {value!r}: expected {kind.__name__}, got "
            f"{type(value).__name__}"
        )


def _check(
    name: str, value: Any, kind: type, low: int | float, high: int | float
) -> None:
    _check_type(name, value, kind)
    if not low <= value <= high:
        raise errors.InputError(
            f"model.{name} is {value!r}: it must lie between {low} and {high}"
        )
