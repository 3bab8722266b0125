"""What a task is: the facts that the package asks of it, and its pure functions.

A `TaskSpec` describes a task before any data is read: its name, the config keys it
reads, its metrics, its head, what it learns from training examples. From a config and
that `Metadata` it builds the task itself, a `FineTuned`: examples to rows, loss,
predictions, scores. `bert_jax.tasks.TASKS` lists all of them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PyTree

from bert_jax import errors
from bert_jax.data.labeled import example_request, example_rows
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
# Output name -> one array a row, in the order of the rows of a table.
Outputs = dict[str, list[np.ndarray]]
# `config.finetuning.FinetuningConfig`; its module needs ml_collections, tasks do not.
Settings = Any


@runtime_checkable
class Task(Protocol):
    """The contract between a task and `training`; everything but `init` is traced.

    Sums and weights are added over devices, micro-batches and batches, and divided
    once; a loss is a sum whose weight `weights` returns for the whole batch.
    """

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        ...

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Applies to a global batch what is random and not differentiated (masks)."""
        ...

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the weight of each loss over a prepared batch."""
        ...

    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the sum of each loss, and metrics, with dropout from the key."""
        ...


class FineTuned:
    """A task with labeled examples, built for one model: a `Task`, and what follows it.

    `table`, `decode` and `score` run on the host, in numpy and plain Python. Examples
    are of the type of the task. Subclasses are frozen dataclasses.

    Attributes:
      model: encoder and head.
      tokenizer: the tokenizer of the model.
    """

    model: network.Network
    tokenizer: Tokenizer

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        return self.model.init(key)

    def table(self, examples: Sequence[Any]) -> example_rows.ExampleTable:
        """Tokenizes examples into rows, with labels where they have any.

        Raises InputError, with the location of the example, for what cannot be a row.
        """
        raise NotImplementedError

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Returns the batch as it is."""
        del key  # only dropout is random
        return batch

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the weight of each loss over a batch; traced."""
        raise NotImplementedError

    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the sum of each loss, and metrics, with dropout; traced."""
        raise NotImplementedError

    def predict(self, params: PyTree, batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Computes the outputs of rows, without dropout; traced."""
        raise NotImplementedError

    def decode(
        self,
        examples: Sequence[Any],
        table: example_rows.ExampleTable,
        outputs: Outputs,
    ) -> list[Prediction]:
        """Returns one prediction an example, in their order.

        Rows of outputs still end with the padding of their batches.
        """
        raise NotImplementedError

    def score(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> scores.Scores:
        """Compares predictions with the labels of the examples.

        Labels that the model has not seen count as errors.
        """
        raise NotImplementedError

    def check(self, train: Sequence[Any], dev: Sequence[Any]) -> None:
        """Raises InputError for examples that cannot be learned from, or scored."""

    def unseen(self, example: Any) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        del example
        return ()

    def without_unseen(self, example: Any) -> Any:
        """Returns an example that `table` takes: without the labels in `unseen`."""
        return example

    def is_beyond(self, example: Any) -> bool:
        """Returns whether an example has labels, and the model knows none of them."""
        del example
        return False

    @property
    def single_labels(self) -> tuple[str, ...]:
        """The classes, if every example is of exactly one; else empty."""
        return ()

    def one_by_one(self) -> "FineTuned":
        """Returns the task with predictions that do not depend on other examples."""
        return self

    def advice(self, longest: int) -> str:
        """Returns what to do where many texts are cut.

        Args:
          longest: tokens of the longest row.
        """
        return (
            f"raise data.max_seq_length ({longest} here), or choose what is kept with "
            "data.truncation"
        )


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a task learns from its training examples, kept with the model.

    Attributes:
      labels: the names of the classes, in the order of the rows of the head.
      scheme: the scheme of tags, as `BIO`, or empty.
      mean, deviation: mean and standard deviation of the scores.
      lowest, highest: range of the scores.
      impossible: whether a question may have no answer.
      threshold: threshold of a decision, tuned on dev; its meaning is the task's.
    """

    labels: tuple[str, ...] = ()
    scheme: str = ""
    mean: float = 0.0
    deviation: float = 1.0
    lowest: float = 0.0
    highest: float = 1.0
    impossible: bool = False
    threshold: float | None = None


# Keys that all tasks on tables of texts read.
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
# Keys of heads with a linear map, and of losses over classes.
LINEAR_KEYS = frozenset({"head.dropout", "head.transform", "recipe.r_drop"})
CLASS_KEYS = LINEAR_KEYS | {"recipe.label_smoothing", "recipe.focal_gamma"}
# Keys of tasks on the tags of tokens.
TAG_KEYS = CLASS_KEYS | {
    "data.columns.token",
    "data.columns.tag",
    "head.crf",
    "recipe.class_weights",
}
TWO_CLASS_METRICS = ("accuracy", "precision", "recall", "f1", "auc")


class TaskSpec:
    """A task, as the rest of the package knows it; one object for each, in `TASKS`.

    A subclass sets the attributes and overrides what differs.

    Attributes:
      name: the value of `data.task`.
      form: how its examples are written.
      keys: the config keys that this task reads and not every task does.
      cleans_text: whether texts may be cleaned (`text.clean`): labels are not offsets.
      metrics: the metrics that `score` can return, some only for some data.
      default_metrics: the metrics by which the best model is kept, unless
        `run.keep_best` names one: the first that the scores have.
      threshold_metric: the metric that is the threshold to decide by, or "".
      head_kind: one of `heads.KINDS`.
      is_number: whether the output of a classifier is a number.
      one_row_each: whether an example is exactly one row.
      counts_dev_labels: whether labels of examples that are held out of the training
        file belong to `Metadata.labels`.
      columns: the columns of a table of predictions; see `rows`.
      formats: the formats of predictions other than `jsonl` and `tsv`; see
        `inference.prediction_files`.
    """

    name: str
    form: example_request.ExampleForm
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
        """Raises InputError for values of a config that do not go together."""

    def learn(
        self, settings: Settings, examples: Sequence[Any], given: Metadata | None = None
    ) -> Metadata:
        """Returns what the task must know of its training examples.

        Args:
          given: metadata of the head that training starts from, if it is not fresh.

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
        """Returns the head on the encoder."""
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
          InputError: rows are longer than the positions of the model, or the head is
            not possible.
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
          recipe: changes to the loss.
        """
        raise NotImplementedError

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the default metric by which the best model will be kept."""
        del settings, metadata, dev
        return self.default_metrics[0]

    def positive(self, settings: Settings, labels: Sequence[str]) -> str:
        """Returns the class that metrics of two classes are of, or ""."""
        del settings, labels
        return ""

    def named(self, examples: Sequence[Any], labels: tuple[str, ...]) -> list[Any]:
        """Returns examples with names of classes where a file numbers them."""
        del labels
        return list(examples)

    def misfits(self, examples: Sequence[Any]) -> dict[int, str]:
        """Returns the label that cannot be one, by the position of its example."""
        del examples
        return {}

    def unknown_classes(
        self, examples: Sequence[Any], labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Returns the label that is not a class, by the position of its example.

        Args:
          labels: the classes; empty if the examples name them.
        """
        del examples, labels
        return {}

    def classes_of(self, example: Any, metadata: Metadata) -> Sequence[str]:
        """Returns the classes of an example, as `recipe.class_weights` counts them."""
        del example, metadata
        return ()

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
        """Returns the rows of a prediction in a table, with values for `columns`."""
        del example
        return [prediction]

    def answer(self, prediction: Prediction) -> Any:
        """Returns a prediction as a benchmark takes it (`glue`, `clue`)."""
        return prediction["label"]

    def reads_head(self, head: str, is_number: bool) -> bool:
        """Returns whether a model of another library with this head has this task.

        Args:
          head: the name of the part.
          is_number: whether a classifier has one output, a number.
        """
        del is_number
        return head == self.head_kind

    @property
    def gives_vectors(self) -> bool:
        """Whether the outputs are vectors of texts, without a head of their own."""
        return self.head_kind == "vectors"

    def describe(self, examples: Sequence[Any]) -> str:
        """Returns a line on what was found in training examples, or ""."""
        del examples
        return ""


_ROWS = 4096  # checked together: a few megabytes
_POSITIONS = (
    "token_positions",
    "predicate_positions",
    "start_positions",
    "end_positions",
)


def checked(
    of_task: FineTuned, examples: Sequence[Any], table: example_rows.ExampleTable
) -> example_rows.ExampleTable:
    """Returns the table of a task's rows, once its ids are known to be in range.

    On a device an id beyond a table is not an error: it gives NaN, or another row. So
    rows are checked on the host, once.

    Raises:
      InputError: an id, a token type, a label or a position is beyond the model's
        tables, or a row is longer than its positions.
    """
    for name, limit in _limits(of_task, table).items():
        if name in table.tokens and _is_below(table.tokens[name], limit):
            continue  # the usual case, and faster than finding a position
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
    """Returns the first value that is too large, by column."""
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
    """Returns whether all values are from 0 to below a limit."""
    for first in range(0, len(rows), _ROWS):
        flat = np.concatenate(rows[first : first + _ROWS], axis=None)
        if flat.size and (flat.min() < 0 or flat.max() >= limit):
            return False
    return True


def _columns(
    table: example_rows.ExampleTable, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a column of integers in blocks [rows, ...], with their first rows."""
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
    """Raises InputError for the first value that is not from 0 to below its limit."""
    wrong = (values < 0) | (values >= limit)
    if not wrong.any():
        return
    at = tuple(np.argwhere(wrong)[0])
    most = np.broadcast_to(limit, values.shape)[at] - 1
    example = examples[int(table.examples[first + at[0]])]
    raise errors.InputError(
        f"{example.where}: {name} has {values[at]}, and the model takes 0 to "
        f"{most}. Its vocabulary, its labels or its sizes (model.*) do not belong to "
        "the task"
    )
