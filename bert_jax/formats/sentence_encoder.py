"""The files that sentence-transformers puts beside a model: how to pool and normalise.

Reimers and Gurevych 2019 (arXiv:1908.10084), section 3.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax import errors, json_file

MODULES = "modules.json"
TRANSFORMER = "sentence_bert_config.json"
_TRANSFORMERS = (  # older versions name it by the model
    TRANSFORMER,
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_albert_config.json",
)
POOLING_FOLDER, POOLING = "1_Pooling", "config.json"

MODES = ("mean", "cls", "max")
_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
}
_OTHERS = (
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
)
_KINDS = ("Transformer", "Pooling", "Normalize")
_PACKAGE = "sentence_transformers.models"


@dataclasses.dataclass(frozen=True)
class Pooling:
    """How token vectors become a sentence vector.

    Attributes:
      mode: `mean` over the tokens, the `cls` token, or the `max` of each dimension.
      normalize: whether vectors are scaled to length 1.
      max_seq_length: the longest row; 0 where the model does not say.
      is_sentence_encoder: whether the folder says so.
    """

    mode: str = "mean"
    normalize: bool = False
    max_seq_length: int = 0
    is_sentence_encoder: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise errors.InputError(
                f"pooling is {self.mode!r}: use one of {', '.join(MODES)}"
            )


def read(folder: Path) -> Pooling:
    """Reads the files of a sentence encoder; the defaults where there are none.

    Raises:
      InputError: a file is damaged, or asks for a module that is not supported.
    """
    path = folder / MODULES
    if not path.is_file():
        return Pooling()
    modules = _modules(path)
    kinds = [kind for kind, _ in modules]
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise errors.InputError(
            f"{path}: the module {unknown[0]} is not supported; known are "
            f"{', '.join(_KINDS)}. Remove the file to use the encoder alone"
        )
    poolings = [place for kind, place in modules if kind == "Pooling"]
    if len(poolings) != 1:
        raise errors.InputError(
            f"{path} names {len(poolings)} modules of the kind Pooling, and one is "
            "supported. Remove the file to use the encoder alone"
        )
    place = Path(poolings[0])
    is_inside = not place.is_absolute() and ".." not in place.parts
    if not is_inside or not poolings[0].isprintable():
        raise errors.InputError(f"{path}: {poolings[0]!r} is no folder of the model's")
    mode = _mode(folder / poolings[0] / POOLING)
    return Pooling(mode, "Normalize" in kinds, _longest(folder), True)


def write(folder: Path, pooling: Pooling, width: int) -> None:
    """Writes the files of a sentence encoder into the folder of a model.

    `width` is D, the size of the vectors.
    """
    (folder / POOLING_FOLDER).mkdir()
    modes = {key: mode == pooling.mode for mode, key in _KEYS.items()}
    settings = {"word_embedding_dimension": width, **modes}
    settings |= dict.fromkeys(_OTHERS, False)
    _write(folder / POOLING_FOLDER / POOLING, settings)
    longest = {"max_seq_length": pooling.max_seq_length or None}
    _write(folder / TRANSFORMER, {**longest, "do_lower_case": False})
    places = [("Transformer", ""), ("Pooling", POOLING_FOLDER)]
    if pooling.normalize:
        places.append(("Normalize", "2_Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": place, "type": f"{_PACKAGE}.{kind}"}
        for i, (kind, place) in enumerate(places)
    ]
    _write(folder / MODULES, modules)


def _modules(path: Path) -> list[tuple[str, str]]:
    """Returns the kinds of the modules and their folders, in order."""
    try:
        modules = json_file.loads(json_file.read_bytes(path))
        return [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in modules]
    except (ValueError, TypeError, KeyError) as error:
        raise errors.InputError(
            f"{path} is not the list of a sentence encoder's modules "
            f"({type(error).__name__}: {error}): is the file whole?"
        ) from None


def _mode(path: Path) -> str:
    """Returns the one way of pooling that a file names."""
    tree = json_file.read_object(path)
    chosen = [mode for mode, key in _KEYS.items() if key in tree and tree[key] is True]
    others = [key for key in _OTHERS if key in tree and tree[key] is True]
    if len(chosen) != 1 or others:
        raise errors.InputError(
            f"{path}: {', '.join([*chosen, *others]) or 'no pooling'} is set; exactly "
            f"one of {', '.join(_KEYS.values())} is supported"
        )
    return chosen[0]


def _longest(folder: Path) -> int:
    """Returns the longest row that a sentence encoder reads, or 0."""
    path = next((folder / n for n in _TRANSFORMERS if (folder / n).is_file()), None)
    if path is None:
        return 0
    tree = json_file.read_object(path)
    longest = tree["max_seq_length"] if "max_seq_length" in tree else None
    if longest is None:
        return 0
    if not isinstance(longest, int) or longest < 3:
        raise errors.InputError(
            f"{path}: max_seq_length is {longest!r}: write a count above 2"
        )
    return longest


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
