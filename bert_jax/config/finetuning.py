"""The configuration of a fine-tuning run, beside that of pretraining."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from bert_jax import errors, fields
from bert_jax.config import finetuning_checks, pretraining
from bert_jax.model import encoder, task_model
from bert_jax.training import optimizer

TASKS = (
    "classification",
    "regression",
    "tagging",
    "srl",
    "span",
    "multiple_choice",
    "matching",
)
HEADERS = ("auto", "true", "false")
TRUNCATIONS = ("longest_first", "only_first", "only_second", "head_tail", "refuse")
PREDICATES = ("marked", "joint")
MATCHING_OBJECTIVES = ("cosine", "in_batch", "simcse")
HEADS = ("fresh", "given")
BASELINES = ("tfidf", "fresh")


@dataclasses.dataclass(frozen=True)
class FinetuningInitConfig:
    """How the weights of `init_from` are fitted to the task.

    Attributes:
      head: `fresh` draws the head of the task; `given` takes that of the folder, whose
        classes must be those of the data.
      ignore: parts or tensors of the folder that are left behind, beside its heads of
        other tasks.
      positions: how a longer position table is made: `repeat`, `interpolate` or `same`.
    """

    head: str = "fresh"
    ignore: str = ""
    positions: str = "same"

    def __post_init__(self) -> None:
        fields.one_of("init.head", self.head, HEADS)
        fields.one_of("init.positions", self.positions, pretraining.POSITIONS)


@dataclasses.dataclass(frozen=True)
class FinetuningTextConfig:
    """The tokenizer of a run without given weights.

    Attributes:
      vocab: a vocabulary or the folder of a model that has one; `init_from` takes that
        of the weights.
      clean: what is removed or respelled before text becomes tokens, with commas:
        `html`, `urls`, `control` (characters), `width` (full-width forms), `simplified`
        (traditional Chinese, extra `opencc`); empty takes that of the vocabulary's
        folder, `none` nothing. It is kept with the model.
      stop_words: a file with one word a line; these are removed. BERT rarely gains.
    """

    vocab: str = pretraining.FROM_INIT
    clean: str = ""
    stop_words: str = ""

    def __post_init__(self) -> None:
        pretraining.cleaning_steps(self.clean)


@dataclasses.dataclass(frozen=True)
class ColumnsConfig:
    """Where in a file things stand: the name in its header, or a number from 1.

    Negative numbers count from the end. Empty ones are found by their usual names, as
    `sentence` or `label`, or are not there. `choices` names several, with commas.
    """

    id: str = ""
    text: str = ""
    text_pair: str = ""
    label: str = ""
    score: str = ""
    choices: str = ""
    token: str = ""
    tag: str = ""
    predicate: str = ""


@dataclasses.dataclass(frozen=True)
class FinetuningDataConfig:
    """The task, its files and how they become rows.

    Attributes:
      task: `classification`, `regression`, `tagging`, `srl`, `span` (answers in a
        context), `multiple_choice` or `matching`.
      train, dev, test: files, or `tfds:glue/sst2[validation]`. Without `dev`, a share
        of the training examples is held out.
      format: of the files: `tsv`, `csv`, `jsonl`, `space` (label, then the text),
        `conll`, `conllu`, `spans`, `squad`; `auto` looks at them.
      header: whether tables begin with the names of their columns: `true`, `false`, or
        `auto`: if two are usual names, one is in `columns`, or a single usual name is
        in a line of words above numbers. What was assumed is reported.
      columns: where in them things stand.
      labels: the classes, with commas, or a file with one a line; empty takes those of
        the training file, sorted. Where the data has numbers, they count the classes.
      multi_label: the separator of several labels of a text, as `|`; `true` where
        they are lists, or `columns.label` names one column a label, with commas (cells
        of 0 and 1); empty = one label.
      skip_labels: labels, with commas, whose examples are left out and counted, as `-`
        in natural language inference.
      repair: fix tags that break BIO and answers that are elsewhere, leave out records
        that are broken (no text, label or column that is needed, a label that is no
        class, bytes that are not UTF-8, NUL characters), and count them.
      strip_digit: take the digit away that follows each token (as in Weibo NER).
      dev_share: share of the training examples, by hash of content, that is held out
        where there is no `dev`.
      folds, fold: cut the training examples into parts and score on this one; 0 = no.
      max_seq_length: L, the most tokens in a row.
      truncation: what of a longer row goes: `longest_first`, `only_first`,
        `only_second`, `head_tail`, or `refuse`.
      doc_stride: tokens that windows over a long context advance (span).
      doc_overlap: tokens that two windows share, as `stride` of Hugging Face's
        tokenizers (span); 0 leaves it to `doc_stride`.
      max_answer_length: tokens of the longest answer (span).
      predicates: `marked` sees one predicate a row, `joint` all of a sentence (srl).
      num_lengths: row lengths that are compiled; 1 pads every row to the longest.
      pack: put the texts of a training batch into shared rows of one length, each with
        attention and positions of its own, so that hardly a token is padding.
      loader: `tfdata` (extra `data`) or `thread`; the batches are the same.
    """

    task: str = "classification"
    train: str = ""
    dev: str = ""
    test: str = ""
    format: str = "auto"
    header: str = "auto"
    columns: ColumnsConfig = ColumnsConfig()
    labels: str = ""
    multi_label: str = ""
    skip_labels: str = ""
    repair: bool = False
    strip_digit: bool = False
    dev_share: float = 0.1
    folds: int = 0
    fold: int = 0
    max_seq_length: int = 128
    truncation: str = "longest_first"
    doc_stride: int = 128
    doc_overlap: int = 0
    max_answer_length: int = 30
    predicates: str = "marked"
    num_lengths: int = 4
    pack: bool = False
    loader: str = "thread"

    def __post_init__(self) -> None:
        fields.one_of("data.task", self.task, TASKS)
        fields.one_of("data.header", self.header.lower(), HEADERS)
        if self.multi_label.lower() in ("false", "none", "1", "yes", "list", "lists"):
            raise errors.InputError(
                f"data.multi_label is {self.multi_label!r}: write true where labels "
                "are lists or columns, the separator of several labels, as in '|', or "
                "leave it empty for one label"
            )
        fields.one_of("data.truncation", self.truncation, TRUNCATIONS)
        fields.one_of("data.predicates", self.predicates, PREDICATES)
        fields.one_of("data.loader", self.loader, pretraining.LOADERS)
        fields.between("data.dev_share", self.dev_share, 0.01, 0.5)
        for name, low in _LEAST.items():
            fields.at_least(f"data.{name}", getattr(self, name), low)
        if self.folds == 1 or not 0 <= self.fold < max(self.folds, 1):
            raise errors.InputError(
                f"data.fold is {self.fold} and data.folds {self.folds}: folds are 2 or "
                "more, and are numbered from 0"
            )
        if self.doc_overlap and self.doc_stride != type(self).doc_stride:
            raise errors.InputError(
                f"data.doc_overlap is {self.doc_overlap} and data.doc_stride "
                f"{self.doc_stride}: both say where a window begins; set one of them"
            )
        if self.folds and self.dev:
            raise errors.InputError(
                "data.folds scores on a part of data.train: leave data.dev empty"
            )


_LEAST = {
    "max_seq_length": 8,
    "doc_stride": 1,
    "doc_overlap": 0,
    "max_answer_length": 1,
    "num_lengths": 1,
    "folds": 0,
}


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """What sits on the encoder.

    Attributes:
      pooling: how a text becomes a vector: `cls`, `mean`, `max` or `bilstm`.
      recurrent_size: width of each direction of a BiLSTM over the tokens; 0 = none.
      crf: score whole sequences of tags (tagging, srl).
      dropout: before the last linear map.
      transform: a dense layer, its activation and ModernBERT's norm before the dropout,
        over each token (tagging, srl, span) or over the mean (pooling `mean`), as
        ModernBERT's classes in transformers have it.
      objective: of matching: `cosine` (to a score), `in_batch` (the other pairs of the
        batch are wrong ones) or `simcse` (raw texts).
      temperature: that divides similarities in `in_batch` and `simcse`.
    """

    pooling: str = "cls"
    recurrent_size: int = 0
    crf: bool = False
    dropout: float = 0.1
    transform: bool = False
    objective: str = "cosine"
    temperature: float = 0.05

    def __post_init__(self) -> None:
        fields.one_of("head.pooling", self.pooling, task_model.POOLINGS)
        fields.one_of("head.objective", self.objective, MATCHING_OBJECTIVES)
        fields.at_least("head.recurrent_size", self.recurrent_size, 0)
        fields.between("head.dropout", self.dropout, 0.0, 0.9)
        fields.between("head.temperature", self.temperature, 0.001, 100.0)
        if self.pooling == "bilstm" and not self.recurrent_size:
            raise errors.InputError(
                "head.pooling is bilstm: set head.recurrent_size, as in 128"
            )


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """What changes the training; by default nothing does.

    Attributes:
      layer_decay: the rate of a layer is this times that of the layer above.
      frozen_layers: the embeddings and this many layers stay as they are; -1 = none.
      reinit_layers: top layers that are drawn anew.
      class_weights: `none`, `balanced` (rare ones count more), or numbers with commas.
      label_smoothing: share of a target that is spread over all classes.
      focal_gamma: exponent of the focal loss.
      r_drop: weight of the divergence between two passes.
      average_decay: of the moving average of the parameters that is scored and kept.
      adversarial_epsilon: length of the step in the embeddings against the model (FGM).
      lora_rank: rank of what is added to the attention kernels, which then stay as they
        are with all else but the head; 0 = train everything.
      lora_alpha: what is added counts `lora_alpha / lora_rank` times.
    """

    layer_decay: float = 1.0
    frozen_layers: int = -1
    reinit_layers: int = 0
    class_weights: str = "none"
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    r_drop: float = 0.0
    average_decay: float = 0.0
    adversarial_epsilon: float = 0.0
    lora_rank: int = 0
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        fields.between("recipe.layer_decay", self.layer_decay, 0.1, 1.0)
        fields.at_least("recipe.frozen_layers", self.frozen_layers, -1)
        fields.at_least("recipe.reinit_layers", self.reinit_layers, 0)
        fields.between("recipe.label_smoothing", self.label_smoothing, 0.0, 0.9)
        fields.between("recipe.focal_gamma", self.focal_gamma, 0.0, 10.0)
        fields.between("recipe.r_drop", self.r_drop, 0.0, 100.0)
        fields.between("recipe.average_decay", self.average_decay, 0.0, 0.99999)
        fields.between(
            "recipe.adversarial_epsilon", self.adversarial_epsilon, 0.0, 100.0
        )
        fields.at_least("recipe.lora_rank", self.lora_rank, 0)
        fields.between("recipe.lora_alpha", self.lora_alpha, 0.001, 1000.0)


@dataclasses.dataclass(frozen=True)
class FinetuningOptimizerConfig(optimizer.OptimizerConfig):
    """The optimizer, whose warm-up may be a share of the steps.

    Attributes:
      warmup_fraction: share of the steps; read where `warmup_steps` is 0.
    """

    warmup_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        fields.between("optimizer.warmup_fraction", self.warmup_fraction, 0, 1)
        parts = self.warmup_fraction + self.decay_fraction
        if self.schedule == "wsd" and not self.warmup_steps and parts > 1:
            raise errors.InputError(
                f"optimizer.warmup_fraction {self.warmup_fraction:g} and "
                f"optimizer.decay_fraction {self.decay_fraction:g} are more than the "
                "whole run: lower one of them"
            )

    def _check_end(self) -> None:
        """Leaves it to `FinetuningConfig`: a sweep has other rates than this one."""

    def resolved(
        self, num_train_steps: int, learning_rate: float | None = None
    ) -> optimizer.OptimizerConfig:
        """Returns the optimizer of a run of N steps, perhaps with another peak rate."""
        values = dataclasses.asdict(self)
        if learning_rate is not None:
            values["learning_rate"] = learning_rate
        share = round(values.pop("warmup_fraction") * num_train_steps)
        if self.schedule == "wsd":  # both shares may have been rounded up
            decay = optimizer.wsd_decay_steps(self, num_train_steps)
            share = min(share, num_train_steps - decay)
        values["warmup_steps"] = values["warmup_steps"] or share
        return optimizer.OptimizerConfig(**values)


@dataclasses.dataclass(frozen=True)
class FinetuningRunConfig(pretraining.RunConfig):
    """How long and how often; intervals of -1 are an epoch.

    Attributes:
      keep_best: the metric of `dev` by which the best model is kept; empty takes the
        usual one of the task.
      patience: evaluations without a better one after which the run stops; 0 = never.
      eval_batch_size: rows that are scored together.
      baselines: what the model is compared with at the end, with commas: `tfidf` (and a
        linear support vector machine) and `fresh` (the same network, not pretrained).
    """

    batch_size: int = 32
    num_train_steps: int = -1
    num_train_epochs: float = 3.0
    log_every_steps: int = 50
    eval_every_steps: int = -1
    save_every_steps: int = -1
    keep_checkpoints: int = 1
    keep_best: str = ""
    patience: int = 0
    eval_batch_size: int = 64
    baselines: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        fields.at_least("run.patience", self.patience, 0)
        fields.at_least("run.eval_batch_size", self.eval_batch_size, 1)
        for name in self.baseline_names:
            fields.one_of("run.baselines", name, BASELINES)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The names in `baselines`."""
        return tuple(x.strip() for x in self.baselines.split(",") if x.strip())

    def _check_intervals(self) -> None:
        fields.at_least("run.log_every_steps", self.log_every_steps, 1)
        fields.count_or_rest("run.eval_every_steps", self.eval_every_steps)
        fields.count_or_rest("run.save_every_steps", self.save_every_steps)


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Runs that are trained side by side: seeds x learning rates x folds.

    Attributes:
      seeds: how many, from `run.seed` on.
      learning_rates: with commas; empty takes that of the optimizer.
      folds: parts that the training examples are cut into; each is left out once.

    A member with more than `run.max_bad_steps` bad steps is out, and the others go on.
    """

    seeds: int = 1
    learning_rates: str = ""
    folds: int = 0

    def __post_init__(self) -> None:
        fields.at_least("sweep.seeds", self.seeds, 1)
        fields.at_least("sweep.folds", self.folds, 0)
        if self.folds == 1:
            raise errors.InputError("sweep.folds is 1: folds are 2 or more, or 0")
        for rate in self.rates:
            fields.between("sweep.learning_rates", rate, 1e-9, 1.0)

    @property
    def rates(self) -> tuple[float, ...]:
        """The numbers in `learning_rates`."""
        return numbers("sweep.learning_rates", self.learning_rates)

    @property
    def is_on(self) -> bool:
        """Whether there is more than one member."""
        return self.seeds > 1 or len(self.rates) > 1 or self.folds > 1


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Returns the numbers that a text lists with commas.

    Raises:
      InputError: one is no number.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise errors.InputError(
            f"{name} is {text!r}: give numbers with commas, as in 1,0.5"
        ) from None


@dataclasses.dataclass(frozen=True)
class FinetuningConfig:
    """All groups of a fine-tuning run, typed and checked.

    `size` is `init_from`, a published size, or a folder whose architecture is taken;
    `model` holds the keys of bert_config.json that are set by name.
    """

    init_from: str
    size: str
    model: dict[str, Any]
    init: FinetuningInitConfig
    text: FinetuningTextConfig
    data: FinetuningDataConfig
    head: HeadConfig
    recipe: RecipeConfig
    optimizer: FinetuningOptimizerConfig
    mesh: pretraining.MeshConfig
    run: FinetuningRunConfig
    sweep: SweepConfig

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The peaks of the rate: of each sweep member, or of the one run."""
        return self.sweep.rates or (self.optimizer.learning_rate,)

    def execution(self) -> encoder.Execution:
        """Returns how the model runs."""
        return self.run.execution(packed=self.data.pack)


