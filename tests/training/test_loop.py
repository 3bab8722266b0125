import dataclasses
import itertools
import json
import os
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest
import small_loop

from bert_jax import errors
from bert_jax.foundation import interrupts
from bert_jax.training import guards, loop, state

LIMITS = {field.name for field in dataclasses.fields(loop.Limits)}


class FakeStep:
    """A train step that records its calls; the loss of step t is t, its weight 2."""

    def __init__(self, calls, bad_step=None):
        self.calls = calls
        self.bad_step = bad_step

    def __call__(self, current, batch):
        step = int(current.step) + 1
        self.calls.append(f"step {step} on {batch}")
        finite = step != self.bad_step
        metrics = {
            "loss": (2.0 * step if finite else np.nan, 2.0),
            "grad_norm": (1.0, 1.0),
            "learning_rate": 0.1 / step,
            "finite": np.array([True, finite, True, True]),  # what is bad is the loss
        }
        return state.TrainState(np.int32(step), {}, ()), metrics


@pytest.fixture
def noted_reads(monkeypatch):
    """Appends to a list when the metrics of a step were read."""

    def install(calls):
        step_done = loop.ThroughputMeter.step_done

        def noting(self, step):
            calls.append(f"read {step}")
            step_done(self, step)

        monkeypatch.setattr(loop.ThroughputMeter, "step_done", noting)

    return install


def run_fake(calls, *, bad_step=None, start_step=0, batches=None, **options):
    limits = {"num_train_steps": 4, "log_every_steps": 100, "save_every_steps": 100}
    limits |= {name: options.pop(name) for name in set(options) & LIMITS}
    evaluate = options.pop("evaluate", None)
    if evaluate is not None:
        limits.setdefault("eval_every_steps", 2)
    run = small_loop.SmallRun(
        FakeStep(calls, bad_step),
        loop.Limits(**limits),
        evaluate or (lambda step, state: None),
        listed=options.pop("programs", ()),
    )
    loop_state = options.pop("loop_state", None) or guards.LoopState()
    recorder = {
        "log": lambda step, values: calls.append(f"log {step}"),
        "report": lambda step, event: calls.append(f"{event['event']} {step}"),
        "save": lambda step, current, loop_state: calls.append(f"save {step}"),
    }
    return loop.run(
        run,
        batches or itertools.count(start_step),
        state.TrainState(np.int32(start_step), {}, ()),
        loop_state,
        small_loop.SmallRecorder(**(recorder | options)),
    )


def test_metrics_are_read_one_step_late(noted_reads):
    calls = []
    noted_reads(calls)
    final = run_fake(calls)
    assert int(final.step) == 4
    assert calls == [
        "step 1 on 0",
        "step 2 on 1",
        "read 1",
        "step 3 on 2",
        "read 2",
        "step 4 on 3",
        "read 3",
        "read 4",
        "log 4",
        "save 4",
    ]


def test_due_evaluations_come_after_the_metrics_and_before_the_save(noted_reads):
    calls = []
    noted_reads(calls)
    note = lambda step, current: calls.append(f"call {step}")  # noqa: E731
    run_fake(calls, evaluate=note, save_every_steps=2, num_train_steps=3)
    assert calls == [
        "step 1 on 0",
        "step 2 on 1",
        "read 1",
        "read 2",
        "call 2",
        "save 2",
        "step 3 on 2",
        "read 3",
        "log 3",
        "call 3",
        "save 3",
    ]


def test_evaluations_get_the_state_of_their_step():
    seen = []
    note = lambda step, current: seen.append((step, current.step))  # noqa: E731
    run_fake([], evaluate=note, eval_every_steps=3, num_train_steps=7)
    assert seen == [(3, 3), (6, 6), (7, 7)]


def test_means_over_the_interval_and_latest_values():
    logged = {}
    run_fake([], log=logged.__setitem__, log_every_steps=3, num_train_steps=5)
    assert list(logged) == [3, 5]
    for values in logged.values():
        del values["train/tokens_per_second"], values["train/input_wait"]
    # Losses 1, 2, 3 and 4, 5.
    assert logged[3] == pytest.approx(
        {"train/loss": 2.0, "train/grad_norm": 1.0, "train/learning_rate": 0.1 / 3}
    )
    assert logged[5] == pytest.approx(
        {"train/loss": 4.5, "train/grad_norm": 1.0, "train/learning_rate": 0.02}
    )


