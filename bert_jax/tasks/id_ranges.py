"""The ids of rows, held against the tables and classes that they are looked up in.

On a device an id beyond a table is no error: it gives NaN, or silently another row. So
rows are looked at on the host, once, when they are made.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import labelled_rows
from bert_jax.tasks import model_task, task

_ROWS = 4096  # looked at together: a few megabytes
_PLACES = ("token_positions", "predicate_positions", "start_positions", "end_positions")


def checked(
    of_task: task.FineTuned, examples: Sequence[Any], table: labelled_rows.Table
) -> labelled_rows.Table:
    """Returns the table that a task made of these examples.

    Raises:
      InputError: an id, a token type, a label or a place is beyond what the model has,
        or a row is longer than its positions.
    """
    for name, limit in _limits(of_task, table).items():
        if name in table.tokens and _is_below(table.tokens[name], limit):
            continue  # as in all but broken runs, and faster than to look for the place
        for first, values in _columns(table, name):
            _check(name, first, values, np.array(limit), examples, table)
    lengths = table.lengths
    for name in _PLACES:
        for first, values in _columns(table, name):
            bound = lengths[first : first + len(values)]
            bound = bound.reshape(-1, *[1] * (values.ndim - 1))
            _check(name, first, values, bound, examples, table)
    return table


def _limits(of_task: task.FineTuned, table: labelled_rows.Table) -> dict[str, int]:
    """Returns the first value that is too large, by column."""
    assert isinstance(of_task, model_task.ModelTask)
    bert, head = of_task.model.config, of_task.model.head
    made = {"input_ids": bert.vocab_size, "row lengths": bert.max_length + 1}
    if bert.type_vocab_size:  # without a table nothing is looked up
        made["token_type_ids"] = bert.type_vocab_size
    if "choices" in table.fixed:
        made["labels"] = table.fixed["choices"].shape[1]
    elif head.kind in ("classifier", "tagger"):
        made["labels"] = head.classes
    return made


def _is_below(rows: Sequence[np.ndarray], limit: int) -> bool:
    """Says whether all values are from 0 to below a limit."""
    for first in range(0, len(rows), _ROWS):
        flat = np.concatenate(rows[first : first + _ROWS], axis=None)
        if flat.size and (flat.min() < 0 or flat.max() >= limit):
            return False
    return True


def _columns(table: labelled_rows.Table, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields a column of whole numbers in parts [rows, ...], with their first rows."""
    if name == "row lengths":
        yield 0, table.lengths
    elif name in table.fixed and table.fixed[name].dtype.kind in "iu":
        yield 0, table.fixed[name]
    elif name in table.tokens:
        rows = table.tokens[name]
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            most = max(row.shape[-1] for row in part)
            made = np.zeros((len(part), *part[0].shape[:-1], most), part[0].dtype)
            for place, row in enumerate(part):
                made[place, ..., : row.shape[-1]] = row
            yield first, made


def _check(
    name: str,
    first: int,
    values: np.ndarray,
    limit: np.ndarray,
    examples: Sequence[Any],
    table: labelled_rows.Table,
) -> None:
    """Raises InputError for the first value that is not from 0 to below its limit."""
    wrong = (values < 0) | (values >= limit)
    if not wrong.any():
        return
    place = tuple(np.argwhere(wrong)[0])
    most = np.broadcast_to(limit, values.shape)[place] - 1
    example = examples[int(table.examples[first + place[0]])]
    raise errors.InputError(
        f"{example.where}: {name} has {values[place]}, and the model takes 0 to "
        f"{most}. Its vocabulary, its labels or its sizes (model.*) do not belong to "
        "the task"
    )
