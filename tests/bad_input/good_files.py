"""A folder of good files of every format, which the cases copy and damage."""

import shutil
from pathlib import Path

import jax
import numpy as np
import sentencepiece
import small_inputs
import small_weights
import tiny_models
import tiny_run
import tiny_tasks

from bert_jax.checkpoints import huggingface, native, run_folder, tensorflow1
from bert_jax.config import pretraining
from bert_jax.runs import corpus_store, workdirs
from bert_jax.runs import pretraining as pretraining_run
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint

MODELS = ("classification", "tagging", "span", "matching", "multiple_choice")
_CONTROL = "[PAD],[CLS],[SEP],[MASK]"


def make(inputs: Path) -> Path:
    """Fills an empty folder.

    `text/` has a corpus, its store, a vocabulary and the workdir of a run; `tasks/` has
    labeled files and a model of each task; `published/`, `export/` and `google/` have
    one model in the formats of Hugging Face, this package and Google; `json/` has a
    tokenizer.
    """
    _write_text(inputs / "text")
    _write_tasks(inputs / "tasks")
    _write_models(inputs)
    _write_sentencepiece(inputs)
    _write_json(inputs / "json")
    return inputs


def write_config(path: Path, module: str, call: str) -> None:
    """Writes a config file that calls a module of the tests."""
    tests = str(Path(tiny_run.__file__).parent)
    path.write_text(
        f"import sys\nsys.path.insert(0, {tests!r})\nfrom pathlib import Path\n"
        f"import {module}\ndef get_config():\n    return {call}\n"
    )


def _write_text(folder: Path) -> None:
    folder.mkdir(parents=True)
    corpus = tiny_run.write_corpus(folder / "text.txt")
    (folder / "vocab.txt").write_text("\n".join(small_inputs.TOKENS) + "\n")
    write_config(folder / "tiny.py", "tiny_run", f"tiny_run.config({str(corpus)!r})")
    settings = pretraining.parse(tiny_run.config(corpus))
    corpus_store.ensure(settings.text, settings.data, folder / "store")
    _write_run(folder / "run", folder / "store", settings)


def _write_run(
    folder: Path, store: Path, settings: pretraining.PretrainingConfig
) -> None:
    """Writes a workdir with untrained checkpoints of steps 3 and 6."""
    shutil.copytree(store, folder / "store")
    run = pretraining_run.assemble(settings, store, folder)
    workdirs.record(folder, settings, run.bert, run.tokenizer, allow_changed=False)
    shapes = run.state_shapes
    state = jax.tree.map(
        lambda x: jax.device_put(np.full(x.shape, 0.01, x.dtype), x.sharding), shapes
    )
    meta = {"standing": {"callbacks_due": False}}
    path = folder / run_folder.CHECKPOINTS
    with checkpoint.Checkpoints(path, keep=2) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, state, meta)


def _write_tasks(folder: Path) -> None:
    folder.mkdir()
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 20, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 10, seed=1)
    call = f"tiny_tasks.config(Path({str(folder)!r}))"
    write_config(folder / "tiny.py", "tiny_tasks", call)
    given = "from bert_jax.config import finetuning\n"
    given += "def get_config():\n    config = finetuning.default()\n"
    given += "    config.mesh.data, config.data.max_seq_length = 1, 8\n"
    files = f"{str(folder / 'train.tsv')!r}, {str(folder / 'dev.tsv')!r}"
    given += f"    config.data.train, config.data.dev = {files}\n    return config\n"
    (folder / "given.py").write_text(given)
    (folder / "models").mkdir()
    for kind in MODELS:
        tiny_models.write_model(folder, folder / "models" / kind, kind)
    best = folder / "run" / "best" / "3"
    best.parent.mkdir(parents=True)
    shutil.copytree(folder / "models" / "classification", best)


def _write_models(inputs: Path) -> None:
    """Writes a classifier in three formats, each with its vocabulary."""
    pieces = tuple(small_inputs.TOKENS)
    tokenizer = Tokenizer("wordpiece", pieces, True, True)
    labels = ("a", "b", "c")
    weights = small_weights.weights_of(
        "pooler", "classifier", labels=labels, vocab_size=len(pieces)
    )
    for name in ("published", "export", "google"):
        (inputs / name).mkdir()
        tokenizer.save(inputs / name)
    huggingface.write(inputs / "published", weights, dtype="float32")
    native.write(inputs / "export", weights, dtype="float32")
    heads = ("pooler", "mlm_head", "nsp_head")
    pretrained = small_weights.weights_of(*heads, vocab_size=len(pieces))
    tensorflow1.write(inputs / "google", pretrained)


def _write_sentencepiece(inputs: Path) -> None:
    """Writes `spm.model`, and `plain.model`, in which [MASK] is an ordinary token."""
    lines = (inputs / "text" / "text.txt").read_text().splitlines()
    for name, control in (("spm", _CONTROL), ("plain", "[PAD],[CLS],[SEP]")):
        with (inputs / f"{name}.model").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=file,
                vocab_size=80,
                character_coverage=1.0,
                control_symbols=control,
                user_defined_symbols="" if name == "spm" else "[MASK]",
                unk_piece="[UNK]",
                hard_vocab_limit=False,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )


def _write_json(folder: Path) -> None:
    """Writes the tokenizer.json of BERT's tokenizer."""
    pieces = tuple(small_inputs.TOKENS)
    tokenizer = Tokenizer("wordpiece", pieces, True, True)
    tokenizer.export(folder, 24)
    (folder / "vocab.txt").unlink()
