"""Checkpoints that are either whole and verified, or not used.

Orbax writes them (parameters, optimizer state and a JSON object as three items, so
that parameters restore alone), in the background, into a temporary folder that is
renamed when done. Before the rename it gets a manifest of sha256 sums, with which its
files are compared before they are used (`saved_steps`).

`stop_leaks` keeps saves from adding to the memory of a run. tensorstore (0.1.74 to
0.1.86, at least) never frees the strings of the JSON that it returns to Python. Orbax
asks for some with every array and, since 0.11.31, for all of tensorstore's metrics
before and after every save, for a line of its log on bytes written that is left out
where they are 0: with 30 arrays and their moments 85 KB a save. Both are answered from
a cache.
"""

import contextlib
import copy
import dataclasses
import functools
import logging
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from bert_jax import errors, faults, files, interrupts
from bert_jax.training import distributed, remote, saved_steps
from bert_jax.training import state as train_state

_MOST_KNOWN = 16  # folders of a save, and of the one before


def stop_leaks() -> None:
    """Stops both leaks, once a process."""
    spec = tensorstore.KvStore.Spec
    if not hasattr(spec.to_json, "known"):
        spec.to_json = _remembering(spec.to_json)
    name = "experimental_collect_matching_metrics"  # experimental: it may be gone
    metrics = getattr(tensorstore, name, None)
    if metrics is not None and not hasattr(metrics, "unpatched"):
        setattr(tensorstore, name, _empty_for_orbax(metrics))


def _empty_for_orbax(metrics: Any) -> Any:
    """Returns the function, with nothing to report where Orbax calls it."""

    @functools.wraps(metrics)
    def collect(*args: Any, **named: Any) -> Any:
        modules = (frame.f_globals.get("__name__", "") for frame in _frames())
        is_orbax = any(name.startswith("orbax.") for name in modules)
        return [] if is_orbax else metrics(*args, **named)

    collect.unpatched = metrics  # pyright: ignore
    return collect


def _frames() -> Iterator[types.FrameType]:
    """Yields the frames of this call and of those that led to it."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _remembering(to_json: Any) -> Any:
    """Returns the method with a memory of what it returned last."""
    known: dict[Any, Any] = {}

    @functools.wraps(to_json)
    def remembered(self: Any, *args: Any, **named: Any) -> Any:
        key = repr(self), args, tuple(named.items())
        if key not in known:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[key] = to_json(self, *args, **named)
        # Whoever gets it may change it. It may be gone: saves have threads.
        return copy.deepcopy(known.get(key)) or to_json(self, *args, **named)

    remembered.known = known  # pyright: ignore
    return remembered


_DELETED = "deleted"
_ARRAYS = ("params", "opt_state")
# What steps say of themselves is not read at the start; 0.11.30 always reads it.
_OPTIONS = {field.name for field in dataclasses.fields(ocp.CheckpointManagerOptions)}
_LIGHT: dict[str, Any] = dict.fromkeys(_OPTIONS & {"lightweight_initialize"}, True)

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run that trains: one folder per step, the newest `keep`.

    Opening cleans what a killed run left unfinished; use it as a context manager.
    Only one may be open for a folder; readers use `restore_params`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        asynchronous: bool = True,
        copy: remote.WorkingCopy | None = None,
    ) -> None:
        """Opens or makes the folder.

        With the `copy` of a workdir in an object store, in which `folder` lies, steps
        are uploaded before they count, and deleted there too.

        Raises InputError if `keep` is less than 1, StorageError if it fails.
        """
        if keep < 1:
            message = f"the checkpoints to keep must be at least 1; found {keep}"
            raise errors.InputError(message)
        self.folder = folder.resolve()
        self._asynchronous = asynchronous
        self._copy = copy if copy is not None and copy.is_remote else None
        self._saving: int | None = None
        self._unsaved = contextlib.ExitStack()  # open while a save is under way
        self._newest: int | None = None  # that was restored or saved
        stop_leaks()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = self._open(keep)
        except OSError as error:
            raise errors.StorageError(f"cannot open {self.folder}: {error}") from error
        self._empty_trash()

    def _open(self, keep: int) -> ocp.CheckpointManager:
        preservation = ocp.checkpoint_managers.LatestN(keep)
        options = ocp.CheckpointManagerOptions(
            create=False,
            preservation_policy=preservation,
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
        """Returns who writes: all into one folder, or each into a copy of its own."""
        if self._copy is None:
            return ocp.options.MultiprocessingOptions()
        own = jax.process_index()
        return ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"{own}"
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except errors.StorageError as second:
            if error is None or isinstance(
                error, (errors.Stopped, interrupts.SignalReceived)
            ):
                raise
            _log.error("%s", second)  # the first error is the one to raise

    def save(
        self, step: int, state: train_state.TrainState, meta: dict[str, Any]
    ) -> None:
        """Starts to save the state after `step` steps; returns once it is copied.

        `meta` is any JSON object. Steps after the one that was restored are of a run
        that was left behind (they were found damaged) and are deleted. The state of the
        step that was restored is there already: its `meta` alone is written then.
        Raises StorageError if this save or the one before could not be written.
        """
        self.wait()
        faults.point("checkpoint/before", step)
        if step == self._newest:
            self._save_meta(step, meta)
            return
        trees = {"params": state.params, "opt_state": _flat(state.opt_state)}
        if self._copy is not None:  # process 0 writes what is on all of them
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
        if not self._asynchronous:
            self.wait()

    def _delete_stale(self, step: int) -> None:
        """Deletes the steps that a run left behind which goes on to `step`."""
        newest = step - 1 if self._newest is None else self._newest
        for stale in self._manager.all_steps():
            if stale > newest:
                if self._copy is not None:
                    self._copy.delete_folder(f"{self.folder.name}/{stale}")
                self._manager.delete(stale)
                faults.point("checkpoint/stale", step)

    def _save_meta(self, step: int, meta: dict[str, Any]) -> None:
        """Writes the `meta` that a finished step has now beside what it had."""
        if jax.process_index():
            return
        step_folder = self.folder / str(step)
        try:
            saved_steps.write_late_meta(step_folder, meta)
        except OSError as error:
            raise errors.StorageError(
                f"cannot write {saved_steps.LATE_META} into {step_folder}: {error}. "
                "Is the disk full? The checkpoint itself is intact"
            ) from error
        if self._copy is not None:
            name = f"{self.folder.name}/{step}/{saved_steps.LATE_META}"
            self._copy.push_file(name)
        faults.point("checkpoint/late_meta", step)

    def check(self) -> None:
        """Raises StorageError as soon as the save under way has failed; never waits."""
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
        if self._saving not in saved_steps.steps(self.folder):
            raise self._failure("it was not finished")
        faults.point("checkpoint/listed", self._saving)
        step, self._saving = self._saving, None
        self._empty_trash()
        if self._copy is not None:
            kept = map(str, saved_steps.steps(self.folder))
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
            found = saved_steps.steps(self.folder)
            return saved_steps.newest_usable(self.folder) if found else -1

        # Copies of an object store are each process's own, and so is their damage.
        step = _agreed(find) if self._copy is None else find()
        return None if step < 0 else step

    def _write_manifest(self) -> None:
        """Writes the manifest of the step being saved; the writing thread calls this.

        All of the step's files are then written, by all processes, and the folder
        still has its temporary name.
        """
        (folder,) = self._unfinished()
        faults.point("checkpoint/written", self._saving)
        assert self._saving is not None
        saved_steps.write_manifest(folder, self._saving)
        if self._copy is not None:
            self._copy.push_folder(folder, f"{self.folder.name}/{self._saving}")

    def _unfinished(self) -> list[Path]:
        """Returns the temporary folders of the step being saved."""
        begin = f"{self._saving}.orbax-checkpoint-tmp"
        return [x for x in self.folder.iterdir() if x.name.startswith(begin)]

    def _failure(self, reason: object) -> errors.StorageError:
        """Returns the error of a save that failed, and makes room for another."""
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
        for entry in trash.rglob("*"):
            if entry.is_file():
                entry.unlink(missing_ok=True)
                faults.point("checkpoint/half_trash")
        shutil.rmtree(trash, ignore_errors=True)
        faults.point("checkpoint/emptied")


class _Manager(ocp.CheckpointManager):
    """Orbax's, which does not ask JAX for preemption: `signals` alone does.

    Its steps among the places of ours would have all agree to stop at a place that has
    passed, or that is far away.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


