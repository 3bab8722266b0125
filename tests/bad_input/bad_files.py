"""A bad file as a row of a table: its content, a command, and data of the message.

In commands and messages {here} is the folder of the case and {good} the folder with
good files of every format, which `good_files` writes.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import command_line

# Bytes or text of a file, None to remove it, or a function that changes its path.
Content = bytes | str | None | Callable[[Path], object]
_SECONDS = 60  # a command that reads a pipe without a writer never ends


@dataclasses.dataclass(frozen=True)
class Case:
    """A bad file and a command that reads it.

    Attributes:
      kind: of the file: the table it is in.
      name: the fault.
      command: a command and its arguments.
      expected: data that the one message contains, in this order, separated by "…":
        path and line, record, key, value.
      files: path below the folder of the case -> its content.
      base: file or folder of the good ones that is copied into the case's first.
      code: the exit code.
      prints: whether output for earlier records may be printed.
      in_subprocess: whether it needs a new process, because the type checks of the
        tests would fail before the command validates its input.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    expected: str
    files: Mapping[str, Content]
    base: str = ""
    code: int = 2
    prints: bool = False
    in_subprocess: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def case(
    kind: str,
    name: str,
    command: str,
    expected: str,
    files: Mapping[str, Content],
    **others,
) -> Case:
    """Returns a case; the words of its command are separated by spaces."""
    return Case(kind, name, tuple(command.split()), expected, files, **others)


def change(edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Returns a function that edits the bytes of a file."""
    return lambda path: path.write_bytes(edit(path.read_bytes()))


def replace(old: str, new: str) -> Callable[[Path], object]:
    """Returns a function that replaces a text in a file, which must contain it."""

    def edit(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change(edit)


def fifo(path: Path) -> None:
    """Creates a named pipe without a writer."""
    os.mkfifo(path)


def dangling(path: Path) -> None:
    """Creates a dangling link."""
    path.symlink_to("nothing-is-here")


Shell = Callable[..., command_line.Done]


def check(one: Case, good: Path, here: Path, shell: Shell) -> str:
    """Runs a case, and returns the first line of its message.

    Asserts the exit code and the data of the message, that nothing else is printed
    (except with `prints`), and that the folder of the case is unchanged.
    """
    prepare(one, good, here)

    def filled(text: str) -> str:
        return text.replace("{here}", str(here)).replace("{good}", str(good))

    before = contents(here)
    with _limited():
        run = command_line.for_real if one.in_subprocess else shell
        done = run(*map(filled, one.command))
    assert done.code == one.code, (done.code, done.err[-2000:])
    data = ".*".join(re.escape(filled(datum)) for datum in one.expected.split("…"))
    assert re.search(data, done.message, re.DOTALL), (one.expected, done.message)
    assert one.prints or not done.out, done.out
    after = contents(here)
    assert after == before, {*after.items()} ^ {*before.items()}
    return done.message.strip().partition("\n")[0].replace(str(here), "")


def prepare(one: Case, good: Path, here: Path) -> None:
    """Writes the files of a case."""
    if one.base:
        source, target = good / one.base, here / Path(one.base).name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    for name, content in one.files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif callable(content):
            content(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    """Returns the digest of each file below a folder, and the modes of other paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        mode, name = path.lstat().st_mode, str(path.relative_to(folder))
        found[name] = stat.filemode(mode)
        if stat.S_ISREG(mode):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises RuntimeError if the body takes longer than `_SECONDS`."""

    def stop(*_: object) -> None:
        raise RuntimeError(f"the command took more than {_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
