"""A small file of every task, and untrained models of them with random weights."""

import json
from pathlib import Path

import jax
import numpy as np
import tiny_tasks
from flax import linen as nn

from bert_jax.checkpoints import native
from bert_jax.config import finetuning
from bert_jax.runs import finetuning as finetuning_run

_CLASSES = "sentence\tlabel\na cat sat\tcat\n猫坐\tcat\nthe dog ran\tdog\n那狗跑\tdog\n"
_SEVERAL = "sentence\tlabel\na cat sat\tcat\nthe cat, a dog\tcat|dog\n那狗跑\tdog\n"
_SCORES = (
    "sentence1\tsentence2\tscore\n"
    "a cat sat\ta dog sat\t1.5\n那猫坐\t猫\t4\nthe dog\ta dog ran\t3\n"
)
_TAGS = "the O\ncat B-ANIMAL\nran O\n\n那 O\n狗 B-ANIMAL\n跑 O\n\n"
_PAIRS = "sentence1\tsentence2\tlabel\na cat\tcat\t1\nthe dog\ta cat\t0\n"
_CHOICES = (
    {"context": "a cat", "choices": ["sat here", "ran"], "label": 1},
    {"context": "那狗", "choices": ["跑", "坐", "the cat"], "label": 0},
)
_QUESTIONS = (
    ("q1", "a cat sat here. the dog ran home fast.", "the dog ran ?", "home", 28),
    ("q2", "那猫坐这。那狗跑家。", "猫坐？", "这", 3),
)


def _roles() -> str:
    rows = (
        ("the", "_", "_", "_"),
        ("cat", "_", "ARG0", "_"),
        ("ran", "run.01", "V", "_"),
        ("home", "_", "ARG4", "ARG1"),
        ("sat", "sit.01", "_", "V"),
    )
    lines = [
        "\t".join([str(number), word, *["_"] * 8, *more])
        for number, (word, *more) in enumerate(rows, start=1)
    ]
    return "\n".join(lines) + "\n\n"


def _squad() -> str:
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": name,
                    "question": question,
                    "answers": [{"text": answer, "answer_start": start}],
                }
            ],
        }
        for name, context, question, answer, start in _QUESTIONS
    ]
    return json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False)


# Name of a kind of model -> its file, what is in it, and what its config sets.
KINDS = {
    "classification": ("classes.tsv", _CLASSES, {}),
    "several": ("several.tsv", _SEVERAL, {"data__multi_label": "|"}),
    "regression": ("scores.tsv", _SCORES, {}),
    "tagging": ("tags.conll", _TAGS, {}),
    "srl": ("roles.conllu", _roles(), {}),
    "span": ("questions.json", _squad(), {"data__doc_stride": 4}),
    "multiple_choice": (
        "choices.jsonl",
        "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in _CHOICES),
        {},
    ),
    "matching": ("pairs.tsv", _PAIRS, {"head__pooling": "mean"}),
}


def task_of(kind: str) -> str:
    """Returns the task of a kind of model."""
    return "classification" if kind == "several" else kind


def write_file(folder: Path, kind: str) -> Path:
    """Writes the file of examples of a kind."""
    name, text, _ = KINDS[kind]
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def write_model(place: Path, folder: Path, kind: str, **changes) -> Path:
    """Writes a model with random weights into a folder, as training would.

    Args:
      place: has the vocabulary; the file of examples is written there.
    """
    path = str(write_file(place, kind))
    asked = {"data__task": task_of(kind), "data__train": path, "data__dev": path}
    config = tiny_tasks.config(place, **asked | KINDS[kind][2] | changes)
    run = finetuning_run.assemble(finetuning.parse(config), folder)
    shapes = nn.unbox(jax.eval_shape(run.task.init, jax.random.key(0)))
    draw = np.random.default_rng(7).normal  # biases too: what is left out then shows
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: draw(path[-1].key == "scale", 0.3, x.shape), shapes
    )
    native.write_task(folder, run.folder(params, {"accuracy": 0.5}))
    return folder
