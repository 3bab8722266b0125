"""Speed of the working tree compared with an older commit: same work, same run.

    python scripts/bench/commits.py --base=HEAD~1
    python scripts/bench/commits.py --base=da43248 --rounds=9 --only=train,encode

Checks the commit out into a temporary folder, lets it pretrain a small model on random
words, and measures both trees in turn, because machines drift:

  import  seconds of `import bert_jax` in a fresh process
  load    seconds of `bert_jax.load(folder)` in a fresh process, imports included
  encode  texts/s of `Model.encode`, tokenization included, compiled before
  input   rows/s of CPU time of `batch_at`, by the tree's own scripts/bench/input.py
  train   tokens/s of `python -m bert_jax.pretrain`, the median of its log lines

`ratio` is the speed of the working tree over that of the commit, the median over the
rounds: 1.00 is equally fast, above is faster.
"""

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
UNITS = {
    "import": "s",
    "load": "s",
    "encode": "texts/s",
    "input": "rows/s",
    "train": "tokens/s",
}
STEPS = 48

IMPORT = """
import time
start = time.perf_counter()
import bert_jax
print(time.perf_counter() - start)
"""
LOAD = """
import sys, time
start = time.perf_counter()
import bert_jax
bert_jax.load(sys.argv[1])
print(time.perf_counter() - start)
"""
ENCODE = """
import pathlib, sys, time
import bert_jax
model = bert_jax.load(sys.argv[1])
texts = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()[:1250]
texts = [text for text in texts if text]
model.encode(texts)
for _ in sys.stdin:
    start = time.perf_counter()
    model.encode(texts)
    print(len(texts) / (time.perf_counter() - start), flush=True)
"""
INPUT = """
import pathlib, sys, tempfile, time
sys.path.insert(0, "scripts/bench")
import input as bench
with tempfile.TemporaryDirectory() as folder:
    bench.write_store(pathlib.Path(folder), 2_000_000, 1_000_000)
    opened = bench.store.open_store(pathlib.Path(folder), verify=False)
    rows = [bench.instances_of(opened, "nsp", 128, pack)[2] for pack in (False, True)]
    step = 0
    for _ in sys.stdin:
        start, first = time.process_time(), step
        while time.process_time() - start < 1.0:
            for instances in rows:
                instances.batch_at(step, 256)
            step += 1
        print((step - first) * 512 / (time.process_time() - start), flush=True)
"""


def main() -> None:
    """Prints one row a measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True, help="the older commit")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    parser.add_argument("--only", default=",".join(UNITS), help="measurements, commas")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(UNITS):
        parser.error(f"--only has {sorted(unknown)}; choose from {', '.join(UNITS)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trees = (unpack(arguments.base, folder / "base"), ROOT)
        texts = write_texts(folder / "texts.txt")
        model = folder / "model"
        pretrain(trees[0], texts, model, steps=2)
        scripts: dict[str, Callable[[Path], Callable[[], float]]] = {
            "import": lambda tree: functools.partial(once, tree, IMPORT),
            "load": lambda tree: functools.partial(once, tree, LOAD, model),
            "encode": lambda tree: Worker(tree, ENCODE, model, texts).measure,
            "input": lambda tree: Worker(tree, INPUT).measure,
            "train": lambda tree: functools.partial(train, tree, texts, folder / "run"),
        }
        print(f"{'':8}{'unit':>10}{arguments.base[:10]:>12}{'now':>12}{'ratio':>8}")
        for name in names:
            report(name, *(scripts[name](tree) for tree in trees), arguments.rounds)


def report(
    name: str, base: Callable[[], float], now: Callable[[], float], rounds: int
) -> None:
    """Measures both trees in turn and prints their medians and the ratio."""
    pairs = [(base(), now()) for _ in range(rounds)]
    faster = [b / n if UNITS[name] == "s" else n / b for b, n in pairs]
    columns = [statistics.median(column) for column in zip(*pairs, strict=True)]
    cells = "".join(
        f"{value:>12,.3g}" if value < 10 else f"{value:>12,.0f}" for value in columns
    )
    print(
        f"{name:8}{UNITS[name]:>10}{cells}{statistics.median(faster):>8.2f}", flush=True
    )


def unpack(commit: str, folder: Path) -> Path:
    """Checks a commit out into a folder."""
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, folder], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    return folder


def write_texts(path: Path) -> Path:
    """Writes 1,000 documents of four lines of 4 to 120 random words, most short."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(3000)]
    lengths = np.clip(rng.lognormal(3.0, 0.8, 4000), 4, 120).astype(int)
    lines = [" ".join(rng.choice(words, length)) + "." for length in lengths]
    documents = ["\n".join(lines[n : n + 4]) for n in range(0, len(lines), 4)]
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def python(tree: Path, *arguments: object) -> list[str]:
    """Returns a command line that runs Python with a tree's package."""
    environment = ["env", f"PYTHONPATH={tree}", "JAX_PLATFORMS=cpu"]
    return [*environment, sys.executable, *map(str, arguments)]


def once(tree: Path, script: str, *arguments: object) -> float:
    """Returns the number that a fresh process prints last."""
    command = python(tree, "-c", script, *arguments)
    result = subprocess.run(
        command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(result.stdout.split()[-1])


class Worker:
    """A process of a tree that measures once for each line on its standard input."""

    def __init__(self, tree: Path, script: str, *arguments: object) -> None:
        """Starts the process, which first prepares what it measures."""
        self._process = subprocess.Popen(
            python(tree, "-c", script, *arguments),
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self) -> float:
        """Returns the next measurement."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def pretrain(tree: Path, texts: Path, workdir: Path, steps: int) -> None:
    """Pretrains L4 H256 on 16 rows of 128 tokens."""
    configuration = {
        "data.corpus": f"text:{texts}",
        "data.max_seq_length": 128,
        "text.vocab_size": 2000,
        "run.batch_size": 16,
        "run.num_train_steps": steps,
        "run.log_every_steps": 4,
        "run.save_every_steps": steps,
        "optimizer.warmup_steps": 1,
    }
    flags = [f"--config.{key}={value}" for key, value in configuration.items()]
    command = python(
        tree, "-m", "bert_jax.pretrain", "--config=configs/pretrain.py:mini"
    )
    result = subprocess.run(
        [*command, *flags, f"--workdir={workdir}"],
        cwd=tree,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        sys.exit(f"{tree}: pretraining ended with {result.returncode}\n{result.stdout}")


def train(tree: Path, texts: Path, workdir: Path) -> float:
    """Returns the tokens/s of a run, without its first log line."""
    shutil.rmtree(workdir, ignore_errors=True)
    pretrain(tree, texts, workdir, STEPS)
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    name = "train/tokens_per_second"
    rates = [values[name] for values in map(json.loads, lines) if name in values]
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
