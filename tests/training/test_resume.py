"""A run that is stopped and resumed is the uninterrupted one, to the bit."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import pytest
import small_loop
import small_model

from bert_jax import errors
from bert_jax.training import checkpoint, guards, logs, loop, optimizer, sharding, state

CONFIG = optimizer.OptimizerConfig(learning_rate=0.01, warmup_steps=2)


def train(workdir, num_steps, stop_at=None):
    """Trains the small model in a workdir as a command would, resuming it."""
    transform = optimizer.make(CONFIG, 100)
    mesh = sharding.make_mesh(1, 1, 1)
    arguments = (small_model.init_fn, jax.random.key(0), transform, mesh)
    shapes = state.abstract(small_model.init_fn, transform, mesh)
    train_step = state.make_train_step(
        state.StepSpec(
            small_model.prepare,
            small_model.weights,
            small_model.losses(0.2),
            accumulation_steps=2,
        ),
        transform,
        optimizer.learning_rate(CONFIG, 100),
        shapes,
        seed=1,
    )
    with checkpoint.Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        current, meta = checkpoints.restore_latest(shapes) or (
            state.create(*arguments),
            {"standing": guards.LoopState().to_json()},
        )
        start_step = int(current.step)

        def batches():
            for step in itertools.count(start_step):
                if step == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield sharding.to_devices(small_model.batch_at(step), mesh)

        def save(step, saved, now):
            checkpoints.save(step, saved, {"standing": now.to_json()})

        limits = loop.Limits(num_steps, log_every_steps=2, save_every_steps=100)
        run = small_loop.SmallRun(train_step, limits)
        loop_state = guards.LoopState.from_meta(meta)
        with logs.Writer(workdir, start_step=start_step) as out:
            recorder = small_loop.SmallRecorder(out.write, out.report, save)
            final = loop.run(run, batches(), current, loop_state, recorder)
    assert train_step.jitted._cache_size() == 1
    return final


def run_process(workdir, stop_at):
    """Trains 6 steps in another process, on one pinned core."""
    program = (
        "import os, sys, pathlib; os.sched_setaffinity(0, {int(sys.argv[3])})\n"
        "import test_resume\n"
        "stop_at = int(sys.argv[2])\n"
        "test_resume.train(pathlib.Path(sys.argv[1]), 6, stop_at)"
    )
    here = Path(__file__).parent
    folders = here, here.parent / "support", here.parents[1]
    path = os.pathsep.join(map(str, folders))
    core = str(min(os.sched_getaffinity(0)))
    settings = {
        "PYTHONPATH": path,
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            program,
            str(workdir),
            str(stop_at),
            core,
        ],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )


def logged_losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["train/loss"]) for line in map(json.loads, lines)]


def final_arrays(workdir):
    mesh = sharding.make_mesh(1, 1, 1)
    transform = optimizer.make(CONFIG, 100)
    shapes = state.abstract(small_model.init_fn, transform, mesh)
    with checkpoint.Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        return checkpoints.restore_latest(shapes)[0]


@pytest.mark.slow  # tests/test_pretrain.py does so with the whole job
def test_two_processes_in_turn_equal_one_to_the_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    done = run_process(whole, -1)
    assert done.returncode == 0, done.stderr[-3000:]
    stopped = run_process(parts, 2)
    assert "Stopped: stopped by SIGTERM after step 3 of 6" in stopped.stderr
    assert checkpoint.steps(parts / "checkpoints") == [3]
    resumed = run_process(parts, -1)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    expected, found = final_arrays(whole), final_arrays(parts)
    assert int(expected.step) == int(found.step) == 6
    chex.assert_trees_all_equal(found, expected)
    assert logged_losses(parts) == logged_losses(whole)
    assert [step for step, _ in logged_losses(whole)] == [2, 4, 6]


@pytest.mark.parametrize("name", optimizer.NAMES)
def test_the_small_run_of_that_test_in_this_process(tmp_path, monkeypatch, name):
    config = dataclasses.replace(CONFIG, name=name)
    monkeypatch.setitem(globals(), "CONFIG", config)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    with pytest.raises(errors.Stopped):
        train(parts, 4, stop_at=1)
    assert checkpoint.steps(parts / "checkpoints") == [2]
    resumed = train(parts, 4)
    assert int(resumed.step) == 4
    chex.assert_trees_all_equal(resumed, train(whole, 4))
    assert (parts / "curves.png").exists()
