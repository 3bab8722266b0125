"""What is freed goes back at once."""

import gc
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg

from bert_jax.training import logs, loop


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
    loop.trim_memory()
    assert before - _resident() > 50
    assert len(kept) == 1000 and kept[0].sum() == 12_500
