"""A workdir in an object store, and its working copy on this machine.

Runs read, append and rename files, which stores like gs:// and s3:// cannot do. So a
run works in a folder here, and its files are uploaded whole: a checkpoint when it is
finished, the logs before it. A folder with a manifest is there when its manifest is,
which is uploaded last and deleted first. The store is authoritative: a run that begins
recreates its copy from it. The run whose first upload is the latest owns the store
from then on: stores have no locks, so of two runs the later one continues, as it must
where the machine of the first is lost, and the first one ends before its next upload.
For a workdir that is a plain folder nothing is done.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.foundation import faults, interrupts
from bert_jax.training import distributed

MANIFEST = "manifest.json"  # of a store and of a checkpoint
_TASK = "task.json"  # of a best model, which is as good as a manifest
_OWNER = ".owner.json"  # the uploading process; only in the store
# Uploaded when finished, or never: caches, and a baseline that is retrained.
_HERE_ONLY = ("checkpoints", "compilation_cache", "fresh", "store")

_log = logging.getLogger(__name__)


class WorkingCopy:
    """The local folder of a run, and the path or URL that names it.

    Attributes:
      name: as the user gave it: a path, or a URL as gs://bucket/runs/zh.
      folder: where its files are on this machine. For a URL it is in the folder for
        temporary files ($TMPDIR), derived from the name, one per process.
      common: a folder for files that are neither fetched nor uploaded, shared by all
        processes of a machine.
    """

    def __init__(self, name: str | Path, *, parts: Iterable[str] = ()) -> None:
        """Names the folder; reads and creates nothing.

        `parts` names folders in it that are workdirs of their own: they are neither
        fetched nor uploaded. Raises InputError for a URL that no installed package can
        open.
        """
        self.name = os.path.expanduser(str(name))
        self.is_remote = "://" in self.name
        self.folder = self.common = Path(self.name)
        if self.is_remote:
            self.name = self.name.rstrip("/")
            self._system, self._root = _open(self.name)
            self.common = _scratch(self.name)
            self.folder = self.common / str(distributed.index())
            self._known: dict[str, tuple[int, int]] = {}
            self._mark: bytes | None = None  # what is in _OWNER while we are
            self._parts = frozenset(parts)

    @contextlib.contextmanager
    def fetched(self) -> Iterator[None]:
        """Fetches all files, and uploads what changed at the end, after errors too.

        Raises StorageError.
        """
        self.fetch()
        try:
            yield
        except BaseException:
            try:
                with interrupts.unsaved():
                    self.push()
            except errors.BertJaxError as second:  # the first error is the one to raise
                _log.error("%s", second)
            raise
        self.share()

    def share(self) -> None:
        """Uploads, and fetches in all processes what only process 0 has saved.

        Raises StorageError.
        """
        self.push()
        distributed.wait_for_all()
        if not distributed.is_first():
            self.fetch()

    def fetch(self) -> None:
        """Makes the working copy equal to the store, which may be empty.

        Unfinished checkpoints and corpus stores are skipped. Raises StorageError.
        """
        if not self.is_remote:
            return
        names = self._names()
        self._forget(names)
        for name in names:
            if not (self.folder / name).exists():
                self._get(name)
        self._known = self._stamps()

    def fetch_folder(self, name: str) -> None:
        """Gets a finished folder, if it is in the store and not here.

        Raises StorageError.
        """
        if self.is_remote and not (self.folder / name / MANIFEST).exists():
            for file in self._names(name):
                self._get(file)

    def push(self) -> None:
        """Uploads the files that this process has changed since; deletes what it has.

        Not the checkpoints and corpus stores: `push_folder` does. Raises StorageError,
        and InputError if another run has started to upload there.
        """
        if not self.is_remote:
            return
        now = self._stamps()
        changed = [name for name in now if self._known.get(name) != now[name]]
        gone = self._known.keys() - now.keys()
        if changed or gone:
            self._own()
        for name in sorted(changed, key=_last_if_marks):
            self._put(self.folder / name, name)
            faults.point("workdir/file")
        for name in sorted(gone, key=_last_if_marks, reverse=True):
            self._do("delete", name, self._system.rm_file, self._at(name))
        self._known = now

    def push_folder(self, folder: Path, name: str) -> None:
        """Uploads a finished folder under a name, its manifest last.

        `folder` may still have another name here. One of this name that is in the store
        already, with the same manifest, is left there. Raises as `push`.
        """
        if not self.is_remote:
            return
        manifest = (folder / MANIFEST).read_bytes()
        if self._manifest(name) == manifest:
            return
        self._own()
        self.delete_folder(name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            inner = path.relative_to(folder).as_posix()
            if inner != MANIFEST:
                self._put(path, f"{name}/{inner}")
                faults.point("workdir/half_folder")
        faults.point("workdir/before_manifest")
        self._put(folder / MANIFEST, f"{name}/{MANIFEST}")
        faults.point("workdir/folder")

    def push_file(self, name: str) -> None:
        """Uploads a file that came into a finished folder later. Raises as `push`."""
        if self.is_remote:
            self._own()
            self._put(self.folder / name, name)

    def keep_only(self, parent: str, kept: Iterable[str]) -> None:
        """Deletes the folders below `parent` that are not kept. Raises as `push`."""
        if not self.is_remote:
            return
        there = {name.split("/")[1] for name in self._listed(parent)}
        for name in sorted(there - set(kept)):
            self.delete_folder(f"{parent}/{name}")

    def delete_folder(self, name: str) -> None:
        """Deletes a folder in the store, its manifest first. Raises as `push`."""
        files = self._listed(name)
        if files:
            self._own()
        for file in sorted(files, key=lambda file: file != f"{name}/{MANIFEST}"):
            self._do("delete", file, self._system.rm_file, self._at(file))
            faults.point("workdir/half_deleted")

    def _own(self) -> None:
        """Becomes the run that uploads; raises InputError if another did since."""
        if not distributed.is_first():
            return
        path = self._at(_OWNER)
        if self._mark is None:
            host, process = socket.gethostname(), os.getpid()
            who = {"host": host, "process": process, "id": uuid.uuid4().hex}
            mark = json.dumps(who).encode()
            self._do("write", _OWNER, self._system.pipe_file, path, mark)
            self._mark = mark
            return
        found = self._do("read", _OWNER, self._system.cat_file, path)
        if found != self._mark:
            who = found[:300].decode(errors="replace")
            raise errors.InputError(
                f"another run has begun to upload to {self.name} ({who}): this one "
                "ends. Let one run at a time train there"
            )

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Returns the size and the time of each file that `push` uploads."""
        found = {}
        for top in self.folder.iterdir():
            # A save in progress renames folders in one that is skipped.
            if top.name in (*_HERE_ONLY, *self._parts) or top.name.startswith("."):
                continue
            for path in (top, *top.rglob("*")):
                if path.suffix != ".tmp" and path.is_file():
                    stat, name = path.stat(), path.relative_to(self.folder).as_posix()
                    found[name] = (stat.st_size, stat.st_mtime_ns)
        return found

    def _forget(self, names: list[str]) -> None:
        """Empties the working copy, but for what need not be fetched again."""
        kept, here = {"compilation_cache"}, self.folder / "store" / MANIFEST
        if f"store/{MANIFEST}" in names and here.is_file():
            if self._manifest("store") == here.read_bytes():
                kept.add("store")
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _names(self, parent: str = "") -> list[str]:
        """Returns the names to fetch: all but parts of unfinished folders."""
        listed = self._listed(parent)
        marks = [x for x in listed if x.endswith((f"/{MANIFEST}", f"/{_TASK}"))]
        whole = {None, *(mark.rpartition("/")[0] for mark in marks)}
        skipped = {_OWNER, *self._parts}
        return [
            name
            for name in listed
            if name.split("/")[0] not in skipped and _folder_of(name) in whole
        ]

    def _listed(self, parent: str = "") -> list[str]:
        """Returns the names of all files below a folder, as they are below the root."""
        root = self._at(parent) if parent else self._root
        found = self._do("list", parent, self._system.find, root)
        inside = [path for path in found if path.startswith(f"{root}/")]
        names = sorted(path[len(self._root) + 1 :] for path in inside)
        for name in names:
            if ".." in name.split("/") or name.startswith("/"):
                raise errors.StorageError(
                    f"{self.name} has an object with the name {name!r}, which would "
                    "be outside of the folder: remove it"
                )
        return names

    def _manifest(self, name: str) -> bytes | None:
        """Returns the manifest of a folder in the store, or None."""
        path = f"{name}/{MANIFEST}"
        if path not in self._listed(name):
            return None
        return self._do("read", path, self._system.cat_file, self._at(path))

    def _get(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".tmp")
        self._do("read", name, self._system.get_file, self._at(name), str(part))
        os.replace(part, path)

    def _put(self, path: Path, name: str) -> None:
        self._do("write", name, self._system.put_file, str(path), self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _do(self, what: str, name: str, call: Any, *arguments: str | bytes) -> Any:
        """Calls the file system; whatever it raises is a StorageError."""
        try:
            return call(*arguments)
        except Exception as error:  # each store has its own kinds
            raise errors.StorageError(
                f"cannot {what} {self.name}{'/' if name else ''}{name}: "
                f"{str(error) or type(error).__name__}. Check the name, the network "
                "and that this machine may read and write there"
            ) from error


def _open(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL, which keeps no listings, and the path in it."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if url.split("://")[0] in ("file", "local"):
        options = {"auto_mkdir": True}
    try:
        system, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise errors.InputError(
            f"{url} cannot be opened: {error}. For gs:// and s3:// install "
            '"bert_jax[cloud]"'
        ) from None
    except ValueError as error:
        raise errors.InputError(f"--workdir is {url}: {error}") from None
    return system, root.rstrip("/")


def _scratch(url: str) -> Path:
    """Returns the folder for what belongs to a URL on this machine."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    parent = Path(tempfile.gettempdir()) / f"bert_jax-{os.getuid()}"
    return parent / f"{url.rpartition('/')[2]}-{digest}"


def _folder_of(name: str) -> str | None:
    """Returns the folder of a file that is complete once its manifest exists.

    >>> _folder_of("checkpoints/12/params/d/0"), _folder_of("metrics.jsonl")
    ('checkpoints/12', None)
    """
    parts = name.split("/")
    if parts[0] in ("best", "checkpoints") and len(parts) > 2:
        return "/".join(parts[:2])
    return "store" if parts[0] == "store" else None


def _last_if_marks(name: str) -> tuple[bool, str]:
    """Orders files so that the one that marks a folder as complete is last."""
    return name.endswith(f"/{_TASK}"), name
