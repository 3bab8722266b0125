"""Tokenizers as the tree of a Hugging Face tokenizer.json.

A pipeline has four steps: normalizer, pre-tokenizer, model, post-processor. Each
builder returns a whole tree, with the steps that `transformers` builds for
BertTokenizer, RobertaTokenizer and AlbertTokenizer. `RowTemplate` is what the
post-processor does to ids.
"""

import base64
import dataclasses
import json
from typing import Any, Literal

from bert_jax import errors
from bert_jax.text import characters, spiece
from bert_jax.text.specials import SpecialTokens

Tree = dict[str, Any]

# Whose rules to follow where google-research/bert and Hugging Face's code differ.
Rules = Literal["google", "huggingface"]
CHARACTERS_PER_WORD: dict[Rules, int] = {"google": 200, "huggingface": 100}


def canonical(tree: Tree) -> bytes:
    """Returns the bytes of a tokenizer.json: the same for all equivalent spellings.

    Padding and truncation are left out: sequences are cut and padded elsewhere.
    """
    return dump({**tree, "padding": None, "truncation": None}, indent=None)


def dump(tree: Tree, *, indent: int | None) -> bytes:
    """Returns JSON with sorted keys; replaces lone surrogates, which UTF-8 has not."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        tree,
        ensure_ascii=False,
        sort_keys=True,
        separators=separators,
        indent=indent,
    )
    return characters.without_surrogates(text).encode()


def added_token(
    content: str, index: int, *, special: bool, lstrip: bool = False
) -> Tree:
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
    specials: SpecialTokens,
    *,
    lowercase: bool,
    strip_accents: bool,
    rules: Rules = "huggingface",
    split_chinese: bool = True,
    added: list[Tree] | None = None,
) -> Tree:
    """Returns BertTokenizer's pipeline.

    Args:
      tokens: the vocabulary in the order of its ids.
      specials: how it spells the special tokens.
      lowercase, strip_accents: what the normalizer does.
      rules: whose limit on the length of words to take.
      split_chinese: whether each Chinese character is a word.
      added: the entries of further added tokens.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    all_ids = _with_added(ids, added)
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": split_chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    model = {
        "type": "WordPiece",
        "unk_token": specials.unk,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": CHARACTERS_PER_WORD[rules],
        "vocab": ids,
    }
    return _tree(
        model,
        added=_added_specials(specials, all_ids, added),
        normalizer=normalizer,
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=_template(specials, all_ids),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


def byte_level(
    ids: dict[str, int],
    merges: list[list[str]],
    specials: SpecialTokens,
    *,
    add_prefix_space: bool,
    added: list[Tree] | None = None,
) -> Tree:
    """Returns RobertaTokenizer's pipeline: bytes, merged in the order of `merges`."""
    all_ids = _with_added(ids, added)
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
        # RoBERTa's mask includes the space before it.
        added=_added_specials(specials, all_ids, added, lstrip=(specials.mask,)),
        normalizer=None,
        pre_tokenizer={"type": "ByteLevel", **flags, "use_regex": True},
        post_processor={
            "type": "RobertaProcessing",
            "sep": [specials.sep, all_ids[specials.sep]],
            "cls": [specials.cls, all_ids[specials.cls]],
            **flags,
        },
        decoder={"type": "ByteLevel", **flags, "use_regex": True},
    )


def sentencepiece(
    content: bytes,
    specials: SpecialTokens,
    *,
    lowercase: bool,
    strip_accents: bool,
    quotes: bool,
    added: list[Tree] | None = None,
) -> Tree:
    """Returns the pipeline of a SentencePiece model.

    It is close to the model's own rules, not equal: see `spiece.SentencePiece`.

    Args:
      content: the bytes of the model.
      specials: how the model spells the special tokens.
      lowercase, strip_accents: what is done before the model's own normalization.
      quotes: whether `` and '' become quotes, as in ALBERT.
      added: the entries of further added tokens.
    """
    proto = spiece.message_of_model(content)
    ids = spiece.first_ids(tuple(piece.piece for piece in proto.pieces))
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    space = {"type": "Metaspace", "replacement": spiece.WORD_MARK}
    space |= {"prepend_scheme": scheme, "split": True}
    if proto.trainer_spec.model_type == spiece.BPE:
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
        added=_added_specials(specials, _with_added(ids, added), added),
        normalizer={"type": "Sequence", "normalizers": steps},
        pre_tokenizer=space,
        post_processor=_template(specials, ids),
        decoder=space,
    )


def _normalizers(
    proto: Any, lowercase: bool, strip_accents: bool, quotes: bool
) -> list[Tree]:
    """Returns the steps before the model's own normalization, and that."""
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
    """Returns SentencePiece's BPE model: merges in the order of their scores."""
    merges = []
    for piece in proto.pieces:
        if piece.type != spiece.NORMAL:
            continue
        name = piece.piece
        for cut in range(1, len(name)):
            pair = [name[:cut], name[cut:]]
            if pair[0] in ids and pair[1] in ids:
                merges.append((-piece.score, ids[pair[0]], ids[pair[1]], pair))
    merges.sort()
    unknown = spiece.UNKNOWN
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


