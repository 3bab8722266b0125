"""Pretraining: masked tokens with next-sentence, sentence-order or no prediction.

The loss is the mean over masked tokens plus the mean over pairs, as published
(arXiv:1810.04805, section 3.1). Evaluation masks are drawn for each instance by its
number, so they are the same for every run of the same store and length, whatever the
batch size, the seed or the masking that a run trains with.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from bert_jax.model import costs, heads
from bert_jax.tasks import losses, task
from bert_jax.tasks.masking import Masking, mask_tokens

EVAL_SEED = 0
EVAL_MASKED_LM_PROB = 0.15


def eval_masking(training: Masking, max_seq_length: int) -> Masking:
    """Returns the masks of every evaluation: 15 % of the tokens, all as [MASK].

    Nothing is left as it was: at a kept token the answer stands in the input, which
    would flatter the model against baselines that do not see it.
    """
    return dataclasses.replace(
        training,
        masked_lm_prob=EVAL_MASKED_LM_PROB,
        max_predictions=-(-max_seq_length * 15 // 100),
        max_seq_length=max_seq_length,
        whole_word=False,
        max_ngram=1,
        mask_share=1.0,
        random_share=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The pretraining task of one model; a `task.Task`.

    Attributes:
      model: with or without a head for sentence pairs.
      masking: of training.
      eval_masking: of evaluation.
    """

    model: heads.BertForPreTraining
    masking: Masking
    eval_masking: Masking

    def init(self, key: Array) -> PyTree:
        """Draws fresh parameters, boxed with the names of their logical axes."""
        return heads.initialiser(self.model)(key)

    def prepare(self, batch: task.Batch, key: Array) -> task.Batch:
        """Draws the masks of a training batch."""
        return mask_tokens(batch, key, self.masking)

    def prepare_eval(self, batch: task.Batch) -> task.Batch:
        """Draws the masks of held-out rows, each by its number in `instances`."""
        base = jax.random.key(EVAL_SEED)

        def mask(row: task.Batch, instance: Int[Array, ""]) -> task.Batch:
            row = jax.tree.map(lambda x: x[None], row)
            key = jax.random.fold_in(base, instance)
            masked = mask_tokens(row, key, self.eval_masking)
            return jax.tree.map(lambda x: x[0], masked)

        return jax.vmap(mask)(batch, batch["instances"])

    def weights(self, batch: task.Batch) -> dict[str, Float[Array, ""]]:
        """Returns how many tokens and pairs are predicted."""
        weights = {"mlm": jnp.sum(batch["masked_lm_weights"])}
        if self.model.sentence_pairs:
            weights["nsp"] = jnp.sum(batch["next_sentence_weights"])
        return weights

    def losses(
        self, params: PyTree, batch: task.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], task.Sums]:
        """Returns the sums of both losses, and the metrics, with dropout."""
        metrics = self._metrics(params, batch, key)
        names = ("mlm", "nsp") if self.model.sentence_pairs else ("mlm",)
        return {name: metrics[f"{name}_loss"][0] for name in names}, metrics

    def evaluate(self, params: PyTree, batch: task.Batch) -> task.Sums:
        """Returns the metrics of held-out rows, without dropout.

        `instances` [B] int32 numbers the rows of the batch within the split.
        """
        return self._metrics(params, self.prepare_eval(batch), None)

    def _metrics(
        self, params: PyTree, batch: task.Batch, key: Array | None
    ) -> task.Sums:
        outputs: Any = self.model.apply(
            {"params": params},
            batch["input_ids"],
            batch["token_type_ids"],
            batch["segment_ids"],
            batch["position_ids"],
            batch["masked_lm_positions"],
            batch["cls_positions"],
            deterministic=key is None,
            rngs={} if key is None else {"dropout": key},
        )
        scores, nsp_logits = outputs
        labels, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]

        def mlm(rows: Array, labels: Array, weights: Array) -> task.Sums:
            return _sums("mlm", scores._replace(rows=rows).logits(), labels, weights)

        parts = _parts(scores.rows.shape, self.model.config.vocab_size)
        metrics = losses.in_parts(mlm, parts, scores.rows, labels, weights)
        if nsp_logits is None:
            return metrics
        labels, weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
        return metrics | _sums("nsp", nsp_logits, labels, weights)


def _parts(rows: tuple[int, ...], vocab_size: int) -> int:
    """Returns in how many parts the logits of these rows are computed."""
    batch_size, predictions, _ = rows
    devices = jax.sharding.get_abstract_mesh().size or 1
    logits = batch_size * predictions * vocab_size / devices
    return min(predictions, math.ceil(logits / costs.MOST_LOGITS))


def _sums(
    name: str,
    logits: Float[Array, "... C"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
) -> task.Sums:
    weight = jnp.sum(weights)
    loss = losses.cross_entropy(logits, labels, weights)
    hits = losses.correct(logits, labels, weights)
    return {f"{name}_loss": (loss, weight), f"{name}_accuracy": (hits, weight)}
