"""The chips that models are trained on: a table of what they compute, hold and move.

Peaks, memories and bandwidths are from the vendors' data sheets and Google's page of
each TPU (docs.cloud.google.com/tpu/docs). The memory that a program may use is, on a
TPU, what its compiler reports when it refuses more; on a GPU JAX takes three quarters
unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.
"""

import dataclasses

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
