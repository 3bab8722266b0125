"""The accelerators: a table of chips, and what JAX misses of the ones that are here.

`CHIPS` has what each kind of chip can compute, hold and move, and what an hour costs.
Peaks, memories and bandwidths are from the vendors' data sheets and Google's page of
each TPU (docs.cloud.google.com/tpu/docs). The memory that a program may use is, on a
TPU, what its compiler reports when it refuses more; on a GPU JAX takes three quarters
unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.

`leave_out` keeps JAX from loading libtpu (extra `tpu`) on a machine without TPUs, where
it fills the log with errors. `warn_if_unused` reports a GPU that JAX does not use: it
falls back to the CPU where its CUDA plugin is missing, has another version than jaxlib
(as after `pip install` has replaced jax in a GPU image), or cannot start.
"""

import contextlib
import dataclasses
import functools
import glob
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax

from bert_jax.foundation import host_memory

PRICES = "Google Cloud's list prices, on demand, in the United States, 2025"


@dataclasses.dataclass(frozen=True)
class Multiprocessors:
    """The cores of an NVIDIA GPU.

    Attributes:
      capability: compute capability: `9.0` of an H100.
      count: streaming multiprocessors.
      gigahertz: highest clock.
    """

    capability: str
    count: int
    gigahertz: float


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a kind of chip can do.

    Attributes:
      name: as it is written in a topology.
      device_kinds: parts of jax's `device_kind` that identify it.
      peak_flops: dense bfloat16 FLOP/s.
      memory_bytes: bytes that a program may use.
      memory_bandwidth: bytes a second, read and written together.
      interconnect: bytes a second from a chip to its neighbors; as many arrive.
      network: bytes a second from a chip to chips it has no link to.
      most_linked: most chips that links connect: a slice, or a machine with GPUs.
      dollars: price of a chip-hour (see `PRICES`); None where none is listed.
      axes: axes of the torus of a TPU slice; 0 for other chips.
      cores: of an NVIDIA GPU; None for other chips.
    """

    name: str
    device_kinds: tuple[str, ...]
    peak_flops: float
    memory_bytes: float
    memory_bandwidth: float
    interconnect: float
    network: float
    most_linked: int
    dollars: float | None
    axes: int = 0
    cores: Multiprocessors | None = None

    @property
    def is_tpu(self) -> bool:
        """Whether it is a TPU."""
        return self.axes > 0

    @property
    def capability(self) -> str:
        """The compute capability of an NVIDIA GPU, or ""."""
        return "" if self.cores is None else self.cores.capability

    @property
    def total_bytes(self) -> float:
        """All memory of a GPU, including what a program may not use."""
        return self.memory_bytes / GPU_FRACTION


def _chip(
    name: str,
    kinds: tuple[str, ...],
    teraflops: int,
    memory_bytes: float,
    bandwidths: tuple[int | float, int | float, int | float],
    most_linked: int,
    dollars: float | None,
    axes: int = 0,
) -> Chip:
    """Returns a chip; GB/s of its memory, its links (both ways) and its network."""
    memory, links, network = (1e9 * x for x in bandwidths)
    rates = (teraflops * 1e12, memory_bytes, memory, links / 2, network)
    return Chip(name, kinds, *rates, most_linked, dollars, axes)


def _gpu(
    name: str,
    kind: str,
    teraflops: int,
    gigabytes: int,
    bandwidths: tuple[int | float, int | float, int | float],
    dollars: float | None,
    cores: Multiprocessors,
) -> Chip:
    """Returns a GPU; eight share a machine."""
    usable = gigabytes * 1e9 * GPU_FRACTION
    chip = _chip(name, (kind,), teraflops, usable, bandwidths, 8, dollars)
    return dataclasses.replace(chip, cores=cores)


GPU_FRACTION = 0.75  # what JAX takes of the memory of a GPU
_GIB = 2.0**30
_AMPERE = Multiprocessors("8.0", 108, 1.41)
_HOPPER = Multiprocessors("9.0", 132, 1.98)
_HOPPER_PCIE = Multiprocessors("9.0", 114, 1.755)
_HOPPER_NVL = Multiprocessors("9.0", 132, 1.785)

# The first match of a `device_kind` counts: a v5p reports "TPU v5".
CHIPS = (
    _gpu("h100-pcie", "H100 PCIe", 756, 80, (2039, 128, 25), None, _HOPPER_PCIE),
    _gpu("h100-nvl", "H100 NVL", 835, 94, (3938, 600, 25), None, _HOPPER_NVL),
    _gpu("h100", "H100", 989, 80, (3350, 900, 50), 11.06, _HOPPER),
    _gpu("h200", "H200", 989, 141, (4800, 900, 50), 10.60, _HOPPER),
    _gpu("a100-40gb", "A100-SXM4-40GB", 312, 40, (1555, 600, 12.5), 3.67, _AMPERE),
    _gpu("a100", "A100", 312, 80, (2039, 600, 25), 5.07, _AMPERE),
    _chip("v4", ("TPU v4",), 275, 30.75 * _GIB, (1228, 600, 6.25), 4096, 3.22, 3),
    _chip(
        "v5e",
        ("TPU v5 lite", "TPU v5e"),
        197,
        15.75 * _GIB,
        (819, 400, 3.125),
        256,
        1.20,
        2,
    ),
    _chip("v5p", ("TPU v5",), 459, 95.74 * _GIB, (2765, 1200, 6.25), 6144, 4.20, 3),
    _chip("v6e", ("TPU v6",), 918, 31.25 * _GIB, (1638, 800, 12.5), 256, 2.70, 2),
)


def of_kind(device_kind: str) -> Chip | None:
    """Returns the chip of jax's `device_kind`, or None if it is not in the table.

    >>> of_kind("TPU v5 lite").name
    'v5e'
    """
    matching = (c for c in CHIPS if any(part in device_kind for part in c.device_kinds))
    return next(matching, None)


def peak_flops(device_kind: str) -> float | None:
    """Returns the bfloat16 peak of a kind of device, or None where it is not known.

    >>> peak_flops("NVIDIA H100 80GB HBM3") / 1e12
    989.0
    >>> peak_flops("cpu") is None
    True
    """
    chip = of_kind(device_kind)
    return None if chip is None else chip.peak_flops


_GOOGLE = "0x1ae0"  # also the vendor of the network cards and disks of Google's VMs
_DISKS_AND_NETWORKS = ("0x01", "0x02")  # classes of PCI devices
# Variables that name TPUs, here or elsewhere; TPU_LIBRARY_PATH is set by libtpu itself.
_SAY_SO = ("JAX_FORCE_TPU_INIT", "TPU_NAME", "TPU_WORKER_HOSTNAMES")

_log = logging.getLogger(__name__)
_reported: list[bool] = []
chosen: list[str] = []  # platforms set by `leave_out`, not by the user


def leave_out(*, report: bool = True) -> None:
    """Keeps JAX from loading libtpu where it is installed and there are no TPUs.

    The same goes for a CUDA plugin that is here to compile only (extra `gpu-plan`).
    Must be called before JAX starts its devices. Does nothing where JAX_PLATFORMS is
    set, TPUs are here or named by the environment, or JAX has plugins of other makers
    than NVIDIA. The first call logs a warning if `report` is set.
    """
    if jax.config.jax_platforms:  # pyright: ignore
        return
    if importlib.util.find_spec("libtpu") is None:
        _leave_out_compiler()
        return
    if (
        host_memory.tpu_files()
        or any(name in os.environ for name in _SAY_SO)
        or _is_in_pci()
    ):
        return
    plugins = {x.name for x in importlib.metadata.entry_points(group="jax_plugins")}
    gpus = {name for name in plugins if "cuda" in name}
    if plugins - gpus:
        return
    has_gpu = bool(gpus) and bool(glob.glob("/dev/nvidia*") or glob.glob("/dev/dxg"))
    chosen.append("cuda,cpu" if has_gpu else "cpu")
    jax.config.update("jax_platforms", chosen[-1])
    if report and not _reported:
        _reported.append(True)
        _log.warning(
            "there is no TPU on this machine: libtpu (the extra tpu) is not loaded, "
            "and JAX computes on the %s. Set JAX_PLATFORMS=tpu to load it anyway",
            "GPU" if has_gpu else "CPU",
        )


def _leave_out_compiler() -> None:
    """Has JAX compute on the CPU if its CUDA plugin has neither cuDNN nor a GPU.

    JAX would do so as well, after logging the traceback of an error.
    """
    if _installed(_PLUGINS) and not _installed(_CUDNN) and not host_memory.gpu_files():
        chosen.append("cpu")
        jax.config.update("jax_platforms", "cpu")


def _is_in_pci() -> bool:
    """Returns whether Google's chips are on the PCI bus, as in a container."""
    for path in map(Path, glob.glob("/sys/bus/pci/devices/*")):
        try:
            vendor = (path / "vendor").read_text().strip()
            kind = (path / "class").read_text().strip()
        except OSError:
            continue
        if vendor == _GOOGLE and not kind.startswith(_DISKS_AND_NETWORKS):
            return True
    return False


_PLUGINS = (
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "jax-cuda12-pjrt",
    "jax-cuda13-pjrt",
)
_CUDNN = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
_SECONDS = 10.0  # that nvidia-smi may take; a broken driver can hang


def warn_if_unused(*, report: bool = True) -> None:
    """Logs one warning a process if an NVIDIA GPU is here and JAX computes on the CPU.

    It names the reason and the fix. Starts JAX's devices. Does nothing without `report`
    or where JAX_PLATFORMS or an empty CUDA_VISIBLE_DEVICES selects the CPU.
    """
    asked = jax.config.jax_platforms  # pyright: ignore
    if not report or (asked and asked not in chosen):
        return
    if jax.default_backend() == "cpu":
        _warn_once()


@functools.cache
def _warn_once() -> None:
    sign = _sign()
    if sign is None:
        return
    jaxlib = importlib.metadata.version("jaxlib")
    why, fix = explain(_installed(_PLUGINS), jaxlib, _driver_cuda(), _failure)
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


def _installed(names: Sequence[str]) -> dict[str, str]:
    """Returns which of these distributions are installed, with their versions."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
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
