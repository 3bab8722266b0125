"""Every architecture and head against torch's `transformers`, and round trips of both.

Random weights of odd sizes, biases and scales away from 0 and 1; float32, at most 1e-5
at every layer.
"""

import jax
import numpy as np
import pytest

from bert_jax.checkpoints import huggingface, mapping, native, tensorflow1, weights
from bert_jax.model import encoder, network

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 50,
    "max_position_embeddings": 23,
}
OWN = {
    "Bert": {},
    "Roberta": {"type_vocab_size": 1, "pad_token_id": 1},
    "Albert": {"embedding_size": 10, "hidden_act": "gelu_new"},
    "Electra": {"embedding_size": 10},
    "DistilBert": {
        "vocab_size": 61,
        "dim": 36,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 50,
        "max_position_embeddings": 23,
    },
    # The layers are far, near, far; a token sees two others to either side when near.
    "ModernBert": {
        "num_attention_heads": 3,
        "pad_token_id": 0,
        "global_attn_every_n_layers": 2,
        "local_attention": 4,
        "global_rope_theta": 500.0,
        "local_rope_theta": 20.0,
    },
}
NO_TYPES = ("Roberta", "DistilBert", "ModernBert")
OUTPUTS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
CASES = [(model, head) for model in OWN for head in ("Model", *OUTPUTS)]
CASES += [
    ("Bert", "ForPreTraining"),
    ("Bert", "ForNextSentencePrediction"),
    ("Albert", "ForPreTraining"),
    ("Electra", "ForPreTraining"),
]


def _case(model, head):
    """Heads that are named alike in every architecture are slow but for one."""
    alike = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
    marks = [pytest.mark.slow] if model != "Bert" and head in alike else []
    return pytest.param(model, head, marks=marks, id=f"{model}{head}")


EVERY = pytest.mark.parametrize(
    ("model", "head"), [_case(model, head) for model, head in CASES]
)


