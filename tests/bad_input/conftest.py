"""A small corpus, its store, labelled files, and a way to run the commands on them."""

from pathlib import Path

import bad_files
import command_line
import good_place
import pytest
import small_place
import tiny_run
import tiny_tasks


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


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """A folder with good files, and `tiny.py` that fine-tunes on them."""
    folder = tmp_path_factory.mktemp("tasks")
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 20, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 10, seed=1)
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(tiny_tasks.__file__).parent)!r})\n"
        "from pathlib import Path\nimport tiny_tasks\n"
        f"def get_config():\n    return tiny_tasks.config(Path({str(folder)!r}))\n"
    )
    return folder


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """Good files of every format; whatever the cases do, they stay as they are."""
    place = good_place.make(tmp_path_factory.mktemp("good"))
    before = bad_files.contents(place)
    yield place
    assert bad_files.contents(place) == before


@pytest.fixture
def shell(monkeypatch, capfd):
    """Runs a command in this process."""

    def run(command, *arguments, stdin=b""):
        return command_line.in_process(
            monkeypatch, capfd, command, *arguments, stdin=stdin
        )

    return run
