"""Runs stopped after each step and resumed, and deliberately wrong resumes.

A library of inject_faults.py.
"""

import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import trial_lib
from trial_lib import Bench, Trial, failed, last_line

# The first 14, and those around the end of an epoch: a recipe has 100 to 123 rows, a
# step 8, so the first epoch ends in step 13, 14, 15 or 16.
STEPS = range(1, 18)
# The steps of the levels below nightly, except for one recipe.
FEW_STEPS = (1, 15)
OBJECTIVES = ("nsp", "sop", "full_sentences")


def _recipes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every objective, packed or not, with accumulation of 1, 2 and 4."""
    for objective, is_packed, accumulation in itertools.product(
        OBJECTIVES, (False, True), (1, 2, 4)
    ):
        words = [objective.replace("_", " "), *["packed"] * is_packed]
        words += [f"accumulation {accumulation}"] * (accumulation > 1)
        yield (
            ", ".join(words),
            {
                "data__objective": objective,
                "data__pack": is_packed,
                "run__accumulation_steps": accumulation,
            },
        )


RECIPES = dict(_recipes())
# The recipes of the levels below nightly: each value of each option at least once.
FEW = (
    "nsp",
    "nsp, accumulation 2",
    "nsp, accumulation 4",
    "nsp, packed",
    "sop",
    "sop, packed, accumulation 2",
    "full sentences",
    "full sentences, packed",
)

# Patches of a resumed run that forget a part of its state; each must be detected.
_RESTORE = """
import jax
from bert_jax.training import checkpoint
restore = checkpoint.Checkpoints.restore_latest
def forgetful(self, shapes):
    state, meta = restore(self, shapes)
    def forget(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jax.numpy.zeros_like(leaf) if {condition} else leaf
    opt_state = jax.tree_util.tree_map_with_path(forget, state.opt_state)
    shardings = jax.tree.map(lambda x: x.sharding, shapes.opt_state)
    return state._replace(opt_state=jax.device_put(opt_state, shardings)), meta
checkpoint.Checkpoints.restore_latest = forgetful
"""
CONTROLS = {
    "the optimizer state": _RESTORE.format(condition="'count' not in name"),
    "the step of the schedule": _RESTORE.format(condition="'count' in name"),
    "the random numbers": """
from bert_jax.training import state
make = state.make_train_step
def other(*given, seed):
    return make(*given, seed=seed + 1)
state.make_train_step = other
""",
    "the position in the data": """
from bert_jax.data.pretraining import instances
batch_at = instances.Phase.batch_at
instances.Phase.batch_at = lambda self, step, *rest: batch_at(self, step + 1, *rest)
""",
}


def trials(bench: Bench, objective: str) -> Iterator[Trial]:
    """Yields the trials of runs that are stopped after a step and resumed."""
    recipes = RECIPES if bench.level > 1 else FEW
    of_objective = [x for x in recipes if RECIPES[x]["data__objective"] == objective]
    for recipe in bench.some(of_objective):
        changes = RECIPES[recipe]
        whole = bench.trace_of(f"whole-{recipe}", **changes)
        is_all = bench.level > 1 or recipe == "nsp"
        for step in bench.some(STEPS if is_all else FEW_STEPS):
            problem = _stopped(bench, step, whole, changes)
            yield Trial(
                "stopped after a step and resumed", f"{recipe}, {step}", problem
            )


def ends(bench: Bench) -> Iterator[Trial]:
    """Yields runs that have nothing left to do, or must not start."""
    yield Trial("awkward ends", "a finished run resumed", _finished(bench))
    yield Trial("awkward ends", "a second run in one workdir", _second(bench))


def _stopped(
    bench: Bench, step: int, whole: trial_lib.Trace, changes: dict[str, Any]
) -> str:
    workdir = bench.workdir(f"stopped-{step}")
    child = bench.train(workdir, faults=f"loop/step={step}:SIGTERM", **changes)
    return failed(child, 75) or bench.resume(workdir, whole, **changes)


def _finished(bench: Bench) -> str:
    workdir = bench.workdir("finished")
    if problem := failed(bench.train(workdir)):
        return problem
    before = trial_lib.trace(workdir)
    child = bench.train(workdir)
    if problem := failed(child):
        return problem
    if "this run is finished" not in child.log.read_text():
        return "it does not report that it is finished"
    return trial_lib.trace(workdir).difference(before)


def _second(bench: Bench) -> str:
    """Starts a run in the workdir of a running one, which must be unaffected."""
    workdir = bench.workdir("second")
    first = bench.train(workdir, faults="loop/step=9:SIGSTOP")
    first.wait_until_stopped()
    second = bench.train(workdir)
    code, output = second.wait(), last_line(second.log)
    os.kill(first.pid, signal.SIGCONT)
    if ended := first.wait():
        return f"the first run ended with {ended}"
    if code != 2 or "another process" not in output:
        return f"the second run was not rejected: exit code {code}, {output}"
    return trial_lib.trace(workdir).difference(bench.undisturbed)


def controls(bench: Bench) -> Iterator[Trial]:
    """Yields whether a resume that forgets something is detected."""
    for forgotten, patch in bench.some(CONTROLS.items()):
        workdir = bench.workdir("control")
        stopped = bench.train(workdir, faults="loop/step=11:SIGTERM").wait()
        assert stopped == 75, stopped
        arguments = bench.setup.arguments(workdir, data__store=bench.store)
        child = bench.fork_server.start("pretrain", *arguments, patch=patch)
        if not (problem := failed(child)):
            differs = trial_lib.trace(workdir).difference(bench.undisturbed)
            problem = "" if differs else "not detected"
        yield Trial("negative control: resumed without", forgotten, problem)
