"""What is freed goes back at once."""

import gc
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg

from bert_jax.foundation import host_memory
from bert_jax.training import logs


def test_drawing_the_curves_leaves_no_pixels_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "DRAW_SECONDS", 0)
    with logs.Writer(tmp_path, start_step=0) as log:
        log.write(1, {"train/loss": 2.0})
        log.draw()
        log.draw()
        assert not [x for x in gc.get_objects() if type(x) is RendererAgg]


def _resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says it")
def test_what_is_freed_goes_back_to_the_system():
    # 200 MB in pieces that the C library keeps, as every second one stays in use.
    pieces = [np.ones(12_500) for _ in range(2000)]
    kept, before = pieces[::2], _resident()
    del pieces
    host_memory.trim()
    assert before - _resident() > 50
    assert len(kept) == 1000 and kept[0].sum() == 12_500


_ALLOCATES = """
import ctypes, resource, sys, threading
from bert_jax.foundation import host_memory

if sys.argv[1] == "kept":
    host_memory.keep_freed()
library, size, faults = ctypes.CDLL(None), 64 << 20, []
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
library.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)

def steps():
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = library.malloc(size)
        library.memset(block, 1, size)
        library.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=steps)  # as a device has threads
thread.start()
thread.join()
print(sum(faults[1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_the_memory_of_a_step_is_kept_for_the_next():
    """A page that is returned is a fault when it is used again."""

    def faults(how, platforms, **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        environment = kept | {"JAX_PLATFORMS": platforms} | more
        run = [sys.executable, "-c", _ALLOCATES, how]
        return int(subprocess.check_output(run, env=environment, text=True))

    assert faults("kept", "cpu") < 100
    assert faults("returned", "cpu") > 1000
    assert faults("kept", "cuda") > 1000
    assert faults("kept", "cpu", MALLOC_ARENA_MAX="8") > 1000  # the user's own setting
