"""Fine-tuning from files to scores: what it leaves, resuming, keeping the best."""

import json

import jax
import numpy as np
import pytest
import tiny_tasks

import bert_jax
from bert_jax import errors, evaluate, finetune
from bert_jax.checkpoints import native
from bert_jax.config import finetuning
from bert_jax.inference import answer, inputs
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.tasks import spec
from bert_jax.training import logs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a vocabulary and files of classes."""
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 64, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 30, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(place):
    workdir = place / "run"
    made = finetune.train(tiny_tasks.config(place), workdir)
    return made, workdir


def _best(workdir):
    made = native.read_task(workdir)
    return made.params


def _same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def _metrics(workdir):
    lines = (workdir / logs.METRICS).read_text().splitlines()
    speed = ("tokens_per_second", "mfu", "input_wait", "save_wait")
    timed = {f"train/{name}" for name in speed}
    return [{k: v for k, v in json.loads(x).items() if k not in timed} for x in lines]


def test_it_learns_and_leaves_what_the_design_says(trained):
    made, workdir = trained
    assert made.metrics["dev/accuracy"] == 1.0
    assert made.folder == workdir / "best" / made.folder.name
    for name in ("config.json", "metrics.jsonl", "curves.png", "tokenizer/vocab.txt"):
        assert (workdir / name).is_file(), name
    scores = json.loads((workdir / "eval" / "dev.json").read_text())
    assert scores["metrics"]["accuracy"] == 1.0
    assert (workdir / "eval" / "dev_confusion.png").is_file()
    said = (workdir / "predictions" / "dev.jsonl").read_text().splitlines()
    assert len(said) == 30 and json.loads(said[0])["label"] in ("cat", "dog")


def test_a_second_start_says_that_it_is_finished(trained, place, capsys):
    again = finetune.train(tiny_tasks.config(place), trained[1])
    told = capsys.readouterr().err
    assert "this run is finished: step 40 of 40" in told
    assert "\nattention: xla (no fused kernel exists for the CPU)\n" in told
    assert again == trained[0]


def test_the_record_of_an_earlier_version_lacks_keys_and_is_read(trained, place):
    path = trained[1] / "config.json"
    before = json.loads(path.read_text())
    earlier = json.loads(path.read_text())
    del earlier["data"]["pack"], earlier["model"]["tie_word_embeddings"]
    path.write_text(json.dumps(earlier))
    assert finetune.train(tiny_tasks.config(place), trained[1]) == trained[0]
    assert json.loads(path.read_text()) == before


def test_a_stopped_run_resumes_bit_for_bit(trained, place, monkeypatch):
    workdir = place / "stopped"

    def stop(self, step, *rest):
        if step == 20:
            raise errors.Stopped("here")
        return call(self, step, *rest)

    call = finetuning_run.FinetuningRun.evaluate
    monkeypatch.setattr(finetuning_run.FinetuningRun, "evaluate", stop)
    with pytest.raises(errors.Stopped):
        finetune.train(tiny_tasks.config(place), workdir)
    monkeypatch.setattr(finetuning_run.FinetuningRun, "evaluate", call)
    made = finetune.train(tiny_tasks.config(place), workdir)
    assert made.metrics == trained[0].metrics
    assert _same(_best(workdir), _best(trained[1]))
    assert _metrics(workdir) == _metrics(trained[1])


def test_a_config_that_changes_the_result_is_refused(trained, place):
    config = tiny_tasks.config(place, optimizer__learning_rate=1e-3)
    with pytest.raises(errors.InputError, match=r"learning_rate was 0\.005"):
        finetune.train(config, trained[1])


def test_a_warm_up_is_compared_with_the_steps_of_the_run(place, tmp_path):
    def assemble(steps, **changes):
        config = tiny_tasks.config(
            place,
            run__num_train_steps=-1,
            run__num_train_epochs=2.0,  # 64 examples in batches of 8: 16 steps
            optimizer__warmup_steps=steps,
            **changes,
        )
        settings = finetuning.parse(config)
        return finetuning_run.assemble(settings, tmp_path)

    _, rate = assemble(16).make_optimizer(16)
    assert float(rate(8)) == pytest.approx(2.5e-3)
    with pytest.raises(errors.InputError, match=r"is 17: .*\(16\)"):
        assemble(17)
    with pytest.raises(errors.InputError, match=r"is 16: .*\(8\)"):
        assemble(16, sweep__folds=2, data__dev="")


def test_python_and_evaluate_say_what_training_said(trained, place):
    made, workdir = trained
    model = bert_jax.load(workdir)
    said = model.predict(["the cat sat here", "那狗跑"])
    assert [one["label"] for one in said] == ["cat", "dog"]
    assert sum(said[0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    request = inputs.AnswerRequest(input=str(place / "dev.tsv"))
    scores, path = evaluate.evaluate_task(workdir, request, "again")
    wanted = {n.removeprefix("dev/"): x for n, x in made.metrics.items()}
    assert scores.metrics == pytest.approx(wanted, abs=1e-6)
    assert path == workdir / "eval" / "again.json" and path.is_file()
    assert model.encode(["the cat"]).shape == (1, 32)


def test_dev_and_test_may_have_labels_that_training_has_not(place, tmp_path, capsys):
    head = (place / "dev.tsv").read_text()
    (tmp_path / "dev.tsv").write_text(f"{head}the cat\tbird\n")
    (tmp_path / "test.tsv").write_text(f"{head}a dog\tfish\na dog\tfish\n")
    paths = {f"data__{name}": str(tmp_path / f"{name}.tsv") for name in ("dev", "test")}
    config = tiny_tasks.config(place, run__num_train_steps=10, **paths)
    made = finetune.train(config, tmp_path / "run")
    err = capsys.readouterr().err
    assert "bird (1)" in err
    assert "fish (2)" in err
    scores = json.loads((tmp_path / "run" / "eval" / "test.json").read_text())
    assert scores["unseen_labels"] == {"fish": 2}
    assert scores["confusion"]["counts"][2][2] == 0
    assert made.metrics["dev/accuracy"] <= 30 / 31


@pytest.mark.slow
def test_training_goes_on_from_a_fine_tuned_model(trained, place, capsys):
    config = tiny_tasks.config(
        place, run__num_train_steps=1, optimizer__learning_rate=1e-9
    )
    config.init_from = str(trained[1])
    for key in ("hidden_size", "num_attention_heads", "intermediate_size"):
        config.model[key] = None
    config.model.max_position_embeddings = None
    config.model.initializer_range = None
    config.model.size = "init_from"
    config.text.vocab = "init_from"
    config.init.head = "given"
    made = finetune.train(config, place / "more")
    err = capsys.readouterr().err
    assert "randomly initialized: nothing; ignored: nothing" in err
    assert made.metrics["dev/accuracy"] == 1.0
    config.init.head = "fresh"
    finetune.train(config, place / "fresh")
    err = capsys.readouterr().err
    assert "randomly initialized: classifier; ignored: classifier" in err


def test_a_run_without_progress_ends_early(place, capsys):
    config = tiny_tasks.config(
        place, optimizer__learning_rate=1e-9, run__patience=2, run__eval_every_steps=3
    )
    workdir = place / "patient"
    finetune.train(config, workdir)
    assert "accuracy in 2 evaluations" in capsys.readouterr().err
    assert _metrics(workdir)[-1]["step"] == 9
    finetune.train(config, workdir)
    assert "step 9 of 40" in capsys.readouterr().err


def test_the_best_model_is_kept_by_the_named_metric(place, monkeypatch):
    values = iter([0.5, 0.9, 0.7, 0.8])

    def scores(self, *arguments):
        made = call(self, *arguments)
        value = next(values, 0.0)
        return (made[0].__class__({**made[0].metrics, "ece": value}), made[1])

    call = answer.Predictor.scores
    monkeypatch.setattr(answer.Predictor, "scores", scores)
    config = tiny_tasks.config(place, run__keep_best="ece")
    made = finetune.train(config, place / "by_ece")
    assert made.folder.name == "10"  # the lowest error
    with pytest.raises(errors.InputError, match="keep_best is 'f2'"):
        finetune.train(tiny_tasks.config(place, run__keep_best="f2"), place / "no")


LONGER = {"run__num_train_steps": 120, "run__eval_every_steps": 40}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {
                "head__pooling": "mean",
                "recipe__r_drop": 1.0,
                "recipe__label_smoothing": 0.1,
                "data__dev": "",
                "data__dev_share": 0.3,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "head__pooling": "bilstm",
                "head__recurrent_size": 16,
                "recipe__focal_gamma": 2.0,
                "recipe__class_weights": "balanced",
                "recipe__average_decay": 0.9,
                "recipe__layer_decay": 0.9,
            },
            marks=pytest.mark.slow,
        ),
        {"recipe__lora_rank": 4},
        pytest.param(
            {"recipe__adversarial_epsilon": 0.5, "run__accumulation_steps": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "recipe__reinit_layers": 1,
                "recipe__frozen_layers": 1,
                "data__dev": "",
                "data__folds": 3,
                "data__fold": 1,
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda changes: next(iter(changes)).split("__")[1],
)
def test_every_recipe_trains_and_its_model_is_read_back(place, tmp_path, changes):
    changes = LONGER | changes
    made = finetune.train(tiny_tasks.config(place, **changes), tmp_path / "run")
    assert made.metrics["dev/accuracy"] >= 0.8
    (said,) = bert_jax.load(tmp_path / "run").predict(["the cat sat"])
    assert said["label"] == "cat"


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({}, None),
        ({"head__pooling": "mean"}, "classifier"),
        ({"data__task": "tagging"}, None),
        ({"data__task": "tagging", "head__crf": True}, "crf,tagger"),
        ({"data__task": "matching", "head__pooling": "mean"}, None),
    ],
)
def test_a_head_that_cannot_be_exported_is_reported(place, capsys, changes, ignored):
    settings = finetuning.parse(tiny_tasks.config(place, **changes))
    learned = spec.Metadata(("O", "B-A", "I-A"), scheme="BIO")
    finetuning_run.check_exports(settings, learned, "bert")
    shown = capsys.readouterr().err
    assert (f"--ignore={ignored})" in shown) if ignored else shown == ""
    assert ("--separate_head" in shown) == (ignored == "classifier")
