"""Bad initial weights of fine-tuning runs."""

import pytest
import small_inputs
import tiny_models


@pytest.fixture
def finetune(shell, tasks, tmp_path):
    """Starts a run that must end with exit code 2, one message, and no files."""

    def run(*arguments, config=tasks / "tiny.py"):
        before = small_inputs.files(tmp_path)
        done = shell(
            "finetune",
            f"--config={config}",
            f"--workdir={tmp_path / 'run'}",
            *arguments,
        )
        assert (done.code, done.out) == (2, ""), done.err
        assert small_inputs.files(tmp_path) == before
        assert not (tmp_path / "run").exists()
        return done.message

    return run


@pytest.fixture
def given(finetune, tmp_path):
    """Starts a run from a folder with weights."""

    def run(folder, *changes):
        (tmp_path / "given.py").write_text(
            "from bert_jax.config import finetuning\n"
            "def get_config():\n"
            "    config = finetuning.default()\n"
            "    config.mesh.data, config.data.max_seq_length = 1, 24\n"
            "    return config\n"
        )
        return finetune(
            f"--config.init_from={folder}",
            *(f"--config.{change}" for change in changes),
            config=tmp_path / "given.py",
        )

    return run


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("nope", [], "nope"),
        ("empty", [], "empty"),
        ("span", ["init.head=given"], "span"),
        ("span", ["model.num_hidden_layers=3"], "model.num_hidden_layers is 3"),
        ("span", ["data.max_seq_length=32"], "24 positions"),
        ("span", ["recipe.reinit_layers=3"], " 2"),
        ("span", ["recipe.lora_rank=2"], "pooler"),
    ],
)
def test_weights_to_start_from(given, tasks, tmp_path, kind, changes, words):
    (tmp_path / "empty").mkdir()
    if kind == "span":
        tiny_models.write_model(tasks, tmp_path / "span", "span")
    files = (f"data.train={tasks / 'train.tsv'}", f"data.dev={tasks / 'dev.tsv'}")
    assert words in given(tmp_path / kind, *files, *changes)
