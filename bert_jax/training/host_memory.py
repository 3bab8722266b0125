"""Gives memory of the host back to the system."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator


def give_back() -> None:
    """Gives back what is freed already, where the C library can (glibc).

    It keeps half a gigabyte after a compilation otherwise, and a little more after each
    save and evaluation, as other threads do these.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def freeing_circles() -> Iterator[None]:
    """Frees what was made within and refers to itself in a circle, as pictures do.

    Python would keep it until it looks at all objects, which it seldom does and takes
    long; here it looks at those alone that were made within.
    """
    was_on = gc.isenabled()
    gc.disable()  # so that no object counts as an old one
    try:
        yield
    finally:
        gc.collect(0)
        if was_on:
            gc.enable()
