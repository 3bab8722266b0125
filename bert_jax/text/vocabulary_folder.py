"""Finds the vocabulary in a folder and how its text is cut: ours, or Hugging Face's.

A folder often holds the same vocabulary twice. Of its files the first here is read:

1. vocab.txt: WordPiece. A tokenizer.json beside it must hold the same pieces. If it
   describes another pipeline than BERT's, or added tokens that text may spell, the
   tokenizer is the one that it describes.
2. spiece.model: SentencePiece. With a tokenizer.json beside it, that one is taken
   (ALBERT's own differs in scores), unless our own export says that the model holds.
3. tokenizer.json: WordPiece if it is BERT's, else whatever it describes.
4. vocab.json with merges.txt: RoBERTa's byte-level BPE. A tokenizer.json beside them
   must hold the same pieces, and is taken.

What nobody asks for is taken from tokenizer_config.json, then from tokenizer.json,
then from the pieces. There tokenizer_config.json may contradict tokenizer.json, as
`transformers` allows; other pipelines than BERT's are as tokenizer.json says alone.
Where a sentence encoder says do_lower_case, text is lowered before all that.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bert_jax import errors, json_file
from bert_jax.text import (
    byte_level_files,
    folder_options,
    pipelines,
    rows,
    special_pieces,
    spiece,
    tokenizer_json,
    vocabulary_file,
    wordpiece,
)

Kind = Literal["wordpiece", "sentencepiece", "tokenizer_json"]

WORDPIECE, SENTENCEPIECE, JSON = "vocab.txt", "spiece.model", "tokenizer.json"


class Found(NamedTuple):
    """What makes a tokenizer: the fields of `tokenizer.Tokenizer`, in its order."""

    kind: Kind
    tokens: tuple[str, ...]
    lowercase: bool
    strip_accents: bool
    model: bytes
    rules: wordpiece.Rules
    specials: special_pieces.Specials
    added: tuple[special_pieces.Added, ...] = ()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the caller asks for; None for what the files decide."""

    lowercase: bool | None
    strip_accents: bool | None
    rules: wordpiece.Rules | None
    require_mask: bool


def read(path: Path, asked: Asked) -> Found:
    """Reads a vocabulary: a folder's, or the given file.

    Raises:
      InputError: there is none, it is broken, or two files contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    found = _read(path, folder, asked)
    if found.lowercase or not folder_options.lowers_first(folder):
        return found
    # Accents stay as they are: only BERT's own lower case strips them.
    model = found.model
    if found.kind == "tokenizer_json":
        model = tokenizer_json.lowered(json_file.parse_object(model, str(path)))
    return found._replace(lowercase=True, model=model)


def _read(path: Path, folder: Path, asked: Asked) -> Found:
    name, tree = _choose(path) if path.is_dir() else (path.name, None)
    path = folder / name
    options = folder_options.read(folder)
    if name == byte_level_files.VOCABULARY:
        if tree is None:
            tree = byte_level_files.read(folder, options)
        return _described(tree, path, options, asked)
    if path.suffix == ".json":
        tree = json_file.read_object(path)
        if _is_bert(tree):
            return _wordpiece(path, _pieces_of_bert(tree, path), tree, options, asked)
        return _described(tree, path, options, asked)
    if path.suffix == ".model":
        if tree is not None and options.rules is None:
            return _described(tree, folder / JSON, options, asked)
        return _sentencepiece(path, options, asked)
    tokens = vocabulary_file.read(path)
    if tree is not None and not _is_bert(tree):
        return _described(tree, folder / JSON, options, asked)
    return _wordpiece(path, tokens, tree, options, asked)


def _choose(folder: Path) -> tuple[str, dict[str, Any] | None]:
    """Returns the file of a folder to read, and the tokenizer.json beside it."""
    there = [name for name in (WORDPIECE, SENTENCEPIECE) if (folder / name).is_file()]
    if len(there) > 1:
        raise errors.InputError(
            f"{folder} holds both vocab.txt and spiece.model. Give the path of one."
        )
    beside = (folder / JSON).is_file()
    if not there and byte_level_files.are_in(folder):
        there = [byte_level_files.VOCABULARY]
    if not there and beside:
        return JSON, None
    if not there:
        raise errors.InputError(
            f"{folder} holds neither vocab.txt nor spiece.model, nor tokenizer.json,"
            " nor vocab.json with merges.txt. Give a folder with one of them, or the"
            " path of a vocabulary."
        )
    tree = json_file.read_object(folder / JSON) if beside else None
    if tree is not None:
        _check_same(folder / there[0], tree)
    return there[0], tree


def _check_same(path: Path, tree: dict[str, Any]) -> None:
    """Refuses a tokenizer.json with other pieces than the vocabulary beside it."""
    other = path.with_name(JSON)
    tokenizer_json.pieces(tree, str(other))
    theirs = tokenizer_json.model_ids(tree, str(other))
    if path.name == byte_level_files.VOCABULARY:
        ours = byte_level_files.ids(path)
    elif path.name == WORDPIECE:
        ours = {token: i for i, token in enumerate(vocabulary_file.read(path))}
    else:
        ours = spiece.first_ids(spiece.pieces(spiece.read(path)))
    added = tokenizer_json.added_tokens(tree, str(other))
    theirs |= {t["content"]: t["id"] for t in added if t["content"] in ours}
    if ours != theirs:
        differ = {*ours.items()} ^ {*theirs.items()}
        token, index = min(differ, key=lambda pair: (pair[1], pair[0]))
        raise errors.InputError(
            f"{path} ({len(ours)} pieces) and {other} ({len(theirs)}) hold different"
            f" vocabularies: only one has {token!r} with id {index}. Remove the file"
            " that is not the model's."
        )


def _is_bert(tree: dict[str, Any]) -> bool:
    """Says whether a tokenizer.json is BertTokenizer's but for its options."""
    model, normalizer, words = (
        tree[name] if isinstance(tree.get(name), dict) else {}
        for name in ("model", "normalizer", "pre_tokenizer")
    )
    model_is = {
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": wordpiece.HUGGING_FACE_CHARACTERS_PER_WORD,
    }
    return (
        model.get("type") == "WordPiece"
        and all(model.get(key) == value for key, value in model_is.items())
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and words.get("type") == "BertPreTokenizer"
    )


