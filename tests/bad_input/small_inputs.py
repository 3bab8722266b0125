"""Commands on a small corpus, and the files that they write."""

import json
from pathlib import Path

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghimnorstu"]
TOKENS += [f"##{letter}" for letter in "abcdefghimnorstu"]


def files(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below a folder by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def prepare(shell, inputs, folder, corpus, *more):
    """Builds the store of a corpus in `folder / "s"`."""
    return shell(
        "prepare",
        f"--config={inputs / 'tiny.py'}",
        f"--store={folder / 's'}",
        f"--config.data.corpus={corpus}",
        *more,
    )


def pretrain(shell, inputs, folder, *more):
    """Trains in `folder / "run"`."""
    workdir = f"--workdir={folder / 'run'}"
    return shell("pretrain", f"--config={inputs / 'tiny.py'}", workdir, *more)


def squad(start, count=1):
    """A file with a question about `the cat sat`."""
    answers = [{"text": "cat", "answer_start": start}]
    qas = [{"id": "q1", "question": "a cat ?", "answers": answers}]
    return json.dumps(
        {"data": [{"paragraphs": [{"context": "the cat sat", "qas": qas}]}] * count}
    )
