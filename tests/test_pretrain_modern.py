"""The modern recipe from end to end: packed rows, resumed, exported, fine-tuned."""

import json
import os
import signal
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import tiny_run
import tiny_tasks

import bert_jax
from bert_jax import checkpoints, convert, errors, finetune, pretrain
from bert_jax.checkpoints import verify
from bert_jax.config import file as config_file
from bert_jax.runs import pretraining as pretraining_run

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "pretrain_modern.py"
SMALL = {
    "model.hidden_size": 32,
    "model.intermediate_size": 48,
    "model.local_attention": 8,
    "model.max_position_embeddings": 64,
    "text.vocab_size": 150,
    "data.held_out_fraction": 0.2,
    "data.max_seq_length": 40,
    "data.workers": 1,
    "data.loader": "thread",
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 1,
    "mesh.data": 1,
    "run.batch_size": 4,
    "run.num_train_steps": 4,
    "run.log_every_steps": 1,
    "run.eval_every_steps": 2,
    "run.save_every_steps": 2,
}


def _config(folder, **changes):
    made = config_file.load(f"{RECIPE}:tiny")
    made.data.corpus = str(folder / "text.txt")
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    made.update_from_flattened_dict(SMALL | changed)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modern")
    tiny_run.write_corpus(folder / "text.txt")
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """A run of four steps that was never interrupted."""
    return pretrain.train(_config(place), place / "run")


def test_the_run_is_of_the_recipe(trained):
    tree = json.loads((trained.workdir / "config.json").read_text())
    assert tree["model"]["model_type"] == "modernbert"
    assert (tree["data"]["pack"], tree["data"]["objective"]) == (True, "full_sentences")
    assert tree["optimizer"]["name"] == "stable_adamw"
    assert set(trained.state.params) == {"encoder", "mlm_head"}
    assert {x.dtype.name for x in jax.tree.leaves(trained.state.params)} == {"float32"}
    assert np.isfinite(trained.metrics["eval/mlm_loss"])
    assert "eval/nsp_accuracy" not in trained.metrics


@pytest.mark.slow
def test_a_stopped_run_resumes_bit_for_bit(trained, place, tmp_path, monkeypatch):
    def stop(step, metrics):
        os.kill(os.getpid(), signal.SIGTERM)
        return f"evaluation after step {step}"

    monkeypatch.setattr(pretraining_run, "_summary", stop)
    config = _config(place, data__store=str(trained.workdir / "store"))
    with pytest.raises(errors.Stopped, match="SIGTERM after step 3 of 4"):
        pretrain.train(config, tmp_path)
    monkeypatch.undo()
    resumed = pretrain.train(config, tmp_path)
    jax.tree.map(
        np.testing.assert_array_equal, resumed.state.params, trained.state.params
    )


def test_the_export_is_a_modernbert_and_comes_back(trained, tmp_path):
    """transformers computes what ours does, layer by layer, on rows of real text."""
    pytest.importorskip("transformers")
    request = convert.Request("huggingface")
    convert.convert(trained.workdir, tmp_path / "hf", request)
    run = checkpoints.open(trained.workdir).read()
    done = verify.verify(run, tmp_path / "hf")
    assert done.passed and "ModernBertForMaskedLM" in done.other
    assert len(done.layers) == 6  # embeddings, four layers, logits
    assert max(layer.absolute for layer in done.layers) <= 1e-5
    before, after = run.weights, checkpoints.open(tmp_path / "hf").read().weights
    assert before.config == after.config
    chex.assert_trees_all_equal(before.params, after.params)
    assert bert_jax.load(tmp_path / "hf").fill_mask("the [MASK] sat", top=3)


@pytest.mark.slow
def test_a_classifier_begins_with_the_run(trained, tmp_path):
    tiny_tasks.write_classes(tmp_path / "train.tsv", 16, seed=0)
    tiny_tasks.write_classes(tmp_path / "dev.tsv", 8, seed=1)
    options = {"run__num_train_steps": 2, "data__num_lengths": 1}
    config = tiny_tasks.config(tmp_path, **options)
    config.init_from = str(trained.workdir)
    config.model.size = "init_from"
    config.text.vocab = "init_from"
    for key in ("hidden_size", "num_attention_heads", "intermediate_size"):
        config.model[key] = None
    config.model.max_position_embeddings = config.model.initializer_range = None
    made = finetune.train(config, tmp_path / "tuned")
    assert 0 <= made.metrics["dev/accuracy"] <= 1
    given = trained.state.params["encoder"]["layers"]["intermediate"]["kernel"]
    tuned = checkpoints.open(tmp_path / "tuned").read().weights
    assert tuned.parts == ("encoder", "pooler", "classifier")
    kernel = tuned.params["encoder"]["layers"]["intermediate"]["kernel"]
    moved = np.abs(kernel - np.asarray(given))
    assert 0 < moved.max() < 0.05
