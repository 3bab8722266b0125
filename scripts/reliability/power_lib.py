"""Power that fails, and a disk that its system makes read-only.

A library of inject_faults.py.

Needs the right to mount a file system; without it these trials are left out.

A power failure is made by ext4 itself: told to shut down without its log, it keeps what
was waited for (fsync) and forgets the rest. Nothing is written of its own accord here
(no commit for ten minutes, no early allocation), so a file that nobody waited for is
empty afterwards, or gone.
"""

import fcntl
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fork_server_lib
import kills_lib
from trial_lib import Bench, Trial, last_line

from bert_jax.training import saved_steps

_OPTIONS = "loop,commit=600,noauto_da_alloc,errors=remount-ro"
_SHUTDOWN, _WITHOUT_ITS_LOG = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, of linux/ext4.h
# What was lost, and the checkpoint that must be there then, which the run waited for.
LOSSES = (
    {"loop/step=3": 0, "loop/step=6": 0, "loop/step=10": 4, "loop/step=24": 16}
    | dict.fromkeys((*kills_lib.STORE, *kills_lib.FIRST_SAVE), 0)
    | dict.fromkeys(kills_lib.SAVES, 4)
    | {"checkpoint/listed=8": 8, "checkpoint/after=8": 8}
    | dict.fromkeys(kills_lib.DELETIONS, 12)
)


class _Disk:
    """An ext4 in a file, mounted at a folder; a context manager."""

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        self.folder, self._image = folder, folder.with_suffix(".img")
        self._image.write_bytes(b"")
        os.truncate(self._image, megabytes << 20)
        _call("mkfs.ext4", "-q", "-F", self._image)
        folder.mkdir(exist_ok=True)
        self._mount()

    def __enter__(self) -> "_Disk":
        return self

    def __exit__(self, *_: object) -> None:
        self._unmount()
        self._image.unlink()

    def lose_power(self) -> None:
        """Forgets what nobody waited for; nothing can be read or written after it."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            what = struct.pack("I", _WITHOUT_ITS_LOG)
            fcntl.ioctl(descriptor, _SHUTDOWN, what)
        finally:
            os.close(descriptor)

    def fail(self) -> None:
        """Has the system find an error, and make it read-only with its files open."""
        number = self.folder.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("on purpose")

    def start_again(self) -> None:
        """Mounts it anew, as after a start of the machine."""
        self._unmount()
        subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True)
        self._mount()

    def _mount(self) -> None:
        _call("mount", "-o", _OPTIONS, self._image, self.folder)

    def _unmount(self) -> None:
        _call("umount", self.folder)


def _call(*command: object) -> str:
    words = list(map(str, command))
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _is_able(folder: Path) -> bool:
    if not all(map(shutil.which, ("mkfs.ext4", "e2fsck", "mount", "umount"))):
        return False
    try:
        with _Disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields what became of runs that lost their power, or their disk."""
    folder = bench.folder / "ext4"
    if not _is_able(folder):
        print("power: left out, as this machine may not mount an ext4", flush=True)
        return
    for point, saved in bench.some(LOSSES.items()):
        with _Disk(folder) as disk:
            yield Trial("power lost", point, _lost(bench, disk, point, saved))
    for point in bench.some(("loop/step=6", "checkpoint/started=8")):
        with _Disk(folder) as disk:
            problem = _read_only(bench, disk, point)
            yield Trial("a disk made read-only under way", point, problem)


def _start(bench: Bench, workdir: Path, point: str = "") -> fork_server_lib.Child:
    """Starts, or resumes, a run that builds its own store."""
    faults = f"{point}:SIGSTOP" if point else ""
    arguments = bench.place.arguments(workdir)
    return bench.fork_server.start("pretrain", *arguments, faults=faults)


def _lost(bench: Bench, disk: _Disk, point: str, saved: int) -> str:
    workdir = disk.folder / "run"
    child = _start(bench, workdir, point)
    child.wait_until_held()
    disk.lose_power()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    disk.start_again()
    steps = saved_steps.steps(workdir / "checkpoints")
    reasons = {x: saved_steps.damage(workdir / "checkpoints" / str(x)) for x in steps}
    newest = max((step for step in steps if reasons[step] is None), default=0)
    if newest < saved:
        return f"the newest checkpoint is {newest}, not {saved}: {reasons}"
    return kills_lib.built(bench, workdir)


def _read_only(bench: Bench, disk: _Disk, point: str) -> str:
    workdir = disk.folder / "run"
    child = _start(bench, workdir, point)
    child.wait_until_held()
    disk.fail()
    os.kill(child.pid, signal.SIGCONT)
    code, said = child.wait(), child.said.read_text(errors="replace")
    if code != 5 or said.count("error: ") != 1:
        return f"exit code {code}: {last_line(child.said)}"
    disk.start_again()
    return kills_lib.built(bench, workdir)
