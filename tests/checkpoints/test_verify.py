"""Two sides of a model: equal ones pass, and a wrong weight is found where it acts."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest

from bert_jax import checkpoints
from bert_jax.checkpoints import (
    huggingface,
    mapping,
    native,
    sentence_encoder,
    tensorflow1,
    tensors,
    verify,
    weights,
)
from bert_jax.model import config

PRETRAINING = ("encoder", "pooler", "mlm_head", "nsp_head")
OF = {
    "distilbert": {"model_type": "distilbert", "type_vocab_size": 0},
    "roberta": {"model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1},
    "albert": {"model_type": "albert", "num_hidden_groups": 1, "embedding_size": 10},
    "electra": {"model_type": "electra", "embedding_size": 10},
}
LAYERS = ["embeddings", "layer 1", "layer 2", "layer 3"]


def random_weights(parts=PRETRAINING, labels=(), spread=0.2, **changes):
    """Returns weights of odd sizes that are all different."""
    sizes = {
        "vocab_size": 61,
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 50,
        "max_position_embeddings": 23,
    }
    bert = config.BertConfig(**sizes | changes)
    rng = np.random.default_rng(7)
    arrays = {
        path: (rng.normal(0, spread, shape) + path.endswith("scale")).astype(np.float32)
        for path, shape in mapping.parameter_shapes(bert, frozenset(parts), 5).items()
    }
    return weights.Weights(bert, mapping.unflatten(arrays), labels)


def folder_of(given, tokenizer=None):
    """Returns weights as a folder that was read."""
    report = weights.Report("made up", {}, ())
    length, pooling = given.config.max_length, sentence_encoder.Pooling()
    return checkpoints.LoadedModel(
        "bert_jax", given, tokenizer, report, length, pooling
    )


def written(given, path, kind="huggingface", dtype="float32"):
    path.mkdir()
    if kind == "tensorflow1":
        tensorflow1.write(path, given)
    else:
        writer = {"huggingface": huggingface, "bert_jax": native}[kind]
        writer.write(path, given, dtype=dtype)
    return path


def change_file(path, change):
    """Writes model.safetensors again after `change` has worked on its arrays."""
    arrays = tensors.read(path).arrays
    change(arrays)
    tensors.write_safetensors(path / "model.safetensors", arrays)


PAIR_HEADS = ["nsp_logits", "mlm_logits"]
MODELS = [
    (PRETRAINING, {}, PAIR_HEADS),
    (("encoder", "pooler"), {"hidden_act": "gelu_new"}, ["pooled_output"]),
    (("encoder", "pooler", "multiple_choice"), {}, ["logits"]),
    (("encoder", "tagger"), OF["distilbert"], ["logits"]),
    (("encoder", "span"), OF["roberta"], ["logits"]),
    (PRETRAINING, OF["albert"], PAIR_HEADS),
    (("encoder", "rtd_head"), OF["electra"], ["rtd_logits"]),
]


@pytest.mark.parametrize(("parts", "changes", "heads"), MODELS)
def test_what_transformers_computes_from_our_folder_is_what_we_compute(
    parts, changes, heads, tmp_path
):
    pytest.importorskip("transformers")
    given = random_weights(parts, tuple("abcde"), **changes)
    if "tagger" not in parts:
        given = dataclasses.replace(given, labels=())
    other = written(given, tmp_path / "other")
    found = verify.verify(folder_of(given), other)
    assert [x.name for x in found.layers] == LAYERS + heads
    assert found.passed and found.bound == 1e-4
    assert found.worst.absolute < 1e-5 < found.worst.largest
    assert found.parameters.endswith("equal bit for bit")


@pytest.mark.parametrize(
    ("parts", "act", "heads"),
    [
        (PRETRAINING, "gelu", ["pooled_output", "nsp_logits", "mlm_logits"]),
        (("encoder", "pooler", "classifier"), "gelu_new", ["pooled_output", "logits"]),
        (("encoder", "pooler", "multiple_choice"), "relu", ["pooled_output", "logits"]),
        (("encoder", "tagger"), "tanh", ["logits"]),
        (("encoder", "span"), "gelu", ["logits"]),
    ],
)
def test_plain_tensorflow_computes_what_we_compute(parts, act, heads, tmp_path):
    pytest.importorskip("tensorflow")
    given = random_weights(parts, hidden_act=act, layer_norm_eps=1e-5)
    other = written(given, tmp_path / "other", "tensorflow1")
    found = verify.verify(folder_of(given), other)
    assert [x.name for x in found.layers] == LAYERS + heads
    assert found.worst.absolute < 1e-5 < found.worst.largest
    assert found.passed and not found.notes
    assert found.other.startswith("TensorFlow 2")


def test_our_own_format_is_compared_too(tmp_path):
    given = random_weights(("encoder", "pooler", "classifier"), labels=tuple("abcde"))
    other = written(given, tmp_path / "other", "bert_jax")
    found = verify.verify(folder_of(given), other)
    assert [x.absolute for x in found.layers] == [0.0] * 6
    assert found.passed
    renamed = dataclasses.replace(given, labels=tuple("abcdf"))
    found = verify.verify(folder_of(renamed), other)
    assert not found.passed and "'f'" in found.problems[0]


def swap_query_and_key(arrays):
    query, key = (
        f"bert.encoder.layer.1.attention.self.{name}.weight"
        for name in ("query", "key")
    )
    arrays[query], arrays[key] = arrays[key], arrays[query]


def transpose_output(arrays):
    name = "bert.encoder.layer.2.attention.output.dense.weight"
    arrays[name] = arrays[name].T


def shift_table(arrays):
    name = "bert.embeddings.word_embeddings.weight"
    arrays[name] = np.roll(arrays[name], 1, axis=0)


def negate_last_bias(arrays):
    arrays["cls.seq_relationship.bias"] *= -1


@pytest.mark.parametrize(
    ("change", "first", "path"),
    [
        (swap_query_and_key, "layer 2", "encoder/layers/attention/key/kernel"),
        (transpose_output, "layer 3", "encoder/layers/attention/output/kernel"),
        (shift_table, "embeddings", "encoder/embeddings/word_embeddings/embedding"),
        (negate_last_bias, "nsp_logits", "nsp_head/dense/bias"),
    ],
)
def test_a_wrong_weight_is_found_at_the_layer_where_it_acts(
    change, first, path, tmp_path
):
    pytest.importorskip("transformers")
    given = random_weights()
    other = written(given, tmp_path / "other")
    change_file(other, change)
    found = verify.verify(folder_of(given), other)
    assert not found.passed
    assert found.first_differing.name == first
    assert found.worst.relative > 0.05
    assert path in found.problems[0]
    assert found.table().splitlines()[-1] == (
        f"FAILED: the first layer that differs is {first} (1e-04 allowed, absolute or "
        "relative)"
    )


def test_another_number_of_heads_is_found(tmp_path):
    given = random_weights(("encoder", "pooler"))
    other = written(given, tmp_path / "other", "bert_jax")
    tree = json.loads((other / "model.json").read_text())
    tree["model"]["num_attention_heads"] = 4
    tree["model"]["hidden_act"] = "relu"
    (other / "model.json").write_text(json.dumps(tree))
    found = verify.verify(folder_of(given), other)
    assert found.problems == ("hidden_act is gelu on one side and relu on the other",)
    assert found.first_differing.name == "layer 1"
    assert found.layers[0].absolute == 0.0


def test_bfloat16_has_a_looser_bound_and_equal_parameters(tmp_path):
    pytest.importorskip("transformers")
    given = random_weights(spread=0.1)
    other = written(given, tmp_path / "other", dtype="bfloat16")
    found = verify.verify(folder_of(given), other)
    assert found.passed and found.bound == 2e-2
    assert found.worst.relative > 1e-4
    assert found.parameters.endswith(
        "arrays, equal bit for bit once rounded to bfloat16"
    )
    assert "rounded to 16 bits" in found.table().splitlines()[-1]

    mine = checkpoints.open(other).read(weights.Choice(allow_missing=("tokenizer",)))
    again = verify.verify(mine, other)
    assert again.passed and again.bound == 1e-4


def test_without_the_library_only_parameters_are_compared(tmp_path, monkeypatch):
    pytest.importorskip("torch")  # the first that would be missed
    monkeypatch.setitem(sys.modules, "transformers", None)
    given = random_weights()
    other = written(given, tmp_path / "other")
    found = verify.verify(folder_of(given), other)
    assert found.passed and found.layers == () and found.worst is None
    assert found.table() == (
        "no outputs were compared: transformers is not installed. Install it with: "
        'pip install "bert_jax[torch]"\n'
        "parameters: 33,513 numbers in 30 arrays, equal bit for bit\n"
        "passed: the parameters are equal"
    )
    change_file(other, negate_last_bias)
    found = verify.verify(folder_of(given), other)
    assert not found.passed
    assert found.table().splitlines()[1:] == [
        "parameters: 33,513 numbers in 30 arrays",
        "problem: 1 arrays of parameters differ: nsp_head/dense/bias",
        "FAILED: see the problems above",
    ]


def test_what_one_side_lacks_is_said(tmp_path):
    pytest.importorskip("transformers")
    given = random_weights()
    other = written(given, tmp_path / "other")

    def drop(arrays):
        for name in [n for n in arrays if "seq_relationship" in n]:
            del arrays[name]

    change_file(other, drop)
    choice = weights.Choice(allow_missing=("nsp_head", "tokenizer"))
    mine = checkpoints.open(other).read(choice)
    found = verify.verify(mine, other, choice)
    assert found.passed
    assert found.notes == (
        "transformers lacks and initializes at random: cls.seq_relationship.bias, "
        "cls.seq_relationship.weight",
        "only one side returns nsp_logits, pooled_output",
    )
    found = verify.verify(folder_of(given), other, choice)
    assert found.problems == (
        "only one side has nsp_head/dense/bias, nsp_head/dense/kernel",
    )
    assert found.first_differing.name == "nsp_logits"


@pytest.mark.parametrize("classes", [None, ["SomebodysModel"]])
def test_without_a_known_class_the_one_with_these_parts_is_run(classes, tmp_path):
    pytest.importorskip("transformers")
    given = random_weights(("encoder", "mlm_head"))
    other = written(given, tmp_path / "other")
    tree = json.loads((other / "config.json").read_text())
    tree["architectures"] = classes
    (other / "config.json").write_text(json.dumps(tree))
    found = verify.verify(folder_of(given), other)
    assert [x.name for x in found.layers] == [*LAYERS, "mlm_logits"]
    assert found.passed and ", BertForMaskedLM: " in found.other


def test_a_folder_that_the_library_refuses_fails(tmp_path, monkeypatch):
    pytest.importorskip("transformers")

    def refuse(*_):
        raise OSError("no such shape\nwith much to read")

    monkeypatch.setattr(verify, "transformers_outputs", refuse)
    given = random_weights()
    other = written(given, tmp_path / "other")
    found = verify.verify(folder_of(given), other)
    assert not found.passed and found.layers == ()
    assert found.problems == (
        "the library of this format cannot run it (OSError: no such shape)",
    )


def test_numbers_that_are_not_finite_fail(tmp_path):
    given = random_weights(("encoder", "pooler"))
    other = written(given, tmp_path / "other", "bert_jax")
    given.params["pooler"]["dense"]["bias"][3] = np.nan
    found = verify.verify(folder_of(given), other)
    assert found.first_differing.name == found.worst.name == "pooled_output"
    assert found.problems == (
        "1 arrays of parameters differ: pooler/dense/bias",
        "not all numbers are finite in pooler/dense/bias",
    )


def test_transformers_is_quiet_and_gets_its_settings_back(tmp_path, capfd):
    transformers = pytest.importorskip("transformers")
    logging = transformers.utils.logging
    at_first = logging.get_verbosity()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    given = random_weights(("encoder", "mlm_head"))
    other = written(given, tmp_path / "other")
    capfd.readouterr()
    verify.verify(folder_of(given), other)
    assert capfd.readouterr() == ("", "")
    level = logging.get_verbosity()
    logging.set_verbosity(at_first)
    assert level == logging.INFO and logging.is_progress_bar_enabled()


def test_the_table_has_aligned_columns_and_a_verdict():
    made = verify.Verification(
        "transformers 9.9, BertModel: 9 rows of at most 64 tokens",
        "1,234 numbers in 5 arrays, equal bit for bit",
        (
            verify.LayerDifference("embeddings", 2.5, 0.0),
            verify.LayerDifference("layer 1", 12.25, 0.0000049),
            verify.LayerDifference("pooled_output", 0.9, 0.45),
        ),
        notes=("only one side returns logits",),
    )
    assert made.table() == (
        "transformers 9.9, BertModel: 9 rows of at most 64 tokens\n"
        "parameters: 1,234 numbers in 5 arrays, equal bit for bit\n"
        "layer          largest value  absolute  relative\n"
        "embeddings            2.5000   0.0e+00   0.0e+00\n"
        "layer 1              12.2500   4.9e-06   4.0e-07\n"
        "pooled_output         0.9000   4.5e-01   5.0e-01\n"
        "note: only one side returns logits\n"
        "FAILED: the first layer that differs is pooled_output "
        "(1e-04 allowed, absolute or relative)"
    )
    good = dataclasses.replace(made, layers=made.layers[:2])
    assert good.passed
    assert good.table().splitlines()[-1] == (
        "passed: the worst layer is layer 1 (1e-04 allowed, absolute or relative)"
    )


@pytest.mark.parametrize(
    ("largest", "absolute", "passes"),
    [
        (50.0, 0.004, True),  # 8e-5 of the largest
        (50.0, 0.006, False),
        (1e-3, 9e-5, True),  # small in itself
        (0.0, 0.0, True),
        (0.0, 2e-4, False),
        (1.0, math.nan, False),
        (math.nan, math.inf, False),
    ],
)
def test_one_of_two_bounds_is_enough(largest, absolute, passes):
    assert verify.LayerDifference("x", largest, absolute).passes(1e-4) is passes
