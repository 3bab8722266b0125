"""Finds the vocabulary of a folder and its options: our folders and Hugging Face's.

A folder often has the same vocabulary twice. The first of these files is read:

1. vocab.txt: WordPiece. A tokenizer.json next to it must have the same tokens. If it
   describes another pipeline than BERT's, or added tokens that are matched in text, the
   tokenizer is the one that it describes.
2. spiece.model: SentencePiece. A tokenizer.json next to it takes precedence (ALBERT's
   differs in scores), unless our own export states that the model does.
3. tokenizer.json: WordPiece if it is BERT's, else whatever it describes.
4. vocab.json with merges.txt: RoBERTa's byte-level BPE. A tokenizer.json next to them
   must have the same tokens, and takes precedence.

What the caller does not override is taken from tokenizer_config.json, then from
tokenizer.json, then from the tokens. For BERT's pipeline tokenizer_config.json may
contradict tokenizer.json, as `transformers` allows; other pipelines are as
tokenizer.json describes them. If the folder is a sentence encoder's with do_lower_case,
text is lowercased first.
"""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from bert_jax import errors
from bert_jax.foundation import json_file
from bert_jax.text import files, pipelines, spiece
from bert_jax.text import options as tokenizer_options
from bert_jax.text import specials as special_tokens
from bert_jax.text.files import TokenizerJson
from bert_jax.text.options import TokenizerOptions
from bert_jax.text.pipelines import Rules, Tree
from bert_jax.text.specials import AddedToken, SpecialTokens

Kind = Literal["wordpiece", "sentencepiece", "tokenizer_json"]


class Vocabulary(NamedTuple):
    """What defines a tokenizer: the fields of `tokenizer.Tokenizer`, in its order."""

    kind: Kind
    tokens: tuple[str, ...]
    lowercase: bool
    strip_accents: bool
    model: bytes
    rules: Rules
    specials: SpecialTokens
    added: tuple[AddedToken, ...] = ()


@dataclasses.dataclass(frozen=True)
class Overrides:
    """What the caller decides; None for what the files decide."""

    lowercase: bool | None
    strip_accents: bool | None
    rules: Rules | None
    require_mask: bool


@dataclasses.dataclass(frozen=True)
class _Source:
    """A vocabulary's file, the options next to it, and the caller's overrides."""

    path: Path
    options: TokenizerOptions
    overrides: Overrides

    def specials(self, ids: dict[str, int]) -> SpecialTokens:
        """Finds the special tokens of the vocabulary."""
        return special_tokens.find(
            ids,
            self.options.named,
            str(self.path),
            require_mask=self.overrides.require_mask,
        )

    def with_overrides(self, **changes: None) -> "_Source":
        """Returns the source without the overrides that a pipeline already follows."""
        overrides = dataclasses.replace(self.overrides, **changes)
        return dataclasses.replace(self, overrides=overrides)


def read(path: Path, overrides: Overrides) -> Vocabulary:
    """Reads a vocabulary: that of a folder, or a file.

    Raises:
      InputError: there is none, it is broken, or two files contradict each other.
    """
    folder = path if path.is_dir() else path.parent
    vocabulary = _read(path, folder, overrides)
    if vocabulary.lowercase or not tokenizer_options.lowercases_first(folder):
        return vocabulary
    # Accents stay as they are: only BERT's own lowercasing strips them.
    model = vocabulary.model
    if vocabulary.kind == "tokenizer_json":
        tree = json_file.parse_object(model, str(path))
        model = pipelines.canonical(files.with_lowercase(tree))
    return vocabulary._replace(lowercase=True, model=model)


def _read(path: Path, folder: Path, overrides: Overrides) -> Vocabulary:
    name, found = _choose(path) if path.is_dir() else (path.name, None)
    path = folder / name
    source = _Source(path, tokenizer_options.read(folder), overrides)
    described = dataclasses.replace(source, path=folder / files.JSON)
    if name == files.BYTE_LEVEL:
        found = found or TokenizerJson(_byte_level(source), str(path))
        return _pipeline(found, source)
    if path.suffix == ".json":
        found = TokenizerJson(json_file.read_object(path), str(path))
        if _is_bert(found.tree):
            tokens = files.in_order(found.model_ids, str(path))
            return _wordpiece(tokens, found, source)
        return _pipeline(found, source)
    if path.suffix == ".model":
        if found is not None and source.options.rules is None:
            return _pipeline(found, described)
        return _sentencepiece(source)
    tokens = files.read_vocabulary(path)
    if found is not None and not _is_bert(found.tree):
        return _pipeline(found, described)
    return _wordpiece(tokens, found, source)


