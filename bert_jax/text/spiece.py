"""SentencePiece models (unigram or BPE), read from one file or from its bytes.

The special pieces must be control symbols of the model, so that text which spells
"[MASK]" is never read as the mask. ALBERT changes quotes, accents and case beforehand.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt32

from bert_jax import errors
from bert_jax.text import (
    sentencepiece_messages,
    special_pieces,
    vocabulary_file,
    wordpiece,
)

WORD_MARK = "\u2581"  # the lower one eighth block that stands for a space

# Protocol buffers merge what is appended: ModelProto.normalizer_spec (field 3)
# with add_dummy_prefix (its field 3) false.
_NO_PREFIX = b"\x1a\x02\x18\x00"
_QUOTES = re.compile("``|''|.", re.DOTALL)


class SentencePiece:
    """Turns sentences into ids by a SentencePiece model."""

    def __init__(
        self, model: bytes, *, lowercase: bool, strip_accents: bool, albert: bool
    ) -> None:
        """Loads a model that `read` has checked.

        With `albert`, `` and '' become quotes, and accents are stripped if asked.
        """
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._albert = albert
        self._model = model
        self._processor = _load(model)

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence."""
        clean = [self._clean(sentence)[0] for sentence in sentences]
        return self._processor.encode(clean, out_type=int, num_threads=1)

    def encode_flat(
        self, sentences: list[str]
    ) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
        """Returns the ids of all sentences in a row, and each one's length."""
        return wordpiece.flatten(self.encode(sentences))

    def encode_with_offsets(
        self, sentences: list[str]
    ) -> list[tuple[list[int], wordpiece.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        pairs = [self._clean(sentence) for sentence in sentences]
        protos = self._processor.encode(
            [clean for clean, _ in pairs], out_type="serialized_proto", num_threads=1
        )
        return [
            _offsets(proto, clean, sources)
            for proto, (clean, sources) in zip(protos, pairs, strict=True)
        ]

    def encode_masked(self, parts: list[str], mask_id: int) -> list[int]:
        """Returns the ids of a text whose parts the mask divides.

        A part that follows a mask without a space gets no word mark at its head.
        """
        inner = _load(self._model + _NO_PREFIX)
        rows = []
        for index, part in enumerate(parts):
            glued = index > 0 and not part[:1].isspace()
            processor = inner if glued else self._processor
            rows.append(processor.encode(self._clean(part)[0], out_type=int))
        return wordpiece.with_masks(rows, mask_id)

    def _clean(self, sentence: str) -> tuple[str, list[int] | None]:
        """Changes what the model does not; lone surrogates, which are no text, too.

        Returns the text, and the character of the sentence that each of its characters
        comes from, with the sentence's length last; None where they lie side by side.
        """
        sentence = wordpiece.without_surrogates(sentence)
        if self._albert:
            return self._clean_as_albert(sentence)
        clean = sentence.lower() if self._lowercase else sentence
        if len(clean) == len(sentence):
            return clean, None
        # Only U+0130 grows when lowered, to two.
        grown = [[i] * (1 + (c == "\u0130")) for i, c in enumerate(sentence)]
        return clean, [*(i for pair in grown for i in pair), len(sentence)]

    def _clean_as_albert(self, sentence: str) -> tuple[str, list[int]]:
        """Changes quotes, accents and case character by character, as ALBERT does."""
        made: list[str] = []
        sources: list[int] = []
        for match in _QUOTES.finditer(sentence):
            text = match[0] if len(match[0]) == 1 else '"'
            if self._strip_accents:
                letters = unicodedata.normalize("NFKD", text)
                kept = [
                    c for c in letters if not unicodedata.category(c).startswith("M")
                ]
                text = "".join(kept)
            text = text.lower() if self._lowercase else text
            made.append(text)
            sources += [match.start()] * len(text)
        return "".join(made), [*sources, len(sentence)]


def _offsets(
    proto: bytes, clean: str, sources: list[int] | None
) -> tuple[list[int], wordpiece.Offsets]:
    """Reads one encoding; its bytes become characters of the sentence."""
    message = sentencepiece_messages.text(proto)
    ids = [piece.id for piece in message.pieces]
    bounds = [(piece.begin, piece.end) for piece in message.pieces]
    if clean.isascii() and sources is None:
        return ids, bounds
    character = _character_of_byte(clean, sources)
    return ids, [(character[start], character[end]) for start, end in bounds]


def _character_of_byte(clean: str, sources: list[int] | None) -> list[int]:
    """Returns, for each byte of `clean` and its end, the character it comes from."""
    sources = list(range(len(clean) + 1)) if sources is None else sources
    table = []
    for source, character in zip(sources, clean, strict=False):
        table.extend([source] * len(character.encode()))
    return [*table, sources[-1]]


def read(path: Path) -> bytes:
    """Reads the bytes of a model file.

    Raises:
      InputError: the file is no SentencePiece model.
    """
    content = vocabulary_file.read_bytes(path)
    _processor(content, str(path))
    return content


def pieces(model: bytes) -> tuple[str, ...]:
    """Returns the pieces of a model in the order of their ids."""
    processor = _load(model)
    return tuple(processor.id_to_piece(i) for i in range(processor.vocab_size()))


def _load(model: bytes) -> Any:
    """Returns sentencepiece's processor, which most tokenizers do not need."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


def _processor(model: bytes, where: str) -> Any:
    """Loads a model, or says that it is none."""
    try:
        processor = _load(model)
        # Reads every piece: one may not be UTF-8.
        if [processor.id_to_piece(index) for index in range(processor.vocab_size())]:
            return processor
    except (RuntimeError, OSError, UnicodeDecodeError):
        pass
    raise errors.InputError(
        f"{where} is not a SentencePiece model. Give the .model file that"
        " sentencepiece wrote, or a WordPiece vocabulary named *.txt."
    )


def check(model: bytes, specials: special_pieces.Specials, where: str) -> None:
    """Refuses special pieces that raw text could turn into.

    Raises:
      InputError: one is an ordinary piece.
    """
    processor = _processor(model, where)
    for role, name in specials.present().items():
        index = first_ids(pieces(model))[name]
        is_unknown = role == "unk" and processor.is_unknown(index)
        if not (processor.is_control(index) or is_unknown):
            raise errors.InputError(
                f"{where}: {name} (id {index}) is an ordinary piece, so raw text could"
                " turn into it. Train the model with it among control_symbols."
            )


def first_ids(tokens: tuple[str, ...]) -> dict[str, int]:
    """Returns the id of each piece; the first where a model holds one twice."""
    return {token: index for index, token in reversed(list(enumerate(tokens)))}
