"""How a process ends: its exit code and one message."""

import errno
import os
import re
from pathlib import Path

import command_line
import pytest
import small_inputs

from bert_jax import errors
from bert_jax.data.corpus import store_build
from bert_jax.text import vocabulary


def _raise(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left", "x"), 5, "x: No space left"),
        (FileNotFoundError(2, "No such file", "y"), 2, "y: No such file"),
        (MemoryError(), 2, "run.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 2, "RESOURCE_EXHAUSTED"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_unexpected_error(shell, inputs, tmp_path, monkeypatch, raised, code, words):
    monkeypatch.setattr(vocabulary, "learn", _raise(raised))
    done = small_inputs.prepare(shell, inputs, tmp_path, inputs / "text.txt")
    assert done.code == code
    assert words in done.message
    assert small_inputs.files(tmp_path) == {}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InputError, 2),
        (errors.CheckpointError, 3),
        (errors.NotFiniteError, 4),
        (errors.StorageError, 5),
        (errors.Stopped, 75),
    ],
)
def test_every_kind_of_error_has_its_code(
    shell, inputs, tmp_path, monkeypatch, kind, code
):
    error = kind("what, where, and what to do")
    monkeypatch.setattr(vocabulary, "learn", _raise(error))
    done = small_inputs.prepare(shell, inputs, tmp_path, inputs / "text.txt")
    assert (done.code, done.message) == (code, "what, where, and what to do\n")


def test_a_bug_keeps_its_traceback(shell, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "learn", _raise(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        small_inputs.prepare(shell, inputs, tmp_path, inputs / "text.txt")


@pytest.mark.parametrize("stage", ["vocabulary", "store"])
def test_ctrl_c_while_the_store_is_built(shell, inputs, tmp_path, monkeypatch, stage):
    if stage == "vocabulary":
        monkeypatch.setattr(vocabulary, "learn", _raise(KeyboardInterrupt()))
    else:
        monkeypatch.setattr(store_build, "fill_locally", _raise(KeyboardInterrupt()))
    done = small_inputs.prepare(shell, inputs, tmp_path, inputs / "text.txt")
    assert done.code == 130
    assert "interrupted" in done.err and "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_in_a_new_process(inputs, tmp_path):
    """Exit codes of real processes, through absl, Python's shutdown and the shell."""
    tiny, workdir = f"--config={inputs / 'tiny.py'}", f"--workdir={tmp_path / 'run'}"
    helped = command_line.for_real("predict", "--help")
    assert (helped.code, helped.err) == (0, "")
    misspelled = command_line.for_real("pretrain", tiny, workdir, "--config.run.sed=3")
    assert (misspelled.code, misspelled.err.count("\n")) == (2, 1)
    assert re.search(r"^error: .*run\.sed\b.*run\.seed\b", misspelled.err)
    large = command_line.for_real("pretrain", tiny, workdir, "--config.mesh.data=16")
    assert (large.code, large.err.count("\n")) == (2, 1)
    assert "8 device" in large.message
    assert not (tmp_path / "run").exists()


def test_a_terminal_without_unicode(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    arguments = (f"--config={inputs / 'tiny.py'}", f"--store={tmp_path / 's'}")
    done = command_line.for_real(
        "prepare", *arguments, f"--config.data.corpus={tmp_path / '没有.txt'}"
    )
    assert done.code == 2
    assert r"\u6ca1\u6709.txt" in done.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(inputs, store, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it fails at the last flush
    arguments = (f"--config={inputs / 'tiny.py'}", f"--store={store}")
    with open("/dev/full", "w") as full:
        done = command_line.for_real("prepare", *arguments, stdout=full)
    assert done.code == 5
    assert "No space left on device" in done.message
    reader, writer = os.pipe()
    os.close(reader)
    done = command_line.for_real("prepare", *arguments, stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (141, "")


# A suite that a shell runs in the background is started with SIGINT ignored.
INTERRUPT = (
    "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from bert_jax.config import pretraining\n"
    "from bert_jax.text import vocabulary\n"
    "vocabulary.learn = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\n"
    "def get_config():\n    config = pretraining.default()\n"
    "    config.data.corpus = {corpus!r}\n    return config\n"
)


def test_ctrl_c_for_real(inputs, tmp_path):
    (tmp_path / "c.py").write_text(INTERRUPT.format(corpus=str(inputs / "text.txt")))
    arguments = (f"--config={tmp_path / 'c.py'}", f"--store={tmp_path / 's'}")
    done = command_line.for_real("prepare", *arguments)
    assert done.code == 130
    assert "interrupted" in done.err and "Traceback" not in done.err
    assert not (tmp_path / "s").exists()