GROUPS = {
    "init": FinetuningInitConfig,
    "text": FinetuningTextConfig,
    "data": FinetuningDataConfig,
    "head": HeadConfig,
    "recipe": RecipeConfig,
    "optimizer": FinetuningOptimizerConfig,
    "mesh": pretraining.MeshConfig,
    "run": FinetuningRunConfig,
    "sweep": SweepConfig,
}


SPLITS = ("train", "dev", "test")
FROM_PYTHON = "python:"  # what stands for the file of examples that Python hands over

# Keys that the records of earlier runs lack, by group, with what those runs did.
ADDED_KEYS: dict[str, dict[str, Any]] = {
    "text": {"clean": "", "stop_words": ""},
    "data": {"pack": False, "doc_overlap": 0},
    "head": {"transform": False},
    "run": {
        "attention": "xla",
        "log_examples": False,
        "max_bad_steps": 0,
        "watchdog_seconds": 600,
    },
}


def default() -> ml_collections.ConfigDict:
    """Returns the usual recipe of BERT as a locked ConfigDict.

    `init_from` and `data.train` are empty and must be set.
    """
    rate = FinetuningOptimizerConfig(learning_rate=3e-5)
    groups = {name: group() for name, group in GROUPS.items() if name != "optimizer"}
    tree = {"init_from": "", "model": pretraining.model_group(pretraining.FROM_INIT)}
    tree |= {
        name: dataclasses.asdict(group)
        for name, group in (groups | {"optimizer": rate}).items()
    }
    return ml_collections.ConfigDict(tree).lock()


