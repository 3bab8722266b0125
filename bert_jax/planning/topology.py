"""The chips that a run is planned for, by a name such as `v5e:16x16` or `h100:8`.

A TPU slice is named by its shape; a suffix `*2` means two slices joined by the network.
GPUs are a number, `h100:8`, or machines times GPUs, `h100:2x8`. `here` is this machine.

With libtpu, or JAX's CUDA plugin and ptxas, any machine can describe such devices and
compile programs for them.
"""

import dataclasses
import importlib.util
import math
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import errors
from bert_jax.foundation import devices as chips

HERE = ("here", "cpu")
_SHAPES = {2: "16x16", 3: "4x4x4"}  # examples, by the axes of the torus
# With these libtpu describes remote chips: it does not look for local ones or
# lock them, so several processes may do this at once.
_DESCRIBE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_PATTERN = re.compile(
    r"([a-z0-9-]+)(?::(\d{1,6}(?:x\d{1,6})*))?(?:\*(\d{1,6}))?", re.ASCII
)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind.

    Attributes:
      name: as the user wrote it.
      chip: the specification of one chip.
      shape: the shape of a TPU slice; of GPUs, machines and the GPUs of each; () for
        chips that are only counted.
      num_slices: the number of TPU slices, which the network joins.
      num_chips: the number of chips in all slices.
      measured: whether peak and bandwidth were measured here because the chip table
        has no such chip.
    """

    name: str
    chip: chips.Chip
    shape: tuple[int, ...]
    num_slices: int
    num_chips: int
    measured: bool = False

    @property
    def compiles(self) -> bool:
        """Whether a program for these chips can be compiled on this machine."""
        described = self.chip.cores is not None and self.shape and has_cuda_compiler()
        return self.chip.is_tpu or self.name in HERE or bool(described)

    @property
    def capability(self) -> str:
        """The compute capability of NVIDIA GPUs, or ""."""
        if self.name in HERE:
            return str(getattr(_here(self.name)[0], "compute_capability", ""))
        return self.chip.capability

    @property
    def linked(self) -> int:
        """The chips that fast links join: those of one slice or one GPU machine."""
        if self.chip.cores is not None and self.shape:
            return self.shape[-1]
        return min(self.chip.most_linked, self.num_chips // self.num_slices)

    @property
    def platform(self) -> str:
        """JAX's name of the platform."""
        if self.chip.is_tpu:
            return "tpu"
        if self.name in HERE:
            return _here(self.name)[0].platform
        return "gpu"


def parse(text: str) -> Topology:
    """Returns the chips with this name; measures local ones not in the chip table.

    Raises:
      InputError: the name is not a topology.
    """
    if text in HERE:
        return _local(text)
    found = _PATTERN.fullmatch(text.strip())
    known = {chip.name: chip for chip in chips.CHIPS}
    if found is None or found[1] not in known:
        raise errors.InputError(f"unknown topology {text!r}: {_KNOWN}")
    chip, slices = known[found[1]], int(found[3] or 1)
    shape = tuple(map(int, (found[2] or "1").split("x")))
    if chip.is_tpu:
        _check_slice(text, chip, shape, slices)
        return Topology(text, chip, shape, slices, slices * math.prod(shape))
    number = math.prod(shape)
    if len(shape) == 1 and number:
        shape = _machines(number, chip.most_linked)
    if len(shape) != 2 or found[3] or not 1 <= number <= 65536:
        raise errors.InputError(
            f"topology {text!r}: GPUs are given by their number, as in {chip.name}:8, "
            f"or as machines and the GPUs of each, as in {chip.name}:2x8; {_KNOWN}"
        )
    if shape[1] > chip.most_linked:
        raise errors.InputError(
            f"topology {text!r} has {shape[1]} GPUs in a machine, but links join at "
            f"most {chip.most_linked}, as in {chip.name}:2x{chip.most_linked}"
        )
    return Topology(text, chip, shape, 1, number)


