"""Full and read-only disks, and lost power. A library of inject_faults.py.

Needs permission to mount a tmpfs or an ext4; without it these trials are skipped with a
message.
"""

import contextlib
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
import trial_lib
from trial_lib import Bench, Trial, failed, last_line

from bert_jax.training import checkpoint


@contextlib.contextmanager
def _disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mounts a small disk; yields whether that succeeded."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    able = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield able
    finally:
        if able:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True)


def trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs on disks that are too small or read-only."""
    disk = bench.folder / "disk"
    with _disk(disk, 100) as able:
        pass
    if not able:
        print("disk: skipped: no permission to mount a tmpfs", flush=True)
        return
    need = _need(bench)
    codes = []
    for share in bench.some((0.05, 0.15, 0.3, 0.4, 0.5, 0.7, 0.8, 0.97, 0.6)):
        size = int(need * share)
        code, problem = _full(bench, disk, size, need)
        codes.append(code)
        yield Trial("a full disk", f"{size} of {need} KiB, exit {code}", problem)
    if codes.count(5) < len(codes) - 2:
        yield Trial("a full disk", "exit codes", f"too few runs ended with 5: {codes}")
    for name in ("at the start", "on resume"):
        yield Trial("a read-only disk", name, _read_only(bench, disk, name))
    for point in bench.some(("loop/step=6", "loop/step=10")):
        yield Trial("a disk that fills up", point, _filled(bench, disk, point))


def _need(bench: Bench) -> int:
    """Returns the KiB that a run needs, with its temporary files."""
    workdir = bench.workdir("need")
    assert bench.train(workdir).wait() == 0
    files = [path for path in workdir.rglob("*") if path.is_file()]
    blocks = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    (step, *_) = (workdir / "checkpoints").iterdir()
    saved = [path for path in step.rglob("*") if path.is_file()]
    return blocks + 2 * sum(-(-path.stat().st_size // 4096) * 4 for path in saved)


def _full(bench: Bench, disk: Path, size: int, need: int) -> tuple[int, str]:
    """Returns the exit code of a run on a disk of this size, and the problem."""
    with _disk(disk, size):
        workdir = disk / "run"
        child = bench.train(workdir)
        code = child.wait()
        if code not in (0, 5):
            return code, f"exit code {code}: {last_line(child.log)}"
        if code == 5 and (problem := _after_full(workdir, child.log)):
            return code, problem
        _remount(disk, f"size={3 * need}k")
        return code, bench.resume(workdir)


def _after_full(workdir: Path, log: Path) -> str:
    """Checks the workdir of a run that ended because its disk was full."""
    text = log.read_text(errors="replace")
    if text.count("error: ") != 1 or "Traceback" in text.split("error: ")[-1]:
        return f"not exactly one message: {last_line(log)}"
    steps = checkpoint.steps(workdir / "checkpoints")
    lines = (workdir / "metrics.jsonl").read_text() if steps else ""
    if steps and not any(
        checkpoint.damage(workdir / "checkpoints" / str(x)) is None for x in steps
    ):
        return "no good checkpoint was kept"
    late = lines.count("train/loss") - max(steps, default=0)
    # Steps are as quick as saves here: the next save may be the first to fail.
    if steps and late > 2 * trial_lib.SETTINGS["run.save_every_steps"]:
        return f"reported {late} steps after the last good save"
    left = [*(workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")]
    return f"{len(left)} temporary folders" if len(left) > 1 else ""


def _read_only(bench: Bench, disk: Path, name: str) -> str:
    """Makes a disk read-only, before a run starts or before it resumes."""
    with _disk(disk, 64 * 1024):
        workdir = disk / "run"
        if name == "on resume":
            child = bench.train(workdir, faults="loop/step=10:SIGTERM")
            if problem := failed(child, 75):
                return problem
        _remount(disk, "ro")
        problem = _not_reported(bench.train(workdir))
        _remount(disk, "rw")
        return problem or bench.resume(workdir)


def _filled(bench: Bench, disk: Path, point: str) -> str:
    """Fills the disk while the run is stopped in a step."""
    with _disk(disk, 64 * 1024):
        workdir = disk / "run"
        child = bench.train(workdir, faults=f"{point}:SIGSTOP")
        child.wait_until_stopped()
        subprocess.run(["sync"], check=True)
        used = shutil.disk_usage(disk).used // 1024
        _remount(disk, f"size={used + 4}k")
        os.kill(child.pid, signal.SIGCONT)
        problem = _not_reported(child)
        _remount(disk, "size=65536k")
        return problem or bench.resume(workdir)


def _not_reported(child: fork_server_lib.Child) -> str:
    """Returns a problem unless a failed write ended the run with 5 and one message."""
    code = child.wait()
    if code != 5 or child.log.read_text(errors="replace").count("error: ") != 1:
        return f"exit code {code}: {last_line(child.log)}"
    return ""


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


class _Ext4:
    """An ext4 in a file, mounted at a folder; a context manager."""

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        self.folder, self._image = folder, folder.with_suffix(".img")
        self._image.write_bytes(b"")
        os.truncate(self._image, megabytes << 20)
        _call("mkfs.ext4", "-q", "-F", self._image)
        folder.mkdir(exist_ok=True)
        self._mount()

    def __enter__(self) -> "_Ext4":
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
        with _Ext4(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def power_trials(bench: Bench) -> Iterator[Trial]:
    """Yields the trials of runs that lose power, or their disk."""
    folder = bench.folder / "ext4"
    if not _is_able(folder):
        print("power: skipped: no permission to mount an ext4", flush=True)
        return
    for point, saved in bench.some(LOSSES.items()):
        with _Ext4(folder) as disk:
            yield Trial("power lost", point, _lost(bench, disk, point, saved))
    for point in bench.some(("loop/step=6", "checkpoint/started=8")):
        with _Ext4(folder) as disk:
            problem = _turned_read_only(bench, disk, point)
            yield Trial("a disk that becomes read-only during the run", point, problem)


def _started(bench: Bench, workdir: Path, point: str = "") -> fork_server_lib.Child:
    """Starts or resumes a run that builds its own store."""
    faults = f"{point}:SIGSTOP" if point else ""
    arguments = bench.setup.arguments(workdir)
    return bench.fork_server.start("pretrain", *arguments, faults=faults)


def _lost(bench: Bench, disk: _Ext4, point: str, saved: int) -> str:
    workdir = disk.folder / "run"
    child = _started(bench, workdir, point)
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


def _turned_read_only(bench: Bench, disk: _Ext4, point: str) -> str:
    workdir = disk.folder / "run"
    child = _started(bench, workdir, point)
    child.wait_until_stopped()
    disk.fail()
    os.kill(child.pid, signal.SIGCONT)
    if problem := _not_reported(child):
        return problem
    disk.reboot()
    return kills_lib.built(bench, workdir)
