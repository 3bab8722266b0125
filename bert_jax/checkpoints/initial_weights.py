"""The weights that a run starts from (`init_from`), of pretraining or fine-tuning.

Nothing is randomly initialized, cut or left out unless the group `init` of the config
names it.
"""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, PyTree

from bert_jax import checkpoints, errors
from bert_jax.checkpoints import mapping, native, run_folder, weights
from bert_jax.config import finetuning, pretraining
from bert_jax.data.corpus import store as stores
from bert_jax.foundation import hub, json_file
from bert_jax.model import config as model_config
from bert_jax.model import heads as model_heads
from bert_jax.model import network
from bert_jax.tasks import spec
from bert_jax.text import cleaning
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, sharding

GIVEN = pretraining.FROM_INIT
# What may differ between the folder and the run: the weights do not depend on it.
FREE = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "tie_word_embeddings",
)
_POSITIONS = "encoder/embeddings/position_embeddings/embedding"
_WORDS = "encoder/embeddings/word_embeddings/embedding"


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """What a run begins with.

    Attributes:
      bert: the architecture, with the keys that the config sets.
      tokenizer: of the run.
      given: parts that were read: numpy arrays, the vocabulary not padded.
      left: parts of the folder that the run has no use for.
    """

    bert: model_config.BertConfig
    tokenizer: Tokenizer
    given: dict[str, PyTree]
    left: tuple[str, ...] = ()


def parameters(
    start: Start,
    shapes: PyTree,
    initialize: Callable[[jax.Array], PyTree],
    seed: int,
) -> PyTree:
    """Returns the parameters of a run on its mesh: what was given, the rest random.

    Args:
      shapes: abstract parameters of the run, with shardings.
      initialize: returns random parameters from a key.
      seed: of the random parameters.
    """
    names = frozenset(shapes) - frozenset(start.given)
    params: PyTree = {}
    if start.given:
        words = shapes["encoder"]["embeddings"]["word_embeddings"]["embedding"]
        given = network.pad_vocabulary(start.given, words.shape[0])
        params = sharding.shard_params(given, shapes, "init_from")
    if names:
        params |= randomly_initialized(seed, shapes, initialize, names)
    return params


def randomly_initialized(
    seed: int,
    shapes: PyTree,
    initialize: Callable[[jax.Array], PyTree],
    names: frozenset[str],
) -> dict[str, PyTree]:
    """Returns parts that are initialized from the seed of a run, as in a new run."""
    shardings = jax.tree.map(
        lambda x: x.sharding, {n: shapes[n] for n in sorted(names)}
    )

    def some(key: jax.Array) -> PyTree:
        result = nn.unbox(initialize(key))
        return {name: result[name] for name in sorted(names)}

    mesh = next(iter(jax.tree.leaves(shardings))).mesh
    return sharding.jit(some, mesh, out_shardings=shardings)(jax.random.key(seed))


# Pretraining.


def resolve(
    settings: pretraining.PretrainingConfig, workdir: Path | None, store: Path
) -> pretraining.PretrainingConfig:
    """Replaces `model.size` and `text.vocab`, where they are `init_from`.

    A run that has checkpoints is asked first: the folder may be gone by then.

    Args:
      workdir: of the run, or None where only a store is built.
      store: the folder of its store, which may have a tokenizer already.

    Raises:
      InputError: the folder holds no model, or another one than that of the config.
    """
    resuming = workdir is not None and checkpoint.steps(
        workdir / run_folder.CHECKPOINTS
    )
    folder = workdir if resuming else hub.folder(settings.init_from)
    assert folder is not None
    if settings.init_from != "none" and not resuming:
        _check(settings, folder, store)
    if settings.size == GIVEN:
        given = dataclasses.asdict(checkpoints.open(folder).config)
        del given["vocab_size"]  # that of the vocabulary, which may have grown
        settings = dataclasses.replace(settings, model=given | settings.model)
    if settings.text.vocab == GIVEN:
        vocab = checkpoints.open(folder).tokenizer_folder
        lowercase = Tokenizer.load(vocab).lowercase
        text = dataclasses.replace(settings.text, vocab=str(vocab), lowercase=lowercase)
        settings = dataclasses.replace(settings, text=text)
    return settings


