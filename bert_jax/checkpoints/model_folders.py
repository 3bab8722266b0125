"""Model folders of any kind, read the same way: whose they are shows in their files.

A workdir of a run (of fine-tuning: its best model), an export of ours, a folder of
Hugging Face's (or one of its files),
and Google's TensorFlow 1 checkpoints.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bert_jax import errors, hub, json_file
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    mapping,
    native,
    run_folder,
    sentence_encoder,
    task_folders,
    tensorflow1,
    tensors,
)
from bert_jax.checkpoints import weights as formats_weights
from bert_jax.model import config, encoder, heads, parts
from bert_jax.text import options as tokenizer_options
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, saved_steps, sharding

_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "spiece.model", "vocab.json")
KINDS = ("workdir", "bert_jax", "huggingface", "tensorflow1")


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """A model that was read from a folder.

    Attributes:
      kind: one of `KINDS`.
      weights: architecture, parameters and labels.
      tokenizer: None if the folder has none.
      report: what came from where.
      max_seq_length: the longest row that the model is made for.
      pooling: how its token vectors become a sentence vector.
    """

    kind: str
    weights: formats_weights.Weights
    tokenizer: Tokenizer | None
    report: formats_weights.Report
    max_seq_length: int
    pooling: sentence_encoder.Pooling


def kind_of(path: Path) -> str:
    """Returns which kind of model a folder or file is.

    Raises:
      InputError: it is missing, or of no known kind.
    """
    path = weights_at(path)
    if not path.is_dir():
        return _kind_of_file(path)
    if (path / native.CONFIG).is_file():
        return "bert_jax"
    if tensors.has_weights(path):
        return "huggingface"
    if (path / tensorflow1.CONFIG).is_file():
        return "tensorflow1"
    begun = all((path / x).exists() for x in (run_folder.TOKENIZER, run_folder.CONFIG))
    if begun or (path / run_folder.CHECKPOINTS).is_dir():
        return "workdir"
    if refused := tensors.other_weights(path):
        raise refused
    raise errors.InputError(
        f"{path} holds no model: expected checkpoints/ of a run, {native.PARAMETERS}, "
        f"{' or '.join(tensors.WEIGHTS)}, or {tensorflow1.CONFIG} with a checkpoint of "
        "TensorFlow 1"
    )


def _of_run(path: Path) -> Path:
    """Returns the folder of a name of the hub, the best model of a run, or the path."""
    path = hub.folder(path)
    return task_folders.best(path) or path


def weights_at(path: Path) -> Path:
    """Returns where the weights of a model are: its path, or a folder in it.

    That is the best model of a run, and the encoder of sentence-transformers.

    Raises:
      InputError: modules.json is damaged.
    """
    path = _of_run(path)
    return sentence_encoder.transformer_folder(path) if path.is_dir() else path


def _kind_of_file(path: Path) -> str:
    """Returns the kind of a file of weights, or of the prefix of a checkpoint."""
    is_index = path.suffix == ".index"
    index = path if is_index else path.with_name(f"{path.name}.index")
    if index.is_file():
        return "tensorflow1"
    if path.is_file() and path.name in (native.PARAMETERS, native.CONFIG):
        return "bert_jax"
    refused = tensors.other_format(path) if path.is_file() else None
    if refused:
        raise refused
    if path.is_file() and path.suffix in (".safetensors", ".bin", ".json"):
        return "huggingface"
    wanted = "give the folder of a model, or a file of weights"
    if not path.exists():
        raise errors.InputError(
            f"{path} does not exist: {wanted}, or {hub.suggestion(path)}"
        )
    raise errors.InputError(f"{path} is no file of weights: {wanted}")


def read(
    path: Path,
    choice: formats_weights.Choice | None = None,
    *,
    needs_tokenizer: bool = True,
) -> Folder:
    """Reads a model folder of any kind.

    Raises:
      InputError: something is missing, left over, damaged or does not fit.
      CheckpointError: a workdir has no usable checkpoint.
    """
    choice, root = choice or formats_weights.Choice(), _of_run(path)
    path = weights_at(root)
    kind = kind_of(path)
    folder = path if path.is_dir() else path.parent
    if kind == "workdir":
        return _workdir(path, choice)
    readers = {
        "bert_jax": native.read,
        "huggingface": huggingface.read,
        "tensorflow1": tensorflow1.read,
    }
    given, report = readers[kind](path, choice)
    given, report = task_folders.on_scale(folder, given, report)
    tokenizer = _tokenizer(folder, given, choice) if needs_tokenizer else None
    root = root if root.is_dir() else folder
    pooling, longest = _pooling(root, folder, given)
    return Folder(kind, given, tokenizer, report, longest, pooling)


def _pooling(
    root: Path, folder: Path, given: formats_weights.Weights
) -> tuple[sentence_encoder.Pooling, int]:
    """Returns how a model pools its tokens, and its longest row.

    Args:
      root: the folder of the model.
      folder: that of its weights and tokenizer.
    """
    longest = given.config.max_length
    if (root / task_folders.TASK).is_file():
        settings = task_folders.settings_of(root)
        made = task_folders.pooling(settings, given.config, given.params)
        stated = settings.data.max_seq_length
        made = made or sentence_encoder.Pooling()
    else:
        made = sentence_encoder.read(root)
        stated = made.max_seq_length or tokenizer_options.max_length(folder)
        if made.is_sentence_encoder:
            made = dataclasses.replace(made, max_seq_length=stated)
    try:
        made.width(given.config.hidden_size)
    except errors.InputError as error:
        raise errors.InputError(f"{root}: {error}") from None
    return made, min(longest, stated or longest)


def architecture(path: Path) -> config.BertConfig:
    """Returns the architecture of a model folder, without reading its weights.

    Raises:
      InputError: as `read`.
    """
    path = weights_at(path)
    kind = kind_of(path)
    folder = path if path.is_dir() else path.parent
    if kind == "workdir":
        return config.BertConfig(**run_folder.read_settings(folder).model)
    if kind == "bert_jax":
        return native.read_config(folder)[0]
    if kind == "tensorflow1":
        return tensorflow1.read_config(folder)[0]
    return huggingface.describe(path).bert


def labels(path: Path) -> tuple[str, ...]:
    """Returns the names of the classes of a model folder, without reading its weights.

    Raises:
      InputError: as `read`.
    """
    path = weights_at(path)
    kind = kind_of(path)
    folder = path if path.is_dir() else path.parent
    if kind == "bert_jax":
        return native.read_config(folder)[1]
    if kind == "tensorflow1":
        return tensorflow1.read_config(folder)[1]
    if kind == "huggingface":
        file = huggingface.config_file(folder)
        return hf_config.labels(json_file.read_object(file), file)
    return ()  # pretraining has no classes


def tokenizer_folder(path: Path) -> Path:
    """Returns where a model folder keeps its tokenizer."""
    path = weights_at(path)
    folder = path if path.is_dir() else path.parent
    return folder / run_folder.TOKENIZER if kind_of(path) == "workdir" else folder


def _tokenizer(
    folder: Path, given: formats_weights.Weights, choice: formats_weights.Choice
) -> Tokenizer | None:
    """Loads the tokenizer of a folder and checks that it fits the table."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        if formats_weights.matches("tokenizer", choice.allow_missing):
            return None
        raise errors.InputError(
            f"{folder} has no tokenizer (vocab.txt, tokenizer.json or spiece.model): "
            "put it there, or convert the weights without it: "
            f"{formats_weights.CONVERT} --allow_missing=tokenizer"
        )
    # Some sentence encoders have no mask; what needs one says so.
    tokenizer = Tokenizer.load(folder, require_mask=False)
    rows = given.config.vocab_size
    if tokenizer.vocab_size != rows:
        fits = tokenizer.vocab_size < rows
        if fits and formats_weights.matches("vocab_rows", choice.ignore):
            return tokenizer
        advice = "give the vocabulary that belongs to these weights"
        if fits:
            command = f"{formats_weights.CONVERT} --ignore=vocab_rows"
            advice += f", or if the table is padded, cut it: {command}"
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size} pieces, and the "
            f"table of embeddings {rows} rows: {advice}"
        )
    return tokenizer


