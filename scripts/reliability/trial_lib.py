"""A trial, the bench that all kinds of trials share, and the small run they disturb.

A library of inject_faults.py.
"""

import dataclasses
import functools
import hashlib
import json
import random
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fork_server_lib
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.training import checkpoint

STEPS = 24
SENTENCES = (
    "the cat sat on a mat",
    "dogs run fast",
    "rain falls all day in spring",
    "北京大学在海淀区。",
    "今天天气很好，我们去公园。",
    "他喜欢读书和写字。",
)
SETTINGS: dict[str, Any] = {
    "model.hidden_size": 32,
    "model.num_attention_heads": 4,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 24,
    "text.vocab_size": 150,
    "data.held_out_fraction": 0.2,
    "data.max_seq_length": 24,
    "data.workers": 1,
    "data.loader": "thread",
    "optimizer.warmup_steps": 2,
    "run.batch_size": 8,
    "run.num_train_steps": STEPS,
    "run.log_every_steps": 1,
    "run.eval_every_steps": 8,
    "run.save_every_steps": 4,
    "run.keep_checkpoints": 2,
    "run.log_examples": True,
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """A folder with a corpus and the config that trains on it."""

    folder: Path

    @property
    def config(self) -> str:
        """The flag that names the config."""
        return f"--config={self.folder / 'small.py'}"

    def arguments(self, workdir: Path | str, **changes: Any) -> list[str]:
        """Returns the flags of a run; `run__seed=3` sets `run.seed`."""
        more = [f"--config.{k.replace('__', '.')}={v}" for k, v in changes.items()]
        return [self.config, f"--workdir={workdir}", *more]


def make_setup(
    folder: Path, settings: Mapping[str, Any] = SETTINGS, documents: int = 60
) -> Setup:
    """Writes a corpus in two languages and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    lines = []
    for number in range(documents):
        chosen = rng.choices(SENTENCES, k=rng.randint(3, 9))
        lines += [f"number {number} begins here", *chosen, ""]
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    values = {"model.size": "tiny", "data.corpus": str(corpus), **settings}
    write_config(folder / "small.py", "pretraining", values)
    return Setup(folder)


def write_config(path: Path, module: str, values: Mapping[str, Any]) -> None:
    """Writes a config that overrides defaults of a module of `bert_jax.config`."""
    path.write_text(
        f"from bert_jax.config import {module}\n\n\n"
        "def get_config():\n"
        f"    config = {module}.default()\n"
        f"    config.update_from_flattened_dict({dict(values)!r})\n"
        "    return config\n",
        encoding="utf-8",
    )


@dataclasses.dataclass(frozen=True)
class Trace:
    """The results of a run: runs with equal traces are bit-identical.

    Attributes:
      arrays: digest of the parameters and optimizer state of the last step.
      losses: all lines of the metrics, without values that depend on the clock.
      examples: all lines of the example log.
    """

    arrays: str
    losses: tuple[str, ...]
    examples: tuple[str, ...]

    def difference(self, other: "Trace") -> str:
        """Returns the names of the fields that differ; empty if none does."""
        names = (field.name for field in dataclasses.fields(self))
        return ", ".join(n for n in names if getattr(self, n) != getattr(other, n))


_TIMINGS = ("tokens_per_second", "input_wait", "save_wait", "mfu")


def trace(workdir: Path) -> Trace:
    """Reads the results of a finished run."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    kept = (
        {k: x for k, x in line.items() if not k.endswith(_TIMINGS)} for line in lines
    )
    losses = tuple(json.dumps(line) for line in kept if len(line) > 1)
    examples = (workdir / "examples-0.jsonl").read_text().splitlines()
    return Trace(_digest(workdir / "checkpoints"), losses, tuple(examples))


def _digest(folder: Path) -> str:
    """Returns the digest of the newest checkpoint's arrays, or that it is damaged."""
    step = max(checkpoint.steps(folder))
    if reason := checkpoint.damage(folder / str(step)):
        return f"damaged: {reason}"
    return digest_of(folder / str(step))


def digest_of(step: Path) -> str:
    """Returns the digest of all arrays of a checkpoint, read by Orbax."""
    digest = hashlib.sha256(step.name.encode())
    for item in ("params", "opt_state"):
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            tree = reader.restore(step / item)
        for array in _leaves(tree):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _leaves(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, Mapping):
        return [leaf for name in sorted(tree) for leaf in _leaves(tree[name])]
    return [np.asarray(tree)]