def _check(settings: pretraining.PretrainingConfig, folder: Path, store: Path) -> None:
    """Raises InputError if the run cannot start here, before hours of work."""
    theirs = checkpoints.open(folder).config
    if settings.text.vocab == "learn" and not (store / stores.MANIFEST).exists():
        raise errors.InputError(
            f"init_from is {folder}, and text.vocab is learn: a vocabulary that is "
            "learned now has other tokens than these weights. Set "
            "--config.text.vocab=init_from, or the path of a vocabulary"
        )
    if settings.size != GIVEN:
        size = dataclasses.asdict(model_config.published(settings.size))
        ours = model_config.BertConfig(**size | settings.model)
    else:
        ours = dataclasses.replace(theirs, **settings.model)
    _check_architecture(ours, theirs, settings.init.positions, folder, _OF_PRETRAINING)


def read(
    settings: pretraining.PretrainingConfig,
    bert: model_config.BertConfig,
    tokenizer: Tokenizer,
    shapes: PyTree,
    initialize: Callable[[jax.Array], PyTree],
    workdir: Path,
) -> PyTree:
    """Returns the parameters that a pretraining run starts with.

    Writes `init.json` with the load report and the sha256 of the files.

    Args:
      bert: the architecture of the run.
      tokenizer: of the run.
      shapes: abstract parameters of the run, with shardings.
      initialize: returns random parameters from a key, for the parts in `init.fresh`.

    Raises:
      InputError: the folder lacks what the run needs, or brings what it does not.
    """
    init, folder = settings.init, hub.folder(settings.init_from)
    found = checkpoints.open(folder).read(weights.Choice(ignore=init.ignored))
    theirs = found.weights
    assert found.tokenizer is not None
    _check_architecture(bert, theirs.config, init.positions, folder, _OF_PRETRAINING)
    _check_parts({*theirs.params}, {*shapes}, init, folder)
    kept = {n: x for n, x in theirs.params.items() if n not in init.fresh_parts}
    flat = with_positions(mapping.flatten(kept), bert, init.positions)
    flat = _with_tokens(flat, found.tokenizer, tokenizer, init.new_tokens, folder)
    is_given = "mlm_head" not in init.fresh_parts
    if is_given and not bert.tie_word_embeddings and "mlm_head/decoder" not in flat:
        flat["mlm_head/decoder"] = flat[_WORDS]
    start = Start(bert, tokenizer, mapping.unflatten(flat))
    params = parameters(start, shapes, initialize, settings.run.seed)
    if jax.process_index() == 0:
        record = found.report.record() | {"drawn": sorted(init.fresh_parts)}
        json_file.write(workdir / "init.json", record)
    return params


def _check_parts(
    there: set[str],
    wanted: set[str],
    init: pretraining.PretrainingInitConfig,
    folder: Path,
) -> None:
    """Raises InputError unless the folder has the parts of the run, and no others."""
    if lacking := sorted(wanted - there - init.fresh_parts):
        raise errors.InputError(
            f"{folder} has no {', '.join(lacking)}, which this run trains. To "
            f"initialize them at random: --config.init.fresh={','.join(lacking)}"
        )
    if more := sorted(there - wanted):
        raise errors.InputError(
            f"{folder} has {', '.join(more)}, which this run does not train. To ignore "
            f"them: --config.init.ignore={','.join(more)}"
        )
    if useless := sorted(init.fresh_parts - wanted):
        raise errors.InputError(
            f"init.fresh names {', '.join(useless)}, which this run does not have"
        )


# Fine-tuning.


def read_start(settings: finetuning.FinetuningConfig, wanted: tuple[str, ...]) -> Start:
    """Reads what a fine-tuning run starts from.

    Args:
      wanted: the parts of the run's model.

    Raises:
      InputError: the folder holds no model that fits, or a key of the config cannot be.
    """
    start = _fresh(settings)
    if start is None:
        start = _given(settings, wanted)
    text = settings.text
    asked = cleaning.from_config(text.clean, text.stop_words, start.tokenizer.cleaning)
    tokenizer = dataclasses.replace(start.tokenizer, cleaning=asked)
    return dataclasses.replace(start, tokenizer=tokenizer)


