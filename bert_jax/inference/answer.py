"""A fine-tuned model that answers: from its folder to one prediction per example.

`load` reads a run, an export, or anybody's folder whose model has the head of a task.
Ours have `task.json` (`checkpoints.native`), which exports keep. In any other folder
the class in config.json, or the parts in model.json, name the head; `id2label` and
`problem_type` define its outputs, as they do for `transformers`.

`Predictor` runs a task over a table of rows, for evaluation in training too;
`TaskModel` is a loaded model with its own parameters and tokenizer.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import checkpoints, console, errors, tasks
from bert_jax.checkpoints import native, sentence_encoder, weights
from bert_jax.config import finetuning
from bert_jax.data.labeled import example_rows, python_examples
from bert_jax.data.labeled import examples as data_examples
from bert_jax.foundation import interrupts
from bert_jax.inference import encode
from bert_jax.metrics import scores, tag_schemes
from bert_jax.model import heads, network
from bert_jax.model import heads as model_heads
from bert_jax.tasks import class_names, spec
from bert_jax.text import coverage as text_coverage
from bert_jax.text.coverage import Coverage
from bert_jax.training import sharding, state

# As the question-answering pipeline of transformers cuts contexts, in tokens.
_SPAN_LENGTH, _DOC_OVERLAP = 384, 128
_NEXT_SENTENCE = "nsp_head"  # answers as a classifier of pairs with two classes
_SEPARATOR = "|"  # of several labels in a cell of a file that is evaluated


def can_answer(path: Path) -> bool:
    """Returns whether the model of a folder has the head of a task.

    Returns False for a folder without a model; reading it raises the error.
    """
    try:
        return native.is_task(path) or checkpoints.open(path).head != ""
    except errors.InputError:
        return False


def read(path: Path) -> native.TaskFolder:
    """Reads a model that answers a task: a run, an export, or anybody's folder.

    Raises:
      InputError: it has no head of a task, or it is damaged.
    """
    if native.is_task(path) or not can_answer(path):
        return native.read_task(path)
    folder = checkpoints.open(path)
    head, found = folder.head, folder.read()
    given = found.weights
    if head not in given.params:
        raise errors.InputError(
            f"{path} has no {head}, though its config names one: copy the whole folder"
        )
    needed = {head, *network.needed_by(head, given.parts)}
    kept = {name: x for name, x in given.params.items() if name in needed}
    if head == _NEXT_SENTENCE:
        kept["classifier"] = kept.pop(head)
    assert found.tokenizer is not None
    return native.TaskFolder(
        _settings(path, found, head),
        _learned(path, given, head),
        given.config,
        kept,
        found.tokenizer,
        {},
    )


def _settings(
    path: Path, found: checkpoints.LoadedModel, head: str
) -> finetuning.FinetuningConfig:
    """Returns the settings of a run that would have trained this model."""
    config: Any = finetuning.default().unlock()
    config.init_from = config.data.train = str(path)
    config.data.task = _task(path, found.weights, head)
    config.data.max_seq_length = found.max_seq_length
    if heads.TRANSFORM in network.needed_by(head, found.weights.parts):
        config.head.transform = True
        if head in ("classifier", model_heads.MULTIPLE_CHOICE):
            config.head.pooling = "mean"
    if found.weights.problem_type == weights.MULTI_LABEL:
        config.data.multi_label = _SEPARATOR
    if head == model_heads.SPAN:
        config.data.max_seq_length = min(found.max_seq_length, _SPAN_LENGTH)
        config.data.doc_overlap = min(_DOC_OVERLAP, config.data.max_seq_length // 2)
    settings = finetuning.parse(config)
    return dataclasses.replace(settings, model=dataclasses.asdict(found.weights.config))


def _task(path: Path, given: weights.Weights, head: str) -> str:
    """Returns the task of a head.

    One output without a problem type is a number, as for transformers.
    """
    if given.problem_type == weights.REGRESSION and given.num_labels > 1:
        raise errors.InputError(
            f"{path} is a regression of {given.num_labels} numbers a text, and one is "
            "supported. For its vectors: python -m bert_jax.predict --task=features"
        )
    is_number = given.num_labels == 1 and given.problem_type != weights.MULTI_LABEL
    found = (x for x in tasks.TASKS.values() if x.reads_head(head, is_number))
    return next(found).name


def _check_names(path: Path, labels: tuple[str, ...]) -> None:
    """Raises InputError where two classes have one name, and so one probability."""
    for number, name in enumerate(labels):
        if labels.index(name) < number:
            raise errors.InputError(
                f"{path}: id2label names the classes {labels.index(name)} and {number} "
                f"both {name!r}: give each a name of its own in config.json"
            )


def _learned(path: Path, given: weights.Weights, head: str) -> spec.Metadata:
    """Returns the classes of a head, by their names or numbers."""
    values: dict[str, Any] = {}
    if head in ("classifier", "tagger", _NEXT_SENTENCE):
        count = given.num_labels
        numbered = tuple(f"LABEL_{number}" for number in range(count))
        values["labels"] = given.labels or numbered
        if head != "tagger":
            _check_names(path, values["labels"])
    if head == "tagger":
        values["scheme"] = tag_schemes.of_labels(values["labels"])
    return spec.Metadata(**values)


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts examples with the model of a task.

    Attributes:
      task: of the model.
      step: the jitted `task.predict`.
      batch_size: rows that are computed together.
      longest: row length that no batch exceeds.
      num_lengths: row lengths that are compiled for a table; 0 = fixed ones.
    """

    task: spec.FineTuned
    step: Callable[[PyTree, Any], Any]
    mesh: jax.sharding.Mesh
    batch_size: int
    longest: int
    num_lengths: int = 0

    def outputs(
        self, params: PyTree, table: example_rows.ExampleTable, title: str = ""
    ) -> spec.Outputs:
        """Returns the outputs of every row, in the order of the table.

        With a title, as "evaluating", a bar shows how far it is.
        """
        columns: dict[str, list[Any]] = {}
        size = self._size(len(table))
        local = sharding.local_rows(size, self.mesh)
        lengths = self.longest, self.num_lengths
        is_shown = bool(title) and jax.process_index() == 0
        with console.Bar(len(table), "rows", title, is_shown=is_shown) as bar:

            def compute(numbered: tuple[np.ndarray, example_rows.Batch]) -> Any:
                rows, batch = numbered
                bar.note(f"rows of {batch['segment_ids'].shape[-1]} tokens")
                own = {name: array[local] for name, array in batch.items()}
                on_device = sharding.to_devices(own, self.mesh, size)
                call = functools.partial(self.step, params, on_device)
                outputs = interrupts.run_interruptible(call)
                bar.update(len(rows))
                return outputs

            batches = example_rows.in_order(table, size, *lengths)
            for (rows, _), outputs in encode.computed_ahead(batches, compute):
                for name, values in outputs.items():
                    column = columns.setdefault(name, [None] * len(table))
                    for position, row in enumerate(rows):
                        column[row] = np.asarray(values[position])
        return columns

    def _size(self, rows: int) -> int:
        """Returns how many rows are computed together: few, where there are few.

        One of the powers of two times the parts that the mesh cuts rows into, so that
        one text costs one row and few programs are compiled.
        """
        size = sharding.row_shards(self.mesh)
        while size < min(rows, self.batch_size):
            size *= 2
        return min(size, self.batch_size)

    def predictions(
        self,
        params: PyTree,
        examples: Sequence[Any],
        table: example_rows.ExampleTable,
        title: str = "",
    ) -> list[spec.Prediction]:
        """Returns one prediction an example, in order; `title` as in `outputs`."""
        return self.task.decode(examples, table, self.outputs(params, table, title))

    def scores(
        self, params: PyTree, examples: Sequence[Any], table: example_rows.ExampleTable
    ) -> tuple[scores.Scores, list[spec.Prediction]]:
        """Returns the scores of labeled examples, and the predictions."""
        result = self.predictions(params, examples, table, "evaluating")
        scored = self.task.score(examples, result)
        unseen = class_names.count_unseen(self.task, examples)
        return dataclasses.replace(scored, unseen=unseen), result


