"""Folders whose label is wrong, or whose tensors are below a prefix of any name."""

import json

import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import huggingface, tensors, weights

PRETRAINING = ("pooler", "mlm_head", "nsp_head")
# In sizes that are BERT's; its own have no sign of either.
BERT = {"max_position_embeddings": 16, "pad_token_id": 0}
ROBERTA = {
    "model_type": "roberta",
    "max_position_embeddings": 18,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}


def _write(folder, given, rule=lambda name: name, *, bin_file=False, **keys):
    """Writes a folder with other names of tensors and other keys of its config."""
    huggingface.write(folder, given, dtype="float32")
    state = {rule(name): x for name, x in huggingface.state_dict(given).items()}
    if bin_file:
        torch = pytest.importorskip("torch")
        (folder / "model.safetensors").unlink()
        state = {name: torch.tensor(x) for name, x in state.items()}
        torch.save(state, folder / "pytorch_model.bin")
    else:
        tensors.write_safetensors(folder / "model.safetensors", state)
    path = folder / "config.json"
    tree = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))
    return folder


def _below(prefix):
    """Returns the rule of a program that keeps the whole model in an attribute."""
    return lambda name: prefix + name


def _encoder_at(prefix):
    """Returns the rule of a program that keeps the encoder in an attribute."""

    def rule(name):
        return prefix + name[len("bert.") :] if name.startswith("bert.") else name

    return rule


@pytest.mark.parametrize(
    "rule",
    [
        *map(_below, ("module.", "model.", "bert_model.", "base_model.model.", "a.b.")),
        *map(_encoder_at, ("", "encoder.", "transformer.", "model.", "encoder.bert.")),
    ],
)
def test_any_one_prefix_is_found(tmp_path, rule):
    given = small_weights.weights_of(*PRETRAINING)
    folder = _write(tmp_path, given, rule)
    read, report = huggingface.read(folder)
    assert small_weights.same(read, given)
    assert (report.missing, report.ignored, report.dropped) == ((), (), ())
    assert huggingface.describe(folder).bert == given.config


@pytest.mark.parametrize(
    "label",
    ["roberta", "albert", "electra", "BERT", "nezha", "chinese-bert", "dpr", None],
)
@pytest.mark.parametrize("sizes", [{}, BERT])
def test_bert_is_read_under_any_label(tmp_path, capsys, label, sizes):
    given = small_weights.weights_of(*PRETRAINING, **sizes)
    folder = _write(tmp_path, given, model_type=label, pad_token_id=None)
    read, report = huggingface.read(folder)
    assert small_weights.same(read, given)
    shown = capsys.readouterr().err
    if label in (None, "BERT"):
        assert shown == ""
    else:
        line = f"says {label}; the tensors are BERT's (bert.*): read as bert"
        assert shown.count(line) == 1 and shown.count("\n") == 1
        assert any(line in note for note in report.notes)


@pytest.mark.parametrize("architecture", ["RobertaForMaskedLM", "MyModel", "BertModel"])
def test_a_wrong_class_gives_the_parts_that_are_there(tmp_path, architecture):
    given = small_weights.weights_of(*PRETRAINING)
    folder = _write(tmp_path, given, architectures=[architecture], model_type="roberta")
    assert small_weights.same(huggingface.read(folder)[0], given)


def test_a_head_below_a_prefix_is_found(tmp_path):
    given = small_weights.weights_of("pooler", "classifier", labels=("a", "b", "c"))
    keys = {"architectures": ["RobertaForSequenceClassification"]}
    folder = _write(
        tmp_path, given, _below("model."), model_type="roberta", bin_file=True, **keys
    )
    assert small_weights.same(huggingface.read(folder)[0], given)


@pytest.mark.parametrize("label", ["bert", "albert", "xlm-roberta", None])
def test_roberta_is_never_read_as_bert(tmp_path, label):
    given = small_weights.weights_of("mlm_head", **ROBERTA)
    folder = _write(
        tmp_path, given, model_type=label, architectures=["BertForMaskedLM"]
    )
    read, _ = huggingface.read(folder)
    assert small_weights.same(read, given)
    assert read.config.position_offset == 2
    with pytest.raises(errors.InputError, match="pad_token_id is 1") as caught:
        huggingface.read(folder, weights.Choice(model_type="bert"))
    assert str(caught.value).endswith("--model_type=roberta")  # not what was asked


def test_an_attribute_called_bert_may_hold_a_roberta(tmp_path):
    given = small_weights.weights_of("pooler", **ROBERTA)
    folder = _write(tmp_path, given, _below("bert."))
    assert small_weights.same(huggingface.read(folder)[0], given)


def test_bert_is_not_read_as_roberta_on_request(tmp_path):
    folder = _write(tmp_path, small_weights.weights_of(*PRETRAINING, **BERT))
    with pytest.raises(errors.InputError, match="RoBERTa counts positions from 2"):
        huggingface.read(folder, weights.Choice(model_type="roberta"))


def test_what_is_not_settled_needs_a_request(tmp_path):
    given = small_weights.weights_of("mlm_head")
    keys = {"pad_token_id": 1, "model_type": "xlnet", "architectures": None}
    folder = _write(tmp_path, given, **keys)
    with pytest.raises(errors.InputError, match="--model_type=bert"):
        huggingface.read(folder)
    read, _ = huggingface.read(folder, weights.Choice(model_type="bert"))
    assert read.config.position_offset == 0


def test_a_label_stays_where_sizes_alone_speak_against_it(tmp_path):
    changes = BERT | {"model_type": "roberta", "pad_token_id": 0}
    given = small_weights.weights_of("mlm_head", **changes)
    assert small_weights.same(huggingface.read(_write(tmp_path, given))[0], given)


def test_tensors_of_no_model_are_listed(tmp_path):
    given = small_weights.weights_of("pooler")
    folder = _write(tmp_path, given)
    state = {f"h.{n}.attn.c_attn.weight": np.ones((4, 12), "f4") for n in range(7)}
    tensors.write_safetensors(folder / "model.safetensors", state)
    with pytest.raises(errors.InputError) as caught:
        huggingface.read(folder)
    told = str(caught.value)
    assert "h.{}.attn.c_attn.weight [4, 12] x 7" in told
    assert "encoder.layer.{}.attention.self.query" in told


def test_of_two_towers_one_must_be_ignored(tmp_path):
    given = small_weights.weights_of("pooler")
    folder = _write(tmp_path, given, _below("query."))
    state = {}
    for tower in ("doc.", "query."):
        state |= {tower + n: x for n, x in huggingface.state_dict(given).items()}
    tensors.write_safetensors(folder / "model.safetensors", state)
    with pytest.raises(errors.InputError, match="--ignore=query"):
        huggingface.read(folder)
    choice = weights.Choice(ignore=("doc.*",))
    assert small_weights.same(huggingface.read(folder, choice)[0], given)


def test_big_bird_is_not_read_as_bert(tmp_path):
    given = small_weights.weights_of("mlm_head")
    keys = {"model_type": "big_bird", "attention_type": "block_sparse"}
    with pytest.raises(errors.InputError, match="attention_type"):
        huggingface.read(_write(tmp_path, given, **keys))
