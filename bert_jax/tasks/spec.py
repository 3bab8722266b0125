"""Interfaces of tasks.

A `TaskSpec` describes a task before any data is read: its name, config keys, metrics
and head, and how to derive `Metadata` from training examples. From a config and the
metadata it builds a `FineTuned`, which converts examples to rows and computes losses,
predictions and scores. `bert_jax.tasks.TASKS` lists all of them.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import example_rows
from bert_jax.data.labeled import examples as data_examples
from bert_jax.metrics import scores
from bert_jax.model import config as model_config
from bert_jax.model import heads, network
from bert_jax.tasks import losses
from bert_jax.text.tokenizer import Tokenizer

Batch = dict[str, Any]
Sums = dict[str, tuple[Any, Any]]
# Outputs of a model for a batch, by name.
Logits = dict[str, Array]
# The prediction for an example: a JSON object.
Prediction = dict[str, Any]
# Output name -> one array per row, in the order of the rows of a table.
Outputs = dict[str, list[np.ndarray]]
# `config.finetuning.FinetuningConfig`; not imported, as it needs ml_collections.
Settings = Any


@runtime_checkable
class Task(Protocol):
    """What `training` requires of a task; all methods except `init` are traced.

    Sums and weights are accumulated over devices, micro-batches and batches, and
    divided once. `weights` returns the denominators of the losses for a whole batch.
    """

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        ...

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Applies random preprocessing, such as masking, to a global batch."""
        ...

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the weight of each loss over a prepared batch."""
        ...

    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the sum of each loss, and metrics, with dropout from the key."""
        ...


