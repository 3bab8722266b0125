"""Memory of the host that the C library has freed: kept for the next step, or returned.

On a CPU XLA allocates the temporaries of a step, and frees them after it. By default
glibc returns them to the system, and every page of them is a fault in the next step: a
quarter to a third of the time of a small model. Only the main heap can keep them, and
threads have other heaps unless this is set before they start: when a command begins.
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
_KEPT = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
_GPUS = ("/dev/nvidia*", "/dev/dxg", "/dev/nvhost*", "/dev/nvgpu*")
_AMD = "/dev/kfd"
_TPUS = ("/dev/accel*", "/dev/vfio/[0-9]*")


def gpu_files() -> list[str]:
    """Returns device files of NVIDIA GPUs, in a server, under WSL or of a Jetson."""
    return [path for pattern in _GPUS for path in sorted(glob.glob(pattern))]


def tpu_files() -> list[str]:
    """Returns the kernel's device files of TPU chips; starts no device."""
    return [path for pattern in _TPUS for path in sorted(glob.glob(pattern))]


def keep_freed(environment: Mapping[str, str] = os.environ) -> None:
    """Has this process keep what it frees, if JAX will compute on a CPU.

    Must be called before the process has threads. Does nothing on a machine with a GPU
    or TPU, where the environment sets glibc's allocator, or with another C library.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    accelerators = os.path.exists(_AMD) or gpu_files() or tpu_files()
    on_cpu = platforms == "cpu" or not (platforms or accelerators)
    if on_cpu and not _is_set(environment):
        mallopt = _function("mallopt")
        for parameter, value in _KEPT if mallopt else ():
            mallopt(parameter, value)


def _is_set(environment: Mapping[str, str]) -> bool:
    """Returns whether the environment has settings of glibc's allocator.

    >>> _is_set({"MALLOC_ARENA_MAX": "4"}), _is_set({"HOME": "/root"})
    (True, False)
    """
    tunables = environment.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(
        name.startswith("MALLOC_") for name in environment
    )


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
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # a static Python, Windows
        return None
