"""The JSON files next to a vocabulary: options, special tokens, added tokens.

tokenizer_config.json, special_tokens_map.json and added_tokens.json, as Hugging Face
and `Tokenizer.save` write them. Keys that do not change ids are ignored.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

from bert_jax import errors
from bert_jax.foundation import json_file
from bert_jax.text import pipelines, specials
from bert_jax.text.pipelines import Rules, Tree

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
MODEL = "config.json"
ADDED_TOKENS = "added_tokens.json"

_SENTENCE_ENCODER = "sentence_*_config.json"  # sentence-transformers: of the model
_NO_LIMIT = 1e20  # `transformers` calls longer ones "very large"

_ID = re.compile(r"[0-9]{1,10}")
_FLAGS = (
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "keep_accents",
    "add_prefix_space",
)


@dataclasses.dataclass(frozen=True)
class TokenizerOptions:
    """The options next to a vocabulary.

    Attributes:
      path: tokenizer_config.json, which may not exist.
      flags: the boolean options; None for each that is not set.
      rules: whose rules to follow where Google's code and Hugging Face's differ.
      tokenizer_class: the class's name in `transformers`, or "".
      named: role ("cls", ...) -> spelling of the special token; null names none.
      added: entries of `added_tokens` as in a tokenizer.json, by id.
      special: entries of tokens that are called special without an id; one that the
        vocabulary has is an added token too, as in `transformers`.
    """

    path: Path
    flags: dict[str, bool | None]
    rules: Rules | None
    tokenizer_class: str
    named: dict[str, str]
    added: list[Tree]
    special: list[Tree] = dataclasses.field(default_factory=list)

    def all_added(self, ids: dict[str, int], known: list[Tree]) -> list[Tree]:
        """Returns the entries of all added tokens of a folder, by id.

        Args:
          ids: the id of each token of the vocabulary.
          known: the entries of its tokenizer.json, which take precedence.
        """
        entries = {token["content"]: token for token in known}
        for token in self.added:
            entries.setdefault(token["content"], token)
        for token in self.special:
            if token["content"] in ids:
                entry = token | {"id": ids[token["content"]]}
                entries.setdefault(token["content"], entry)
        return sorted(entries.values(), key=lambda token: token["id"])


def read(folder: Path) -> TokenizerOptions:
    """Reads the options in a folder; all are unset if it has none of the files.

    Raises:
      InputError: a file is broken, or two of them contradict each other.
    """
    config, special = (_object(folder / name) for name in (CONFIG, SPECIAL_TOKENS))
    path = folder / CONFIG
    flags = {name: json_file.flag(config, name, path) for name in _FLAGS}
    named = _named(special, folder / SPECIAL_TOKENS)
    for role, spelling in _named(config, path).items():
        if named.setdefault(role, spelling) != spelling:
            raise errors.InputError(
                f"{path}: {role}_token is {spelling!r}, and {named[role]!r} in"
                f" {SPECIAL_TOKENS} next to it. Correct one of them."
            )
    return TokenizerOptions(
        path,
        flags,
        _rules(config, path),
        _class(config, folder),
        named,
        _added(config, special, folder),
        [*_all_special(special | config).values()],
    )


def max_length(folder: Path) -> int:
    """Returns the maximum length of a tokenizer_config.json, in tokens; 0 for none.

    `transformers` writes 1e30 for a tokenizer that has no limit.

    Raises:
      InputError: it is not a number of tokens.
    """
    config = _object(folder / CONFIG)
    value = config.get("model_max_length", config.get("max_len"))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and value > _NO_LIMIT):
        return 0
    if not is_number or value != int(value) or value < 3:
        raise errors.InputError(
            f"{folder / CONFIG}: model_max_length is {value!r}. Write a number of"
            " tokens above 2, or null."
        )
    return int(value)


def lowercases_first(folder: Path) -> bool:
    """Returns whether sentence-transformers lowercases text before this tokenizer.

    Raises:
      InputError: its configuration is broken.
    """
    for path in sorted(folder.glob(_SENTENCE_ENCODER)):
        if json_file.flag(json_file.read_object(path), "do_lower_case", path):
            return True
    return False


def _object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one if the file does not exist."""
    return json_file.read_object(path) if path.is_file() else {}


