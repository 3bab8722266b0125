"""Models and datasets of the Hugging Face hub by name: `hf:owner/name@revision`.

    folder = hub.folder("hf:google-bert/bert-base-chinese")   # in the hub's own cache

`huggingface_hub` sends every request: it resumes, retries, locks its cache, and knows
tokens. What is here chooses the files that are read, so that nothing else is fetched
(no weights of other frameworks, ONNX files, pictures or logs), and turns what can go
wrong into one message.

A run pins what it names: `hf:name` becomes `hf:name@<commit>` in its record, and the
resumed run reads that commit, whatever the hub has by then (`pinned`).
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from bert_jax import errors
from bert_jax.foundation import files

# Of a folder of a model, the small files that some reader opens; the tests compare
# this list with what the readers do open.
VOCABULARY = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "text_cleaning.json",
    "vocab.txt",
    "tokenizer.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    # Of sentence-transformers, where older versions name it by the model: lower text.
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_albert_config.json",
)
SMALL = (
    *VOCABULARY,
    "model.json",
    "task.json",
    "bert_config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
# In the order in which one is preferred; of TensorFlow 1, all files of the checkpoint.
_WEIGHTS = (
    "parameters.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TENSORFLOW1 = re.compile(r".*\.ckpt(-\d+)?\.(index|data-\d{5}-of-\d{5})")
_MODULE = re.compile(r"\d+_\w+")  # of sentence-transformers, as 0_Transformer

PREFIX = "hf:"
CARD = "README.md"
COMMIT = re.compile("[0-9a-f]{40}")
Kind = Literal["model", "dataset"]

_NAME = r"[A-Za-z0-9][\w.-]*"
_MODEL = re.compile(
    rf"hf:(?P<name>{_NAME}(?:/{_NAME})?)(?:@(?P<revision>[^\s@\[\]#]+))?"
)
_URL = re.compile(rf"huggingface\.co/+(?P<name>{_NAME}/{_NAME})")
_FILES = (".txt", ".model", ".json", ".safetensors", ".bin", ".ckpt", ".index")
_EXAMPLES = {
    "model": "hf:google-bert/bert-base-chinese, or hf:owner/name@revision",
    "dataset": "hf:owner/name[train], hf:owner/name/config[train] or "
    "hf:owner/name@revision[train]",
}


@dataclasses.dataclass(frozen=True)
class Repo:
    """A repository of the hub at a revision.

    Attributes:
      name: `owner/name`, or a bare name.
      revision: a commit, branch or tag.
    """

    kind: Kind
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        """Returns how the repository is written for a user."""
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.name}{revision}"

    @property
    def cache(self) -> Path:
        """The folder of the repository in the cache, as the hub documents it."""
        return _cache() / f"{self.kind}s--{self.name.replace('/', '--')}"

    @property
    def page(self) -> str:
        """The URL of its page."""
        return f"{_host()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit; offline, those of the cache."""

    commit: str
    files: tuple[str, ...]


def is_name(text: str | Path) -> bool:
    """Returns whether a path is a name of the hub.

    >>> is_name("hf:bert-base-chinese"), is_name(Path("runs/demo"))
    (True, False)
    """
    return str(text).startswith(PREFIX)


def is_cached(folder: Path) -> bool:
    """Returns whether a folder is a commit in a cache of the hub.

    >>> is_cached(Path("hub/models--owner--tiny/snapshots") / ("0" * 40))
    True
    """
    is_commit = COMMIT.fullmatch(folder.name) is not None
    return is_commit and folder.parent.name == "snapshots"


def parse(text: str | Path) -> Repo:
    """Reads the name of a model; raises InputError for anything else.

    >>> parse("hf:owner/name@v1.0")
    Repo(kind='model', name='owner/name', revision='v1.0')
    """
    match = _MODEL.fullmatch(str(text))
    if match is None:
        raise not_a_name(str(text), "model")
    return Repo("model", match["name"], match["revision"] or "main")


def not_a_name(text: str, kind: Kind) -> errors.InputError:
    """Returns the error for a text that is not a name on the hub."""
    return errors.InputError(
        f"{text!r} is not the name of a {kind} on the Hugging Face hub: write "
        f"{_EXAMPLES[kind]}"
    )


def refuse_as_lines(path: str) -> None:
    """Raises InputError for a name of the hub where a file of lines is read."""
    if is_name(path):
        raise errors.InputError(
            f"{path}: datasets of the hub are for the task of a fine-tuned model; give "
            "a file with one text a line"
        )


def suggestion(path: str | Path) -> str:
    """Returns how a model that is not at a path is named on the hub, for a message.

    >>> suggestion("bert-base-chinese")
    'hf:bert-base-chinese to fetch it from the Hugging Face hub'
    """
    text = str(path)
    found = _URL.search(text)
    if found is None and Path(text).suffix not in _FILES:
        found = _MODEL.fullmatch(f"{PREFIX}{text}")
    name = found["name"] if found is not None else "owner/name"
    return f"{PREFIX}{name} to fetch it from the Hugging Face hub"


def pinned(text: str, recorded: object = None) -> str:
    """Returns a name pinned to its commit; other texts unchanged.

    Args:
      recorded: what the run that is resumed has under the same key. Its commit is
        taken, without a request, if the name is of the same model and asks for none,
        or for that one.

    Raises:
      InputError: the model or the revision does not exist.
      StorageError: the network failed.
    """
    if not is_name(text):
        return text
    repo = parse(text)
    if isinstance(recorded, str) and _MODEL.fullmatch(recorded):
        before = parse(recorded)
        if before.name == repo.name and is_same_revision(repo, before.revision):
            return recorded
    return str(at_commit(repo))


def at_commit(repo: Repo) -> Repo:
    """Returns a repository at the commit that its revision is now.

    Raises InputError and StorageError as `folder`.
    """
    if COMMIT.fullmatch(repo.revision):
        return repo
    return dataclasses.replace(repo, revision=listing(repo).commit)


def is_same_revision(repo: Repo, commit: str) -> bool:
    """Returns whether a recorded commit answers what is asked, without a request."""
    if COMMIT.fullmatch(commit) is None:
        return False
    is_part = re.fullmatch("[0-9a-f]{7,40}", repo.revision) is not None
    return repo.revision == "main" or (is_part and commit.startswith(repo.revision))


def folder(
    path: str | Path, *, vocabulary_only: bool = False, with_card: bool = False
) -> Path:
    """Returns the folder of a model: that of a name in the cache, fetched if need be.

    Of other paths `~` is expanded.

    Args:
      vocabulary_only: fetch no weights.
      with_card: fetch README.md too, which has language and license.

    Raises:
      InputError: the model or the revision does not exist, access is denied, it has no
        file that we read, or huggingface_hub is not installed.
      StorageError: the network or the disk failed.
    """
    if not is_name(path):
        return Path(os.path.expanduser(path))
    repo = parse(path)
    there = listing(repo)
    small = _small_files(there.files, VOCABULARY if vocabulary_only else SMALL)
    weights = [] if vocabulary_only else _weight_files(there.files)
    if not (small if vocabulary_only else weights):
        what = "vocabulary" if vocabulary_only else "weights that can be read"
        raise errors.InputError(
            f"{repo} has no {what}; its files at {there.commit[:8]}: "
            f"{', '.join(there.files[:12]) or 'none'}.{_offline_hint()}"
        )
    card = [CARD] if with_card and CARD in there.files else []
    # Weights come last: if they are complete, so is everything needed to read them.
    home = fetch(repo, there.commit, [*small, *card, *weights])
    for name in weights:
        if name.endswith(".index.json"):
            fetch(repo, there.commit, _shard_files(home, name, there.files))
    return home


