"""ModernBERT's config.json, old and new, and which of its heads are read."""

import json
from pathlib import Path

import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import hf_config, huggingface, weights
from bert_jax.model import config

FAR, NEAR = "full_attention", "sliding_attention"
OLD = {
    "architectures": ["ModernBertForMaskedLM"],
    "model_type": "modernbert",
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 9,
    "max_position_embeddings": 7,
    "pad_token_id": 0,
    "norm_eps": 1e-6,
    "hidden_activation": "gelu",
    "global_attn_every_n_layers": 4,
    "local_attention": 6,
    "global_rope_theta": 300.0,
    "local_rope_theta": 20.0,
    "position_embedding_type": "absolute",
    "classifier_pooling": "mean",
}
NEW = {
    key: value
    for key, value in OLD.items()
    if key
    not in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
} | {
    "layer_types": [FAR, NEAR, NEAR, NEAR, FAR],
    "rope_parameters": {
        FAR: {"rope_type": "default", "rope_theta": 300.0},
        NEAR: {"rope_type": "default", "rope_theta": 20.0},
    },
}
BERT = config.BertConfig(
    vocab_size=30,
    hidden_size=12,
    num_hidden_layers=5,
    num_attention_heads=2,
    intermediate_size=9,
    max_position_embeddings=7,
    type_vocab_size=0,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=1e-6,
    model_type="modernbert",
    global_attn_every_n_layers=4,
    local_attention=6,
    global_rope_theta=300.0,
    local_rope_theta=20.0,
)


def _read(tmp_path, tree):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    return hf_config.read(path)


@pytest.mark.parametrize("tree", [OLD, NEW], ids=["old", "new"])
def test_both_kinds_of_files_are_one_model(tmp_path, tree):
    read = _read(tmp_path, tree)
    assert read.bert == BERT
    assert read.class_name == "ForMaskedLM"


def test_angles_of_near_layers_that_are_not_said_are_those_of_far_ones(tmp_path):
    read = _read(tmp_path, OLD | {"local_rope_theta": None})
    assert read.bert.local_rope_theta == 300.0


@pytest.mark.parametrize(
    ("kinds", "period"),
    [
        ([FAR] * 5, 1),
        ([FAR, NEAR, FAR, NEAR, FAR], 2),
        ([FAR, NEAR, NEAR, FAR, NEAR], 3),
        ([FAR, NEAR, NEAR, NEAR, NEAR], 5),
    ],
)
def test_the_period_of_the_kinds_of_layers(tmp_path, kinds, period):
    read = _read(tmp_path, NEW | {"layer_types": kinds})
    assert read.bert.global_attn_every_n_layers == period
    assert [FAR if read.bert.is_global(i) else NEAR for i in range(5)] == kinds


def test_a_period_beyond_the_last_layer_is_kept_as_it_is_said(tmp_path):
    tree = NEW | {"layer_types": [FAR, *[NEAR] * 4], "global_attn_every_n_layers": 9}
    assert _read(tmp_path, tree).bert.global_attn_every_n_layers == 9


SCALED = {"rope_type": "yarn", "rope_theta": 1.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_types": [NEAR, FAR, NEAR, NEAR, FAR]}, "layer_types is"),
        ({"layer_types": [FAR, NEAR, FAR, NEAR, NEAR]}, "layer_types is"),
        ({"layer_types": "all"}, "layer_types is 'all'"),
        ({"layer_types": 5}, "layer_types is 5"),
        ({"layer_types": [], "global_attn_every_n_layers": 3}, "layer_types is"),
        ({"rope_parameters": {FAR: SCALED}}, "only the rope_type 'default'"),
        ({"rope_parameters": {NEAR: 7}}, "rope_parameters of sliding_attention are 7"),
        ({"embedding_dropout": 0.1, "mlp_dropout": 0.2}, "only one share for both"),
        ({"decoder_bias": False}, "decoder_bias is False"),
        ({"classifier_bias": True}, "classifier_bias is True"),
        ({"classifier_activation": "relu"}, "classifier_activation is 'relu'"),
        ({"hidden_activation": "swish"}, "hidden_act is 'swish'"),
        ({"norm_bias": 1}, "model.norm_bias is 1: expected bool"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'; supported are"),
    ],
    ids=str,
)
def test_what_would_be_another_model_is_refused(tmp_path, change, words):
    with pytest.raises(errors.InputError) as caught:
        _read(tmp_path, NEW | change)
    assert words in str(caught.value)


