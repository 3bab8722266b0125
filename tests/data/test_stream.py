"""Batches made ahead: their order, their errors and their end."""

import os
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from bert_jax import errors
from bert_jax.config.pretraining import LOADERS
from bert_jax.data import stream


def batch_at(step):
    return {
        "input_ids": np.arange(6, dtype=np.int32).reshape(2, 3) + step,
        "weights": np.full((2, 1), step / 4, np.float32),
        "word_start": np.array([[True], [step % 2 == 0]]),
    }


def steps_of(batches):
    return [int(batch["input_ids"][0, 0]) for batch in batches]


@pytest.fixture(params=LOADERS)
def loader(request):
    if request.param == "tfdata":
        pytest.importorskip("tensorflow")
    return request.param


def test_batches_come_in_order_with_their_types(loader):
    made = list(stream.batches(batch_at, 5, 7, loader=loader, put=dict, prefetch=3))
    assert steps_of(made) == [5, 6, 7, 8, 9, 10, 11]
    for step, batch in zip(range(5, 12), made, strict=True):
        assert batch.keys() == batch_at(step).keys()
        for name, array in batch_at(step).items():
            assert batch[name].dtype == array.dtype
            np.testing.assert_array_equal(batch[name], array)


def test_order_holds_when_later_steps_are_ready_first(loader):
    def slow_at_first(step):
        time.sleep(0.05 if step % 3 == 0 else 0)
        return batch_at(step)

    made = stream.batches(slow_at_first, 0, 9, loader=loader, put=dict, prefetch=4)
    assert steps_of(made) == list(range(9))


def test_no_steps_make_no_batch(loader):
    def never(step):
        raise AssertionError(step)

    assert list(stream.batches(never, 3, 0, loader=loader, put=dict)) == []


def test_place_puts_batches_on_devices_in_order(loader):
    placed = []

    def place(batch):
        placed.append(int(batch["input_ids"][0, 0]))
        return jax.device_put(batch)

    made = list(stream.batches(batch_at, 10**6, 4, loader=loader, put=place))
    assert placed == [10**6, 10**6 + 1, 10**6 + 2, 10**6 + 3]
    assert all(isinstance(batch["weights"], jax.Array) for batch in made)
    assert [int(batch["input_ids"][1, 2]) for batch in made] == [p + 5 for p in placed]


class _OddError(Exception):
    """An error with a value, which no text could carry."""

    def __init__(self, value):
        super().__init__("odd")
        self.value = value


@pytest.mark.parametrize("bad_step", [4, 6])
def test_errors_are_the_original_and_come_at_their_step(loader, bad_step):
    def fails(step):
        if step >= bad_step:
            raise _OddError({"step": step})
        return batch_at(step)

    made = stream.batches(fails, 4, 9, loader=loader, put=dict, prefetch=3)
    seen = []
    with pytest.raises(_OddError) as caught:
        seen.extend(steps_of([batch])[0] for batch in made)
    assert caught.value.value == {"step": bad_step}
    assert seen == list(range(4, bad_step))


def test_errors_of_place_reach_the_caller(loader):
    def place(batch):
        raise _OddError(1)

    with pytest.raises(_OddError):
        next(stream.batches(batch_at, 0, 5, loader=loader, put=place))


def test_batches_are_made_ahead_but_not_far(loader):
    made, enough = [], threading.Event()

    def counted(step):
        made.append(step)
        if step >= 3:
            enough.set()
        return batch_at(step)

    batches = stream.batches(counted, 0, 1000, loader=loader, put=dict, prefetch=2)
    next(batches)
    assert enough.wait(10)  # Steps 1 to 3 are begun while nobody asks for them.
    time.sleep(0.1)
    assert max(made) <= 8
    batches.close()


def test_closing_stops_what_runs_ahead(loader):
    calls = []

    def slow(step):
        calls.append(step)
        time.sleep(0.02)
        return batch_at(step)

    threads = threading.active_count()
    batches = stream.batches(slow, 0, 10**6, loader=loader, put=dict, prefetch=3)
    next(batches)
    batches.close()
    seen = len(calls)
    assert seen < 20
    time.sleep(0.2)
    if loader == "thread":
        assert len(calls) == seen
        assert threading.active_count() == threads
    later = len(calls)
    time.sleep(0.2)
    assert len(calls) == later
    with pytest.raises(StopIteration):
        next(batches)


def test_what_makes_batches_ends_after_the_last_one_is_out(monkeypatch):
    ended = []

    def made(batch_at, steps, prefetch):
        try:
            yield from map(batch_at, steps)
        finally:
            ended.append(True)

    monkeypatch.setattr(stream, "_from_threads", made)
    batches = stream.batches(batch_at, 0, 3, loader="thread", put=dict)
    assert steps_of([next(batches) for _ in range(3)]) == [0, 1, 2]
    assert not ended
    assert list(batches) == []
    assert ended


def test_bad_arguments_are_refused_before_anything_runs():
    for start, steps, prefetch in ((-1, 1, 2), (0, -1, 2), (0, 1, 0)):
        with pytest.raises(errors.InputError, match="must be"):
            stream.batches(
                batch_at, start, steps, loader="thread", put=dict, prefetch=prefetch
            )


def test_missing_tensorflow_names_the_extra_and_the_other_loader(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(errors.InputError, match=r"bert_jax\[data\](.|\n)*'thread'"):
        stream.batches(batch_at, 0, 1, loader="tfdata", put=dict)


def test_gpus_held_by_tensorflow_are_an_error_with_a_way_out(monkeypatch):
    tf = pytest.importorskip("tensorflow")

    def held(devices, kind):
        assert (devices, kind) == ([], "GPU")
        raise RuntimeError("Visible devices cannot be modified")

    monkeypatch.setattr(tf.config, "set_visible_devices", held)
    with pytest.raises(errors.InputError, match="already uses the GPUs"):
        stream.batches(batch_at, 0, 1, loader="tfdata", put=dict)


def test_data_imports_without_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from bert_jax.data import stream\n"
        "from bert_jax.data.pretraining import instances\n"
        "made = stream.batches(lambda step: {}, 0, 2, loader='thread', put=id)\n"
        "assert len(list(made)) == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_tensorflow_starts_without_a_word():
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


def test_without_tensorflow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        errors.InputError, match=r"tensorflow is not .*bert_jax\[data\]"
    ):
        stream.load_tensorflow()


def test_what_the_user_has_set_of_tensorflow_stays(monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")  # so that it is put back
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    stream.load_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
