"""The spellings of Hugging Face's files, and every way in which one can be wrong."""

import json

import ml_dtypes
import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import huggingface, tensors, weights

PRETRAINING = ("pooler", "mlm_head", "nsp_head")


@pytest.fixture
def given():
    return small_weights.weights_of(*PRETRAINING)


def _write(folder, given, change=None, **keys):
    """Writes a folder after a change to its tensors and its config."""
    huggingface.write(folder, given, dtype="float32")
    state = huggingface.state_dict(given)
    tensors.write_safetensors(
        folder / "model.safetensors", change(state) if change else state
    )
    path = folder / "config.json"
    tree = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in tree.items() if v != "DELETED"}))
    return folder


def _renamed(rule):
    return lambda state: {rule(name): array for name, array in state.items()}


def _old(name):
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return name.replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: name,
        lambda name: name.removeprefix("bert."),
        _old,
        lambda name: f"module.{name}",
    ],
    ids=["new", "no prefix", "gamma and beta", "data parallel"],
)
def test_every_spelling_is_the_same_model(given, tmp_path, rule):
    read, report = huggingface.read(_write(tmp_path, given, _renamed(rule)))
    assert small_weights.same(read, given)
    assert (report.missing, report.ignored, report.dropped) == ((), (), ())


def test_the_report_says_what_came_from_where(given, tmp_path):
    _, report = huggingface.read(_write(tmp_path, given))
    rows = {row.ours: row for row in report.rows}
    assert rows["encoder/layers/attention/query/kernel"] == weights.Row(
        ours="encoder/layers/attention/query/kernel",
        shape=(2, 12, 3, 4),
        theirs="bert.encoder.layer.{0..1}.attention.self.query.weight",
        stored=(12, 12),
        dtype="float32",
        change="transposed, stacked 2, cut into heads",
    )
    assert rows["mlm_head/bias"].change == "as it is"
    assert rows["mlm_head/bias"].theirs == "cls.predictions.bias"
    assert list(report.files) == ["model.safetensors"]


def test_buffers_and_copies_are_no_parameters(given, tmp_path):
    def more(state):
        table = state["bert.embeddings.word_embeddings.weight"]
        return state | {
            "bert.embeddings.position_ids": np.arange(9)[None],
            "cls.predictions.decoder.weight": table,
            "cls.predictions.decoder.bias": state["cls.predictions.bias"],
        }

    read, report = huggingface.read(_write(tmp_path, given, more))
    assert small_weights.same(read, given)
    assert len(report.notes) == 3


def test_a_decoder_of_its_own_stays_its_own(given, tmp_path):
    def own(state):
        table = state["bert.embeddings.word_embeddings.weight"]
        return state | {"cls.predictions.decoder.weight": table + 1}

    read, report = huggingface.read(_write(tmp_path, given, own))
    assert read.config.tie_word_embeddings is False
    table = read.params["encoder"]["embeddings"]["word_embeddings"]["embedding"]
    assert np.array_equal(read.params["mlm_head"]["decoder"], table + 1)
    assert "not tied" in report.notes[0].replace("\n", " ")


def test_a_bias_that_only_the_decoder_has_is_taken(given, tmp_path):
    def moved(state):
        bias = state.pop("cls.predictions.bias")
        return state | {"cls.predictions.decoder.bias": bias}

    read, _ = huggingface.read(_write(tmp_path, given, moved))
    assert small_weights.same(read, given)


def test_bfloat16_is_read_and_written(given, tmp_path):
    huggingface.write(tmp_path, given, dtype="bfloat16")
    read, report = huggingface.read(tmp_path)
    assert {row.dtype for row in report.rows} == {"bfloat16"}
    kernel = given.params["pooler"]["dense"]["kernel"]
    rounded = kernel.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(read.params["pooler"]["dense"]["kernel"], rounded)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_labels_come_along(tmp_path):
    labels = ("负面", "中性", "positive")
    made = small_weights.weights_of("pooler", "classifier", labels=labels)
    huggingface.write(tmp_path, made, dtype="float32")
    read, _ = huggingface.read(tmp_path)
    assert read.labels == labels
    tree = json.loads((tmp_path / "config.json").read_text())
    assert tree["id2label"] == {"0": "负面", "1": "中性", "2": "positive"}
    assert tree["label2id"] == {"负面": 0, "中性": 1, "positive": 2}
    assert tree["architectures"] == ["BertForSequenceClassification"]