def _choose(folder: Path) -> tuple[str, TokenizerJson | None]:
    """Returns the file of a folder to read, and the tokenizer.json next to it."""
    candidates = (files.WORDPIECE, files.SENTENCEPIECE)
    names = [name for name in candidates if (folder / name).is_file()]
    if len(names) > 1:
        raise errors.InputError(
            f"{folder} has both vocab.txt and spiece.model. Give the path of one."
        )
    has_json = (folder / files.JSON).is_file()
    if not names and files.has_byte_level(folder):
        names = [files.BYTE_LEVEL]
    if not names and has_json:
        return files.JSON, None
    if not names:
        raise errors.InputError(
            f"{folder} has neither vocab.txt nor spiece.model, nor tokenizer.json,"
            " nor vocab.json with merges.txt. Give a folder with one of them, or the"
            " path of a vocabulary."
        )
    if not has_json:
        return names[0], None
    path = folder / files.JSON
    found = TokenizerJson(json_file.read_object(path), str(path))
    _check_same(folder / names[0], found)
    return names[0], found


def _check_same(path: Path, other: TokenizerJson) -> None:
    """Requires that a tokenizer.json has the tokens of the vocabulary next to it."""
    if path.name == files.BYTE_LEVEL:
        ours = json_file.read_object(path)
    elif path.name == files.WORDPIECE:
        ours = {token: i for i, token in enumerate(files.read_vocabulary(path))}
    else:
        ours = spiece.first_ids(spiece.tokens(files.read_bytes(path), str(path)))
    added = {t["content"]: t["id"] for t in other.added if t["content"] in ours}
    theirs = other.model_ids | added
    if ours != theirs:
        different = {*ours.items()} ^ {*theirs.items()}
        token, index = min(different, key=lambda pair: (pair[1], pair[0]))
        raise errors.InputError(
            f"{path} ({len(ours)} tokens) and {other.where} ({len(theirs)}) differ:"
            f" only one has {token!r} with id {index}. Remove the file"
            " that is not the model's."
        )


def _is_bert(tree: Tree) -> bool:
    """Returns whether a tokenizer.json is BertTokenizer's, whatever its options."""
    model, normalizer, pre_tokenizer = (
        tree[name] if isinstance(tree.get(name), dict) else {}
        for name in ("model", "normalizer", "pre_tokenizer")
    )
    limit = pipelines.CHARACTERS_PER_WORD["huggingface"]
    return (
        model.get("type") == "WordPiece"
        and model.get("continuing_subword_prefix") == "##"
        and model.get("max_input_chars_per_word") == limit
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("clean_text") is True
        and pre_tokenizer.get("type") == "BertPreTokenizer"
    )


def _byte_level(source: _Source) -> Tree:
    """Returns the pipeline that RobertaTokenizer builds from vocab.json and merges.txt.

    Raises:
      InputError: a file is missing or broken, or a special token is missing.
    """
    path, options = source.path, source.options
    ids = json_file.read_object(path)
    merges = files.read_merges(path.with_name(files.MERGES), ids)
    all_ids = files.with_added(ids, options.added, str(path))
    return pipelines.byte_level(
        ids,
        merges,
        special_tokens.find(all_ids, options.named, str(path), require_mask=False),
        add_prefix_space=options.flags["add_prefix_space"] is True,
        added=options.added,
    )


def _wordpiece(
    tokens: tuple[str, ...], found: TokenizerJson | None, source: _Source
) -> Vocabulary:
    """Returns WordPiece by BERT's rules, or the pipeline that the options describe."""
    path = str(source.path)
    normalizer = {} if found is None else found.tree["normalizer"]
    lowercase, strip_accents, split_chinese = _normalization(tokens, normalizer, source)
    ids = {token: index for index, token in enumerate(tokens)}
    added = source.options.all_added(ids, [] if found is None else found.added)
    all_ids = files.with_added(ids, added, path)
    specials = source.specials(all_ids)
    if found is not None:
        template = pipelines.rows_of_post_processor(
            found.tree.get("post_processor"), path, len(all_ids)
        )
        bert = pipelines.bert_rows(all_ids[specials.cls], all_ids[specials.sep])
        if template not in (None, bert):
            return _pipeline(found, source)
    if split_chinese and all(token.get("special") is True for token in added):
        return Vocabulary(
            "wordpiece",
            files.in_order(all_ids, path),
            lowercase,
            strip_accents,
            b"",
            source.overrides.rules or source.options.rules or "huggingface",
            specials,
            tuple(map(_added_token, _without_roles(added, specials))),
        )
    tree = pipelines.wordpiece(
        tokens,
        specials,
        lowercase=lowercase,
        strip_accents=strip_accents,
        split_chinese=split_chinese,
        added=added,
    )
    source = source.with_overrides(lowercase=None, strip_accents=None)
    return _pipeline(TokenizerJson(tree, path), source)


def _normalization(
    tokens: tuple[str, ...], normalizer: Tree, source: _Source
) -> tuple[bool, bool, bool]:
    """Returns lowercase, strip_accents and whether to split Chinese characters."""
    overrides, flags = source.overrides, source.options.flags
    lowercase = _first(
        overrides.lowercase,
        flags["do_lower_case"],
        normalizer.get("lowercase"),
        files.is_lowercase(tokens),
    )
    strip_accents = _first(
        overrides.strip_accents,
        flags["strip_accents"],
        normalizer.get("strip_accents"),
        lowercase,
    )
    split_chinese = _first(
        flags["tokenize_chinese_chars"], normalizer.get("handle_chinese_chars"), True
    )
    return lowercase, strip_accents, split_chinese


def _sentencepiece(source: _Source) -> Vocabulary:
    """Returns a SentencePiece model, which normalizes by itself.

    ALBERT's lowercase and strip accents first, unless the options decide otherwise.
    """
    path, options, overrides = source.path, source.options, source.overrides
    model = files.read_bytes(path)
    tokens = spiece.tokens(model, str(path))
    keep = options.flags["keep_accents"]
    is_albert = keep is not None or options.tokenizer_class.startswith("Albert")
    default: Rules = "huggingface" if is_albert else "google"
    rules = overrides.rules or options.rules or default
    albert = rules == "huggingface"
    lowercase = _first(overrides.lowercase, options.flags["do_lower_case"], albert)
    strip = (overrides.strip_accents, options.flags["strip_accents"])
    strip_accents = _first(*strip, albert if keep is None else not keep)
    if strip_accents and not albert:
        raise errors.InputError(
            f"{path}: strip_accents is for WordPiece and ALBERT. Other SentencePiece"
            " models normalize by their own rules: leave it unset."
        )
    ids = spiece.first_ids(tokens)
    specials = source.specials(ids)
    spiece.check_special_tokens(model, specials, str(path))
    added = _without_roles(options.all_added(ids, []), specials)
    if not added:
        return Vocabulary(
            "sentencepiece", tokens, lowercase, strip_accents, model, rules, specials
        )
    tree = pipelines.sentencepiece(  # the sentencepiece library has no added tokens
        model,
        specials,
        lowercase=lowercase,
        strip_accents=strip_accents,
        quotes=albert,
        added=added,
    )
    cleared = dict.fromkeys(("lowercase", "strip_accents", "rules"))
    found = TokenizerJson(tree, str(path))
    return _pipeline(found, source.with_overrides(**cleared))


def _pipeline(found: TokenizerJson, source: _Source) -> Vocabulary:
    """Returns the tokenizer that a tokenizer.json and its options describe."""
    path, overrides = source.path, source.overrides
    found = _with_options(found, source)
    lowercase, strip_accents = files.normalization(found.tree)
    for name, wanted, actual in (
        ("lowercase", overrides.lowercase, lowercase),
        ("strip_accents", overrides.strip_accents, strip_accents),
        ("rules", overrides.rules, "huggingface"),
    ):
        if wanted not in (None, actual):
            raise errors.InputError(
                f"{path}: {name} cannot be {wanted}, because the normalizer of this"
                f" tokenizer makes it {actual}. Leave it unset."
            )
    specials = source.specials(found.ids)
    pipelines.rows_of_post_processor(
        found.tree.get("post_processor"), str(path), len(found.tokens)
    )
    return Vocabulary(
        "tokenizer_json",
        found.tokens,
        lowercase,
        strip_accents,
        pipelines.canonical(found.tree),
        "huggingface",
        specials,
    )


def _with_options(found: TokenizerJson, source: _Source) -> TokenizerJson:
    """Adds the tokens that only the options name to a tokenizer.json."""
    added = source.options.all_added(found.ids, found.added)
    specials = source.specials(files.with_added(found.ids, added, str(source.path)))
    names = {token["content"] for token in found.added}
    missing = [
        token
        for token in _without_roles(added, specials)
        if token["content"] not in names
    ]
    if not missing:
        return found
    entries = sorted([*found.added, *missing], key=lambda token: token["id"])
    return TokenizerJson({**found.tree, "added_tokens": entries}, found.where)


def _without_roles(added: list[Tree], specials: SpecialTokens) -> list[Tree]:
    """Returns the added tokens that have no role, which are matched in text."""
    reserved = special_tokens.reserved(specials)
    return [token for token in added if token["content"] not in reserved]


def _added_token(entry: Tree) -> AddedToken:
    """Returns how a special token is matched, by its entry of `added_tokens`."""
    names = [field.name for field in dataclasses.fields(AddedToken)]
    return AddedToken(**{name: entry[name] for name in names if name in entry})


def _first(*values: bool | None) -> bool:
    """Returns the first value that is set."""
    return next(value for value in values if value is not None)