def test_a_resumed_interval_gives_the_means_of_the_uninterrupted_run():
    saved, logged = {}, {}

    def save(step, current, loop_state):
        saved[step] = json.loads(json.dumps(loop_state.to_json()))

    run_fake([], save=save, save_every_steps=2, log_every_steps=3)
    assert saved[2]["interval"] == {"loss": [6.0, 4.0], "grad_norm": [2.0, 2.0]}
    assert saved[4]["interval"] == {}  # the last step was logged
    options = {"log": logged.__setitem__, "log_every_steps": 3, "start_step": 2}
    run_fake(
        [], loop_state=guards.LoopState.from_meta({"standing": saved[2]}), **options
    )
    assert logged[3]["train/loss"] == 2.0
    earlier = guards.LoopState.from_meta({"interval": saved[2]["interval"]})
    run_fake([], loop_state=earlier, **options)  # as runs saved it before
    assert logged[3]["train/loss"] == 2.0


def test_nothing_to_do_when_finished():
    calls = []
    final = run_fake(calls, start_step=4)
    assert (calls, int(final.step)) == ([], 4)


@pytest.mark.parametrize("save_every_steps", [1, 100])
def test_not_finite_names_step_and_batch_and_saves_nothing_after(save_every_steps):
    calls = []
    with pytest.raises(errors.NotFiniteError) as caught:
        run_fake(calls, bad_step=3, save_every_steps=save_every_steps)
    message = str(caught.value)
    assert "step 3 is not finite: the loss is nan" in message
    assert "Its examples are example 2." in message
    assert "not_finite 3" in calls
    saves = [call for call in calls if call.startswith("save")]
    assert saves == (["save 1", "save 2"] if save_every_steps == 1 else [])


def batches_then_signal(number, at):
    for index in itertools.count():
        if index == at:
            os.kill(os.getpid(), number)
        yield index


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_stops(number, noted_reads):
    calls = []
    noted_reads(calls)
    before = signal.getsignal(number)
    evaluate = lambda step, current: calls.append("evaluate")  # noqa: E731
    with pytest.raises(errors.Stopped) as caught:
        run_fake(calls, batches=batches_then_signal(number, 1), evaluate=evaluate)
    assert f"stopped by {number.name} after step 2 of 4" in str(caught.value)
    assert caught.value.exit_code == 75
    # No evaluation: who asks to stop waits.
    assert calls[-3:] == ["read 1", "read 2", "save 2"]
    assert signal.getsignal(number) == before


def test_a_signal_in_the_last_step_leaves_only_the_evaluation():
    calls, now = [], guards.LoopState()
    with pytest.raises(errors.Stopped, match="after step 4 of 4"):
        batches = batches_then_signal(signal.SIGTERM, 3)
        run_fake(calls, batches=batches, loop_state=now)
    assert calls[-1] == "save 4" and now.callbacks_due


def test_a_not_finite_step_is_not_saved_by_a_signal():
    calls = []
    with pytest.raises(errors.NotFiniteError):
        run_fake(calls, bad_step=2, batches=batches_then_signal(signal.SIGTERM, 1))
    assert not [call for call in calls if call.startswith("save")]


def test_what_a_signal_left_out_is_done_when_the_run_goes_on():
    calls = []
    now = guards.LoopState()
    evaluate = lambda step, current: calls.append(f"evaluate {step}")  # noqa: E731
    options = {"evaluate": evaluate, "loop_state": now}
    with pytest.raises(errors.Stopped, match="after step 2 of 4"):
        run_fake(calls, batches=batches_then_signal(signal.SIGTERM, 1), **options)
    assert now.callbacks_due and "evaluate 2" not in calls
    calls.clear()
    run_fake(calls, start_step=2, **options)
    assert calls[:3] == ["evaluate 2", "save 2", "step 3 on 2"]
    assert calls.count("evaluate 2") == 1 and not now.callbacks_due


def test_a_signal_in_a_callback_ends_it_and_it_is_called_again():
    calls = []
    now = guards.LoopState()

    def evaluate(step, current):
        calls.append(f"begin {step}")
        if calls.count(f"begin {step}") == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        interrupts.run_interruptible(lambda: None)
        calls.append(f"end {step}")

    options = {"evaluate": evaluate, "eval_every_steps": 10, "loop_state": now}
    with pytest.raises(errors.Stopped, match="after step 4 of 4"):
        run_fake(calls, **options)  # in what follows the last step
    assert calls[-2:] == ["begin 4", "save 4"] and now.callbacks_due
    run_fake(calls, start_step=4, **options)
    assert calls[-3:] == ["begin 4", "end 4", "save 4"] and not now.callbacks_due


