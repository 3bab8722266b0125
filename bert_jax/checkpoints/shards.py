"""A checkpoint in several files, and the index that says which tensor is in which.

The index names files. Those names come from elsewhere, so they are names of regular
files in the folder of the index, or nothing is read.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from bert_jax import files, json_file
from bert_jax.checkpoints import safetensors_file, untrusted

SUFFIX = ".index.json"


def read_index(path: Path) -> dict[Path, set[str]]:
    """Reads which tensors are in which file; all the files are there, in the folder.

    Raises InputError for a damaged index, a name that leads out of the folder, and a
    file that is missing.
    """
    if untrusted.size_of(path) > safetensors_file.MAX_HEADER:
        raise untrusted.refusal(path, "it is too long for an index")
    index = json_file.read_object(path)
    match index:
        case {"weight_map": dict(weight_map)} if weight_map:
            pass
        case _:
            raise untrusted.refusal(path, "it has no 'weight_map' with tensors")
    shards: dict[Path, set[str]] = {}
    files: dict[str, Path] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard not in files:
            files[shard] = _inside(path, name, shard)
        shards.setdefault(files[shard], set()).add(name)
    return shards


def _inside(index: Path, name: str, shard: object) -> Path:
    """Returns the file that an index means by a name, which lies in its own folder."""
    suffix = Path(index.name.removesuffix(SUFFIX)).suffix
    if (
        not isinstance(shard, str)
        or not shard.endswith(suffix)
        or any(character in shard for character in "/\\:\0")
        or not shard.isprintable()
    ):
        raise untrusted.refusal(
            index,
            f"it puts tensor {untrusted.quoted(name)} in {untrusted.quoted(shard)}, "
            f"which is not the name of a '{suffix}' file beside it",
            "Move the files into one folder and mend the index",
        )
    file = index.parent / shard
    untrusted.size_of(file)
    if not _is_own(file):
        raise untrusted.refusal(
            file, "it is a link that leaves its folder", "Copy the file itself here"
        )
    return file


def _is_own(file: Path) -> bool:
    """Says whether a file is where its name is, links followed.

    The cache of the Hugging Face hub keeps `snapshots/<revision>/<path>` as links to
    `blobs/<digest>` beside `snapshots`, which may be links to `blobs/<xx>/<digest>`
    that all repositories of the cache share: no other links may leave the folder.
    """
    folder, target = file.parent.resolve(), file.resolve()
    if target.parent == folder:
        return True
    above = [x for x in folder.parents if x.name == "snapshots"]
    if not above:
        return False
    repo = above[0].parent
    return repo / "blobs" == target.parent or repo.parent / "blobs" == (
        target.parent.parent
    )


def check_names(shard: Path, found: Collection[str], expected: set[str]) -> None:
    """Raises InputError unless a shard holds the tensors of the index and no others."""
    for names, what in [
        (expected - set(found), "lacks a tensor that the index puts there"),
        (set(found) - expected, "holds a tensor that the index does not put there"),
    ]:
        if names:
            first = untrusted.quoted(min(names))
            what = f"it {what}: {first} ({len(names):,} in all)"
            raise untrusted.refusal(shard, what, "Take index and files from one place")


def write(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    max_shard_bytes: int,
) -> None:
    """Writes `model.safetensors` as shards of a size with an index beside them.

    In the order of the names; a tensor that is larger than a shard has its own. The
    index goes first and comes back last: a crash leaves no index to mixed files.
    """
    if path.exists():
        remedy = "Delete it or choose another folder"
        raise untrusted.refusal(path, "readers would prefer it to its shards", remedy)
    shards = _split(arrays, max_shard_bytes)
    index = path.with_name(path.name + SUFFIX)
    files.remove(index)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        name = f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}"
        part = {tensor: arrays[tensor] for tensor in names}
        safetensors_file.write(path.with_name(name), part, metadata)
        weight_map |= dict.fromkeys(names, name)
    total = sum(array.nbytes for array in arrays.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with files.writing(index) as file:
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        file.write(text.encode("utf-8") + b"\n")


def _split(arrays: Mapping[str, np.ndarray], max_shard_bytes: int) -> list[list[str]]:
    """Cuts the names, in order, wherever the next tensor would not fit."""
    shards: list[list[str]] = []
    room = 0
    for name in sorted(arrays):
        room -= arrays[name].nbytes
        if room < 0 or not shards:
            shards.append([])
            room = max_shard_bytes - arrays[name].nbytes
        shards[-1].append(name)
    return shards
