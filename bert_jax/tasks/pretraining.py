"""Pretraining: masked language modeling, with an optional sentence-pair objective.

The loss is the mean over masked tokens plus the mean over pairs, as published
(arXiv:1810.04805, section 3.1). The pair objective is next-sentence or sentence-order
prediction. Evaluation masks are seeded by the instance number, so they depend only on
the store and the sequence length, not on the batch size, the seed or the training
masks of a run.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree

from bert_jax import console
from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances as pair_rows
from bert_jax.foundation import interrupts
from bert_jax.model import config as model_config
from bert_jax.model import costs, network
from bert_jax.tasks import losses, spec
from bert_jax.tasks.masking import EVAL_SEED, Masking, eval_masking, mask_tokens
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The pretraining task of one model.

    Attributes:
      model: the network, with or without a head for sentence pairs.
      masking: the masking of training batches.
      eval_masking: the masking of held-out rows.
    """

    model: network.Network
    masking: Masking
    eval_masking: Masking

    def init(self, key: Array) -> PyTree:
        """Initializes parameters, boxed with the names of their logical axes."""
        return self.model.init(key)

    def prepare(self, batch: spec.Batch, key: Array) -> spec.Batch:
        """Samples the masks of a training batch."""
        return mask_tokens(batch, key, self.masking)

    def prepare_eval(self, batch: spec.Batch) -> spec.Batch:
        """Samples the masks of held-out rows, seeded by their `instances` numbers."""
        base = jax.random.key(EVAL_SEED)

        def mask(row: spec.Batch, instance: Int[Array, ""]) -> spec.Batch:
            row = jax.tree.map(lambda x: x[None], row)
            key = jax.random.fold_in(base, instance)
            masked = mask_tokens(row, key, self.eval_masking)
            return jax.tree.map(lambda x: x[0], masked)

        return jax.vmap(mask)(batch, batch["instances"])

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the numbers of predicted tokens and pairs."""
        weights = {"mlm": jnp.sum(batch["masked_lm_weights"])}
        if "nsp_head" in self.model.parts:
            weights["nsp"] = jnp.sum(batch["next_sentence_weights"])
        return weights

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the sums of both losses, and the metrics, with dropout."""
        metrics = self._metrics(params, batch, key)
        names = ("mlm", "nsp") if "nsp_head" in self.model.parts else ("mlm",)
        return {name: metrics[f"{name}_loss"][0] for name in names}, metrics

    def evaluate(self, params: PyTree, batch: spec.Batch) -> spec.Sums:
        """Returns the metrics of held-out rows, without dropout.

        `instances` [B] int32 numbers the rows of the batch within the split.
        """
        return self._metrics(params, self.prepare_eval(batch), None)

    def _metrics(
        self, params: PyTree, batch: spec.Batch, key: Array | None
    ) -> spec.Sums:
        outputs = self.model.apply(params, batch, dropout_key=key)
        scores = outputs["mlm_scores"]
        labels, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]

        def mlm(rows: Array, labels: Array, weights: Array) -> spec.Sums:
            return _sums("mlm", scores._replace(rows=rows).logits(), labels, weights)

        parts = _parts(scores.rows.shape, self.model.config.vocab_size)
        metrics = losses.in_parts(mlm, parts, scores.rows, labels, weights)
        if "nsp_logits" not in outputs:
            return metrics
        labels, weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
        return metrics | _sums("nsp", outputs["nsp_logits"], labels, weights)


def _parts(rows: tuple[int, ...], vocab_size: int) -> int:
    """Returns the number of chunks in which to compute the logits."""
    batch_size, predictions, _ = rows
    devices = jax.sharding.get_abstract_mesh().size or 1
    logits = batch_size * predictions * vocab_size / devices
    return min(predictions, math.ceil(logits / costs.MOST_LOGITS))


def _sums(
    name: str,
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
) -> spec.Sums:
    weight = jnp.sum(weights)
    loss = losses.cross_entropy(logits, labels, weights)
    hits = losses.correct(logits, labels, weights)
    return {f"{name}_loss": (loss, weight), f"{name}_accuracy": (hits, weight)}


MAX_TOKENS = 20_000_000  # from the start of the store; limits time and memory
PRIOR = 10.0  # unigram counts mixed into every row of the bigram


@dataclasses.dataclass(frozen=True)
class Counts:
    """Token and pair counts over a vocabulary of V, without special tokens.

    `pairs` are the sorted keys `left * V + right`; `pair_counts`, their counts.
    """

    unigram: Float[np.ndarray, " V"]
    pairs: Int[np.ndarray, " K"]
    pair_counts: Int[np.ndarray, " K"]
    left_counts: Float[np.ndarray, " V"]
    best_right: Int[np.ndarray, " V"]


