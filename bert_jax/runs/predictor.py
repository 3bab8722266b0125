"""A task's model over a data set: outputs row by row, then predictions and scores."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import console
from bert_jax.data.labeled import example_rows
from bert_jax.metrics import scores
from bert_jax.runs import unseen_labels
from bert_jax.tasks import spec
from bert_jax.training import sharding, signals

_AHEAD = 2  # batches that the device computes while the host makes the next


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """Says what a task's model makes of examples.

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
        made: dict[str, list[Any]] = {}
        waiting: list[tuple[np.ndarray, Any]] = []

        def take(rows: np.ndarray, outputs: Any) -> None:
            for name, values in jax.device_get(outputs).items():
                column = made.setdefault(name, [None] * len(table))
                for place, row in enumerate(rows):
                    column[row] = np.asarray(values[place])

        size = self._size(len(table))
        local = sharding.local_rows(size, self.mesh)
        lengths = self.longest, self.num_lengths
        is_shown = bool(title) and jax.process_index() == 0
        with console.Bar(len(table), "rows", title, is_shown=is_shown) as bar:
            for rows, batch in example_rows.in_order(table, size, *lengths):
                bar.note(f"rows of {batch['segment_ids'].shape[-1]} tokens")
                mine = {name: array[local] for name, array in batch.items()}
                placed = sharding.place(mine, self.mesh, size)
                call = functools.partial(self.step, params, placed)
                waiting.append((rows, signals.run_interruptible(call)))
                if len(waiting) > _AHEAD:
                    take(*waiting.pop(0))
                bar.update(len(rows))
        for rows, outputs in waiting:
            take(rows, outputs)
        return made

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
        """Returns the scores of labelled examples, and what was predicted."""
        made = self.predictions(params, examples, table, "evaluating")
        scored = self.task.score(examples, made)
        unseen = unseen_labels.count(self.task, examples)
        return dataclasses.replace(scored, unseen=unseen), made


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
      batch_size: made larger where the mesh does not divide it.
      full: makes the model's parameters of those that are trained.
    """
    shards = sharding.row_shards(mesh)
    size = -(-batch_size // shards) * shards

    def predict(params: PyTree, batch: Any) -> Any:
        return of_task.predict(full(params), batch)

    step = sharding.jit(predict, mesh, out_shardings=sharding.replicated(mesh))
    return Predictor(of_task, step, mesh, size, longest, num_lengths)