def restore_params(
    folder: Path, shapes: PyTree, step: int | None = None
) -> tuple[PyTree, dict[str, Any]]:
    """Returns the parameters alone of the newest undamaged step, and its `meta`.

    `shapes` are abstract parameters with shardings; `step` is what
    `saved_steps.newest_usable` returned, if it was asked. Changes nothing in the
    folder, so it may read beside a run. Raises CheckpointError if there is no usable
    step.
    """
    folder = folder.resolve()
    step = saved_steps.newest_usable(folder) if step is None else step
    restored, meta = _restore(folder / str(step), {"params": shapes})
    return restored["params"], meta


def _agreed(find_step: Callable[[], int]) -> int:
    """Returns what process 0 finds, in all processes, or raises what it raises."""
    if jax.process_count() == 1:
        return find_step()
    found = find_step() if jax.process_index() == 0 else 0
    distributed.wait_for_all()  # hears signals while process 0 reads all files
    return int(multihost_utils.broadcast_one_to_all(np.int32(found)))


def _whole(array: Any) -> Any:
    """Returns an array that other processes have parts of as a whole; all call it."""
    if array.is_fully_addressable:
        return array
    return multihost_utils.process_allgather(array, tiled=True)


def _flat(opt_state: PyTree) -> dict[str, Any]:
    """Returns the leaves of an optimizer state by name, in the order of its tree.

    Names, not positions or class names, make the layout on disk.
    """
    leaves = jax.tree_util.tree_leaves_with_path(opt_state)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in leaves}


def _restore(
    step_folder: Path, items: dict[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Returns items of a step in these shapes, dtypes and shardings, and its `meta`.

    Orbax alone would pad, cut or cast what differs, so that is looked at first.
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
                late = saved_steps.late_meta(step_folder)
                meta = restored["meta"] if late is None else late
                return {name: restored[name] for name in items}, meta
        except Exception as error:
            message = f"cannot read the checkpoint {step_folder}: {error}"
            raise errors.CheckpointError(message) from error
    first = next(f"{step_folder / name} {d}" for name, d in differs.items() if d)
    raise errors.CheckpointError(f"the checkpoint {first}")
