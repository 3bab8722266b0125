"""The finished steps in a folder of checkpoints, and whether their files are undamaged.

Each has a manifest of the sha256 sums of its files, written before the folder gets its
name: a listed step always has one. Orbax itself does not notice flipped bits.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax import errors, faults, files, json_file

MANIFEST = "manifest.json"
# What became known of a step after it was saved; it has a sum of its own.
LATE_META = "late_meta.json"
# Orbax writes these after the manifest: times, and the mark of the rename.
_UNLISTED = (MANIFEST, LATE_META, "_CHECKPOINT_METADATA", "commit_success.txt")
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")

_log = logging.getLogger(__name__)


def steps(folder: Path) -> list[int]:
    """Returns the finished steps in a folder of checkpoints, damaged or not, sorted."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if _STEP.fullmatch(name))


def newest_usable(folder: Path) -> int:
    """Returns the newest step whose files are undamaged.

    Raises CheckpointError if there is none.
    """
    step = next(_usable(folder), None)
    if step is None:
        raise errors.CheckpointError(
            f"no usable checkpoint in {folder} (found steps {steps(folder)}). To train "
            "from the beginning, remove this folder or choose another workdir"
        )
    return step


def _usable(folder: Path) -> Iterator[int]:
    for step in reversed(steps(folder)):
        reason = damage(folder / str(step))
        if reason is None:
            yield step
        else:
            _log.warning(
                "checkpoint %s is damaged (%s): falling back to the step before",
                folder / str(step),
                reason,
            )


def damage(step_folder: Path) -> str | None:
    """Returns what is wrong with the files of a finished step, or None."""
    if not (step_folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing"
    try:
        sums = json_file.loads((step_folder / MANIFEST).read_bytes())["sha256"]
        inside = all(_is_inside(name) for name in sums.keys())
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    if not sums or not inside:
        return f"{MANIFEST} names no files, or such outside the checkpoint"
    for name, expected in sums.items():
        path = step_folder / name
        if not os.path.isfile(path):  # which takes a name that is too long for none
            return f"{name[:80]} is missing"
        try:
            digest = files.sha256(path)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != expected:
            return f"{name} has another sha256 than when it was written"
    return None


def write_manifest(step_folder: Path, step: int) -> None:
    """Writes the manifest of a step whose other files are all written.

    Waits until all of them are on the disk, since the folder gets its name then.
    """
    sums = {
        name: files.sha256(step_folder / name) for name in _listed_files(step_folder)
    }
    text = json.dumps({"sha256": sums}, indent=1)
    with (step_folder / MANIFEST).open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        faults.point("checkpoint/half_manifest", step)
        file.write(text[len(text) // 2 :])
    files.sync_tree(step_folder)
    faults.point("checkpoint/manifest", step)


def write_late_meta(step_folder: Path, meta: dict[str, Any]) -> None:
    """Writes the `meta` of a finished step that takes the place of the saved one.

    The step itself is not touched: without this file it is what it was. Raises OSError.
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
    _log.warning("%s is damaged: what was saved with the step is used", path)
    return None


def _is_inside(name: str) -> bool:
    """Says whether a name in a manifest is that of a file below its folder."""
    return not (Path(name).is_absolute() or ".." in Path(name).parts)


def _listed_files(step_folder: Path) -> list[str]:
    files = (path for path in step_folder.rglob("*") if path.is_file())
    names = (path.relative_to(step_folder).as_posix() for path in files)
    return sorted(name for name in names if name not in _UNLISTED)