def test_classes_without_names_are_numbered(tmp_path):
    made = small_weights.weights_of("tagger", labels=("a", "b", "c"))
    nameless = weights.Weights(made.config, made.params)
    huggingface.write(tmp_path, nameless, dtype="float32")
    read, _ = huggingface.read(tmp_path)
    assert read.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def _without(*names):
    return lambda state: {k: v for k, v in state.items() if k not in names}


def test_what_is_missing_is_refused_unless_it_is_named(given, tmp_path):
    _write(tmp_path, given, _without("cls.seq_relationship.bias"))
    with pytest.raises(errors.InputError) as caught:
        huggingface.read(tmp_path)
    assert "lacks 1 tensors: cls.seq_relationship.bias" in str(caught.value)
    assert "--allow_missing=nsp_head" in str(caught.value)
    for named in ("nsp_head", "nsp_head/dense/bias", "cls.seq_*"):
        read, report = huggingface.read(tmp_path, weights.Choice((named,)))
        assert read.parts == ("encoder", "pooler", "mlm_head")
        assert report.missing == ("cls.seq_relationship.bias",)
        assert report.dropped == ("nsp_head",)
        assert report.ignored == ("cls.seq_relationship.weight",)


def test_a_pooler_takes_along_what_needs_it(given, tmp_path):
    _write(tmp_path, given, _without("bert.pooler.dense.weight"))
    read, report = huggingface.read(tmp_path, weights.Choice(("pooler",)))
    assert read.parts == ("encoder", "mlm_head")
    assert report.dropped == ("nsp_head", "pooler")


def test_of_the_encoder_nothing_may_be_missing(given, tmp_path):
    name = "bert.encoder.layer.1.output.dense.bias"
    _write(tmp_path, given, _without(name))
    with pytest.raises(errors.InputError, match="encoder"):
        huggingface.read(tmp_path, weights.Choice((name, "encoder", "*")))


def test_what_is_left_over_is_refused_unless_it_is_named(given, tmp_path):
    extra = {"adapter.weight": np.ones(3, np.float32)}
    _write(tmp_path, given, lambda state: state | extra)
    with pytest.raises(errors.InputError, match="--ignore=adapter.weight"):
        huggingface.read(tmp_path)
    read, report = huggingface.read(tmp_path, weights.Choice(ignore=("adapter.*",)))
    assert small_weights.same(read, given)
    assert report.ignored == ("adapter.weight",)


def test_more_layers_than_the_config_says_are_left_over(given, tmp_path):
    _write(tmp_path, given, num_hidden_layers=1)
    with pytest.raises(errors.InputError, match=r"encoder\.layer\.1"):
        huggingface.read(tmp_path)


def test_a_part_can_be_left_out(given, tmp_path):
    read, report = huggingface.read(
        _write(tmp_path, given), weights.Choice(ignore=("nsp_head", "pooler"))
    )
    assert read.parts == ("encoder", "mlm_head")
    assert len(report.ignored) == 4
    with pytest.raises(errors.InputError, match="cannot be ignored"):
        weights.Choice(ignore=("encoder",))


def test_one_parameter_under_two_names_is_refused(given, tmp_path):
    def doubled(state):
        name = "embeddings.word_embeddings.weight"
        return state | {name: state[f"bert.{name}"]}

    with pytest.raises(errors.InputError, match="which are the same parameter"):
        huggingface.read(_write(tmp_path, given, doubled))


def test_biases_that_should_be_copies_and_differ_are_refused(given, tmp_path):
    def wrong(state):
        bias = state["cls.predictions.bias"]
        return state | {"cls.predictions.decoder.bias": bias + 1}

    with pytest.raises(errors.InputError, match="should be copies and differ"):
        huggingface.read(_write(tmp_path, given, wrong))


