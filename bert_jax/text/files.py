"""The files of a vocabulary: vocab.txt, vocab.json with merges.txt, tokenizer.json.

Each is checked before a model sees an id, and an error gives the line or the entry.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.foundation import files, hub, json_file
from bert_jax.text import backend, pipelines, spiece
from bert_jax.text.pipelines import Tree

WORDPIECE, SENTENCEPIECE, JSON = "vocab.txt", "spiece.model", "tokenizer.json"
BYTE_LEVEL, MERGES = "vocab.json", "merges.txt"

BYTE_MARK = "\u0120"  # the letter that replaces a space in byte-level BPE

_PROBE = "\U00013000 [a] \u00c0"  # unknown to most models, so that [UNK] is tried


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file that exists and is not empty.

    Raises:
      InputError: it is missing, a directory, not readable, empty or too long.
    """
    try:
        content = files.read(path, json_file.MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"{path} does not exist. Give the path of a vocabulary, or "
            f"{hub.suggestion(path)}."
        ) from None
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise errors.InputError(f"{path} is empty. Give a vocabulary with tokens.")
    return content


def _read_text(path: Path) -> str:
    """Returns the text of a file, without its byte-order mark.

    Raises:
      InputError: with the line and the byte that are not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise errors.InputError(
            f"{path}:{line}: byte {error.start} (0x{content[error.start]:02x}) is not"
            " UTF-8. Save the vocabulary as UTF-8; a SentencePiece model must be"
            " named *.model."
        ) from None


# vocab.txt: one token a line; its id is the number of lines before it.


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Reads the tokens of a vocab.txt in the order of their ids.

    A byte-order mark, carriage returns, ASCII white space around a token and blank
    lines at the end are dropped; other white space is kept, because published
    vocabularies have tokens such as U+2028.

    Raises:
      InputError: the file is not a vocabulary.
    """
    tokens = [line.strip(" \t\r") for line in _read_text(path).split("\n")]
    while tokens and not tokens[-1]:
        tokens.pop()
    _check_lines(tokens, path)
    return tuple(tokens)


def _check_lines(tokens: list[str], path: Path) -> None:
    first_line: dict[str, int] = {}
    for line, token in enumerate(tokens, 1):
        if not token or " " in token or "\t" in token:
            what = f"is {token!r}" if token else "is blank"
            raise errors.InputError(
                f"{path}:{line}: the line {what}. Write one token a line, without"
                " spaces, because its line number is its id."
            )
        if "\0" in token:
            raise errors.InputError(
                f"{path}:{line}: the token {token!r} has a NUL byte. Save the"
                " vocabulary as UTF-8."
            )
        if token in first_line:
            raise errors.InputError(
                f"{path}: lines {first_line[token]} and {line} have the same token"
                f" {token!r}. Remove one: a token can have only one id."
            )
        first_line[token] = line


def is_lowercase(tokens: tuple[str, ...]) -> bool:
    """Returns whether no token, names in brackets aside, has an upper-case letter.

    >>> is_lowercase(("[MASK]", "<S>", "the")), is_lowercase(("[MASK]", "The"))
    (True, False)
    """
    names = (("[", "]"), ("<", ">"))
    return not any(
        token != token.lower() and (token[0], token[-1]) not in names
        for token in tokens
    )


# vocab.json and merges.txt: byte-level BPE, as RoBERTa's.


def has_byte_level(folder: Path) -> bool:
    """Returns whether a folder has both files of byte-level BPE."""
    return all((folder / name).is_file() for name in (BYTE_LEVEL, MERGES))


def read_merges(path: Path, ids: Mapping[str, int]) -> list[list[str]]:
    """Reads a merges.txt: two tokens a line, after a line with its version.

    Raises:
      InputError: a line is not a pair of tokens of the vocabulary.
    """
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(t in ids for t in (*pair, "".join(pair))):
            raise errors.InputError(
                f"{path}:{number}: {line!r} does not merge two tokens of {BYTE_LEVEL}"
                " to a third. Take both files from the same model."
            )
        merges.append(pair)
    return merges


def write_byte_level(tree: Tree, folder: Path) -> None:
    """Writes the two files of a byte-level pipeline."""
    vocabulary = pipelines.dump(tree["model"]["vocab"], indent=None)
    (folder / BYTE_LEVEL).write_bytes(vocabulary)
    pairs = [m.split(" ") if isinstance(m, str) else m for m in tree["model"]["merges"]]
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in pairs)]
    text = "".join(f"{line}\n" for line in lines)
    (folder / MERGES).write_text(text, encoding="utf-8", newline="\n")


