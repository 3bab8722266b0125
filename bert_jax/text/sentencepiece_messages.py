"""SentencePiece's two protocol buffers, described here rather than imported.

The modules that ship with sentencepiece are generated code, which refuses to be
imported next to an older protobuf than its own (0.2.3 requires protobuf 7, TensorFlow
protobuf below 7). The fields below are those that we read, with the numbers, types and
defaults of sentencepiece.proto and sentencepiece_model.proto; others are skipped. Any
protobuf from 4.25 on builds the same classes from them.
"""

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Of ModelProto.SentencePiece.Type and of TrainerSpec.ModelType.
NORMAL, UNKNOWN = 1, 2
UNIGRAM, BPE = 1, 2

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


def model(content: bytes) -> Any:
    """Returns the ModelProto of a model file.

    Raises:
      google.protobuf.message.DecodeError: the bytes are not a model.
    """
    return _class("ModelProto").FromString(content)


def text(content: bytes) -> Any:
    """Returns the SentencePieceText of one serialized encoding."""
    return _class("SentencePieceText").FromString(content)


@functools.cache
def _class(name: str) -> Any:
    """Returns the class of a message."""
    pool = _pool()
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    )


@functools.cache
def _pool() -> Any:
    """Returns the descriptors, in a pool that sentencepiece's own never meet."""
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