def _given(settings: finetuning.FinetuningConfig, wanted: Collection[str]) -> Start:
    """Returns the encoder of `init_from`, and on request its head."""
    folder, init = hub.folder(settings.init_from), settings.init
    params, theirs, tokenizer = _of_any_kind(folder, init.ignore)
    bert = dataclasses.replace(theirs, **settings.model)
    _check_architecture(bert, theirs, init.positions, folder, _OF_FINETUNING)
    heads = init.head == "given"
    if heads and model_heads.TRANSFORM in {*params} - {*wanted}:
        raise errors.InputError(
            f"the head of {folder} follows a layer ({model_heads.TRANSFORM}), and "
            "init.head is given: set head.transform=true, with head.pooling=mean for "
            "texts"
        )
    kept = {"encoder", "pooler"} | ({*wanted} if heads else set())
    given = {name: params[name] for name in params if name in kept & {*wanted}}
    lacking = sorted({*wanted} - {*given} - {"pooler"}) if heads else []
    if lacking:
        raise errors.InputError(
            f"{folder} has no {', '.join(lacking)}, and init.head is given: leave it "
            "out to initialize the head of the task at random"
        )
    flat = with_positions(mapping.flatten(given), bert, init.positions)
    left = tuple(sorted(name for name in params if name not in given))
    return Start(bert, tokenizer, mapping.unflatten(flat), left)


def _of_any_kind(
    folder: Path, ignore: str
) -> tuple[PyTree, model_config.BertConfig, Tokenizer]:
    """Returns parameters, architecture and tokenizer of a model, with any head."""
    opened = checkpoints.open(folder)
    if opened.task is not None:
        return opened.task.params, opened.task.bert, opened.task.tokenizer
    named = tuple(x.strip() for x in ignore.split(",") if x.strip())
    found = opened.read(weights.Choice(ignore=named))
    assert found.tokenizer is not None
    return found.weights.params, found.weights.config, found.tokenizer


def given_head(
    settings: finetuning.FinetuningConfig, workdir: Path
) -> spec.Metadata | None:
    """Returns the metadata of a head that is given, or None for a new head.

    For a run that is resumed, they are those of its best model.

    Raises:
      InputError: the folder holds no model.
    """
    if settings.init.head != "given":
        return None
    folder = native.best(workdir) or hub.folder(settings.init_from)
    if native.is_task(folder):
        return dataclasses.replace(native.read_task(folder).learned, threshold=None)
    return spec.Metadata(labels=checkpoints.open(folder).labels)


def _fresh(settings: finetuning.FinetuningConfig) -> Start | None:
    """Returns only architecture and tokenizer, if there are no weights to read."""
    if settings.init_from != "none":
        return None
    vocab = hub.folder(settings.text.vocab, vocabulary_only=True)
    if vocab.is_dir():
        vocab = _tokenizer_folder(vocab)
    tokenizer = Tokenizer.load(vocab, require_mask=False)
    given = dict(settings.model)
    if hub.is_name(settings.size) or Path(settings.size).is_dir():
        size = dataclasses.asdict(checkpoints.open(settings.size).config)
    else:
        size = dataclasses.asdict(model_config.published(settings.size))
    if given.get("vocab_size") not in (None, tokenizer.vocab_size):
        raise errors.InputError(
            f"model.vocab_size is {given['vocab_size']}, but the vocabulary has "
            f"{tokenizer.vocab_size} pieces: leave model.vocab_size unset"
        )
    keys: dict[str, Any] = size | given | {"vocab_size": tokenizer.vocab_size}
    return Start(model_config.BertConfig(**keys), tokenizer, {})


def _tokenizer_folder(folder: Path) -> Path:
    try:
        return checkpoints.open(folder).tokenizer_folder
    except errors.InputError:  # only a vocabulary
        return folder


# Architectures, position tables and vocabularies that differ.

# By the kind of run: the further keys that may differ, and what to do about others.
_OF_PRETRAINING = (
    "vocab_size",
    "Set --config.model.size=init_from to take the architecture from there",
)
_OF_FINETUNING = ("hidden_act", "Leave the key unset")


def _check_architecture(
    ours: model_config.BertConfig,
    theirs: model_config.BertConfig,
    positions: str,
    folder: Path,
    of_run: tuple[str, str],
) -> None:
    """Raises InputError unless the two differ only in what is free or asked for."""
    free, advice = {*FREE, of_run[0]}, of_run[1]
    longer = ours.max_position_embeddings > theirs.max_position_embeddings
    if not ours.has_position_table or (longer and positions != "same"):
        free.add("max_position_embeddings")
    before, after = _derived(theirs), _derived(ours)
    different = [
        f"model.{name} is {after[name]!r} here and {before[name]!r} there"
        for name in before
        if name not in free and before[name] != after[name]
    ]
    if longer and len(different) == 1:
        advice = "To extend its positions: --config.init.positions=repeat"
    if different:
        raise errors.InputError(
            f"the weights of {folder} are of another architecture: "
            f"{'; '.join(different)}. {advice}"
        )


