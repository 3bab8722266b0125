"""Models and datasets of the Hugging Face hub by name: `hf:owner/name@revision`.

    folder = hub.folder("hf:google-bert/bert-base-chinese")   # in the hub's own cache

`huggingface_hub` sends every request: it resumes, retries, locks its cache, and knows
tokens. What is here chooses the files that are read, so that nothing else is fetched,
and turns what can go wrong into one message: it sends its requests through `requests`
(0.x), httpx (1.x) or httpx2 (2.x) and lets errors of the layers below through, so they
are recognized by their status, or by the module of their class. Other frameworks'
weights, ONNX files, pictures and logs are never fetched.

A run pins what it names: `hf:name` becomes `hf:name@<commit>` in its record, and the
resumed run reads that commit, whatever the hub has by then (`pinned`).
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from bert_jax import errors

# Of sentence-transformers: older versions name it by the model.
_SENTENCE_ENCODERS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_albert_config.json",
)
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
    *_SENTENCE_ENCODERS,  # lower text
)
SMALL = (
    *VOCABULARY,
    "model.json",
    "task.json",
    "bert_config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
# In the order in which one is preferred; of the last, all files of the checkpoint.
_WEIGHTS = (
    "parameters.safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TENSORFLOW1 = re.compile(r".*\.ckpt(-\d+)?\.(index|data-\d{5}-of-\d{5})")
_MODULE = re.compile(r"\d+_\w+")  # of sentence-transformers, as 0_Transformer


def is_inside(name: str) -> bool:
    """Returns whether the name of a file stays below the folder of its repository."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def small_files(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    """Returns the small files that are read: of the root, and of the modules.

    >>> small_files(["config.json", "1_Pooling/config.json", "onnx/config.json"], SMALL)
    ['config.json', '1_Pooling/config.json']
    """
    return [
        name
        for name in names
        if _base(name) in wanted and (_folder(name) == "" or _is_module(name))
    ]


def weight_files(names: Iterable[str]) -> list[str]:
    """Returns the files of weights that are read, in each folder the first kind.

    >>> weight_files(["model.safetensors", "model.onnx", "2_Dense/model.safetensors"])
    ['model.safetensors', '2_Dense/model.safetensors']
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        if _folder(name) == "" or _is_module(name):
            folders.setdefault(_folder(name), set()).add(name)
    chosen = []
    for _, there in sorted(folders.items()):
        by_base = {_base(name): name for name in there}
        first = next((by_base[x] for x in _WEIGHTS if x in by_base), None)
        if first is not None:
            chosen.append(first)
        elif "bert_config.json" in by_base:
            chosen += sorted(x for x in there if _TENSORFLOW1.fullmatch(_base(x)))
    return chosen


def shard_files(home: Path, index: str, names: tuple[str, ...]) -> list[str]:
    """Returns the files that an index names and the repository has.

    Args:
      home: the folder of the repository, with the index in it.

    What the index names else is refused where it is read.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        named = set(json.loads((home / index).read_bytes())["weight_map"].values())
        return [x for x in names if _folder(x) == _folder(index) and _base(x) in named]
    return []


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _is_module(name: str) -> bool:
    return _MODULE.fullmatch(_folder(name)) is not None


class CutFile(errors.StorageError):
    """A download was cut short: the library resumes it when called again."""


@contextlib.contextmanager
def asking(what: str, host: str, page: str, hint: str = "") -> Iterator[None]:
    """Turns what a request can raise into one error of ours.

    Args:
      what: the repository, or the file of it, that is asked for.
      host: URL of the hub.
      page: URL of the page of the repository.
      hint: what else helps where the hub does not answer.

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
        raised = _of_answer(error, what, host, page, hint)
        raised = raised or _of_disk(error, what) or _of_network(error, what, host, hint)
        if raised is None:
            raise
        raise raised from None


