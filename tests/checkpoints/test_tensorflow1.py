"""Google's checkpoints: read from what a TensorFlow 1 saver writes, and written."""

import json

import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import tensorflow1, weights

tf = pytest.importorskip("tensorflow")

PRETRAINING = ("pooler", "mlm_head", "nsp_head")
# Google's own file has these keys and no others.
CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 12,
    "initializer_range": 0.02,
    "intermediate_size": 17,
    "max_position_embeddings": 9,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 31,
}
# Where each variable of run_pretraining.py lies in our tree, and its shape.
LAYER = {
    "attention/self/query/kernel": ("attention/query/kernel", (12, 12)),
    "attention/self/query/bias": ("attention/query/bias", (12,)),
    "attention/self/key/kernel": ("attention/key/kernel", (12, 12)),
    "attention/self/key/bias": ("attention/key/bias", (12,)),
    "attention/self/value/kernel": ("attention/value/kernel", (12, 12)),
    "attention/self/value/bias": ("attention/value/bias", (12,)),
    "attention/output/dense/kernel": ("attention/output/kernel", (12, 12)),
    "attention/output/dense/bias": ("attention/output/bias", (12,)),
    "attention/output/LayerNorm/gamma": ("attention_layer_norm/scale", (12,)),
    "attention/output/LayerNorm/beta": ("attention_layer_norm/bias", (12,)),
    "intermediate/dense/kernel": ("intermediate/kernel", (12, 17)),
    "intermediate/dense/bias": ("intermediate/bias", (17,)),
    "output/dense/kernel": ("output/kernel", (17, 12)),
    "output/dense/bias": ("output/bias", (12,)),
    "output/LayerNorm/gamma": ("output_layer_norm/scale", (12,)),
    "output/LayerNorm/beta": ("output_layer_norm/bias", (12,)),
}
REST = {
    "bert/embeddings/word_embeddings": (
        "encoder/embeddings/word_embeddings/embedding",
        (31, 12),
    ),
    "bert/embeddings/position_embeddings": (
        "encoder/embeddings/position_embeddings/embedding",
        (9, 12),
    ),
    "bert/embeddings/token_type_embeddings": (
        "encoder/embeddings/token_type_embeddings/embedding",
        (2, 12),
    ),
    "bert/embeddings/LayerNorm/gamma": ("encoder/embeddings/layer_norm/scale", (12,)),
    "bert/embeddings/LayerNorm/beta": ("encoder/embeddings/layer_norm/bias", (12,)),
    "bert/pooler/dense/kernel": ("pooler/dense/kernel", (12, 12)),
    "bert/pooler/dense/bias": ("pooler/dense/bias", (12,)),
    "cls/predictions/transform/dense/kernel": ("mlm_head/transform/kernel", (12, 12)),
    "cls/predictions/transform/dense/bias": ("mlm_head/transform/bias", (12,)),
    "cls/predictions/transform/LayerNorm/gamma": (
        "mlm_head/layer_norm/scale",
        (12,),
    ),
    "cls/predictions/transform/LayerNorm/beta": ("mlm_head/layer_norm/bias", (12,)),
    "cls/predictions/output_bias": ("mlm_head/bias", (31,)),
    "cls/seq_relationship/output_weights": ("nsp_head/dense/kernel", (2, 12)),
    "cls/seq_relationship/output_bias": ("nsp_head/dense/bias", (2,)),
}


def variables():
    """Returns what run_pretraining.py saves: weights, their slots, a counter."""
    shapes = {name: shape for name, (_, shape) in REST.items()}
    for layer in range(2):
        for name, (_, shape) in LAYER.items():
            shapes[f"bert/encoder/layer_{layer}/{name}"] = shape
    rng = np.random.default_rng(8)
    made = {}
    for name, shape in shapes.items():
        made[name] = rng.normal(size=shape).astype(np.float32)
        for slot in ("adam_m", "adam_v", "Adam", "Adam_1"):
            made[f"{name}/{slot}"] = rng.normal(size=shape).astype(np.float32)
    return made | {"global_step": np.array(1_000_000, np.int64)}


def save(folder, arrays, keys=CONFIG):
    """Saves variables by name as a session of TensorFlow 1 does."""
    compat = tf.compat.v1
    with tf.Graph().as_default(), compat.Session() as session:
        # Zeros and an assignment: constants of this size would stand in the graph.
        made = {
            name: compat.get_variable(name, initializer=np.zeros_like(x))
            for name, x in arrays.items()
        }
        session.run(compat.global_variables_initializer())
        for name, variable in made.items():
            variable.load(arrays[name], session)
        compat.train.Saver().save(
            session, str(folder / "bert_model.ckpt"), write_meta_graph=False
        )
    (folder / "bert_config.json").write_text(json.dumps(keys))
    return folder


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    return save(tmp_path_factory.mktemp("google"), variables())


