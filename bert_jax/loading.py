"""A trained model from its folder, with its tokenizer: the way in for Python users."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, PyTree

from bert_jax import errors, workdirs
from bert_jax.model import config as model_config
from bert_jax.model import encoder, heads
from bert_jax.text import tokenizer as tokenizers
from bert_jax.training import checkpoint, sharding

Guesses = list[tuple[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A pretrained model that fills masks.

    Attributes:
      tokenizer: of the store it was trained on.
      bert: its architecture.
      params: its parameters.
      max_seq_length: the longest row it was trained on; longer text is windowed.
    """

    tokenizer: tokenizers.Tokenizer
    bert: model_config.BertConfig
    params: PyTree
    max_seq_length: int

    def fill_mask(self, text: str, top: int = 5) -> list[Guesses]:
        """Returns, for every [MASK] in the text, the likeliest pieces and their odds.

        Raises:
          InputError: the text has no [MASK].

        Of a text that is longer than the rows of training, each mask sees as much as
        fits around it.
        """
        return self.fill_ids(self.tokenizer.encode_text(text), top)

    def fill_ids(self, ids: list[int], top: int = 5) -> list[Guesses]:
        """Does `fill_mask` for ids without [CLS] and [SEP]."""
        masks = [at for at, token in enumerate(ids) if token == self.tokenizer.mask_id]
        if not masks:
            raise errors.InputError(
                "the text has no [MASK]: write one where a token is to be guessed, as "
                "in: The capital of France is [MASK]."
            )
        probabilities = [self._probabilities(*self._window(ids, at)) for at in masks]
        return [self._best(row, top) for row in probabilities]

    def _window(self, ids: list[int], at: int) -> tuple[list[int], int]:
        """Cuts what fits into a row around position `at`, and says where that is."""
        room = self.max_seq_length - 2
        first = max(0, min(at - room // 2, len(ids) - room))
        window = ids[first : first + room]
        row = [self.tokenizer.cls_id, *window, self.tokenizer.sep_id]
        return row, at - first + 1

    def _probabilities(self, row: list[int], position: int) -> Float[np.ndarray, " V"]:
        length = self.max_seq_length
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(row)] = row
        segments = (np.arange(length) < len(row)).astype(np.int32)[None]
        return np.asarray(
            _masked_probabilities(
                self.bert,
                self.params,
                padded,
                segments,
                np.array([[position]], np.int32),
            )
        )

    def _best(self, probabilities: Float[np.ndarray, " V"], top: int) -> Guesses:
        probabilities = probabilities.copy()
        probabilities[list(self.tokenizer.special_ids)] = 0.0
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.tokenizer.tokens[i], float(probabilities[i])) for i in best]


@jax.jit(static_argnums=0)
def _masked_probabilities(
    bert: model_config.BertConfig,
    params: PyTree,
    input_ids: Int[Any, "1 L"],
    segment_ids: Int[Any, "1 L"],
    positions: Int[Any, "1 1"],
) -> Float[Any, " V"]:
    """Computes the distribution over the vocabulary at one position of one row."""
    model = heads.BertForPreTraining(bert, encoder.Execution(), sentence_pairs=False)
    used = {name: params[name] for name in ("encoder", "mlm_head")}
    places = jnp.arange(input_ids.shape[1], dtype=jnp.int32)[None]
    mlm_logits, _ = model.apply(
        {"params": used},
        input_ids,
        jnp.zeros_like(input_ids),
        segment_ids,
        places * segment_ids,
        positions,
        positions,
        deterministic=True,
    )
    return jax.nn.softmax(mlm_logits[0, 0])[: bert.vocab_size]


def load(folder: str | Path) -> Model:
    """Loads the newest undamaged checkpoint of a workdir.

    Raises:
      InputError: the folder is no workdir of this package.
      CheckpointError: it has no usable checkpoint.
    """
    folder = Path(folder)
    settings = workdirs.read_settings(folder)
    tokenizer = tokenizers.load(folder / workdirs.TOKENIZER)
    bert = settings.bert(tokenizer.vocab_size)
    model = heads.BertForPreTraining(
        bert, encoder.Execution(), settings.data.objective != "full_sentences"
    )
    one = sharding.replicated(sharding.make_mesh(1, 1, 1))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
        nn.unbox(heads.parameter_shapes(model)),
    )
    params, _ = checkpoint.restore_params(folder / workdirs.CHECKPOINTS, shapes)
    return Model(tokenizer, bert, params, settings.data.max_seq_length)


def check_initial(init_from: str) -> None:
    """Raises InputError if `init_from` is neither "none" nor the workdir of a run."""
    if init_from != "none":
        workdirs.read_settings(Path(init_from))


def initial_params(folder: Path, shapes: PyTree) -> PyTree:
    """Returns the parameters of a workdir, to train on from (`init_from`).

    `shapes` are the abstract parameters of the new run, with shardings; names, shapes
    and dtypes must be the same.

    Raises:
      InputError: the folder is no workdir of this package.
      CheckpointError: it has no usable checkpoint, or one of another model.
    """
    workdirs.read_settings(folder)
    params, _ = checkpoint.restore_params(folder / workdirs.CHECKPOINTS, shapes)
    return params
