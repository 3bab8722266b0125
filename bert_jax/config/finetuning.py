"""The configuration of a fine-tuning run: a frozen dataclass a group, a line a key.

The task and its files are in `data`, what is on top of the encoder in `head`, what
changes training in `recipe`, and how many members are trained together in `sweep`.
What pretraining has too is in `config/pretraining.py`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from bert_jax import errors
from bert_jax.config import pretraining
from bert_jax.foundation import fields
from bert_jax.foundation.fields import field
from bert_jax.model import encoder, heads
from bert_jax.model.heads import HeadSpec
from bert_jax.training import optimizer

HEADERS = ("auto", "true", "false")
MATCHING_OBJECTIVES = ("cosine", "in_batch", "simcse")
BASELINES = ("tfidf", "fresh")


@dataclasses.dataclass(frozen=True)
class FinetuningInitConfig:
    """How the weights of `init_from` are fitted to the task."""

    head: str = field(
        "fresh",
        "The head of the task: randomly initialized (`fresh`), or that of the folder "
        "(`given`), whose classes must be those of the data.",
        choices=("fresh", "given"),
    )
    ignore: str = field(
        "",
        "Parts or tensors of the folder that are not loaded, separated by commas; its "
        "heads of other tasks never are.",
    )
    positions: str = fields.same(
        pretraining.PretrainingInitConfig, "positions", added=None
    )

    def __post_init__(self) -> None:
        fields.check("init", self)


@dataclasses.dataclass(frozen=True)
class FinetuningTextConfig:
    """The tokenizer."""

    vocab: str = field(
        pretraining.FROM_INIT,
        "A vocabulary, or the folder of a model that has one, for a run that starts "
        "from random weights; `init_from` takes that of the folder of `init_from`.",
        convert=os.path.expanduser,
    )
    clean: str = fields.same(pretraining.PretrainingTextConfig, "clean")
    stop_words: str = fields.same(pretraining.PretrainingTextConfig, "stop_words")

    def __post_init__(self) -> None:
        fields.check("text", self)


def _column(what: str) -> Any:
    return field("", f"Column of {what}.")


@dataclasses.dataclass(frozen=True)
class ColumnsConfig:
    """Columns of a file: a name in its header, or a number from 1 (-1 is the last).

    Columns that are not set are found by their usual names, as `sentence` or `label`.
    """

    id: str = _column("ids")
    text: str = _column("texts")
    text_pair: str = _column("second texts")
    label: str = _column("labels; several, with commas, if each is one label")
    score: str = _column("scores")
    choices: str = field("", "Columns of the choices, separated by commas.")
    token: str = _column("tokens")
    tag: str = _column("tags")
    predicate: str = _column("predicates")

    def __post_init__(self) -> None:
        fields.check("data.columns", self)


def _examples(what: str) -> Any:
    return field(
        "",
        f"{what}: a file, `hf:owner/name[split]` or `tfds:name[split]`.",
        convert=os.path.expanduser,
    )


@dataclasses.dataclass(frozen=True)
class FinetuningDataConfig:
    """The task, its files, and how they become sequences."""

    task: str = field("classification", "The task.")
    train: str = _examples("Training examples")
    dev: str = _examples(
        "Examples to evaluate and select the model on (empty holds out some of "
        "`data.train`)"
    )
    test: str = _examples("Examples to evaluate the selected model on")
    format: str = field(
        "auto",
        "Format of the files, as tsv, csv, jsonl, conll or squad; `auto` detects it.",
    )
    header: str = field(
        "auto",
        "Whether the first line of a table has the names of its columns; `auto` looks "
        "for usual names, and reports what it assumed.",
        choices=HEADERS,
        any_case=True,
    )
    columns: ColumnsConfig = ColumnsConfig()
    labels: str = field(
        "",
        "The classes, separated by commas, or a file with one a line; empty takes "
        "those of the training file, sorted.",
        convert=os.path.expanduser,
    )
    multi_label: str = field(
        "",
        "Separator of several labels of a text, as `|`; `true` where labels are lists, "
        "or `data.columns.label` names a column per label; empty = one label per text.",
    )
    skip_labels: str = field(
        "",
        "Labels, separated by commas, whose examples are skipped and counted, as `-` "
        "in natural language inference.",
    )
    repair: bool = field(
        False,
        "Fix tags that violate BIO and answers at a wrong offset, skip broken records, "
        "and count both; otherwise they are errors.",
    )
    strip_digit: bool = field(
        False, "Remove the digit at the end of each token (Weibo NER)."
    )
    dev_share: float = field(
        0.1,
        "Fraction of the training examples that is held out if `data.dev` is empty, by "
        "hash of their content.",
        low=0.01,
        high=0.5,
    )
    folds: int = field(
        0,
        "Split the training examples into this many folds and evaluate on one; 0 = no.",
        low=2,
        also=0,
    )
    fold: int = field(0, "The fold to evaluate on, counted from 0.", low=0)
    max_seq_length: int = field(128, "The most tokens in a sequence (L).", low=8)
    truncation: str = field(
        "longest_first",
        "What is cut from a longer sequence: the end of the longer text, of the first "
        "or of the second; the middle of a text, so that a quarter is from its head "
        "(`head_tail`, arXiv:1905.05583, section 5.3.1); `refuse` makes it an error.",
        choices=("longest_first", "only_first", "only_second", "head_tail", "refuse"),
    )
    doc_stride: int = field(
        128, "Tokens from the start of a window over a long context to the next.", low=1
    )
    doc_overlap: int = field(
        0,
        "Tokens that two windows share, as `stride` in Hugging Face; 0 uses "
        "`data.doc_stride`.",
        low=0,
        added=0,
    )
    max_answer_length: int = field(30, "Tokens of the longest answer.", low=1)
    predicates: str = field(
        "marked",
        "Predicates of a sentence: one per sequence, marked by token type 1, or all in "
        "one sequence.",
        choices=("marked", "joint"),
    )
    num_lengths: int = field(
        4, "Sequence lengths that are compiled; 1 pads all to the longest.", low=1
    )
    pack: bool = field(
        False,
        "Pack the texts of a training batch into shared sequences, each with its own "
        "attention and positions, so that hardly any token is padding.",
        added=False,
    )
    loader: str = fields.same(
        pretraining.PretrainingDataConfig, "loader", default="thread"
    )

    def __post_init__(self) -> None:
        fields.check("data", self)
        if self.multi_label.lower() in ("false", "none", "1", "yes", "list", "lists"):
            raise errors.InputError(
                f"data.multi_label is {self.multi_label!r}: write true where labels "
                "are lists or columns, the separator of several labels, as in '|', or "
                "leave it empty for one label"
            )
        if self.fold >= max(self.folds, 1):
            raise errors.InputError(
                f"data.fold is {self.fold} and data.folds {self.folds}: folds are "
                "numbered from 0"
            )
        if self.doc_overlap and self.doc_stride != type(self).doc_stride:
            raise errors.InputError(
                f"data.doc_overlap is {self.doc_overlap} and data.doc_stride "
                f"{self.doc_stride}: both set where windows begin; set one of them"
            )
        if self.folds and self.dev:
            raise errors.InputError(
                "data.folds evaluates on a fold of data.train: leave data.dev empty"
            )


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The head on top of the encoder."""

    pooling: str = fields.same(HeadSpec, "pooling")
    recurrent_size: int = fields.same(HeadSpec, "recurrent_size")
    crf: bool = fields.same(HeadSpec, "crf")
    dropout: float = fields.same(HeadSpec, "dropout", below=None, high=0.9)
    transform: bool = fields.same(HeadSpec, "transform", added=False)
    objective: str = field(
        "cosine",
        "What matching learns: the score of a pair (`cosine`), to tell its second text "
        "from those of the other pairs in the batch (`in_batch`), or that of two "
        "passes with different dropout over raw texts (`simcse`).",
        choices=MATCHING_OBJECTIVES,
    )
    temperature: float = field(
        0.05,
        "Divides similarities in `in_batch` and `simcse`.",
        low=0.001,
        high=100.0,
    )

    def __post_init__(self) -> None:
        fields.check("head", self)
        heads.check_bilstm(self.pooling, self.recurrent_size)


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """What changes training; by default nothing."""

    layer_decay: float = field(
        1.0,
        "The rate of each layer is that of the layer above times this "
        "(arXiv:1801.06146, section 3.2).",
        low=0.1,
        high=1.0,
    )
    frozen_layers: int = field(
        -1,
        "Lowest layers that are not trained, with the embeddings; 0 freezes the "
        "embeddings only, -1 nothing.",
        low=-1,
    )
    reinit_layers: int = field(
        0,
        "Top layers that are randomly reinitialized (arXiv:2006.05987, section 5).",
        low=0,
    )
    class_weights: str = field(
        "none",
        "Weights of the classes in the loss: `none`, `balanced` (by inverse "
        "frequency), or numbers separated by commas.",
    )
    label_smoothing: float = field(
        0.0,
        "Fraction of the target that is spread over all classes.",
        low=0.0,
        high=0.9,
    )
    focal_gamma: float = field(
        0.0,
        "Exponent of the focal loss (arXiv:1708.02002); 0 = cross-entropy.",
        low=0.0,
        high=10.0,
    )
    r_drop: float = field(
        0.0,
        "Weight of the divergence between two passes with different dropout "
        "(arXiv:2106.14448).",
        low=0.0,
        high=100.0,
    )
    average_decay: float = field(
        0.0,
        "Decay of the moving average of the parameters that is evaluated and kept; 0 = "
        "no average.",
        low=0.0,
        high=0.99999,
    )
    adversarial_epsilon: float = field(
        0.0,
        "Norm of the adversarial perturbation of the embeddings (FGM, "
        "arXiv:1605.07725); 0 = none.",
        low=0.0,
        high=100.0,
    )
    lora_rank: int = field(
        0,
        "Rank of the LoRA updates of the attention kernels, which are then trained "
        "with the head only (arXiv:2106.09685); 0 trains everything.",
        low=0,
    )
    lora_alpha: float = field(
        16.0,
        "LoRA updates are scaled by `lora_alpha / lora_rank`.",
        low=0.001,
        high=1000.0,
    )

    def __post_init__(self) -> None:
        fields.check("recipe", self)


