"""Memory of the host that the C library has freed: kept for the next step, or returned.

XLA allocates the temporaries of every step anew on a CPU. By default glibc returns them
to the system after the step, and every page of them is a fault in the next one: a
quarter of the time of a small model. Only its main heap can be told to keep them, and
threads use others, unless it is told before there are any: when a command begins.
"""

import ctypes
import glob
import os
from collections.abc import Mapping
from typing import Any

# Parameters of mallopt in glibc's malloc.h, and their values: free memory at the top of
# the heap is kept, large allocations are no mappings of their own, and there is one
# heap for all threads.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEPT = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
# Settings of the user, which stay.
_SET = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
_GPUS = ("/dev/nvidia*", "/dev/dxg", "/dev/nvhost*", "/dev/nvgpu*")
_TPUS = ("/dev/accel*", "/dev/vfio/[0-9]*")


def gpu_files() -> list[str]:
    """Returns device files of NVIDIA GPUs, in a server, under WSL or of a Jetson."""
    return [path for pattern in _GPUS for path in sorted(glob.glob(pattern))]


def tpu_files() -> list[str]:
    """Returns the kernel's device files of TPU chips; starts no device."""
    return [path for pattern in _TPUS for path in sorted(glob.glob(pattern))]


def keep_freed(environment: Mapping[str, str] = os.environ) -> None:
    """Has this process keep what it frees, if JAX will compute on a CPU.

    Must be called before the process has threads. Does nothing where a GPU or TPU is
    here, the environment sets glibc's allocator, or the C library is another.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    on_cpu = platforms == "cpu" or not (platforms or gpu_files() or tpu_files())
    if on_cpu and not any(name in environment for name in _SET):
        mallopt = _function("mallopt")
        for parameter, value in _KEPT if mallopt else ():
            mallopt(parameter, value)


def trim() -> None:
    """Returns freed memory to the system, where the C library can (glibc).

    Otherwise it keeps half a gigabyte after a compilation, and a little more after each
    save and evaluation, which run in other threads.
    """
    malloc_trim = _function("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _function(name: str) -> Any:
    """Returns a function of the C library, or None if it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None)