def _of_answer(
    error: Exception, what: str, host: str, page: str, hint: str
) -> errors.BertJaxError | None:
    """Returns the error for an answer of the hub that is a refusal."""
    refusals = [x for x in _chain(error) if getattr(x, "response", None) is not None]
    if not refusals:
        return None
    response: Any = getattr(refusals[0], "response")  # noqa: B009
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    answered = f"{host} answered {status}"
    log_in = "log in (hf auth login) or set HF_TOKEN"
    if code == "GatedRepo" or status == 403:
        return errors.InputError(
            f"{what} may not be read ({answered}): accept its conditions on {page}, "
            f"then {log_in} to a token of that account"
        )
    if code == "RevisionNotFound":
        return errors.InputError(
            f"{what}: no revision of this name ({answered}): see {page}/commits/main"
        )
    if status in (401, 404):
        return errors.InputError(
            f"{what} is not on the Hugging Face hub, or is private ({answered}): check "
            f"the spelling of owner and name on {page}; if it is private, {log_in}"
        )
    if status == 429:
        return errors.StorageError(
            f"{what}: {answered}, too many requests: wait some minutes and start "
            f"again, or {log_in}, which allows more"
        )
    if status >= 500:
        return errors.StorageError(
            f"{what}: {answered}: the hub is out of order. Start again later, or set "
            f"HF_ENDPOINT to a mirror.{hint}"
        )
    return errors.StorageError(f"{what}: {answered}. Check HF_ENDPOINT.{hint}")


def _of_disk(error: Exception, what: str) -> errors.StorageError | None:
    """Returns the error for a cache that cannot be written."""
    for found in _chain(error):
        if isinstance(found, OSError) and found.errno and found.filename:
            return errors.StorageError(
                f"{what}: {found.filename}: {found.strerror}. HF_HOME or HF_HUB_CACHE "
                "sets where the cache is"
            )
    return None


_CUT = ("IncompleteRead", "ChunkedEncodingError", "RemoteProtocolError")
_NETWORK = re.compile(r"(requests|urllib3|httpx\d?|httpcore\d?|h11|hf_xet|ssl)\b")


def _of_network(
    error: Exception, what: str, host: str, hint: str
) -> errors.StorageError | None:
    """Returns the error for a request that had no whole answer."""
    chain = [*_chain(error)]
    if not any(
        isinstance(x, OSError) or _NETWORK.match(type(x).__module__) for x in chain
    ):
        return None
    reason = next((_line(x) for x in reversed(chain) if _line(x)), "no answer")
    is_cut = any(type(x).__name__ in _CUT or "onsistency" in str(x) for x in chain)
    return (CutFile if is_cut else errors.StorageError)(
        f"{what} could not be fetched from {host} ({reason}). Check the network and "
        "start again: files that are whole are kept. HF_ENDPOINT sets a mirror."
        f"{hint}"
    )