def test_an_evaluation_that_compiles_for_long_is_not_waited_for():
    calls, now, go_on = [], guards.LoopState(), threading.Event()

    def compile_for_long():
        signal.raise_signal(signal.SIGTERM)  # the main thread hears of it
        return go_on.wait(60)

    evaluate = lambda *_: interrupts.run_interruptible(compile_for_long)  # noqa: E731
    with pytest.raises(errors.Stopped, match="after step 2 of 4"):
        run_fake(calls, evaluate=evaluate, loop_state=now)
    assert calls[-1] == "save 2" and now.callbacks_due
    assert not go_on.is_set()
    go_on.set()


def test_more_of_sigterm_changes_nothing():
    calls = []

    def batches():
        for index in itertools.count():
            for _ in range(3 * (index == 1)):
                os.kill(os.getpid(), signal.SIGTERM)
            yield index

    with pytest.raises(errors.Stopped, match="after step 2 of 4"):
        run_fake(calls, batches=batches())
    assert calls[-1] == "save 2"


def test_bad_steps_are_left_out_counted_and_bounded():
    calls, logged = [], {}
    now = guards.LoopState()
    options = {"log": logged.__setitem__, "log_every_steps": 1, "loop_state": now}
    final = run_fake(calls, bad_step=3, max_bad_steps=1, **options)
    assert int(final.step) == 4 and calls[-1] == "save 4"
    assert now.bad_steps == {guards.SINGLE: 1} and "not_finite 3" in calls
    assert "train/bad_steps" not in logged[2] and logged[4]["train/bad_steps"] == 1
    assert "train/loss" not in logged[3] and logged[4]["train/loss"] == 4
    with pytest.raises(errors.NotFiniteError, match="1 such steps were left out"):
        run_fake(calls, bad_step=3, max_bad_steps=1, loop_state=now)


def test_evaluate_divides_once():
    def eval_step(params, batch):
        return {"loss": (params * batch[0], batch[1])}

    found = loop.evaluate(eval_step, 2.0, iter([(1.0, 1), (5.0, 2), (6.0, 3)]))
    assert found == {"loss": 4.0}  # (2 + 10 + 12) / (1 + 2 + 3)


def test_a_save_that_failed_ends_the_run_at_the_next_step_and_not_at_the_next_save():
    calls = []

    def check():
        if "step 3 on 2" in calls:
            raise errors.StorageError("the save of step 2 failed")

    with pytest.raises(errors.StorageError, match="step 2 failed"):
        run_fake(calls, num_train_steps=100, save_every_steps=2, check_saves=check)
    assert [call for call in calls if call.startswith("step")][-1] == "step 3 on 2"
    assert "save 4" not in calls


def test_programs_are_compiled_once_before_the_first_step(capfd):
    calls = []
    programs = [
        loop.Program(
            f"rows of {n} tokens", lambda now, n=n: calls.append((n, now.step))
        )
        for n in (64, 32)
    ]
    run_fake(calls, programs=programs, num_train_steps=3, start_step=2)
    assert calls[:3] == [(64, 2), (32, 2), "step 3 on 2"]
    calls.clear()
    run_fake(calls, programs=programs, num_train_steps=3, start_step=3)  # finished
    assert (64, 3) not in calls


def test_a_signal_ends_the_compilation_of_the_first_of_many_programs():
    calls = []

    def compile_for_long(now):
        calls.append(len(calls))
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(0.5)

    programs = [loop.Program("rows", compile_for_long)] * 3
    with pytest.raises(errors.Stopped):
        run_fake(calls, programs=programs)
    assert calls == [0]


def test_sums_are_kept_in_double_precision():
    many = loop.add({"n": (2.0**24, 2.0**24)}, {"n": (jnp.float32(1), 1)})
    assert many == {"n": (16777217.0, 16777217.0)}


def test_add_changes_neither_side():
    one, two = {"a": (1.0, 2.0)}, {"a": (3.0, 4.0), "b": (5.0, 6.0)}
    assert loop.add(one, two) == {"a": (4.0, 6.0), "b": (5.0, 6.0)}
    assert one == {"a": (1.0, 2.0)} and two == {"a": (3.0, 4.0), "b": (5.0, 6.0)}


def test_a_metric_without_weight_is_left_out():
    assert loop.divide({"empty": (0.0, 0.0), "full": (3, 2)}) == {
        "full": pytest.approx(1.5)
    }
