"""The Tokenizer: characters in, ids out, for WordPiece, SentencePiece and all others.

Raw text is never read as one of the five special tokens: "[MASK]" in a corpus is three
words, as in google-research/bert. Only `encode_text`, for a user's own text, reads it
as the mask. Other special tokens of a folder, such as [E1], are matched in all text.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from bert_jax import errors
from bert_jax.foundation import hub
from bert_jax.text import (
    characters,
    files,
    folder,
    options,
    pipelines,
    spiece,
)
from bert_jax.text import cleaning as text_cleaning
from bert_jax.text import specials as special_tokens
from bert_jax.text.backend import Backend, GoogleRules, huggingface_rules
from bert_jax.text.cleaning import Cleaning
from bert_jax.text.pipelines import Rules, Tree
from bert_jax.text.specials import AddedToken, SpecialTokens

FILES: dict[folder.Kind, str] = {
    "wordpiece": files.WORDPIECE,
    "sentencepiece": files.SENTENCEPIECE,
    "tokenizer_json": files.JSON,
}
_CLOSING = ",.!?;:)]}%"  # ASCII punctuation before which English has no space
_ANY_CLASS = "PreTrainedTokenizerFast"  # does what tokenizer.json describes, no more


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns text into ids in [0, vocab_size) and back.

    It pickles to its tokens and options, and another process rebuilds it from them.

    Attributes:
      kind: "wordpiece", "sentencepiece" or "tokenizer_json" (any other).
      tokens: the vocabulary in the order of its ids.
      lowercase: whether text is lowercased before it is tokenized.
      strip_accents: whether accents are removed.
      model: the bytes of the spiece.model or tokenizer.json; empty for WordPiece.
      rules: whose rules to follow where Google's code and Hugging Face's differ: for
        WordPiece see `backend`; for SentencePiece, "huggingface" is ALBERT's.
      specials: how the special tokens are spelled.
      added: for WordPiece, further special tokens that are matched in text; other kinds
        have them in `model`.
      cleaning: what is removed from a text before it is tokenized.
    """

    kind: folder.Kind
    tokens: tuple[str, ...] = dataclasses.field(repr=False)
    lowercase: bool
    strip_accents: bool
    model: bytes = dataclasses.field(default=b"", repr=False)
    rules: Rules = "google"
    specials: SpecialTokens = special_tokens.BERT
    added: tuple[AddedToken, ...] = ()
    cleaning: Cleaning = text_cleaning.NONE

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        lowercase: bool | None = None,
        strip_accents: bool | None = None,
        rules: Rules | None = None,
        require_mask: bool = True,
    ) -> "Tokenizer":
        """Loads a vocabulary file, or the folder that has one.

        A folder may be ours or Hugging Face's: `folder` describes which file is read.
        What is None is taken from the options next to the file. Without any, WordPiece
        lowercases if no token has an upper-case letter, and strips accents if it
        lowercases.

        Args:
          path: vocab.txt, *.model, tokenizer.json, vocab.json (with merges.txt next to
            it), a folder with one, or a name of the hub, as hf:owner/name.
          lowercase: whether to lowercase text.
          strip_accents: whether to remove accents.
          rules: whose rules to follow where they differ; "huggingface" by default, so
            that a model has the same ids here and in `transformers`.
          require_mask: False to load a vocabulary without a mask, as some sentence
            encoders have; asking for its `mask_id` is then an error.

        Raises:
          InputError: there is no vocabulary, it cannot be used, or files next to each
            other contradict each other.
        """
        path = hub.folder(path, vocabulary_only=True)
        overrides = folder.Overrides(lowercase, strip_accents, rules, require_mask)
        vocabulary = folder.read(path, overrides)
        cleaning = text_cleaning.read(path if path.is_dir() else path.parent)
        return cls(*vocabulary, cleaning=cleaning)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is built from the fields."""
        fields = dataclasses.fields(self)
        return {field.name: self.__dict__[field.name] for field in fields}

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens or truncation."""
        return self._backend.encode(self._cleaned(texts))

    def encode_flat(
        self, texts: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all texts in one array, and the length of each."""
        return flatten(self.encode(texts))

    def encode_with_offsets(
        self, texts: list[str]
    ) -> list[tuple[list[int], characters.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from.

        Raises:
          InputError: the text would be cleaned, which moves its characters.
        """
        if self.cleaning:
            raise errors.SettingError(
                f"the tokenizer cleans its texts ({self.cleaning}), which moves their "
                "characters, and their positions are needed here",
                "set text.clean=none if the text is clean, or use a model without "
                "cleaning",
            )
        return self._backend.encode_with_offsets(texts)

    def encode_text(self, text: str) -> list[int]:
        """Returns the ids of a user's text, in which [MASK] is the mask.

        So is the tokenizer's own spelling of it, such as <mask>.

        Raises:
          InputError: the text has a mask and the vocabulary has none.
        """
        names = {special_tokens.MASK, self.specials.mask or special_tokens.MASK}
        parts = re.split("|".join(map(re.escape, sorted(names))), text)
        if len(parts) == 1:
            return self.encode(parts)[0]
        return self._backend.encode_masked(self._cleaned(parts), self.mask_id)

    def _cleaned(self, texts: list[str]) -> list[str]:
        """Returns texts as they are tokenized."""
        return [self.cleaning(text) for text in texts] if self.cleaning else texts

    def build(
        self, ids_a: list[int], ids_b: list[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Returns the ids of a sequence with its special tokens, and token types.

        BERT's is [CLS] a [SEP], or [CLS] a [SEP] b [SEP] with token type 1 from b on;
        RoBERTa's <s> a </s>, or <s> a </s></s> b </s> with token type 0. Nothing is
        truncated or padded.
        """
        return self._template.build(ids_a, ids_b)

    def decode(self, ids: list[int]) -> str:
        """Returns readable text for ids; what normalization removed stays lost.

        Raises:
          InputError: an id is not in [0, vocab_size).
        """
        wrong = [index for index in ids if not 0 <= index < self.vocab_size]
        if wrong:
            raise errors.InputError(
                f"id {wrong[0]} is not in the vocabulary of {self.vocab_size} tokens."
            )
        if self.kind == "tokenizer_json":
            assert isinstance(self._backend, Backend)
            return self._backend.decode(ids)
        tokens = [self.tokens[index] for index in ids]
        if self.kind == "sentencepiece":
            return "".join(tokens).replace(spiece.WORD_MARK, " ").strip()
        return _join(tokens)

    def id_of(self, token: str) -> int:
        """Returns the id of a token.

        Raises:
          InputError: the vocabulary does not have it.
        """
        if token not in self._ids:
            raise errors.InputError(
                f"{token!r} is not among the {self.vocab_size} tokens of the"
                " vocabulary. Spell it as vocab.txt does."
            )
        return self._ids[token]

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.tokens)

    @property
    def pad_id(self) -> int:
        """The id of the token that pads sequences."""
        return self._special_ids["pad"]

    @property
    def unk_id(self) -> int:
        """The id of words that the vocabulary does not cover."""
        return self._special_ids["unk"]

    @property
    def cls_id(self) -> int:
        """The id of the token that starts a sequence."""
        return self._special_ids["cls"]

    @property
    def sep_id(self) -> int:
        """The id of the token that ends a segment."""
        return self._special_ids["sep"]

    @property
    def mask_id(self) -> int:
        """The id of the mask.

        Raises:
          InputError: the vocabulary has none.
        """
        if self.specials.mask is None:
            raise errors.InputError(
                f"the vocabulary of {self.vocab_size} tokens has no mask. Add the token"
                " [MASK], or name another as mask_token in tokenizer_config.json."
            )
        return self._special_ids["mask"]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The special ids, sorted: five, or four without a mask."""
        return tuple(sorted(set(self._special_ids.values())))

    @functools.cached_property
    def is_continuation(self) -> Bool[np.ndarray, " V"]:
        """Whether each token continues a word: "##x", or no mark of a space first.

        SentencePiece's mark is U+2581, that of byte-level BPE U+0120.
        """
        if self.kind == "sentencepiece":
            continues = [not t.startswith(spiece.WORD_MARK) for t in self.tokens]
        else:
            continues = files.continues_word(self._pipeline, self.tokens)
        for index in self.special_ids:
            continues[index] = False
        return np.array(continues, bool)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of everything that decides which ids a text gets, in hex."""
        parts: list[Any] = [self.kind, self.lowercase, self.strip_accents]
        if self.rules != "google":
            parts.append(self.rules)
        if self.specials not in (special_tokens.BERT, special_tokens.ALBERT):
            parts.append(self.specials.present())
        if self.added:
            parts.append([vars(token) for token in self.added])
        if self.cleaning:
            parts.append(self.cleaning.tree())
        head = json.dumps(parts).encode() + b"\n"
        return hashlib.sha256(head + self.content).hexdigest()

    @functools.cached_property
    def content(self) -> bytes:
        """The bytes of the vocabulary's file."""
        if self.kind != "wordpiece":
            return self.model
        return "".join(f"{token}\n" for token in self.tokens).encode()

    def save(self, path: Path, max_length: int | None = None) -> None:
        """Writes the vocabulary's file and tokenizer_config.json, for `load`.

        `export` writes what other tools read.

        Args:
          path: a folder, which is created if needed.
          max_length: the maximum length of the model next to it, in tokens.
        """
        path.mkdir(parents=True, exist_ok=True)
        (path / FILES[self.kind]).write_bytes(self.content)
        config = self._options()
        if max_length is not None:
            config["model_max_length"] = max_length
        if self.specials != special_tokens.BERT:
            config |= self._special_names()
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (path / options.CONFIG).write_text(text, encoding="utf-8")
        self.cleaning.save(path)

    def export(self, path: Path, max_length: int) -> None:
        """Writes what `transformers.AutoTokenizer.from_pretrained` reads.

        The vocabulary as it was read (vocab.txt, spiece.model, or vocab.json with
        merges.txt), tokenizer.json, tokenizer_config.json and special_tokens_map.json:
        the same bytes every time. `load` reads the folder back as the same tokenizer.

        `transformers` follows Hugging Face's rules for WordPiece: with
        `rules="google"` ids differ for private-use characters, U+2B820 to U+2B91F,
        words of 101 to 200 characters and a capital sigma that ends a word. For
        SentencePiece it runs the pipeline whose differences `spiece` lists.

        Args:
          path: a folder, which is created if needed; a model's may be.
          max_length: the maximum length of the model, in tokens.

        Raises:
          InputError: `max_length` is not positive.
        """
        if max_length < 1:
            raise errors.InputError(f"max_length is {max_length}. Give 1 or more.")
        path.mkdir(parents=True, exist_ok=True)
        tree = self.pipeline()
        config = {
            **self._options(),
            **self._special_names(),
            **_transformers_class(tree, self.kind),
            "model_max_length": max_length,
        }
        contents = {
            files.JSON: tree,
            options.CONFIG: config,
            options.SPECIAL_TOKENS: self._special_names(),
        }
        for name, content in contents.items():
            (path / name).write_bytes(pipelines.dump(content, indent=2) + b"\n")
        self.cleaning.save(path)  # for us; `transformers` does not read it
        if self.kind != "tokenizer_json":
            (path / FILES[self.kind]).write_bytes(self.content)
        elif _is_byte_level(tree):
            files.write_byte_level(tree, path)

    def pipeline(self, rules: Rules = "huggingface") -> Tree:
        """Returns the tree of the tokenizer.json that means the same.

        Args:
          rules: whose limit on the length of words WordPiece has.
        """
        if self.kind == "tokenizer_json":
            return json.loads(self.model)
        if self.kind == "sentencepiece":
            return pipelines.sentencepiece(
                self.model,
                self.specials,
                lowercase=self.lowercase,
                strip_accents=self.strip_accents,
                quotes=self.rules == "huggingface",
            )
        return pipelines.wordpiece(
            self.tokens,
            self.specials,
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            rules=rules,
            added=[
                {"id": self._ids[token.content], **vars(token), "special": True}
                for token in self.added
            ],
        )

    def _options(self) -> dict[str, Any]:
        """Returns the options of tokenizer_config.json that change ids."""
        config: dict[str, Any] = {
            "do_lower_case": self.lowercase,
            "strip_accents": self.strip_accents,
            "rules": self.rules,
        }
        if self.kind != "tokenizer_json":  # which has it in its file
            config["tokenize_chinese_chars"] = self.kind == "wordpiece"
        if self.kind == "wordpiece":
            config["tokenizer_class"] = "BertTokenizer"
        if self.added:
            config["added_tokens_decoder"] = {
                str(self._ids[token.content]): vars(token) | {"special": True}
                for token in self.added
            }
        return config

    def _special_names(self) -> dict[str, str]:
        """Returns the spellings of the special tokens under Hugging Face's keys."""
        return {f"{role}_token": x for role, x in self.specials.present().items()}

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """The id of each token; the first where a model has one twice."""
        return spiece.first_ids(self.tokens)

    @functools.cached_property
    def _special_ids(self) -> dict[str, int]:
        """The ids of the special tokens by their roles."""
        return special_tokens.ids_of(self.specials, self._ids)

    @functools.cached_property
    def _template(self) -> pipelines.RowTemplate:
        """How ids are joined into a sequence."""
        template = None
        if self.kind == "tokenizer_json":
            post_processor = self._pipeline.get("post_processor")
            template = pipelines.rows_of_post_processor(
                post_processor, files.JSON, len(self.tokens)
            )
        return template or pipelines.bert_rows(self.cls_id, self.sep_id)

    @functools.cached_property
    def _pipeline(self) -> Tree:
        """The pipeline that the back end runs."""
        return self.pipeline(self.rules)

    @functools.cached_property
    def _backend(self) -> Backend | spiece.SentencePiece:
        """What runs the pipeline, or the SentencePiece model."""
        if self.kind == "sentencepiece":
            return spiece.SentencePiece(
                self.model,
                lowercase=self.lowercase,
                strip_accents=self.strip_accents,
                albert=self.rules == "huggingface",
            )
        clean = None
        if self.kind == "wordpiece":
            clean = huggingface_rules
            if self.rules == "google":
                clean = GoogleRules(self.tokens, self.lowercase)
        return Backend(self._pipeline, self.specials, clean)


def flatten(
    ids: list[list[int]],
) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
    """Joins lists of ids into one array, with their lengths.

    >>> flatten([[5, 6], [], [7]])
    (array([5, 6, 7], dtype=uint32), array([2, 0, 1]))
    """
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = itertools.chain.from_iterable(ids)
    return np.fromiter(flat, np.uint32, int(lengths.sum())), lengths


_NO_SPACE = re.compile(
    rf"(?<=[{characters.CJK_AND_MARKS}]) | (?=[{characters.CJK_AND_MARKS}"
    rf"{re.escape(_CLOSING)}])"
)


def _join(tokens: list[str]) -> str:
    """Joins WordPiece tokens to text.

    >>> _join(["i", "play", "##ed", ",", "北", "京", "2008", "年", "。"])
    'i played,北京2008年。'
    """
    text = " ".join(tokens).replace(" ##", "")
    return _NO_SPACE.sub("", text)


def _transformers_class(tree: Tree, kind: folder.Kind) -> dict[str, Any]:
    """Returns the class in `transformers`, and the options of that class."""
    if kind == "wordpiece":
        return {"tokenizer_class": "BertTokenizer"}
    post_processor = tree.get("post_processor") or {}
    is_roberta = (
        _is_byte_level(tree)
        and post_processor.get("type") == "RobertaProcessing"
        and tree.get("normalizer") is None
    )
    if not is_roberta:
        return {"tokenizer_class": _ANY_CLASS}
    return {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": tree["pre_tokenizer"].get("add_prefix_space", True) is True,
        "trim_offsets": post_processor.get("trim_offsets", True) is True,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _is_byte_level(tree: Tree) -> bool:
    """Returns whether vocab.json and merges.txt can hold a tokenizer's tokens."""
    pre_tokenizer = tree.get("pre_tokenizer") or {}
    return "merges" in tree["model"] and pre_tokenizer.get("type") == "ByteLevel"