def leftovers(workdir: Path) -> list[str]:
    """Returns the temporary files that an ended run should have removed."""
    bad = [*workdir.rglob("*.tmp"), *workdir.rglob("*orbax-checkpoint-tmp*")]
    bad += [*workdir.glob(".*.building"), *workdir.glob("checkpoints/deleted/*")]
    return [str(path.relative_to(workdir)) for path in bad]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A fault injected into a run, and what was wrong afterwards.

    Attributes:
      what: the kind of fault, a line of the table.
      name: of the trial among those of its kind.
      problem: empty if the run survived.
      seconds: of the trial; None = since the previous one.
    """

    what: str
    name: str
    problem: str
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Bench:
    """The environment of trials.

    Attributes:
      level: 0 for `ci`, 1 for `pr`, 2 for `nightly`, 3 for `release`.
      folder: for workdirs and temporary files.
      setup: the corpus and config that runs train on.
      fork_server: starts runs.
      seed: of random moments and offsets.
      picture: file of the soak's plot; None = no plot.
    """

    folder: Path
    setup: Setup
    fork_server: fork_server_lib.ForkServer
    level: int
    seed: int
    picture: Path | None = None

    def choose(self, ci: int, pr: int, nightly: int, release: int) -> int:
        """Returns the number of this level."""
        return (ci, pr, nightly, release)[self.level]

    def some(self, trials: Iterable[Any], ci: int = 1) -> list[Any]:
        """Returns all trials, or at the level `ci` the last few."""
        every = list(trials)
        return every if self.level else every[-ci:]

    def random(self, kind: str) -> random.Random:
        """Returns the random generator of a kind of trials."""
        return random.Random(f"{self.seed} {kind}")

    def workdir(self, name: str) -> Path:
        """Returns the path of a folder that does not exist."""
        path = self.folder / name.replace("/", "-").replace(" ", "-")
        shutil.rmtree(path, ignore_errors=True)
        return path

    @functools.cached_property
    def store(self) -> Path:
        """The store of the corpus, which most runs share."""
        path = self.folder / "store"
        code = self.fork_server.run("prepare", self.setup.config, f"--store={path}")
        assert code == 0, code
        return path

    @functools.cached_property
    def undisturbed(self) -> Trace:
        """The run that others are compared with."""
        return self.trace_of("undisturbed")

    def trace_of(self, name: str, **changes: Any) -> Trace:
        """Trains undisturbed; returns the trace of the run."""
        workdir = self.workdir(name)
        child = self.train(workdir, **changes)
        assert child.wait() == 0, child.log.read_text()[-2000:]
        return trace(workdir)

    def train(
        self, workdir: Path, faults: str = "", **changes: Any
    ) -> fork_server_lib.Child:
        """Starts or resumes training in a workdir."""
        settings = {"data__store": self.store, **changes}
        arguments = self.setup.arguments(workdir, **settings)
        return self.fork_server.start("pretrain", *arguments, faults=faults)

    def resume(
        self,
        workdir: Path,
        expected: Trace | None = None,
        **changes: Any,
    ) -> str:
        """Resumes a run to its end; returns how it differs from the undisturbed one."""
        return failed(self.train(workdir, **changes)) or self.compare(workdir, expected)

    def compare(self, workdir: Path, expected: Trace | None = None) -> str:
        """Returns how a finished run differs from the undisturbed one; removes it."""
        if differs := trace(workdir).difference(expected or self.undisturbed):
            return f"{differs} differ from the undisturbed run"
        if left := leftovers(workdir):
            return f"left over: {', '.join(left[:3])}"
        shutil.rmtree(workdir)
        return ""


def failed(child: fork_server_lib.Child, expected: int = 0) -> str:
    """Waits for a command; returns the problem unless it ends with the expected code.

    Args:
      expected: minus the number of a signal if it is to be killed.
    """
    if (code := child.wait()) == expected:
        return ""
    return f"exit code {code}, not {expected}: {last_line(child.log)}"


def last_line(log: Path) -> str:
    """Returns the last line of a command's output."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"
