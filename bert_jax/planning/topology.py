"""The chips that a run is planned for, by a name such as `v5e:16x16` or `a100:8`.

A TPU slice is named by its shape; a suffix `*2` means two slices joined by the network.
With libtpu, any machine can describe the devices of a TPU slice and compile programs
for them. `here` is this machine. GPUs are a count and a row of the chip table.
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
from bert_jax.training import devices as chips

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
      shape: the shape of a TPU slice; () for others.
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
        return self.chip.is_tpu or self.name in HERE

    @property
    def linked(self) -> int:
        """The chips that fast links join: those of one slice or one GPU machine."""
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
    if len(shape) > 1 or found[3] or not 1 <= number <= 65536:
        raise errors.InputError(
            f"topology {text!r}: GPUs are given by their number, as in {chip.name}:8; "
            f"{_KNOWN}"
        )
    return Topology(text, chip, (), 1, number)


def _examples() -> str:
    tpus = [chip for chip in chips.CHIPS if chip.is_tpu]
    slices = ", ".join(f"{chip.name}:{_SHAPES[chip.axes]}" for chip in tpus)
    gpus = ", ".join(chip.name for chip in chips.CHIPS if not chip.is_tpu)
    return (
        f"expected a TPU slice ({slices}; v5e:16x16*2 for two slices), GPUs ({gpus}; "
        "a100:8 for eight), cpu, or here (this machine)"
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
      InputError: libtpu is not installed, or refuses the shape.
    """
    if topology.name in HERE:
        return _here(topology.name)
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
