"""The public configuration: one frozen dataclass a group, every value checked.

A ConfigDict stops here: `parse` turns it into typed objects, `default` makes one from
them. `model.*` are the keys of bert_config.json, or None where `model.size` decides.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from bert_jax import errors, fields, home_folder
from bert_jax.model import config as model_config
from bert_jax.model import encoder
from bert_jax.training import loop, optimizer


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices share the batch, the parameters and the matrices (-1 = rest)."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How long and how often.

    Attributes:
      seed: of weights, order, pairs, masks and dropout.
      batch_size: rows a step, over all devices.
      accumulation_steps: parts that a batch is computed in.
      num_train_steps: steps of the run; -1 takes `num_train_epochs`.
      num_train_epochs: passes over the instances; read if `num_train_steps` is -1.
      log_every_steps, eval_every_steps, save_every_steps: intervals.
      keep_checkpoints: newest checkpoints that stay.
      dtype: of activations and products, `float32` or `bfloat16`.
      unroll: layers a loop step; -1 unrolls all (fast to run, slow to compile).
      remat: what the backward pass recomputes: `none`, `dots` or `full`.
      attention: the kernel: `xla`, `cudnn` (NVIDIA GPUs), `splash` (TPUs), or `auto`
        for the fastest that can; the log says which, and why.
      log_examples: write which rows each step saw into `examples-PROCESS.jsonl`.
      max_bad_steps: steps of the run whose loss or gradients are not finite that are
        left out, of a sweep in each member; one more ends it.
      watchdog_seconds: a step that takes longer is reported, with what every thread
        does; 0 = never.
    """

    seed: int = 0
    batch_size: int = 256
    accumulation_steps: int = 1
    num_train_steps: int = 1000000
    num_train_epochs: float = -1.0
    log_every_steps: int = 100
    eval_every_steps: int = 10000
    save_every_steps: int = 10000
    keep_checkpoints: int = 3
    dtype: str = "float32"
    unroll: int = 1
    remat: str = "none"
    attention: str = "auto"
    log_examples: bool = False
    max_bad_steps: int = 0
    watchdog_seconds: int = 600

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation_steps", "keep_checkpoints"):
            fields.at_least(f"run.{name}", getattr(self, name), 1)
        for name in ("max_bad_steps", "watchdog_seconds"):
            fields.at_least(f"run.{name}", getattr(self, name), 0)
        self._check_intervals()
        fields.between("run.seed", self.seed, 0, 2**31 - 1)
        fields.count_or_rest("run.num_train_steps", self.num_train_steps)
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
        self.execution()

    def _check_intervals(self) -> None:
        for name in ("log_every_steps", "eval_every_steps", "save_every_steps"):
            fields.at_least(f"run.{name}", getattr(self, name), 1)

    def limits(self, num_train_steps: int, save_every_steps: int = 0) -> loop.Limits:
        """Returns what the loop is told; 0 saves as often as is set."""
        return loop.Limits(
            num_train_steps=num_train_steps,
            log_every_steps=self.log_every_steps,
            save_every_steps=save_every_steps or self.save_every_steps,
            max_bad_steps=self.max_bad_steps,
            watchdog_seconds=self.watchdog_seconds,
        )

    def execution(self, *, packed: bool = True) -> encoder.Execution:
        """Returns how the model runs; `packed` as in `encoder.Execution`."""
        return encoder.Execution(
            self.dtype, self.unroll, self.remat, self.attention, packed
        )


TOKENIZERS = ("wordpiece", "sentencepiece-unigram", "sentencepiece-bpe")
SEGMENTERS = ("none", "jieba", "corpus")
FALLBACKS = ("none", "jieba")
OBJECTIVES = ("nsp", "sop", "full_sentences")
LOADERS = ("tfdata", "thread")
POSITIONS = ("same", "repeat", "interpolate")
# As in `text.cleaning.STEPS`, which this group does not import.
CLEANING = ("html", "urls", "control", "width", "simplified")
NEW_TOKENS = ("none", "mean_of_pieces")
FROM_INIT = (
    "init_from"  # of model.size and text.vocab: what the folder of init_from has
)
MODEL_KEYS = tuple(field.name for field in dataclasses.fields(model_config.BertConfig))


