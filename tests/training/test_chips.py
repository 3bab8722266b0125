import pytest

from bert_jax.training import chips


@pytest.mark.parametrize(
    ("device_kind", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
    ],
)
def test_known_chips(device_kind, teraflops):
    assert chips.peak_flops(device_kind) == teraflops * 1e12


@pytest.mark.parametrize("device_kind", ["cpu", "NVIDIA GeForce RTX 4090", "TPU v2"])
def test_unknown_chips_have_no_peak(device_kind):
    assert chips.peak_flops(device_kind) is None
