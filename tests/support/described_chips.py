"""Chips of other machines, as the installed JAX describes them."""

import dataclasses

from jax.sharding import AbstractDevice


def tpu() -> AbstractDevice:
    """Returns a TPU v5e."""
    return _device("TPU v5 lite", 1, "tpu")


def gpu() -> AbstractDevice:
    """Returns an H100."""
    return _device("NVIDIA H100 80GB HBM3", 132, "gpu")


def cpu() -> AbstractDevice:
    """Returns a CPU."""
    return _device("cpu", None, "cpu")


def _device(kind: str, cores: int | None, platform: str) -> AbstractDevice:
    values = {"device_kind": kind, "num_cores": cores, "platform": platform}
    known = [field.name for field in dataclasses.fields(AbstractDevice)]
    return AbstractDevice(**{name: values[name] for name in known})