def cleaning_steps(clean: str) -> tuple[str, ...]:
    """Returns the steps in `text.clean`; raises InputError for an unknown one."""
    given = tuple(name.strip() for name in clean.split(",") if name.strip())
    if given == ("none",):
        return ()
    for name in given:
        fields.one_of("text.clean", name, CLEANING)
    return given


@dataclasses.dataclass(frozen=True)
class PretrainingTextConfig:
    """How characters become ids.

    Attributes:
      tokenizer: `wordpiece`, `sentencepiece-unigram` or `sentencepiece-bpe`.
      vocab: a vocab.txt, a SentencePiece model or a folder with either; `learn` learns
        one from the corpus, `init_from` takes that of the folder of `init_from`.
      vocab_size: pieces to learn; a given vocabulary has its own size.
      lowercase: whether to lowercase and strip accents (the "uncased" models).
      segmenter: where words begin in Chinese: `jieba`, `corpus` (words that come with
        the corpus) or `none` (every character is a word).
      segmenter_fallback: `jieba` or `none`, for documents whose corpus has no words.
      clean: what is removed or respelled before text becomes tokens, with commas:
        `html`, `urls`, `control` (characters), `width` (full-width forms), `simplified`
        (traditional Chinese, extra `opencc`); empty takes that of the vocabulary's
        folder, `none` nothing. It is kept with the model.
      stop_words: a file with one word a line; these are removed. BERT rarely gains.
    """

    tokenizer: str = "wordpiece"
    vocab: str = "learn"
    vocab_size: int = 30522
    lowercase: bool = True
    segmenter: str = "none"
    segmenter_fallback: str = "none"
    clean: str = ""
    stop_words: str = ""

    def __post_init__(self) -> None:
        fields.one_of("text.tokenizer", self.tokenizer, TOKENIZERS)
        fields.one_of("text.segmenter", self.segmenter, SEGMENTERS)
        fields.one_of("text.segmenter_fallback", self.segmenter_fallback, FALLBACKS)
        fields.at_least("text.vocab_size", self.vocab_size, 6)
        cleaning_steps(self.clean)


