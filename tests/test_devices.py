import pytest

from bert_jax.foundation import devices


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
    assert devices.peak_flops(device_kind) == teraflops * 1e12


@pytest.mark.parametrize("device_kind", ["cpu", "NVIDIA GeForce RTX 4090", "TPU v2"])
def test_unknown_chips_have_no_peak(device_kind):
    assert devices.peak_flops(device_kind) is None


def test_v5e_as_google_states_it():
    chip = devices.of_kind("TPU v5 lite")
    assert chip is not None and chip.is_tpu and chip.axes == 2
    assert chip.memory_bandwidth == 819e9
    assert chip.interconnect == 200e9  # 400 GB/s both ways
    assert chip.most_linked == 256
    assert round(chip.memory_bytes / 2**30, 2) == 15.75


def test_a_gpu_leaves_a_quarter_of_its_memory():
    chip = devices.of_kind("NVIDIA A100-SXM4-80GB")
    assert chip is not None and not chip.is_tpu
    assert chip.memory_bytes == 60e9


def test_names_are_unique_and_numbers_are_possible():
    names = [chip.name for chip in devices.CHIPS]
    assert len(set(names)) == len(names)
    for chip in devices.CHIPS:
        # A FLOP a byte: between those of a first and of a last generation.
        assert 100 < chip.peak_flops / chip.memory_bandwidth < 700
        assert chip.network < chip.interconnect < chip.memory_bandwidth
