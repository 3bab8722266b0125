"""Disks that are full, and disks that cannot be written. A library of inject_faults.py.

Needs the right to mount a tmpfs; without it these trials say so and are left out.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fork_server_lib
import runs_lib
from trial_lib import Bench, Trial, last_line

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
    codes = []
    for share in bench.some((0.05, 0.15, 0.3, 0.4, 0.5, 0.7, 0.8, 0.97, 0.6)):
        size = int(need * share)
        code, problem = _full(bench, disk, size, need)
        codes.append(code)
        yield Trial("a full disk", f"{size} of {need} KiB, exit {code}", problem)
    if codes.count(5) < len(codes) - 2:
        yield Trial("a full disk", "exit codes", f"too few were full: {codes}")
    for name in ("from the beginning", "when it goes on"):
        yield Trial("a read-only disk", name, _read_only(bench, disk, name))
    for point in bench.some(("loop/step=6", "loop/step=10")):
        yield Trial("a disk that fills up", point, _filled(bench, disk, point))


def _need(bench: Bench) -> int:
    """Returns the KiB that a whole run takes, with what it holds on the way."""
    workdir = bench.workdir("need")
    assert bench.train(workdir).wait() == 0
    files = [path for path in workdir.rglob("*") if path.is_file()]
    blocks = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    (step, *_) = (workdir / "checkpoints").iterdir()
    saved = [path for path in step.rglob("*") if path.is_file()]
    return blocks + 2 * sum(-(-path.stat().st_size // 4096) * 4 for path in saved)


def _full(bench: Bench, disk: Path, size: int, need: int) -> tuple[int, str]:
    """Returns how a run ended on a disk of this size, and what was wrong then."""
    with _disk(disk, size):
        workdir = disk / "run"
        child = bench.train(workdir)
        code = child.wait()
        if code not in (0, 5):
            return code, f"exit code {code}: {last_line(child.said)}"
        if code == 5 and (problem := _after_full(workdir, child.said)):
            return code, problem
        _remount(disk, f"size={3 * need}k")
        return code, bench.goes_on(workdir)


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
    if steps and late > 2 * runs_lib.SETTINGS["run.save_every_steps"]:
        return f"said so {late} steps after the last good save"
    left = [*(workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")]
    return f"{len(left)} temporary folders" if len(left) > 1 else ""


def _read_only(bench: Bench, disk: Path, name: str) -> str:
    """Has a disk refuse all writes, before a run begins or before it goes on."""
    with _disk(disk, 64 * 1024):
        workdir = disk / "run"
        if name == "when it goes on":
            child = bench.train(workdir, faults="loop/step=10:SIGTERM")
            if (code := child.wait()) != 75:
                return f"exit code {code}: {last_line(child.said)}"
        _remount(disk, "ro")
        problem = _says_so(bench.train(workdir))
        _remount(disk, "rw")
        return problem or bench.goes_on(workdir)


def _filled(bench: Bench, disk: Path, point: str) -> str:
    """Leaves a disk no room while a step is held."""
    with _disk(disk, 64 * 1024):
        workdir = disk / "run"
        child = bench.train(workdir, faults=f"{point}:SIGSTOP")
        child.wait_until_held()
        subprocess.run(["sync"], check=True)
        used = shutil.disk_usage(disk).used // 1024
        _remount(disk, f"size={used + 4}k")
        os.kill(child.pid, signal.SIGCONT)
        problem = _says_so(child)
        _remount(disk, "size=65536k")
        return problem or bench.goes_on(workdir)


def _says_so(child: fork_server_lib.Child) -> str:
    """Returns what is wrong with the end of a run that could not write."""
    code = child.wait()
    if code != 5 or child.said.read_text(errors="replace").count("error: ") != 1:
        return f"exit code {code}: {last_line(child.said)}"
    return ""