@dataclasses.dataclass(frozen=True)
class FinetuningOptimizerConfig(optimizer.OptimizerConfig):
    """The optimizer, whose warm-up may be a fraction of the steps."""

    warmup_fraction: float = field(
        0.1,
        "Warm-up as a fraction of the steps; read if `optimizer.warmup_steps` is 0.",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self.warmup_fraction + self.decay_fraction
        if self.schedule == "wsd" and not self.warmup_steps and parts > 1:
            raise errors.InputError(
                f"optimizer.warmup_fraction {self.warmup_fraction:g} and "
                f"optimizer.decay_fraction {self.decay_fraction:g} are more than the "
                "whole run: lower one of them"
            )

    def _check_end(self) -> None:
        """Left to `FinetuningConfig`: a sweep has other rates than this one."""

    def resolved(
        self, num_train_steps: int, learning_rate: float | None = None
    ) -> optimizer.OptimizerConfig:
        """Returns the optimizer of a run of N steps, perhaps with another peak rate."""
        values = dataclasses.asdict(self)
        if learning_rate is not None:
            values["learning_rate"] = learning_rate
        warmup = round(values.pop("warmup_fraction") * num_train_steps)
        if self.schedule == "wsd":  # both fractions may have been rounded up
            decay = optimizer.wsd_decay_steps(self, num_train_steps)
            warmup = min(warmup, num_train_steps - decay)
        values["warmup_steps"] = values["warmup_steps"] or warmup
        return optimizer.OptimizerConfig(**values)


def _of_run(name: str, default: Any, **changes: Any) -> Any:
    return fields.same(pretraining.RunConfig, name, default, **changes)


@dataclasses.dataclass(frozen=True)
class FinetuningRunConfig(pretraining.RunConfig):
    """Length of the run, intervals, and how it is executed."""

    batch_size: int = _of_run("batch_size", 32)
    num_train_steps: int = _of_run("num_train_steps", -1)
    num_train_epochs: float = _of_run("num_train_epochs", 3.0)
    log_every_steps: int = _of_run("log_every_steps", 50)
    eval_every_steps: int = _of_run(
        "eval_every_steps",
        -1,
        help="Steps between evaluations; -1 is an epoch.",
        also=-1,
        free=False,
    )
    save_every_steps: int = _of_run(
        "save_every_steps",
        -1,
        help="Steps between checkpoints; -1 is an epoch.",
        also=-1,
    )
    keep_checkpoints: int = _of_run("keep_checkpoints", 1)
    keep_best: str = field(
        "",
        "The metric of the dev set that selects the model to keep, as f1; empty uses "
        "the default metric of the task.",
    )
    patience: int = field(
        0,
        "Stop after this many evaluations without a better model; 0 = never.",
        low=0,
    )
    eval_batch_size: int = field(
        64, "Sequences per step of an evaluation.", low=1, free=True
    )
    baselines: str = field(
        "",
        "Baselines to compare with at the end, separated by commas: TF-IDF with a "
        "linear support vector machine (`tfidf`), the same network without "
        "pretraining (`fresh`).",
        choices=BASELINES,
        many=True,
    )

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The names in `baselines`."""
        return fields.names(self.baselines)


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Runs that are trained together on the devices: seeds x learning rates x folds.

    A member with more than `run.max_bad_steps` bad steps is dropped; the others go on.
    """

    seeds: int = field(1, "Number of seeds, from `run.seed` on.", low=1)
    learning_rates: str = field(
        "",
        "Learning rates, separated by commas; empty uses `optimizer.learning_rate`.",
    )
    folds: int = field(
        0,
        "Cross-validation: folds of the training examples, each of which is held out "
        "once; 0 = none.",
        low=2,
        also=0,
    )

    def __post_init__(self) -> None:
        fields.check("sweep", self)
        for rate in self.rates:
            if not 1e-9 <= rate <= 1.0:
                raise errors.InputError(
                    f"sweep.learning_rates is {self.learning_rates!r}: rates must be "
                    "from 1e-09 to 1.0"
                )

    @property
    def rates(self) -> tuple[float, ...]:
        """The numbers in `learning_rates`."""
        return fields.numbers("sweep.learning_rates", self.learning_rates)

    @property
    def is_on(self) -> bool:
        """Whether there is more than one member."""
        return self.seeds > 1 or len(self.rates) > 1 or self.folds > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """All groups of a fine-tuning run, typed and checked.

    `size` is `init_from`, a published size, or a folder whose architecture is taken;
    `model` holds the keys of bert_config.json that are set by name.
    """

    init_from: str = fields.same(
        pretraining.PretrainingConfig,
        "init_from",
        default="",
        help="Folder of a pretrained model, or `hf:owner/name`; `none` starts from "
        "random weights.",
    )
    size: str = fields.same(
        pretraining.PretrainingConfig,
        "size",
        default=pretraining.FROM_INIT,
        help="Architecture of a run that starts from random weights: a size, as tiny "
        "or base-chinese, or the folder of a model; `init_from` takes that of the "
        "folder of `init_from`.",
    )
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

    def __post_init__(self) -> None:
        """Checks keys of different groups; `bert_jax.tasks.check` those of a task."""
        self._check_init()
        self._check_recipe()
        self._check_data()
        self._check_rates()
        if self.sweep.is_on:
            self._check_sweep()

    def _check_init(self) -> None:
        """Raises InputError unless it is clear where the weights come from."""
        if not self.init_from:
            raise errors.InputError(
                "init_from is empty: name the folder of a pretrained model, as in "
                "--config.init_from=runs/demo, or --config.init_from=none for random "
                "weights"
            )
        from_init = pretraining.FROM_INIT
        if self.init_from != "none":
            if self.text.vocab != from_init or self.size != from_init:
                raise errors.InputError(
                    f"init_from is {self.init_from}: its architecture and vocabulary "
                    "come with it, so leave model.size and text.vocab at init_from"
                )
            return
        if from_init in (self.size, self.text.vocab):
            raise errors.InputError(
                "init_from is none: set an architecture and a vocabulary, as in "
                "--config.model.size=tiny --config.text.vocab=vocab.txt; both may also "
                "be the folder of a model"
            )
        if self.init != FinetuningInitConfig():
            raise errors.InputError(
                "init needs weights to start from, and init_from is none: set "
                "--config.init_from=FOLDER"
            )

    def _check_recipe(self) -> None:
        recipe = self.recipe
        if not recipe.lora_rank and recipe.lora_alpha != RecipeConfig.lora_alpha:
            raise errors.InputError(
                f"recipe.lora_alpha is {recipe.lora_alpha:g}, and recipe.lora_rank is "
                "0: set the rank, as in 8, or leave both out"
            )
        if recipe.lora_rank and recipe.reinit_layers:
            raise errors.InputError(
                f"recipe.reinit_layers is {recipe.reinit_layers}, and with "
                f"recipe.lora_rank {recipe.lora_rank} those layers would stay random: "
                "set one of them"
            )

    def _check_data(self) -> None:
        data = self.data
        if not data.train:
            raise errors.InputError(
                "data.train is empty: name a file of labeled examples, as in "
                "--config.data.train=train.tsv"
            )
        if self.sweep.folds and data.dev:
            raise errors.InputError(
                "sweep.folds evaluates on folds of data.train: leave data.dev empty"
            )
        folds = data.folds or self.sweep.folds
        if (data.dev or folds) and data.dev_share != FinetuningDataConfig.dev_share:
            instead = "folds are held out" if folds else "data.dev names a file"
            raise errors.InputError(
                f"data.dev_share is {data.dev_share:g}, and {instead}: leave it out"
            )
        if data.pack and self.run.accumulation_steps > 1:
            raise errors.InputError(
                "data.pack makes the texts of a batch share sequences, and "
                f"run.accumulation_steps {self.run.accumulation_steps} splits the "
                "batch: leave one of them out"
            )

    def _check_rates(self) -> None:
        rates = self.sweep.rates
        name = "sweep.learning_rates" if rates else "optimizer.learning_rate"
        self.optimizer.check_end(min(self.learning_rates), name)
        if rates and not self.sweep.is_on:
            raise errors.InputError(
                f"sweep.learning_rates has one rate, {rates[0]:g}: name several, or "
                "set optimizer.learning_rate"
            )
        if len(set(rates)) < len(rates):
            raise errors.InputError(
                f"sweep.learning_rates is {self.sweep.learning_rates!r}, which has a "
                "rate twice: for several runs with the same rate set sweep.seeds"
            )

    def _check_sweep(self) -> None:
        if self.run.log_examples:
            raise errors.InputError(
                "run.log_examples is for a single run, and the members of a sweep see "
                "different examples: leave it off"
            )
        if self.run.patience:
            raise errors.InputError(
                "run.patience ends a single run, and the members of a sweep end "
                "together: leave it at 0"
            )
        if self.data.folds:
            raise errors.InputError("data.folds is for a single run: set sweep.folds")

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The peaks of the rate: of each sweep member, or of the one run."""
        return self.sweep.rates or (self.optimizer.learning_rate,)

    def execution(self) -> encoder.Execution:
        """Returns how the model runs."""
        return self.run.execution(packed=self.data.pack)


@dataclasses.dataclass(frozen=True)
class SuiteConfig:
    """The keys of a suite that are not of its runs."""

    folder: str = field(
        "",
        "Folder of the publisher's files; empty downloads from TFDS.",
        convert=os.path.expanduser,
    )
    tasks: str = field("", "Tasks to run, separated by commas; empty runs all.")


SPLITS = ("train", "dev", "test")
FROM_PYTHON = "python:"  # stands for a file whose examples Python passes

to_dict = pretraining.to_dict


def default() -> ml_collections.ConfigDict:
    """Returns the usual recipe of BERT as a locked ConfigDict.

    `init_from` and `data.train` are empty and must be set.
    """
    rate = FinetuningOptimizerConfig(learning_rate=3e-5)
    return pretraining.locked(FinetuningConfig, rate)


def parse(
    config: ml_collections.ConfigDict | Mapping[str, Any],
    from_python: Sequence[str] = (),
) -> FinetuningConfig:
    """Turns a configuration into typed groups.

    Args:
      from_python: the splits whose examples come from Python and not from files.

    Raises:
      InputError: a key is unknown or missing, a value has a wrong type or range, or
        does nothing.
    """
    tree = pretraining.plain(config, FinetuningConfig)
    tree["data"] = _with_splits(tree["data"], from_python)
    return pretraining.typed(tree, FinetuningConfig)


def _with_splits(data: Any, from_python: Sequence[str]) -> Any:
    """Returns the group `data`, with a name for each split that is not a file."""
    for name in from_python:
        if name not in SPLITS:
            raise errors.InputError(
                f"data has {name!r}: give examples of {', '.join(SPLITS)}"
            )
        if isinstance(data, Mapping) and data.get(name):
            raise errors.InputError(
                f"data.{name} is {data[name]!r}, and its examples are passed from "
                "Python too: leave one of them out"
            )
    if not from_python:
        return data
    return {**data, **{name: FROM_PYTHON for name in from_python}}


def parse_record(tree: Mapping[str, Any]) -> FinetuningConfig:
    """Turns the record of a run into typed groups, as `parse` does.

    Keys that are newer than the record have the values that those runs used.
    """
    return parse(fields.with_added(tree, FinetuningConfig))