def _machines(number: int, most: int) -> tuple[int, int]:
    """Returns the fewest equal machines for GPUs, and how many each has.

    >>> _machines(6, 8), _machines(64, 8), _machines(12, 8)
    ((1, 6), (8, 8), (2, 6))
    """
    each = max(n for n in range(1, most + 1) if number % n == 0)
    return number // each, each


def _examples() -> str:
    tpus = [chip for chip in chips.CHIPS if chip.is_tpu]
    slices = ", ".join(f"{chip.name}:{_SHAPES[chip.axes]}" for chip in tpus)
    gpus = ", ".join(chip.name for chip in chips.CHIPS if not chip.is_tpu)
    return (
        f"expected a TPU slice ({slices}; v5e:16x16*2 for two slices), GPUs ({gpus}; "
        "h100:8 for eight, h100:2x8 for two machines), cpu, or here (this machine)"
    )


_KNOWN = _examples()


def _check_slice(
    text: str, chip: chips.Chip, shape: tuple[int, ...], slices: int
) -> None:
    if len(shape) != chip.axes or not all(shape) or not 1 <= slices <= 256:
        sizes = "x".join(["4"] * chip.axes)
        raise errors.InputError(
            f"topology {text!r} is not a slice of {chip.name}: its shape must have "
            f"{chip.axes} sizes, as in {chip.name}:{sizes}, or {chip.name}:{sizes}*2 "
            "for two slices"
        )
    if math.prod(shape) > chip.most_linked:
        raise errors.InputError(
            f"topology {text!r} has {math.prod(shape)} chips, but a slice of "
            f"{chip.name} has at most {chip.most_linked}: join slices, as in "
            f"{chip.name}:{_SHAPES[chip.axes]}*2"
        )


def devices(topology: Topology) -> Sequence[Any]:
    """Returns descriptions of the chips, for which programs can be compiled.

    Raises:
      InputError: libtpu or the CUDA plugin is not installed, or rejects the chips.
    """
    if topology.name in HERE:
        return _here(topology.name)
    return _tpus(topology) if topology.chip.is_tpu else _gpus(topology)


def _tpus(topology: Topology) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise errors.missing_extra("libtpu", "tpu")
    for name, value in _DESCRIBE_ONLY.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}",
            **_options(topology),
        ).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise errors.InputError(
            f"libtpu rejects topology {topology.name!r}: {reason}"
        ) from None


