"""One Tokenizer over WordPiece and SentencePiece: characters in, ids out.

Raw text never becomes a special piece: "[MASK]" in a corpus is three words, as in
google-research/bert. Only `encode_text`, for a user's own text, reads it as the mask.
"""

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from bert_jax import errors
from bert_jax.text import characters, spiece, vocabulary_file, wordpiece

Kind = Literal["wordpiece", "sentencepiece"]

_FILES: dict[str, str] = {"vocab.txt": "wordpiece", "spiece.model": "sentencepiece"}
_CONFIG = "tokenizer_config.json"
_CLOSING = ",.!?;:)]}%"  # ASCII marks before which English writes no space


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns text into ids in [0, vocab_size) and back.

    It pickles to its pieces and options, and is rebuilt from them in another process.

    Attributes:
      kind: "wordpiece" or "sentencepiece".
      tokens: the pieces in the order of their ids.
      lowercase: whether text is lowered before it is cut.
      strip_accents: whether accents are removed (WordPiece only).
      model: the bytes of the SentencePiece file; empty for WordPiece.
    """

    kind: Kind
    tokens: tuple[str, ...] = dataclasses.field(repr=False)
    lowercase: bool
    strip_accents: bool
    model: bytes = dataclasses.field(default=b"", repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is built from the fields."""
        fields = dataclasses.fields(self)
        return {field.name: self.__dict__[field.name] for field in fields}

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence: nothing added, nothing cut."""
        return self._backend.encode(sentences)

    def encode_flat(
        self, sentences: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all sentences in a row, and each one's length."""
        return self._backend.encode_flat(sentences)

    def encode_with_offsets(
        self, sentences: list[str]
    ) -> list[tuple[list[int], wordpiece.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        return self._backend.encode_with_offsets(sentences)

    def encode_text(self, text: str) -> list[int]:
        """Returns the ids of a user's text, in which [MASK] is the mask."""
        parts = text.split(vocabulary_file.MASK)
        ids: list[int] = []
        for index, row in enumerate(self._backend.encode_parts(parts)):
            ids += [self.mask_id, *row] if index else row
        return ids

    def decode(self, ids: list[int]) -> str:
        """Returns readable text for ids; what normalisation dropped stays lost.

        Raises:
          InputError: an id is not in [0, vocab_size).
        """
        wrong = [index for index in ids if not 0 <= index < self.vocab_size]
        if wrong:
            raise errors.InputError(
                f"id {wrong[0]} is not in the vocabulary of {self.vocab_size} pieces."
            )
        pieces = [self.tokens[index] for index in ids]
        if self.kind == "sentencepiece":
            return "".join(pieces).replace(spiece.WORD_MARK, " ").strip()
        return _join(pieces)

    def id_of(self, token: str) -> int:
        """Returns the id of a piece.

        Raises:
          InputError: the vocabulary has no such piece.
        """
        if token not in self._ids:
            raise errors.InputError(
                f"{token!r} is not one of the {self.vocab_size} pieces of the"
                " vocabulary. Ask for a piece as vocab.txt spells it."
            )
        return self._ids[token]

    def save(self, folder: Path) -> None:
        """Writes vocab.txt or spiece.model, and tokenizer_config.json, for `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        (name,) = (name for name, kind in _FILES.items() if kind == self.kind)
        (folder / name).write_bytes(self._content)
        config = {
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.kind == "wordpiece",
        }
        if self.kind == "wordpiece":
            config = {"tokenizer_class": "BertTokenizer", **config}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / _CONFIG).write_text(text, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.tokens)

    @property
    def pad_id(self) -> int:
        """The id of the piece that fills rows."""
        return self._specials[vocabulary_file.PAD]

    @property
    def unk_id(self) -> int:
        """The id of what the vocabulary cannot spell."""
        return self._specials[vocabulary_file.UNK]

    @property
    def cls_id(self) -> int:
        """The id of the piece that opens a row."""
        return self._specials[vocabulary_file.CLS]

    @property
    def sep_id(self) -> int:
        """The id of the piece that closes a segment."""
        return self._specials[vocabulary_file.SEP]

    @property
    def mask_id(self) -> int:
        """The id of the mask."""
        return self._specials[vocabulary_file.MASK]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The five special ids, sorted."""
        return tuple(sorted(self._specials.values()))

    @functools.cached_property
    def is_continuation(self) -> Bool[np.ndarray, " V"]:
        """Whether each piece continues a word: "##x", or no U+2581 at its head."""
        if self.kind == "wordpiece":
            continues = [len(t) > 2 and t.startswith("##") for t in self.tokens]
        else:
            continues = [not t.startswith(spiece.WORD_MARK) for t in self.tokens]
            for index in self.special_ids:
                continues[index] = False
        return np.array(continues, bool)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that decides which ids a text gets, in hex."""
        options = [self.kind, self.lowercase, self.strip_accents]
        head = json.dumps(options).encode() + b"\n"
        return hashlib.sha256(head + self._content).hexdigest()

    @functools.cached_property
    def _content(self) -> bytes:
        """The bytes of the vocabulary's file."""
        if self.kind == "sentencepiece":
            return self.model
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {token: index for index, token in enumerate(self.tokens)}

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        """The ids of the special pieces by our names for them."""
        if self.kind == "sentencepiece":
            return spiece.special_ids(self.model, "the SentencePiece model")
        return {name: self._ids[name] for name in vocabulary_file.SPECIALS}

    @functools.cached_property
    def _backend(self) -> wordpiece.WordPiece | spiece.SentencePiece:
        """The library's object that does the work."""
        if self.kind == "sentencepiece":
            return spiece.SentencePiece(self.model, lowercase=self.lowercase)
        return wordpiece.WordPiece(
            self.tokens, lowercase=self.lowercase, strip_accents=self.strip_accents
        )


def load(
    path: Path, *, lowercase: bool | None = None, strip_accents: bool | None = None
) -> Tokenizer:
    """Loads a vocab.txt or a *.model, or the folder that holds one.

    What is not given is taken from a tokenizer_config.json beside the file, as
    `save` and Hugging Face write it. Without one, WordPiece lowers case exactly if
    no piece has an upper-case letter, and strips accents exactly if it lowers case.

    Raises:
      InputError: there is no vocabulary, or it cannot be used.
    """
    path = _vocabulary_in(path) if path.is_dir() else path
    config = _read_config(path.parent / _CONFIG)
    if path.suffix == ".model":
        return _load_sentencepiece(path, lowercase, strip_accents, config)
    tokens = vocabulary_file.read(path)
    default = vocabulary_file.is_lowercase(tokens)
    lowered = _first(lowercase, config["do_lower_case"], default)
    stripped = _first(strip_accents, config["strip_accents"], lowered)
    return Tokenizer("wordpiece", tokens, lowered, stripped)


def _load_sentencepiece(
    path: Path,
    lowercase: bool | None,
    strip_accents: bool | None,
    config: dict[str, bool | None],
) -> Tokenizer:
    """Loads a SentencePiece model; it normalises by itself unless told more."""
    if _first(strip_accents, config["strip_accents"], False):
        raise errors.InputError(
            f"{path}: strip_accents is for WordPiece. A SentencePiece model normalises"
            " by its own rule: leave it unset."
        )
    lowered = _first(lowercase, config["do_lower_case"], False)
    model = spiece.read(path)
    return Tokenizer("sentencepiece", spiece.pieces(model), lowered, False, model)


def _vocabulary_in(folder: Path) -> Path:
    """Returns the one vocabulary file of a folder."""
    there = [folder / name for name in _FILES if (folder / name).is_file()]
    if not there:
        raise errors.InputError(
            f"{folder} holds neither vocab.txt nor spiece.model. Give a folder with"
            " one of them, or the path of a vocabulary."
        )
    if len(there) > 1:
        raise errors.InputError(
            f"{folder} holds both vocab.txt and spiece.model. Give the path of one."
        )
    return there[0]


def _read_config(path: Path) -> dict[str, bool | None]:
    """Reads the options beside a vocabulary; None for each that is not there."""
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    options: dict[str, Any] = dict.fromkeys(names)
    if path.is_file():
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise errors.InputError(f"{path} is not JSON: {error}.") from None
        if not isinstance(found, dict):
            raise errors.InputError(f"{path} is not a JSON object.")
        options |= {name: found[name] for name in names if name in found}
    for name, value in options.items():
        if value is not None and not isinstance(value, bool):
            raise errors.InputError(
                f"{path}: {name} is {value!r}. Write true, false or null."
            )
    if options["tokenize_chinese_chars"] is False and _is_wordpiece(path):
        raise errors.InputError(
            f"{path}: tokenize_chinese_chars is false, and only true is supported."
        )
    return options


def _is_wordpiece(config: Path) -> bool:
    """Says whether a tokenizer_config.json lies beside a WordPiece vocabulary."""
    return (config.parent / "vocab.txt").is_file()


def _first(*values: bool | None) -> bool:
    """Returns the first value that is given."""
    return next(value for value in values if value is not None)


_NO_SPACE = re.compile(
    rf"(?<=[{characters.CJK_AND_MARKS}]) | (?=[{characters.CJK_AND_MARKS}"
    rf"{re.escape(_CLOSING)}])"
)


def _join(pieces: list[str]) -> str:
    """Writes WordPiece pieces as text.

    >>> _join(["i", "play", "##ed", ",", "北", "京", "2008", "年", "。"])
    'i played,北京2008年。'
    """
    text = " ".join(pieces).replace(" ##", "")
    return _NO_SPACE.sub("", text)
