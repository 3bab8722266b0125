"""Checkpoints that are either whole and verified, or not used.

Orbax writes them (parameters, optimizer state and a JSON object as three items, so
that parameters can be restored separately) in the background, into a temporary folder
that is renamed when done. Before the rename it gets a manifest with the sha256 of its
files: a listed step always has one. Files are verified before they are used (`damage`),
as Orbax itself does not notice flipped bits.

`stop_leaks` keeps saves from adding to the memory of a run. tensorstore (0.1.74 to
0.1.86, at least) never frees the strings of the JSON that it returns to Python. Orbax
asks for some with every array and, since 0.11.31, for all of tensorstore's metrics
before and after every save, for a log line that is left out where they are 0: with 30
arrays and their moments 85 KB a save. Both are answered from a cache.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.foundation import faults, files, interrupts, json_file
from bert_jax.training import distributed, remote
from bert_jax.training import state as train_state

MANIFEST = "manifest.json"
# Late `meta` of a finished step, with its own sha256.
LATE_META = "late_meta.json"
# Orbax writes these after the manifest: times, and the marker of the rename.
_UNLISTED = (MANIFEST, LATE_META, "_CHECKPOINT_METADATA", "commit_success.txt")
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")
_DELETED = "deleted"
_ARRAYS = ("params", "opt_state")
# The metadata of steps is not read at the start; 0.11.30 always reads it.
_OPTIONS = {field.name for field in dataclasses.fields(ocp.CheckpointManagerOptions)}
_LIGHT: dict[str, Any] = dict.fromkeys(_OPTIONS & {"lightweight_initialize"}, True)

_log = logging.getLogger(__name__)


def steps(folder: Path) -> list[int]:
    """Returns the finished steps in a folder of checkpoints, damaged or not, sorted."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def newest_usable(folder: Path) -> int:
    """Returns the newest step whose files are undamaged; warns of those that are not.

    Raises CheckpointError if there is none.
    """
    for step in reversed(steps(folder)):
        path = folder / str(step)
        reason = damage(path)
        if reason is None:
            return step
        _log.warning("checkpoint %s is damaged (%s): trying an older one", path, reason)
    raise errors.CheckpointError(
        f"no usable checkpoint in {folder} (found steps {steps(folder)}). To train "
        "from the beginning, remove this folder or choose another workdir"
    )