# tokenizer.json: any pipeline, which the library checks.


class TokenizerJson:
    """A tokenizer.json that the tokenizers library can use.

    Attributes:
      tree: its content.
      where: the file, for messages.
      model_ids: the id of each token of the model, without added tokens.
      added: the entries of its added tokens.
      ids: the id of each token.
      tokens: all tokens in the order of their ids.
    """

    def __init__(self, tree: Tree, where: str) -> None:
        """Has the library read it, and checks that the ids are 0, 1, 2 and so on.

        Raises:
          InputError: the library cannot use it, or an id is missing or there twice.
        """
        rust = backend.build(tree, where)
        self.tree, self.where = tree, where
        self.model_ids: dict[str, int] = rust.get_vocab(with_added_tokens=False)
        self.added: list[Tree] = tree.get("added_tokens") or []
        self.ids = with_added(self.model_ids, self.added, where)
        self.tokens = in_order(self.ids, where)
        if rust.get_vocab(with_added_tokens=True) != self.ids:
            raise errors.InputError(
                f"{where}: added_tokens are not in the order of their ids. Sort them."
            )
        backend.guarded(lambda: rust.encode(_PROBE, add_special_tokens=False), where)


def in_order(ids: Mapping[str, int], where: str) -> tuple[str, ...]:
    """Returns tokens in the order of their ids, which must be 0, 1, 2 and so on.

    Raises:
      InputError: an id is missing or there twice.
    """
    tokens = tuple(sorted(ids, key=ids.__getitem__))
    for index, token in enumerate(tokens):
        if ids[token] != index:
            what = f"no token with id {index}"
            if ids[token] < index:
                what = f"two tokens with id {ids[token]}"
            raise errors.InputError(
                f"{where} has {what}, near {token!r}. The ids of its {len(ids)} tokens"
                f" must be 0 to {len(ids) - 1}, each once."
            )
    return tokens


def with_added(ids: Mapping[str, int], added: list[Tree], where: str) -> dict[str, int]:
    """Returns the ids of the model's tokens and of the added tokens.

    Raises:
      InputError: a token has a different id in the model.
    """
    all_ids = dict(ids)
    for token in added:
        name, index = token["content"], token["id"]
        if all_ids.setdefault(name, index) != index:
            raise errors.InputError(
                f"{where}: the token {name!r} has the id {all_ids[name]} in the"
                f" vocabulary and {index} among the added tokens. Correct one."
            )
    return all_ids


def continues_word(tree: Tree, tokens: tuple[str, ...]) -> list[bool]:
    """Returns whether each token continues a word, by the mark of its model."""
    steps = [tree[name] for name in ("pre_tokenizer", "decoder") if name in tree]
    if "continuing_subword_prefix" in tree["model"] and "merges" not in tree["model"]:
        return [len(t) > 2 and t.startswith("##") for t in tokens]
    mark = BYTE_MARK if '"ByteLevel"' in json.dumps(steps) else spiece.WORD_MARK
    return [not token.startswith(mark) for token in tokens]


def normalization(tree: Tree) -> tuple[bool, bool]:
    """Returns whether a tokenizer.json lowercases, and whether it strips accents."""
    lowercase = strip_accents = False
    for step in _normalizers(tree.get("normalizer")):
        kind = step.get("type")
        lowercase |= kind == "Lowercase" or step.get("lowercase") is True
        accents = step.get("strip_accents", False)
        accents = step.get("lowercase") is True if accents is None else accents is True
        strip_accents |= kind == "StripAccents" or accents
    return lowercase, strip_accents


def with_lowercase(tree: Tree) -> Tree:
    """Returns a tokenizer.json that first lowercases text."""
    steps = [{"type": "Lowercase"}, *_normalizers(tree.get("normalizer"))]
    return {**tree, "normalizer": {"type": "Sequence", "normalizers": steps}}


def _normalizers(tree: Any) -> list[Tree]:
    """Returns the normalizers of a sequence, or the only one."""
    if not isinstance(tree, dict):
        return []
    if "normalizers" in tree and isinstance(tree["normalizers"], list):
        return [step for inner in tree["normalizers"] for step in _normalizers(inner)]
    return [tree]
