"""Runs the commands as the shell would: in this process, or for real."""

import io
import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).resolve().parents[2]
OWN_FLAGS = (
    r"(config(\..*)?|workdir|allow_changed_config|store|model|input|top|task|output|"
    r"features|layers|normalize|prompt|prompt_name|dtype|to|verify|allow_missing|ignore|"
    r"head|hidden_act|separate_head|model_type|pooling|format|"
    r"input_format|columns|repair|header|label_map|data|name|topology|compare|confirm|"
    r"cluster|coordinator|num_processes|process_id|heartbeat_seconds|engine|runner)\Z"
)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one error message; fails if there is none, several or a traceback."""
        assert "Traceback" not in self.err, self.err
        assert self.err.count("error: ") == 1, self.err
        return self.err.partition("error: ")[2]


def in_process(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    *arguments: object,
    stdin: bytes = b"",
) -> Done:
    """Runs the file of a command as `__main__`, up to its exit code."""
    path = ROOT / "bert_jax" / f"{command}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    capfd.readouterr()
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        ours = [name for name in flags.FLAGS if re.match(OWN_FLAGS, name)]
        flags.FLAGS.remove_flag_values(ours)
        flags.FLAGS.unparse_flags()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return Done(code or 0, *capfd.readouterr())


def for_real(command: str, *arguments: object, **options) -> Done:
    """Runs `python -m bert_jax.<command>` in a process of its own."""
    words = [sys.executable, "-m", f"bert_jax.{command}", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    done = subprocess.run(words, cwd=ROOT, env=os.environ, text=True, **streams)
    return Done(done.returncode, done.stdout or "", done.stderr or "")


def script(code: str, folder: Path, **environment: str) -> tuple[str, str]:
    """Runs a script that finds packages in a folder first; returns output and errors.

    JAX chooses the platform, unless the environment sets it.
    """
    kept = {name: x for name, x in os.environ.items() if name != "JAX_PLATFORMS"}
    kept |= {"PYTHONPATH": f"{ROOT}:{folder}", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr
