"""Datasets of the Hugging Face hub by name: `hf:owner/name/config@revision[split]`.

The files of a split are found as on the hub: from `configs` in the front matter of
README.md, else from their names (data/train-00000-of-00002.parquet, train.csv, dev.tsv,
test/0.jsonl), else all are `train`. Only the files of the split are fetched. The names
of classes come from `dataset_info` there, or from the Parquet files themselves.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bert_jax import errors
from bert_jax.data import file_formats, text_files
from bert_jax.data.labeled import table_records
from bert_jax.foundation import files, hub

_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"hf:(?P<name>{_PART}(?:/{_PART})?)(?:/(?P<config>[\w.+-]+))?"
    r"(?:@(?P<revision>[^\s@\[\]#]+))?(?:\[(?P<split>[\w.-]+)\])?"
)


class HubDatasetName(NamedTuple):
    """A dataset, its configuration and its split; "" for those not given."""

    repo: hub.Repo
    config: str
    split: str

    def __str__(self) -> str:
        """Returns the name as a user writes it."""
        repo = self.repo
        config = f"/{self.config}" if self.config else ""
        revision = "" if repo.revision == "main" else f"@{repo.revision}"
        split = f"[{self.split}]" if self.split else ""
        return f"{hub.PREFIX}{repo.name}{config}{revision}{split}"


def parse(text: str) -> HubDatasetName:
    """Parses the name of a dataset; raises InputError for anything else.

    >>> str(parse("hf:nyu-mll/glue/sst2@v1[train]"))
    'hf:nyu-mll/glue/sst2@v1[train]'
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise hub.not_a_name(text, "dataset")
    repo = hub.Repo("dataset", match["name"], match["revision"] or "main")
    return HubDatasetName(repo, match["config"] or "", match["split"] or "")


def pinned(text: str, recorded: object = None) -> str:
    """Returns a name pinned to its commit; see `hub.pinned`."""
    if not hub.is_name(text):
        return text
    name = parse(text)
    if isinstance(recorded, str) and _NAME.fullmatch(recorded):
        before = parse(recorded)
        at = dataclasses.replace(name.repo, revision=before.repo.revision)
        same = hub.is_same_revision(name.repo, before.repo.revision)
        if same and name._replace(repo=at) == before:
            return recorded
    return str(name._replace(repo=hub.at_commit(name.repo)))


@dataclasses.dataclass(frozen=True)
class HubSplit:
    """The files of a split on this machine.

    Attributes:
      name: the name with the commit.
      features: the features of columns of classes, as in
        `file_formats.with_class_names`; {} if README.md describes none.
    """

    name: HubDatasetName
    files: tuple[text_files.NamedPath, ...]
    features: Mapping[str, Any]


def find(text: str) -> HubSplit:
    """Finds a split of a dataset, and fetches its files.

    A dataset of one split needs none in its name, and one of one configuration neither.

    Raises:
      InputError: there is no such dataset, configuration or split, or no file of a kind
        that is read.
      StorageError: the network or the disk failed.
    """
    name = parse(text)
    there = hub.listing(name.repo)
    head = _front_matter(name, there)
    config, patterns = _configuration(name, head, there.files)
    splits = _splits(patterns, there.files)
    split = _chosen(name, splits, there)
    home = hub.fetch(name.repo, there.commit, splits[split])
    files = tuple(text_files.NamedPath(file, home / file) for file in splits[split])
    at = dataclasses.replace(name.repo, revision=there.commit)
    return HubSplit(
        HubDatasetName(at, name.config, split), files, _features(head, config)
    )


def named(
    records: Iterable[table_records.TableRecord], split: HubSplit
) -> Iterator[table_records.TableRecord]:
    """Yields records with classes by their names."""
    for record in records:
        if not split.features or record.fault:
            yield record
            continue
        cells = {
            column: file_formats.with_class_names(
                value,
                split.features.get(column, {}),
                f"{record.where}: {column!r}",
            )
            for column, value in record.cells.items()
        }
        yield record._replace(cells=cells)


def kind_of(file: text_files.NamedPath) -> str:
    """Returns the kind of a file of a corpus by its name, as `sources.FILE_KINDS`."""
    suffix = _suffix(file.name)
    if suffix in (".csv", ".tsv"):
        return "csv"
    kinds = {".parquet": "parquet", ".txt": "text"}
    return kinds[suffix] if suffix in kinds else "jsonl"


_MAX_CARD = 4 << 20
_SUFFIXES = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt")
# Of a dataset, but not data.
_OTHERS = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
}
_SHARDED = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\.\w+")
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
Patterns = dict[str, list[str]]  # split -> patterns of files; {"": [...]} of all files


def _front_matter(name: HubDatasetName, there: hub.Listing) -> Mapping[str, Any]:
    """Returns the YAML at the head of README.md; {} where there is none."""
    if hub.CARD not in there.files:
        return {}
    path = hub.fetch(name.repo, there.commit, [hub.CARD]) / hub.CARD
    text = files.read(path, _MAX_CARD).decode("utf-8", "replace")
    match = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*$", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return {}
    import yaml  # huggingface_hub brings it

    try:
        tree = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.InputError(
            f"{path}: the front matter is not YAML ({reason}). Name a revision in "
            "which it is, or fetch the files and name them"
        ) from None
    return tree if isinstance(tree, dict) else {}


def _configuration(
    name: HubDatasetName, head: Mapping[str, Any], files: Iterable[str]
) -> tuple[str, Patterns]:
    """Returns the chosen configuration and its files."""
    listed = [x for x in _listed(head, "configs") if "config_name" in x]
    named = {str(x["config_name"]): x for x in listed}
    if not named:
        if not name.config:
            return "", {"": ["**"]}
        if not any(file.startswith(f"{name.config}/") for file in files):
            raise errors.InputError(
                f"{name} has no configuration {name.config!r}: it names none, and has "
                "no folder of that name. Leave it out"
            )
        return name.config, {"": [f"{name.config}/**"]}
    chosen = name.config
    if not chosen:
        marked = [key for key, x in named.items() if x.get("default") is True]
        usual = marked or [key for key in named if key == "default" or len(named) == 1]
        chosen = usual[0] if usual else ""
    if chosen not in named:
        raise errors.InputError(
            f"{name} has the configurations {', '.join(named)}: name one, as in "
            f"{hub.PREFIX}{name.repo.name}/{next(iter(named))}[train]"
        )
    return chosen, _patterns(named[chosen])


def _listed(head: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = head.get(key, [])
    value = value if isinstance(value, list) else [value]
    return [x for x in value if isinstance(x, dict)]


def _patterns(config: Mapping[str, Any]) -> Patterns:
    """Returns the file patterns of the splits of a configuration."""
    folder = str(config.get("data_dir") or "").strip("/")
    base = f"{folder}/" if folder else ""
    given = config.get("data_files")
    if given is None:
        return {"": [f"{base}**"]}
    if isinstance(given, dict):
        given = [{"split": key, "path": path} for key, path in given.items()]
    patterns: Patterns = {}
    for entry in given if isinstance(given, list) else [given]:
        is_split = isinstance(entry, dict) and "path" in entry
        paths = entry["path"] if is_split else entry
        split = str(entry.get("split", "train")) if is_split else "train"
        for path in paths if isinstance(paths, list) else [paths]:
            patterns.setdefault(split, []).append(base + str(path).removeprefix("./"))
    return patterns


def _splits(patterns: Patterns, files: Iterable[str]) -> dict[str, list[str]]:
    """Returns the files of each split, of the most frequent kind."""
    data = [file for file in files if _is_data(file)]
    found = {
        split: [x for x in data if any(_matches(pattern, x) for pattern in several)]
        for split, several in patterns.items()
    }
    if "" in found:
        found = _splits_by_name(found[""])
    kinds = Counter(_suffix(x) for several in found.values() for x in several)
    if not kinds:
        return {}
    first = max(kinds, key=lambda kind: (kinds[kind], -_SUFFIXES.index(kind)))
    kept = {
        split: sorted(x for x in several if _suffix(x) == first)
        for split, several in found.items()
    }
    return {split: several for split, several in kept.items() if several}


def _splits_by_name(files: list[str]) -> dict[str, list[str]]:
    """Sorts files into splits by their names, as the hub does.

    >>> _splits_by_name(["data/train-00000-of-00001.parquet", "other.parquet"])
    {'train': ['data/train-00000-of-00001.parquet']}
    >>> _splits_by_name(["en/dev.csv", "en/train.csv"])
    {'train': ['en/train.csv'], 'validation': ['en/dev.csv']}
    >>> _splits_by_name(["a.csv"])
    {'train': ['a.csv']}
    """
    sharded: dict[str, list[str]] = {}
    for file in files:
        match = _SHARDED.fullmatch(file)
        if match is not None:
            sharded.setdefault(match[1], []).append(file)
    if sharded:
        return sharded
    found = {}
    for split, keywords in _KEYWORDS.items():
        word = re.compile(rf"(?:^|[-._ 0-9/])(?:{'|'.join(keywords)})[-._ 0-9/]")
        several = [file for file in files if word.search(file)]
        if several:
            found[split] = several
    return found or ({"train": files} if files else {})


def _is_data(file: str) -> bool:
    parts = file.split("/")
    hidden = any(part.startswith((".", "__")) for part in parts)
    return not hidden and parts[-1] not in _OTHERS and _suffix(file) in _SUFFIXES


def _suffix(file: str) -> str:
    """Returns the suffix of a file without that of its compression."""
    name = file.lower().removesuffix(".gz").removesuffix(".bz2")
    return f".{name.rpartition('.')[2]}"


def _matches(pattern: str, file: str) -> bool:
    """Returns whether a pattern of the hub matches a file; `*` does not match "/".

    >>> _matches("data/train-*", "data/train-0.csv"), _matches("*.csv", "a/b.csv")
    (True, False)
    >>> _matches("**/*.csv", "b.csv"), _matches("en/**", "en/a/b.csv")
    (True, True)
    """
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = [
        x if re.fullmatch(r"\[[\w-]+\]", x) else known.get(x, re.escape(x))
        for x in pieces
    ]
    return re.fullmatch("".join(parts), file) is not None


def _chosen(
    name: HubDatasetName, splits: Mapping[str, list[str]], there: hub.Listing
) -> str:
    """Returns the chosen split."""
    if not splits:
        what = "has no Parquet, JSON, CSV or text file"
        if any(file.endswith(".py") for file in there.files):
            what += ", but a program that makes it, which is not run: try the revision "
            what += "refs/convert/parquet"
        raise errors.InputError(
            f"{name} {what}. Its files are {', '.join(there.files[:12]) or 'none'}"
        )
    if name.split in splits:
        return name.split
    usual = [x for x, keywords in _KEYWORDS.items() if name.split in keywords]
    if usual and usual[0] in splits:
        return usual[0]
    if not name.split and len(splits) == 1:
        return next(iter(splits))
    bare = name._replace(split="")
    what = f"has no split {name.split!r}, only" if name.split else "has the splits"
    raise errors.InputError(
        f"{bare} {what} {', '.join(splits)}: name one, as in "
        f"{bare}[{next(iter(splits))}]"
    )


def _features(head: Mapping[str, Any], config: str) -> dict[str, Any]:
    """Returns the features in `dataset_info` of a configuration."""
    infos = _listed(head, "dataset_info")
    names = (config, "default", "") if config else ("default", "")
    for wanted in names:
        for info in infos:
            if str(info.get("config_name", "")) == wanted or len(infos) == 1:
                return _fields(info.get("features"))
    return {}


def _fields(value: Any) -> dict[str, Any]:
    """Returns features by their names."""
    if not isinstance(value, list):
        return {}
    named = [x for x in value if isinstance(x, dict) and "name" in x]
    return {str(x["name"]): _feature(x) for x in named}


def _feature(value: Any) -> dict[str, Any]:
    """Returns a feature: `names` of a class, `feature` of a list, or fields.

    >>> _feature({"dtype": {"class_label": {"names": {"0": "neg", "1": "pos"}}}})
    {'names': ['neg', 'pos']}
    >>> _feature({"sequence": {"class_label": {"names": ["O", "B-PER"]}}})
    {'feature': {'names': ['O', 'B-PER']}}
    """
    if isinstance(value, list):
        return _fields(value)
    if not isinstance(value, dict):
        return {}
    for key in ("sequence", "list"):
        if key in value:
            return {"feature": _feature(value[key])}
    for key in ("dtype", "struct"):
        if key in value:
            return _feature(value[key])
    label = value.get("class_label")
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict):
        numbered = sorted(names, key=lambda key: (len(str(key)), str(key)))
        names = [names[key] for key in numbered]
    return {"names": [str(name) for name in names]} if isinstance(names, list) else {}
