"""SentencePiece models (unigram or BPE), which their own library encodes.

The fields of its protocol buffers that we read are described here rather than imported:
the generated modules that ship with sentencepiece cannot be imported next to an older
protobuf than their own (0.2.3 requires protobuf 7, TensorFlow protobuf below 7).
"""

import functools
import re
import unicodedata
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bert_jax import errors
from bert_jax.text import characters
from bert_jax.text.specials import SpecialTokens

WORD_MARK = "\u2581"  # the lower one eighth block that replaces a space

# Of ModelProto.SentencePiece.Type and of TrainerSpec.ModelType.
NORMAL, UNKNOWN = 1, 2
UNIGRAM, BPE = 1, 2

# Protocol buffers merge what is appended: ModelProto.normalizer_spec (field 3)
# with add_dummy_prefix (its field 3) false.
_NO_PREFIX = b"\x1a\x02\x18\x00"
_QUOTES = re.compile("``|''|.", re.DOTALL)


class SentencePiece:
    """The back end of a SentencePiece model, run by the sentencepiece library.

    `tokenizers` reads these models too (`pipelines.sentencepiece`), but differs in runs
    such as "!!!!!!!" that have two segmentations of the same score (float32 here,
    float64 there), in characters that are normalized together and take more than five
    bytes ("ｶﾞ", with ALBERT's rules Korean syllables), in U+10FFFF, and in the offsets
    of a word mark without a space.
    """

    def __init__(
        self, model: bytes, *, lowercase: bool, strip_accents: bool, albert: bool
    ) -> None:
        """Loads a model that `tokens` has checked.

        With `albert`, `` and '' become quotes, and accents are stripped on request.
        """
        self._lowercase = lowercase
        self._strip_accents = strip_accents
        self._albert = albert
        self._model = model
        self._processor = _load(model)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        clean = [self._clean(text)[0] for text in texts]
        return self._processor.encode(clean, out_type=int, num_threads=1)

    def encode_with_offsets(
        self, texts: list[str]
    ) -> list[tuple[list[int], characters.Offsets]]:
        """Returns ids, and the characters [start, end) that each comes from."""
        pairs = [self._clean(text) for text in texts]
        protos = self._processor.encode(
            [clean for clean, _ in pairs], out_type="serialized_proto", num_threads=1
        )
        return [
            _offsets(proto, clean, sources)
            for proto, (clean, sources) in zip(protos, pairs, strict=True)
        ]

    def encode_masked(self, parts: list[str], mask_id: int) -> list[int]:
        """Returns the ids of the parts of a text with a mask between them.

        A part that follows a mask without a space does not start with a word mark.
        """
        inner = _load(self._model + _NO_PREFIX)
        ids: list[int] = []
        for index, part in enumerate(parts):
            if index > 0:
                ids.append(mask_id)
            is_glued = index > 0 and not part[:1].isspace()
            processor = inner if is_glued else self._processor
            ids += processor.encode(self._clean(part)[0], out_type=int)
        return ids

    def _clean(self, text: str) -> tuple[str, list[int] | None]:
        """Applies the changes that the model does not make; replaces lone surrogates.

        Returns the text, and the character of the original that each of its characters
        comes from, with the original's length last; None where they are one to one.
        """
        text = characters.without_surrogates(text)
        if self._albert:
            return self._clean_as_albert(text)
        clean = text.lower() if self._lowercase else text
        if len(clean) == len(text):
            return clean, None
        # Only U+0130 grows when lowercased, to two characters.
        grown = [[i] * (1 + (c == "\u0130")) for i, c in enumerate(text)]
        return clean, [*(i for pair in grown for i in pair), len(text)]

    def _clean_as_albert(self, text: str) -> tuple[str, list[int]]:
        """Changes quotes, accents and case character by character, as ALBERT does."""
        parts: list[str] = []
        sources: list[int] = []
        for match in _QUOTES.finditer(text):
            part = match[0] if len(match[0]) == 1 else '"'
            if self._strip_accents:
                letters = unicodedata.normalize("NFKD", part)
                part = "".join(
                    c for c in letters if not unicodedata.category(c).startswith("M")
                )
            part = part.lower() if self._lowercase else part
            parts.append(part)
            sources += [match.start()] * len(part)
        return "".join(parts), [*sources, len(text)]