def _pieces_of_bert(tree: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Returns the pieces of BertTokenizer's model, without added tokens."""
    tokenizer_json.pieces(tree, str(path))
    return tokenizer_json.in_order(tokenizer_json.model_ids(tree, str(path)), str(path))


def _wordpiece(
    path: Path,
    tokens: tuple[str, ...],
    tree: dict[str, Any] | None,
    options: folder_options.Options,
    asked: Asked,
) -> Found:
    """Returns WordPiece by BERT's rules, or the pipeline that the options describe."""
    normalizer = {} if tree is None else tree["normalizer"]
    lowered = _first(
        asked.lowercase,
        options.flags["do_lower_case"],
        normalizer.get("lowercase"),
        vocabulary_file.is_lowercase(tokens),
    )
    stripped = _first(
        asked.strip_accents,
        options.flags["strip_accents"],
        normalizer.get("strip_accents"),
        lowered,
    )
    chinese = _first(
        options.flags["tokenize_chinese_chars"],
        normalizer.get("handle_chinese_chars"),
        True,
    )
    ids = {token: index for index, token in enumerate(tokens)}
    known = [] if tree is None else tokenizer_json.added_tokens(tree, str(path))
    added = options.added_to(ids, known)
    whole = tokenizer_json.with_added(ids, added, str(path))
    specials = _specials(whole, path, options, asked)
    made = None if tree is None else tokenizer_json.rows_of(tree, str(path), len(whole))
    if made not in (None, rows.bert(whole[specials.cls], whole[specials.sep])):
        return _described(tree or {}, path, options, asked)
    further = _without_roles(added, specials)
    if chinese and all(token.get("special") is True for token in added):
        tokens = tokenizer_json.in_order(whole, str(path))
        whose = asked.rules or options.rules or "huggingface"
        more = tuple(map(_matched, further))
        return Found("wordpiece", tokens, lowered, stripped, b"", whose, specials, more)
    built = pipelines.wordpiece(
        tokens,
        specials,
        lowercase=lowered,
        strip_accents=stripped,
        parts_chinese=chinese,
        more=added,
    )
    kept = dataclasses.replace(asked, lowercase=None, strip_accents=None)
    return _described(built, path, options, kept)


def _sentencepiece(path: Path, options: folder_options.Options, asked: Asked) -> Found:
    """Returns a SentencePiece model; it normalises by itself unless told more.

    ALBERT's lower case and strip accents beforehand if nobody says otherwise.
    """
    content = spiece.read(path)
    tokens = spiece.pieces(content)
    keep = options.flags["keep_accents"]
    is_albert = keep is not None or options.tokenizer_class.startswith("Albert")
    default: wordpiece.Rules = "huggingface" if is_albert else "google"
    rules = asked.rules or options.rules or default
    albert = rules == "huggingface"
    lowered = _first(asked.lowercase, options.flags["do_lower_case"], albert)
    strip = (asked.strip_accents, options.flags["strip_accents"])
    stripped = _first(*strip, albert if keep is None else not keep)
    if stripped and not albert:
        raise errors.InputError(
            f"{path}: strip_accents is for WordPiece and ALBERT. Another SentencePiece"
            " model normalises by its own rule: leave it unset."
        )
    ids = spiece.first_ids(tokens)
    specials = _specials(ids, path, options, asked)
    spiece.check(content, specials, str(path))
    added = _without_roles(options.added_to(ids, []), specials)
    if added:  # which the library of SentencePiece does not know
        built = pipelines.sentencepiece(
            content,
            specials,
            lowercase=lowered,
            strip_accents=stripped,
            quotes=albert,
            more=added,
        )
        kept = dataclasses.replace(
            asked, lowercase=None, strip_accents=None, rules=None
        )
        return _described(built, path, options, kept)
    return Found("sentencepiece", tokens, lowered, stripped, content, rules, specials)


def _described(
    tree: dict[str, Any], path: Path, options: folder_options.Options, asked: Asked
) -> Found:
    """Returns the tokenizer that a tokenizer.json describes, and its options add to."""
    tree = _with_options(tree, path, options, asked)
    tokens = tokenizer_json.pieces(tree, str(path))
    lowered, stripped = tokenizer_json.lowers(tree)
    for name, wanted, there in (
        ("lowercase", asked.lowercase, lowered),
        ("strip_accents", asked.strip_accents, stripped),
        ("rules", asked.rules, "huggingface"),
    ):
        if wanted not in (None, there):
            raise errors.InputError(
                f"{path}: {name} is asked to be {wanted}, and this tokenizer's own"
                f" normalizer makes it {there}. Leave it unset."
            )
    ids = {token: index for index, token in enumerate(tokens)}
    specials = _specials(ids, path, options, asked)
    tokenizer_json.rows_of(tree, str(path), len(tokens))
    content = tokenizer_json.canonical(tree)
    rules: wordpiece.Rules = "huggingface"
    return Found("tokenizer_json", tokens, lowered, stripped, content, rules, specials)


def _with_options(
    tree: dict[str, Any], path: Path, options: folder_options.Options, asked: Asked
) -> dict[str, Any]:
    """Adds the tokens that only the options name to a tokenizer.json."""
    known = tokenizer_json.added_tokens(tree, str(path))
    ids = tokenizer_json.model_ids(tree, str(path))
    ids = tokenizer_json.with_added(ids, known, str(path))
    every = options.added_to(ids, known)
    whole = tokenizer_json.with_added(ids, every, str(path))
    specials = _specials(whole, path, options, asked)
    there = {token["content"] for token in known}
    lacking = [t for t in _without_roles(every, specials) if t["content"] not in there]
    if not lacking:
        return tree
    made = sorted([*known, *lacking], key=lambda token: token["id"])
    return {**tree, "added_tokens": made}


def _without_roles(
    added: list[pipelines.Tree], specials: special_pieces.Specials
) -> list[pipelines.Tree]:
    """Returns the added tokens that are not special pieces, which no text spells."""
    roles = special_pieces.spellings(specials)
    return [token for token in added if token["content"] not in roles]


def _matched(token: pipelines.Tree) -> special_pieces.Added:
    """Returns how a special token is found, by its entry of `added_tokens`."""
    names = [field.name for field in dataclasses.fields(special_pieces.Added)]
    return special_pieces.Added(**{x: token[x] for x in names if x in token})


def _specials(
    ids: dict[str, int], path: Path, options: folder_options.Options, asked: Asked
) -> special_pieces.Specials:
    """Finds the special pieces of a vocabulary."""
    return special_pieces.find(
        ids, options.named, str(path), require_mask=asked.require_mask
    )


def _first(*values: bool | None) -> bool:
    """Returns the first value that is given."""
    return next(value for value in values if value is not None)
