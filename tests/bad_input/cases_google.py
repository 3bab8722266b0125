"""Bad checkpoints of Google's: the two files of TensorFlow 1, and their config."""

from collections.abc import Callable
from pathlib import Path

import forged
import numpy as np
from bad_files import Case, Content, case, change, replace

from bert_jax.checkpoints import tensorflow1, tensors

_GOOGLE = "convert --input={here}/google --output={here}/out --to=bert_jax"


def _google(
    name: str, files: dict[str, Content], expected: str, more: str = ""
) -> Case:
    below = {f"google/{path}": content for path, content in files.items()}
    return case(
        "TF1 checkpoint", name, f"{_GOOGLE} {more}", expected, below, base="google"
    )


def _index(name: str, content: Content) -> Case:
    words = "{here}/google/bert_model.ckpt"
    return _google(name, {"bert_model.ckpt.index": content}, words)


def _data(name: str, content: Content, expected: str) -> Case:
    words = f"{{here}}/google/bert_model.ckpt{expected}"
    return _google(name, {_DATA: content}, words)


def _variables(
    edit: Callable[[dict[str, np.ndarray]], object],
) -> Callable[[Path], None]:
    """Returns a function that edits the variables of an index's checkpoint."""

    def changed(path: Path) -> None:
        prefix = path.with_suffix("")
        arrays = dict(tensorflow1.read_variables(prefix).arrays)
        edit(arrays)
        tensorflow1.write_variables(prefix, arrays)

    return changed


def _config(name: str, content: Content, expected: str) -> Case:
    words = f"{{here}}/google/bert_config.json{expected}"
    return _google(f"config: {name}", {"bert_config.json": content}, words)


_DATA = "bert_model.ckpt.data-00000-of-00001"
_POOLER = "bert/pooler/dense/bias"
TENSORFLOW1 = [
    _index("index: empty", b""),
    _index("index: a text", b"the cat sat on a mat\n" * 9),
    _index("index: cut", change(lambda content: content[:-7])),
    _index("index: half", change(lambda x: x[: len(x) // 2])),
    _index("index: only its footer", change(lambda x: x[-48:])),
    _index(
        "index: zeros before its footer",
        change(lambda x: bytes(len(x) - 48) + x[-48:]),
    ),
    _index("index: 20 MB", bytes(20 << 20)),
    _google(
        "index: gone",
        {"bert_model.ckpt.index": None},
        "{here}/google…refused",
    ),
    _google(
        "two checkpoints",
        {"other.ckpt.index": b"x"},
        "{here}/google…refused",
    ),
    _data("data: gone", None, ".data-00000-of-00001"),
    _data("data: empty", b"", ".data-00000-of-00001…empty"),
    _data("data: cut", change(lambda x: x[:-9]), "…refused"),
    _data("data: half", change(lambda x: x[: len(x) // 2]), "…refused"),
    _data(
        "data: a flipped bit",
        change(lambda x: x[:900] + bytes([x[900] ^ 1]) + x[901:]),
        "…refused",
    ),
    _google(
        "data: NaN",
        {"bert_model.ckpt.index": lambda path: _nan(path)},
        f"{{here}}/google/bert_model.ckpt…'{_POOLER}'…12 NaN",
    ),
    _google(
        "a variable missing",
        {"bert_model.ckpt.index": _variables(lambda arrays: arrays.pop(_POOLER))},
        "pooler",
    ),
    _google(
        "a variable left over",
        {
            "bert_model.ckpt.index": _variables(
                lambda x: x.update(more=np.ones(2, "f4"))
            )
        },
        "--ignore=more",
    ),
    _google(
        "a variable of another name",
        {
            "bert_model.ckpt.index": _variables(
                lambda x: x.update({"bert/pooler/dense/offset": x.pop(_POOLER)})
            )
        },
        "pooler",
    ),
    _google(
        "a variable of another shape",
        {
            "bert_model.ckpt.index": _variables(
                lambda arrays: arrays.update({_POOLER: np.ones(13, np.float32)})
            )
        },
        "shape",
    ),
    _google("no config", {"bert_config.json": None}, "{here}/google…model"),
    _config("cut", change(lambda content: content[:-9]), "…JSON"),
    _config("a list", b"[]", "…JSON"),
    _config(
        "a key less", forged.manifest(lambda t: t.pop("hidden_size")), "…hidden_size"
    ),
    _config(
        "a text for a number",
        forged.manifest(lambda tree: tree.update(num_hidden_layers="2")),
        "…model.num_hidden_layers is '2'",
    ),
    _config(
        "a negative size",
        forged.manifest(lambda tree: tree.update(intermediate_size=-17)),
        "…model.intermediate_size is -17",
    ),
    _config(
        "of ALBERT",
        forged.manifest(lambda t: t.update(embedding_size=4)),
        "…BERT",
    ),
    _google(
        "config: another width than the variables",
        {"bert_config.json": replace('"hidden_size": 12', '"hidden_size": 24')},
        "shape",
    ),
    _google(
        "a vocabulary of more pieces than rows",
        {"vocab.txt": change(lambda content: content + b"more\n")},
        "{here}/google…38",
    ),
]


def _nan(path: Path) -> None:
    """Writes NaN, which our own writer refuses."""
    check = tensors.check_array
    try:
        tensors.check_array = lambda *_: None  # pyright: ignore
        _variables(lambda x: x.update({_POOLER: np.full(12, np.nan, np.float32)}))(path)
    finally:
        tensors.check_array = check


CASES = TENSORFLOW1
