"""scripts/bench/speedrun.py: recipes in the same time, or in as many steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax import errors

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "speedrun.py"
sys.path.insert(0, str(SCRIPT.parent))
import speedrun as bench_speedrun  # noqa: E402

sys.path.remove(str(SCRIPT.parent))
CONFIG = """
from bert_jax.config import pretraining

def get_config():
    config = pretraining.default()
    config.model.size = "tiny"
    config.model.num_hidden_layers = 1
    config.data.corpus = r"text:{corpus}"
    config.data.held_out_fraction = 0.2
    config.data.max_seq_length = 16
    config.text.vocab_size = 80
    config.optimizer.warmup_steps = 1
    config.run.batch_size = 8
    return config
"""


def _run(folder, *more):
    arguments = [
        f"--config={folder / 'tiny.py'}",
        f"--results={folder / 'runs.jsonl'}",
        f"--plot={folder / 'curves.png'}",
        "--evaluations=2",
        *more,
    ]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True
    )


def _config(folder):
    corpus = folder / "corpus.txt"
    documents = [
        "\n".join(f"the {word} of day {day} is read" for word in ("river", "book"))
        for day in range(60)
    ]
    corpus.write_text("\n\n".join(documents))
    (folder / "tiny.py").write_text(CONFIG.format(corpus=corpus))


def _lines(folder):
    return [json.loads(x) for x in (folder / "runs.jsonl").read_text().splitlines()]


def test_runs_are_scored_drawn_and_not_repeated(tmp_path):
    _config(tmp_path)
    same = ("--steps=6", "--seeds=0,1", "--variant=as it is:")
    done = _run(tmp_path, *same)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    first = _lines(tmp_path)
    assert [(run["seed"], len(run["points"])) for run in first] == [(0, 2), (1, 2)]
    assert [point["step"] for point in first[0]["points"]] == [3, 6]
    scores = [run["points"][-1]["metrics"]["eval/mlm_loss"] for run in first]
    assert scores[0] != scores[1]

    done = _run(tmp_path, *same, "--variant=Muon: optimizer.name=muon")
    assert done.returncode == 0, done.stderr[-3000:]
    both = _lines(tmp_path)
    assert both[:2] == first
    assert [run["name"] for run in both] == ["as it is"] * 2 + ["Muon"] * 2
    loss = sum(run["points"][-1]["metrics"]["eval/mlm_loss"] for run in both[2:]) / 2
    (row,) = [x for x in done.stdout.splitlines() if x.split()[:2] == ["Muon", "2"]]
    assert f"{loss:.3f}" in row


@pytest.mark.slow
def test_a_run_has_as_many_steps_as_fit(tmp_path):
    _config(tmp_path)
    done = _run(tmp_path, "--minutes=0.05")
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = _lines(tmp_path)
    assert len(run["points"]) == 2 and run["points"][-1]["step"] > 2


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("Muon: optimizer.nam=muon", "Did you mean optimizer.name?"),
        ("Muon: optimizer.name=moun", "optimizer.name is 'moun'"),
        ("Muon: run.batch_size=many", "run.batch_size=many"),
        ("Muon", "NAME: key=value"),
        ("Muon: optimizer.name", "KEY=VALUE"),
    ],
)
def test_a_wrong_variant_is_refused(tmp_path, variant, expected):
    _config(tmp_path)
    with pytest.raises(errors.InputError) as raised:
        bench_speedrun.check(
            str(tmp_path / "tiny.py"), [bench_speedrun.read_variant(variant)]
        )
    assert expected in str(raised.value)