def damage(step_folder: Path) -> str | None:
    """Returns why the files of a finished step cannot be used, or None."""
    if not (step_folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        sums = json_file.loads((step_folder / MANIFEST).read_bytes())["sha256"]
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not readable"
    if not isinstance(sums, dict) or not sums or not all(map(_is_inside, sums)):
        return f"{MANIFEST} names no files, or files outside the checkpoint"
    for name in sorted(sums):
        if not os.path.isfile(step_folder / name):  # False for too long a name, too
            return f"{name[:80]} is missing"
        try:
            digest = files.sha256(step_folder / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != sums[name]:
            return f"{name} has another sha256 than when it was written"
    return None


def _is_inside(name: str) -> bool:
    """Returns whether a name in a manifest is that of a file in its folder."""
    return not (Path(name).is_absolute() or ".." in Path(name).parts)


def write_manifest(step_folder: Path, step: int) -> None:
    """Writes the manifest of a step whose other files are all written.

    Waits until all of them are on the disk, since the folder gets its name then.
    """
    paths = [path for path in step_folder.rglob("*") if path.is_file()]
    names = sorted(path.relative_to(step_folder).as_posix() for path in paths)
    sums = {x: files.sha256(step_folder / x) for x in names if x not in _UNLISTED}
    text = json.dumps({"sha256": sums}, indent=1)
    (step_folder / MANIFEST).write_text(text)
    files.sync_tree(step_folder)
    faults.point("checkpoint/manifest", step)


def write_late_meta(step_folder: Path, meta: dict[str, Any]) -> None:
    """Writes a `meta` that replaces the one a finished step was saved with.

    The step itself does not change. Raises OSError.
    """
    text = json.dumps(meta)
    content = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "meta": text}
    files.replace(step_folder / LATE_META, json.dumps(content).encode())


def late_meta(step_folder: Path) -> dict[str, Any] | None:
    """Returns what `write_late_meta` wrote; None, with a warning, if it is damaged."""
    path = step_folder / LATE_META
    if not path.exists():
        return None
    try:
        content = json_file.loads(path.read_bytes())
        text = content["meta"]
        if hashlib.sha256(text.encode()).hexdigest() == content["sha256"]:
            return json_file.loads(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.debug("%s: %s", path, error)
    _log.warning("%s is damaged: using the one that was saved with the step", path)
    return None


_MOST_KNOWN = 16  # folders of a save, and of the one before


def stop_leaks() -> None:
    """Patches both leaks, once a process."""
    spec = tensorstore.KvStore.Spec
    if not hasattr(spec.to_json, "known"):
        spec.to_json = _remembering(spec.to_json)
    name = "experimental_collect_matching_metrics"  # experimental: it may be gone
    metrics = getattr(tensorstore, name, None)
    if metrics is not None and not hasattr(metrics, "unpatched"):
        setattr(tensorstore, name, _empty_for_orbax(metrics))


def _empty_for_orbax(metrics: Any) -> Any:
    """Returns the function, with an empty result where Orbax calls it."""

    @functools.wraps(metrics)
    def collect(*args: Any, **named: Any) -> Any:
        modules = (frame.f_globals.get("__name__", "") for frame in _frames())
        is_orbax = any(name.startswith("orbax.") for name in modules)
        return [] if is_orbax else metrics(*args, **named)

    collect.unpatched = metrics  # pyright: ignore
    return collect


def _frames() -> Iterator[types.FrameType]:
    """Yields the frames of the call stack, the innermost first."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _remembering(to_json: Any) -> Any:
    """Returns the method with a cache of its last results."""
    known: dict[Any, Any] = {}

    @functools.wraps(to_json)
    def remembered(self: Any, *args: Any, **named: Any) -> Any:
        key = repr(self), args, tuple(named.items())
        if key not in known:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[key] = to_json(self, *args, **named)
        # A copy, as callers change it. It may be gone: saves run in threads.
        return copy.deepcopy(known.get(key)) or to_json(self, *args, **named)

    remembered.known = known  # pyright: ignore
    return remembered


class Checkpoints:
    """The checkpoints of a run in progress: one folder a step, the newest `keep`.

    Use it as a context manager. Opening deletes unfinished saves of killed runs. Only
    one may be open for a folder; readers use `restore_params`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        copy: remote.WorkingCopy | None = None,
    ) -> None:
        """Opens the folder, or creates it.

        With the `copy` of a workdir in an object store that contains `folder`, steps
        are uploaded before they count, and are deleted there too.

        Raises InputError if `keep` is less than 1, StorageError if it fails.
        """
        if keep < 1:
            message = f"the checkpoints to keep must be at least 1; found {keep}"
            raise errors.InputError(message)
        self.folder = folder.resolve()
        self._copy = copy if copy is not None and copy.is_remote else None
        self._saving: int | None = None
        self._unsaved = contextlib.ExitStack()  # entered while a save is in progress
        self._newest: int | None = None  # step that was restored or saved
        stop_leaks()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = self._open(keep)
        except OSError as error:
            raise errors.StorageError(f"cannot open {self.folder}: {error}") from error
        self._empty_trash()

    def _open(self, keep: int) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=False,
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            todelete_subdir=_DELETED,
            cleanup_tmp_directories=True,
            **_LIGHT,
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._write_manifest
            ),
            multiprocessing_options=self._writing_processes(),
        )
        return _Manager(self.folder, item_names=(*_ARRAYS, "meta"), options=options)

    def _writing_processes(self) -> ocp.options.MultiprocessingOptions:
        """Returns the processes that write: all one folder, or each its own copy."""
        if self._copy is None:
            return ocp.options.MultiprocessingOptions()
        own = jax.process_index()
        return ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"{own}"
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> None:
        try:
            self.close()
        except errors.StorageError as second:
            is_stop = isinstance(error, errors.Stopped | interrupts.SignalReceived)
            if error is None or is_stop:
                raise
            _log.error("%s", second)  # the first error is the one to raise

    def save(
        self, step: int, state: train_state.TrainState, meta: dict[str, Any]
    ) -> None:
        """Starts to save the state after `step` steps; returns once it is copied.

        Steps after the one that was restored were damaged, and are deleted. If `step`
        is the one that was restored, only its `meta`, any JSON object, is written.
        Raises StorageError if this save or the one before could not be written.
        """
        self.wait()
        faults.point("checkpoint/before", step)
        if step == self._newest:
            self._save_meta(step, meta)
            return
        trees = {"params": state.params, "opt_state": _flat(state.opt_state)}
        if self._copy is not None:  # process 0 writes the state of all of them
            distributed.wait_for_all()  # each has uploaded its logs
            trees = jax.tree.map(_whole, trees)
            if jax.process_index():
                return
        self._delete_stale(step)
        self._newest = step
        items = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
            meta=ocp.args.JsonSave(meta),
        )
        self._saving = step
        self._unsaved.enter_context(interrupts.unsaved())
        try:
            started = self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failure(error) from error
        if not started:
            raise self._failure("Orbax refused to write it")
        faults.point("checkpoint/started", step)

    def _delete_stale(self, step: int) -> None:
        """Deletes damaged steps that are newer than the one the run resumed from."""
        newest = step - 1 if self._newest is None else self._newest
        for stale in self._manager.all_steps():
            if stale > newest:
                if self._copy is not None:
                    self._copy.delete_folder(f"{self.folder.name}/{stale}")
                self._manager.delete(stale)
                faults.point("checkpoint/stale", step)

    def _save_meta(self, step: int, meta: dict[str, Any]) -> None:
        """Writes the new `meta` of a finished step."""
        if jax.process_index():
            return
        step_folder = self.folder / str(step)
        try:
            write_late_meta(step_folder, meta)
        except OSError as error:
            raise errors.StorageError(
                f"cannot write {LATE_META} into {step_folder}: {error}. "
                "Is the disk full? The checkpoint itself is intact"
            ) from error
        if self._copy is not None:
            self._copy.push_file(f"{self.folder.name}/{step}/{LATE_META}")
        faults.point("checkpoint/late_meta", step)

    def check(self) -> None:
        """Raises StorageError as soon as the save in progress fails; never waits."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is on disk; raises StorageError if it failed."""
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            files.sync(self.folder)
        except Exception as error:
            raise self._failure(error) from error
        faults.point("checkpoint/renamed", self._saving)
        if self._saving not in steps(self.folder):
            raise self._failure("it was not finished")
        faults.point("checkpoint/listed", self._saving)
        step, self._saving = self._saving, None
        self._empty_trash()
        if self._copy is not None:
            kept = map(str, steps(self.folder))
            self._copy.keep_only(self.folder.name, kept)
        self._unsaved.close()
        faults.point("checkpoint/after", step)

    def close(self) -> None:
        """Waits for the last save and frees the threads; raises as `wait`."""
        try:
            self.wait()
        finally:
            self._saving = None
            try:
                self._manager.close()
            except Exception as error:  # reported by `wait` already
                _log.debug("closing %s: %s", self.folder, error)
            self._unsaved.close()

    def restore_latest(
        self, shapes: train_state.TrainState
    ) -> tuple[train_state.TrainState, dict[str, Any]] | None:
        """Returns the newest undamaged state and its `meta`; None if none was saved.

        `shapes` is the abstract state, whose shardings may differ from those it was
        saved with. Warns of each damaged step that it passes over. Raises
        CheckpointError if all are damaged, or the state is that of another model.
        """
        step = self._newest_usable()
        if step is None:
            return None
        flat = _flat(shapes.opt_state)
        items = {"params": shapes.params, "opt_state": flat}
        restored, meta = _restore(self.folder / str(step), items)
        opt_state = jax.tree.unflatten(
            jax.tree.structure(shapes.opt_state),
            [restored["opt_state"][name] for name in flat],
        )
        self._newest = step
        count = jax.device_put(jnp.int32(step), shapes.step.sharding)
        return train_state.TrainState(count, restored["params"], opt_state), meta

    def _newest_usable(self) -> int | None:
        """Returns the newest undamaged step; None if there is no step at all."""

        def find() -> int:
            found = steps(self.folder)
            return newest_usable(self.folder) if found else -1

        # Copies of an object store are each process's own, and so is their damage.
        step = _agreed(find) if self._copy is None else find()
        return None if step < 0 else step

    def _write_manifest(self) -> None:
        """Writes the manifest of the step being saved, in the writing thread.

        All processes have written their files, and the folder has its temporary name.
        """
        (folder,) = self._unfinished()
        faults.point("checkpoint/written", self._saving)
        assert self._saving is not None
        write_manifest(folder, self._saving)
        if self._copy is not None:
            self._copy.push_folder(folder, f"{self.folder.name}/{self._saving}")

    def _unfinished(self) -> list[Path]:
        """Returns the temporary folders of the step being saved."""
        return [*self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")]

    def _failure(self, reason: object) -> errors.StorageError:
        """Returns the error of a failed save, and deletes its partial files."""
        if jax.process_index() == 0:
            for unfinished in self._unfinished():
                shutil.rmtree(unfinished, ignore_errors=True)
        return errors.StorageError(
            f"the checkpoint of step {self._saving} could not be written to "
            f"{self.folder}: {reason}. Is the disk full? Older checkpoints are intact"
        )

    def _empty_trash(self) -> None:
        # Orbax renames old steps, so that a kill cannot leave half of one listed.
        trash = self.folder / _DELETED
        if jax.process_index() or not trash.is_dir():
            return
        faults.point("checkpoint/trash")
        shutil.rmtree(trash, ignore_errors=True)
        faults.point("checkpoint/emptied")


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, without its own check for preemption: `signals` does that.

    JAX counts the sync points of both as one sequence, so processes would stop at a
    point that has passed, or that is far away.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


def restore_params(
    folder: Path, shapes: PyTree, step: int | None = None
) -> tuple[PyTree, dict[str, Any]]:
    """Returns the parameters of the newest undamaged step, and its `meta`.

    It changes nothing, so it may read the folder of a run in progress. `shapes` are
    abstract parameters with shardings. Raises CheckpointError if there is no usable
    step; `step` is what `newest_usable` has returned.
    """
    folder = folder.resolve()
    step = newest_usable(folder) if step is None else step
    restored, meta = _restore(folder / str(step), {"params": shapes})
    return restored["params"], meta


def _agreed(find_step: Callable[[], int]) -> int:
    """Returns the step that process 0 finds, in all processes; raises its errors."""
    if jax.process_count() == 1:
        return find_step()
    found = find_step() if jax.process_index() == 0 else 0
    distributed.wait_for_all()  # sees signals while process 0 reads all files
    return int(multihost_utils.broadcast_one_to_all(np.int32(found)))


def _whole(array: Any) -> Any:
    """Returns the full array of one sharded over processes; all must call it."""
    if array.is_fully_addressable:
        return array
    return multihost_utils.process_allgather(array, tiled=True)


def _flat(opt_state: PyTree) -> dict[str, Any]:
    """Returns the leaves of an optimizer state by name, in the order of its tree.

    The layout on disk is by name, not by position or class.
    """
    leaves = jax.tree_util.tree_leaves_with_path(opt_state)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}


def _restore(
    step_folder: Path, items: dict[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Returns items of a step in these shapes, dtypes and shardings, and its `meta`.

    Orbax would silently pad, truncate or cast arrays that differ: they are compared
    first.
    """
    handlers: dict[str, Any] = {n: ocp.StandardCheckpointHandler() for n in _ARRAYS}
    handler = ocp.CompositeCheckpointHandler(
        **handlers, meta=ocp.JsonCheckpointHandler()
    )
    wanted = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    with ocp.Checkpointer(handler) as reader:
        try:
            saved = reader.metadata(step_folder).item_metadata
            differs = {
                n: train_state.difference(saved[n].tree, items[n]) for n in items
            }
            if not any(differs.values()):
                args = ocp.args.Composite(**wanted, meta=ocp.args.JsonRestore())
                restored = reader.restore(step_folder, args=args)
                late = late_meta(step_folder)
                meta = restored["meta"] if late is None else late
                return {name: restored[name] for name in items}, meta
        except Exception as error:
            message = f"cannot read the checkpoint {step_folder}: {error}"
            raise errors.CheckpointError(message) from error
    first = next(f"{step_folder / name} {d}" for name, d in differs.items() if d)
    raise errors.CheckpointError(f"the checkpoint {first}")