def _small_files(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    """Returns the small files that are read: of the root, and of the modules.

    >>> names = ["config.json", "1_Pooling/config.json", "onnx/config.json"]
    >>> _small_files(names, SMALL)
    ['config.json', '1_Pooling/config.json']
    """
    return [x for x in names if _base(x) in wanted and _is_read(_folder(x))]


def _weight_files(names: Iterable[str]) -> list[str]:
    """Returns the files of weights that are read, in each folder the first kind.

    >>> _weight_files(["model.safetensors", "model.onnx", "2_Dense/model.safetensors"])
    ['model.safetensors', '2_Dense/model.safetensors']
    """
    folders: dict[str, dict[str, str]] = {}
    for name in names:
        if _is_read(_folder(name)):
            folders.setdefault(_folder(name), {})[_base(name)] = name
    chosen = []
    for _, by_base in sorted(folders.items()):
        first = next((by_base[x] for x in _WEIGHTS if x in by_base), None)
        if first is not None:
            chosen.append(first)
        elif "bert_config.json" in by_base:
            chosen += sorted(by_base[x] for x in by_base if _TENSORFLOW1.fullmatch(x))
    return chosen


def _shard_files(home: Path, index: str, names: tuple[str, ...]) -> list[str]:
    """Returns the files that an index names and the repository has.

    What else the index names is refused where it is read.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        named = set(json.loads((home / index).read_bytes())["weight_map"].values())
        return [x for x in names if _folder(x) == _folder(index) and _base(x) in named]
    return []


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _is_read(folder: str) -> bool:
    return folder == "" or _MODULE.fullmatch(folder) is not None


def fetch(repo: Repo, commit: str, names: Iterable[str]) -> Path:
    """Returns the folder of a commit in the cache, with these files in it.

    Raises InputError and StorageError as `folder`.
    """
    home = repo.cache / "snapshots" / commit
    for name in names:
        if (home / name).exists():
            continue
        if is_offline():
            raise errors.InputError(
                f"{repo}: {name} is not in the cache ({home}).{_offline_hint()}"
            )
        with _asking(repo, f"{repo} ({name})"):
            _library().hf_hub_download(
                repo.name,
                name,
                repo_type=repo.kind,
                revision=commit,
                cache_dir=_cache(),
                endpoint=_endpoint(),
            )
    return home


def listing(repo: Repo) -> Listing:
    """Returns the commit and the files of a revision, by one request.

    A commit is asked for once a process: it does not change. Offline the files are
    those of the cache, without a request.

    Raises InputError and StorageError as `folder`.
    """
    library = _library()
    if is_offline():
        return _cached_listing(repo)
    if (_host(), repo) in _LISTED:
        return _LISTED[_host(), repo]
    with _asking(repo, str(repo)):
        found = library.HfApi(endpoint=_endpoint()).repo_info(
            repo.name,
            repo_type=repo.kind,
            revision=repo.revision,
            timeout=library.constants.HF_HUB_ETAG_TIMEOUT,
        )
    if not found.sha or COMMIT.fullmatch(found.sha) is None:
        raise errors.StorageError(
            f"{repo}: the answer of {_host()} has no commit: check HF_ENDPOINT"
        )
    names = sorted(x.rfilename for x in found.siblings or ())
    inside = [x for x in names if not x.startswith("/") and ".." not in x.split("/")]
    listed = Listing(found.sha, tuple(inside))
    _LISTED[_host(), dataclasses.replace(repo, revision=found.sha)] = listed
    _keep_ref(repo, found.sha)
    return listed


_LISTED: dict[tuple[str, Repo], Listing] = {}  # of commits


def _keep_ref(repo: Repo, commit: str) -> None:
    """Writes which commit a branch is into the cache, where it is read offline.

    As the hub's own tools do. A cache that cannot be written is left as it is.
    """
    ref = repo.cache / "refs" / repo.revision
    if repo.revision != commit and ".." not in ref.parts:
        with contextlib.suppress(OSError):
            ref.parent.mkdir(parents=True, exist_ok=True)
            files.replace(ref, commit.encode())


def _cached_listing(repo: Repo) -> Listing:
    """Returns what the cache has of a revision."""
    ref = repo.cache / "refs" / repo.revision
    commit = ref.read_text("utf-8").strip() if ref.is_file() else repo.revision
    home = repo.cache / "snapshots" / commit
    if COMMIT.fullmatch(commit) is None or not home.is_dir():
        raise errors.InputError(
            f"{repo} is not in the cache ({repo.cache}).{_offline_hint()}"
        )
    names = [x.relative_to(home).as_posix() for x in home.rglob("*") if x.is_file()]
    return Listing(commit, tuple(sorted(names)))


def _library() -> Any:
    """Imports huggingface_hub; raises InputError that names the extra."""
    try:
        import huggingface_hub
        import huggingface_hub.constants  # its own loader does not know the name
    except ImportError as error:
        if error.name != "huggingface_hub":
            raise
        raise errors.missing_extra("huggingface_hub", "hub") from None
    return huggingface_hub


# The library reads its variables when it is imported. In a notebook that happens long
# before a mirror is set, so they are read here when they are used.
def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or None


def _host() -> str:
    return _endpoint() or _library().constants.ENDPOINT


def _cache() -> Path:
    """Returns the folder of the hub's cache."""
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
    for name, inner in zip(names, ("", "", "hub"), strict=True):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser() / inner
    return Path(_library().constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE forbids every request."""
    return any(
        os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _offline_hint() -> str:
    if not is_offline():
        return ""
    return (
        " HF_HUB_OFFLINE is set: unset it once, with a network, or copy the cache of a "
        "machine that has the files"
    )


@contextlib.contextmanager
def _asking(repo: Repo, what: str) -> Iterator[None]:
    """Turns what a request for a repository or a file of it can raise into one error.

    Raises:
      InputError: the hub refuses (401, 403, 404).
      StorageError: it cannot answer now (429, 5xx), nothing came whole, or the disk
        failed.
    """
    try:
        yield
    except errors.BertJaxError:  # a signal that stops the run
        raise
    except Exception as error:
        raised = _of_answer(error, repo, what) or _of_failure(error, repo, what)
        if raised is None:
            raise
        raise raised from None


def _of_answer(error: Exception, repo: Repo, what: str) -> errors.BertJaxError | None:
    """Returns the error for an answer of the hub that is a refusal."""
    refusals = [x for x in _chain(error) if getattr(x, "response", None) is not None]
    if not refusals:
        return None
    response: Any = getattr(refusals[0], "response")  # noqa: B009
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    answered = f"{what}: {_host()} answered {status}"
    log_in = "log in (hf auth login) or set HF_TOKEN"
    if code == "GatedRepo" or status == 403:
        return errors.InputError(
            f"{answered}: accept its conditions on {repo.page}, then {log_in}"
        )
    if code == "RevisionNotFound":
        return errors.InputError(
            f"{answered}: no such revision: see {repo.page}/commits/main"
        )
    if status in (401, 404):
        return errors.InputError(
            f"{answered}: it is not on the Hugging Face hub, or private: check owner "
            f"and name on {repo.page}; if it is private, {log_in}"
        )
    fix = f"start again later, or set HF_ENDPOINT to a mirror.{_cache_hint(repo)}"
    if status == 429:
        fix = f"start again in some minutes, or {log_in}, which allows more requests"
    return errors.StorageError(f"{answered}: {fix}")


# The library sends its requests through `requests` (0.x), httpx (1.x) or httpx2 (2.x)
# and lets their errors through.
_NETWORK = re.compile(r"(requests|urllib3|httpx\d?|httpcore\d?|h11|hf_xet|ssl)\b")


def _of_failure(error: Exception, repo: Repo, what: str) -> errors.StorageError | None:
    """Returns the error for a cache that cannot be written, or for no whole answer."""
    chain = [*_chain(error)]
    for found in chain:
        if isinstance(found, OSError) and found.errno and found.filename:
            return errors.StorageError(
                f"{what}: {found.filename}: {found.strerror}. HF_HOME or HF_HUB_CACHE "
                "sets where the cache is"
            )
    if not any(
        isinstance(x, OSError) or _NETWORK.match(type(x).__module__) for x in chain
    ):
        return None
    lines = [f"{type(x).__name__}: {x}".splitlines()[0] for x in chain if str(x)]
    return errors.StorageError(
        f"{what} could not be fetched from {_host()} ({(lines or ['no answer'])[-1]}). "
        "Check the network and start again: files that are whole are kept. HF_ENDPOINT "
        f"sets a mirror.{_cache_hint(repo)}"
    )


def _cache_hint(repo: Repo) -> str:
    if not (repo.cache / "refs" / repo.revision).is_file():
        return ""
    return " HF_HUB_OFFLINE=1 uses what the cache has of it"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
