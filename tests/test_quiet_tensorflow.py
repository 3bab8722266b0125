"""TensorFlow starts without a word and leaves the GPUs alone."""

import os
import subprocess
import sys

import pytest

from bert_jax import errors
from bert_jax.data import quiet_tensorflow


def test_it_starts_without_a_word():
    pytest.importorskip("tensorflow")
    program = (
        "from bert_jax.data import stream\n"
        "import numpy as np\n"
        "batch_at = lambda step: {'a': np.full(3, step)}\n"
        "made = stream.batches(batch_at, 5, 2, loader='tfdata', put=dict)\n"
        "print([int(batch['a'].sum()) for batch in made])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=environment, text=True
    )
    assert (done.stdout, done.stderr) == ("[15, 18]\n", "")


def test_without_it_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        errors.InputError, match=r"tensorflow is not .*bert_jax\[data\]"
    ):
        quiet_tensorflow.load()


def test_what_the_user_has_set_stays(monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")  # so that it is put back
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    quiet_tensorflow.load()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
