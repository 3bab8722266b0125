"""The weights that a fine-tuning run starts from: a given encoder, a fresh head.

What is drawn and what is left behind is returned to be said aloud.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from jaxtyping import PyTree

from bert_jax import errors, hub
from bert_jax.checkpoints import (
    initial_weights,
    model_folders,
    places,
    task_folders,
    weights,
)
from bert_jax.config import finetuning
from bert_jax.model import config as model_config
from bert_jax.model import parts
from bert_jax.text import cleaning
from bert_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """What a run begins with.

    Attributes:
      bert: the architecture, with the keys that the config sets.
      tokenizer: of the run.
      given: parts that were read: numpy arrays, the vocabulary not padded.
      left: parts of the folder that the run has no use for.
      sums: sha256 of the files that were read.
    """

    bert: model_config.BertConfig
    tokenizer: Tokenizer
    given: dict[str, PyTree]
    left: tuple[str, ...] = ()
    sums: dict[str, str] = dataclasses.field(default_factory=dict)


def read(settings: finetuning.FinetuningConfig, wanted: tuple[str, ...]) -> Start:
    """Reads what a run starts from.

    Args:
      wanted: the parts of the run's model.

    Raises:
      InputError: the folder holds no model that fits, or a key of the config cannot be.
    """
    start = _start(settings, wanted)
    text = settings.text
    asked = cleaning.from_config(text.clean, text.stop_words, start.tokenizer.cleaning)
    tokenizer = dataclasses.replace(start.tokenizer, cleaning=asked)
    return dataclasses.replace(start, tokenizer=tokenizer)


def _start(settings: finetuning.FinetuningConfig, wanted: tuple[str, ...]) -> Start:
    if settings.init_from == "none":
        return _fresh(settings)
    folder = hub.folder(settings.init_from)
    ignore = [x.strip() for x in settings.init.ignore.split(",") if x.strip()]
    params, found, tokenizer, sums = _read(folder, tuple(ignore))
    bert = _with_keys(found, settings)
    heads = settings.init.head == "given"
    if heads and parts.TRANSFORM in {*params} - {*wanted}:
        raise errors.InputError(
            f"the head of {folder} follows a layer ({parts.TRANSFORM}), and init.head "
            "is given: set head.transform=true, with head.pooling=mean for texts"
        )
    kept = {"encoder", "pooler"} | ({*wanted} if heads else set())
    given = {name: params[name] for name in params if name in kept & {*wanted}}
    lacking = sorted({*wanted} - {*given} - {"pooler"}) if heads else []
    if lacking:
        raise errors.InputError(
            f"{folder} has no {', '.join(lacking)}, and init.head is given: leave it "
            "out to draw the head of the task"
        )
    flat = places.flat(given)
    flat = initial_weights.with_positions(flat, bert, settings.init.positions)
    left = tuple(sorted(name for name in params if name not in given))
    return Start(bert, tokenizer, places.nested(flat), left, sums)


def given_head(
    settings: finetuning.FinetuningConfig, workdir: Path
) -> task_folders.Learned | None:
    """Returns what a head that is given has learned, or None if it is drawn fresh.

    Of a run that is resumed, the best model says it.

    Raises:
      InputError: the folder holds no model.
    """
    if settings.init.head != "given":
        return None
    folder = task_folders.best(workdir) or hub.folder(settings.init_from)
    if task_folders.is_task(folder):
        return dataclasses.replace(task_folders.read(folder).learned, threshold=None)
    return task_folders.Learned(labels=model_folders.labels(folder))


def _read(
    folder: Path, ignore: tuple[str, ...]
) -> tuple[PyTree, model_config.BertConfig, Tokenizer, dict[str, str]]:
    """Returns parameters, architecture, tokenizer and sums of a folder of any kind."""
    if task_folders.is_task(folder):
        made = task_folders.read(folder)
        return made.params, made.bert, made.tokenizer, {}
    found = model_folders.read(folder, weights.Choice(ignore=ignore))
    assert found.tokenizer is not None
    return (
        found.weights.params,
        found.weights.config,
        found.tokenizer,
        found.report.files,
    )


def _with_keys(
    bert: model_config.BertConfig, settings: finetuning.FinetuningConfig
) -> model_config.BertConfig:
    """Returns an architecture with the keys of the config that change no weight."""
    made = dataclasses.replace(bert, **settings.model)
    free = (*initial_weights.FREE, "hidden_act")
    if settings.init.positions != "same" or not bert.has_position_table:
        free = (*free, "max_position_embeddings")
    for name, value in settings.model.items():
        if name not in free and getattr(bert, name) != value:
            raise errors.InputError(
                f"model.{name} is {value!r}, and the weights of {settings.init_from} "
                f"have {getattr(bert, name)!r}: leave it unset"
            )
    return made


def _fresh(settings: finetuning.FinetuningConfig) -> Start:
    """Returns architecture and tokenizer alone."""
    vocab = hub.folder(settings.text.vocab, vocabulary_only=True)
    if vocab.is_dir():
        vocab = _tokenizer_folder(vocab)
    tokenizer = Tokenizer.load(vocab, require_mask=False)
    given = dict(settings.model)
    if hub.is_name(settings.size) or Path(settings.size).is_dir():
        size = dataclasses.asdict(_architecture(hub.folder(settings.size)))
    else:
        size = dataclasses.asdict(model_config.published(settings.size))
    if given.get("vocab_size") not in (None, tokenizer.vocab_size):
        raise errors.InputError(
            f"model.vocab_size is {given['vocab_size']}, but the vocabulary has "
            f"{tokenizer.vocab_size} pieces: leave model.vocab_size unset"
        )
    bert = model_config.BertConfig(
        **{**size, **given, "vocab_size": tokenizer.vocab_size}
    )
    return Start(bert, tokenizer, {})


def _tokenizer_folder(folder: Path) -> Path:
    best = task_folders.best(folder)
    if best is not None:
        return best
    try:
        return model_folders.tokenizer_folder(folder)
    except errors.InputError:  # a vocabulary alone
        return folder


def _architecture(folder: Path) -> model_config.BertConfig:
    if task_folders.is_task(folder):
        return task_folders.read(folder).bert
    return model_folders.architecture(folder)


def parameters(
    start: Start,
    shapes: PyTree,
    draw: Callable[[jax.Array], PyTree],
    seed: int,
) -> PyTree:
    """Returns the parameters of a run on its mesh: what was given, the rest drawn.

    Args:
      shapes: abstract parameters of the run, with shardings.
      draw: makes fresh parameters from a key.
      seed: of what is drawn.
    """
    if not start.given:
        return initial_weights.drawn(seed, shapes, draw, frozenset(shapes))
    words = shapes["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    given = parts.pad_vocabulary(start.given, words.shape[0])
    names = frozenset(shapes) - frozenset(given)
    params = initial_weights.placed(given, shapes, Path("the given folder"))
    if names:
        params |= initial_weights.drawn(seed, shapes, draw, names)
    return params
