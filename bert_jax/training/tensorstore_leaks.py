"""Keeps saves from adding much to the memory of a run.

tensorstore (0.1.76 to 0.1.86, at least) never frees the strings of the JSON that it
hands to Python. Orbax 0.12 asks for some with every array and with every save: of a
model with 30 arrays and its moments 85 KB a save, 4 MB every 1,000 steps where each
20th is saved. Both questions are answered here without asking again.
"""

import contextlib
import copy
import functools
from typing import Any

import tensorstore

_MOST_KNOWN = 16  # folders of a save, and of the one before


def mend() -> None:
    """Mends what leaks, once a process; what it cannot find it leaves as it is."""
    spec = tensorstore.KvStore.Spec
    if not hasattr(spec.to_json, "known"):
        spec.to_json = _remembering(spec.to_json)
    # How many bytes there were before and after a save, for a line of Orbax's log that
    # is left out where it is 0. The module is Orbax's own and may go elsewhere.
    with contextlib.suppress(ImportError):
        from orbax.checkpoint._src.serialization import tensorstore_utils

        if hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
            tensorstore_utils.get_tensorstore_raw_bytes = lambda *_: 0


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