def leaf(params, path):
    for name in path.split("/"):
        params = params[name]
    return params


def test_what_google_saves_is_read_to_the_bit(google):
    read, report = tensorflow1.read(google)
    saved = variables()
    count = 0
    for name, (ours, _) in REST.items():
        expected = saved[name]
        if name == "cls/seq_relationship/output_weights":
            expected = expected.T
        np.testing.assert_array_equal(leaf(read.params, ours), expected, name)
        count += expected.size
    for layer in range(2):
        for name, (ours, _) in LAYER.items():
            found = leaf(read.params["encoder"]["layers"], ours)[layer]
            expected = saved[f"bert/encoder/layer_{layer}/{name}"]
            np.testing.assert_array_equal(found.ravel(), expected.ravel(), name)
            count += expected.size
    assert read.num_parameters == count
    layers = read.params["encoder"]["layers"]
    assert layers["attention"]["query"]["kernel"].shape == (2, 12, 3, 4)
    assert layers["attention"]["output"]["kernel"].shape == (2, 3, 4, 12)
    assert read.parts == ("encoder", "pooler", "nsp_head", "mlm_head")
    assert read.labels == ()
    # Slots and the counter are neither parameters nor left over.
    assert (report.missing, report.ignored, report.dropped) == ((), (), ())
    assert not [row for row in report.rows if "adam" in row.theirs]


def test_the_report_says_what_came_from_where(google):
    _, report = tensorflow1.read(google)
    rows = {row.ours: row for row in report.rows}
    assert rows["nsp_head/dense/kernel"] == weights.Row(
        ours="nsp_head/dense/kernel",
        shape=(12, 2),
        theirs="cls/seq_relationship/output_weights",
        stored=(2, 12),
        dtype="float32",
        change="transposed",
    )
    query = rows["encoder/layers/attention/query/kernel"]
    assert query.theirs == "bert/encoder/layer_{0..1}/attention/self/query/kernel"
    assert query.change == "stacked 2, cut into heads"
    assert report.source == "Google, TensorFlow 1"
    assert sorted(report.files) == [
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
    ]


def test_folder_prefix_and_index_are_the_same_model(google):
    read, _ = tensorflow1.read(google)
    for name in ("bert_model.ckpt", "bert_model.ckpt.index"):
        assert small_weights.same(tensorflow1.read(google / name)[0], read)


def write_arrays(folder, change=None, heads=PRETRAINING, labels=(), **keys):
    """Writes a small model, changes its variables and its config."""
    tensorflow1.write(folder, small_weights.weights_of(*heads, labels=labels))
    if change is not None:
        arrays = dict(tensorflow1.read_variables(folder).arrays)
        change(arrays)
        tensorflow1.write_variables(folder / "bert_model.ckpt", arrays)
    path = folder / "bert_config.json"
    tree = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in tree.items() if v != "DELETED"}))
    return folder


def test_what_is_written_has_googles_names_and_keys(tmp_path):
    given = small_weights.weights_of(*PRETRAINING)
    tensorflow1.write(tmp_path, given)
    reader = tf.train.load_checkpoint(str(tmp_path / "bert_model.ckpt"))
    expected = {
        name: list(shape)
        for name, shape in ((n, x.shape) for n, x in variables().items())
        if "adam" not in name.lower() and name != "global_step"
    }
    assert reader.get_variable_to_shape_map() == expected
    np.testing.assert_array_equal(
        reader.get_tensor("cls/seq_relationship/output_weights"),
        given.params["nsp_head"]["dense"]["kernel"].T,
    )
    tree = json.loads((tmp_path / "bert_config.json").read_text())
    assert tree == CONFIG | {"architectures": ["BertForPreTraining"]}
    assert small_weights.same(tensorflow1.read(tmp_path)[0], given)


@pytest.mark.parametrize("head", ["classifier", "tagger"])
def test_labels_go_with_their_head(tmp_path, head):
    labels = ("负面", "neutral", "positive")
    given = small_weights.weights_of("pooler", head, labels=labels)
    tensorflow1.write(tmp_path, given)
    tree = json.loads((tmp_path / "bert_config.json").read_text())
    assert tree["id2label"] == {"0": "负面", "1": "neutral", "2": "positive"}
    read, _ = tensorflow1.read(tmp_path, weights.Choice(head=head))
    assert small_weights.same(read, given)
    without, _ = tensorflow1.read(tmp_path, weights.Choice(ignore=(head,), head=head))
    assert without.labels == ()


