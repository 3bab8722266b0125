"""One tag a token, from the model's outputs: losses and the best tags, all traced.

Rows hold pieces, tags belong to tokens. So every row lists its tokens: the t-th stands
at `token_positions` [B, L] and weighs `token_weights`, with the tag `labels`; all three
are filled up with zeros. Where a row has Q predicates, the last two are [B, Q, L].
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from bert_jax import errors
from bert_jax.model import crf, network
from bert_jax.tasks import losses, spec, tag_schemes
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTags(spec.FineTuned):
    """What tagging and semantic roles have in common; the traced half of a task.

    Attributes:
      model: with a head of the kind `tagger`.
      labels: the tags, in the order of the head's rows.
      scheme: one of `tag_schemes.SCHEMES` but IOB1; that of the labels.
      max_seq_length: the most pieces of a row, special ones among them.
      recipe: of the loss; a CRF takes R-Drop alone (of its logits' softmax).
      constrained: whether tags without a CRF keep to the scheme too (Viterbi over the
        logits); by default each token takes its best, as in `transformers`.
      repair: whether tags that break their scheme are mended and counted.

    Raises:
      InputError: the recipe has what a CRF's likelihood does not know.
    """

    model: network.Network
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    scheme: str
    max_seq_length: int
    recipe: losses.Recipe = losses.Recipe()
    constrained: bool = False
    repair: bool = False

    def __post_init__(self) -> None:
        plain = dataclasses.replace(self.recipe, r_drop=0.0)
        if self.model.head.crf and plain != losses.Recipe():
            raise errors.InputError(
                "recipe.label_smoothing, recipe.focal_gamma and recipe.class_weights "
                "change the losses of single tags; a CRF scores whole sequences: unset "
                "them, or head.crf"
            )

    def weights(self, batch: spec.Batch) -> dict[str, Float[Array, ""]]:
        """Returns the number of tokens, or the weights of their classes.

        A CRF's loss is divided by tokens too, so that it is on the scale of a softmax a
        token: with transitions of zero they are equal.
        """
        weights = batch["token_weights"]
        if self.recipe.class_weights:
            weights = weights * self._class_weights()[batch["labels"]]
        return {"tag": jnp.sum(weights)}

    def losses(
        self, params: PyTree, batch: spec.Batch, key: Array
    ) -> tuple[dict[str, Float[Array, ""]], spec.Sums]:
        """Returns the summed loss, and how often the best logit is the tag."""
        weights = batch["token_weights"]

        def divergence(one: spec.Logits, two: spec.Logits) -> Float[Array, ""]:
            apart = losses.symmetric_kl(one["logits"], two["logits"])
            return jnp.sum(apart * weights)

        total, outputs = losses.regularized(
            self.recipe.r_drop,
            lambda k: self._forward(params, batch, k),
            lambda result: self._loss(result, batch),
            divergence,
            key,
        )
        hits = losses.correct(outputs["logits"], batch["labels"], weights)
        return {"tag": total}, {"accuracy": (hits, jnp.sum(weights))}

    def predict(self, params: PyTree, batch: spec.Batch) -> dict[str, Array]:
        """Computes the best `tags` int32 and their `probabilities` float32, [B, *Q, L].

        With a CRF: the best path, and the probability of each of its tags over all
        paths.
        """
        outputs = self._forward(params, batch, None)
        logits = outputs["logits"]
        odds = jax.nn.softmax(logits, axis=-1)
        if not (self.model.head.crf or self.constrained):
            tags = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        else:
            result, mask, scores = self._chain(outputs, batch)
            tags = crf.viterbi(result, mask, scores).reshape(logits.shape[:-1])
            if self.model.head.crf:
                odds = _marginals(result, mask, scores).reshape(logits.shape)
        picked = jnp.take_along_axis(odds, tags[..., None], axis=-1)[..., 0]
        return {"tags": tags, "probabilities": picked}

    def _forward(self, params: PyTree, batch: spec.Batch, key: Array | None) -> Any:
        """Runs the model; `logits` [B, *Q, L, C] become those of tokens, in order."""
        outputs = self.model.apply(params, batch, dropout_key=key)
        at = batch["token_positions"][..., None]
        if self.model.head.at_predicate:
            at = at[:, None]
        logits = jnp.take_along_axis(outputs["logits"], at, axis=-2)
        return {**outputs, "logits": logits}

    def _loss(self, outputs: spec.Logits, batch: spec.Batch) -> Float[Array, ""]:
        """Sums the losses of the tokens of a batch."""
        labels, weights = batch["labels"], batch["token_weights"]
        if self.model.head.crf:
            logits, mask, scores = self._chain(outputs, batch)
            labels = labels.reshape(mask.shape)
            found = crf.negative_log_likelihood(logits, labels, mask, scores)
            return jnp.sum(found)
        token_losses = losses.class_losses(
            outputs["logits"],
            labels,
            smoothing=self.recipe.label_smoothing,
            focal_gamma=self.recipe.focal_gamma,
            class_weights=self._class_weights() if self.recipe.class_weights else None,
        )
        return jnp.sum(token_losses * weights)

    def _class_weights(self) -> Float[Array, " C"]:
        return jnp.array(self.recipe.class_weights, jnp.float32)

    def _chain(
        self, outputs: spec.Logits, batch: spec.Batch
    ) -> tuple[Float[Array, "N L C"], Bool[Array, "N L"], crf.Scores]:
        """Returns the chains of a batch: one a row, or one a predicate of a row.

        A row that is a window of a longer sentence begins or ends inside of it, where
        any tag may stand: the scores of starts and ends are put into the logits of
        those rows that have them (`opens`, `closes` [B]).
        """
        logits = outputs["logits"]
        zeros = jnp.zeros(logits.shape[-1], jnp.float32)
        scores = crf.Scores(jnp.zeros(logits.shape[-1:] * 2), zeros, zeros)
        if self.model.head.crf:
            scores = crf.Scores(*(outputs[name] for name in crf.Scores._fields))
        allowed = crf.Allowed(*tag_schemes.allowed(self.labels, self.scheme))
        scores = crf.forbid(scores, allowed)
        mask = batch["token_weights"] > 0
        ends = _at_ends(mask, batch["opens"], batch["closes"])
        logits = logits.astype(jnp.float32)
        for score, end in zip(scores[1:], ends, strict=True):
            logits += jnp.einsum("...L,C->...LC", end, score)
        chains = (-1, *logits.shape[-2:])
        scores = crf.Scores(scores.transitions, zeros, zeros)
        return logits.reshape(chains), mask.reshape(-1, mask.shape[-1]), scores


def _at_ends(
    mask: Bool[Array, "B *Q L"], opens: Int[Array, " B"], closes: Int[Array, " B"]
) -> tuple[Float[Array, "B *Q L"], Float[Array, "B *Q L"]]:
    """Returns 1 at the token that begins its sentence, and at the one that ends it."""
    count = jnp.cumsum(mask, axis=-1)
    rows = (-1, *(1,) * (mask.ndim - 1))
    first = mask & (count == 1) & (opens.reshape(rows) > 0)
    last = mask & (count == count[..., -1:]) & (closes.reshape(rows) > 0)
    return first.astype(jnp.float32), last.astype(jnp.float32)


def _marginals(
    logits: Float[Array, "N L C"], mask: Bool[Array, "N L"], scores: crf.Scores
) -> Float[Array, "N L C"]:
    """Returns the probability of each tag of each token over all paths.

    It is the gradient of the log-partition by the logits.
    """
    return jax.grad(lambda x: jnp.sum(crf.log_partition(x, mask, scores)))(logits)
