"""RoBERTa's vocab.json and merges.txt, as the tokenizer.json that means the same."""

from pathlib import Path
from typing import Any

from bert_jax import errors, json_file
from bert_jax.text import (
    folder_options,
    pipelines,
    special_pieces,
    tokenizer_json,
    vocabulary_file,
)

VOCABULARY, MERGES = "vocab.json", "merges.txt"


def are_in(folder: Path) -> bool:
    """Says whether a folder holds both files."""
    return all((folder / name).is_file() for name in (VOCABULARY, MERGES))


def ids(path: Path) -> dict[str, int]:
    """Returns the id of each piece of a vocab.json.

    Raises:
      InputError: it is none.
    """
    model = {"model": {"vocab": json_file.read_object(path)}}
    return tokenizer_json.model_ids(model, str(path))


def read(folder: Path, options: folder_options.Options) -> dict[str, Any]:
    """Returns the pipeline that RobertaTokenizer makes of the two files.

    Raises:
      InputError: one of them is missing or broken, or a special piece is missing.
    """
    path = folder / VOCABULARY
    pieces = ids(path)
    merges = _merges(folder / MERGES, pieces)
    whole = tokenizer_json.with_added(pieces, options.added, str(path))
    return pipelines.byte_level(
        pieces,
        merges,
        special_pieces.find(whole, options.named, str(path), require_mask=False),
        add_prefix_space=options.flags["add_prefix_space"] is True,
        more=options.added,
    )


def _merges(path: Path, pieces: dict[str, int]) -> list[list[str]]:
    """Reads a merges.txt: two pieces a line, the first line may be its version.

    Raises:
      InputError: a line is no pair of pieces.
    """
    text = vocabulary_file.decode_utf8(vocabulary_file.read_bytes(path), path)
    lines = text.removeprefix("\ufeff").split("\n")
    made = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(p in pieces for p in (*pair, "".join(pair))):
            raise errors.InputError(
                f"{path}:{number}: {line!r} does not join two pieces of {VOCABULARY}"
                " to a third. Take both files from the same model."
            )
        made.append(pair)
    return made


def write(tree: dict[str, Any], folder: Path) -> None:
    """Writes the two files of a byte-level pipeline."""
    vocabulary = tokenizer_json.dump(tree["model"]["vocab"], indent=None)
    (folder / VOCABULARY).write_bytes(vocabulary)
    pairs = [m.split(" ") if isinstance(m, str) else m for m in tree["model"]["merges"]]
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in pairs)]
    text = "".join(f"{line}\n" for line in lines)
    (folder / MERGES).write_text(text, encoding="utf-8", newline="\n")
