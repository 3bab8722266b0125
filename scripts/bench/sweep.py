"""Time of a sweep compared with single runs: the step, and compilation with it.

    python scripts/bench/sweep.py
    python scripts/bench/sweep.py --size=mini --members=8 --rows=16 --length=64

Members are classifiers with fresh weights of a published size, each with its own seed
and rate. Steps are timed in turn, one of the sweep and one of every single run, and the
ratio is the median over the pairs, because machines drift. A run in turn compiles its
own step, for its seed is part of the program; a sweep compiles once. What a device is
given at once is `--at_once` (0 = all members), by default as `finetune` does.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

from bert_jax.model import config, encoder, heads, network
from bert_jax.tasks import classification
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import optimizer, sharding, state, sweep

STEPS = 1000  # of the schedule; none is timed at its end
RATES = optimizer.OptimizerConfig(learning_rate=1e-4)


def main() -> None:
    """Prints the ratios of the step, and of a run of so many steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", help="published size")
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens in a row")
    parser.add_argument("--pairs", type=int, default=9, help="timed steps of each")
    parser.add_argument("--steps", type=int, default=300, help="of a whole run")
    parser.add_argument("--at_once", type=int, default=-1)
    given = parser.parse_args()
    at_once = given.at_once
    if at_once < 0:
        at_once = 1 if jax.default_backend() == "cpu" else 0
    of_task, mesh = _task(given.size), sharding.make_mesh(1, 1, 1)
    batches = [_batch(given.rows, given.length, seed) for seed in range(given.members)]
    together = _Sweep(of_task, mesh, batches, at_once)
    singles = [_Single(of_task, mesh, batch, n) for n, batch in enumerate(batches)]
    pairs = []
    for _ in range(given.pairs):
        pairs.append((together.time(), sum(one.time() for one in singles)))
    swept, single = (statistics.median(column) for column in zip(*pairs, strict=True))
    step = statistics.median(b / a for a, b in pairs)
    whole = (sum(one.compiling for one in singles) + given.steps * single) / (
        together.compiling + given.steps * swept
    )
    print(
        f"{given.members} members, {given.size}, {given.rows} x {given.length}, "
        f"{at_once or 'all'} at once, {jax.devices()[0].device_kind}\n"
        f"step: {swept * 1e3:.1f} ms together, {single * 1e3:.1f} ms in turn: "
        f"{step:.2f} times as fast\n"
        f"runs of {given.steps} steps with compilation ({together.compiling:.1f} s "
        f"once, {sum(one.compiling for one in singles):.1f} s in turn): {whole:.2f} "
        "times as fast"
    )


def _task(size: str) -> classification.Classification:
    bert = config.published(size)
    head = heads.HeadSpec("classifier", 2)
    model = network.Network(bert, encoder.Execution(unroll=-1), (head,))
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = Tokenizer("wordpiece", pieces, True, True)
    return classification.Classification(
        model=model,
        tokenizer=tokenizer,
        labels=("0", "1"),
        max_seq_length=bert.max_length,
    )


def _batch(rows: int, length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (rows, length)
    return {
        "input_ids": rng.integers(1000, 2000, shape, np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
        "segment_ids": np.ones(shape, np.int32),
        "labels": rng.integers(0, 2, rows, np.int32),
        "weights": np.ones(rows, np.float32),
    }


class _Timed:
    """A step that is compiled by its first call."""

    def __init__(self, step: Any, states: Any, batch: Any) -> None:
        self._step, self._states, self._batch = step, states, batch
        self.compiling = self.time()

    def time(self) -> float:
        """Returns the seconds of one step."""
        start = time.perf_counter()
        self._states, metrics = self._step(self._states, self._batch)
        jax.block_until_ready((self._states, metrics))
        return time.perf_counter() - start


class _Single(_Timed):
    """The step of a single member."""

    def __init__(self, of_task: Any, mesh: Any, batch: Any, seed: int) -> None:
        transformation = optimizer.make(RATES, STEPS)
        shapes = state.abstract(of_task.init, transformation, mesh)
        step = state.make_train_step(
            state.StepSpec(of_task.prepare, of_task.weights, of_task.losses),
            transformation,
            optimizer.learning_rate(RATES, STEPS),
            shapes,
            seed=seed,
        )
        first = state.create(of_task.init, jax.random.key(seed), transformation, mesh)
        super().__init__(step, first, sharding.to_devices(batch, mesh))


class _Sweep(_Timed):
    """The step of all members."""

    def __init__(self, of_task: Any, mesh: Any, batches: Any, at_once: int) -> None:
        transformation = optimizer.make(RATES, STEPS)
        shapes = state.abstract(of_task.init, transformation, mesh)
        step = sweep.make_sweep_step(
            state.StepSpec(of_task.prepare, of_task.weights, of_task.losses),
            _recipe,
            shapes,
            seeds=range(len(batches)),
            peaks=[RATES.learning_rate] * len(batches),
            at_once=at_once,
        )
        states = [
            state.create(of_task.init, jax.random.key(seed), transformation, mesh)
            for seed in range(len(batches))
        ]
        every = sweep.stack(states, shapes)
        super().__init__(step, every, sweep.to_devices(batches, mesh))


def _recipe(peak: Any) -> Any:
    transformation = optimizer.make(RATES, STEPS, peak=peak)
    return transformation, optimizer.learning_rate(RATES, STEPS, peak=peak)


if __name__ == "__main__":
    main()
