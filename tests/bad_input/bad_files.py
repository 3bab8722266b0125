"""A bad file as a row of a table: how it is made, the command, and what is said of it.

In commands and messages {here} is the folder of the case and {good} the one with good
files of every format, as `good_place` makes it.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import command_line

# Bytes or text of a file, None for one that is removed, or what is done to its path.
Content = bytes | str | None | Callable[[Path], object]
_SECONDS = 60  # a command that waits for more of a pipe never ends


@dataclasses.dataclass(frozen=True)
class Case:
    """A bad file and the command that is given it.

    Attributes:
      kind: of the file: the table it is in.
      name: what is wrong with it.
      command: a command and its arguments.
      says: what the one message must hold, all of it.
      files: path below the folder of the case -> its content; with `base` some of them
        are there before.
      base: file or folder below the good ones that is copied into the case's first.
      code: the exit code.
      prints: whether answers to what came before may be printed.
      alone: whether it needs a process of its own, as the types that pytest checks
        would be refused before the command has a look.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    says: tuple[str, ...]
    files: Mapping[str, Content]
    base: str = ""
    code: int = 2
    prints: bool = False
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def case(
    kind: str,
    name: str,
    command: str,
    says: str | tuple[str, ...],
    files: Mapping[str, Content],
    **others,
) -> Case:
    """Returns a case whose command is written with spaces."""
    says = (says,) if isinstance(says, str) else says
    return Case(kind, name, tuple(command.split()), says, files, **others)


def change(edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Returns what replaces the bytes of a file by others."""
    return lambda path: path.write_bytes(edit(path.read_bytes()))


def replace(old: str, new: str) -> Callable[[Path], object]:
    """Returns what replaces a text in a file, which must be there."""

    def edit(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return change(edit)


def fifo(path: Path) -> None:
    """Makes a named pipe that nobody writes into."""
    os.mkfifo(path)


def dangling(path: Path) -> None:
    """Makes a link to what is not there."""
    path.symlink_to("nothing-is-here")


Shell = Callable[..., command_line.Done]


def check(one: Case, good: Path, here: Path, shell: Shell) -> str:
    """Runs a case, and returns the first line of its message.

    The exit code and the message are as the table says, nothing is printed but answers
    where they may be, and the folder of the case is as it was.
    """
    prepare(one, good, here)

    def filled(text: str) -> str:
        return text.replace("{here}", str(here)).replace("{good}", str(good))

    before = contents(here)
    with _limited():
        run = command_line.for_real if one.alone else shell
        done = run(*map(filled, one.command))
    assert done.code == one.code, (done.code, done.err[-2000:])
    for words in one.says:
        assert filled(words) in done.message, done.message
    assert one.prints or not done.out, done.out
    after = contents(here)
    assert after == before, {*after.items()} ^ {*before.items()}
    return done.message.strip().partition("\n")[0].replace(str(here), "")


def prepare(one: Case, good: Path, here: Path) -> None:
    """Makes the files of a case."""
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
    """Returns the digest of every file below a folder, and what else is there."""
    made = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        mode, name = path.lstat().st_mode, str(path.relative_to(folder))
        made[name] = stat.filemode(mode)
        if stat.S_ISREG(mode):
            made[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return made


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises RuntimeError in what takes too long."""

    def stop(*_: object) -> None:
        raise RuntimeError(f"the command took more than {_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