def _derived(bert: model_config.BertConfig) -> dict[str, Any]:
    """Returns the keys of an architecture, with -1 replaced by its meaning."""
    result = dataclasses.asdict(bert)
    return result | {
        "embedding_size": bert.embedding_width,
        "num_hidden_groups": bert.num_groups,
    }


def with_positions(
    flat: dict[str, np.ndarray], bert: model_config.BertConfig, how: str
) -> dict[str, np.ndarray]:
    """Returns parameters with the position table of an architecture, if it has one.

    Raises:
      InputError: as `extend_positions`, or a table is asked for that is none.
    """
    if bert.has_position_table:
        rows, offset = bert.max_position_embeddings, bert.position_offset
        return flat | {
            _POSITIONS: extend_positions(flat[_POSITIONS], rows, offset, how)
        }
    if how != "same":
        raise errors.InputError(
            f"init.positions is {how}, and {bert.model_type} has no position table: "
            "leave it out, and set only model.max_position_embeddings"
        )
    return flat


def extend_positions(
    table: Float[np.ndarray, "P E"], rows: int, offset: int, how: str
) -> Float[np.ndarray, "Q E"]:
    """Returns a position table of `rows` rows.

    Args:
      offset: first rows that are not positions, and stay unchanged.
      how: `same` (no change is allowed), `repeat` the table from its beginning, or
        `interpolate` linearly, the first and the last row staying the ends.

    Raises:
      InputError: `how` is same and the sizes differ, or the table would shrink.
    """
    if table.shape[0] == rows:
        return table
    if how == "same" or rows < table.shape[0]:
        raise errors.InputError(
            f"the position table has {table.shape[0]} rows and the run wants {rows}: "
            "a longer one is made by --config.init.positions=repeat or interpolate, a "
            "shorter one never"
        )
    head, body = table[:offset], table[offset:]
    wanted = rows - offset
    if how == "repeat":
        body = body[np.arange(wanted) % len(body)]
    else:
        points = np.linspace(0, len(body) - 1, wanted)
        low = np.minimum(points.astype(int), max(len(body) - 2, 0))
        share = (points - low)[:, None].astype(np.float32)
        high = np.minimum(low + 1, len(body) - 1)
        body = body[low] * (1 - share) + body[high] * share
    return np.concatenate([head, body]).astype(np.float32)


def _with_tokens(
    flat: dict[str, np.ndarray],
    old: Tokenizer,
    new: Tokenizer,
    how: str,
    folder: Path,
) -> dict[str, np.ndarray]:
    """Returns parameters for a vocabulary: rows of old tokens, means of pieces."""
    if old.tokens == new.tokens:
        return flat
    added = [token for token in new.tokens if token not in set(old.tokens)]
    if how == "none":
        raise errors.InputError(
            f"the vocabulary of the run is not that of {folder}: {len(added)} of its "
            f"{new.vocab_size} pieces are new. Set --config.text.vocab=init_from, or "
            "to start new pieces at the mean of their old ones: "
            "--config.init.new_tokens=mean_of_pieces"
        )
    sources = piece_sources(old, new)
    grown = dict(flat)
    for name in network.PER_TOKEN:
        if name in flat:
            table = flat[name]
            rows = [table[ids].mean(axis=0, dtype=np.float32) for ids in sources]
            grown[name] = np.stack(rows).astype(np.float32)
    return grown


def piece_sources(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """Returns, for each new piece, the old ids whose mean it starts from.

    A token of both vocabularies has only its old id. A new one has the ids that the old
    tokenizer gives its characters, without the continuation mark.
    """
    ids = {token: index for index, token in enumerate(old.tokens)}
    words = [token.removeprefix("##").replace("\u2581", " ") for token in new.tokens]
    spelled = old.encode(words)
    return [
        [ids[token]] if token in ids else pieces or [old.unk_id]
        for token, pieces in zip(new.tokens, spelled, strict=True)
    ]


def expected_vocab_size(settings: pretraining.PretrainingConfig) -> int:
    """Returns how many tokens the vocabulary has, or will have at most.

    A learned one may become smaller: `assemble` checks again.
    """
    if settings.text.vocab != "learn":
        return Tokenizer.load(Path(settings.text.vocab)).vocab_size
    given = "vocab_size" in settings.model
    return settings.model["vocab_size"] if given else settings.text.vocab_size
