"""Held-out evaluation of pretraining: the model beside what counting alone reaches.

Everything is a pure function of the store and the length of its rows: the pairs, the
masks and the baselines are the same whichever run asks.
"""

import collections
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from bert_jax import console, interrupts
from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances as pair_rows
from bert_jax.tasks import baselines, pretraining
from bert_jax.text import tokenizer as tokenizers

PAIR_WEIGHTS = "next_sentence_weights"

# Which figure about pairs stands in the row of the unigram and of the model.
PAIR_COLUMN = {"unigram": "eval/nsp_majority_accuracy", "mlm": "eval/nsp_accuracy"}

Batch = dict[str, np.ndarray]
Place = Callable[[Batch], Any]
# evaluate(params, batches) -> {name: mean}: sums over all batches, divided once.
Evaluate = Callable[[PyTree, Iterator[Any]], dict[str, float]]


def held_out_rows(
    folder_split: store.Store,
    objective: str,
    max_seq_length: int,
    tokenizer: tokenizers.Tokenizer,
) -> pair_rows.Instances:
    """Returns the rows of the held-out split, the same for every run of the store."""
    return pair_rows.Instances(
        folder_split,
        objective=objective,
        max_seq_length=max_seq_length,
        short_seq_prob=0.0,
        seed=pretraining.EVAL_SEED,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
    )


class HeldOut:
    """Scores parameters on every held-out row, and the baselines on the same masks."""

    def __init__(
        self,
        pretraining_task: pretraining.Pretraining,
        rows: pair_rows.Instances,
        counts: baselines.Counts,
        *,
        batch_size: int,
        local_rows: slice,
        evaluate: Evaluate,
        place: Place,
    ) -> None:
        """Scores the baselines once.

        Args:
          evaluate: adds up the jitted `task.evaluate` over batches.
          batch_size: rows of a global batch; no result depends on it.
          local_rows: those of them that this process makes.
          place: puts a batch onto the devices.
        """
        self._task, self._rows, self._batch_size = pretraining_task, rows, batch_size
        self._local, self._evaluate, self._place = local_rows, evaluate, place
        self.baseline_metrics = self._score_baselines(counts)

    def metrics(self, params: PyTree) -> dict[str, float]:
        """Returns `eval/*` of the model and of the baselines, each a mean."""
        count = self._rows.num_batches(self._batch_size)
        is_shown = jax.process_index() == 0
        with console.Bar(count, "batches", "evaluating", is_shown=is_shown) as bar:
            placed = map(self._place, self._batches(self._local))
            means = self._evaluate(params, _counted(placed, bar))
        means["mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))
        return {f"eval/{n}": x for n, x in (means | self.baseline_metrics).items()}

    def _batches(self, rows: slice) -> Iterator[Batch]:
        for step in range(self._rows.num_batches(self._batch_size)):
            interrupts.check()
            first = step * self._batch_size
            numbers = np.arange(first, first + self._batch_size, dtype=np.int32)
            batch = self._rows.batch_at_in_order(step, self._batch_size, rows)
            yield {**batch, "instances": numbers[rows]}

    def _score_baselines(self, counts: baselines.Counts) -> dict[str, float]:
        mask = jax.jit(self._task.prepare_eval)
        sums = collections.defaultdict(lambda: np.zeros(2))
        pairs = np.zeros(2)  # pairs with label 0, with label 1
        for batch in self._batches(slice(None)):
            labels, weights = batch["next_sentence_labels"], batch[PAIR_WEIGHTS]
            pairs += np.bincount(labels.ravel(), weights.ravel(), 2)
            masked = jax.device_get(mask(batch))
            real = masked["masked_lm_weights"] > 0
            positions = masked["masked_lm_positions"]
            left = np.take_along_axis(batch["input_ids"], positions - 1, axis=1)
            scores = baselines.score(counts, masked["masked_lm_ids"][real], left[real])
            for name, pair in scores.items():
                sums[name] += pair
        if pairs.sum():
            sums["nsp_majority_accuracy"] += [pairs.max(), pairs.sum()]
        return {name: float(total / weight) for name, (total, weight) in sums.items()}


def _counted(batches: Iterator[Any], bar: console.Bar) -> Iterator[Any]:
    """Yields the same, and counts each as done when the next one is asked for."""
    for batch in batches:
        yield batch
        bar.update()


def table(metrics: dict[str, float]) -> str:
    """Returns the evaluation as a table for people."""
    rows = [("", "MLM loss", "perplexity", "MLM accuracy", "NSP accuracy")]
    names = {
        "unigram": "unigram counts",
        "bigram": "bigram counts",
        "mlm": "this model",
    }
    for key, title in names.items():
        loss, accuracy = metrics[f"eval/{key}_loss"], metrics[f"eval/{key}_accuracy"]
        of_pairs = metrics.get(PAIR_COLUMN[key]) if key in PAIR_COLUMN else None
        pairs = "-" if of_pairs is None else f"{of_pairs:.4f}"
        perplexity = f"{math.exp(min(loss, 700.0)):.1f}"
        rows.append((title, f"{loss:.3f}", perplexity, f"{accuracy:.4f}", pairs))
    lines = [
        f"{row[0]:<16}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows
    ]
    times = metrics["eval/mlm_accuracy"] / max(metrics["eval/unigram_accuracy"], 1e-9)
    return "\n".join([*lines, f"MLM accuracy is {times:.2f} times the unigram's."])