def test_what_is_written_is_what_transformers_builds_and_ours_reads(tmp_path):
    transformers = pytest.importorskip("transformers")
    parts = frozenset({"encoder", "mlm_head"})
    made = hf_config.tree(weights.Described(BERT), parts, "float32")
    (tmp_path / "config.json").write_text(json.dumps(made))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.layer_types == [FAR, NEAR, NEAR, NEAR, FAR]
    thetas = [theirs.rope_parameters[kind]["rope_theta"] for kind in (FAR, NEAR)]
    assert (thetas, theirs.sliding_window, theirs.norm_eps) == ([300.0, 20.0], 3, 1e-6)
    assert (theirs.cls_token_id, theirs.sep_token_id, theirs.pad_token_id) == (
        None,
        None,
        0,
    )
    theirs.save_pretrained(tmp_path / "again")
    again = hf_config.read(tmp_path / "again" / "config.json")
    assert again.bert == BERT


def _folder(folder: Path, of_class: str) -> Path:
    """Writes an encoder with a classifier, and says that it is of another class."""
    sizes = {"num_attention_heads": 2, "type_vocab_size": 0, "num_hidden_layers": 5}
    given = small_weights.weights_of(
        "pooler", "classifier", labels=("a", "b"), model_type="modernbert", **sizes
    )
    huggingface.write(folder, given, dtype="float32")
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"architectures": [of_class]})
    )
    return folder


@pytest.mark.parametrize(
    ("of_class", "head"),
    [("TokenClassification", "tagger"), ("QuestionAnswering", "span")],
)
def test_a_head_of_tokens_has_the_layer_too_and_may_be_ignored(
    tmp_path, of_class, head
):
    folder = _folder(tmp_path, f"ModernBertFor{of_class}")
    read, report = huggingface.read(folder)
    assert read.parts == ("encoder", "head_transform", head)
    rows = {row.ours: row.theirs for row in report.rows}
    assert rows["head_transform/dense/kernel"] == "head.dense.weight"
    assert rows[f"{head}/dense/bias"] == "classifier.bias"
    for ignored in (("head_transform", head), ("head_transform",)):
        read, report = huggingface.read(folder, weights.Choice(ignore=ignored))
        assert read.parts == ("encoder",)


def test_a_classifier_of_the_mean_reads_no_pooler(tmp_path):
    folder = _folder(tmp_path, "ModernBertForSequenceClassification")
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    assert tree["classifier_pooling"] == "cls"
    path.write_text(json.dumps(tree | {"classifier_pooling": "mean"}))
    read, _ = huggingface.read(folder)
    assert read.parts == ("encoder", "head_transform", "classifier")
    (tmp_path / "again").mkdir()
    huggingface.write(tmp_path / "again", read, dtype="float32")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["classifier_pooling"] == "mean"
    assert again["architectures"] == ["ModernBertForSequenceClassification"]


def test_a_classifier_has_the_layer_that_the_mlm_head_would_have(tmp_path):
    folder = _folder(tmp_path, "ModernBertForSequenceClassification")
    read, report = huggingface.read(folder)
    assert read.parts == ("encoder", "pooler", "classifier")
    rows = {row.ours: row.theirs for row in report.rows}
    assert rows["pooler/dense/kernel"] == "head.dense.weight"
    norm = rows["encoder/layers/attention_layer_norm/scale"]
    assert norm == "model.layers.{1..4}.attn_norm.weight"
    changes = {row.ours: row.change for row in report.rows}
    fused = "encoder/layers/attention/query_key_value/kernel"
    assert changes[fused] == "transposed, stacked 5, cut into heads"
    gated = "encoder/layers/intermediate/kernel"
    assert changes[gated] == "transposed, stacked 5, cut into parts"


def test_a_head_of_tokens_cannot_be_written(tmp_path):
    sizes = {"num_attention_heads": 2, "type_vocab_size": 0}
    given = small_weights.weights_of("tagger", model_type="modernbert", **sizes)
    with pytest.raises(errors.InputError, match="no class of ModernBert with exactly"):
        huggingface.write(tmp_path, given, dtype="float32")
