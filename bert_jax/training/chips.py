"""The peak of the chips on which utilisation is reported."""

# Part of jax's `device_kind` -> dense bfloat16 peak in FLOP/s, by the makers' data
# sheets. The first part that fits counts; a v5p calls itself "TPU v5" or "TPU v5p".
_PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Returns the bfloat16 peak of a kind of device, or None where it is not known.

    >>> peak_flops("NVIDIA H100 80GB HBM3") / 1e12
    989.0
    >>> peak_flops("cpu") is None
    True
    """
    return next((peak for part, peak in _PEAKS if part in device_kind), None)
