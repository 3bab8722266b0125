"""Interfaces of tasks.

A `TaskSpec` describes a task before any data is read: its name, config keys, metrics
and head, and how to derive `Metadata` from training examples. From a config and the
metadata it builds a `FineTuned`, which converts examples to rows and computes losses,
predictions and scores. `bert_jax.tasks.TASKS` lists all of them.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from bert_jax import errors
from bert_jax.data.labeled import encoding, example_rows
from bert_jax.data.labeled.example_rows import ExampleTable
from bert_jax.data.labeled.examples import ExampleForm
from bert_jax.metrics.scores import Scores
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


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FineTuned(abc.ABC):
    """A task on labeled examples: tokenization, losses, predictions and scores.

    `table`, `decode` and `score` run on the host, in numpy and plain Python; the other
    methods, except `init`, are traced. Losses and metrics are (sum, weight) pairs,
    which are added over devices, micro-batches and batches, and divided once.

    Attributes:
      model: the encoder and its head.
      max_seq_length: maximum number of tokens in a row, including special tokens.
      recipe: modifications of the loss.
      loss_name: the name of the loss.
    """

    loss_name: ClassVar[str]
    model: network.Network
    tokenizer: Tokenizer
    max_seq_length: int
    recipe: losses.Recipe = losses.Recipe()

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        return self.model.init(key)

    @abc.abstractmethod
    def table(self, examples: Sequence[Any]) -> ExampleTable:
        """Tokenizes examples into rows, with any labels.

        Raises InputError, with the location of the example, if one is invalid.
        """

    def prepare(self, batch: Batch, key: Array) -> Batch:
        """Applies random preprocessing to a global batch; by default none."""
        return batch

    def weights(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Returns the denominator of the loss of a batch."""
        return {self.loss_name: jnp.sum(self.loss_weights(batch))}

    def losses(
        self, params: PyTree, batch: Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], Sums]:
        """Returns the summed loss and the metrics of a batch, with dropout.

        With R-Drop (arXiv:2106.14448), the loss is the mean over two passes plus
        `recipe.r_drop` times their divergence, as in the authors' code.
        """
        if not self.recipe.r_drop:
            total, metrics = self.loss(self.forward(params, batch, key), batch)
        else:
            keys = jax.random.split(key)
            first, second = (self.forward(params, batch, k) for k in keys)
            total, metrics = self.loss(first, batch)
            mean = (total + self.loss(second, batch)[0]) / 2
            divergence = self.divergence(first, second, batch)
            total = mean + self.recipe.r_drop * divergence
        return {self.loss_name: total}, metrics

    def forward(self, params: PyTree, batch: Batch, key: Array | None) -> Logits:
        """Applies the model, with dropout from the key if there is one."""
        return self.model.apply(params, batch, dropout_key=key)

    def loss_weights(self, batch: Batch) -> Float[Array, "B ..."]:
        """Returns the weight of each term of the loss, 0 for padding."""
        return batch[example_rows.WEIGHTS]

    @abc.abstractmethod
    def loss(self, outputs: Logits, batch: Batch) -> tuple[Float[Array, ""], Sums]:
        """Returns the summed loss and the metrics of a batch."""

    def divergence(self, one: Logits, two: Logits, batch: Batch) -> Float[Array, ""]:
        """Sums the symmetric divergences of two passes; needed if R-Drop is allowed."""
        raise NotImplementedError

    @abc.abstractmethod
    def predict(self, params: PyTree, batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Computes the outputs of rows, without dropout."""

    @abc.abstractmethod
    def decode(
        self, examples: Sequence[Any], table: ExampleTable, outputs: Outputs
    ) -> list[Prediction]:
        """Returns one prediction per example, in order.

        The arrays of `outputs` still include the padding of their batches.
        """

    @abc.abstractmethod
    def score(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> Scores:
        """Compares predictions with the labels of the examples.

        Labels that the model has not seen count as errors.

        Raises:
          InputError: there are no examples, or one has no label.
          NotFiniteError: an output of the model is not finite.
        """

    def check(self, train: Sequence[Any], dev: Sequence[Any]) -> None:
        """Raises InputError for examples that cannot be trained or evaluated on."""
        return None

    def unseen(self, example: Any) -> Sequence[str]:
        """Returns the labels of an example that the model cannot predict."""
        return ()

    def without_unseen(self, example: Any) -> Any:
        """Returns an example without its `unseen` labels, which `table` rejects."""
        return example

    def is_beyond(self, example: Any) -> bool:
        """Returns whether an example has labels but none of the model's."""
        return False

    @property
    def single_labels(self) -> tuple[str, ...]:
        """The classes if every example has exactly one; otherwise empty."""
        return ()

    def one_by_one(self) -> "FineTuned":
        """Returns a task whose predictions do not depend on other examples."""
        return self

    def advice(self, longest: int) -> str:
        """Returns how to avoid truncation of rows of up to `longest` tokens."""
        return (
            f"raise data.max_seq_length ({longest} here), or change what is kept with "
            "data.truncation"
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextTask(FineTuned):
    """A task whose rows are texts or pairs of texts.

    Attributes:
      truncation: how longer inputs are truncated; see `data.truncation`.
    """

    truncation: str = "longest_first"

    def encode(self, texts: Sequence[encoding.Text]) -> encoding.Encoded:
        """Tokenizes texts into rows."""
        return encoding.encode(
            self.tokenizer, texts, self.max_seq_length, self.truncation
        )

    def table_of(
        self,
        encoded: encoding.Encoded,
        fixed: dict[str, np.ndarray],
        tokens: dict[str, list[np.ndarray]] | None = None,
    ) -> ExampleTable:
        """Returns a table with one row per example; `tokens` default to `encoded`'s."""
        tokens = encoded.columns if tokens is None else tokens
        rows = np.arange(len(tokens["input_ids"]))
        return ExampleTable(
            tokens, fixed, rows, encoded.notes, coverage=encoded.coverage
        )


def stacked(rows: Sequence[np.ndarray], count: int) -> Int[np.ndarray, "count l"]:
    """Stacks rows, padded with zeros to the longest and to `count` rows."""
    result = np.zeros((count, max(len(row) for row in rows)), np.int32)
    for at, row in enumerate(rows):
        result[at, : len(row)] = row
    return result


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
        `inference.outputs`.
    """

    name: str
    form: ExampleForm
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
        return None

    def learn(
        self, settings: Settings, examples: Sequence[Any], given: Metadata | None = None
    ) -> Metadata:
        """Derives metadata from training examples.

        Args:
          given: metadata of the pretrained head, if training starts from one.

        Raises:
          InputError: there is nothing to learn, or labels contradict the config.
        """
        return Metadata()

    def classes(self, metadata: Metadata) -> int:
        """Returns the number of outputs of the head."""
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
        recipe = losses.Recipe(
            settings.recipe.label_smoothing,
            settings.recipe.focal_gamma,
            class_weights,
            settings.recipe.r_drop,
        )
        common = {
            "model": network.Network(bert, settings.execution(), (head,)),
            "tokenizer": tokenizer,
            "max_seq_length": length,
            "recipe": recipe,
        }
        return self.build(settings, metadata, common)

    @abc.abstractmethod
    def build(
        self, settings: Settings, metadata: Metadata, common: dict[str, Any]
    ) -> FineTuned:
        """Returns the task.

        Args:
          common: `model`, `tokenizer`, `max_seq_length` and `recipe`.
        """

    def expected_metric(
        self, settings: Settings, metadata: Metadata, dev: Sequence[Any]
    ) -> str:
        """Returns the default metric for selecting the best model."""
        return self.default_metrics[0]

    def positive(self, settings: Settings, labels: Sequence[str]) -> str:
        """Returns the positive class of two-class metrics, or ""."""
        return ""

    def named(self, examples: Sequence[Any], labels: tuple[str, ...]) -> list[Any]:
        """Replaces class numbers in labels by class names."""
        return list(examples)

    def misfits(self, examples: Sequence[Any]) -> dict[int, str]:
        """Maps the index of each example with a malformed label to that label."""
        return {}

    def unknown_classes(
        self, examples: Sequence[Any], labels: tuple[str, ...]
    ) -> dict[int, str]:
        """Maps the index of each example with an unknown label to that label.

        Args:
          labels: the classes; empty if they are derived from the examples.
        """
        return {}

    def classes_of(self, example: Any, metadata: Metadata) -> Sequence[str]:
        """Returns the classes of an example, as `recipe.class_weights` counts them."""
        return ()

    def rows(self, example: Any, prediction: Prediction) -> list[dict[str, Any]]:
        """Returns the table rows of a prediction, with values for `columns`."""
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
        return head == self.head_kind

    @property
    def gives_vectors(self) -> bool:
        """Whether the outputs are text vectors, without a task-specific head."""
        return self.head_kind == "vectors"

    def describe(self, examples: Sequence[Any]) -> str:
        """Returns a line that describes the training examples, or ""."""
        return ""


def _are_below(rows: Sequence[np.ndarray], size: int) -> bool:
    """Returns whether all values are in [0, size)."""
    for first in range(0, len(rows), 4096):
        ids = np.concatenate(rows[first : first + 4096], axis=None)
        if ids.size and (ids.min() < 0 or ids.max() >= size):
            return False
    return True


def checked(
    of_task: FineTuned, examples: Sequence[Any], table: ExampleTable
) -> ExampleTable:
    """Returns the table after checking its token ids and token types.

    On device, an out-of-range index does not raise an error but returns NaN or another
    row of the table of embeddings.

    Raises:
      InputError: a token id or a token type is out of range.
    """
    bert = of_task.model.config
    sizes = {"input_ids": bert.vocab_size}
    if bert.type_vocab_size:  # some architectures have no token types
        sizes["token_type_ids"] = bert.type_vocab_size
    for name, size in sizes.items():
        if _are_below(table.tokens[name], size):
            continue  # the usual case, and faster than finding the row
        for row, ids in enumerate(table.tokens[name]):
            if ids.size and (ids.min() < 0 or ids.max() >= size):
                wrong = ids[(ids < 0) | (ids >= size)][0]
                example = examples[int(table.examples[row])]
                raise errors.InputError(
                    f"{example.where}: {name} has the value {wrong}, but the model "
                    f"supports 0 to {size - 1}. Its vocabulary or sizes (model.*) do "
                    "not match the task"
                )
    return table
