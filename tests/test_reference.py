"""--help and the pages of the docs list every key, as the code has it."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import command_line
import pytest

from bert_jax.config import finetuning, pretraining

DOCS = Path(__file__).resolve().parents[1] / "docs"
REGENERATE = "python docs/write_config.py"
PAGES = SimpleNamespace(**runpy.run_path(str(DOCS / "write_config.py")))


def _leaves(tree, prefix=""):
    for name, value in tree.items():
        inner = isinstance(value, dict)
        yield from _leaves(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


KEYS = {
    "pretrain": list(_leaves(pretraining.default().to_dict())),
    "finetune": list(_leaves(finetuning.default().to_dict())),
}


def test_the_english_page_is_that_of_the_code():
    written = (DOCS / "en" / "config.md").read_text(encoding="utf-8")
    assert written == PAGES.page("en"), f"run {REGENERATE}"


def test_the_chinese_page_has_the_keys_of_the_code_and_meanings_in_chinese():
    written = (DOCS / "zh" / "config.md").read_text(encoding="utf-8")
    meanings = PAGES.read_meanings(written)
    assert written == PAGES.page("zh", meanings), f"run {REGENERATE}"
    lacking = [x for x, words in meanings.items() if not re.search("[一-龥]", words)]
    assert not lacking


def test_a_meaning_that_is_missing_is_reported(tmp_path, capsys):
    path = tmp_path / "zh" / "config.md"
    path.parent.mkdir()
    path.write_text(PAGES.page("zh", {"预训练:run.seed": "随机|种子"}), "utf-8")
    PAGES.write(path, "zh")
    reported = capsys.readouterr().err
    assert f"{path}: 预训练:run.dtype has no meaning yet\n" in reported
    assert "预训练:run.seed" not in reported
    assert "| 随机\\|种子 |" in path.read_text("utf-8")


def test_the_pages_list_every_key():
    listed = PAGES.read_meanings(PAGES.page("en"))
    assert {f"Pretraining:{key}" for key in KEYS["pretrain"]} <= listed.keys()
    tuned = {f"Fine-tuning:{key}" for key in KEYS["finetune"]}
    architecture = {f"Fine-tuning:model.{name}" for name in pretraining.MODEL_KEYS}
    assert tuned - architecture <= listed.keys()
    assert {"Suites:folder", "Suites:tasks"} <= listed.keys()
    assert all(listed.values())


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_help_lists_every_key(monkeypatch, capfd, command):
    out = command_line.in_process(monkeypatch, capfd, command, "--help").out
    listed = re.findall(r"^  ([a-z_]\w*(?:\.\w+)*)$", out, re.M)
    assert set(KEYS[command]) <= set(listed)
    words = " ".join(out.split())
    assert "run.seed Seed of initialization, data order" in words
    assert "(int, from 0 to 2147483647; default: 0)" in words
    assert ("read by span)" in words) == (command == "finetune")
    rate = {"pretrain": "0.0001", "finetune": "3e-05"}[command]
    assert f"(float, above 0 and at most 1; default: {rate})" in words


def test_help_of_prepare_lists_the_groups_that_it_reads(monkeypatch, capfd):
    out = command_line.in_process(monkeypatch, capfd, "prepare", "--help").out
    assert "  data.corpus\n" in out and "  text.vocab\n" in out
    assert "run.seed\n" not in out and "optimizer.beta1\n" not in out


def test_values_are_intervals_and_choices():
    page = PAGES.page("en")
    assert "| `optimizer.beta1` | float | `0.9` | [0, 1) |" in page
    assert "| `run.batch_size` | int | `256` | ≥ 1 |" in page
    assert "| `data.workers` ↻ | int | `-1` | ≥ 1, `-1` |" in page
    assert "| `data.task` | str | `classification` | `classification`, `reg" in page
    assert "| Tokens of the longest answer. | `span` |" in page
    assert "| `data.loader` ↻ | str | `tfdata` | `tfdata`, `thread` |" in page
