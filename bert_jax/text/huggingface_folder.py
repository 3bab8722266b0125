"""Writes a tokenizer as `transformers.AutoTokenizer.from_pretrained` reads it.

The vocabulary as it came (vocab.txt, spiece.model, or vocab.json with merges.txt),
tokenizer.json, tokenizer_config.json and special_tokens_map.json: the same bytes every
time. `tokenizer.load` reads the folder back as the same tokenizer.

`transformers` cuts WordPiece by Hugging Face's rules: with `rules="google"` ids differ
for private-use characters, U+2B820 to U+2B91F, words of 101 to 200 characters and a
capital sigma that ends a word. For SentencePiece the Rust code of `tokenizers` does
the model's own normalisation, and misses what becomes of several characters at once
beyond five bytes: a half-width katakana with its voicing mark, or a Korean syllable
whose accents ALBERT's rules strip.
"""

import json
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.text import (
    byte_level_files,
    folder_options,
    pipelines,
    tokenizer,
    tokenizer_json,
    vocabulary_folder,
)

_ANY_CLASS = "PreTrainedTokenizerFast"  # does what tokenizer.json says and no more


def save(it: tokenizer.Tokenizer, folder: Path, max_length: int) -> None:
    """Writes a tokenizer's folder, or into a model's.

    Args:
      it: the tokenizer.
      folder: made if it is not there.
      max_length: the longest row of the model, in tokens.

    Raises:
      InputError: `max_length` is not positive.
    """
    if max_length < 1:
        raise errors.InputError(f"max_length is {max_length}. Give 1 or more.")
    folder.mkdir(parents=True, exist_ok=True)
    tree = pipeline(it)
    specials = {f"{role}_token": name for role, name in it.specials.present().items()}
    config = {
        **it.options(),
        **specials,
        **_class(tree, it.kind),
        "model_max_length": max_length,
    }
    files = {
        vocabulary_folder.JSON: tree,
        folder_options.CONFIG: config,
        folder_options.SPECIAL_TOKENS: specials,
    }
    for name, content in files.items():
        (folder / name).write_bytes(tokenizer_json.dump(content, indent=2) + b"\n")
    it.cleaning.save(folder)  # for us; `transformers` does not read it
    if it.kind != "tokenizer_json":
        (folder / tokenizer.FILES[it.kind]).write_bytes(it.content)
    elif _is_byte_level(tree):
        byte_level_files.write(tree, folder)


def pipeline(it: tokenizer.Tokenizer) -> dict[str, Any]:
    """Returns the tree of the tokenizer.json that means the same as a tokenizer."""
    if it.kind == "tokenizer_json":
        return json.loads(it.content)
    if it.kind == "wordpiece":
        return pipelines.wordpiece(
            it.tokens,
            it.specials,
            lowercase=it.lowercase,
            strip_accents=it.strip_accents,
            more=[
                pipelines.added(token.content, it.id_of(token.content), special=True)
                | vars(token)
                for token in it.added
            ],
        )
    return pipelines.sentencepiece(
        it.content,
        it.specials,
        lowercase=it.lowercase,
        strip_accents=it.strip_accents,
        quotes=it.rules == "huggingface",
    )


def _class(tree: dict[str, Any], kind: tokenizer.Kind) -> dict[str, Any]:
    """Returns the class in `transformers`, and the options that are its own."""
    if kind == "wordpiece":
        return {"tokenizer_class": "BertTokenizer"}
    if not _is_roberta(tree):
        return {"tokenizer_class": _ANY_CLASS}
    return {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": _is_set(tree["pre_tokenizer"], "add_prefix_space"),
        "trim_offsets": _is_set(tree["post_processor"], "trim_offsets"),
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _is_set(part: dict[str, Any], name: str) -> bool:
    """Returns a flag of byte-level parts; true where it is left out."""
    return part[name] is True if name in part else True


def _is_byte_level(tree: dict[str, Any]) -> bool:
    """Says whether vocab.json and merges.txt can hold a tokenizer's pieces."""
    return "merges" in tree["model"] and _type(tree, "pre_tokenizer") == "ByteLevel"


def _is_roberta(tree: dict[str, Any]) -> bool:
    """Says whether a pipeline is the one that RobertaTokenizer builds."""
    rows = _type(tree, "post_processor")
    return (
        _is_byte_level(tree) and rows == "RobertaProcessing" and not _normalizes(tree)
    )


def _normalizes(tree: dict[str, Any]) -> bool:
    """Says whether a pipeline changes text before it is cut."""
    return "normalizer" in tree and tree["normalizer"] is not None


def _type(tree: dict[str, Any], part: str) -> str | None:
    """Returns the type of a part of a pipeline."""
    found = tree[part] if part in tree else None
    return found["type"] if isinstance(found, dict) else None
