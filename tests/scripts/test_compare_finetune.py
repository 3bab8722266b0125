"""scripts/compare/finetune.py: torch does the same steps, and results are kept."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_tasks

from bert_jax import errors, finetune
from bert_jax.config import finetuning
from bert_jax.runs import finetuning as finetuning_run

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "compare"
sys.path.insert(0, str(SCRIPTS))
import finetune as compare_finetune  # noqa: E402
import finetune_cases_lib  # noqa: E402
import torch_finetune_lib  # noqa: E402

sys.path.remove(str(SCRIPTS))

# Without dropout, so that both draw nothing; a head that is given, for the same reason.
EXACT = {
    "model__hidden_dropout_prob": 0.0,
    "model__attention_probs_dropout_prob": 0.0,
    "head__dropout": 0.0,
    "init__head": "given",
    "model__size": "init_from",
    "text__vocab": "init_from",
    "data__num_lengths": 1,
    "run__num_train_steps": 7,
    "optimizer__weight_decay": 0.3,
    "optimizer__max_grad_norm": 0.5,
    "optimizer__warmup_fraction": 0.3,
}
HEADS = {
    "classification": ("BertForSequenceClassification", ("cat", "dog")),
    "regression": ("BertForSequenceClassification", ("score",)),
    "tagging": ("BertForTokenClassification", ("O", "B-PET", "I-PET")),
    "srl": ("BertForTokenClassification", ("O", "ARG0", "ARG1", "V")),
    "span": ("BertForQuestionAnswering", ("start", "end")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a vocabulary and files of every task."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_tasks.write_vocab(folder)
    for name, count, seed in (("train", 45, 0), ("dev", 21, 1)):
        tiny_tasks.write_classes(folder / f"{name}.classification", count, seed)
        rng = random.Random(seed)
        rows = [rng.choices(tiny_tasks.WORDS, k=rng.randint(3, 9)) for _ in range(20)]
        for task, lines in _files(rows).items():
            (folder / f"{name}.{task}").write_text(lines, encoding="utf-8")
    return folder


def _files(rows):
    """Returns, for each task, a file of rows of words."""
    scored = [f"{' '.join(row)}\t{row.count('the')}\n" for row in rows]
    tags = {"cat": "B-PET", "dog": "B-PET", "sat": "I-PET"}
    tagged = []
    for row in rows:
        said, before = [], "O"
        for word in row:
            tag = tags[word] if word in tags else "O"
            before = "O" if tag == "I-PET" and before == "O" else tag
            said.append(f"{word} {before}\n")
        tagged.append("".join(said) + "\n")
    questions = []
    for number, row in enumerate(rows):
        context = " ".join(row)
        answer = {"text": row[1], "answer_start": len(row[0]) + 1}
        none = number % 3 == 0
        qa = {"id": str(number), "question": f"{row[0]} ?", "is_impossible": none}
        qa["answers"] = [] if none else [answer]
        questions.append({"context": context, "qas": [qa]})
    squad = {"version": "2.0", "data": [{"title": "", "paragraphs": questions}]}
    return {
        "regression": "sentence\tscore\n" + "".join(scored),
        "tagging": "".join(tagged),
        "srl": "".join(map(_conllu, rows)),
        "span": json.dumps(squad),
    }


def _conllu(row):
    """Returns a sentence whose last word is the predicate, with two roles."""
    lines = []
    for at, word in enumerate(row):
        last = at == len(row) - 1
        role = "ARG0" if at == 0 else "ARG1" if at == 1 and not last else "_"
        cells = [str(at + 1), word, *"_" * 8, "go.01" if last else "_", role]
        lines.append("\t".join(cells) + "\n")
    return "".join(lines) + "\n"


def _settings(place, task, **changes):
    values = {
        "data__task": task,
        "data__train": str(place / f"train.{task}"),
        "data__dev": str(place / f"dev.{task}"),
        "data__format": {"tagging": "conll", "srl": "conllu", "span": "squad"}.get(
            task, "tsv"
        ),
    }
    return tiny_tasks.config(place, **values | changes)


def _assembled(config):
    settings = finetuning.parse(config)
    return finetuning_run.assemble(settings, Path())


@pytest.fixture(scope="module")
def folder(place):
    """Returns a function that saves a small model of `transformers` with a head."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def save(task):
        name, labels = HEADS[task]
        config = transformers.BertConfig(
            vocab_size=len(tiny_tasks.PIECES),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=24,
            id2label=dict(enumerate(labels)),
            label2id={label: at for at, label in enumerate(labels)},
            initializer_range=0.1,
        )
        torch.manual_seed(5)
        made = place / f"model_{task}"
        getattr(transformers, name)(config).save_pretrained(made)
        tiny_tasks.write_vocab(made)
        return made

    return save


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        ("classification", {"recipe__average_decay": 0.8, "head__pooling": "mean"}),
        ("srl", {}),
        ("span", {"recipe__adversarial_epsilon": 0.7}),
        *(
            pytest.param(task, recipe, marks=pytest.mark.slow)
            for task, recipe in (
                ("classification", {}),
                ("regression", {}),
                ("tagging", {}),
                ("span", {}),
                ("regression", {"head__pooling": "mean", "recipe__frozen_layers": 0}),
            )
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_torch_does_the_same_steps(place, folder, task, recipe):
    start = str(folder(task))
    run = _assembled(_settings(place, task, init_from=start, **EXACT, **recipe))
    ours = compare_finetune.ours(run, 7).predictions(3)
    theirs = torch_finetune_lib.predictions(run, 3, 7)
    assert _apart(ours, theirs) < 2e-4
    if not recipe:  # the order of the rows is seen
        otherwise = torch_finetune_lib.predictions(run, 4, 7)
        assert _apart(otherwise, theirs) > 2e-3


@pytest.mark.slow
def test_ours_is_what_the_command_trains(place):
    changes = {
        "data__num_lengths": 1,
        "run__num_train_steps": 11,
        "run__eval_every_steps": 11,
    }
    config = _settings(place, "regression", model__hidden_dropout_prob=0.2, **changes)
    made = finetune.train(config, place / "command")
    run = _assembled(config)
    said = compare_finetune.ours(run, 11).predictions(0)
    metrics = run.task.score(run.dev.examples, said).metrics
    # Two programs, as the seed of one is a constant: rounding may differ.
    found = {f"dev/{name}": x for name, x in metrics.items()}
    assert found == pytest.approx(made.metrics, rel=1e-4)


def test_a_loss_that_is_not_finite_is_an_error(place):
    made = compare_finetune.ours(_assembled(_settings(place, "classification")), 2)
    broken = dataclasses.replace(
        made, step=lambda now, *_: (now, {"finite": np.array([False])})
    )
    with pytest.raises(errors.NotFiniteError, match="step 1"):
        broken.predictions(0)


def test_labels_are_on_first_subwords():
    batch = {
        "input_ids": np.zeros((2, 5), np.int32),
        "token_positions": np.array([[1, 3, 0, 0, 0], [2, 0, 0, 0, 0]]),
        "token_weights": np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], np.float32),
        "labels": np.array([[7, 8, 0, 0, 0], [9, 0, 0, 0, 0]]),
    }
    wanted = [[-100, 7, -100, 8, -100], [-100, -100, 9, -100, -100]]
    assert torch_finetune_lib.on_first_subwords(batch).tolist() == wanted


