"""A fine-tuned model that is ready to say something of new texts."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors, tasks
from bert_jax.checkpoints import native, sentence_encoder
from bert_jax.data.labeled import example_rows, python_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.inference import answering_folders
from bert_jax.metrics import scores
from bert_jax.model import network
from bert_jax.runs import predictor as predictors
from bert_jax.runs import unseen_labels
from bert_jax.tasks import spec
from bert_jax.text import coverage as text_coverage
from bert_jax.text.coverage import Coverage
from bert_jax.training import sharding, state

WINDOW = 1024  # examples that are read and predicted together


@dataclasses.dataclass(frozen=True, eq=False)
class TaskPredictor:
    """A task's model on the devices, with what it needs to read and to answer.

    Attributes:
      made: settings, labels and tokenizer; its own copy of the weights is gone.
      params: on the devices.
      pooling: of a bi-encoder, what its vectors are, if other libraries have that too.
    """

    made: native.TaskFolder
    predictor: predictors.Predictor
    params: PyTree
    pooling: sentence_encoder.Pooling = sentence_encoder.Pooling()

    def __repr__(self) -> str:
        """Returns the task and its labels, without the arrays of the model."""
        labels = self.made.learned.labels
        return f"TaskPredictor({self.kind}, {len(labels)} labels)"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickles the arrays and the task; the program is compiled again when read.

        As after `load`, the copy is on all devices of the machine that reads it.
        """
        params = jax.tree.map(np.asarray, self.params)
        return _on_devices, (self.made, self.predictor.task, params, self.pooling)

    @property
    def task_spec(self) -> spec.TaskSpec:
        """The task."""
        return tasks.of(self.made.settings)

    @property
    def kind(self) -> str:
        """The name of the task, as `data.task` has it."""
        return self.task_spec.name

    def predict(self, values: Iterable[Any]) -> list[spec.Prediction]:
        """Returns one prediction a value; `data.raw_examples` says what values are.

        Logs a warning if many tokens are [UNK] or many texts are cut.

        Raises:
          InputError: a value is not what the task takes.
        """
        coverage = Coverage()
        examples = python_examples.examples_of_values(self.task_spec.form, values)
        made = self.of_examples(examples, coverage=coverage)
        self.warn(coverage, "predict")
        return made

    def warn(self, coverage: Coverage, name: str) -> None:
        """Logs a warning if many tokens of texts are [UNK] or many of them are cut."""
        length = self.made.settings.data.max_seq_length
        coverage.warn(self.made.tokenizer, name, text_coverage.advice_on_length(length))

    def of_examples(
        self,
        examples: Sequence[Any],
        notes: Counter[str] | None = None,
        coverage: Coverage | None = None,
    ) -> list[spec.Prediction]:
        """Returns one prediction an example, in their order, whatever their labels.

        Args:
          notes: counted up with what was done to rows, as that some were cut.
          coverage: counted up with the tokens of the texts.
        """
        if not examples:
            return []
        each = self._each
        bare = [data_examples.unlabeled(example) for example in examples]
        table = _table(each.task, bare)
        _count(table, notes, coverage)
        return each.predictions(self.params, bare, table)

    @property
    def _each(self) -> predictors.Predictor:
        """Says of each example what does not depend on the others."""
        each = self.predictor.task.one_by_one()
        return dataclasses.replace(self.predictor, task=each)

    def stream(
        self,
        examples: Iterable[Any],
        size: int = WINDOW,
        notes: Counter[str] | None = None,
        coverage: Coverage | None = None,
    ) -> Iterator[tuple[Any, spec.Prediction]]:
        """Yields every example with its prediction; memory holds a window of `size`.

        `notes` and `coverage` as in `of_examples`.
        """
        window: list[Any] = []
        for example in examples:
            window.append(example)
            if len(window) == size:
                said = self.of_examples(window, notes, coverage)
                yield from zip(window, said, strict=True)
                window = []
        said = self.of_examples(window, notes, coverage)
        yield from zip(window, said, strict=True)

    def scores(
        self,
        examples: Sequence[Any],
        notes: Counter[str] | None = None,
        coverage: Coverage | None = None,
    ) -> tuple[scores.Scores, list[spec.Prediction]]:
        """Scores labelled examples; `notes` and `coverage` as in `of_examples`.

        Labels that the model has not seen count as errors.

        Raises:
          InputError: the model has seen none of the labels.
        """
        of_task = self.predictor.task
        known = unseen_labels.known_part(of_task, examples)
        table = _table(of_task, known)
        _count(table, notes, coverage)
        return self.predictor.scores(self.params, examples, table)


def _table(of_task: Any, examples: Sequence[Any]) -> example_rows.ExampleTable:
    """Returns the rows of examples; errors do not advise on settings of training."""
    try:
        return spec.checked(of_task, examples, of_task.table(examples))
    except errors.SettingError as error:
        raise error.of_trained_model() from None


def _count(
    table: example_rows.ExampleTable,
    notes: Counter[str] | None,
    coverage: Coverage | None,
) -> None:
    """Adds what a table counted."""
    if notes is not None:
        notes.update(table.notes)
    if coverage is not None:
        coverage.update(table.coverage)


def load(
    folder: Path, dtype: str = "float32", *, repair: bool = False
) -> TaskPredictor:
    """Loads a fine-tuned model, or the best one of a run.

    Args:
      dtype: of activations and products.
      repair: mend labels and files where it can be, also if training did not.

    Raises:
      InputError: it is none, or damaged.
    """
    made = answering_folders.read(folder)
    # The kernel was chosen for the machine of the run, which may be another.
    run = dataclasses.replace(made.settings.run, dtype=dtype, attention="auto")
    data = made.settings.data
    data = dataclasses.replace(data, repair=repair or data.repair)
    settings = dataclasses.replace(made.settings, run=run, data=data)
    of_task = tasks.of(settings).task(settings, made.learned, made.bert, made.tokenizer)
    pooling = native.task_pooling(settings, made.bert, made.params)
    loaded = dataclasses.replace(made, settings=settings, params={})
    return _on_devices(
        loaded, of_task, made.params, pooling or sentence_encoder.Pooling(), folder
    )


def _on_devices(
    made: native.TaskFolder,
    of_task: spec.FineTuned,
    params: PyTree,
    pooling: sentence_encoder.Pooling,
    source: Path = Path("the pickled model"),
) -> TaskPredictor:
    """Returns a model whose parameters are copied to all devices of this machine.

    Args:
      params: on the host; the vocabulary may be padded.
      source: where they come from, for messages.

    Raises:
      InputError: the parameters are not those of the task.
    """
    mesh = sharding.make_mesh(-1, 1, 1)
    shapes = state.abstract_params(of_task.init, mesh)
    words = shapes["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    padded = network.pad_vocabulary(params, words.shape[0])
    native.check_shapes(padded, shapes, source)
    size, longest = made.settings.run.eval_batch_size, made.bert.max_length
    return TaskPredictor(
        made,
        predictors.make(of_task, mesh, size, longest),
        sharding.shard_params(padded, shapes, source),
        pooling,
    )
