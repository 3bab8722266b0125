"""The architecture of a BERT, under the names of the published bert_config.json.

`BertConfig(**bert_config.json)` is the loader; `published(name)` gives the released
sizes: Devlin et al. 2018 (arXiv:1810.04805), section 3, and the 24 small models of
Turc et al. 2019 (arXiv:1908.08962), table 1. `model_type` is BERT or one of the models
that differ from it in details: RoBERTa (arXiv:1907.11692), ALBERT
(arXiv:1909.11942), ELECTRA (arXiv:2003.10555) and DistilBERT (arXiv:1910.01108), or
ModernBERT (arXiv:2412.13663), whose layers are others (`model/modern.py`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bert_jax import errors
from bert_jax.foundation import fields
from bert_jax.foundation.fields import field

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


_INT_MAX = 2**31 - 1


def _count(default: int, help: str, **facts: Any) -> Any:
    """Declares a key that is a count: at least 1, unless the facts override it."""
    return field(default, help, **{"low": 1, "high": _INT_MAX, **facts})


def _of_modernbert(default: Any, help: str, **facts: Any) -> Any:
    """Declares a key that only ModernBERT reads."""
    return field(default, f"Of ModernBERT: {help}", **facts)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The keys of bert_config.json, with the defaults of BERT-base (English uncased).

    The five `pooler_*` keys and `directionality`, which the Chinese and multilingual
    files carry and no code of the original reads, are accepted and dropped.

    Raises:
      InputError: a value has the wrong type or range, the sizes do not fit, or a key
        is set that models of this type do not read.
    """

    vocab_size: int = _count(30522, "Tokens in the vocabulary (V).")
    hidden_size: int = _count(768, "Width of the hidden states (D).")
    num_hidden_layers: int = _count(12, "Transformer layers.")
    num_attention_heads: int = _count(12, "Attention heads of a layer (N).")
    intermediate_size: int = _count(3072, "Width of the feed-forward layers (F).")
    hidden_act: str = field(
        "gelu",
        "Activation of the feed-forward layers: `gelu` is exact, `gelu_new` its tanh "
        "approximation.",
        choices=ACTIVATIONS,
    )
    hidden_dropout_prob: float = field(
        0.1, "Dropout of embeddings and layer outputs.", low=0.0, high=0.999
    )
    attention_probs_dropout_prob: float = field(
        0.1, "Dropout of attention probabilities.", low=0.0, high=0.999
    )
    max_position_embeddings: int = _count(512, "Rows of the position table.")
    type_vocab_size: int = _count(
        2, "Token types; 0 = none (DistilBERT, ModernBERT).", low=0
    )
    initializer_range: float = field(
        0.02, "Standard deviation of initial weights.", low=1e-6, high=10.0
    )
    layer_norm_eps: float = field(
        1e-12, "Epsilon of the layer norms.", low=1e-15, high=1.0
    )
    model_type: str = field(
        "bert", "As in config.json of Hugging Face.", choices=MODEL_TYPES
    )
    embedding_size: int = _count(
        -1, "Width of the embedding tables (E); -1 = `hidden_size`.", also=-1
    )
    num_hidden_groups: int = _count(
        -1,
        "Groups of layers that share parameters, all of one size; -1 gives every layer "
        "its own. ALBERT has one group.",
        also=-1,
    )
    pad_token_id: int = _count(
        0, "Id of [PAD]; RoBERTa's positions start after it.", low=0
    )
    tie_word_embeddings: bool = field(
        True, "Whether the MLM head decodes with the token embeddings."
    )
    global_attn_every_n_layers: int = _of_modernbert(
        3,
        "the first of every N layers attends to the whole sequence, the others to "
        "nearby tokens.",
        low=1,
        high=_INT_MAX,
    )
    local_attention: int = _of_modernbert(
        128,
        "tokens that a local layer attends to, half of them on either side.",
        low=2,
        high=_INT_MAX,
    )
    global_rope_theta: float = _of_modernbert(
        160000.0, "base of rotary positions in global layers.", low=1.0, high=1e9
    )
    local_rope_theta: float = _of_modernbert(
        10000.0, "base of rotary positions in local layers.", low=1.0, high=1e9
    )
    norm_bias: bool = _of_modernbert(False, "whether norms have a bias.")
    attention_bias: bool = _of_modernbert(False, "whether attention has biases.")
    mlp_bias: bool = _of_modernbert(False, "whether feed-forward layers have biases.")
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
                f"model.directionality is {directionality!r}: BERT attends in both "
                "directions, so the only value is 'bidi'"
            )
        fields.check("model", self)
        self._check_fit()
        self._check_read()

    def _check_fit(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise errors.InputError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}"
            )
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
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name in idle and value != item.default:
                raise errors.InputError(
                    f"model.{item.name} is {value!r}, and {self.model_type} does not "
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
                f"{self.num_attention_heads} heads an odd width, which rotary "
                "positions cannot use: change model.num_attention_heads"
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
        """The index in the position table of the first token of a row."""
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


# Keys that only ModernBERT reads.
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


def from_json(values: Mapping[str, Any]) -> BertConfig:
    """Returns the architecture of a JSON object; raises InputError as `BertConfig`."""
    typed = {
        name: fields.typed(f"model.{name}", item.type, values[name])
        for name, (item, _) in fields.keys(BertConfig).items()
        if name in values
    }
    return BertConfig(**{**values, **typed})
