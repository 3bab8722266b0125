"""Growth as the soak measures it, on synthetic samples."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "reliability"
sys.path.insert(0, str(SCRIPTS))
import growth_lib  # noqa: E402

sys.path.remove(str(SCRIPTS))
CALM = growth_lib.Sample(
    step=0, memory=700.0, handles=12, threads=29, checkpoints=3, unfinished=1,
    saved=3_200_000, logged=0, files=25,
)  # fmt: skip


def sampled(**at_step):
    """Returns a run of 1,000 steps; each name is a function of the step."""
    samples = []
    for step in range(10, 1001, 10):
        values = {name: of(step) for name, of in at_step.items()}
        logged = {"logged": 250 * step, "step": step}
        samples.append(dataclasses.replace(CALM, **logged | values))
    return samples


def found(steps=growth_lib.LONG, **at_step):
    """Returns the problems of the run, judged as one of `steps` steps."""
    grown = growth_lib.measure(sampled(**at_step), 1000)
    return growth_lib.problems(grown, steps, 3, 1_000_000)


def test_a_calm_run_has_no_problems():
    grown = growth_lib.measure(sampled(), 1000)
    assert growth_lib.problems(grown, 1000, 3, 1_000_000) == {}
    assert grown.memory == pytest.approx(0, abs=1e-9)
    assert grown.handles == (12, 12) and grown.logged == pytest.approx((250, 250))


def test_saves_may_use_more_for_a_while():
    busy = {"handles": lambda step: 12 + 20 * (step % 30 == 0)}
    busy["checkpoints"] = lambda step: 3 + (step % 30 == 0)
    assert found(**busy) == {}


def test_the_warm_up_may_grow():
    assert found(memory=lambda step: 500.0 + min(step, 200)) == {}


@pytest.mark.parametrize(
    ("name", "of", "numbers"),
    [
        ("memory", lambda s: 700 + 0.0011 * s, ["1.10"]),
        ("handles", lambda s: 12 + s // 500, ["12", "13"]),
        ("threads", lambda s: 29 + s // 50, ["33", "41"]),
        ("files", lambda s: 25 + s // 500, ["25", "26"]),
        ("checkpoints", lambda s: 3 + s // 500, ["5"]),
        ("unfinished", lambda s: s // 250, ["4"]),
        ("saved", lambda s: 5200 * s, ["5200000", "1000000"]),
        ("logged", lambda s: s * s, ["800", "1600"]),
    ],
)
def test_growth_is_detected(name, of, numbers):
    problems = found(**{name: of})
    assert list(problems) == [name]
    assert all(number in problems[name].split() for number in numbers)


def test_memory_may_grow_by_less_than_a_megabyte():
    assert found(memory=lambda step: 700 + 0.0009 * step) == {}


def test_short_runs_may_fill_pools_and_no_more():
    assert found(steps=1000, memory=lambda step: 700 + 0.0199 * step) == {}
    problems = found(steps=1000, memory=lambda step: 700 + 0.0201 * step)
    assert "20.10" in problems["memory"].split()


@pytest.mark.parametrize(
    ("status", "is_alive"),
    [
        ("State:\tR (running)\nVmRSS:\t  5 kB\n", True),
        ("State:\tR (running)\nThreads:\t1\n", False),
        ("State:\tZ (zombie)\nVmRSS:\t  5 kB\n", False),
    ],
)
def test_a_process_without_memory_is_ending(status, is_alive):
    assert (growth_lib.alive(status) is not None) == is_alive


def test_a_process_is_watched_to_its_end(tmp_path):
    program = (
        "import os, time\n"
        "os.makedirs('checkpoints/20'), os.makedirs('checkpoints/30.tmp')\n"
        "os.makedirs('checkpoints/deleted/10')\n"
        "open('checkpoints/20/array', 'wb').write(bytes(1000))\n"
        "open('curves.png', 'wb').write(bytes(77))\n"
        "files = [open(os.devnull) for _ in range(5)]\n"
        "open('metrics.jsonl', 'w').write('{\"step\": 20}\\n{\"step\": 3')\n"
        "time.sleep(3)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    samples = list(growth_lib.watch(child.pid, tmp_path, 0.05))
    child.wait()
    first = samples[0]  # at the last one it may be closing them
    assert (first.step, first.checkpoints, first.unfinished) == (20, 1, 2)
    assert (first.saved, first.logged, first.files) == (1000, 23, 2)
    assert first.handles == 8 and first.threads == 1 and 2 < first.memory < 100


def test_a_file_that_is_renamed_counts_once(tmp_path, monkeypatch):
    (tmp_path / "20").mkdir()
    (tmp_path / "20" / "array").write_bytes(bytes(1000))
    (tmp_path / "deleted").mkdir()
    walk = os.walk

    def renaming(folder):
        for found in walk(folder):
            yield found
            if found[0].endswith("20"):
                os.rename(found[0], tmp_path / "deleted" / "20")

    monkeypatch.setattr(os, "walk", renaming)
    assert growth_lib.size(tmp_path) == 1000


def test_a_picture(tmp_path):
    sys.path.insert(0, str(SCRIPTS))
    import growth_lib

    sys.path.remove(str(SCRIPTS))
    samples = sampled()
    path = tmp_path / "soak.png"
    growth_lib.draw(samples, growth_lib.measure(samples, 1000), path)
    assert path.read_bytes().startswith(b"\x89PNG")
