"""Bad stores of a corpus: damaged shards and manifests, and invalid content."""

from collections.abc import Callable
from typing import Any

import forged
from bad_files import Case, Content, case, change, replace

_TRAIN = "store/train-00000.arrow"
_HELDOUT = "store/heldout-00000.arrow"
_MANIFEST = "store/manifest.json"
_PREPARE = (
    "prepare --config={good}/text/tiny.py --store={here}/store --config.data.corpus="
)
_PRETRAIN = (
    "pretrain --config={good}/text/tiny.py --workdir={here}/run --config.data.corpus="
)


def _evaluated(
    name: str, file: str, content: Content, expected: str, code: int
) -> Case:
    """The store in the workdir of a run."""
    command = "evaluate --workdir={here}/run"
    files = {f"run/{file}": content}
    words = f"{{here}}/run/{file}{expected}"
    return case("store", name, command, words, files, base="text/run", code=code)


def _shard(name: str, content: Content, expected: str = "…damaged") -> Case:
    return _evaluated(name, _HELDOUT, content, expected, 5)


def _manifest(name: str, content: Content, expected: str) -> Case:
    return _evaluated(name, _MANIFEST, content, expected, 2)


def _tree(name: str, edit: Callable[[dict[str, Any]], object], expected: str) -> Case:
    return _manifest(name, forged.manifest(edit), expected)


def _first_shard(**keys) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["shards"][0].update(keys)


CASES = [
    _shard("a flipped bit", change(lambda x: x[:900] + bytes([x[900] ^ 1]) + x[901:])),
    _shard("empty", b""),
    _shard("half", change(lambda content: content[: len(content) // 2])),
    _shard("zeros", change(lambda content: bytes(len(content)))),
    _shard("a byte more", change(lambda content: content + b"\0")),
    _shard("a text", b"the cat sat\n"),
    _shard("gone", None),
    _shard("a folder", lambda path: (path.unlink(), path.mkdir())),
    _manifest("manifest: empty", b"", "…read"),
    _manifest("manifest: cut", change(lambda x: x[:-30]), "…read"),
    _manifest("manifest: an open brace", b"{", "…read"),
    _manifest("manifest: no UTF-8", b'{"a": "\xff"}', "…read"),
    _manifest("manifest: nothing in it", b"{}", "…None"),
    _manifest("manifest: a list", b"[]", "…None"),
    _manifest("manifest: null", b"null", "…None"),
    _manifest("manifest: a number only", b'{"format_version": 1}', "…damaged"),
    _tree(
        "manifest: of another version",
        lambda tree: tree.update(format_version=2),
        "…format 2",
    ),
    _manifest("manifest: deep nesting", b"[" * 100000, "…read"),
    _tree("manifest: a count that is a text", _first_shard(tokens="many"), "…'many'"),
    _tree("manifest: a negative count", _first_shard(documents=-4), "…-4"),
    _tree(
        "manifest: a path outside",
        _first_shard(name="../../secret.arrow"),
        "…'../../secret.arrow'",
    ),
    _tree("manifest: an unknown split", _first_shard(split="test"), "…'test'"),
    _tree(
        "manifest: a size of the vocabulary that is a text",
        lambda tree: tree.update(vocab_size="150"),
        "…'150'",
    ),
    _tree(
        "manifest: a weight that is null",
        lambda tree: tree["sources"][0].update(weight=None),
        "…weight",
    ),
    _tree(
        "manifest: an option that is a text",
        lambda tree: tree["options"].update(drop_duplicates="yes"),
        "…'yes'",
    ),
    case(
        "store",
        "manifest: a document more than there is",
        "evaluate --workdir={here}/run",
        "{here}/run/store/heldout-00000.arrow…damaged",
        {
            f"run/{_MANIFEST}": forged.manifest(
                lambda tree: [x.update(documents=99) for x in tree["shards"]]
            )
        },
        base="text/run",
        code=5,
    ),
    _tree("manifest: no shards", lambda tree: tree.pop("shards"), "…'shards'"),
    _tree(
        "manifest: an unknown key of a shard",
        _first_shard(color="red"),
        "…damaged",
    ),
    case(
        "store",
        "manifest: a smaller vocabulary than the tokenizer",
        "evaluate --workdir={here}/run",
        "{here}/run/store…tokenizer",
        {f"run/{_MANIFEST}": replace('"vocab_size": 126', '"vocab_size": 20')},
        base="text/run",
    ),
    case(
        "store",
        "no manifest",
        "evaluate --workdir={here}/run",
        "{here}/run/store",
        {f"run/{_MANIFEST}": None},
        base="text/run",
    ),
    case(
        "store",
        "another tokenizer than it was cut with",
        "evaluate --workdir={here}/run",
        "{here}/run/store…tokenizer",
        {"run/store/vocab.txt": replace("##a\n", "##aa\n")},
        base="text/run",
    ),
    case(
        "store",
        "another tokenizer than the run's",
        "evaluate --workdir={here}/run",
        "tokenizer…{here}",
        {"run/tokenizer/vocab.txt": replace("##a\n", "##aa\n")},
        base="text/run",
    ),
    case(
        "store",
        "of prepare: another segmenter",
        f"{_PREPARE} --config.text.segmenter=jieba",
        "{here}/store…segmenter…'none'",
        {},
        base="text/store",
    ),
    case(
        "store",
        "of prepare: a corpus with other text",
        f"{_PREPARE}{{here}}/text.txt",
        "{here}/store…text.txt",
        {"text.txt": "the cat sat\n\nthe dog ran\n"},
        base="text/store",
    ),
    case(
        "store",
        "of prepare: a manifest that is cut",
        _PREPARE,
        "{here}/store/manifest.json…read",
        {_MANIFEST: change(lambda content: content[:-30])},
        base="text/store",
    ),
    case(
        "store",
        "of pretrain: a flipped bit",
        _PRETRAIN,
        "{here}/run/store/train-00000.arrow…sha256",
        {f"run/{_TRAIN}": change(lambda x: x[:900] + bytes([x[900] ^ 1]) + x[901:])},
        base="text/run",
        code=5,
    ),
    case(
        "store",
        "a vocabulary in it that is cut",
        "evaluate --workdir={here}/run",
        "{here}/run/store/vocab.txt",
        {"run/store/vocab.txt": b"[PAD]\n\n[CLS]\n"},
        base="text/run",
    ),
]
