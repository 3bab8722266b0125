"""A small corpus, its store, and a way to run the commands on them."""

from pathlib import Path

import command_line
import pytest
import small_place
import tiny_run


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with a corpus, and `tiny.py` that trains on it."""
    folder = tmp_path_factory.mktemp("place")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    (folder / "vocab.txt").write_text("\n".join(small_place.PIECES) + "\n")
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(tiny_run.__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r})\n"
    )
    return folder


@pytest.fixture(scope="session")
def store(place):
    """The store of the corpus, which tests copy before they harm it."""
    done = command_line.for_real(
        "prepare", f"--config={place / 'tiny.py'}", f"--store={place / 'store'}"
    )
    assert done.code == 0, done.err
    return place / "store"


@pytest.fixture
def shell(monkeypatch, capfd):
    """Runs a command in this process."""

    def run(command, *arguments, stdin=b""):
        return command_line.in_process(
            monkeypatch, capfd, command, *arguments, stdin=stdin
        )

    return run
