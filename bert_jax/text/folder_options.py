"""What the JSON files beside a vocabulary say: options, special pieces, added tokens.

tokenizer_config.json, special_tokens_map.json and added_tokens.json, as Hugging Face
and `Tokenizer.save` write them. Keys that do not change ids are not looked at.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

from bert_jax import errors, json_file
from bert_jax.text import pipelines, special_pieces, wordpiece

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
MODEL = "config.json"
ADDED_TOKENS = "added_tokens.json"

_SENTENCE_ENCODER = "sentence_*_config.json"  # sentence-transformers: by the model
_NO_LIMIT = 1e20  # longer rows are what `transformers` calls very large

_ID = re.compile(r"[0-9]{1,10}")
_FLAGS = (
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "keep_accents",
    "add_prefix_space",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options beside a vocabulary.

    Attributes:
      path: of tokenizer_config.json, which may not be there.
      flags: the true-or-false options; None for each that is not given.
      rules: whose rules hold where Google's code and Hugging Face's differ.
      tokenizer_class: as given.
      named: role ("cls", ...) -> spelling of the special piece; null names none.
      added: entries of `added_tokens` as tokenizer.json writes them, by id.
      special: tokens that are named special without an id, with their flags; one that
        the vocabulary has is an added token too, as in `transformers`.
    """

    path: Path
    flags: dict[str, bool | None]
    rules: wordpiece.Rules | None
    tokenizer_class: str
    named: dict[str, str]
    added: list[pipelines.Tree]
    special: list[pipelines.Tree] = dataclasses.field(default_factory=list)

    def added_to(
        self, ids: dict[str, int], known: list[pipelines.Tree]
    ) -> list[pipelines.Tree]:
        """Returns all added tokens of a folder, by id.

        Args:
          ids: of the vocabulary's tokens.
          known: those that its tokenizer.json names, which goes first.
        """
        made = {token["content"]: token for token in known}
        for token in self.added:
            made.setdefault(token["content"], token)
        for token in self.special:
            if token["content"] in ids:
                entry = token | {"id": ids[token["content"]]}
                made.setdefault(token["content"], entry)
        return sorted(made.values(), key=lambda token: token["id"])


def read(folder: Path) -> Options:
    """Reads the options in a folder; all are None where no file says more.

    Raises:
      InputError: a file is broken, or two of them contradict each other.
    """
    config, special = (_object(folder / name) for name in (CONFIG, SPECIAL_TOKENS))
    path = folder / CONFIG
    flags = {name: _flag(config, name, path) for name in _FLAGS}
    named = _named(special, folder / SPECIAL_TOKENS)
    for role, spelling in _named(config, path).items():
        if named.setdefault(role, spelling) != spelling:
            raise errors.InputError(
                f"{path} names {role}_token {spelling!r}, and {SPECIAL_TOKENS} beside"
                f" it {named[role]!r}. Correct one of them."
            )
    return Options(
        path,
        flags,
        _rules(config, path),
        _class(config, folder),
        named,
        _added(config, special, folder),
        [*_all_special(special | config).values()],
    )


def max_length(folder: Path) -> int:
    """Returns the longest row by a tokenizer_config.json; 0 where it says none.

    `transformers` writes 1e30 for a tokenizer that has no limit.

    Raises:
      InputError: it is no count of tokens.
    """
    config = _object(folder / CONFIG)
    value = config.get("model_max_length", config.get("max_len"))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and value > _NO_LIMIT):
        return 0
    if not is_number or value != int(value) or value < 3:
        raise errors.InputError(
            f"{folder / CONFIG}: model_max_length is {value!r}. Write a count of tokens"
            " above 2, or null."
        )
    return int(value)


def lowers_first(folder: Path) -> bool:
    """Says whether sentence-transformers lowers the text before this tokenizer.

    Raises:
      InputError: its file is broken.
    """
    for path in sorted(folder.glob(_SENTENCE_ENCODER)):
        if _flag(json_file.read_object(path), "do_lower_case", path):
            return True
    return False


