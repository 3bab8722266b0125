"""Labeled files that a tiny model learns in seconds, and the config that trains it."""

import random
from pathlib import Path

import ml_collections

from bert_jax.config import finetuning

WORDS = ("the", "a", "cat", "dog", "sat", "ran", "home", "fast", "here", "there")
CHARACTERS = "猫狗跑坐家快这那很好坏"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *CHARACTERS, *"?,.。")


def write_vocab(folder: Path) -> Path:
    """Writes the vocabulary, and returns its file."""
    path = folder / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    return path


def write_classes(path: Path, count: int = 64, seed: int = 0) -> Path:
    """Writes a TSV: a sentence is of the animal that is in it, in either language."""
    rng = random.Random(seed)
    lines = ["sentence\tlabel"]
    for _ in range(count):
        animal, in_chinese = rng.choice(("cat", "dog")), rng.random() < 0.5
        words = rng.choices(CHARACTERS[2:] if in_chinese else WORDS[4:], k=5)
        words[rng.randrange(5)] = (
            {"cat": "猫", "dog": "狗"}[animal] if in_chinese else animal
        )
        lines.append(f"{('' if in_chinese else ' ').join(words)}\t{animal}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config(folder: Path, **changes) -> ml_collections.ConfigDict:
    """Returns a config of fresh weights on the classes; `run__seed=3` sets a key."""
    made = finetuning.default()
    values = {
        "init_from": "none",
        "model.size": "tiny",
        "model.hidden_size": 32,
        "model.num_attention_heads": 4,
        "model.intermediate_size": 64,
        "model.max_position_embeddings": 24,
        "model.initializer_range": 0.1,
        "text.vocab": str(folder / "vocab.txt"),
        "data.train": str(folder / "train.tsv"),
        "data.dev": str(folder / "dev.tsv"),
        "data.max_seq_length": 24,
        "data.num_lengths": 2,
        "optimizer.learning_rate": 5e-3,
        "mesh.data": 1,
        "run.batch_size": 8,
        "run.eval_batch_size": 16,
        "run.num_train_steps": 40,
        "run.log_every_steps": 5,
        "run.eval_every_steps": 10,
        "run.save_every_steps": 10,
    }
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    made.update_from_flattened_dict(values | changed)
    return made
