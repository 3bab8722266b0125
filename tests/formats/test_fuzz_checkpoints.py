"""A little of what the fuzzer does at length: read as declared, or one InputError."""

import pytest


@pytest.mark.parametrize(
    "kind",
    ["safetensors", "safetensors_shards", "torch", "torch_legacy", "tensorflow1"],
)
def test_every_outcome_is_arrays_or_one_message(fuzzer, kind):
    if not fuzzer["installed"](kind):
        pytest.skip("the library of this kind is not installed")
    counts, failures = fuzzer["run"](kind, 100, seed=11)
    assert not failures
    assert counts["refused"] > 50
    assert counts["read"] > 0
    assert counts["read"] + counts["refused"] == 100


def test_the_fuzzer_sees_what_a_reader_must_not_do(fuzzer, monkeypatch, tmp_path):
    tensors = fuzzer["tensors"]

    def careless(path):
        (tmp_path / "escaped").write_text("x")
        return real(path)

    real = tensors.read
    monkeypatch.setattr(tensors, "read", careless)
    with pytest.raises(AssertionError):
        fuzzer["run"]("safetensors", 1, seed=1)
