"""The folder of a run: the names of what is in it, and the settings that it records."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from bert_jax import errors
from bert_jax.checkpoints import mapping, weights
from bert_jax.config import pretraining
from bert_jax.foundation import json_file
from bert_jax.model import config as model_config
from bert_jax.model import encoder, network
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, sharding

CONFIG = "config.json"
TOKENIZER = "tokenizer"
CHECKPOINTS = "checkpoints"
STORE = "store"


def store_of(settings: pretraining.PretrainingConfig, workdir: Path) -> Path:
    """Returns the folder of the store: as configured, or in the workdir."""
    return Path(settings.data.store) if settings.data.store else workdir / STORE


def read_settings(folder: Path) -> pretraining.PretrainingConfig:
    """Reads the config.json that a run left in its workdir.

    Raises:
      InputError: there is none, or it is not of a run of this package.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise errors.InputError(
            f"{folder} is not the workdir of a run: it has no {CONFIG}. Name the "
            "folder that was given to --workdir"
        )
    tree = json_file.parse(json_file.read_bytes(path), str(path))
    if not isinstance(tree, dict) or "run" not in tree:
        raise errors.InputError(
            f"{path} is not the record of a run of bert_jax: it has no group 'run'"
        )
    if "recipe" in tree:
        raise errors.InputError(
            f"{folder} is the workdir of a run of finetune, and not of pretrain; what "
            "it has learned is in best/, from its first evaluation on"
        )
    try:
        return pretraining.parse_record(tree)
    except errors.InputError as error:
        raise errors.InputError(
            f"{path} was written by another version or changed by hand: {error}"
        ) from None


class RunFiles(weights.ModelFiles):
    """The workdir of a pretraining run: its newest undamaged checkpoint."""

    format = "workdir"

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is."""
        return self.folder / TOKENIZER

    @property
    def max_seq_length(self) -> int:
        """The sequence length of the run."""
        return read_settings(self.folder).data.max_seq_length

    def describe(self) -> weights.Described:
        """Returns the architecture in config.json; pretraining has no classes."""
        model = read_settings(self.folder).model
        return weights.Described(model_config.BertConfig(**model))

    @functools.cached_property
    def step(self) -> int:
        """The step of the newest undamaged checkpoint.

        Raises:
          CheckpointError: there is none.
        """
        return checkpoint.newest_usable(self.folder / CHECKPOINTS)

    def weights(self, choice: weights.Choice) -> tuple[weights.Weights, weights.Report]:
        """Reads all parameters."""
        settings = read_settings(self.folder)
        tokenizer = Tokenizer.load(self.tokenizer_folder)
        bert = settings.bert(tokenizer.vocab_size)
        model = network.for_pretraining(
            bert,
            encoder.Execution(),
            sentence_pairs=settings.data.objective != "full_sentences",
        )
        one = sharding.replicated(sharding.one_device())
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
            nn.unbox(model.shapes()),
        )
        checkpoints = self.folder / CHECKPOINTS
        step = self.step
        params, _ = checkpoint.restore_params(checkpoints, shapes, step)
        cut = network.cut_vocabulary(jax.tree.map(np.asarray, params), bert.vocab_size)
        manifest = json.loads(
            (checkpoints / str(step) / checkpoint.MANIFEST).read_bytes()
        )
        return weights.assemble(
            weights.Found(mapping.flatten(cut), str(self.path), manifest["sha256"]),
            weights.Described(bert),
            mapping.native_mapping,
            frozenset(cut),
            choice,
            f"run of bert_jax, step {step}",
        )
