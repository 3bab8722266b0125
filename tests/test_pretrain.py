"""The main job from end to end: from text to a model, resumed, refused, stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import tiny_run

from bert_jax import errors, evaluate, pretrain
from bert_jax.config import pretraining
from bert_jax.foundation import files
from bert_jax.inference.model import load
from bert_jax.model import network
from bert_jax.runs import pretraining as pretraining_run
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import state

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_run.write_corpus(tmp_path_factory.mktemp("corpus") / "text.txt")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run of six steps that was never interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    return pretrain.train(tiny_run.config(corpus), workdir)


def _lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _losses(workdir):
    return {x["step"]: x["train/loss"] for x in _lines(workdir) if "train/loss" in x}


def _same(one, other):
    chex.assert_trees_all_equal(one, other)


def test_a_run_leaves_what_the_design_says(trained):
    names = {path.name for path in trained.workdir.iterdir()}
    assert {
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "curves.png",
        "tensorboard",
        "tokenizer",
        "store",
    } <= names
    assert [p.name for p in sorted((trained.workdir / "checkpoints").iterdir())] == [
        "3",
        "6",
    ]
    assert (trained.workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    steps = [line["step"] for line in _lines(trained.workdir) if "train/loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    last = {k: v for line in _lines(trained.workdir) for k, v in line.items()}
    assert {
        "train/mlm_accuracy",
        "train/tokens_per_second",
        "train/input_wait",
        "train/learning_rate",
        "eval/mlm_loss",
        "eval/mlm_perplexity",
        "eval/mlm_accuracy",
        "eval/nsp_accuracy",
        "eval/unigram_accuracy",
        "eval/bigram_accuracy",
    } <= set(last)


def test_config_json_is_complete(trained):
    tree = json.loads((trained.workdir / "config.json").read_text())
    assert tree["model"]["vocab_size"] == trained_vocabulary(trained)
    assert tree["model"]["layer_norm_eps"] == 1e-12
    assert set(tree) == {
        "init_from",
        "init",
        "model",
        "text",
        "data",
        "optimizer",
        "mesh",
        "run",
    }


def trained_vocabulary(trained):
    return load(trained.workdir).tokenizer.vocab_size


def test_a_second_start_says_that_it_is_finished(trained, corpus, capsys):
    again = pretrain.train(tiny_run.config(corpus), trained.workdir)
    told = capsys.readouterr().err
    assert "finished: step 6 of 6" in told
    assert "attention: xla (no fused kernel exists for the CPU)\n" in told
    _same(again.state.params, trained.state.params)
    assert again.metrics == trained.metrics


def test_a_stopped_run_resumes_bit_for_bit(trained, corpus, tmp_path, monkeypatch):
    def stop(step, metrics):
        os.kill(os.getpid(), signal.SIGTERM)
        return f"evaluation after step {step}"

    monkeypatch.setattr(pretraining_run, "_summary", stop)
    with pytest.raises(errors.Stopped, match="SIGTERM .*step 4"):
        pretrain.train(tiny_run.config(corpus), tmp_path)
    monkeypatch.undo()
    resumed = pretrain.train(tiny_run.config(corpus), tmp_path)
    _same(resumed.state, trained.state)
    assert resumed.metrics == trained.metrics
    assert _losses(tmp_path) == _losses(trained.workdir)


@pytest.mark.slow
def test_a_run_of_two_lengths_resumes_bit_for_bit(
    corpus, tmp_path, monkeypatch, capsys
):
    """Stopped after the second of three long steps; rows of 12 come before them."""
    config = tiny_run.config(
        corpus, data__first_seq_length=12, data__first_steps_share=0.5
    )
    config.run.eval_every_steps = 4
    config.data.store = str(tmp_path / "store")
    whole = pretrain.train(config, tmp_path / "whole")
    said = capsys.readouterr().err
    assert "plan: 3 steps of 8 rows of 12 tokens" in said
    assert "plan: 3 steps of 8 rows of 24 tokens" in said

    def stop(step, metrics):
        os.kill(os.getpid(), signal.SIGTERM)
        return f"evaluation after step {step}"

    monkeypatch.setattr(pretraining_run, "_summary", stop)
    with pytest.raises(errors.Stopped, match="SIGTERM .*step 5"):
        pretrain.train(config, tmp_path / "stopped")
    monkeypatch.undo()
    resumed = pretrain.train(config, tmp_path / "stopped")
    _same(resumed.state, whole.state)
    assert resumed.metrics == whole.metrics
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")


def test_two_processes_in_turn_equal_one(trained, corpus, tmp_path):
    """Kill -9 after the save of step 3; a new process goes on."""
    config = json.dumps(tiny_run.config(corpus).to_dict())
    program = (
        "import json, os, signal, sys\n"
        "from bert_jax import pretrain\n"
        "from bert_jax.training import checkpoint\n"
        "save = checkpoint.Checkpoints.save\n"
        "def save_and_die(self, step, *rest):\n"
        "    save(self, step, *rest)\n"
        "    self.wait()\n"
        "    if step == 3 and sys.argv[2] == 'die':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.Checkpoints.save = save_and_die\n"
        f"pretrain.train(json.loads({config!r}), sys.argv[1])\n"
    )
    codes = []
    for how in ("die", "live"):
        command = [sys.executable, "-c", program, str(tmp_path), how]
        codes.append(subprocess.run(command, cwd=ROOT, capture_output=True).returncode)
    assert codes == [-signal.SIGKILL, 0]
    assert any((tmp_path / "compilation_cache").iterdir())
    assert _losses(tmp_path) == _losses(trained.workdir)
    one, other = load(tmp_path), load(trained.workdir)
    _same(one.params, other.params)


def test_evaluate_gives_the_same_numbers_to_the_last_digit(trained):
    assert evaluate.evaluate(trained.workdir) == trained.metrics


def test_a_config_that_changes_the_result_is_refused(trained, corpus):
    config = tiny_run.config(corpus, optimizer__learning_rate=2e-3, run__seed=1)
    before = sorted(trained.workdir.rglob("*"))
    with pytest.raises(errors.InputError) as caught:
        pretrain.train(config, trained.workdir)
    message = str(caught.value)
    assert "optimizer.learning_rate was 0.001 and is 0.002" in message
    assert "run.seed was 0" in message
    assert "--allow_changed_config" in message
    assert sorted(trained.workdir.rglob("*")) == before


def test_a_config_that_changes_no_result_is_accepted(trained, corpus):
    config = tiny_run.config(corpus, run__log_every_steps=2, run__keep_checkpoints=9)
    again = pretrain.train(config, trained.workdir)
    assert again.metrics == trained.metrics


def test_continued_pretraining_starts_from_given_weights(trained, corpus, tmp_path):
    config = tiny_run.config(
        corpus,
        init_from=str(trained.workdir),
        model__size="init_from",
        text__vocab="init_from",
    )
    config.optimizer.learning_rate = 1e-9
    config.run.num_train_steps = 1
    config.optimizer.warmup_steps = 0
    continued = pretrain.train(config, tmp_path)
    pieces = Tokenizer.load(trained.workdir / "tokenizer").vocab_size
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-7),
        network.cut_vocabulary(continued.state.params, pieces),
        network.cut_vocabulary(trained.state.params, pieces),
    )


def test_weights_of_another_shape_are_refused(trained, corpus, tmp_path):
    config = tiny_run.config(
        corpus,
        init_from=str(trained.workdir),
        text__vocab="init_from",
        model__intermediate_size=48,
    )
    with pytest.raises(errors.InputError, match="intermediate_size .*48.*64"):
        pretrain.train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_state(
    corpus, tmp_path, monkeypatch
):
    make = state.make_train_step

    def poisoned(spec, *rest, **options):
        def bad_losses(params, batch, key):
            sums, metrics = spec.losses(params, batch, key)
            bad = jax.numpy.where(batch["poison"].max() > 0, jax.numpy.nan, 0.0)
            return {name: value + bad for name, value in sums.items()}, metrics

        return make(dataclasses.replace(spec, losses=bad_losses), *rest, **options)

    place = pretraining_run.PretrainingRun.put
    seen = []

    def with_poison(self, batch):
        if "instances" not in batch:  # a training batch
            seen.append(len(seen))
            # The first batch is the one that the step is compiled for.
            batch = {**batch, "poison": np.full(8, len(seen) == 6, np.int32)}
        return place(self, batch)

    monkeypatch.setattr(state, "make_train_step", poisoned)
    monkeypatch.setattr(pretraining_run.PretrainingRun, "put", with_poison)
    with pytest.raises(errors.NotFiniteError) as caught:
        pretrain.train(tiny_run.config(corpus), tmp_path)
    message = str(caught.value)
    assert "step 5 " in message and "nan" in message
    (event,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (event["step"], event["event"], event["loss"]) == (5, "not_finite", None)
    assert len(event["examples"]) == 8
    assert f"Its examples are {', '.join(event['examples'])}." in message
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert max(_losses(tmp_path)) == 4


def test_losses_are_those_of_one_device_on_a_mesh_of_every_axis(
    trained, corpus, tmp_path
):
    """Dropout is on; rows, parameters and heads are cut over 8 devices."""
    mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
    config = tiny_run.config(corpus, **mesh)
    config.data.store = str(trained.workdir / "store")
    pretrain.train(config, tmp_path)
    found, expected = _losses(tmp_path), _losses(trained.workdir)
    assert list(found) == list(expected) == [1, 2, 3, 4, 5, 6]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "pack"), [("nsp", True), ("full_sentences", False)]
)
def test_accumulated_steps_equal_the_large_batch(corpus, tmp_path, objective, pack):
    losses = []
    for parts in (1, 4):
        config = tiny_run.config(
            corpus,
            run__accumulation_steps=parts,
            run__num_train_steps=3,
            data__objective=objective,
            data__pack=pack,
            model__hidden_dropout_prob=0.0,
            model__attention_probs_dropout_prob=0.0,
        )
        config.data.store = str(tmp_path / "store")
        pretrain.train(config, tmp_path / str(parts))
        losses.append(list(_losses(tmp_path / str(parts)).values()))
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "data__objective": "sop",
            "optimizer__name": "lamb",
            "data__pack": True,
            "data__first_seq_length": 12,
            "data__first_steps_share": 0.5,
            "run__accumulation_steps": 2,
        },
        {
            "text__tokenizer": "sentencepiece-unigram",
            "text__vocab_size": 120,
            "text__segmenter": "jieba",
            "data__whole_word": True,
            "data__max_ngram": 3,
            "run__dtype": "bfloat16",
            "run__remat": "dots",
            "optimizer__schedule": "wsd",
            "optimizer__warmup_steps": 1,
            "data__loader": "tfdata",
        },
    ],
    ids=["sop-lamb-packed-two-lengths", "sentencepiece-jieba-ngrams-bfloat16-tfdata"],
)
def test_other_recipes_run(corpus, tmp_path, changes):
    config = tiny_run.config(corpus, run__num_train_steps=2, **changes)
    trained = pretrain.train(config, tmp_path)
    assert 0 < trained.metrics["eval/mlm_loss"] < 10


def test_epochs_instead_of_steps(trained, corpus):
    config = tiny_run.config(corpus, run__num_train_steps=-1, run__num_train_epochs=2.5)
    settings, folder = pretraining.parse(config), trained.workdir / "store"
    run = pretraining_run.assemble(settings, folder, trained.workdir)
    rows = run.phases[0].rows.num_rows
    assert run.num_train_steps == round(2.5 * rows / 8)


def test_the_sum_of_a_shard_is_looked_at_once_in_a_run(trained, corpus, monkeypatch):
    settings = pretraining.parse(tiny_run.config(corpus))
    workdir = trained.workdir
    run = pretraining_run.assemble(settings, workdir / "store", workdir)
    seen, sha256 = [], files.sha256
    monkeypatch.setattr(
        files, "sha256", lambda path: seen.append(path.name) or sha256(path)
    )
    assert run.phases and run.held_out
    assert sorted(seen) == ["heldout-00000.arrow", "train-00000.arrow"]
