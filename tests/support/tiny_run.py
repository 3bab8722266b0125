"""A run small enough for tests: a corpus in two languages, a model of width 32."""

import random
from pathlib import Path

import ml_collections

from bert_jax.config import pretraining

ENGLISH = ("the cat sat on a mat", "dogs run fast", "rain falls all day in spring")
CHINESE = ("北京大学在海淀区。", "今天天气很好，我们去公园。", "他喜欢读书和写字。")


def write_corpus(path: Path, documents: int = 60, seed: int = 0) -> Path:
    """Writes documents of 3 to 9 sentences, in Google's format, every one different."""
    rng = random.Random(seed)
    lines = []
    for number in range(documents):
        sentences = rng.choices(ENGLISH + CHINESE, k=rng.randint(3, 9))
        lines += [f"number {number} begins here", *sentences, ""]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_file(folder: Path, **changes) -> Path:
    """Writes a corpus, and `tiny.py` that has the config; returns the folder."""
    corpus = write_corpus(folder / "text.txt")
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r}, **{changes})\n"
    )
    return folder


def config(corpus: Path, **changes) -> ml_collections.ConfigDict:
    """Returns a complete config; `run__seed=3` changes `run.seed`."""
    made = pretraining.default()
    made.data.corpus = str(corpus)
    made.model.size = "tiny"
    values = {
        "model.hidden_size": 32,
        "model.num_attention_heads": 4,
        "model.intermediate_size": 64,
        "model.max_position_embeddings": 24,
        "text.vocab_size": 150,
        "data.held_out_fraction": 0.2,
        "data.max_seq_length": 24,
        "data.workers": 1,
        "data.loader": "thread",
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_steps": 2,
        "mesh.data": 1,
        "run.batch_size": 8,
        "run.num_train_steps": 6,
        "run.log_every_steps": 1,
        "run.eval_every_steps": 3,
        "run.save_every_steps": 3,
    }
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    made.update_from_flattened_dict(values | changed)
    return made
