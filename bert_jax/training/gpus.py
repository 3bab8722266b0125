"""A GPU that JAX does not use is reported: nothing falls to the CPU unnoticed.

JAX takes the CPU where its CUDA plugin is missing, has another version than jaxlib (as
after `pip install` has replaced jax in a GPU image), or cannot start.
"""

import functools
import glob
import importlib.metadata
import logging
import os
import re
import shutil
import subprocess

import jax

from bert_jax.training import tpus

_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-cuda12-pjrt")
_PLUGINS += ("jax-cuda13-pjrt",)
_SECONDS = 10.0  # that nvidia-smi may take; a broken driver can hang

_log = logging.getLogger(__name__)


def warn_if_unused(*, report: bool = True) -> None:
    """Logs one warning a process if an NVIDIA GPU is here and JAX computes on the CPU.

    It names the reason and the fix. Starts JAX's devices. Does nothing where the CPU
    was asked for, by JAX_PLATFORMS or an empty CUDA_VISIBLE_DEVICES.

    Args:
      report: whether to log it; one of several processes does.
    """
    asked = jax.config.jax_platforms  # pyright: ignore
    if not report or (asked and asked not in tpus.chosen):
        return
    if jax.default_backend() == "cpu":
        _warn_once()


@functools.cache
def _warn_once() -> None:
    sign = _sign()
    if sign is None:
        return
    jaxlib = importlib.metadata.version("jaxlib")
    why, fix = explain(_installed(), jaxlib, _driver_cuda(), _failure)
    _log.warning(
        "JAX computes on the CPU, though an NVIDIA GPU seems to be here (%s): %s. %s. "
        "To compute on the CPU without this warning, set JAX_PLATFORMS=cpu",
        sign,
        why,
        fix,
    )


def explain(
    plugins: dict[str, str], jaxlib: str, driver_cuda: int | None, failure: object
) -> tuple[str, str]:
    """Returns why JAX does not use a GPU, and what to do.

    Args:
      plugins: installed distributions of JAX's CUDA plugins, with their versions.
      jaxlib: version of jaxlib.
      driver_cuda: major version of CUDA that the driver supports, None if not known.
      failure: function that returns the error of starting CUDA; called only if the
        plugins are there and fit.

    >>> explain({}, "0.7.2", 12, None)[0]
    'JAX has no CUDA plugin'
    """
    extra = f"cuda{driver_cuda if driver_cuda in (12, 13) else 12}"
    for name in plugins:
        extra = f"cuda{name.removeprefix('jax-cuda')[:2]}"
    again = "start Python again (in a notebook, restart the runtime)"
    fix = f'Run pip install "jax[{extra}]=={jaxlib}" and {again}'
    if not plugins:
        return "JAX has no CUDA plugin", fix
    other = {x: v for x, v in plugins.items() if _release(v) != _release(jaxlib)}
    if other:
        listed = " and ".join(f"{name} {version}" for name, version in other.items())
        return f"{listed} cannot be used with jaxlib {jaxlib}", fix
    assert callable(failure)
    needed = "A CUDA 12 plugin needs driver 525 or newer, a CUDA 13 plugin driver 580"
    return f"CUDA did not start: {failure()}", f"Check nvidia-smi. {needed}"


def _release(version: str) -> str:
    """Returns a version without what does not count: 0.7.2 of 0.7.2.post1."""
    return re.split(r"[^\d.]|\.(?=\D)", version)[0]


def _sign() -> str | None:
    """Returns what shows that an NVIDIA GPU is here and not hidden, or None."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    files = sorted(glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/nvidiactl"))
    return files[0] if files else shutil.which("nvidia-smi")


def _installed() -> dict[str, str]:
    """Returns the installed plugins for CUDA, with their versions."""
    found = {}
    for name in _PLUGINS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _driver_cuda() -> int | None:
    """Returns the major version of CUDA that nvidia-smi reports, or None."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return None
    try:
        done = subprocess.run([path], capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(rb"CUDA Version: (\d+)", done.stdout)
    return int(match[1]) if match else None


def _failure() -> str:
    """Returns the first line of what starting CUDA raises."""
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return (str(error).strip().splitlines() or ["no reason is given"])[0]
    return "JAX gives no reason"
