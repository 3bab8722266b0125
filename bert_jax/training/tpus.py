"""Whether this machine has TPU chips, and libtpu kept quiet where it has none.

JAX loads libtpu (extra `tpu`) wherever it is installed. On a machine without TPUs that
fails, JAX takes another device, and libtpu has filled the log with its errors.
"""

import glob
import importlib.metadata
import importlib.util
import logging
import os
from pathlib import Path

import jax

_GOOGLE = "0x1ae0"  # also the vendor of the network cards and disks of Google's VMs
_DISKS_AND_NETWORKS = ("0x01", "0x02")  # classes of PCI devices
# Variables that name TPUs, here or elsewhere; TPU_LIBRARY_PATH is set by libtpu itself.
_SAY_SO = ("JAX_FORCE_TPU_INIT", "TPU_NAME", "TPU_WORKER_HOSTNAMES")

_log = logging.getLogger(__name__)
_reported: list[bool] = []
chosen: list[str] = []  # platforms that `leave_out` has set, which nobody asked for


def are_on_bus() -> bool:
    """Returns whether the kernel shows device files of TPU chips; starts no device."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def leave_out(*, report: bool = True) -> None:
    """Keeps JAX from loading libtpu where it is installed and there are no TPUs.

    Must be called before JAX starts its devices. Does nothing where JAX_PLATFORMS is
    set, TPUs are here or named by the environment, or JAX has plugins of other makers
    than NVIDIA. The first call logs a warning.

    Args:
      report: whether to log it; one of several processes does.
    """
    if jax.config.jax_platforms or not _is_installed():  # pyright: ignore
        return
    if are_on_bus() or any(name in os.environ for name in _SAY_SO) or _is_in_pci():
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
            "and JAX computes on the %s. Set JAX_PLATFORMS=tpu to load it all the same",
            "GPU" if has_gpu else "CPU",
        )


def _is_installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


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
