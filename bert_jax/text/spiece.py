"""SentencePiece models (unigram or BPE), read from one file or from its bytes.

The special pieces must be control symbols of the model, so that text which spells
"[MASK]" is never read as the mask.
"""

from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Int64, UInt32
from sentencepiece import sentencepiece_pb2

from bert_jax import errors
from bert_jax.text import vocabulary_file, wordpiece

WORD_MARK = "\u2581"  # the lower one eighth block that stands for a space

# ALBERT's names beside our own.
_NAMES = {
    vocabulary_file.PAD: ("[PAD]", "<pad>"),
    vocabulary_file.UNK: ("[UNK]", "<unk>"),
    vocabulary_file.CLS: ("[CLS]",),
    vocabulary_file.SEP: ("[SEP]",),
    vocabulary_file.MASK: ("[MASK]",),
}
# Protocol buffers merge what is appended: ModelProto.normalizer_spec (field 3)
# with add_dummy_prefix (its field 3) false.
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SentencePiece:
    """Turns sentences into ids by a SentencePiece model."""

    def __init__(self, model: bytes, *, lowercase: bool) -> None:
        """Loads a model that `read` has checked."""
        self._lowercase = lowercase
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence."""
        clean = [self._clean(sentence) for sentence in sentences]
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
        clean = [self._clean(sentence) for sentence in sentences]
        protos = self._processor.encode(
            clean, out_type="serialized_proto", num_threads=1
        )
        return [
            self._offsets(proto, *texts)
            for proto, *texts in zip(protos, clean, sentences, strict=True)
        ]

    def encode_parts(self, parts: list[str]) -> list[list[int]]:
        """Returns the ids of the parts of a text that mask tokens divide.

        A part that follows a mask without a space gets no word mark at its head.
        """
        inner = sentencepiece.SentencePieceProcessor(
            model_proto=self._model + _NO_PREFIX
        )
        rows = []
        for index, part in enumerate(parts):
            glued = index > 0 and not part[:1].isspace()
            processor = inner if glued else self._processor
            rows.append(processor.encode(self._clean(part), out_type=int))
        return rows

    def _clean(self, sentence: str) -> str:
        """Lowers case if asked to, and replaces lone surrogates, which are no text."""
        sentence = wordpiece.without_surrogates(sentence)
        return sentence.lower() if self._lowercase else sentence

    def _offsets(
        self, proto: bytes, clean: str, sentence: str
    ) -> tuple[list[int], wordpiece.Offsets]:
        """Reads one encoding; its bytes become characters of the sentence."""
        message = sentencepiece_pb2.SentencePieceText.FromString(proto)  # pyright: ignore
        ids = [piece.id for piece in message.pieces]
        bounds = [(piece.begin, piece.end) for piece in message.pieces]
        if clean.isascii() and sentence.isascii():
            return ids, bounds
        character = _character_of_byte(clean, sentence)
        return ids, [(character[start], character[end]) for start, end in bounds]


def _character_of_byte(clean: str, sentence: str) -> list[int]:
    """Returns, for each byte of `clean` and its end, the character of `sentence`.

    `clean` may be the sentence in lower case: then U+0130 has become two.
    """
    sources: list[int] = []
    for index, character in enumerate(sentence):
        grown = 2 if character == "\u0130" and len(clean) > len(sentence) else 1
        sources.extend([index] * grown)
    table = []
    for source, character in zip(sources, clean, strict=True):
        table.extend([source] * len(character.encode()))
    return [*table, len(sentence)]


def read(path: Path) -> bytes:
    """Reads the bytes of a model file and checks that BERT can use it.

    Raises:
      InputError: the file is no SentencePiece model, or lacks a special piece.
    """
    content = vocabulary_file.read_bytes(path)
    special_ids(content, str(path))
    return content


def pieces(model: bytes) -> tuple[str, ...]:
    """Returns the pieces of a model in the order of their ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tuple(processor.id_to_piece(i) for i in range(processor.vocab_size()))


def special_ids(model: bytes, where: str) -> dict[str, int]:
    """Finds the ids of the special pieces by our names for them.

    Raises:
      InputError: the model is none, lacks one, or would read it out of raw text.
    """
    processor = _processor(model, where)
    first_id: dict[str, int] = {}
    for index in range(processor.vocab_size()):
        first_id.setdefault(processor.id_to_piece(index), index)
    found, missing = {}, []
    for name, spellings in _NAMES.items():
        ids = [first_id[spelling] for spelling in spellings if spelling in first_id]
        if ids:
            found[name] = ids[0]
        else:
            missing.append(" or ".join(spellings))
    if missing:
        raise errors.InputError(
            f"{where} has no piece {', '.join(missing)}. BERT needs them: train the"
            ' model with control_symbols="[CLS],[SEP],[MASK]" and pad_id=0, or let'
            " bert_jax.prepare learn one."
        )
    _check_types(processor, found, where)
    return found


def _processor(model: bytes, where: str) -> sentencepiece.SentencePieceProcessor:
    """Loads a model, or says that it is none."""
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # Reads every piece: one may not be UTF-8.
        if [processor.id_to_piece(index) for index in range(processor.vocab_size())]:
            return processor
    except (RuntimeError, OSError, UnicodeDecodeError):
        pass
    raise errors.InputError(
        f"{where} is not a SentencePiece model. Give the .model file that"
        " sentencepiece wrote, or a WordPiece vocabulary named *.txt."
    )


def _check_types(
    processor: sentencepiece.SentencePieceProcessor, found: dict[str, int], where: str
) -> None:
    """Refuses special pieces that raw text could turn into."""
    for name, index in found.items():
        is_unknown = name == vocabulary_file.UNK and processor.is_unknown(index)
        if not (processor.is_control(index) or is_unknown):
            raise errors.InputError(
                f"{where}: {processor.id_to_piece(index)} (id {index}) is an ordinary"
                " piece, so raw text could turn into it. Train the model with it"
                " among control_symbols."
            )
