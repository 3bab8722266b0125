"""Bad files of weights: safetensors and Google's checkpoints, and folders of models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forged
import ml_dtypes
import numpy as np
import safetensors.numpy
from bad_files import Case, Content, case, change, dangling, fifo, replace

from bert_jax.checkpoints import tensors

_CONVERT = "convert --input={here}/%s --output={here}/out --to=%s"
_FILE = "published/model.safetensors"
_CONFIG = "published/config.json"


def _case(
    name: str, files: dict[str, Content], expected: str, command: str = "", **others
) -> Case:
    """A folder in Hugging Face's format."""
    command = command or _CONVERT % ("published", "bert_jax")
    others = {"base": "published"} | others
    return case("safetensors", name, command, expected, files, **others)


def _file(name: str, content: Content, expected: str) -> Case:
    return _case(
        name, {_FILE: content}, "{here}/published/model.safetensors" + expected
    )


def _header(**entries: Any) -> bytes:
    """A file of this header and 16 bytes of tensors."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


def _entry(begin: int, end: int, dtype: str = "F32", **more: Any) -> dict[str, Any]:
    shape = [(end - begin) // 4]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]} | more


def _arrays(edit: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Returns a function that edits the tensors of a file."""

    def changed(path: Path) -> None:
        arrays = dict(tensors.read(path).arrays)
        edit(arrays)
        safetensors.numpy.save_file(arrays, path)  # which accepts what ours rejects

    return changed


def _filled(name: str, value: float) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays.update({name: np.full_like(arrays[name], value)})