def count_tokens(
    train: store.Store, vocab_size: int, special_ids: tuple[int, ...]
) -> Counts:
    """Counts the first `MAX_TOKENS` tokens of a store, without special tokens."""
    unigram = np.zeros(vocab_size)
    keys, left = np.zeros(0, np.int64), MAX_TOKENS
    counts = np.zeros(0, np.int64)
    for shard in train.shards:
        interrupts.check()
        tokens = np.asarray(shard.tokens[:left]).astype(np.int64)
        left -= len(tokens)
        unigram += np.bincount(tokens, minlength=vocab_size)
        found, times = np.unique(
            (tokens[:-1] * vocab_size + tokens[1:])[~_ends(shard, len(tokens))],
            return_counts=True,
        )
        keys, inverse = np.unique(np.concatenate([keys, found]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counts, times]), len(keys))
        counts = counts.astype(np.int64)
    ordinary = ~np.isin(keys % vocab_size, special_ids)
    keys, counts = keys[ordinary], counts[ordinary]
    unigram[list(special_ids)] = 0
    return Counts(
        unigram=unigram,
        pairs=keys,
        pair_counts=counts,
        left_counts=np.bincount(keys // vocab_size, counts, vocab_size),
        best_right=_best_right(keys, counts, unigram),
    )


def _ends(shard: store.Shard, count: int) -> Bool[np.ndarray, " pairs"]:
    """Marks the pairs whose right token begins a new document."""
    starts = shard.sentence_offsets[shard.document_offsets]
    inner = starts[(starts > 0) & (starts < count)]
    ends = np.zeros(max(count - 1, 0), bool)
    ends[inner - 1] = True
    return ends


def _best_right(
    keys: np.ndarray, counts: np.ndarray, unigram: np.ndarray
) -> Int[np.ndarray, " V"]:
    """Returns the most frequent right neighbor of each token, or the top unigram."""
    vocab_size = len(unigram)
    best = np.full(vocab_size, int(np.argmax(unigram)))
    rising = np.argsort(counts, kind="stable")  # the last write wins
    best[keys[rising] // vocab_size] = keys[rising] % vocab_size
    return best


def score_counts(
    counts: Counts, labels: Integer[np.ndarray, " T"], left: Integer[np.ndarray, " T"]
) -> dict[str, tuple[float, float]]:
    """Returns (sum, weight) of the loss and accuracy of both baselines.

    Args:
      labels: the original masked tokens.
      left: the uncorrupted token before each ([CLS] or [SEP] at the start).
    """
    vocab_size, labels = len(counts.unigram), labels.astype(np.int64)
    left = left.astype(np.int64)
    smooth = (counts.unigram + 1) / (counts.unigram + 1).sum()
    keys = left * vocab_size + labels
    at = np.minimum(np.searchsorted(counts.pairs, keys), len(counts.pairs) - 1)
    seen = np.where(counts.pairs[at] == keys, counts.pair_counts[at], 0)
    pair = (seen + PRIOR * smooth[labels]) / (counts.left_counts[left] + PRIOR)
    values = {
        "unigram_loss": -np.log(smooth[labels]),
        "unigram_accuracy": labels == np.argmax(counts.unigram),
        "bigram_loss": -np.log(pair),
        "bigram_accuracy": labels == counts.best_right[left],
    }
    return {name: (float(x.sum()), float(len(labels))) for name, x in values.items()}


Batch = dict[str, np.ndarray]
ToDevices = Callable[[Batch], Any]
# evaluate(params, batches) -> {name: mean}: sums over all batches, divided once.
Evaluate = Callable[[PyTree, Iterator[Any]], dict[str, float]]


def held_out_rows(
    folder_split: store.Store, objective: str, max_seq_length: int, tokenizer: Tokenizer
) -> pair_rows.Instances:
    """Returns the rows of the held-out split, the same for every run of the store."""
    return pair_rows.Instances(
        folder_split,
        objective=objective,
        max_seq_length=max_seq_length,
        short_seq_prob=0.0,
        seed=EVAL_SEED,
        special_ids=(tokenizer.cls_id, tokenizer.sep_id),
    )


class HeldOut:
    """Evaluates parameters and baselines on all held-out rows, with the same masks."""

    def __init__(
        self,
        pretraining_task: Pretraining,
        rows: pair_rows.Instances,
        counts: Counts,
        *,
        batch_size: int,
        local_rows: slice,
        evaluate: Evaluate,
        to_devices: ToDevices,
    ) -> None:
        """Scores the baselines once.

        Args:
          evaluate: averages the jitted `task.evaluate` over batches.
          batch_size: rows in a global batch; results do not depend on it.
          local_rows: the rows of each batch that this process loads.
          to_devices: transfers a batch to the devices.
        """
        self._task, self._rows, self._batch_size = pretraining_task, rows, batch_size
        self._local, self._evaluate = local_rows, evaluate
        self._to_devices = to_devices
        self.baseline_metrics = self._score_baselines(counts)

    def metrics(self, params: PyTree) -> dict[str, float]:
        """Returns the mean `eval/*` metrics of the model and of the baselines."""
        count = self._rows.num_batches(self._batch_size)
        is_shown = jax.process_index() == 0
        with console.Bar(count, "batches", "evaluating", is_shown=is_shown) as bar:
            on_device = map(self._to_devices, self._batches(self._local))
            means = self._evaluate(params, _counted(on_device, bar))
        means["mlm_perplexity"] = math.exp(min(means["mlm_loss"], 700.0))
        return {f"eval/{n}": x for n, x in (means | self.baseline_metrics).items()}

    def _batches(self, rows: slice) -> Iterator[Batch]:
        for step in range(self._rows.num_batches(self._batch_size)):
            interrupts.check()
            first = step * self._batch_size
            numbers = np.arange(first, first + self._batch_size, dtype=np.int32)
            batch = self._rows.batch_at_in_order(step, self._batch_size, rows)
            yield {**batch, "instances": numbers[rows]}

    def _score_baselines(self, counts: Counts) -> dict[str, float]:
        mask = jax.jit(self._task.prepare_eval)
        sums = collections.defaultdict(lambda: np.zeros(2))
        pairs = np.zeros(2)  # pairs with label 0, with label 1
        for batch in self._batches(slice(None)):
            labels = batch["next_sentence_labels"].ravel()
            pairs += np.bincount(labels, batch["next_sentence_weights"].ravel(), 2)
            masked = jax.device_get(mask(batch))
            real = masked["masked_lm_weights"] > 0
            positions = masked["masked_lm_positions"]
            left = np.take_along_axis(batch["input_ids"], positions - 1, axis=1)
            scores = score_counts(counts, masked["masked_lm_ids"][real], left[real])
            for name, pair in scores.items():
                sums[name] += pair
        if pairs.sum():
            sums["nsp_majority_accuracy"] += [pairs.max(), pairs.sum()]
        return {name: float(total / weight) for name, (total, weight) in sums.items()}


def _counted(batches: Iterator[Any], bar: console.Bar) -> Iterator[Any]:
    """Yields the batches, advancing the bar when the next one is requested."""
    for batch in batches:
        yield batch
        bar.update()


def heldout_table(metrics: dict[str, float]) -> str:
    """Returns the evaluation as a human-readable table."""
    rows = [("", "MLM loss", "perplexity", "MLM accuracy", "NSP accuracy")]
    shown = (
        ("unigram", "unigram counts", "eval/nsp_majority_accuracy"),
        ("bigram", "bigram counts", ""),
        ("mlm", "this model", "eval/nsp_accuracy"),
    )
    for key, title, name in shown:
        loss, accuracy = metrics[f"eval/{key}_loss"], metrics[f"eval/{key}_accuracy"]
        pairs = f"{metrics[name]:.4f}" if name in metrics else "-"
        perplexity = f"{math.exp(min(loss, 700.0)):.1f}"
        rows.append((title, f"{loss:.3f}", perplexity, f"{accuracy:.4f}", pairs))
    times = metrics["eval/mlm_accuracy"] / max(metrics["eval/unigram_accuracy"], 1e-9)
    table = console.table(rows)
    return f"{table}\nMLM accuracy is {times:.2f} times the unigram's."


def make(
    settings: spec.Settings,
    bert: model_config.BertConfig,
    mask_id: int,
    special_ids: tuple[int, ...],
) -> Pretraining:
    """Returns the pretraining task of these settings, with the vocabulary of `bert`."""
    data = settings.data
    model = network.for_pretraining(
        bert,
        settings.run.execution(packed=data.pack),
        sentence_pairs=data.objective != "full_sentences",
    )
    masking = Masking(
        masked_lm_prob=data.masked_lm_prob,
        max_predictions=data.num_predictions,
        max_seq_length=data.max_seq_length,
        whole_word=data.whole_word,
        max_ngram=data.max_ngram,
        mask_id=mask_id,
        special_ids=special_ids,
        vocab_size=bert.vocab_size,
    )
    evaluation = eval_masking(masking, data.max_seq_length)
    return Pretraining(model, masking, evaluation)
