"""Bad vocabularies: vocab.txt, tokenizer.json and its company, SentencePiece models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import small_inputs
from bad_files import Case, Content, case, change, dangling, fifo

_PRETRAIN = "pretrain --config={good}/text/tiny.py --workdir={here}/run "
_TOKENS = small_inputs.TOKENS


def _lines(*pieces: str) -> bytes:
    return "".join(f"{piece}\n" for piece in pieces).encode()


def _vocab(name: str, content: Content | Sequence[str], expected: str) -> Case:
    """A vocab.txt, or its tokens."""
    written = _lines(*content) if isinstance(content, list) else content
    command = f"{_PRETRAIN}--config.text.vocab={{here}}/v.txt"
    return case(
        "vocab.txt", name, command, f"{{here}}/v.txt{expected}", {"v.txt": written}
    )


VOCAB = [
    _vocab("not there", lambda path: None, "…exist"),
    _vocab("a link to nothing", dangling, "…exist"),
    _vocab("empty", b"", "…empty"),
    _vocab("only a byte order mark", b"\xef\xbb\xbf", "…empty"),
    _vocab("blank lines", b"\n\n \n", "…empty"),
    _vocab("a piece twice", [*_TOKENS, "a"], "…lines 6 and 38"),
    _vocab("a piece twice but for blanks", [*_TOKENS, " a"], "…lines 6 and 38"),
    _vocab("no [MASK]", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], "…[MASK]"),
    _vocab("no [UNK]", [x for x in _TOKENS if x != "[UNK]"], "…[UNK]…36"),
    _vocab("no [CLS], no [PAD]", _TOKENS[3:] + ["[UNK]"], "…[PAD]…[CLS]"),
    _vocab("a blank line", ["a", "", "b"], ":2"),
    _vocab("a first blank line", ["", *_TOKENS], ":1"),
    _vocab("two pieces a line", [*_TOKENS, "b c"], ":38…line is 'b c'"),
    _vocab("pieces and counts", [f"{x}\t7" for x in _TOKENS], ":1…'[PAD]\\t7"),
    _vocab("no UTF-8", b"a\n\xff\n", ":2…2…0xff…UTF-8"),
    _vocab("UTF-16", "a\nb\n".encode("utf-16"), ":1…UTF-8"),
    _vocab("NUL bytes", b"a\nb\0\n", ":2…'b\\x00'"),
    _vocab("a folder of nothing", lambda path: path.mkdir(), "…vocab.txt"),
    _vocab("a pipe", fifo, "…read"),
    _vocab("gzip", b"\x1f\x8b\x08\0\0\0\0\0", ":1…0x8b…UTF-8"),
    *(
        case(
            "vocab.txt",
            f"a table of {size} rows",
            f"{_PRETRAIN}--config.text.vocab={{good}}/text/vocab.txt "
            f"--config.model.vocab_size={size}",
            f"vocab_size…{size}…37",
            {},
        )
        for size in (36, 38)
    ),
    case(
        "vocab.txt",
        "of fine-tuning, a piece twice",
        "finetune --config={good}/tasks/tiny.py --workdir={here}/run "
        "--config.text.vocab={here}/v.txt",
        "{here}/v.txt…lines 6 and 38",
        {"v.txt": _lines(*_TOKENS, "a")},
    ),
    case(
        "vocab.txt",
        "of prepare, a blank line",
        "prepare --config={good}/text/tiny.py --store={here}/s "
        "--config.text.vocab={here}/v.txt",
        "{here}/v.txt:3",
        {"v.txt": b"a\nb\n\nc\n"},
    ),
]


def _json(
    name: str, edit: Content, expected: str, file: str = "tokenizer.json"
) -> Case:
    command = f"{_PRETRAIN}--config.text.vocab={{here}}/json"
    words = f"{{here}}/json/{file}{expected}"
    files = {f"json/{file}": edit}
    return case("tokenizer.json", name, command, words, files, base="json")


def _tree(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Returns a function that edits the JSON object of a file."""

    def edited(content: bytes) -> bytes:
        tree = json.loads(content)
        edit(tree)
        return json.dumps(tree).encode()

    return change(edited)


def _without_mask(tree: dict[str, Any]) -> None:
    """Gives the last token the id of [MASK], and removes [MASK]."""
    ids = tree["model"]["vocab"]
    last = max(ids, key=ids.__getitem__)
    ids[last] = ids.pop("[MASK]")
    tree["added_tokens"] = [x for x in tree["added_tokens"] if x["content"] in ids]


def _in_model(**keys) -> Callable[[Path], object]:
    return _tree(lambda tree: tree["model"].update(keys))


def _in_vocab(**ids) -> Callable[[Path], object]:
    return _tree(lambda tree: tree["model"]["vocab"].update(ids))


def _processor(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return _tree(lambda tree: edit(tree["post_processor"]))


_OPTIONS = "tokenizer_config.json"
_LIBRARY = " is not a tokenizer.json that the tokenizers library can use"
TOKENIZER_JSON = [
    _json("empty", b"", "…JSON"),
    _json("cut", change(lambda content: content[:-40]), "…JSON"),
    _json("a list", b"[]", "…JSON"),
    _json("no UTF-8", b'{"a": "\xff"}', "…JSON"),
    _json("nothing in it", b"{}", _LIBRARY),
    _json("a model that is a list", _tree(lambda t: t.update(model=[])), _LIBRARY),
    _json("an id that is a text", _in_vocab(a="6"), _LIBRARY),
    _json("a negative id", _in_vocab(a=-1), _LIBRARY),
    _json("an id that is true", _in_vocab(a=True), _LIBRARY),
    _json("an id of 2**40", _in_vocab(a=2**40), _LIBRARY),
    _json("an id twice", _in_vocab(more=6), "…6"),
    _json("an id left out", _in_vocab(more=38), "…37…'more'"),
    _json("a key twice", change(lambda x: b'{"model": {}, ' + x[1:]), "…'mod"),
    _json("another kind of model", _in_model(type="Magic"), _LIBRARY),
    _json(
        "added tokens that are a text",
        _tree(lambda tree: tree.update(added_tokens="x")),
        _LIBRARY,
    ),
    _json(
        "an added token of another id",
        _tree(lambda tree: tree["added_tokens"][0].update(id=9)),
        "…'[PAD]'",
    ),
    _json(
        "rows with an id beyond the tokens",
        _processor(lambda tree: tree["special_tokens"]["[CLS]"].update(ids=[37])),
        "…post_processor…37",
    ),
    _json(
        "rows with a negative id",
        _processor(lambda tree: tree["special_tokens"]["[CLS]"].update(ids=[-1])),
        "…post_processor",
    ),
    _json(
        "rows of an unknown kind",
        _processor(lambda tree: tree.update(type="Magic")),
        "…post_processor",
    ),
    _json(
        "rows without a template",
        _processor(lambda tree: tree.pop("single")),
        "…post_processor",
    ),
    _json(
        "no [MASK]",
        _tree(_without_mask),
        "…[MASK]…36",
    ),
    _json("options that are a list", b"[]", "…JSON", _OPTIONS),
    _json("options that are cut", b'{"do_lower', "…JSON", _OPTIONS),
    _json(
        "an added token under no number",
        b'{"added_tokens_decoder": {"x": {"content": "x"}}}',
        "",
        _OPTIONS,
    ),
    _json(
        "an added token under a huge number",
        b'{"added_tokens_decoder": {"%s": {"content": "x"}}}' % (b"9" * 5000),
        "",
        _OPTIONS,
    ),
    _json(
        "a special piece that is not there",
        b'{"cls_token": "<here>"}',
        "",
        _OPTIONS,
    ),
    case(
        "tokenizer.json",
        "a vocab.txt of other tokens next to it",
        f"{_PRETRAIN}--config.text.vocab={{here}}/json",
        "{here}/json/vocab.txt…38 tokens…{here}/json/tokenizer.json…37",
        {"json/vocab.txt": _lines(*_TOKENS, "more")},
        base="json",
    ),
    case(
        "tokenizer.json",
        "merges of other pieces",
        f"{_PRETRAIN}--config.text.vocab={{here}}/v",
        "{here}/v/merges.txt:2…'a c'",
        {
            "v/vocab.json": json.dumps({x: i for i, x in enumerate(_TOKENS)}),
            "v/merges.txt": "#version: 0.2\na c\n",
        },
    ),
]


def _model(name: str, content: Content, expected: str, base: str = "") -> Case:
    file = base or "v.model"
    command = f"{_PRETRAIN}--config.text.vocab={{here}}/{file}"
    words = f"{{here}}/{file}{expected}"
    files = {file: content}
    return case("SentencePiece", name, command, words, files, base=base)


_NONE = "…SentencePiece"
SENTENCEPIECE = [
    _model("empty", b"", "…empty"),
    _model("a text", _lines(*_TOKENS), _NONE),
    _model("NUL bytes", bytes(4096), _NONE),
    _model("JSON", b"{}", _NONE),
    _model("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\3\3\0\0\0\0\0", _NONE),
    _model("two bytes of it", change(lambda x: x[:2]), _NONE, "spm.model"),
    _model("half", change(lambda x: x[: len(x) // 2]), _NONE, "spm.model"),
    _model("cut in its last byte", change(lambda x: x[:-1]), _NONE, "spm.model"),
    _model(
        "a first byte more", change(lambda content: b"\0" + content), _NONE, "spm.model"
    ),
    _model("[MASK] is a piece as any", lambda path: None, "…[MASK]", "plain.model"),
    _model("a folder", lambda path: path.mkdir(), "…vocab.txt"),
    _model("a pipe", fifo, "…read"),
    _model("not there", lambda path: None, "…exist"),
    case(
        "SentencePiece",
        "a vocab.txt next to it",
        f"{_PRETRAIN}--config.text.vocab={{here}}/v",
        "{here}/v…vocab.txt…spiece.model",
        {"v/vocab.txt": _lines(*_TOKENS), "v/spiece.model": b"x"},
    ),
    case(
        "SentencePiece",
        "a table of other rows",
        f"{_PRETRAIN}--config.text.vocab={{good}}/spm.model "
        "--config.model.vocab_size=36",
        "vocab_size is 36",
        {},
    ),
]
CASES = VOCAB + TOKENIZER_JSON + SENTENCEPIECE
