"""The folder of a run: its layout, and whether the run may be resumed.

`config.json` is the complete record of the settings; a run is resumed with the same
ones, except for those that change no result.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from bert_jax import errors
from bert_jax.checkpoints import run_folder
from bert_jax.config import pretraining
from bert_jax.data import hub_dataset
from bert_jax.data.corpus import sources, store
from bert_jax.foundation import fields, files, hub, json_file
from bert_jax.model import config as model_config
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint, distributed, remote

DATA = "data.json"  # the data of the run: `Data`
LOCK = ".lock"  # of the running process


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of a run: a resumed one must have the same.

    Attributes:
      files: by the config key that names it: `path`, and the `sha256` of the content.
      classes: in the order of the outputs; empty where there are none.
    """

    files: dict[str, dict[str, str]]
    classes: list[str]

    def changes_since(self, earlier: "Data") -> list[str]:
        """Names the files with other content, and classes that are others."""
        changed = [
            f"{key} ({file['path']}) has other content than when the run began (its "
            f"sha256 was {earlier.files[key]['sha256'][:12]} and is "
            f"{file['sha256'][:12]})"
            for key, file in self.files.items()
            if key in earlier.files and earlier.files[key]["sha256"] != file["sha256"]
        ]
        if self.classes != earlier.classes:
            changed.append(
                f"the classes were {', '.join(earlier.classes)} and are "
                f"{', '.join(self.classes)}"
            )
        return changed


NO_DATA = Data({}, [])


def prepare(workdir: Path) -> None:
    """Creates the workdir, and by default keeps compiled programs in it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
        kind = errors.StorageError if is_full else errors.InputError
        raise kind(
            f"cannot create the workdir {workdir}: {error.strerror}. Name another"
        ) from None
    files.check_writable(
        workdir,
        f"the workdir {workdir} is not writable: choose another or change its mode",
    )
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if chosen is None:
        cache = workdir.absolute() / "compilation_cache"
        jax.config.update("jax_compilation_cache_dir", str(cache))


@contextlib.contextmanager
def locked(copy: remote.WorkingCopy) -> Iterator[None]:
    """Makes the workdir, and keeps other runs out of it while the context is open.

    A folder that was not there and in which nothing was put is removed again. Raises
    InputError if another process trains there.
    """
    workdir = copy.folder
    is_new = not workdir.exists()
    prepare(workdir)
    lock = contextlib.nullcontext()
    if distributed.is_first():
        lock = files.locked(
            copy.common / LOCK,  # a file that no fetching removes
            f"another process trains in {copy.name}: wait until it ends, or name "
            "another --workdir",
        )
    try:
        with lock:
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # as where it is not empty any more
                workdir.rmdir()


def data_of_store(
    built: store.Manifest,
    folder: Path,
    given: Mapping[str, dict[str, str]] = types.MappingProxyType({}),
) -> Data:
    """Returns what identifies the text of a store: the sha256 of its shards.

    `given` are the records of documents from Python.
    """
    shards = sorted(f"{entry.name} {entry.sha256}\n" for entry in built.shards)
    digest = hashlib.sha256("".join(shards).encode()).hexdigest()
    return Data({"the store": {"path": str(folder), "sha256": digest}, **given}, [])


def record(
    workdir: Path,
    settings: pretraining.PretrainingConfig,
    bert: model_config.BertConfig,
    tokenizer: Tokenizer,
    *,
    data: Data = NO_DATA,
    allow_changed: bool,
) -> None:
    """Writes config.json and the tokenizer of a run that starts or is resumed.

    Raises:
      InputError: the run in this folder has settings with another result or other
        data, and `allow_changed` is not set.
    """
    full = dataclasses.replace(settings, model=dataclasses.asdict(bert))
    before = None
    if (workdir / run_folder.CONFIG).exists() and is_begun(workdir):
        earlier = run_folder.read_settings(workdir)
        complete = model_config.BertConfig(**earlier.model)  # keys may have been added
        before = dataclasses.replace(earlier, model=dataclasses.asdict(complete))
        if not settings.data.corpus:  # the text is gone, the store is as it was
            own = dataclasses.replace(full.data, corpus=before.data.corpus)
            full = dataclasses.replace(full, data=own)
    write_record(
        workdir, full, before, tokenizer, data=data, allow_changed=allow_changed
    )


def is_begun(workdir: Path) -> bool:
    """Returns whether a run has saved a checkpoint in a workdir."""
    return bool(checkpoint.steps(workdir / run_folder.CHECKPOINTS))


def write_record(
    workdir: Path,
    settings: Any,
    before: Any,
    tokenizer: Tokenizer,
    *,
    data: Data,
    allow_changed: bool,
) -> None:
    """Writes the complete settings, the data and the tokenizer of a run.

    Args:
      settings: a PretrainingConfig or a FinetuningConfig.
      before: that of the run that is resumed, or None.

    Raises:
      InputError: they differ in more than free keys or the data does, and
        `allow_changed` is not set.
    """
    tree, path = pretraining.to_dict(settings), workdir / run_folder.CONFIG
    if before is not None:
        free_keys = fields.free_keys(type(settings))
        changed = changed_keys(pretraining.to_dict(before), tree, free_keys)
        if changed and not allow_changed:
            raise errors.InputError(
                f"{path} is of a run with other settings: {'; '.join(changed)}. Use "
                "another --workdir, or resume nevertheless with --allow_changed_config"
            )
        if not allow_changed:
            check_data(workdir, data)
        check_tokenizer(workdir, tokenizer)
    distributed.wait_for_all()  # all have read what the first one rewrites
    if distributed.is_first():
        if before is None:
            tokenizer.save(workdir / run_folder.TOKENIZER)
            files.sync_tree(workdir / run_folder.TOKENIZER)
        is_compared = before is not None and not allow_changed
        if not (is_compared and (workdir / DATA).is_file()):  # else it is the same
            _write(workdir / DATA, dataclasses.asdict(data))
        _write(path, tree)


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    files.replace(path, text.encode("utf-8", "backslashreplace"))


def read_data(workdir: Path) -> Data | None:
    """Returns the record of a run's data; None for a run of an earlier version.

    Raises InputError if it is damaged.
    """
    path = workdir / DATA
    if not path.is_file():
        return None
    tree = json_file.read_object(path)
    if set(tree) != {"files", "classes"}:
        raise errors.InputError(
            f"{path} is damaged: remove it to resume without comparing the data"
        )
    return Data(**tree)


def check_data(workdir: Path, data: Data) -> None:
    """Raises InputError if a run was trained on other data.

    Runs of earlier versions have no record of theirs, and are not compared.
    """
    earlier = read_data(workdir)
    changed = data.changes_since(earlier) if earlier is not None else []
    if changed:
        raise errors.InputError(
            f"the data is not that of the run in {workdir}: {'; '.join(changed)}. Put "
            "the former content back, use another --workdir to train on the new data, "
            "or resume nevertheless with --allow_changed_config"
        )


def check_tokenizer(workdir: Path, tokenizer: Tokenizer) -> None:
    """Raises InputError unless a store's tokenizer is the one of the run."""
    path = workdir / run_folder.TOKENIZER
    if Tokenizer.load(path).fingerprint != tokenizer.fingerprint:
        raise errors.InputError(
            f"the store has another tokenizer than the run, which keeps its own in "
            f"{path}: name the store that the run was trained on (data.store)"
        )


