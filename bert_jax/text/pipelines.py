"""Writes our tokenizers as Hugging Face's tokenizer.json: normalise, part, cut, join.

Each function returns the tree of one file. The parts are those that `transformers`
builds for BertTokenizer, RobertaTokenizer and AlbertTokenizer.
"""

import base64
from typing import Any

from bert_jax.text import sentencepiece_messages, special_pieces, spiece
from bert_jax.text import wordpiece as wordpiece_rules

Tree = dict[str, Any]


def added(content: str, index: int, *, special: bool, lstrip: bool = False) -> Tree:
    """Returns one entry of `added_tokens`."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": lstrip,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }


def wordpiece(
    tokens: tuple[str, ...],
    specials: special_pieces.Specials,
    *,
    lowercase: bool,
    strip_accents: bool,
    parts_chinese: bool = True,
    more: list[Tree] | None = None,
) -> Tree:
    """Returns BertTokenizer's pipeline; `more` are further added tokens."""
    ids = {token: index for index, token in enumerate(tokens)}
    whole = _with_added(ids, more)
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": parts_chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    model = {
        "type": "WordPiece",
        "unk_token": specials.unk,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": wordpiece_rules.HUGGING_FACE_CHARACTERS_PER_WORD,
        "vocab": ids,
    }
    return _tree(
        model,
        added=_added_specials(specials, whole, more),
        normalizer=normalizer,
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=_template(specials, whole),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


def byte_level(
    ids: dict[str, int],
    merges: list[list[str]],
    specials: special_pieces.Specials,
    *,
    add_prefix_space: bool,
    more: list[Tree] | None = None,
) -> Tree:
    """Returns RobertaTokenizer's pipeline: bytes, joined in the order of `merges`."""
    whole = _with_added(ids, more)
    flags = {"add_prefix_space": add_prefix_space, "trim_offsets": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": ids,
        "merges": merges,
    }
    return _tree(
        model,
        # Before RoBERTa's mask a space belongs to the mask.
        added=_added_specials(specials, whole, more, lstrip=(specials.mask,)),
        normalizer=None,
        pre_tokenizer={"type": "ByteLevel", **flags, "use_regex": True},
        post_processor={
            "type": "RobertaProcessing",
            "sep": [specials.sep, whole[specials.sep]],
            "cls": [specials.cls, whole[specials.cls]],
            **flags,
        },
        decoder={"type": "ByteLevel", **flags, "use_regex": True},
    )


def sentencepiece(
    content: bytes,
    specials: special_pieces.Specials,
    *,
    lowercase: bool,
    strip_accents: bool,
    quotes: bool,
    more: list[Tree] | None = None,
) -> Tree:
    """Returns the pipeline of a SentencePiece model; `quotes` as ALBERT writes them.

    `more` are further added tokens.
    """
    proto = sentencepiece_messages.model(content)
    names = [piece.piece for piece in proto.pieces]
    ids = {name: index for index, name in reversed(list(enumerate(names)))}
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    space = {"type": "Metaspace", "replacement": spiece.WORD_MARK}
    space |= {"prepend_scheme": scheme, "split": True}
    if proto.trainer_spec.model_type == sentencepiece_messages.BPE:
        model = _bpe(proto, ids)
    else:
        model = {
            "type": "Unigram",
            "unk_id": ids[specials.unk],
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": proto.trainer_spec.byte_fallback,
        }
    steps = _normalizers(proto, lowercase, strip_accents, quotes)
    return _tree(
        model,
        added=_added_specials(specials, _with_added(ids, more), more),
        normalizer={"type": "Sequence", "normalizers": steps},
        pre_tokenizer=space,
        post_processor=_template(specials, ids),
        decoder=space,
    )


def _normalizers(
    proto: Any, lowercase: bool, strip_accents: bool, quotes: bool
) -> list[Tree]:
    """Returns what a model, and what we do before it, change of the text."""
    steps: list[Tree] = []
    if quotes:
        for spelling in ("``", "''"):
            pattern = {"String": spelling}
            steps.append({"type": "Replace", "pattern": pattern, "content": '"'})
    if strip_accents:
        steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if lowercase:
        steps.append({"type": "Lowercase"})
    table = proto.normalizer_spec.precompiled_charsmap
    if table:
        text = base64.b64encode(table).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": text})
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        many = {"Regex": " {2,}"}
        steps.append({"type": "Replace", "pattern": many, "content": " "})
    return steps


def _bpe(proto: Any, ids: dict[str, int]) -> Tree:
    """Returns the model of SentencePiece's BPE: pairs in the order of their scores."""
    merges = []
    for piece in proto.pieces:
        if piece.type != sentencepiece_messages.NORMAL:
            continue
        name = piece.piece
        for cut in range(1, len(name)):
            pair = [name[:cut], name[cut:]]
            if pair[0] in ids and pair[1] in ids:
                merges.append((-piece.score, ids[pair[0]], ids[pair[1]], pair))
    merges.sort()
    unknown = sentencepiece_messages.UNKNOWN
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(p.piece for p in proto.pieces if p.type == unknown),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": proto.trainer_spec.byte_fallback,
        "ignore_merges": False,
        "vocab": ids,
        "merges": [pair for *_, pair in merges],
    }


def _with_added(ids: dict[str, int], more: list[Tree] | None) -> dict[str, int]:
    """Returns the ids of pieces and of further added tokens."""
    return ids | {token["content"]: token["id"] for token in more or []}


def _added_specials(
    specials: special_pieces.Specials,
    ids: dict[str, int],
    more: list[Tree] | None,
    lstrip: tuple[str | None, ...] = (),
) -> list[Tree]:
    """Returns the special pieces as added tokens, and more, in the order of ids."""
    own = {
        name: added(name, ids[name], special=True, lstrip=name in lstrip)
        for name in specials.present().values()
    }
    every = own | {token["content"]: token for token in more or []}
    return sorted(every.values(), key=lambda token: token["id"])


def _template(specials: special_pieces.Specials, ids: dict[str, int]) -> Tree:
    """Returns the rows of BERT as a TemplateProcessing."""

    def special(name: str, kind: int) -> Tree:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> Tree:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [special(specials.cls, 0), text("A", 0), special(specials.sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special(specials.sep, 1)],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]}
            for name in (specials.cls, specials.sep)
        },
    }


def _tree(model: Tree, *, added: list[Tree], **parts: Tree | None) -> Tree:
    """Returns the tree of a file."""
    empty = {"version": "1.0", "truncation": None, "padding": None}
    return {**empty, "added_tokens": added, **parts, "model": model}
