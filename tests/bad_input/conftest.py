"""A small corpus, its store, labeled files, and a way to run the commands on them."""

from pathlib import Path

import bad_files
import command_line
import good_files
import pytest
import small_inputs
import tiny_run
import tiny_tasks


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with a corpus, and `tiny.py` that trains on it."""
    folder = tmp_path_factory.mktemp("inputs")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    (folder / "vocab.txt").write_text("\n".join(small_inputs.TOKENS) + "\n")
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(tiny_run.__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r})\n"
    )
    return folder


@pytest.fixture(scope="session")
def store(inputs):
    """The store of the corpus, which tests copy before they change it."""
    done = command_line.for_real(
        "prepare", f"--config={inputs / 'tiny.py'}", f"--store={inputs / 'store'}"
    )
    assert done.code == 0, done.err
    return inputs / "store"


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
    """Good files of every format, which the cases must not change."""
    inputs = good_files.make(tmp_path_factory.mktemp("good"))
    before = bad_files.contents(inputs)
    yield inputs
    assert bad_files.contents(inputs) == before


@pytest.fixture
def shell(monkeypatch, capfd):
    """Runs a command in this process."""

    def run(command, *arguments, stdin=b""):
        return command_line.in_process(
            monkeypatch, capfd, command, *arguments, stdin=stdin
        )

    return run