def _with_added(ids: dict[str, int], added: list[Tree] | None) -> dict[str, int]:
    """Returns the ids of the tokens and of further added ones."""
    return ids | {token["content"]: token["id"] for token in added or []}


def _added_specials(
    specials: SpecialTokens,
    ids: dict[str, int],
    added: list[Tree] | None,
    lstrip: tuple[str | None, ...] = (),
) -> list[Tree]:
    """Returns the entries of special and further added tokens, in the order of ids."""
    own = {
        name: added_token(name, ids[name], special=True, lstrip=name in lstrip)
        for name in specials.present().values()
    }
    entries = own | {token["content"]: token for token in added or []}
    return sorted(entries.values(), key=lambda token: token["id"])


def _template(specials: SpecialTokens, ids: dict[str, int]) -> Tree:
    """Returns BERT's sequences as a TemplateProcessing."""

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
    """Returns the tree of a tokenizer.json."""
    empty = {"version": "1.0", "truncation": None, "padding": None}
    return {**empty, "added_tokens": added, **parts, "model": model}


# How the ids of one text, or of two, are joined with special tokens into a sequence:
#
# BERT:    [CLS] a [SEP]          [CLS] a [SEP] b [SEP]      token types 0 and 1
# RoBERTa: <s> a </s>             <s> a </s></s> b </s>      all token types 0


# The parts in order: "A", "B" or the id of a special token; and the token
# type of each.
Parts = tuple[tuple[int | str, int], ...]


@dataclasses.dataclass(frozen=True)
class RowTemplate:
    """The parts of a sequence of one text, and of one of two texts."""

    single: Parts
    pair: Parts

    def build(
        self, ids_a: list[int], ids_b: list[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Returns the ids of a sequence, and the token type of each."""
        texts = {"A": ids_a, "B": ids_b or []}
        ids: list[int] = []
        types: list[int] = []
        for part, type_id in self.single if ids_b is None else self.pair:
            part_ids = texts[part] if isinstance(part, str) else [part]
            ids += part_ids
            types += [type_id] * len(part_ids)
        return ids, types


def bert_rows(cls_id: int, sep_id: int) -> RowTemplate:
    """Returns BERT's template.

    >>> bert_rows(2, 3).build([7, 8], [9])
    ([2, 7, 8, 3, 9, 3], [0, 0, 0, 0, 1, 1])
    """
    single: Parts = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return RowTemplate(single, (*single, ("B", 1), (sep_id, 1)))


def roberta_rows(cls_id: int, sep_id: int) -> RowTemplate:
    """Returns RoBERTa's template.

    >>> roberta_rows(0, 2).build([7, 8], [9])
    ([0, 7, 8, 2, 2, 9, 2], [0, 0, 0, 0, 0, 0, 0])
    """
    single: Parts = ((cls_id, 0), ("A", 0), (sep_id, 0))
    return RowTemplate(single, (*single, (sep_id, 0), ("B", 0), (sep_id, 0)))


def rows_of_post_processor(
    tree: Any, where: str, vocab_size: int
) -> RowTemplate | None:
    """Reads the `post_processor` of a tokenizer.json; None if it adds no tokens.

    Raises:
      InputError: its type is unknown, it is broken, or an id is out of range.
    """
    if tree is None:
        return None
    try:
        template = _rows(tree)
    except (LookupError, TypeError, ValueError) as error:
        raise errors.InputError(
            f"{where}: its post_processor cannot be read ({type(error).__name__}:"
            f" {error}). Write one of type TemplateProcessing."
        ) from None
    for part, _ in () if template is None else (*template.single, *template.pair):
        if isinstance(part, int) and part >= vocab_size:
            raise errors.InputError(
                f"{where}: its post_processor adds the id {part}, and there are"
                f" {vocab_size} tokens. Correct it."
            )
    return template


def _rows(tree: dict[str, Any]) -> RowTemplate | None:
    """Reads a post-processor, or the first one of a sequence that adds tokens."""
    match tree["type"]:
        case "Sequence":
            templates = (_rows(inner) for inner in tree["processors"])
            return next((each for each in templates if each is not None), None)
        case "ByteLevel":
            return None
        case "BertProcessing":
            return bert_rows(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "RobertaProcessing":
            return roberta_rows(_integer(tree["cls"][1]), _integer(tree["sep"][1]))
        case "TemplateProcessing":
            special = tree["special_tokens"]
            return RowTemplate(
                _parts(tree["single"], special), _parts(tree["pair"], special)
            )
    raise ValueError(f"type {tree['type']!r} is unknown")


def _parts(template: list[dict[str, Any]], special: dict[str, Any]) -> Parts:
    """Reads one template of a tokenizer.json."""
    parts: list[tuple[int | str, int]] = []
    for entry in template:
        ((kind, part),) = entry.items()
        type_id = _integer(part["type_id"])
        if kind == "Sequence" and part["id"] in ("A", "B"):
            parts.append((part["id"], type_id))
        elif kind == "SpecialToken":
            ids = special[part["id"]]["ids"]
            parts += [(_integer(index), type_id) for index in ids]
        else:
            raise ValueError(f"{entry} is neither a Sequence nor a SpecialToken")
    return tuple(parts)


def _integer(value: Any) -> int:
    """Returns a value that is an id or a token type."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not an id")
    return value
