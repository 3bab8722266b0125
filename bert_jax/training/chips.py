"""The one table of chips: what they can do, hold and move, and what an hour costs.

Peaks, memories and bandwidths are those of the makers' data sheets and of Google's
pages of each TPU (docs.cloud.google.com/tpu/docs). What a program may take of a TPU's
memory is what its compiler says when it refuses more; of a GPU's, JAX takes three
quarters unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
"""

import dataclasses

PRICES = "Google Cloud's list prices, on demand, in the United States, 2025"

_GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a kind of chip can do.

    Attributes:
      name: as it is written in a topology.
      device_kinds: parts of jax's `device_kind` that tell it.
      peak_flops: dense bfloat16 FLOP/s.
      memory_bytes: that a program may take.
      memory_bandwidth: bytes a second, read and written together.
      interconnect: bytes a second that leave a chip for its neighbours; as many come.
      network: bytes a second that leave a chip for those it has no link to.
      most_linked: chips that links join at most: a slice, or a machine with GPUs.
      dollars: of a chip-hour (see `PRICES`); None where no price is listed.
      axes: of the torus of a TPU slice; 0 for what is no TPU.
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

    @property
    def is_tpu(self) -> bool:
        """Whether a program for it can be compiled on any machine."""
        return self.axes > 0


def _gpu(
    name: str,
    kind: str,
    teraflops: int | float,
    gigabytes: int | float,
    bandwidth: int | float,
    links: int | float,
    network: int | float,
    dollars: int | float | None,
) -> Chip:
    """Returns a GPU; `bandwidth` and `links`, both ways together, in GB/s."""
    return Chip(
        name,
        (kind,),
        teraflops * 1e12,
        0.75 * gigabytes * 1e9,
        bandwidth * 1e9,
        links / 2 * 1e9,
        network * 1e9,
        8,
        dollars,
    )


def _tpu(
    name: str,
    kinds: tuple[str, ...],
    teraflops: int | float,
    gibibytes: int | float,
    bandwidth: int | float,
    links: int | float,
    network: int | float,
    most_linked: int,
    dollars: int | float,
    axes: int,
) -> Chip:
    """Returns a TPU; `bandwidth` and `links`, both ways together, in GB/s."""
    return Chip(
        name,
        kinds,
        teraflops * 1e12,
        gibibytes * _GIB,
        bandwidth * 1e9,
        links / 2 * 1e9,
        network * 1e9,
        most_linked,
        dollars,
        axes,
    )


# The first whose part fits a `device_kind` counts: a v5p calls itself "TPU v5".
CHIPS = (
    _gpu("h100-pcie", "H100 PCIe", 756, 80, 2039, 128, 25, None),
    _gpu("h100-nvl", "H100 NVL", 835, 94, 3938, 600, 25, None),
    _gpu("h100", "H100", 989, 80, 3350, 900, 50, 11.06),
    _gpu("h200", "H200", 989, 141, 4800, 900, 50, 10.60),
    _gpu("a100-40gb", "A100-SXM4-40GB", 312, 40, 1555, 600, 12.5, 3.67),
    _gpu("a100", "A100", 312, 80, 2039, 600, 25, 5.07),
    _tpu("v4", ("TPU v4",), 275, 30.75, 1228, 600, 6.25, 4096, 3.22, 3),
    _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 197, 15.75, 819, 400, 3.125, 256, 1.20, 2),
    _tpu("v5p", ("TPU v5",), 459, 95.74, 2765, 1200, 6.25, 6144, 4.20, 3),
    _tpu("v6e", ("TPU v6",), 918, 31.25, 1638, 800, 12.5, 256, 2.70, 2),
)


def of_kind(device_kind: str) -> Chip | None:
    """Returns the chip of jax's `device_kind`, or None if the table lacks it.

    >>> of_kind("TPU v5 lite").name
    'v5e'
    """
    for chip in CHIPS:
        if any(part in device_kind for part in chip.device_kinds):
            return chip
    return None


def peak_flops(device_kind: str) -> float | None:
    """Returns the bfloat16 peak of a kind of device, or None where it is not known.

    >>> peak_flops("NVIDIA H100 80GB HBM3") / 1e12
    989.0
    >>> peak_flops("cpu") is None
    True
    """
    chip = of_kind(device_kind)
    return None if chip is None else chip.peak_flops