class FineTuned(abc.ABC):
    """A `Task` on labeled examples, with tokenization, decoding and evaluation.

    `table`, `decode` and `score` run on the host, in numpy and plain Python. Subclasses
    are frozen dataclasses.

    Attributes:
      model: the encoder and its head.
      tokenizer: the tokenizer of the model.
    """

    model: network.Network
    tokenizer: Tokenizer

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        return self.model.init(key)

    @abc.abstractmethod
    def table(self, examples: Sequence[Any]) -> example_rows.ExampleTable:
        """Tokenizes examples into rows, with any labels.

        Raises InputError, with the location of the example, if one is invalid.
        """

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Returns the batch as it is."""
        del key  # only dropout is random
        return batch

    @abc.abstractmethod
    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the weight of each loss over a batch; traced."""

    @abc.abstractmethod
    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the sum of each loss, and metrics, with dropout; traced."""

    @abc.abstractmethod
    def predict(self, params: PyTree, batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Computes the outputs of rows, without dropout; traced."""

    @abc.abstractmethod
    def decode(
        self,
        examples: Sequence[Any],
        table: example_rows.ExampleTable,
        outputs: Outputs,
    ) -> list[Prediction]:
        """Returns one prediction per example, in order.

        The arrays of `outputs` still include the padding of their batches.
        """

    @abc.abstractmethod
    def score(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Compares predictions with the labels of the examples.

        Labels that the model has not seen count as errors.
        """

    def check(self, train: Sequence[Any], dev: Sequence[Any]) -> None:
        """Raises InputError for examples that cannot be trained or evaluated on."""
        del train, dev  # a task that has no such examples need not override this

    def unseen(self, example: Any) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        del example
        return ()

    def without_unseen(self, example: Any) -> Any:
        """Returns an example without its `unseen` labels, which `table` rejects."""
        return example

    def is_beyond(self, example: Any) -> bool:
        """Returns whether an example has labels but none of the model's."""
        del example
        return False

    @property
    def single_labels(self) -> tuple[str, ...]:
        """The classes if every example has exactly one; otherwise empty."""
        return ()

    def one_by_one(self) -> "FineTuned":
        """Returns a task whose predictions do not depend on other examples."""
        return self

    def advice(self, longest: int) -> str:
        """Returns how to avoid truncation.

        Args:
          longest: number of tokens in the longest row.
        """
        return (
            f"raise data.max_seq_length ({longest} here), or change what is kept with "
            "data.truncation"
        )


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Properties of the training examples, stored with the model.

    Attributes:
      labels: the class names, in the order of the head's outputs.
      scheme: the tag scheme, such as `BIO`, or empty.
      mean, deviation: mean and standard deviation of the scores.
      lowest, highest: range of the scores.
      impossible: whether a question may have no answer.
      threshold: a decision threshold tuned on dev; each task defines its meaning.
    """

    labels: tuple[str, ...] = ()
    scheme: str = ""
    mean: float = 0.0
    deviation: float = 1.0
    lowest: float = 0.0
    highest: float = 1.0
    impossible: bool = False
    threshold: float | None = None


# Keys of all tasks that read tables of texts.
TABLE_KEYS = frozenset(
    {
        "data.header",
        "data.columns.id",
        "data.columns.text",
        "data.columns.text_pair",
        "data.columns.label",
        "data.truncation",
        "head.pooling",
    }
)
# Keys of heads with a linear layer, and of classification losses.
LINEAR_KEYS = frozenset({"head.dropout", "head.transform", "recipe.r_drop"})
CLASS_KEYS = LINEAR_KEYS | {"recipe.label_smoothing", "recipe.focal_gamma"}
# Keys of token tagging tasks.
TAG_KEYS = CLASS_KEYS | {
    "data.columns.token",
    "data.columns.tag",
    "head.crf",
    "recipe.class_weights",
}
TWO_CLASS_METRICS = ("accuracy", "precision", "recall", "f1", "auc")


class TaskSpec(abc.ABC):
    """The specification of a task; `TASKS` has one instance for each.

    Subclasses set the attributes and override methods as needed.

    Attributes:
      name: the value of `data.task`.
      form: the input formats of its examples.
      keys: the config keys that this task reads, except those of all tasks.
      cleans_text: whether `text.clean` is allowed, as labels are not offsets.
      metrics: the metrics that `score` can return, depending on the data.
      default_metrics: candidates for selecting the best model if `run.keep_best` is
        unset; the first one that is in the scores is used.
      threshold_metric: the metric that is the tuned decision threshold, or "".
      head_kind: one of `heads.KINDS`.
      is_number: whether the output of a classifier is a number.
      one_row_each: whether an example is exactly one row.
      counts_dev_labels: whether `Metadata.labels` includes labels that occur only in
        dev examples split off the training file.
      columns: the columns of a table of predictions; see `rows`.
      formats: prediction formats besides `jsonl` and `tsv`; see
        `inference.prediction_files`.
    """

    name: str
    form: data_examples.ExampleForm
    keys: frozenset[str] = frozenset()
    cleans_text: bool = True
    metrics: tuple[str, ...]
    default_metrics: tuple[str, ...]
    threshold_metric: str = ""
    head_kind: str
    is_number: bool = False
    one_row_each: bool = True
    counts_dev_labels: bool = False
    columns: tuple[str, ...]
    formats: tuple[str, ...] = ()

    def check(self, settings: Settings) -> None:
        """Raises InputError for inconsistent config values."""
        del settings  # a task whose keys are independent need not override this

    def learn(
        self, settings: Settings, examples: Sequence[Any], given: Metadata | None = None
    ) -> Metadata:
        """Derives metadata from training examples.

        Args:
          given: metadata of the pretrained head, if training starts from one.

        Raises:
          InputError: there is nothing to learn, or labels contradict the config.
        """
        del settings, examples, given
        return Metadata()

    def classes(self, metadata: Metadata) -> int:
        """Returns the number of outputs of the head."""
        del metadata
        return 1

    def head(self, settings: Settings, metadata: Metadata) -> heads.HeadSpec:
        """Returns the specification of the head."""
        given = settings.head
        return heads.HeadSpec(
            self.head_kind,
            self.classes(metadata),
            given.pooling,
            given.recurrent_size,
            given.crf,
            self.reads_predicates(settings),
            given.dropout,
            given.transform,
        )

    def reads_predicates(self, settings: Settings) -> bool:
        """Returns whether the head also reads the states of predicates."""
        del settings
        return False

    def task(
        self,
        settings: Settings,
        metadata: Metadata,
        bert: model_config.BertConfig,
        tokenizer: Tokenizer,
        class_weights: tuple[float, ...] = (),
    ) -> FineTuned:
        """Returns the task for one model.

        Raises:
          InputError: `data.max_seq_length` exceeds the positions of the model, or the
            head is invalid.
        """
        length = settings.data.max_seq_length
        if length > bert.max_length:
            raise errors.InputError(
                f"data.max_seq_length {length} exceeds the {bert.max_length} positions "
                "of the model: lower it, or set model.max_position_embeddings with "
                "init.positions"
            )
        head = self.head(settings, metadata)
        common = {
            "model": network.Network(bert, settings.execution(), (head,)),
            "tokenizer": tokenizer,
            "max_seq_length": length,
        }
        recipe = losses.Recipe(
            settings.recipe.label_smoothing,
            settings.recipe.focal_gamma,
            class_weights,
            settings.recipe.r_drop,
        )
        return self.build(settings, metadata, common, recipe)

    @abc.abstractmethod
    def build(
        self,
        settings: Settings,
        metadata: Metadata,
        common: Mapping[str, Any],
        recipe: losses.Recipe,
    ) -> FineTuned:
        """Returns the task.

        Args:
          common: `model`, `tokenizer` and `max_seq_length`.
          recipe: modifications of the loss.
        """

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the default metric for selecting the best model."""
        del settings, metadata, dev
        return self.default_metrics[0]

    def positive(self, settings: Settings, labels: Sequence[str]) -> str:
        """Returns the positive class of two-class metrics, or ""."""
        del settings, labels
        return ""

    def named(self, examples: Sequence[Any], labels: tuple[str, ...]) -> list[Any]:
        """Replaces class numbers in labels by class names."""
        del labels
        return list(examples)

    def misfits(self, examples: Sequence[Any]) -> dict[int, str]:
        """Maps the index of each example with a malformed label to that label."""
        del examples
        return {}

    def unknown_classes(
        self, examples: Sequence[Any], labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Maps the index of each example with an unknown label to that label.

        Args:
          labels: the classes; empty if they are derived from the examples.
        """
        del examples, labels
        return {}

    def classes_of(self, example: Any, metadata: Metadata) -> Sequence[str]:
        """Returns the classes of an example, as `recipe.class_weights` counts them."""
        del example, metadata
        return ()

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
        """Returns the table rows of a prediction, with values for `columns`."""
        del example
        return [prediction]

    def answer(self, prediction: Prediction) -> Any:
        """Returns a prediction in the format of a benchmark (`glue`, `clue`)."""
        return prediction["label"]

    def reads_head(self, head: str, is_number: bool) -> bool:
        """Returns whether a converted model with this head can be used for this task.

        Args:
          head: the name of the head.
          is_number: whether a classifier has one output, a number.
        """
        del is_number
        return head == self.head_kind

    @property
    def gives_vectors(self) -> bool:
        """Whether the outputs are text vectors, without a task-specific head."""
        return self.head_kind == "vectors"

    def describe(self, examples: Sequence[Any]) -> str:
        """Returns a line that describes the training examples, or ""."""
        del examples
        return ""


_ROWS = 4096  # rows per block: a few megabytes
_POSITIONS = (
    "token_positions",
    "predicate_positions",
    "start_positions",
    "end_positions",
)


def checked(
    of_task: FineTuned, examples: Sequence[Any], table: example_rows.ExampleTable
) -> example_rows.ExampleTable:
    """Returns the table after checking that all indices are in range.

    On device, an out-of-range index does not raise an error but returns NaN or another
    row. Rows are therefore checked once, on the host.

    Raises:
      InputError: a token id, token type, label or position is out of range, or a row
        is longer than the position table.
    """
    for name, limit in _limits(of_task, table).items():
        if name in table.tokens and _is_below(table.tokens[name], limit):
            continue  # the usual case, faster than locating values
        for first, values in _columns(table, name):
            _check(name, first, values, np.array(limit), examples, table)
    lengths = table.lengths
    for name in _POSITIONS:
        for first, values in _columns(table, name):
            bound = lengths[first : first + len(values)]
            bound = bound.reshape(-1, *[1] * (values.ndim - 1))
            _check(name, first, values, bound, examples, table)
    return table


def _limits(of_task: FineTuned, table: example_rows.ExampleTable) -> dict[str, int]:
    """Returns the exclusive upper bound of each column."""
    bert, head = of_task.model.config, of_task.model.head
    limits = {"input_ids": bert.vocab_size, "row lengths": bert.max_length + 1}
    if bert.type_vocab_size:  # some architectures have no such table
        limits["token_type_ids"] = bert.type_vocab_size
    if "choices" in table.fixed:
        limits["labels"] = table.fixed["choices"].shape[1]
    elif head.kind in ("classifier", "tagger"):
        limits["labels"] = head.classes
    return limits


def _is_below(rows: Sequence[np.ndarray], limit: int) -> bool:
    """Returns whether all values are in [0, limit)."""
    for first in range(0, len(rows), _ROWS):
        flat = np.concatenate(rows[first : first + _ROWS], axis=None)
        if flat.size and (flat.min() < 0 or flat.max() >= limit):
            return False
    return True


def _columns(
    table: example_rows.ExampleTable, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, block [rows, ...]) pairs of an integer column."""
    if name == "row lengths":
        yield 0, table.lengths
    elif name in table.fixed and table.fixed[name].dtype.kind in "iu":
        yield 0, table.fixed[name]
    elif name in table.tokens:
        rows = table.tokens[name]
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            most = max(row.shape[-1] for row in part)
            padded = np.zeros((len(part), *part[0].shape[:-1], most), part[0].dtype)
            for at, row in enumerate(part):
                padded[at, ..., : row.shape[-1]] = row
            yield first, padded


def _check(
    name: str,
    first: int,
    values: np.ndarray,
    limit: np.ndarray,
    examples: Sequence[Any],
    table: example_rows.ExampleTable,
) -> None:
    """Raises InputError for the first value outside of [0, limit)."""
    wrong = (values < 0) | (values >= limit)
    if not wrong.any():
        return
    at = tuple(np.argwhere(wrong)[0])
    most = np.broadcast_to(limit, values.shape)[at] - 1
    example = examples[int(table.examples[first + at[0]])]
    raise errors.InputError(
        f"{example.where}: {name} has the value {values[at]}, but the model supports 0 "
        f"to {most}. Its vocabulary, labels or sizes (model.*) do not match the task"
    )