@dataclasses.dataclass(frozen=True)
class PretrainingInitConfig:
    """How the weights of `init_from` are fitted to the run; by default not at all.

    Attributes:
      fresh: parts of the run, separated by commas, that are drawn fresh although
        weights are given, as `mlm_head,nsp_head`.
      ignore: parts or tensors of the folder that are left behind.
      positions: how a longer position table is made: `repeat`, `interpolate`, or `same`
        for not at all.
      new_tokens: how pieces begin that only the new vocabulary has: `mean_of_pieces`
        of the old ones, or `none` for not at all.
    """

    fresh: str = ""
    ignore: str = ""
    positions: str = "same"
    new_tokens: str = "none"

    def __post_init__(self) -> None:
        fields.one_of("init.positions", self.positions, POSITIONS)
        fields.one_of("init.new_tokens", self.new_tokens, NEW_TOKENS)
        for part in self.drawn:
            fields.one_of("init.fresh", part, ("pooler", "mlm_head", "nsp_head"))

    @property
    def drawn(self) -> frozenset[str]:
        """The parts in `fresh`."""
        return frozenset(part.strip() for part in self.fresh.split(",") if part.strip())

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names in `ignore`."""
        return tuple(name.strip() for name in self.ignore.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class PretrainingDataConfig:
    """Which corpus, and how it becomes rows.

    Attributes:
      corpus: sources separated by commas, each `[kind:]where[@weight]` (see
        `data/corpus/readers.py`).
      store: folder of the tokenised corpus; empty puts it into the workdir.
      held_out_fraction: share of the documents, by hash of content, kept for
        evaluation.
      drop_duplicates: drop documents that are exactly equal to an earlier one.
      workers: processes that tokenise; -1 = one a core.
      max_seq_length: L, tokens in a row.
      first_seq_length: tokens in the rows of the first steps, as 128 before 512
        (arXiv:1810.04805, appendix A.2); 0 = all rows have L.
      first_steps_share: how many of the steps these are.
      objective: `nsp` (BERT), `sop` (ALBERT) or `full_sentences` (RoBERTa: neither).
      short_seq_prob: share of the documents that aim at a random shorter length.
      pack: put several instances into a row, each with attention, positions and a
        label of its own, so that hardly a place is padding. Random next sentences are
        as long then as the true ones; full sentences stay within their document.
      masked_lm_prob: share of the tokens to predict.
      max_predictions_per_seq: P, the most predictions in a row; -1 = the share of L.
      whole_word: mask all pieces of a word together.
      max_ngram: mask runs of 1 to this many words.
      loader: `tfdata` (extra `data`) or `thread`; the batches are the same.
    """

    corpus: str = ""
    store: str = ""
    held_out_fraction: float = 0.01
    drop_duplicates: bool = True
    workers: int = -1
    max_seq_length: int = 128
    first_seq_length: int = 0
    first_steps_share: float = 0.9
    objective: str = "nsp"
    short_seq_prob: float = 0.1
    pack: bool = False
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = -1
    whole_word: bool = False
    max_ngram: int = 1
    loader: str = "tfdata"

    def __post_init__(self) -> None:
        fields.one_of("data.objective", self.objective, OBJECTIVES)
        fields.one_of("data.loader", self.loader, LOADERS)
        fields.between("data.held_out_fraction", self.held_out_fraction, 0.0, 0.5)
        fields.between("data.short_seq_prob", self.short_seq_prob, 0.0, 1.0)
        fields.between("data.masked_lm_prob", self.masked_lm_prob, 0.001, 0.9)
        fields.at_least("data.max_seq_length", self.max_seq_length, 8)
        if self.first_seq_length:
            fields.between(
                "data.first_seq_length", self.first_seq_length, 8, self.max_seq_length
            )
        fields.between("data.first_steps_share", self.first_steps_share, 0.0, 1.0)
        fields.at_least("data.max_ngram", self.max_ngram, 1)
        fields.count_or_rest("data.workers", self.workers)
        fields.count_or_rest(
            "data.max_predictions_per_seq", self.max_predictions_per_seq
        )

    @property
    def num_predictions(self) -> int:
        """P, the most predictions in a row."""
        if self.max_predictions_per_seq != -1:
            return self.max_predictions_per_seq
        return math.ceil(self.max_seq_length * self.masked_lm_prob)


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """All groups of a pretraining run, typed and checked.

    `model` holds the keys of bert_config.json that are set by name (`size` aside).
    """

    init_from: str
    size: str
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
                "data.first_seq_length is for a share of steps: set run.num_train_steps"
            )

    @property
    def first_steps(self) -> int:
        """The steps whose rows have `data.first_seq_length` tokens; 0 = none."""
        if not self.data.first_seq_length:
            return 0
        return round(self.run.num_train_steps * self.data.first_steps_share)

    def bert(self, vocab_size: int) -> model_config.BertConfig:
        """Returns the architecture for a vocabulary of this size.

        Raises:
          InputError: `model.vocab_size` is set and differs, or rows are too long.
        """
        given = dict(self.model)
        wanted = given.pop("vocab_size", vocab_size)
        if wanted != vocab_size:
            raise errors.InputError(
                f"model.vocab_size is {wanted}, but the vocabulary has {vocab_size} "
                "pieces: leave model.vocab_size unset, or give the vocabulary that "
                "belongs to the model (text.vocab)"
            )
        size = {}
        if self.size != FROM_INIT:
            size = dataclasses.asdict(model_config.published(self.size))
        bert = model_config.BertConfig(**{**size, **given, "vocab_size": vocab_size})
        if self.data.max_seq_length > bert.max_length:
            raise errors.InputError(
                f"data.max_seq_length {self.data.max_seq_length} exceeds the "
                f"{bert.max_length} positions of the model: raise "
                f"model.max_position_embeddings {bert.max_position_embeddings}"
            )
        if bert.type_vocab_size == 1 and self.data.objective != "full_sentences":
            raise errors.InputError(
                f"model.type_vocab_size is 1, and the rows of data.objective "
                f"{self.data.objective} have two token types: set it to 2, or "
                "data.objective to full_sentences"
            )
        return bert


GROUPS = {
    "init": PretrainingInitConfig,
    "text": PretrainingTextConfig,
    "data": PretrainingDataConfig,
    "optimizer": optimizer.OptimizerConfig,
    "mesh": MeshConfig,
    "run": RunConfig,
}


def default() -> ml_collections.ConfigDict:
    """Returns the published recipe of BERT-base, phase one, as a locked ConfigDict.

    `data.corpus` is empty and must be set.
    """
    rate = optimizer.OptimizerConfig(learning_rate=1e-4, warmup_steps=10000)
    groups = {name: group() for name, group in GROUPS.items() if name != "optimizer"}
    tree = {"init_from": "none", "model": model_group("base")} | {
        name: dataclasses.asdict(group)
        for name, group in (groups | {"optimizer": rate}).items()
    }
    return ml_collections.ConfigDict(tree).lock()


def parse(config: ml_collections.ConfigDict | Mapping[str, Any]) -> PretrainingConfig:
    """Turns a configuration into typed groups.

    Raises:
      InputError: a key is unknown or missing, or a value has a wrong type or range.
    """
    tree = plain(config, GROUPS)
    size, given = model_keys(tree["model"])
    if size != FROM_INIT:
        model_config.published(size)
    groups = {
        name: fields.typed(name, kind, tree[name]) for name, kind in GROUPS.items()
    }
    if tree["init_from"] == "none":
        _check_no_folder(size, groups)
    return PretrainingConfig(tree["init_from"], size, given, **groups)


def plain(
    config: ml_collections.ConfigDict | Mapping[str, Any], groups: Mapping[str, type]
) -> dict[str, Any]:
    """Returns a configuration as a plain tree with `init_from`, `model` and groups.

    Raises:
      InputError: a group is unknown or missing, or `init_from` is no text.
    """
    is_config_dict = isinstance(config, ml_collections.ConfigDict)
    tree = config.to_dict() if is_config_dict else dict(config)
    fields.same_keys("", tree, ("init_from", "model", *groups))
    if not isinstance(tree["init_from"], str):
        raise errors.InputError(f"init_from is {tree['init_from']!r}: give a folder")
    return home_folder.in_config(tree)


def model_keys(model: Any) -> tuple[str, dict[str, Any]]:
    """Returns `model.size`, and the keys of BertConfig that are set.

    Raises:
      InputError: a key is unknown, or a value cannot be.
    """
    if not isinstance(model, Mapping):
        raise errors.InputError(f"model is {model!r}: expected a group")
    fields.same_keys("model.", model, ("size", *MODEL_KEYS), optional=MODEL_KEYS)
    given = {name: value for name, value in model.items() if value is not None}
    size = given.pop("size")
    if not isinstance(size, str):
        raise errors.InputError(f"model.size is {size!r}: give a name, as in base")
    model_config.from_json(given)
    return size, given


def model_group(size: str) -> dict[str, Any]:
    """Returns the group `model` of a default, with all keys of BertConfig unset."""
    made: dict[str, Any] = {"size": size}
    for field in dataclasses.fields(model_config.BertConfig):
        made[field.name] = config_dict.placeholder(field.type)
    return made


def _check_no_folder(size: str, groups: dict[str, Any]) -> None:
    """Raises InputError if something should come from `init_from`, which is none."""
    asking = {
        "model.size": size == FROM_INIT,
        "text.vocab": groups["text"].vocab == FROM_INIT,
        "init": groups["init"] != PretrainingInitConfig(),
    }
    names = [name for name, asks in asking.items() if asks]
    if names:
        raise errors.InputError(
            f"{names[0]} asks for weights to start from, and init_from is none: set "
            "--config.init_from=FOLDER"
        )


def to_dict(config: PretrainingConfig) -> dict[str, Any]:
    """Returns the groups as a plain tree that `parse` reads back."""
    model = {"size": config.size, **config.model}
    tree: dict[str, Any] = {"init_from": config.init_from, "model": model}
    return tree | {name: dataclasses.asdict(getattr(config, name)) for name in GROUPS}
