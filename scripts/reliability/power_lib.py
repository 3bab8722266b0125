"""Power failures, and file systems that become read-only after an error.

A library of inject_faults.py.

Needs permission to mount a file system; without it these trials are skipped.

A power failure is simulated by ext4: shut down without its journal, it keeps synced
data (fsync) and loses the rest. Nothing is written in the background (no commit for ten
minutes, no early allocation), so a file that was not synced is empty afterwards, or
missing.
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

from bert_jax.training import checkpoint

_OPTIONS = "loop,commit=600,noauto_da_alloc,errors=remount-ro"
_SHUTDOWN, _WITHOUT_JOURNAL = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, of linux/ext4.h
# The fault point of the failure -> the newest checkpoint that must have been synced.
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
        """Drops all unsynced data; nothing can be read or written afterwards."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            what = struct.pack("I", _WITHOUT_JOURNAL)
            fcntl.ioctl(descriptor, _SHUTDOWN, what)
        finally:
            os.close(descriptor)

    def fail(self) -> None:
        """Triggers a file system error, which makes it read-only with files open."""
        number = self.folder.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("on purpose")

    def reboot(self) -> None:
        """Remounts it, as after a reboot."""
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
    """Yields the trials of runs that lose power, or their disk."""
    folder = bench.folder / "ext4"
    if not _is_able(folder):
        print("power: skipped: no permission to mount an ext4", flush=True)
        return
    for point, saved in bench.some(LOSSES.items()):
        with _Disk(folder) as disk:
            yield Trial("power lost", point, _lost(bench, disk, point, saved))
    for point in bench.some(("loop/step=6", "checkpoint/started=8")):
        with _Disk(folder) as disk:
            problem = _read_only(bench, disk, point)
            yield Trial("a disk that becomes read-only during the run", point, problem)


def _start(bench: Bench, workdir: Path, point: str = "") -> fork_server_lib.Child:
    """Starts or resumes a run that builds its own store."""
    faults = f"{point}:SIGSTOP" if point else ""
    arguments = bench.setup.arguments(workdir)
    return bench.fork_server.start("pretrain", *arguments, faults=faults)


def _lost(bench: Bench, disk: _Disk, point: str, saved: int) -> str:
    workdir = disk.folder / "run"
    child = _start(bench, workdir, point)
    child.wait_until_stopped()
    disk.lose_power()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    disk.reboot()
    steps = checkpoint.steps(workdir / "checkpoints")
    reasons = {x: checkpoint.damage(workdir / "checkpoints" / str(x)) for x in steps}
    newest = max((step for step in steps if reasons[step] is None), default=0)
    if newest < saved:
        return f"the newest checkpoint is {newest}, not {saved}: {reasons}"
    return kills_lib.built(bench, workdir)


def _read_only(bench: Bench, disk: _Disk, point: str) -> str:
    workdir = disk.folder / "run"
    child = _start(bench, workdir, point)
    child.wait_until_stopped()
    disk.fail()
    os.kill(child.pid, signal.SIGCONT)
    code, output = child.wait(), child.log.read_text(errors="replace")
    if code != 5 or output.count("error: ") != 1:
        return f"exit code {code}: {last_line(child.log)}"
    disk.reboot()
    return kills_lib.built(bench, workdir)
