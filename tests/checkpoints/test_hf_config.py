"""config.json: what is read, what is refused, and what each model calls things."""

import json

import pytest

from bert_jax import errors
from bert_jax.checkpoints import hf_config, weights
from bert_jax.model import config

BERT = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 9,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-7,
    "use_cache": True,
}


def _read(tmp_path, tree):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    return hf_config.read(path)


def test_keys_become_fields_and_others_are_left_alone(tmp_path):
    read = _read(tmp_path, BERT)
    assert read.bert == config.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=9,
        max_position_embeddings=7,
        layer_norm_eps=1e-7,
    )
    assert (read.class_name, read.labels) == ("ForMaskedLM", ())


def test_an_old_file_says_its_kind_by_its_class_or_not_at_all(tmp_path):
    tree = BERT | {"architectures": ["RobertaForMaskedLM"]}
    del tree["model_type"]
    assert _read(tmp_path, tree).bert.model_type == "roberta"
    del tree["architectures"]
    assert _read(tmp_path, tree).bert.model_type == "bert"


def test_positions_of_roberta_begin_behind_the_padding(tmp_path):
    read = _read(tmp_path, BERT | {"model_type": "roberta", "architectures": None})
    assert (read.bert.position_offset, read.bert.max_length) == (2, 5)


@pytest.mark.parametrize(
    ("model_type", "key"),
    [("bert", "classifier_dropout"), ("roberta", "classifier_dropout")]
    + [("electra", "classifier_dropout"), ("albert", "classifier_dropout_prob")]
    + [("distilbert", "seq_classif_dropout")],
)
def test_the_head_has_a_dropout_and_a_problem_of_its_own(tmp_path, model_type, key):
    changes = {"type_vocab_size": 0} if model_type == "distilbert" else {}
    bert = config.BertConfig(30, 8, 2, 2, 9, model_type=model_type, **changes)
    parts = frozenset({"encoder", "pooler", "classifier"})
    given = weights.Described(bert, ("a", "b"), "multi_label_classification", 0.25)
    tree = hf_config.tree(given, parts, "float32")
    assert tree[key] == 0.25
    assert tree["problem_type"] == "multi_label_classification"
    read = _read(tmp_path, tree)
    assert (read.problem_type, read.head_dropout) == (tree["problem_type"], 0.25)
    plain = hf_config.tree(weights.Described(bert, ("a", "b")), parts, "float32")
    assert key not in plain and "problem_type" not in plain
    plain |= {"problem_type": None, key: None}
    read = _read(tmp_path, plain)
    assert (read.problem_type, read.head_dropout) == ("", None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"problem_type": "clustering"},
            "problem_type is 'clustering': use one of sin",
        ),
        ({"classifier_dropout": 1.0}, "classifier_dropout is 1.0: it must lie from 0"),
        ({"classifier_dropout": True}, "classifier_dropout is True: it must lie"),
        ({"classifier_dropout": "0.1"}, "classifier_dropout is '0.1': it must lie"),
        ({"classifier_dropout": -0.1}, "it must lie from 0 to below 1"),
    ],
)
def test_a_head_that_cannot_be_is_refused(tmp_path, changes, words):
    with pytest.raises(errors.InputError, match=words):
        _read(tmp_path, BERT | changes)


def test_distilbert_has_names_of_its_own(tmp_path):
    tree = {
        "model_type": "distilbert",
        "vocab_size": 30,
        "dim": 8,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 9,
        "activation": "gelu",
        "dropout": 0.3,
        "attention_dropout": 0.2,
        "max_position_embeddings": 7,
    }
    bert = _read(tmp_path, tree).bert
    assert (bert.hidden_size, bert.num_attention_heads, bert.type_vocab_size) == (
        8,
        4,
        0,
    )
    assert (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob) == (0.3, 0.2)
    written = hf_config.tree(weights.Described(bert), frozenset({"encoder"}), "float32")
    assert written["architectures"] == ["DistilBertModel"]
    assert {key: written[key] for key in tree} == tree


def test_albert_shares_its_layers(tmp_path):
    tree = BERT | {"model_type": "albert", "embedding_size": 4, "architectures": None}
    bert = _read(tmp_path, tree).bert
    assert (bert.num_groups, bert.embedding_width) == (1, 4)


WRONG = [
    ({"model_type": "t5"}, "model_type is 't5'"),
    ({"model_type": ["bert"]}, "model_type is"),
    ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
    ({"is_decoder": True}, "is_decoder is True"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"hidden_act": "swish"}, "hidden_act is 'swish'"),
    ({"hidden_act": ["gelu"]}, "hidden_act is"),
    ({"hidden_size": "8"}, "hidden_size is '8'"),
    ({"hidden_size": 9}, "not a multiple"),
    ({"vocab_size": -1}, "vocab_size is -1"),
    ({"architectures": "BertModel"}, "architectures is"),
    ({"id2label": ["a"]}, "id2label must be an object"),
    ({"id2label": {"0": "a", "2": "b"}}, "should be 0 to 1"),
    ({"id2label": {"0": None}}, "id2label must be an object"),
    ({"id2label": {"first": "a"}}, "should be 0 to 0"),
    ({"id2label": {"0": "a", "00": "b"}}, "should be 0 to 1"),
    ({"num_labels": "3"}, "num_labels is '3'"),
    ({"num_labels": 10**12}, "num_labels is 1000000000000"),
]


@pytest.mark.parametrize(
    "table",
    [
        {"2": "c", "0": "a", "1": "b"},
        {"00": "a", "02": "c", "01": "b"},
    ],
)
def test_names_of_classes_are_in_the_order_of_their_numbers(tmp_path, table):
    assert _read(tmp_path, BERT | {"id2label": table}).labels == ("a", "b", "c")


def test_names_that_are_numbers_become_text(tmp_path):
    found = _read(tmp_path, BERT | {"id2label": {"0": 1, "1": 0}})
    assert found.labels == ("1", "0")


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[str(x) for x, _ in WRONG])
def test_what_would_be_another_model_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(errors.InputError) as caught:
        _read(tmp_path, BERT | change)
    assert words in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    tree = dict(BERT)
    del tree["intermediate_size"]
    with pytest.raises(errors.InputError, match="has no intermediate_size"):
        _read(tmp_path, tree)


def test_every_class_is_found_again_by_its_parts():
    assert hf_config.class_of("electra", frozenset({"encoder"})) == "Model"
    parts = frozenset({"encoder", "pooler", "multiple_choice"})
    assert hf_config.class_of("albert", parts) == "ForMultipleChoice"
    with pytest.raises(errors.InputError, match="RobertaForMaskedLM, add --ignore="):
        hf_config.class_of(
            "roberta", frozenset({"encoder", "pooler", "mlm_head", "nsp_head"})
        )
