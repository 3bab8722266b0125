"""Disks that are full, and disks that cannot be written. A library of torture.py.

Needs the right to mount a tmpfs; without it these trials say so and are left out.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torture_runs
from torture_trial import Bench, Trial, last_line

from bert_jax.training import saved_steps


@contextlib.contextmanager
def _disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mounts a small disk; gives whether it could."""
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
    """Yields what became of runs on disks that were too small or not writable."""
    disk = bench.folder / "disk"
    with _disk(disk, 100) as able:
        pass
    if not able:
        print("disk: left out, as this machine may not mount a tmpfs", flush=True)
        return
    need = _need(bench)
    for share in bench.some((0.05, 0.15, 0.3, 0.45, 0.7, 0.8, 0.9, 0.97, 0.6)):
        size = int(need * share)
        problem = _full(bench, disk, size, need)
        yield Trial("a full disk", f"{size} of {need} KiB", problem)
    yield Trial("a read-only disk", "from the beginning", _refused(bench, disk, ""))
    for point in bench.some(("loop/step=6", "loop/step=10")):
        yield Trial("a disk that fills up", point, _refused(bench, disk, point))


def _need(bench: Bench) -> int:
    """Returns the KiB that a whole run takes, with what it holds on the way."""
    workdir = bench.workdir("need")
    assert bench.train(workdir).wait() == 0
    files = [path for path in workdir.rglob("*") if path.is_file()]
    blocks = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    (step, *_) = (workdir / "checkpoints").iterdir()
    saved = [path for path in step.rglob("*") if path.is_file()]
    return blocks + 2 * sum(-(-path.stat().st_size // 4096) * 4 for path in saved)


def _full(bench: Bench, disk: Path, size: int, need: int) -> str:
    with _disk(disk, size):
        workdir = disk / "run"
        child = bench.train(workdir)
        code = child.wait()
        if code not in (0, 5):
            return f"exit code {code}: {last_line(child.said)}"
        if code == 5 and (problem := _after_full(workdir, child.said)):
            return problem
        _remount(disk, f"size={3 * need}k")
        return bench.goes_on(workdir)


def _after_full(workdir: Path, said: Path) -> str:
    """Looks at what a run left that ended because its disk was full."""
    text = said.read_text(errors="replace")
    if text.count("error: ") != 1 or "Traceback" in text.split("error: ")[-1]:
        return f"not one clear message: {last_line(said)}"
    steps = saved_steps.steps(workdir / "checkpoints")
    lines = (workdir / "metrics.jsonl").read_text() if steps else ""
    if steps and not any(
        saved_steps.damage(workdir / "checkpoints" / str(x)) is None for x in steps
    ):
        return "no good checkpoint was kept"
    late = lines.count("train/loss") - max(steps, default=0)
    # Steps are as quick as saves here: the next save may be the first to know.
    if steps and late > 2 * torture_runs.SETTINGS["run.save_every_steps"]:
        return f"said so {late} steps after the last good save"
    left = [*(workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")]
    return f"{len(left)} temporary folders" if len(left) > 1 else ""


def _refused(bench: Bench, disk: Path, point: str) -> str:
    """Has the disk refuse writes: read-only at once, or full while a step is held."""
    with _disk(disk, 64 * 1024):
        workdir = disk / "run"
        if not point:
            _remount(disk, "ro")
            child = bench.train(workdir)
        else:
            child = bench.train(workdir, faults=f"{point}:SIGSTOP")
            child.wait_until_held()
            subprocess.run(["sync"], check=True)
            _freeze(disk)
            subprocess.run(["kill", "-CONT", str(child.pid)], check=True)
        code = child.wait()
        text = child.said.read_text(errors="replace")
        if code not in (2, 5) or text.count("error: ") != 1:
            return f"exit code {code}: {last_line(child.said)}"
        _thaw(disk)
        return bench.goes_on(workdir)


def _freeze(disk: Path) -> None:
    """Leaves a disk no room; read-only it cannot be made while files are open."""
    used = shutil.disk_usage(disk).used // 1024
    _remount(disk, f"size={used + 4}k")


def _thaw(disk: Path) -> None:
    _remount(disk, "rw,size=65536k")