def _offsets(
    proto: bytes, clean: str, sources: list[int] | None
) -> tuple[list[int], characters.Offsets]:
    """Reads one encoding; converts its byte offsets to characters of the original."""
    message = message_of_text(proto)
    ids = [token.id for token in message.pieces]
    bounds = [(token.begin, token.end) for token in message.pieces]
    if clean.isascii() and sources is None:
        return ids, bounds
    character = _character_of_byte(clean, sources)
    return ids, [(character[start], character[end]) for start, end in bounds]


def _character_of_byte(clean: str, sources: list[int] | None) -> list[int]:
    """Returns the source character of each byte of `clean`, and of its end."""
    sources = list(range(len(clean) + 1)) if sources is None else sources
    table = []
    for source, character in zip(sources, clean, strict=False):
        table.extend([source] * len(character.encode()))
    return [*table, sources[-1]]


def tokens(model: bytes, where: str) -> tuple[str, ...]:
    """Checks a model and returns its tokens in the order of their ids.

    Raises:
      InputError: the bytes are not a SentencePiece model.
    """
    try:
        processor = _load(model)
        # A token may not be UTF-8.
        names = tuple(map(processor.id_to_piece, range(processor.vocab_size())))
    except (RuntimeError, OSError, UnicodeDecodeError):
        names = ()
    if not names:
        raise errors.InputError(
            f"{where} is not a SentencePiece model. Give the .model file that"
            " sentencepiece wrote, or a WordPiece vocabulary named *.txt."
        )
    return names


def check_special_tokens(model: bytes, specials: SpecialTokens, where: str) -> None:
    """Requires that the special tokens are control symbols, which text cannot spell.

    Raises:
      InputError: one is an ordinary token.
    """
    processor = _load(model)
    ids = first_ids(tokens(model, where))
    for role, name in specials.present().items():
        index = ids[name]
        is_unknown = role == "unk" and processor.is_unknown(index)
        if not (processor.is_control(index) or is_unknown):
            raise errors.InputError(
                f"{where}: {name} (id {index}) is an ordinary token, so raw text could"
                " contain it. Train the model with it among control_symbols."
            )


def first_ids(names: tuple[str, ...]) -> dict[str, int]:
    """Returns the id of each token; the first where a model has one twice."""
    return {name: index for index, name in reversed(list(enumerate(names)))}


def _load(model: bytes) -> Any:
    """Returns sentencepiece's processor; the library is optional."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


_PACKAGE = "bert_jax.sentencepiece"
# Message -> its fields: name, number, type (or the message that is repeated), default.
_FIELDS = {
    "Span": (
        ("id", 2, "UINT32", "0"),
        ("begin", 4, "UINT32", "0"),
        ("end", 5, "UINT32", "0"),
    ),
    "SentencePieceText": (("pieces", 2, "Span", None),),
    "Piece": (
        ("piece", 1, "STRING", ""),
        ("score", 2, "FLOAT", "0"),
        ("type", 3, "INT32", str(NORMAL)),
    ),
    "TrainerSpec": (
        ("model_type", 3, "INT32", str(UNIGRAM)),
        ("byte_fallback", 35, "BOOL", "false"),
    ),
    "NormalizerSpec": (
        ("precompiled_charsmap", 2, "BYTES", ""),
        ("add_dummy_prefix", 3, "BOOL", "true"),
        ("remove_extra_whitespaces", 4, "BOOL", "true"),
    ),
    "ModelProto": (
        ("pieces", 1, "Piece", None),
        ("trainer_spec", 2, "TrainerSpec", ""),
        ("normalizer_spec", 3, "NormalizerSpec", ""),
    ),
}


def message_of_model(content: bytes) -> Any:
    """Returns the ModelProto of a model file.

    Raises:
      google.protobuf.message.DecodeError: the bytes are not a model.
    """
    return _message_class("ModelProto").FromString(content)


def message_of_text(content: bytes) -> Any:
    """Returns the SentencePieceText of one serialized encoding."""
    return _message_class("SentencePieceText").FromString(content)


@functools.cache
def _message_class(name: str) -> Any:
    """Returns the class of a message."""
    pool = _pool()
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    )


@functools.cache
def _pool() -> Any:
    """Returns the descriptors, in a pool separate from sentencepiece's own."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="bert_jax/sentencepiece.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, default in fields:
            repeated = default is None
            added = message.field.add(
                name=field,
                number=number,
                label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
            )
            if kind in _FIELDS:
                added.type = types.TYPE_MESSAGE
                added.type_name = f".{_PACKAGE}.{kind}"
            else:
                added.type = getattr(types, f"TYPE_{kind}")
                added.default_value = default or ""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool
