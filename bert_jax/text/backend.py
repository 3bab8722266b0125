"""The back end of tokenizers: a pipeline that the Rust code of `tokenizers` runs.

A pipeline is the tree of a tokenizer.json, from `pipelines` or from a file. It is
built once, with the special tokens under names that no text contains, so that raw text
that spells "<mask>" is never read as the mask. Other added tokens are found in text.

A WordPiece pipeline follows Hugging Face's rules, those of `transformers`: private-use
characters are dropped. Google's, of google-research/bert's `tokenization.py`, read few
characters otherwise; `GoogleRules` replaces them, one for one, before the Rust code
sees the text.
"""

import functools
import itertools
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import tokenizers

from bert_jax import errors
from bert_jax.text import characters, pipelines
from bert_jax.text import specials as special_tokens
from bert_jax.text.pipelines import Tree
from bert_jax.text.specials import SpecialTokens

# Noncharacters of Unicode: around the names that no text contains, and in its place.
_HIDDEN, _HIDDEN_IN_TEXT = "\U0010ffff", "\U0010fffe"
_INVALID = re.compile(f"[\ud800-\udfff{_HIDDEN}]")

_PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff\ud800-\udfff"
_CJK_MISSED = "\U0002b820-\U0002b91f"

_Result = TypeVar("_Result")


class Backend:
    """Runs one pipeline; a text's special tokens are neither added nor recognized."""

    def __init__(
        self,
        tree: Tree,
        specials: SpecialTokens,
        clean: Callable[[str], str] | None = None,
    ) -> None:
        """Builds the Rust tokenizer.

        Args:
          tree: the pipeline, as `check` accepts it.
          specials: the special tokens that raw text is never read as.
          clean: replaces characters of a text one for one, invalid ones included; by
            default those become U+FFFD.
        """
        self._tree = tree
        self._clean = clean or _without_invalid
        self._mask = _hide(specials.mask or "")
        self._rust = build(_with_hidden(tree, specials), "tokenizer.json")

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        encodings = self._rust.encode_batch_fast(
            [self._clean(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def encode_with_offsets(
        self, texts: list[str]
    ) -> list[tuple[list[int], characters.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        encodings = self._rust.encode_batch(
            [self._clean(text) for text in texts], add_special_tokens=False
        )
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def encode_masked(self, parts: list[str], mask_id: int) -> list[int]:
        """Returns the ids of the parts of a text with a mask between them.

        What the pipeline does with spaces around the mask applies.
        """
        del mask_id  # it is in the pipeline
        text = self._mask.join(self._clean(part) for part in parts)
        return self._rust.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Returns readable text for ids, by the decoder of the pipeline."""
        return self._decoder.decode(ids, skip_special_tokens=False)

    @functools.cached_property
    def _decoder(self) -> tokenizers.Tokenizer:
        """The pipeline with the special tokens under their own names."""
        return build(self._tree, "tokenizer.json")


class GoogleRules:
    """Replaces, one for one, the characters that Rust and Google's code read otherwise.

    A private-use character stays part of its word (which is then unknown), U+2B820 to
    U+2B91F are Chinese characters, and a capital sigma at the end of a word becomes the
    final small one. Lone surrogates are treated as private-use characters.
    """

    def __init__(self, tokens: tuple[str, ...], lowercase: bool) -> None:
        """Chooses unknown characters to use, and what to search texts for."""
        self._lowercase = lowercase
        self._different = _DIFFERENT_LOWERCASE if lowercase else _DIFFERENT
        self._unknown_letter = _absent(tokens, 0x13000)
        self._unknown_cjk = _absent(tokens, 0x20000)

    def __call__(self, text: str) -> str:
        """Returns a text of the same length, which Rust reads as Google's code does."""
        # Few texts have such a character.
        if text.isascii() or not self._different.search(text):
            return text
        if self._lowercase and "Σ" in text:
            text = _with_final_sigmas(text)
        return _DIFFERENT.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        """Returns a character of the same class that no token contains."""
        is_cjk = "\U0002b820" <= match[0] <= "\U0002b91f"
        return self._unknown_cjk if is_cjk else self._unknown_letter


_DIFFERENT = re.compile(f"[{_PRIVATE}{_CJK_MISSED}]")
_DIFFERENT_LOWERCASE = re.compile(f"[Σ{_PRIVATE}{_CJK_MISSED}]")


def _with_final_sigmas(text: str) -> str:
    """Replaces each capital sigma that Python lowercases to the final small one."""
    # Only U+0130 grows when lowercased, so the two strings stay aligned. Control
    # characters, which are dropped first, must not end a word: a soft hyphen does not.
    even = characters.control_pattern().sub("\xad", text)
    lowered = even.replace("\u0130", "I").lower()
    pairs = zip(text, lowered, strict=True)
    return "".join(low if low == "ς" else c for c, low in pairs)


def _absent(tokens: tuple[str, ...], first: int) -> str:
    """Returns the first character from a code point on that no token contains."""
    present = frozenset(itertools.chain.from_iterable(tokens))
    return next(c for c in map(chr, itertools.count(first)) if c not in present)


def huggingface_rules(text: str) -> str:
    """Replaces lone surrogates by what is dropped, and U+10FFFF by what is unknown."""
    text = characters.without_surrogates(text)
    return text if text.isascii() else text.replace(_HIDDEN, _HIDDEN_IN_TEXT)


def _without_invalid(text: str) -> str:
    """Replaces lone surrogates, and the character that hidden names have."""
    return text if text.isascii() else _INVALID.sub("\ufffd", text)


def _hide(name: str) -> str:
    """Returns a name that no text contains."""
    return f"{_HIDDEN}{name}{_HIDDEN}"


def _with_hidden(tree: Tree, specials: SpecialTokens) -> Tree:
    """Returns the pipeline with its special tokens renamed; the mask is matched."""
    names = special_tokens.reserved(specials)

    def rename(name: Any) -> Any:
        return _hide(name) if name in names else name

    model = dict(tree["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {rename(name): vocabulary[name] for name in vocabulary}
    else:
        model["vocab"] = [[rename(name), score] for name, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = rename(model["unk_token"])
    added = [_renamed(token, rename) for token in tree.get("added_tokens", [])]
    mask = _hide(specials.mask or "")
    if specials.mask is not None and all(token["content"] != mask for token in added):
        # The library takes the id from the model, which has the mask.
        added.append(pipelines.added_token(mask, 0, special=True))
    return {**tree, "model": model, "added_tokens": added}


def _renamed(token: Tree, rename: Callable[[str], str]) -> Tree:
    """Returns an added token; a hidden one is matched exactly, as no text has it."""
    name = rename(token["content"])
    if name == token["content"]:
        return token
    exact = {"special": True, "normalized": False, "single_word": False}
    return {**token, "content": name, **exact}


def build(tree: Tree, where: str) -> tokenizers.Tokenizer:
    """Builds the Rust tokenizer of a pipeline, without its template of sequences.

    Raises:
      InputError: the library cannot read the pipeline.
    """
    post_processor = _offsets_only(tree.get("post_processor"))
    whole = {**tree, "padding": None, "truncation": None}
    text = json.dumps({**whole, "post_processor": post_processor}, ensure_ascii=False)
    valid = characters.without_surrogates(text)
    return guarded(lambda: tokenizers.Tokenizer.from_str(valid), where)


def guarded(call: Callable[[], _Result], where: str) -> _Result:
    """Returns the result of a call into the Rust library.

    Raises:
      InputError: it fails, as it does for files that it cannot read or use.
    """
    try:
        return call()
    except BaseException as error:
        # It raises bare Exception, or a class of its own when its code panics.
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise errors.InputError(
                f"{where} is not a tokenizer.json that the tokenizers library can use:"
                f" {error}. Save the tokenizer again."
            ) from None
        raise


def _offsets_only(tree: Any) -> Any:
    """Returns what a post-processor does to offsets: byte-level ones trim spaces."""
    steps = [tree]
    if isinstance(tree, dict) and "processors" in tree:
        steps = tree["processors"]
    for step in steps:
        if isinstance(step, dict) and step.get("trim_offsets") is True:
            prefix = step.get("add_prefix_space", True) is True
            return {
                "type": "ByteLevel",
                "add_prefix_space": prefix,
                "trim_offsets": True,
                "use_regex": True,
            }
    return None
