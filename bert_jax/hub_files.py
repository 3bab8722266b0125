"""Which files of a repository of the Hugging Face hub a model is read from.

The rest is never fetched: other frameworks' weights, ONNX, pictures, logs.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# Of sentence-transformers: older versions name it by the model.
_SENTENCE_ENCODERS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_albert_config.json",
)
# Of a folder of a model, the small files that some reader opens; the tests compare
# this list with what the readers do open.
VOCABULARY = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "text_cleaning.json",
    "vocab.txt",
    "tokenizer.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    *_SENTENCE_ENCODERS,  # lower text
)
SMALL = (
    *VOCABULARY,
    "model.json",
    "task.json",
    "bert_config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
# In the order in which one is preferred; of the last, all files of the checkpoint.
_WEIGHTS = (
    "parameters.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TENSORFLOW1 = re.compile(r".*\.ckpt(-\d+)?\.(index|data-\d{5}-of-\d{5})")
_MODULE = re.compile(r"\d+_\w+")  # of sentence-transformers, as 0_Transformer


def is_inside(name: str) -> bool:
    """Returns whether the name of a file stays below the folder of its repository."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def small(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    """Returns the small files that are read: of the root, and of the modules.

    >>> small(["config.json", "1_Pooling/config.json", "onnx/config.json"], SMALL)
    ['config.json', '1_Pooling/config.json']
    """
    return [
        name
        for name in names
        if _base(name) in wanted and (_folder(name) == "" or _is_module(name))
    ]


def weights(names: Iterable[str]) -> list[str]:
    """Returns the files of weights that are read, in each folder the first kind.

    >>> weights(["model.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin"])
    ['model.safetensors', '2_Dense/pytorch_model.bin']
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        if _folder(name) == "" or _is_module(name):
            folders.setdefault(_folder(name), set()).add(name)
    chosen = []
    for _, there in sorted(folders.items()):
        by_base = {_base(name): name for name in there}
        first = next((by_base[x] for x in _WEIGHTS if x in by_base), None)
        if first is not None:
            chosen.append(first)
        elif "bert_config.json" in by_base:
            chosen += sorted(x for x in there if _TENSORFLOW1.fullmatch(_base(x)))
    return chosen


def shards(home: Path, index: str, names: tuple[str, ...]) -> list[str]:
    """Returns the files that an index names and the repository has.

    Args:
      home: the folder of the repository, with the index in it.

    What the index names else is refused where it is read.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        named = set(json.loads((home / index).read_bytes())["weight_map"].values())
        return [x for x in names if _folder(x) == _folder(index) and _base(x) in named]
    return []


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _is_module(name: str) -> bool:
    return _MODULE.fullmatch(_folder(name)) is not None