def test_padding_rows_are_removed():
    batch = {name: np.ones((3, 4), np.int32) for name in ("input_ids", "segment_ids")}
    batch["token_type_ids"] = np.zeros((3, 4), np.int32)
    batch |= {"labels": np.arange(3), "weights": np.array([1, 1, 0], np.float32)}
    made = torch_finetune_lib.inputs(batch)
    assert made["labels"].tolist() == [0, 1]
    assert made["attention_mask"].shape == (2, 4) and "segment_ids" not in made


CASE = finetune_cases_lib.Case("sst2", "", "accuracy", {"data.train": "a"})
STARTS = {"ours": {"init_from": "A"}, "torch": {"init_from": "A"}}


class _Run:
    """A fake run whose metric is the predicted number."""

    settings = dev = task = None

    def __init__(self):
        self.dev = self.task = self
        self.examples = []

    def score(self, examples, said):
        del examples
        self.metrics = {"accuracy": said}
        return self


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Returns a function that measures, and the runs that it did."""
    done = []

    def prepared(case, side, data, start, made):
        def trained(seed):
            done.append((side, seed))
            return 0.5 + 0.1 * seed + (0.25 if side == "ours" else 0.0)

        return _Run(), trained

    monkeypatch.setattr(compare_finetune, "_prepared", prepared)

    def measure(case=CASE, seeds=2):
        cases = [(case, STARTS)]
        results = tmp_path / "results.jsonl"
        return list(compare_finetune.measure(cases, seeds, tmp_path, results))

    return measure, done, tmp_path / "results.jsonl"


def test_finished_runs_are_not_repeated(measured):
    measure, done, results = measured
    first = measure()
    assert done == [("ours", 0), ("torch", 0), ("ours", 1), ("torch", 1)]
    results.write_text(results.read_text()[:-20])  # as a kill leaves it
    again = measure(seeds=3)
    assert done[4:] == [("torch", 1), ("ours", 2), ("torch", 2)]
    assert again[:3] == first[:3] and measure(seeds=3) == again


def test_a_changed_recipe_is_run_again(measured):
    measure, done, _ = measured
    measure()
    changed = dataclasses.replace(CASE, values={"data.train": "b"})
    measure(changed)
    assert len(done) == 8


def test_the_table_has_means_deviations_and_a_verdict(measured):
    lines = compare_finetune.table(measured[0](), ("ours", "torch")).splitlines()
    assert lines[0].startswith("| data set | metric | ours | torch |")
    assert lines[2].startswith(
        "| SST-2 | accuracy | 80.00 ± 7.07 | 55.00 ± 7.07 | 0 | 0 | better by 25.00 |"
    )
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([90.0, 91.0, 92.0], [91.0, 91.1, 91.2], "no difference"),
        ([90.0, 91.0, 92.0], [92.5, 92.6, 92.4], "worse by 1.50"),
        ([93.0], [92.0], "better by 1.00"),
        ([92.0], [92.0], "no difference"),
    ],
)
def test_verdicts(first, second, expected):
    assert compare_finetune.verdict(first, second) == expected


def test_every_case_is_a_configuration(tmp_path):
    for case in (*finetune_cases_lib.ENGLISH, *finetune_cases_lib.CHINESE):
        made = finetune_cases_lib.settings(case, tmp_path, {"init_from": "A"})
        assert made.data.train.startswith(str(tmp_path)), case.name


def test_names_that_are_unknown_and_nothing_to_do_are_errors():
    chosen = compare_finetune.chosen
    cases = chosen("A", "", ["cola", "topic"], [])
    assert [case.name for case, _ in cases] == ["cola"]
    for arguments, datum in (
        (("A", "", ["sst"], []), "--only: .*'sst'"),
        (("A", "", [], ["jax"]), "--sides: .*'jax'"),
        (("A", "", ["topic"], []), "--zh_model"),
    ):
        with pytest.raises(errors.InputError, match=datum):
            chosen(*arguments)


def _apart(one, other):
    """Returns the largest difference of any number that is predicted."""
    pairs = zip(_numbers(one), _numbers(other), strict=False)
    return max(abs(a - b) for a, b in pairs)


def _numbers(made):
    if isinstance(made, dict):
        made = list(made.values())
    if isinstance(made, list):
        return [x for part in made for x in _numbers(part)]
    return [made] if isinstance(made, float) else []


def test_parallel_cases_share_no_core_and_a_failure_is_the_exit_code(monkeypatch):
    cores = os.sched_getaffinity(0)
    started = []

    def run(command, **_):
        started.append((command[-2:], os.sched_getaffinity(0)))
        failed = command[-2] == "--only=cola"
        return subprocess.CompletedProcess(command, 3 if failed else 0)

    monkeypatch.setattr(subprocess, "run", run)
    cases = finetune_cases_lib.ENGLISH[:2]
    with pytest.raises(SystemExit) as ended:
        compare_finetune.in_parallel(cases, 2)
    assert ended.value.code == 3
    assert sorted(words for words, _ in started) == [
        ["--only=cola", "--jobs=1"],
        ["--only=sst2", "--jobs=1"],
    ]
    assert all(own <= cores for _, own in started)
    if len(cores) > 1:
        assert all(own != cores for _, own in started)
    assert os.sched_getaffinity(0) == cores
