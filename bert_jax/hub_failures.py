"""What a request to the Hugging Face hub can raise, as one message and an exit code.

huggingface_hub sends its requests through `requests` (0.x), httpx (1.x) or httpx2
(2.x), and lets errors of the layers below through: they are told by their status, or by
the module of their class.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from bert_jax import errors


class CutFile(errors.StorageError):
    """A file ended before its end: the library goes on where it was, asked again."""


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
            f"{what}: there is no such revision ({answered}): see {page}/commits/main"
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
    """Returns the first line of what an error says, cut."""
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