def test_what_google_names_a_classifier_is_one_unless_the_config_says_more(tmp_path):
    heads, labels = ("pooler", "classifier"), ("a", "b", "c")
    write_arrays(tmp_path, heads=heads, labels=labels, architectures="DELETED")
    read, _ = tensorflow1.read(tmp_path)
    assert read.parts == ("encoder", "pooler", "classifier")
    path = tmp_path / "bert_config.json"
    tree = json.loads(path.read_text())
    path.write_text(
        json.dumps(tree | {"architectures": ["BertForTokenClassification"]})
    )
    read, _ = tensorflow1.read(tmp_path)
    assert read.parts == ("encoder", "pooler", "tagger")


def test_any_layer_norm_is_kept(tmp_path):
    given = small_weights.weights_of("pooler", layer_norm_eps=1e-5)
    tensorflow1.write(tmp_path, given)
    assert tensorflow1.read(tmp_path)[0].config.layer_norm_eps == 1e-5


def test_a_head_without_a_bias_is_refused(tmp_path):
    write_arrays(
        tmp_path, lambda a: a.update(output_weights=np.ones((2, 12), np.float32))
    )
    with pytest.raises(errors.InputError, match="lacks 1 tensors: output_bias"):
        tensorflow1.read(tmp_path)


KEYS = [
    ({"hidden_act": "DELETED"}, "bert_config.json has no hidden_act"),
    ({"vocab_size": "31"}, "model.vocab_size is '31'"),
    ({"hidden_act": "linear"}, "model.hidden_act is 'linear'"),
    ({"architectures": "Bert"}, "architectures of bert_config.json is 'Bert'"),
    ({"architectures": None}, "architectures of bert_config.json is None"),
    ({"architectures": 5}, "write a list of names"),
    ({"id2label": [1]}, "id2label must be an object"),
    ({"model_type": "roberta"}, "and this is roberta"),
    ({"model_type": "albert"}, "and this is albert"),
    ({"embedding_size": 5}, "its embeddings are as wide as its layers"),
    ({"num_hidden_groups": 1}, "its layers share no parameters"),
]


@pytest.mark.parametrize(("keys", "words"), KEYS)
def test_what_can_be_wrong_with_the_config(tmp_path, keys, words):
    made = write_arrays(tmp_path, None, ("pooler", "classifier"), ("a", "b"), **keys)
    with pytest.raises(errors.InputError) as caught:
        tensorflow1.read(made)
    assert words in str(caught.value)


def test_the_files_must_be_there(tmp_path):
    write_arrays(tmp_path)
    (tmp_path / "bert_config.json").rename(tmp_path / "config.json")
    with pytest.raises(errors.InputError, match="bert_config.json does not exist"):
        tensorflow1.read(tmp_path)


REFUSED = [
    (("mlm_head",), {"model_type": "roberta"}, "and this is rob"),
    (("mlm_head",), {"tie_word_embeddings": False}, "its decoder is always tied to"),
    (("pooler",), {"num_hidden_groups": 1}, "its layers share no parameters"),
    (("pooler",), {"embedding_size": 5}, "its embeddings are as wide as its layers"),
    (("rtd_head",), {}, "it has no head for replaced tokens"),
    (("head_transform", "tagger"), {}, "it has no layer before a head but the pooler"),
    (
        ("rtd_head",),
        {"model_type": "electra", "num_hidden_groups": 2, "embedding_size": 5},
        "this is electra; it has no head for replaced tokens. Use --to=huggingface",
    ),
]


@pytest.mark.parametrize(("heads", "keys", "words"), REFUSED)
def test_what_the_format_cannot_hold_is_refused_with_a_remedy(
    tmp_path, heads, keys, words
):
    given = small_weights.weights_of(*heads, **keys)
    with pytest.raises(errors.InputError) as caught:
        tensorflow1.write(tmp_path, given)
    assert "Google's format cannot hold this model" in str(caught.value)
    assert words in str(caught.value)
    other = "bert_jax" if "head_transform" in heads else "huggingface"
    assert str(caught.value).endswith(f"Use --to={other}")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_alone_needs_no_tied_decoder(tmp_path):
    given = small_weights.weights_of("pooler", tie_word_embeddings=False)
    tensorflow1.write(tmp_path, given)
    read, _ = tensorflow1.read(tmp_path)
    assert read.parts == ("encoder", "pooler")


def test_a_classifier_without_its_pooler(tmp_path):
    def without_pooler(arrays):
        for name in ("kernel", "bias"):
            del arrays[f"bert/pooler/dense/{name}"]

    write_arrays(tmp_path, without_pooler, ("pooler", "classifier"), ("a", "b"))
    with pytest.raises(errors.InputError, match="allow_missing=pooler"):
        tensorflow1.read(tmp_path)
    read, _ = tensorflow1.read(tmp_path, weights.Choice(("pooler",)))
    assert read.parts == ("encoder",)
