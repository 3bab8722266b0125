"""The commands on a small corpus that tests harm, and what they leave behind."""

import json
from pathlib import Path

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghimnorstu"]
PIECES += [f"##{letter}" for letter in "abcdefghimnorstu"]


def files(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def prepare(shell, place, folder, corpus, *more):
    """Builds the store of a corpus in `s` of a folder."""
    return shell(
        "prepare",
        f"--config={place / 'tiny.py'}",
        f"--store={folder / 's'}",
        f"--config.data.corpus={corpus}",
        *more,
    )


def pretrain(shell, place, folder, *more):
    """Trains in `run` of a folder."""
    workdir = f"--workdir={folder / 'run'}"
    return shell("pretrain", f"--config={place / 'tiny.py'}", workdir, *more)


def squad(start, count=1):
    """A file with a question about `the cat sat`."""
    answers = [{"text": "cat", "answer_start": start}]
    qas = [{"id": "q1", "question": "a cat ?", "answers": answers}]
    return json.dumps(
        {"data": [{"paragraphs": [{"context": "the cat sat", "qas": qas}]}] * count}
    )