def _line(error: BaseException) -> str:
    """Returns the first line of an error's message, truncated."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it was raised from."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


PREFIX = "hf:"
CARD = "README.md"
COMMIT = re.compile("[0-9a-f]{40}")
Kind = Literal["model", "dataset"]

_NAME = r"[A-Za-z0-9][\w.-]*"
_MODEL = re.compile(
    rf"hf:(?P<name>{_NAME}(?:/{_NAME})?)(?:@(?P<revision>[^\s@\[\]#]+))?"
)
_ATTEMPTS = 3  # at a file that is cut; huggingface_hub 2.x tries by itself too
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
            f"{path}: datasets of the hub are read as examples of the task of a "
            "fine-tuned model; here a file with one text a line is wanted"
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

    Raises:
      InputError, StorageError: as `folder`.
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
    wanted = VOCABULARY if vocabulary_only else SMALL
    small = small_files(there.files, wanted)
    weights = [] if vocabulary_only else weight_files(there.files)
    if not (small if vocabulary_only else weights):
        what = "vocabulary" if vocabulary_only else "weights that can be read"
        raise errors.InputError(
            f"{repo} has no {what}; its files at {there.commit[:8]}: "
            f"{_few(there.files)}.{_offline_hint()}"
        )
    card = [CARD] if with_card and CARD in there.files else []
    # Weights come last: if they are complete, so is everything needed to read them.
    home = fetch(repo, there.commit, [*small, *card, *weights])
    for name in weights:
        if name.endswith(".index.json"):
            fetch(repo, there.commit, shard_files(home, name, there.files))
    keep_ref(repo, there.commit)
    return home


def fetch(repo: Repo, commit: str, names: Iterable[str]) -> Path:
    """Returns the folder of a commit in the cache, with these files in it.

    Raises:
      InputError, StorageError: as `folder`.
    """
    home = repo.cache / "snapshots" / commit
    for name in names:
        if (home / name).exists():
            continue
        if is_offline():
            raise errors.InputError(
                f"{repo}: {name} is not in the cache ({home}).{_offline_hint()}"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _download(repo, commit, name)
                break
            except CutFile:
                if attempt == _ATTEMPTS:
                    raise
    return home


def _download(repo: Repo, commit: str, name: str) -> None:
    """Fetches a file, or the rest of one that was cut."""
    with _asking(repo, f" ({name})"):
        _library().hf_hub_download(
            repo.name,
            name,
            repo_type=repo.kind,
            revision=commit,
            cache_dir=_cache(),
            endpoint=_endpoint(),
        )


def listing(repo: Repo) -> Listing:
    """Returns the commit and the files of a revision, by one request.

    A commit is asked for once a process: it does not change. Offline the files are
    those of the cache, without a request.

    Raises:
      InputError, StorageError: as `folder`.
    """
    library = _library()
    if is_offline():
        return _cached_listing(repo)
    known = (_host(), repo)
    if known in _LISTED:
        return _LISTED[known]
    with _asking(repo):
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
    listed = Listing(found.sha, tuple(filter(is_inside, names)))
    at = dataclasses.replace(repo, revision=found.sha)
    _LISTED[_host(), at] = listed
    _BRANCHES.setdefault(at, set()).add(repo.revision)
    return listed


_LISTED: dict[tuple[str, Repo], Listing] = {}  # of commits
_BRANCHES: dict[Repo, set[str]] = {}  # what was asked for, by the commit it is


def _cached_listing(repo: Repo) -> Listing:
    """Returns what the cache has of a revision."""
    commit = repo.revision
    if COMMIT.fullmatch(commit) is None:
        ref = repo.cache / "refs" / commit
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""
        commit = commit or _only_commit(repo)
    home = repo.cache / "snapshots" / commit
    if not commit or not home.is_dir():
        raise errors.InputError(
            f"{repo} is not in the cache ({repo.cache}).{_offline_hint()}"
        )
    names = [
        path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()
    ]
    return Listing(commit, tuple(sorted(names)))


def _only_commit(repo: Repo) -> str:
    """Returns the commit of an abbreviation, if the cache has exactly one such."""
    snapshots = repo.cache / "snapshots"
    if len(repo.revision) < 7 or not snapshots.is_dir():
        return ""
    found = [x.name for x in snapshots.iterdir() if x.name.startswith(repo.revision)]
    return found[0] if len(found) == 1 else ""


def keep_ref(repo: Repo, commit: str) -> None:
    """Writes which commit a branch is into the cache, as the hub's own tools do.

    Offline it is read. It is written when all files are there; a cache that cannot be
    written is left as it is.
    """
    if is_offline():
        return
    at = dataclasses.replace(repo, revision=commit)
    for branch in sorted(_BRANCHES.get(at, {repo.revision}) - {commit}):
        ref = repo.cache / "refs" / branch
        if ".." in ref.parts or branch.startswith("/"):
            continue
        with contextlib.suppress(OSError):
            if not ref.is_file() or ref.read_text(encoding="utf-8") != commit:
                ref.parent.mkdir(parents=True, exist_ok=True)
                unfinished = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
                unfinished.write_text(commit, encoding="utf-8")
                unfinished.replace(ref)


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12]) or "none"
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown


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
    given = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    return given or None


def _cache() -> Path:
    """Returns the folder of the hub's cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    if os.environ.get("HF_HOME"):
        home = Path(os.path.expandvars(os.environ["HF_HOME"])).expanduser()
        return home / "hub"
    return Path(_library().constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE forbids every request."""
    return any(
        os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _host() -> str:
    return _endpoint() or _library().constants.ENDPOINT


def _offline_hint() -> str:
    if not is_offline():
        return ""
    return (
        " HF_HUB_OFFLINE is set, so nothing is fetched: unset it once, with a network, "
        "or copy the cache of a machine that has the files"
    )


def _asking(repo: Repo, file: str = "") -> AbstractContextManager[None]:
    """Turns what a request can raise into one error of ours."""
    hint = ""
    if (repo.cache / "refs" / repo.revision).is_file():
        hint = " HF_HUB_OFFLINE=1 uses what the cache has of it"
    host = _host()
    page = f"{host}/{'datasets/' if repo.kind == 'dataset' else ''}{repo.name}"
    return asking(f"{repo}{file}", host, page, hint)