def parse(
    config: ml_collections.ConfigDict | Mapping[str, Any],
    given: Sequence[str] = (),
) -> FinetuningConfig:
    """Turns a configuration into typed groups.

    Args:
      given: the splits whose examples come from Python and not from files.

    Raises:
      InputError: a key is unknown or missing, a value has a wrong type or range, or
        does nothing.
    """
    tree = pretraining.plain(config, GROUPS)
    tree["data"] = _with_splits(tree["data"], given)
    size, keys = pretraining.model_keys(tree["model"])
    groups = {
        name: fields.typed(name, kind, tree[name]) for name, kind in GROUPS.items()
    }
    settings = FinetuningConfig(tree["init_from"], size, keys, **groups)
    _check_init(settings)
    if not settings.data.train:
        raise errors.InputError(
            "data.train is empty: name a file of labelled examples, as in "
            "--config.data.train=train.tsv"
        )
    finetuning_checks.check(settings)
    return settings


def _with_splits(data: Any, given: Sequence[str]) -> Any:
    """Returns the group `data`, with a name for each split that is not a file."""
    for name in given:
        if name not in SPLITS:
            raise errors.InputError(
                f"data has {name!r}: give examples of {', '.join(SPLITS)}"
            )
        if isinstance(data, Mapping) and data.get(name):
            raise errors.InputError(
                f"data.{name} is {data[name]!r}, and its examples are given from "
                "Python too: leave one of them out"
            )
    return {**data, **{name: FROM_PYTHON for name in given}} if given else data