def make(
    of_task: spec.FineTuned,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    longest: int,
    *,
    num_lengths: int = 0,
    full: Callable[[PyTree], PyTree] = lambda params: params,
) -> Predictor:
    """Returns the predictor of a task.

    Args:
      batch_size: rounded up to a multiple of the row shards of the mesh.
      full: returns all parameters of the model from the trained ones.
    """
    shards = sharding.row_shards(mesh)
    size = -(-batch_size // shards) * shards

    def predict(params: PyTree, batch: Any) -> Any:
        return of_task.predict(full(params), batch)

    step = sharding.jit(predict, mesh, out_shardings=sharding.replicated(mesh))
    return Predictor(of_task, step, mesh, size, longest, num_lengths)


WINDOW = 1024  # examples that are read and predicted together


@dataclasses.dataclass(frozen=True, eq=False)
class TaskModel:
    """The model of a task on the devices, ready to read examples and predict.

    Attributes:
      task_folder: settings, labels and tokenizer; its copy of the weights is released.
      params: on the devices.
      pooling: of a bi-encoder, its pooling, if other libraries support it too.
    """

    task_folder: native.TaskFolder
    predictor: Predictor
    params: PyTree
    pooling: sentence_encoder.Pooling = sentence_encoder.Pooling()

    def __repr__(self) -> str:
        """Returns the task and its labels, without the arrays of the model."""
        labels = self.task_folder.learned.labels
        return f"TaskModel({self.kind}, {len(labels)} labels)"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickles the arrays and the task; the program is compiled again when read.

        As after `load`, the copy is on all devices of the machine that reads it.
        """
        params = jax.tree.map(np.asarray, self.params)
        return _on_devices, (
            self.task_folder,
            self.predictor.task,
            params,
            self.pooling,
        )

    @property
    def task_spec(self) -> spec.TaskSpec:
        """The task."""
        return tasks.of(self.task_folder.settings)

    @property
    def kind(self) -> str:
        """The name of the task, as `data.task` has it."""
        return self.task_spec.name

    def predict(self, values: Iterable[Any]) -> list[spec.Prediction]:
        """Returns one prediction per value.

        `data.labeled.python_examples` documents the values. Logs a warning if many
        tokens are [UNK] or many texts are cut.

        Raises:
          InputError: a value does not have the form of the task.
        """
        coverage = Coverage()
        examples = python_examples.examples_of_values(self.task_spec.form, values)
        result = self.of_examples(examples, coverage=coverage)
        self.warn(coverage, "predict")
        return result

    def warn(self, coverage: Coverage, name: str) -> None:
        """Logs a warning if many tokens of texts are [UNK] or many of them are cut."""
        length = self.task_folder.settings.data.max_seq_length
        coverage.warn(
            self.task_folder.tokenizer, name, text_coverage.advice_on_length(length)
        )

    def of_examples(
        self,
        examples: Sequence[Any],
        notes: Counter[str] | None = None,
        coverage: Coverage | None = None,
    ) -> list[spec.Prediction]:
        """Returns one prediction an example, in their order, whatever their labels.

        Args:
          notes: counts changes to rows, such as truncation.
          coverage: counted up with the tokens of the texts.
        """
        if not examples:
            return []
        # Each example is predicted independently of the others.
        each = self.predictor.task.one_by_one()
        bare = [data_examples.unlabeled(example) for example in examples]
        table = _table(each, bare, notes, coverage)
        predictor = dataclasses.replace(self.predictor, task=each)
        return predictor.predictions(self.params, bare, table)

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
                predicted = self.of_examples(window, notes, coverage)
                yield from zip(window, predicted, strict=True)
                window = []
        predicted = self.of_examples(window, notes, coverage)
        yield from zip(window, predicted, strict=True)

    def scores(
        self,
        examples: Sequence[Any],
        notes: Counter[str] | None = None,
        coverage: Coverage | None = None,
    ) -> tuple[scores.Scores, list[spec.Prediction]]:
        """Scores labeled examples; `notes` and `coverage` as in `of_examples`.

        Labels that the model has not seen count as errors.

        Raises:
          InputError: the model has seen none of the labels.
        """
        of_task = self.predictor.task
        known = class_names.known_part(of_task, examples)
        table = _table(of_task, known, notes, coverage)
        return self.predictor.scores(self.params, examples, table)


def _table(
    of_task: spec.FineTuned,
    examples: Sequence[Any],
    notes: Counter[str] | None,
    coverage: Coverage | None,
) -> example_rows.ExampleTable:
    """Returns the rows of examples, and adds their counts.

    Errors do not advise on settings of training.
    """
    try:
        table = spec.checked(of_task, examples, of_task.table(examples))
    except errors.SettingError as error:
        raise error.of_trained_model() from None
    if notes is not None:
        notes.update(table.notes)
    if coverage is not None:
        coverage.update(table.coverage)
    return table


def load(folder: Path, dtype: str = "float32", *, repair: bool = False) -> TaskModel:
    """Loads a fine-tuned model, or the best one of a run.

    Args:
      dtype: of activations and products.
      repair: fix labels and files where possible, also if training did not.

    Raises:
      InputError: it is none, or damaged.
    """
    result = read(folder)
    # The kernel was chosen for the machine of the run, which may be another.
    run = dataclasses.replace(result.settings.run, dtype=dtype, attention="auto")
    data = result.settings.data
    data = dataclasses.replace(data, repair=repair or data.repair)
    settings = dataclasses.replace(result.settings, run=run, data=data)
    of_task = tasks.of(settings).task(
        settings, result.learned, result.bert, result.tokenizer
    )
    pooling = native.task_pooling(settings, result.bert, result.params)
    loaded = dataclasses.replace(result, settings=settings, params={})
    return _on_devices(
        loaded, of_task, result.params, pooling or sentence_encoder.Pooling(), folder
    )


def _on_devices(
    result: native.TaskFolder,
    of_task: spec.FineTuned,
    params: PyTree,
    pooling: sentence_encoder.Pooling,
    source: Path = Path("the pickled model"),
) -> TaskModel:
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
    size, longest = result.settings.run.eval_batch_size, result.bert.max_length
    return TaskModel(
        result,
        make(of_task, mesh, size, longest),
        sharding.shard_params(padded, shapes, source),
        pooling,
    )
