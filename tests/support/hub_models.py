"""A small hub in a test's environment, and a tiny model of Hugging Face's for it."""

from collections.abc import Iterator
from pathlib import Path

import hub_server
import pytest
import small_weights
import tiny_tasks

from bert_jax.checkpoints import huggingface
from bert_jax.text.tokenizer import Tokenizer

NAME = "hf:owner/tiny"
REPO = "models/owner/tiny"
# What hubs have besides, and nobody reads.
OTHERS = {
    "tf_model.h5": b"h5",
    "flax_model.msgpack": b"flax",
    "pytorch_model.bin": b"a pickle",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "README.md": b"---\nlanguage: en\nlicense: apache-2.0\n---\nA card.\n",
    ".gitattributes": b"",
}


def serve(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[hub_server.Hub]:
    """Runs a hub that HF_ENDPOINT names, with an empty cache in a folder."""
    pytest.importorskip("huggingface_hub")
    with hub_server.serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(home))
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield made


def write_model(folder: Path, *heads: str, labels: tuple[str, ...] = ()) -> Path:
    """Writes a model of Hugging Face's with its tokenizer."""
    pieces = tiny_tasks.PIECES
    folder.mkdir(parents=True)
    given = small_weights.weights_of(
        *(heads or ("pooler", "mlm_head", "nsp_head")),
        labels=labels,
        vocab_size=len(pieces),
    )
    huggingface.write(folder, given, dtype="float32")
    tokenizer = Tokenizer("wordpiece", pieces, True, True)
    tokenizer.export(folder, 9)
    return folder
