"""Any other tokenizer that Hugging Face's tokenizer.json describes.

RoBERTa's byte-level BPE, ALBERT's Unigram, WordPiece with other rules than BERT's: the
Rust code of `tokenizers` does what the file says, but for one thing. The five special
pieces get other names inside, which no text can spell, so that raw text that spells
"<mask>" is never read as the mask. Other added tokens are found, special or not.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tokenizers
from jaxtyping import Int64, UInt32

from bert_jax import errors
from bert_jax.text import rows, special_pieces, spiece, wordpiece

BYTE_MARK = "\u0120"  # the letter that stands for a space in byte-level BPE

_HIDDEN = "\U0010ffff"  # no character; heads the names that no text can spell
_SHOWN = "\ufffd"  # stands in for it where text holds it
_ID_LIMIT = 2**31
_PROBE = "\U00013000 [a] \u00c0"  # unknown to most, so that "unknown" is tried

_Result = TypeVar("_Result")


class TokenizerJson:
    """Turns sentences into ids as a tokenizer.json says."""

    def __init__(self, content: bytes, specials: special_pieces.Specials) -> None:
        """Builds the Rust tokenizer from bytes that `canonical` has made."""
        tree = json.loads(content)
        hidden = special_pieces.spellings(specials)
        self._rust = _build(_hide(tree, hidden), "tokenizer.json")
        self._whole = _build(tree, "tokenizer.json")
        self._mask = specials.mask
        if specials.mask is not None:
            visible = _hide(tree, hidden - {specials.mask})
            self._with_mask = _build(visible, "tokenizer.json")
            if specials.mask not in _special_names(tree):
                self._with_mask.add_special_tokens([specials.mask])

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence."""
        clean = [_clean(sentence) for sentence in sentences]
        encodings = self._rust.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_flat(
        self, sentences: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all sentences in a row, and each one's length."""
        return wordpiece.flatten(self.encode(sentences))

    def encode_with_offsets(
        self, sentences: list[str]
    ) -> list[tuple[list[int], wordpiece.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        clean = [_clean(sentence) for sentence in sentences]
        encodings = self._rust.encode_batch(clean, add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def encode_masked(self, parts: list[str], mask_id: int) -> list[int]:
        """Returns the ids of a text whose parts the mask divides.

        What the file says of spaces beside the mask holds.
        """
        del mask_id  # the Rust code knows it
        assert self._mask is not None
        text = self._mask.join(_clean(part) for part in parts)
        return self._with_mask.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Returns readable text for ids."""
        return self._whole.decode(ids, skip_special_tokens=False)


def _clean(sentence: str) -> str:
    """Replaces what no text holds, one for one."""
    return wordpiece.without_surrogates(sentence).replace(_HIDDEN, _SHOWN)


def canonical(tree: dict[str, Any]) -> bytes:
    """Returns the bytes of a tokenizer.json: one spelling for what means the same.

    Padding and truncation are left out: rows are cut and filled elsewhere.
    """
    kept = {key: tree[key] for key in tree if key not in ("padding", "truncation")}
    return dump({**kept, "padding": None, "truncation": None}, indent=None)


def dump(tree: dict[str, Any], *, indent: int | None) -> bytes:
    """Returns JSON with sorted keys; replaces lone surrogates, which are no text."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        tree,
        ensure_ascii=False,
        sort_keys=True,
        separators=separators,
        indent=indent,
    )
    return wordpiece.without_surrogates(text).encode()


def pieces(tree: dict[str, Any], where: str) -> tuple[str, ...]:
    """Checks a tokenizer.json and returns its pieces in the order of their ids.

    Raises:
      InputError: it is broken, or ids are missing, doubled or out of range.
    """
    ids = with_added(model_ids(tree, where), added_tokens(tree, where), where)
    tokens = in_order(ids, where)
    rust = _build(tree, where)
    if rust.get_vocab(with_added_tokens=True) != ids:
        raise errors.InputError(
            f"{where}: added_tokens are not in the order of their ids. Sort them."
        )
    _reading(lambda: rust.encode(_PROBE, add_special_tokens=False), where)
    return tokens


def model_ids(tree: dict[str, Any], where: str) -> dict[str, int]:
    """Returns the id of each piece of the `model`, without added tokens.

    Raises:
      InputError: there is no model with a vocabulary.
    """
    model = tree["model"] if isinstance(tree.get("model"), dict) else {}
    vocabulary = model["vocab"] if "vocab" in model else None
    if isinstance(vocabulary, list) and vocabulary:  # Unigram: [piece, score] by id
        for index, entry in enumerate(vocabulary):
            if not _is_scored(entry):
                raise errors.InputError(
                    f"{where}: entry {index} of its vocabulary is {entry!r}. Write"
                    " [piece, score]."
                )
        return _unique([name for name, _ in vocabulary], where)
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise errors.InputError(
            f"{where} is no tokenizer.json: it has no model with a vocabulary. Give"
            " the file that a Hugging Face tokenizer saved."
        )
    for name, index in vocabulary.items():
        if not _is_id(index):
            raise errors.InputError(
                f"{where}: the id of the piece {name!r} is {index!r}. Write a whole"
                " number, 0 or more."
            )
    return dict(vocabulary)


def _is_scored(entry: Any) -> bool:
    """Says whether an entry of a Unigram vocabulary is a piece and its score."""
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    return isinstance(entry[0], str) and isinstance(entry[1], int | float)


def _is_id(value: Any) -> bool:
    """Says whether a value of a JSON file is an id."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 0 <= value < _ID_LIMIT


def _unique(names: list[str], where: str) -> dict[str, int]:
    """Numbers pieces, and refuses doubled ones."""
    ids: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in ids:
            raise errors.InputError(
                f"{where}: ids {ids[name]} and {index} hold the same piece {name!r}."
                " A piece can have one id only."
            )
        ids[name] = index
    return ids


def in_order(ids: dict[str, int], where: str) -> tuple[str, ...]:
    """Returns pieces in the order of their ids, which must be 0, 1, 2 and so on.

    Raises:
      InputError: an id is missing or given twice.
    """
    tokens = tuple(sorted(ids, key=ids.__getitem__))
    for index, token in enumerate(tokens):
        if ids[token] != index:
            what = f"has no piece with id {index}" if ids[token] > index else "has"
            twice = "" if ids[token] > index else f" two pieces with id {ids[token]}"
            raise errors.InputError(
                f"{where} {what}{twice}, near {token!r}. The ids of its"
                f" {len(ids)} pieces must be 0 to {len(ids) - 1}, each once."
            )
    return tokens


def added_tokens(tree: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Returns the entries of `added_tokens`, checked.

    Raises:
      InputError: one is not as tokenizer.json writes them.
    """
    found = tree["added_tokens"] if "added_tokens" in tree else []
    for token in found if isinstance(found, list) else [found]:
        right = isinstance(token, dict) and "content" in token and "id" in token
        if not (right and isinstance(token["content"], str) and _is_id(token["id"])):
            raise errors.InputError(
                f"{where}: among added_tokens is {token!r}. Write objects with"
                ' "id" and "content".'
            )
    return found


def with_added(
    ids: dict[str, int], added: list[dict[str, Any]], where: str
) -> dict[str, int]:
    """Returns the ids of the model's pieces and of the added tokens.

    Raises:
      InputError: a token has another id there than in the model.
    """
    whole = dict(ids)
    for token in added:
        name, index = token["content"], token["id"]
        if whole.setdefault(name, index) != index:
            raise errors.InputError(
                f"{where}: the piece {name!r} has the id {whole[name]} in the"
                f" vocabulary and {index} among the added tokens. Correct one."
            )
    return whole


def rows_of(tree: dict[str, Any], where: str, vocab_size: int) -> rows.Rows | None:
    """Returns the rows that a tokenizer.json makes; None where it says nothing.

    Raises:
      InputError: they are of an unknown kind, or hold an id out of range.
    """
    found = tree["post_processor"] if "post_processor" in tree else None
    made = rows.of_post_processor(found, where)
    for what, _ in () if made is None else (*made.single, *made.pair):
        if isinstance(what, int) and what >= vocab_size:
            raise errors.InputError(
                f"{where}: its post_processor adds the id {what}, and there are"
                f" {vocab_size} pieces. Correct it."
            )
    return made


def continues(tree: dict[str, Any], tokens: tuple[str, ...]) -> list[bool]:
    """Says of each piece whether it continues a word, by the mark of its model."""
    parts = [tree[name] for name in ("pre_tokenizer", "decoder") if name in tree]
    model = json.dumps(parts)
    if "continuing_subword_prefix" in tree["model"] and "merges" not in tree["model"]:
        return [len(t) > 2 and t.startswith("##") for t in tokens]
    mark = BYTE_MARK if '"ByteLevel"' in model else spiece.WORD_MARK
    return [not token.startswith(mark) for token in tokens]


def lowers(tree: dict[str, Any]) -> tuple[bool, bool]:
    """Says whether a tokenizer.json lowers case, and whether it strips accents."""
    lowered = stripped = False
    for step in _steps(tree["normalizer"] if "normalizer" in tree else None):
        kind = step["type"] if "type" in step else None
        lowered |= kind == "Lowercase" or step.get("lowercase") is True
        accents = step["strip_accents"] if "strip_accents" in step else False
        accents = step.get("lowercase") is True if accents is None else accents is True
        stripped |= kind == "StripAccents" or accents
    return lowered, stripped


def lowered(tree: dict[str, Any]) -> bytes:
    """Returns the bytes of a tokenizer.json that lowers text before all else."""
    steps = [{"type": "Lowercase"}, *_steps(tree.get("normalizer"))]
    sequence = {"type": "Sequence", "normalizers": steps}
    return canonical({**tree, "normalizer": sequence})


def _steps(tree: Any) -> list[dict[str, Any]]:
    """Returns the normalizers of a sequence, or the only one."""
    if not isinstance(tree, dict):
        return []
    if "normalizers" in tree and isinstance(tree["normalizers"], list):
        return [step for inner in tree["normalizers"] for step in _steps(inner)]
    return [tree]


def _special_names(tree: dict[str, Any]) -> set[str]:
    """Returns the names of all added tokens that are special."""
    added = added_tokens(tree, "tokenizer.json")
    return {token["content"] for token in added if token.get("special") is True}


def _hide(tree: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Returns the tree with these pieces renamed so that no text spells them."""

    def rename(name: Any) -> Any:
        return _HIDDEN + name if name in names else name

    model = dict(tree["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {rename(name): vocabulary[name] for name in vocabulary}
    else:
        model["vocab"] = [[rename(name), score] for name, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = rename(model["unk_token"])
    added = [
        {**token, "content": rename(token["content"])}
        for token in added_tokens(tree, "tokenizer.json")
    ]
    return {**tree, "model": model, "added_tokens": added}


def _build(tree: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    """Builds the Rust tokenizer, which adds no special pieces.

    Raises:
      InputError: the library cannot read the file.
    """
    whole = {**tree, "post_processor": _trimming(tree.get("post_processor"))}
    text = canonical(whole).decode()
    return _reading(lambda: tokenizers.Tokenizer.from_str(text), where)


def _reading(call: Callable[[], _Result], where: str) -> _Result:
    """Returns what a call into the Rust library returns.

    Raises:
      InputError: it fails, as it does for files that it cannot read or use.
    """
    try:
        return call()
    except BaseException as error:
        # It raises bare Exception, or a class of its own when its code panics.
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise errors.InputError(
                f"{where} is no tokenizer.json that the tokenizers library can use:"
                f" {error}. Save the tokenizer again."
            ) from None
        raise


def _trimming(tree: Any) -> Any:
    """Returns what a post-processor does to offsets: byte-level ones lose blanks."""
    every = (
        tree["processors"]
        if isinstance(tree, dict) and "processors" in tree
        else [tree]
    )
    for step in every:
        if isinstance(step, dict) and step.get("trim_offsets") is True:
            prefix = (
                step["add_prefix_space"] is True if "add_prefix_space" in step else True
            )
            return {
                "type": "ByteLevel",
                "add_prefix_space": prefix,
                "trim_offsets": True,
                "use_regex": True,
            }
    return None
