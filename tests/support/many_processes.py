"""Several processes of one command on this machine, as hosts of a pod would run it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Long enough for two busy cores; a test that loses a process has a shorter one.
HEARTBEAT_SECONDS = 100


def free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(
    count: int,
    devices: int,
    command: str,
    *arguments: object,
    folder: Path,
    environments: Mapping[int, Mapping[str, str]] | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> list[subprocess.Popen[bytes]]:
    """Starts `count` processes with `devices` devices each.

    Standard output and error of process N go to `folder/N.out` and `folder/N.err`;
    `environments` has what is different for some of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    port, of_process = free_port(), environments or {}
    words = [sys.executable, "-m", f"bert_jax.{command}", *map(str, arguments)]
    running = []
    for index in range(count):
        others = [
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={count}",
            f"--process_id={index}",
            f"--heartbeat_seconds={heartbeat_seconds}",
        ]
        with (
            (folder / f"{index}.out").open("wb") as out,
            (folder / f"{index}.err").open("wb") as err,
        ):
            running.append(
                subprocess.Popen(
                    words + others * (count > 1),
                    cwd=ROOT,
                    env=os.environ | settings | dict(of_process.get(index, {})),
                    stdout=out,
                    stderr=err,
                )
            )
    return running


def run(*arguments: object, folder: Path, **options) -> list[int]:
    """Runs the processes to their end; returns their exit codes."""
    running = start(*arguments, folder=folder, **options)
    return [process.wait(300) for process in running]


def errors_of(folder: Path) -> str:
    """Returns the last output of all processes, for the message of a test."""
    files = sorted(folder.glob("*.err"))
    return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)


def losses(workdir: Path) -> dict[int, float]:
    """Returns the loss by step."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {x["step"]: x["train/loss"] for x in lines if "train/loss" in x}


def examples(workdir: Path) -> dict[int, list[list[tuple[str, int]]]]:
    """Returns by step (name, checksum) of every row, for each process."""
    rows: dict[int, list[list[tuple[str, int]]]] = {}
    for path in sorted(workdir.glob("examples-*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            pairs = list(zip(line["examples"], line["crc32"], strict=True))
            rows.setdefault(line["step"], []).append(pairs)
    return rows