def parse_record(tree: Mapping[str, Any]) -> FinetuningConfig:
    """Turns what a run has recorded into typed groups, as `parse` does.

    Keys that are newer than the record have the values of `ADDED_KEYS`.
    """
    return parse(fields.with_added(tree, ADDED_KEYS))


def _check_init(settings: FinetuningConfig) -> None:
    """Raises InputError unless it is clear where the weights come from."""
    if not settings.init_from:
        raise errors.InputError(
            "init_from is empty: name the folder of a model that was pretrained, as in "
            "--config.init_from=runs/demo, or --config.init_from=none for fresh weights"
        )
    given = pretraining.FROM_INIT
    if settings.init_from == "none":
        if given in (settings.size, settings.text.vocab):
            raise errors.InputError(
                "init_from is none: say which architecture and vocabulary, as in "
                "--config.model.size=tiny --config.text.vocab=vocab.txt; both may also "
                "be the folder of a model"
            )
    elif settings.text.vocab != given or settings.size != given:
        raise errors.InputError(
            f"init_from is {settings.init_from}: its architecture and vocabulary come "
            "with it, so leave model.size and text.vocab at init_from"
        )


def to_dict(config: FinetuningConfig) -> dict[str, Any]:
    """Returns the groups as a plain tree that `parse` reads back."""
    model = {"size": config.size, **config.model}
    tree: dict[str, Any] = {"init_from": config.init_from, "model": model}
    return tree | {name: dataclasses.asdict(getattr(config, name)) for name in GROUPS}
