"""A resume that forgets something must be seen: the controls of inject_faults.py."""

import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from bert_jax import pretrain
from bert_jax.data.pretraining import instances
from bert_jax.training import checkpoint, state

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "reliability"
sys.path.insert(0, str(SCRIPTS))
import resume_lib  # noqa: E402

sys.path.remove(str(SCRIPTS))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    corpus = tiny_run.write_corpus(tmp_path_factory.mktemp("corpus") / "text.txt")
    return tiny_run.config(corpus, run__num_train_steps=4, run__save_every_steps=2)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return pretrain.train(config, tmp_path_factory.mktemp("whole"))


def resumed_from_step_2(whole, config, folder):
    shutil.copytree(whole.workdir, folder)
    shutil.rmtree(folder / "checkpoints" / "4")
    return pretrain.train(config, folder)


def is_same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def test_one_that_forgets_nothing_is_the_same_run(whole, config, tmp_path):
    resumed = resumed_from_step_2(whole, config, tmp_path / "run")
    assert is_same(resumed.state, whole.state)


@pytest.mark.parametrize("forgotten", resume_lib.CONTROLS)
def test_one_that_forgets_something_is_not(
    whole, config, tmp_path, monkeypatch, forgotten
):
    for place, name in (
        (checkpoint.Checkpoints, "restore_latest"),
        (state, "make_train_step"),
        (instances.Phase, "batch_at"),
    ):
        monkeypatch.setattr(place, name, getattr(place, name))  # put back afterwards
    exec(resume_lib.CONTROLS[forgotten], {})
    resumed = resumed_from_step_2(whole, config, tmp_path / "run")
    assert not is_same(resumed.state, whole.state)