def _options(topology: Topology) -> dict[str, Any]:
    """Returns libtpu's options: one device per chip, host bounds, number of slices.

    Slices with fewer chips than the 2 x 2 of a machine are their own machines.
    """
    options: dict[str, Any] = {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    if math.prod(topology.shape) < 4 or 1 in topology.shape[:2]:
        options["chips_per_host_bounds"] = (*topology.shape, 1, 1)[:3]
    if topology.num_slices > 1:
        options["num_slices"] = topology.num_slices
    return options


CUDNN_VERSION = (9, 10, 0)  # of the described GPUs
_CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Of NVIDIA GPUs, by compute capability: bytes of shared memory of a multiprocessor and
# how many one block may have, float32 lanes of a multiprocessor, bytes of L2 cache, and
# the set of instructions (CUDA C++ Programming Guide, "Technical Specifications per
# Compute Capability"; NVIDIA's white papers on the architectures of A100 and H100).
_ARCHITECTURES = {
    "8.0": (164 << 10, 163 << 10, 64, 40 << 20, "NONE"),
    "9.0": (228 << 10, 227 << 10, 128, 50 << 20, "ACCELERATED_FEATURES"),
}


def has_cuda_compiler() -> bool:
    """Returns whether JAX has a CUDA plugin that compiles without a GPU, since 0.10."""
    found = any(importlib.util.find_spec(name) is not None for name in _CUDA_PLUGINS)
    return found and jax.__version_info__ >= (0, 10)


def _gpus(topology: Topology) -> Sequence[Any]:
    if not has_cuda_compiler():
        raise errors.missing_extra("jax_cuda13_plugin", "gpu-plan")
    from jax.experimental import topologies

    machines, each = topology.shape
    try:
        return topologies.get_topology_desc(
            platform="cuda",
            topology=f"1x{machines}x{each}",
            target_config=target_config(topology.chip),
        ).devices
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise errors.InputError(
            f"JAX's CUDA plugin rejects topology {topology.name!r}: {reason}"
        ) from None


def target_config(chip: chips.Chip) -> str:
    """Returns an NVIDIA GPU as XLA's `GpuTargetConfigProto` in text format."""
    cores = chip.cores
    assert cores is not None, chip.name
    shared, most_shared, lanes, cache, features = _ARCHITECTURES[cores.capability]
    major, minor = cores.capability.split(".")
    values = {
        "core_count": cores.count,
        "clock_rate_ghz": cores.gigahertz,
        "fpus_per_core": lanes,
        "device_memory_size": int(chip.total_bytes),
        "memory_bandwidth": int(chip.memory_bandwidth),
        "l2_cache_size": cache,
        "shared_memory_per_core": shared,
        "shared_memory_per_block_optin": most_shared,
        # The same in all of them.
        "shared_memory_per_block": 48 << 10,
        "registers_per_core_limit": 1 << 16,
        "registers_per_block_limit": 1 << 16,
        "threads_per_core_limit": 2048,
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "block_dim_limit_x": (1 << 31) - 1,
        "block_dim_limit_y": (1 << 16) - 1,
        "block_dim_limit_z": (1 << 16) - 1,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
    }
    listed = "\n".join(f"  {name}: {value}" for name, value in values.items())
    cudnn = dict(zip(("major", "minor", "patch"), CUDNN_VERSION, strict=True))
    version = " ".join(f"{name}: {number}" for name, number in cudnn.items())
    return (
        f"gpu_device_info {{\n{listed}\n  cuda_compute_capability {{ major: {major} "
        f"minor: {minor} feature_extension: {features} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ {version} }}\n'
        f'device_description_str: "NVIDIA {chip.device_kinds[0]}"\n'
    )


def _here(name: str) -> Sequence[Any]:
    try:
        return jax.devices("cpu") if name == "cpu" else jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise errors.InputError(
            f"JAX found no devices for topology {name!r}: {reason}"
        ) from None


def _local(name: str) -> Topology:
    """Returns this machine, from the chip table or measured."""
    found = _here(name)
    chip = chips.of_kind(found[0].device_kind)
    if chip is not None:
        return Topology(name, chip, (), 1, len(found))
    return Topology(name, _measured(found), (), 1, len(found), measured=True)


def _measured(found: Sequence[Any]) -> chips.Chip:
    """Returns a chip with the measured speed of one of these devices.

    Several devices of one processor share its speed and memory.
    """
    size = 1024
    matrix = jax.device_put(jnp.ones((size, size), jnp.float32), found[0])
    vector = jax.device_put(jnp.ones((1 << 25,), jnp.float32), found[0])
    flops = 2 * size**3 / _seconds(lambda x: x @ x, matrix) / len(found)
    bandwidth = 2 * vector.nbytes / _seconds(lambda x: x + 1, vector) / len(found)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = pages / len(found)
    return chips.Chip(
        found[0].device_kind,
        (found[0].device_kind,),
        flops,
        memory,
        bandwidth,
        bandwidth / 2,  # one device writes and another reads in the same memory
        bandwidth / 2,
        len(found),
        None,
    )


def _seconds(function: Any, argument: jax.Array) -> float:
    """Returns the shortest of five run times of a jitted function, after warm-up."""
    jitted = jax.jit(function)
    jitted(argument).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jitted(argument).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)
