"""The JSON files next to a vocabulary: options, special tokens, added tokens.

tokenizer_config.json, special_tokens_map.json and added_tokens.json, as Hugging Face
and `Tokenizer.save` write them. Keys that do not change ids are ignored.
"""

import dataclasses
from pathlib import Path
from typing import Any

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
    for name in _FLAGS:
        if not isinstance(config.get(name), bool | None):
            raise errors.InputError(
                f"{path}: {name} is {config[name]!r}. Write true, false or null."
            )
    try:
        named, of_config = _named(special), _named(config)
        options = TokenizerOptions(
            path,
            {name: config.get(name) for name in _FLAGS},
            config.get("rules"),
            _class(config, folder),
            named | of_config,
            _added(config, special, folder),
            [*_all_special(special | config).values()],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.InputError(
            f"{path} or a file next to it cannot be used ({error!r}). Save the "
            "tokenizer again."
        ) from None
    for role in named.keys() & of_config.keys():
        if named[role] != of_config[role]:
            raise errors.InputError(
                f"{path}: {role}_token is {of_config[role]!r}, and {named[role]!r} in"
                f" {SPECIAL_TOKENS} next to it. Correct one of them."
            )
    return options


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
        if json_file.read_object(path).get("do_lower_case"):
            return True
    return False


def _object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; an empty one if the file does not exist."""
    return json_file.read_object(path) if path.is_file() else {}


def _class(config: dict[str, Any], folder: Path) -> str:
    """Returns the name of the tokenizer's class in `transformers`.

    If the options do not name it, the model_type of config.json decides.
    """
    value = config.get("tokenizer_class")
    if value is None and "rules" not in config:  # the options that have rules are ours
        is_albert = _object(folder / MODEL).get("model_type") == "albert"
        return "AlbertTokenizer" if is_albert else ""
    return value or ""


def _named(tree: dict[str, Any]) -> dict[str, str]:
    """Returns the spellings of the special tokens that a file names."""
    tokens = {role: tree.get(f"{role}_token") for role in specials.SPELLINGS}
    return {role: _content(token) for role, token in tokens.items() if token}


def _content(token: Any) -> str:
    """Returns the spelling of a token: a string, or an object with "content"."""
    return token["content"] if isinstance(token, dict) else token


def _added(
    config: dict[str, Any], special_map: dict[str, Any], folder: Path
) -> list[Tree]:
    """Returns added tokens: those of the newer key, or else of the older file."""
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        entries = [
            _entry(token, int(index), token.get("special") is True)
            for index, token in decoder.items()
        ]
    else:
        special = _all_special(special_map | config)
        entries = [
            special.get(content, pipelines.added_token(content, index, special=False))
            | {"id": index}
            for content, index in _object(folder / ADDED_TOKENS).items()
        ]
    return sorted(entries, key=lambda token: token["id"])


def _entry(token: Any, index: int, special: bool) -> Tree:
    """Returns one added token with the flags of its object."""
    entry = pipelines.added_token(_content(token), index, special=special)
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    given = token if isinstance(token, dict) else {}
    return entry | {name: given[name] for name in flags if name in given}


def _all_special(tree: dict[str, Any]) -> dict[str, Tree]:
    """Returns every token that a file calls special, as an entry with the id 0."""
    values = [value for key, value in tree.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = tree.get(key) or []
        values += listed.values() if isinstance(listed, dict) else listed
    # Other keys that end like this have options, such as add_bos_token.
    tokens = [x for x in values if isinstance(x, dict | str) and x]
    return {_content(token): _entry(token, 0, True) for token in tokens}
