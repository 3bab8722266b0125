import importlib.util
import re

import pytest

from bert_jax import errors
from bert_jax.foundation import devices as chips
from bert_jax.planning import topology

GPUS = [chip for chip in chips.CHIPS if chip.cores]


@pytest.mark.parametrize(
    ("name", "chip", "number", "linked"),
    [
        ("v5e:16x16", "v5e", 256, 256),
        ("v5e:1x1", "v5e", 1, 1),
        ("v5p:4x4x4", "v5p", 64, 64),
        ("v5e:16x16*2", "v5e", 512, 256),
        ("h100", "h100", 1, 1),
        ("a100:8", "a100", 8, 8),
        ("h200:64", "h200", 64, 8),
        ("h100:2x8", "h100", 16, 8),
        ("h100:2x2", "h100", 4, 2),
        ("a100:12", "a100", 12, 6),
        ("a100-40gb:4", "a100-40gb", 4, 4),
    ],
)
def test_names_of_chips(monkeypatch, name, chip, number, linked):
    monkeypatch.setattr(topology, "has_cuda_compiler", lambda: True)
    parsed = topology.parse(name)
    assert (parsed.chip.name, parsed.num_chips) == (chip, number)
    assert parsed.linked == linked
    assert parsed.compiles
    assert parsed.platform == ("tpu" if chip.startswith("v") else "gpu")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("v9:2x2", "'v9:2x2'"),
        ("", "''"),
        ("v5e-16", "'v5e-16'"),
        ("v5e:", "'v5e:'"),
        ("v5e", "2 sizes, as in v5e:4x4"),
        ("v5e:4x4x4", "2 sizes"),
        ("v5p:4x4", "3 sizes, as in v5p:4x4x4"),
        ("v5e:0x4", "slice of v5e"),
        ("v5e:4x4*0", "slice of v5e"),
        ("v5e:32x32", "v5e:16x16*2"),
        ("h100:2x2x2", "as in h100:8"),
        ("h100:2x0", "as in h100:2x8"),
        ("h100:1x16", "at most 8, as in h100:2x8"),
        ("h100:0", "as in h100:8"),
        ("h100:8*2", "as in h100:8"),
    ],
)
def test_an_invalid_topology_is_named_with_an_example(name, part):
    with pytest.raises(errors.InputError) as caught:
        topology.parse(name)
    assert part in str(caught.value)


def test_chips_of_this_machine_that_are_not_in_the_table_are_measured(monkeypatch):
    monkeypatch.setattr(topology, "_seconds", lambda function, argument: 0.5)
    parsed = topology.parse("here")
    assert parsed.num_chips == 8 and parsed.measured and parsed.compiles
    assert parsed.platform == "cpu"
    assert parsed.chip.peak_flops == 2 * 1024**3 / 0.5 / 8
    assert parsed.chip.memory_bandwidth == 2 * 4 * 2**25 / 0.5 / 8
    assert parsed.chip.dollars is None
    assert len(topology.devices(parsed)) == 8


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.InputError, match=r"bert_jax\[tpu\]"):
        topology.devices(topology.parse("v5e:2x2"))


def test_gpus_are_compiled_for_only_with_the_extra(monkeypatch):
    monkeypatch.setattr(topology, "has_cuda_compiler", lambda: False)
    gpus = topology.parse("h100:8")
    assert not gpus.compiles
    with pytest.raises(errors.InputError, match=r"bert_jax\[gpu-plan\]"):
        topology.devices(gpus)


@pytest.mark.parametrize("chip", GPUS, ids=lambda x: x.name)
def test_the_description_of_a_gpu_is_that_of_the_table(chip):
    text = topology.target_config(chip)
    assert f"core_count: {chip.cores.count}\n" in text
    major, minor = chip.capability.split(".")
    assert f"{{ major: {major} minor: {minor} " in text
    assert chips.of_kind(text.split('"')[-2]) == chip
    found = re.search(r"device_memory_size: (\d+)", text)
    assert found is not None and int(found[1]) == chip.memory_bytes / 0.75
    assert text.count("{") == text.count("}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [("v5e:2x2", 4), ("v5e:1x1", 1), ("v4:2x2x1", 4), ("v5e:2x2*2", 8)],
)
def test_libtpu_describes_slices(name, number):
    pytest.importorskip("libtpu")
    assert len(topology.devices(topology.parse(name))) == number
    with pytest.raises(errors.InputError, match="v5e:3x5"):
        topology.devices(topology.parse("v5e:3x5"))
