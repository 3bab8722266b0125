"""Times of steps, and the tables that show them."""

import time
from collections.abc import Callable, Sequence


def timed(step: Callable[[], object]) -> float:
    """Returns the seconds of one step, until its results are there."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows in columns, the first of them their header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
