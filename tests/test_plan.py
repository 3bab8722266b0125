"""The command `plan`: its last two lines, its errors, and comparisons."""

from pathlib import Path

import command_line
import pytest
import tiny_run

from bert_jax import plan
from bert_jax.planning import topology

ROOT = Path(__file__).resolve().parents[1]
LARGE = f"--config={ROOT}/configs/pretrain.py:large"


@pytest.fixture(autouse=True)
def by_formula(monkeypatch):
    """Plans for GPUs by formula, also where they could be compiled."""
    monkeypatch.setattr(topology, "has_cuda_compiler", lambda: False)


@pytest.mark.parametrize(("rows", "bound"), [(1024, "compute"), (64, "memory")])
def test_the_last_two_lines_are_the_verdict(monkeypatch, capfd, rows, bound):
    arguments = (LARGE, "--topology=h100:8", f"--config.run.batch_size={rows}")
    done = command_line.in_process(monkeypatch, capfd, "plan", *arguments)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-2:] == ["fits: yes", f"bound by: {bound}"]
    assert "24 layers of width 1024, 336,297,858 parameters" in done.out


def test_if_a_run_does_not_fit_a_change_is_suggested(monkeypatch, capfd):
    arguments = (LARGE, "--topology=a100-40gb", "--config.run.batch_size=1024")
    done = command_line.in_process(monkeypatch, capfd, "plan", *arguments)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-2] == "fits: no"
    assert "to make it fit: --config.run.accumulation_steps=" in done.out


def test_variants_side_by_side(monkeypatch, capfd):
    variants = "a100:8,run.remat=full;run.batch_size=512,h200:4;mesh.fsdp=4"
    arguments = (LARGE, "--topology=h100:8", f"--compare={variants}")
    done = command_line.in_process(monkeypatch, capfd, "plan", *arguments)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "h100:8",
        "a100:8",
        "run.remat=full;run.batch_size=512",
        "h200:4;mesh.fsdp=4",
    ]
    assert lines[-2:] == ["fits: yes", "bound by: memory"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((LARGE, "--topology=v9:4x4"), "'v9:4x4'"),
        ((LARGE, "--topology=h100", "--compare=run.sead=1"), "run.seed?"),
        ((LARGE, "--topology=h100", "--compare=v9:2x2"), "'v9:2x2'"),
        (("--topology=h100",), "--config"),
        ((LARGE, "--topology=h100:7"), "run.batch_size"),
    ],
)
def test_errors_are_one_message(monkeypatch, capfd, arguments, part):
    done = command_line.in_process(monkeypatch, capfd, "plan", *arguments)
    assert done.code == 2
    assert part in done.message


def test_without_libtpu_the_extra_is_named(monkeypatch, capfd):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    arguments = (LARGE, "--topology=v5e:2x2")
    done = command_line.in_process(monkeypatch, capfd, "plan", *arguments)
    assert done.code == 2
    assert 'pip install "bert_jax[tpu]"' in done.message


def test_a_step_is_compiled_for_this_machine(monkeypatch):
    """From Python, with the step of a small run; each compilation is logged."""
    tree = tiny_run.config(
        Path("unread"), model__num_hidden_layers=1, mesh__data=8
    ).to_dict()
    monkeypatch.setattr(topology, "_seconds", lambda function, argument: 0.5)
    logged = []
    text = plan.text(tree, "here", confirm=False, log=logged.append)
    assert logged[0].startswith("compiling")
    assert "here: 1 layers of width 32" in logged[0]
    assert "float32, measured now" in text
    assert text.splitlines()[-2:] == ["fits: yes", "bound by: memory"]