def _rules(config: dict[str, Any], path: Path) -> Rules | None:
    """Returns whose rules a tokenizer_config.json names."""
    value = config["rules"] if "rules" in config else None
    known = get_args(Rules)
    if value not in (None, *known):
        raise errors.InputError(
            f"{path}: rules is {value!r}. Write one of {', '.join(known)}."
        )
    return value


def _class(config: dict[str, Any], folder: Path) -> str:
    """Returns the name of the tokenizer's class in `transformers`.

    If the options do not name it, the model_type of config.json decides.
    """
    value = config["tokenizer_class"] if "tokenizer_class" in config else None
    if value is None and "rules" not in config:  # the options that have rules are ours
        model = _object(folder / MODEL)
        is_albert = "model_type" in model and model["model_type"] == "albert"
        return "AlbertTokenizer" if is_albert else ""
    return value if isinstance(value, str) else ""


def _named(tree: dict[str, Any], path: Path) -> dict[str, str]:
    """Returns the spellings of the special tokens that a file names."""
    keys = {role: f"{role}_token" for role in specials.SPELLINGS}
    present = {role: key for role, key in keys.items() if tree.get(key) is not None}
    return {role: _content(tree[key], key, path) for role, key in present.items()}


def _content(value: Any, key: str, path: Path) -> str:
    """Returns the spelling of a token: a string, or an object with "content"."""
    spelling = (
        value["content"] if isinstance(value, dict) and "content" in value else value
    )
    if not isinstance(spelling, str) or not spelling:
        raise errors.InputError(
            f'{path}: {key} is {value!r}. Write a string, or {{"content": a string}}.'
        )
    return spelling


def _added(
    config: dict[str, Any], special_map: dict[str, Any], folder: Path
) -> list[Tree]:
    """Returns added tokens: those of the newer key, or else of the older file."""
    if "added_tokens_decoder" in config:
        return _decoder(config["added_tokens_decoder"], folder / CONFIG)
    path = folder / ADDED_TOKENS
    special = _all_special(special_map | config)
    entries = []
    for content, index in _object(path).items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise errors.InputError(
                f"{path}: the id of {content!r} is {index!r}. Write an integer."
            )
        entry = special.get(content) or pipelines.added_token(
            content, index, special=False
        )
        entries.append(entry | {"id": index})
    return sorted(entries, key=lambda token: token["id"])


def _decoder(tree: Any, path: Path) -> list[Tree]:
    """Reads `added_tokens_decoder`: id -> token."""
    entries = []
    for key, token in tree.items() if isinstance(tree, dict) else [("", tree)]:
        if not _ID.fullmatch(key) or not isinstance(token, dict):
            raise errors.InputError(
                f"{path}: added_tokens_decoder has {key[:80]!r}: {token!r}. Write"
                ' {"id": {"content": a string}}.'
            )
        content = _content(token, f"added_tokens_decoder {key}", path)
        is_special = token.get("special") is True
        entries.append(_entry(token, content, int(key), is_special, path))
    return sorted(entries, key=lambda token: token["id"])


def _entry(
    token: dict[str, Any], content: str, index: int, special: bool, path: Path
) -> Tree:
    """Returns one added token with the flags of its object."""
    entry = pipelines.added_token(content, index, special=special)
    for name in ("single_word", "lstrip", "rstrip", "normalized"):
        value = token.get(name, entry[name])
        if not isinstance(value, bool):
            raise errors.InputError(
                f"{path}: {name} of the token {content!r} is {value!r}. Write true or"
                " false."
            )
        entry[name] = value
    return entry


def _all_special(tree: dict[str, Any]) -> dict[str, Tree]:
    """Returns every token that a file calls special, as an entry with the id 0."""
    values = [value for key, value in tree.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = tree.get(key)
        listed = [*listed.values()] if isinstance(listed, dict) else listed
        values += listed if isinstance(listed, list) else []
    entries = {}
    for value in values:
        token = {"content": value} if isinstance(value, str) else value
        content = token.get("content") if isinstance(token, dict) else None
        if isinstance(content, str) and content:
            entries[content] = _entry(token, content, 0, True, Path(SPECIAL_TOKENS))
    return entries
