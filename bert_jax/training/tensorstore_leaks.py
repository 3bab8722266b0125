"""Keeps saves from adding much to the memory of a run.

tensorstore (0.1.74 to 0.1.86, at least) never frees the strings of the JSON that it
hands to Python. Orbax asks for some with every array and, since 0.11.31, for all of
tensorstore's metrics before and after every save, for a line of its log on bytes
written that is left out where they are 0: of a model with 30 arrays and its moments
85 KB a save, 4 MB every 1,000 steps where each 20th is saved. Both questions are
answered here without asking again.
"""

import copy
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import tensorstore

_MOST_KNOWN = 16  # folders of a save, and of the one before


def mend() -> None:
    """Stops both leaks, once a process."""
    spec = tensorstore.KvStore.Spec
    if not hasattr(spec.to_json, "known"):
        spec.to_json = _remembering(spec.to_json)
    name = "experimental_collect_matching_metrics"  # experimental: it may be gone
    metrics = getattr(tensorstore, name, None)
    if metrics is not None and not hasattr(metrics, "unpatched"):
        setattr(tensorstore, name, _empty_for_orbax(metrics))


def _empty_for_orbax(metrics: Any) -> Any:
    """Returns the function, with nothing to report where Orbax calls it."""

    @functools.wraps(metrics)
    def collect(*args: Any, **named: Any) -> Any:
        modules = (frame.f_globals.get("__name__", "") for frame in _frames())
        is_orbax = any(name.startswith("orbax.") for name in modules)
        return [] if is_orbax else metrics(*args, **named)

    collect.unpatched = metrics  # pyright: ignore
    return collect


def _frames() -> Iterator[types.FrameType]:
    """Yields the frames of this call and of those that led to it."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _remembering(to_json: Any) -> Any:
    """Returns the method with a memory of what it returned last."""
    known: dict[Any, Any] = {}

    @functools.wraps(to_json)
    def remembered(self: Any, *args: Any, **named: Any) -> Any:
        key = repr(self), args, tuple(named.items())
        if key not in known:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[key] = to_json(self, *args, **named)
        # Whoever gets it may change it. It may be gone: saves have threads.
        return copy.deepcopy(known.get(key)) or to_json(self, *args, **named)

    remembered.known = known  # pyright: ignore
    return remembered
