"""One Tokenizer over WordPiece, SentencePiece and all others: characters in, ids out.

Raw text never becomes one of the five special pieces: "[MASK]" in a corpus is three
words, as in google-research/bert. Only `encode_text`, for a user's own text, reads it
as the mask. Other special tokens of a folder, such as [E1], are found in all text.
"""

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from bert_jax import errors, hub
from bert_jax.text import (
    characters,
    folder_options,
    rows,
    special_pieces,
    spiece,
    tokenizer_json,
    vocabulary_file,
    vocabulary_folder,
    wordpiece,
)
from bert_jax.text import cleaning as cleaning_lib

Kind = vocabulary_folder.Kind

FILES: dict[Kind, str] = {
    "wordpiece": vocabulary_folder.WORDPIECE,
    "sentencepiece": vocabulary_folder.SENTENCEPIECE,
    "tokenizer_json": vocabulary_folder.JSON,
}
_CLOSING = ",.!?;:)]}%"  # ASCII marks before which English writes no space


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns text into ids in [0, vocab_size) and back.

    It pickles to its pieces and options, and is rebuilt from them in another process.

    Attributes:
      kind: "wordpiece", "sentencepiece" or "tokenizer_json" (any other).
      tokens: the pieces in the order of their ids.
      lowercase: whether text is lowered before it is cut.
      strip_accents: whether accents are removed.
      model: the bytes of the spiece.model or tokenizer.json; empty for WordPiece.
      rules: whose rules hold where Google's code and Hugging Face's differ: for
        WordPiece see `wordpiece`; for SentencePiece, "huggingface" is ALBERT's.
      specials: how the special pieces are spelt.
      added: of WordPiece, further special tokens that text may spell; other kinds have
        them in `model`.
      cleaning: what is done to a text before it is cut.
    """

    kind: Kind
    tokens: tuple[str, ...] = dataclasses.field(repr=False)
    lowercase: bool
    strip_accents: bool
    model: bytes = dataclasses.field(default=b"", repr=False)
    rules: wordpiece.Rules = "google"
    specials: special_pieces.Specials = special_pieces.BERT
    added: tuple[special_pieces.Added, ...] = ()
    cleaning: cleaning_lib.Cleaning = cleaning_lib.NONE

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is built from the fields."""
        fields = dataclasses.fields(self)
        return {field.name: self.__dict__[field.name] for field in fields}

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence: nothing added, nothing cut."""
        return self._backend.encode(self._cleaned(sentences))

    def encode_flat(
        self, sentences: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all sentences in a row, and each one's length."""
        return self._backend.encode_flat(self._cleaned(sentences))

    def encode_with_offsets(
        self, sentences: list[str]
    ) -> list[tuple[list[int], wordpiece.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from.

        Raises:
          InputError: the text would be cleaned, which moves its characters.
        """
        if self.cleaning:
            raise errors.SettingError(
                f"the tokenizer cleans its texts ({self.cleaning}), which moves their "
                "characters, and here their positions count",
                "set text.clean=none where the text is clean, or take a model without "
                "cleaning",
            )
        return self._backend.encode_with_offsets(sentences)

    def encode_text(self, text: str) -> list[int]:
        """Returns the ids of a user's text, in which [MASK] is the mask.

        So is the tokenizer's own spelling of it, such as <mask>.

        Raises:
          InputError: the text has a mask and the vocabulary has none.
        """
        names = {vocabulary_file.MASK, self.specials.mask or vocabulary_file.MASK}
        parts = re.split("|".join(map(re.escape, sorted(names))), text)
        if len(parts) == 1:
            return self.encode(parts)[0]
        return self._backend.encode_masked(self._cleaned(parts), self.mask_id)

    def _cleaned(self, texts: list[str]) -> list[str]:
        """Returns texts as they are cut."""
        return [self.cleaning(text) for text in texts] if self.cleaning else texts

    def build(
        self, ids_a: list[int], ids_b: list[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Returns the ids of a row, and the token type of each: nothing cut or filled.

        BERT's is [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token type 1 from b on;
        RoBERTa's <s> a </s>, or <s> a </s></s> b </s> with token type 0.
        """
        return self._rows.build(ids_a, ids_b)

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
        if self.kind == "tokenizer_json":
            return self._json_backend.decode(ids)
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

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Writes the vocabulary's file and tokenizer_config.json, for `load`.

        Args:
          max_length: the longest row of the model beside it, in tokens.

        `huggingface_folder.save` writes what other tools read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILES[self.kind]).write_bytes(self.content)
        config = self.options()
        if max_length is not None:
            config["model_max_length"] = max_length
        if self.specials != special_pieces.BERT:
            names = self.specials.present().items()
            config |= {f"{role}_token": name for role, name in names}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / folder_options.CONFIG).write_text(text, encoding="utf-8")
        self.cleaning.save(folder)

    def options(self) -> dict[str, Any]:
        """Returns what tokenizer_config.json says of how text is cut."""
        config: dict[str, Any] = {
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "rules": self.rules,
        }
        if self.kind != "tokenizer_json":  # whose file says it
            config["tokenize_chinese_chars"] = self.kind == "wordpiece"
        if self.kind == "wordpiece":
            config["tokenizer_class"] = "BertTokenizer"
        if self.added:
            config["added_tokens_decoder"] = {
                str(self._ids[token.content]): vars(token) | {"special": True}
                for token in self.added
            }
        return config

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.tokens)

    @property
    def pad_id(self) -> int:
        """The id of the piece that fills rows."""
        return self._special_ids["pad"]

    @property
    def unk_id(self) -> int:
        """The id of what the vocabulary cannot spell."""
        return self._special_ids["unk"]

    @property
    def cls_id(self) -> int:
        """The id of the piece that opens a row."""
        return self._special_ids["cls"]

    @property
    def sep_id(self) -> int:
        """The id of the piece that closes a segment."""
        return self._special_ids["sep"]

    @property
    def mask_id(self) -> int:
        """The id of the mask.

        Raises:
          InputError: the vocabulary has none.
        """
        if self.specials.mask is None:
            raise errors.InputError(
                f"the vocabulary of {self.vocab_size} pieces has no mask. Add the piece"
                " [MASK], or name another as mask_token in tokenizer_config.json."
            )
        return self._special_ids["mask"]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The special ids, sorted: five, or four without a mask."""
        return tuple(sorted(set(self._special_ids.values())))

    @functools.cached_property
    def is_continuation(self) -> Bool[np.ndarray, " V"]:
        """Whether each piece continues a word: "##x", or no mark of a space first.

        SentencePiece's mark is U+2581, that of byte-level BPE U+0120.
        """
        if self.kind == "wordpiece":
            continues = [len(t) > 2 and t.startswith("##") for t in self.tokens]
        elif self.kind == "sentencepiece":
            continues = [not t.startswith(spiece.WORD_MARK) for t in self.tokens]
        else:
            continues = tokenizer_json.continues(json.loads(self.model), self.tokens)
        for index in self.special_ids:
            continues[index] = False
        return np.array(continues, bool)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that decides which ids a text gets, in hex."""
        options: list[Any] = [self.kind, self.lowercase, self.strip_accents]
        if self.rules != "google":
            options.append(self.rules)
        if self.specials not in (special_pieces.BERT, special_pieces.ALBERT):
            options.append(self.specials.present())
        if self.added:
            options.append([vars(token) for token in self.added])
        if self.cleaning:
            options.append(self.cleaning.tree())
        head = json.dumps(options).encode() + b"\n"
        return hashlib.sha256(head + self.content).hexdigest()

    @functools.cached_property
    def content(self) -> bytes:
        """The bytes of the vocabulary's file."""
        if self.kind != "wordpiece":
            return self.model
        return "".join(f"{token}\n" for token in self.tokens).encode()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """The id of each piece; the first where a model holds one twice."""
        return spiece.first_ids(self.tokens)

    @functools.cached_property
    def _special_ids(self) -> dict[str, int]:
        """The ids of the special pieces by their roles."""
        return special_pieces.ids_of(self.specials, self._ids)

    @functools.cached_property
    def _rows(self) -> rows.Rows:
        """How ids become rows."""
        made = None
        if self.kind == "tokenizer_json":
            tree = json.loads(self.model)
            made = tokenizer_json.rows_of(tree, "tokenizer.json", self.vocab_size)
        return made or rows.bert(self.cls_id, self.sep_id)

    @functools.cached_property
    def _backend(
        self,
    ) -> wordpiece.WordPiece | spiece.SentencePiece | tokenizer_json.TokenizerJson:
        """The library's object that does the work."""
        if self.kind == "tokenizer_json":
            return self._json_backend
        if self.kind == "sentencepiece":
            return spiece.SentencePiece(
                self.model,
                lowercase=self.lowercase,
                strip_accents=self.strip_accents,
                albert=self.rules == "huggingface",
            )
        return wordpiece.WordPiece(
            self.tokens,
            self.specials,
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            rules=self.rules,
            added=self.added,
        )

    @functools.cached_property
    def _json_backend(self) -> tokenizer_json.TokenizerJson:
        """The library's object for what tokenizer.json describes."""
        return tokenizer_json.TokenizerJson(self.model, self.specials)


def load(
    path: Path,
    *,
    lowercase: bool | None = None,
    strip_accents: bool | None = None,
    rules: wordpiece.Rules | None = None,
    require_mask: bool = True,
) -> Tokenizer:
    """Loads a vocabulary file, or the folder that holds one.

    A folder may be ours or Hugging Face's: `vocabulary_folder` says which file is
    read. What is not given is taken from the options beside the file. Without any,
    WordPiece lowers case exactly if no piece has an upper-case letter, and strips
    accents exactly if it lowers case.

    Args:
      path: vocab.txt, *.model, tokenizer.json, vocab.json (with merges.txt beside
        it), a folder with one, or a name of the hub, as hf:owner/name.
      lowercase: whether to lower text.
      strip_accents: whether to remove accents.
      rules: whose rules hold where they differ; "huggingface" by default, so that a
        model has the same ids here and in `transformers`.
      require_mask: False to load a vocabulary without a mask, as some sentence
        encoders have; asking for its `mask_id` is then an error.

    Raises:
      InputError: there is no vocabulary, it cannot be used, or files beside each
        other contradict each other.
    """
    path = hub.folder(path, vocabulary_only=True)
    asked = vocabulary_folder.Asked(lowercase, strip_accents, rules, require_mask)
    found = vocabulary_folder.read(path, asked)
    cleaning = cleaning_lib.read(path if path.is_dir() else path.parent)
    return Tokenizer(*found, cleaning=cleaning)


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