_BIAS, _WORDS = "bert.pooler.dense.bias", "bert.embeddings.word_embeddings.weight"
_LENGTH = "…refused"
SAFETENSORS = [
    _file("empty", b"", "…refused"),
    _file("seven bytes", b"1234567", _LENGTH),
    _file("a text", b"the cat sat on a mat\n" * 9, _LENGTH),
    _file("a pickle", b"\x80\x04\x95" + bytes(30), _LENGTH),
    _file("a zip, as torch writes", b"PK\3\4" + bytes(60), _LENGTH),
    _file(
        "a pointer of Git LFS",
        b"version https://git-lfs.github.com/spec/v1\n",
        "…refused",
    ),
    _file(
        "a header of 2**60 bytes", change(lambda x: bytes(7) + b"\x10" + x[8:]), _LENGTH
    ),
    _file("a header longer than the file", change(lambda x: x[:200]), _LENGTH),
    _file("cut", change(lambda content: content[:-7]), "…refused"),
    _file("a byte more", change(lambda x: x + b"\0"), "…refused"),
    _file(
        "a header that is not JSON",
        (9).to_bytes(8, "little") + b"{nonsense",
        "…refused",
    ),
    _file("a header that is a list", (2).to_bytes(8, "little") + b"[]", "…refused"),
    _file("no tensors", _header(), "…refused"),
    _file(
        "a tensor twice",
        (26).to_bytes(8, "little") + b'{"a": {"b": 1}, "a": null}',
        "…refused",
    ),
    _file(
        "tensors that overlap",
        _header(a=_entry(0, 12), b=_entry(8, 16)),
        "…refused",
    ),
    _file(
        "a hole between tensors",
        _header(a=_entry(0, 4), b=_entry(8, 16)),
        "…refused",
    ),
    _file(
        "a tensor that ends before it begins",
        _header(a=_entry(8, 4)),
        "…refused",
    ),
    _file(
        "a tensor beyond the end",
        _header(a=_entry(0, 4000)),
        "…refused",
    ),
    _file("an unknown dtype", _header(a=_entry(0, 16, "F99")), "…refused"),
    _file("eight-bit floats", _header(a=_entry(0, 16, "F8_E4M3")), "…refused"),
    _file(
        "a shape of other bytes",
        _header(a=_entry(0, 16, shape=[3])),
        "…refused",
    ),
    _file(
        "a negative shape",
        _header(a=_entry(0, 16, shape=[-2, -2])),
        "…refused",
    ),
    _file(
        "a shape of texts",
        _header(a=_entry(0, 16, shape=["4"])),
        "…refused",
    ),
    _file("metadata that are numbers", _header(__metadata__={"a": 1}), "…refused"),
    _file("an entry that is null", _header(a=None), "…refused"),
    _case(
        "gone",
        {_FILE: None},
        "{here}/published…model",
    ),
    _file("NaN", _arrays(_filled(_BIAS, np.nan)), "…refused"),
    _file("infinity", _arrays(_filled(_WORDS, np.inf)), "…refused"),
    _case(
        "whole numbers for weights",
        {_FILE: _arrays(lambda a: a.update({_BIAS: np.ones(12, np.int32)}))},
        _BIAS,
    ),
    _case(
        "a tensor missing",
        {_FILE: _arrays(lambda arrays: arrays.pop("classifier.bias"))},
        "--allow_missing=classifier",
    ),
    _case(
        "a tensor left over",
        {_FILE: _arrays(lambda a: a.update(more=np.ones(2, np.float32)))},
        "--ignore=more",
    ),
    _case(
        "a tensor with its axes changed",
        {_FILE: _arrays(lambda a: a.update({_WORDS: a[_WORDS].T.copy()}))},
        _WORDS,
    ),
    _case(
        "a tensor in bfloat16 that is NaN",
        {
            _FILE: _arrays(
                lambda a: a.update({_BIAS: np.full(12, np.nan, ml_dtypes.bfloat16)})
            )
        },
        _BIAS,
    ),
    _case("no config", {_CONFIG: None}, "{here}/published/config.json"),
    _case("config: empty", {_CONFIG: b""}, "{here}/published/config.json…JSON"),
    _case("config: a list", {_CONFIG: b"[]"}, "{here}/published/config.json…JSON"),
    _case(
        "config: a key twice",
        {_CONFIG: change(lambda x: b'{"vocab_size": 5, ' + x[1:])},
        "{here}/published/config.json…'vocab_size'",
    ),
    _case(
        "config: another width",
        {_CONFIG: forged.manifest(lambda tree: tree.update(hidden_size=15))},
        "shape",
    ),
    _case(
        "config: a width of 0",
        {_CONFIG: forged.manifest(lambda tree: tree.update(hidden_size=0))},
        "{here}/published/config.json…model.hidden_size is 0",
    ),
    _case(
        "config: a width that is a text",
        {_CONFIG: forged.manifest(lambda tree: tree.update(hidden_size="12"))},
        "{here}/published/config.json…model.hidden_size is '12'",
    ),
    _case(
        "config: heads that do not divide",
        {_CONFIG: forged.manifest(lambda tree: tree.update(num_attention_heads=5))},
        "{here}/published/config.json…model.hidden_size 12",
    ),
    _case(
        "config: NaN for a rate",
        {
            _CONFIG: forged.manifest(
                lambda t: t.update(hidden_dropout_prob=float("nan"))
            )
        },
        "{here}/published/config.json…model.hidden_dropout_prob is nan",
    ),
    _case(
        "config: another model",
        {_CONFIG: forged.manifest(lambda t: t.update(attention_type="block_sparse"))},
        "attention_type is 'block_sparse'",
    ),
    _case(
        "config: fewer labels",
        {_CONFIG: forged.manifest(lambda tree: tree.update(id2label={"0": "x"}))},
        "id2label",
    ),
    _case(
        "config: labels under no number",
        {_CONFIG: forged.manifest(lambda tree: tree.update(id2label={"x": "y"}))},
        "id2label",
    ),
    _case(
        "a vocabulary of more pieces than rows",
        {"published/vocab.txt": change(lambda content: content + b"more\n")},
        "{here}/published…38",
    ),
    _case(
        "a vocabulary of fewer pieces than rows",
        {"published/vocab.txt": change(lambda x: x.rpartition(b"##u")[0])},
        "--ignore=vocab_rows",
    ),
    _case("no vocabulary", {"published/vocab.txt": None}, "{here}/published…token"),
    _case(
        "an index with a path outside",
        {
            _FILE: None,
            f"{_FILE}.index.json": '{"weight_map": {"x": "../../secret.safetensors"}}',
        },
        "'../../secret.safetensors'",
    ),
    _case(
        "an index of a file that is not there",
        {_FILE: None, f"{_FILE}.index.json": '{"weight_map": {"x": "a.safetensors"}}'},
        "{here}/published/a.safetensors…refused",
    ),
    _case(
        "an index without names",
        {_FILE: None, f"{_FILE}.index.json": '{"weight_map": {}}'},
        "{here}/published/model.safetensors.index.json…refused",
    ),
    _case(
        "an index of other tensors than the file's",
        {
            "published/a.safetensors": lambda p: shutil.move(
                p.parent / "model.safetensors", p
            ),
            f"{_FILE}.index.json": '{"weight_map": {"x": "a.safetensors"}}',
        },
        "{here}/published/a.safetensors…refused",
    ),
    _case(
        "a link to nothing",
        {"m.safetensors": dangling},
        "m.safetensors",
        _CONVERT % ("m.safetensors", "bert_jax"),
    ),
    _case(
        "a pipe",
        {"m.safetensors": fifo},
        "m.safetensors",
        _CONVERT % ("m.safetensors", "bert_jax"),
    ),
    _case(
        "of predict: NaN",
        {_FILE: _arrays(_filled(_BIAS, np.nan))},
        f"{{here}}/published/model.safetensors…'{_BIAS}'",
        "predict --model={here}/published --task=features --output={here}/v.npy a",
    ),
    _case(
        "of predict: cut",
        {_FILE: change(lambda content: content[:-7])},
        "{here}/published/model.safetensors…refused",
        "predict --model={here}/published --task=features --output={here}/v.npy a",
    ),
    _case(
        "of finetune: cut",
        {_FILE: change(lambda content: content[:-7])},
        "{here}/published/model.safetensors…refused",
        "finetune --config={good}/tasks/given.py --workdir={here}/run "
        "--config.init_from={here}/published",
    ),
    _case(
        "our own: cut",
        {"export/parameters.safetensors": change(lambda content: content[:-7])},
        "{here}/export/parameters.safetensors…refused",
        _CONVERT % ("export", "huggingface"),
        base="export",
    ),
    _case(
        "our own: another version",
        {"export/model.json": replace("bert_jax 1", "bert_jax 9")},
        "{here}/export/model.json…'bert_jax 1'",
        _CONVERT % ("export", "huggingface"),
        base="export",
    ),
    *(
        _case(
            f"our own: {name}",
            {"export/model.json": forged.manifest(edit)},
            f"{{here}}/export/model.json{expected}",
            _CONVERT % ("export", "huggingface"),
            base="export",
        )
        for name, edit, expected in (
            (
                "labels that are a text",
                lambda t: t.update(labels="abc"),
                "…labels",
            ),
            ("no architecture", lambda t: t.pop("model"), "…'model'"),
            (
                "an unknown part",
                lambda t: t.update(parts=["tail"]),
                "…parts",
            ),
            (
                "a part that is a list",
                lambda t: t.update(parts=[[]]),
                "…parts",
            ),
            ("an unknown key", lambda t: t["model"].update(depth=3), "…depth"),
            (
                "a text for a number",
                lambda t: t["model"].update(hidden_size="12"),
                "…hidden_size",
            ),
        )
    ),
]
CASES = SAFETENSORS
