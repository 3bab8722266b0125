"""Runs whose first steps train on shorter rows (arXiv:1810.04805, A.2)."""

import dataclasses
from collections.abc import Callable

from bert_jax.data.pretraining import instances

# Tokens in a row -> the rows of that length.
RowsOf = Callable[[int], instances.Instances]


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Steps whose rows have one length.

    Attributes:
      rows: rows of that length.
      length: tokens in a row.
      first_step: first step of the phase, from 0.
      last_step: the step after its last.
    """

    rows: instances.Instances
    length: int
    first_step: int
    last_step: int

    def batch_at(
        self, step: int, batch_size: int, rows: slice | None = None
    ) -> instances.Batch:
        """Returns the batch of a step of the run, or some of its rows."""
        return self.rows.batch_at(step - self.first_step, batch_size, rows)

    def names_at(
        self, step: int, batch_size: int, rows: slice | None = None
    ) -> list[str]:
        """Returns the names of the rows of that batch, as `Instances.names_at`."""
        return self.rows.names_at(step - self.first_step, batch_size, rows)


def plan(
    rows_of: RowsOf,
    num_train_steps: int,
    length: int,
    first_length: int,
    first_steps: int,
) -> list[Phase]:
    """Returns the one or two phases of a run, in order.

    Args:
      length, first_length: tokens in a row, and in a row of the first phase.
      first_steps: steps of the first phase; 0 = none.
    """
    bounds = (first_length, 0, first_steps), (length, first_steps, num_train_steps)
    return [
        Phase(rows_of(tokens), tokens, begin, end)
        for tokens, begin, end in bounds
        if begin < end
    ]


def at(phases: list[Phase], step: int) -> Phase:
    """Returns the phase of a step, from 0; the last one for later steps."""
    return next((x for x in phases if step < x.last_step), phases[-1])