def _workdir(path: Path, choice: formats_weights.Choice) -> Folder:
    """Reads the newest undamaged checkpoint of a run."""
    settings = run_folder.read_settings(path)
    tokenizer = Tokenizer.load(path / run_folder.TOKENIZER)
    bert = settings.bert(tokenizer.vocab_size)
    model = heads.BertForPreTraining(
        bert, encoder.Execution(), settings.data.objective != "full_sentences"
    )
    one = sharding.replicated(sharding.one_device())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
        nn.unbox(heads.parameter_shapes(model)),
    )
    checkpoints = path / run_folder.CHECKPOINTS
    step = saved_steps.newest_usable(checkpoints)
    params, _ = checkpoint.restore_params(checkpoints, shapes, step)
    cut = parts.cut_vocabulary(jax.tree.map(np.asarray, params), bert.vocab_size)
    flat = mapping.flatten(cut)
    found = formats_weights.Found(flat, {name: name for name in flat}, str(path))
    kept, report = formats_weights.assemble(
        found,
        lambda of_parts: mapping.native_mapping(bert, of_parts, 2),
        frozenset(cut),
        choice,
    )
    report = dataclasses.replace(
        report,
        source=f"run of bert_jax, step {step}",
        files=_sums(checkpoints / str(step)),
    )
    made = formats_weights.Weights(bert, mapping.unflatten(kept))
    longest = settings.data.max_seq_length
    return Folder(
        "workdir", made, tokenizer, report, longest, sentence_encoder.Pooling()
    )


def _sums(step_folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file of a checkpoint, which its manifest has."""
    manifest = json.loads((step_folder / saved_steps.MANIFEST).read_bytes())
    made: dict[str, Any] = manifest["sha256"]
    return made
