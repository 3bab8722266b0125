"""Times of steps."""

import time
from collections.abc import Callable


def timed(step: Callable[[], object]) -> float:
    """Returns the seconds of one step, until its results are ready."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