def test_a_shape_that_the_config_denies_is_refused(given, tmp_path):
    with pytest.raises(errors.InputError) as caught:
        huggingface.read(_write(tmp_path, given, intermediate_size=18))
    assert "has the shape [17]" in str(caught.value)
    assert "it should be [18]" in str(caught.value)


def test_integers_are_no_weights(given, tmp_path):
    def quantised(state):
        name = "bert.pooler.dense.weight"
        return state | {name: (100 * state[name]).astype(np.int8)}

    with pytest.raises(errors.InputError, match="dtype int8"):
        huggingface.read(_write(tmp_path, given, quantised))


def test_the_kind_of_a_classifier_must_be_known(tmp_path):
    made = small_weights.weights_of("pooler", "classifier", labels=("a", "b", "c"))
    _write(tmp_path, made, architectures="DELETED")
    with pytest.raises(errors.InputError, match="--head=classifier"):
        huggingface.read(tmp_path)
    read, _ = huggingface.read(tmp_path, weights.Choice(head="classifier"))
    assert small_weights.same(read, made)
    with pytest.raises(errors.InputError, match="'regressor' is unknown"):
        weights.Choice(head="regressor")


def test_the_head_that_is_asked_for_counts_more_than_the_class(tmp_path):
    made = small_weights.weights_of("tagger", labels=("O", "B-PER", "I-PER"))
    _write(tmp_path, made, architectures=["BertForSequenceClassification"])
    with pytest.raises(errors.InputError, match="--head=tagger"):
        huggingface.read(tmp_path)
    read, _ = huggingface.read(tmp_path, weights.Choice(head="tagger"))
    assert small_weights.same(read, made)


def test_what_is_lost_with_a_part_is_named(given, tmp_path):
    def without(state):
        return {k: v for k, v in state.items() if k != "bert.pooler.dense.bias"}

    with pytest.raises(errors.InputError, match="pooler and nsp_head"):
        huggingface.read(_write(tmp_path, given, without))


def test_names_of_more_classes_than_there_are_are_refused(tmp_path):
    made = small_weights.weights_of("pooler", "classifier", labels=("a", "b", "c"))
    names = {"0": "a", "1": "b"}
    with pytest.raises(errors.InputError, match="has 3 classes"):
        huggingface.read(_write(tmp_path, made, id2label=names))


@pytest.mark.parametrize("names", [{"0": "a", "1": "b"}, "DELETED"])
def test_num_labels_decides_how_many_classes_there_are(tmp_path, names):
    made = small_weights.weights_of("pooler", "classifier", labels=("a", "b", "c"))
    folder = _write(tmp_path, made, id2label=names, num_labels=3)
    read, report = huggingface.read(folder)
    assert read.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert any("num_labels is 3" in note for note in report.notes) == (
        names != "DELETED"
    )
    with pytest.raises(errors.InputError, match="has 3 classes"):
        huggingface.read(_write(tmp_path, made, num_labels=4))


def test_parts_without_a_class_of_hugging_faces_are_refused(tmp_path):
    made = small_weights.weights_of("pooler", "mlm_head")
    with pytest.raises(errors.InputError, match="--ignore=pooler"):
        huggingface.write(tmp_path, made, dtype="float32")
    assert not list(tmp_path.iterdir())


def test_an_older_folder_has_googles_name_for_its_config(given, tmp_path):
    _write(tmp_path, given)
    (tmp_path / "config.json").rename(tmp_path / "bert_config.json")
    read, _ = huggingface.read(tmp_path)
    assert small_weights.same(read, given)


def test_one_file_of_weights_is_read_with_the_config_beside_it(given, tmp_path):
    read, _ = huggingface.read(_write(tmp_path, given) / "model.safetensors")
    assert small_weights.same(read, given)


def test_shards_are_one_model(given, tmp_path):
    _write(tmp_path, given)
    (tmp_path / "model.safetensors").unlink()
    arrays = huggingface.state_dict(given)
    small_weights.write_shards(tmp_path, *small_weights.halves(arrays))
    read, report = huggingface.read(tmp_path)
    assert small_weights.same(read, given)
    assert len(report.files) == 3 and "model.safetensors.index.json" in report.files