def changed_keys(
    old: dict[str, Any], new: dict[str, Any], free_keys: tuple[str, ...]
) -> list[str]:
    """Names the keys that differ and change the result, with both values."""
    before, after = fields.flat(old), fields.flat(new)
    return [
        f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in free_keys
    ]


Settings = TypeVar("Settings")

_FILES = ("train", "dev", "test")


def pinned(settings: Settings, workdir: Path | None = None) -> Settings:
    """Returns settings of pretraining or of fine-tuning with a commit in every name.

    Args:
      workdir: of the run that they may resume.

    Raises:
      InputError: the hub does not have a named repository, or refuses access.
      StorageError: the hub does not answer.
    """
    before = {} if workdir is None else _recorded(workdir)
    result: Any = settings
    text, data = _group(before, "text"), _group(before, "data")
    vocab = hub.pinned(result.text.vocab, text.get("vocab"))
    names: dict[str, Any] = {
        "init_from": hub.pinned(result.init_from, before.get("init_from")),
        "size": hub.pinned(result.size, _group(before, "model").get("size")),
        "text": dataclasses.replace(result.text, vocab=vocab),
    }
    if hasattr(result.data, "corpus"):
        given = {"corpus": _corpus(result.data.corpus, data.get("corpus"))}
    else:
        given = {
            name: hub_dataset.pinned(getattr(result.data, name), data.get(name))
            for name in _FILES
        }
    names["data"] = dataclasses.replace(result.data, **given)
    return dataclasses.replace(result, **names)


def _corpus(corpus: str, recorded: object) -> str:
    """Pins the sources of a corpus; the suffix of each name is kept."""
    before = recorded.split(",") if isinstance(recorded, str) else []
    parts = []
    for number, part in enumerate(corpus.split(",")):
        part = part.strip()
        if hub.is_name(part):
            then = before[number].strip() if number < len(before) else ""
            name = _name_of_source(part)
            known = _name_of_source(then) if hub.is_name(then) else None
            part = hub_dataset.pinned(name, known) + part.removeprefix(name)
        parts.append(part)
    return ",".join(parts) if any(map(hub.is_name, parts)) else corpus


def _name_of_source(part: str) -> str:
    return hub.PREFIX + sources.parse_source(part).where


def _recorded(workdir: Path) -> Mapping[str, Any]:
    """Returns the record of the run in a workdir; empty where there is none to read.

    A damaged one is refused where the whole of it is read.
    """
    path = workdir / run_folder.CONFIG
    if not path.is_file():
        return {}
    try:
        return json_file.read_object(path)
    except errors.InputError:
        return {}


def _group(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = tree.get(name)
    return group if isinstance(group, dict) else {}