def make(model, head, **changes):
    """Returns a model of transformers with weights that are all different."""
    sizes = {} if model == "DistilBert" else SIZES
    if head in ("ForSequenceClassification", "ForTokenClassification"):
        sizes = sizes | {"num_labels": 5}
    config = getattr(transformers, f"{model}Config")(**sizes | OWN[model] | changes)
    torch.manual_seed(len(head))
    made = getattr(transformers, f"{model}{head}")(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return made


def inputs(model, rows=3, length=13):
    rng = np.random.default_rng(5)
    mask = np.ones((rows, length), np.int64)
    mask[1, 9:] = 0
    ids = rng.integers(3, 61, (rows, length))
    ids[mask == 0] = 1 if model == "Roberta" else 0
    types = rng.integers(0, 2, (rows, length)) * (model not in NO_TYPES)
    return ids, types, mask


def theirs(made, model, head):
    """Returns hidden states [n + 1, B, L, D] and logits by our names."""
    ids, types, mask = inputs(model)
    choices = head == "ForMultipleChoice"
    given = {"input_ids": ids, "attention_mask": mask}
    if model not in ("DistilBert", "ModernBert"):
        given["token_type_ids"] = types
    given = {
        k: torch.tensor(v)[None] if choices else torch.tensor(v)
        for k, v in given.items()
    }
    with torch.no_grad():
        out = made(**given, output_hidden_states=True)
    states = np.stack([x.numpy() for x in out.hidden_states])
    renamed = {
        "pooler_output": "pooled_output",
        "prediction_logits": "mlm_logits",
        "seq_relationship_logits": "nsp_logits",
        "sop_logits": "nsp_logits",
    }
    logits = {
        renamed.get(k, k): v.numpy() for k, v in out.items() if torch.is_tensor(v)
    }
    if head == "ForMaskedLM":
        logits["mlm_logits"] = logits.pop("logits")
    if head == "ForNextSentencePrediction":
        logits["nsp_logits"] = logits.pop("logits")
    if (model, head) == ("Electra", "ForPreTraining"):
        logits["rtd_logits"] = logits.pop("logits")
    if choices:
        logits["logits"] = logits["logits"].T
    if head == "ForQuestionAnswering":
        ends = logits.pop("start_logits"), logits.pop("end_logits")
        logits["logits"] = np.stack(ends, -1)
    logits["sequence_output"] = states[-1]
    logits.pop("last_hidden_state", None)
    return states, logits


def ours(read, model):
    """Returns the hidden states [n + 1, B, L, D] and every output."""
    ids, types, mask = inputs(model)
    of_parts = network.for_parts(
        read.config, encoder.Execution(vocab_multiple=1), read.parts, read.num_labels
    )
    arrays = {"input_ids": ids, "token_type_ids": types, "segment_ids": mask}
    outputs = of_parts.apply(
        jax.tree.map(jax.numpy.asarray, read.params),
        {name: jax.numpy.asarray(x, np.int32) for name, x in arrays.items()},
        dropout_key=None,
        hidden_states=True,
    )
    if "mlm_scores" in outputs:
        outputs["mlm_logits"] = outputs.pop("mlm_scores").logits()
    states = np.asarray(outputs.pop("hidden_states"))
    return states, {k: np.asarray(v) for k, v in outputs.items()}


@EVERY
def test_outputs_equal_those_of_transformers_and_weights_go_back(model, head, tmp_path):
    made = make(model, head)
    made.save_pretrained(tmp_path / "theirs")
    read, report = huggingface.read(tmp_path / "theirs")
    want_states, want = theirs(made, model, head)
    states, found = ours(read, model)
    _, _, mask = inputs(model)
    real = mask.astype(bool)
    assert states.shape[0] == 4
    for layer, state in enumerate(states):
        assert np.abs(state - want_states[layer])[real].max() <= 1e-5, layer
    for name, value in want.items():
        got = found[name][real] if value.shape[:2] == real.shape else found[name]
        value = value[real] if value.shape[:2] == real.shape else value
        assert np.abs(got - value).max() <= 1e-5, name
    assert set(found) - set(want) <= {"pooled_output"}
    assert not (report.missing or report.ignored or report.dropped)

    (tmp_path / "ours").mkdir()
    huggingface.write(tmp_path / "ours", read, dtype="float32")
    again, info = type(made).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    state = again.state_dict()
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    if "Classification" in head:
        assert read.labels == tuple(f"LABEL_{i}" for i in range(5))
        assert again.config.id2label == {i: f"LABEL_{i}" for i in range(5)}
    twice, _ = huggingface.read(tmp_path / "ours")
    assert twice.config == read.config and twice.labels == read.labels


@pytest.mark.parametrize("head", ["ForPreTraining", *OUTPUTS])
def test_every_head_of_bert_goes_through_googles_format_bit_for_bit(head, tmp_path):
    pytest.importorskip("tensorflow")
    make("Bert", head).save_pretrained(tmp_path)
    read, _ = huggingface.read(tmp_path)
    (tmp_path / "google").mkdir()
    tensorflow1.write(tmp_path / "google", read)
    again, _ = tensorflow1.read(tmp_path / "google")
    _assert_same(read, again)


@EVERY
def test_every_part_goes_through_our_own_format_bit_for_bit(model, head, tmp_path):
    make(model, head).save_pretrained(tmp_path)
    read, _ = huggingface.read(tmp_path)
    (tmp_path / "ours").mkdir()
    native.write(tmp_path / "ours", read, dtype="float32")
    again, _ = native.read(tmp_path / "ours")
    _assert_same(read, again)


def _assert_same(one: weights.Weights, other: weights.Weights) -> None:
    assert one.config == other.config
    assert one.labels == other.labels
    before, after = mapping.flatten(one.params), mapping.flatten(other.params)
    assert before.keys() == after.keys()
    for path, array in before.items():
        assert array.dtype == after[path].dtype == np.float32
        assert np.array_equal(array, after[path]), path