def _object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one where the file is not there."""
    return json_file.read_object(path) if path.is_file() else {}


def _flag(config: dict[str, Any], name: str, path: Path) -> bool | None:
    """Returns one option that is true, false or not given."""
    value = config[name] if name in config else None
    if value is not None and not isinstance(value, bool):
        raise errors.InputError(
            f"{path}: {name} is {value!r}. Write true, false or null."
        )
    return value


def _rules(config: dict[str, Any], path: Path) -> wordpiece.Rules | None:
    """Returns whose rules a tokenizer_config.json asks for."""
    value = config["rules"] if "rules" in config else None
    known = get_args(wordpiece.Rules)
    if value not in (None, *known):
        raise errors.InputError(
            f"{path}: rules is {value!r}. Write one of {', '.join(known)}."
        )
    return value


def _class(config: dict[str, Any], folder: Path) -> str:
    """Returns the name of the tokenizer's class in `transformers`.

    Where the options do not name it, the model's config.json says what it is.
    """
    value = config["tokenizer_class"] if "tokenizer_class" in config else None
    if value is None and "rules" not in config:  # with them the options are ours
        model = _object(folder / MODEL)
        is_albert = "model_type" in model and model["model_type"] == "albert"
        return "AlbertTokenizer" if is_albert else ""
    return value if isinstance(value, str) else ""


def _named(tree: dict[str, Any], path: Path) -> dict[str, str]:
    """Returns the spellings that a file gives special pieces."""
    keys = {role: f"{role}_token" for role in special_pieces.SPELLINGS}
    given = {role: key for role, key in keys.items() if tree.get(key) is not None}
    return {role: _content(tree[key], key, path) for role, key in given.items()}


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
) -> list[pipelines.Tree]:
    """Returns added tokens: those of the newer key, or else of the older file."""
    if "added_tokens_decoder" in config:
        return _decoder(config["added_tokens_decoder"], folder / CONFIG)
    path = folder / ADDED_TOKENS
    special = _all_special(special_map | config)
    made = []
    for content, index in _object(path).items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise errors.InputError(
                f"{path}: the id of {content!r} is {index!r}. Write a whole number."
            )
        entry = special.get(content) or pipelines.added(content, index, special=False)
        made.append(entry | {"id": index})
    return sorted(made, key=lambda token: token["id"])


def _decoder(tree: Any, path: Path) -> list[pipelines.Tree]:
    """Reads `added_tokens_decoder`: id -> token."""
    made = []
    for key, token in tree.items() if isinstance(tree, dict) else [("", tree)]:
        if not _ID.fullmatch(key) or not isinstance(token, dict):
            raise errors.InputError(
                f"{path}: added_tokens_decoder holds {key[:80]!r}: {token!r}. Write"
                ' {"id": {"content": a string}}.'
            )
        content = _content(token, f"added_tokens_decoder {key}", path)
        made.append(
            _entry(token, content, int(key), token.get("special") is True, path)
        )
    return sorted(made, key=lambda token: token["id"])


def _entry(
    token: dict[str, Any], content: str, index: int, special: bool, path: Path
) -> pipelines.Tree:
    """Returns one added token with the flags that its object gives."""
    entry = pipelines.added(content, index, special=special)
    for name in ("single_word", "lstrip", "rstrip", "normalized"):
        value = token.get(name, entry[name])
        if not isinstance(value, bool):
            raise errors.InputError(
                f"{path}: {name} of the token {content!r} is {value!r}. Write true or"
                " false."
            )
        entry[name] = value
    return entry


def _all_special(tree: dict[str, Any]) -> dict[str, pipelines.Tree]:
    """Returns every spelling that a file calls special, as an entry with the id 0."""
    values = [value for key, value in tree.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = tree.get(key)
        listed = [*listed.values()] if isinstance(listed, dict) else listed
        values += listed if isinstance(listed, list) else []
    made = {}
    for value in values:
        token = {"content": value} if isinstance(value, str) else value
        content = token.get("content") if isinstance(token, dict) else None
        if isinstance(content, str) and content:
            made[content] = _entry(token, content, 0, True, Path(SPECIAL_TOKENS))
    return made
