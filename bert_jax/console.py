"""Output for people: messages, progress bars with the time left, and tables.

On a terminal a bar moves on standard error. A notebook shows bars as widgets and
messages as plain output, where standard error would be a red block. In a log or a pipe,
where a bar is unreadable, a line is printed after `FIRST_SECONDS` and then every
`LOG_SECONDS`.

Tables stay aligned in any script: a Chinese character is as wide as two Latin ones
(Unicode Standard Annex 11), and a combining mark has no width. Control characters,
which could move the cursor or change colors, and unpaired surrogates are escaped.
"""

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tqdm import std

from bert_jax import errors

FIRST_SECONDS, LOG_SECONDS = 5.0, 30.0
_SMOOTHING = 0.1  # of the rate on a terminal: 0 is the mean, 1 only the latest
_COUNT = "{desc}: {n_fmt}{unit}, {elapsed}, {rate_noinv_fmt}"
_OF_TOTAL = (
    "{desc}: {n_fmt} of {total_fmt}{unit} ({percentage:.0f}%), {elapsed}, "
    "ETA {remaining}, {rate_noinv_fmt}"
)


def in_notebook() -> bool:
    """Returns whether this code runs in the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    shell: Any = sys.modules["IPython"].get_ipython()
    return hasattr(shell, "kernel")


def stream() -> Any:
    """Returns where messages and bars go: standard error; in notebooks, output."""
    return sys.stdout if in_notebook() else sys.stderr


def is_interactive() -> bool:
    """Returns whether a bar can move there: on a terminal, or in a notebook."""
    return in_notebook() or sys.stderr.isatty()


def print_message(text: str) -> None:
    """Prints a message for the user at once, above the bar that is shown."""
    with std.tqdm.external_write_mode(file=stream()):
        print(text, file=stream(), flush=True)


class Bar:
    """A count of what is done of `total`, with the time taken and the time left.

    Use it as a context manager. The elapsed time is updated between two counts, so
    that one long part, as the compilation of a program, does not look like a hang.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        title: str,
        *,
        initial: int = 0,
        is_scaled: bool = False,
        is_kept: bool = False,
        is_shown: bool = True,
    ) -> None:
        """Shows the bar.

        Args:
          total: of units; None where it is not known.
          unit: what is counted, in the plural.
          title: what is being done, as "evaluating".
          initial: units that were done before.
          is_scaled: whether counts are shown as 1.2M.
          is_kept: whether the count stays: the bar on a terminal, a last line in a log
            that had none by `log`.
          is_shown: whether anything is shown; only one of several processes does.
        """
        self.n = initial
        self._is_shown, self._note, self._ended = is_shown, "", threading.Event()
        self._ends_in_a_line = is_kept and is_shown
        self._initial, self._started = initial, time.monotonic()
        self._due, self._lock = self._started + FIRST_SECONDS, threading.Lock()
        self._meter: dict[str, Any] = {
            "total": total,
            "prefix": title,
            "unit": f" {unit}",
            "unit_scale": is_scaled,
            "bar_format": _COUNT if total is None else _OF_TOTAL,
        }
        self._bar: Any = None
        if is_shown and is_interactive():
            self._bar = _bar_class()(
                total=total,
                desc=title,
                unit=f" {unit}",
                unit_scale=is_scaled,
                initial=initial,
                smoothing=_SMOOTHING,
                leave=is_kept,
                file=stream(),
            )
        if is_shown:
            threading.Thread(None, self._tick, "progress bar", daemon=True).start()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            elif self._ends_in_a_line and error is None:
                print(self._line(time.monotonic()), file=stream(), flush=True)

    def update(self, count: int = 1) -> None:
        """Counts so many units more."""
        with self._lock:
            self.n += count
            if self._bar is not None:
                self._bar.update(count)
        self._print_if_due()

    def note(self, text: str) -> None:
        """Shows a text after the count, as what is done now."""
        with self._lock:
            self._note = text
            if self._bar is not None:
                self._bar.set_postfix_str(text)

    def log(self, line: str) -> None:
        """Prints a line in a log instead of the next own line; bars do not show it."""
        with self._lock:
            if self._bar is None and self._is_shown:
                self._due = time.monotonic() + LOG_SECONDS
                self._ends_in_a_line = False
                print(line, file=stream(), flush=True)

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                if self._bar is not None and not self._ended.is_set():
                    self._bar.refresh()
            self._print_if_due()

    def _print_if_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            is_due = now >= self._due and not self._ended.is_set()
            if self._bar is None and self._is_shown and is_due:
                self._due = now + LOG_SECONDS
                note = f"; {self._note}" if self._note else ""
                print(f"{self._line(now)}{note}", file=stream(), flush=True)

    def _line(self, now: float) -> str:
        elapsed = now - self._started
        return std.tqdm.format_meter(
            self.n, elapsed=elapsed, initial=self._initial, **self._meter
        )


def _bar_class() -> Any:
    """Returns tqdm's bar: widgets in a notebook that has them, else text."""
    if not in_notebook():
        return std.tqdm
    from tqdm import auto

    return auto.tqdm


_ESCAPED = ("Cc", "Cs", "Zl", "Zp")  # control, surrogate, line and paragraph ends
_NO_WIDTH = ("Mn", "Me", "Cf")  # marks on another character, and formatting
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    r"""Returns the text with control characters escaped as in a Python string.

    >>> print(visible("two\nlines, \x1b[31mred"))
    two\nlines, \x1b[31mred
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def width(text: str) -> int:
    """Returns the width of the text in terminal columns.

    >>> width("abc"), width("体育 A"), width("e\u0301")
    (3, 6, 1)
    """
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, columns: int) -> str:
    """Returns the text, truncated with "…" if it is wider than `columns`.

    >>> shorten("a long text", 7), shorten("这家酒店很好", 8), shorten("short", 5)
    ('a long…', '这家酒…', 'short')
    """
    if width(text) <= columns:
        return text
    used = 0
    for end, character in enumerate(text):
        used += _width(character)
        if used > columns - 1:
            return text[:end] + "…"
    return text


def table(
    rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), gap: int = 2
) -> str:
    """Returns rows of cells as lines; the columns `left` are left-aligned.

    Other columns, of numbers, are right-aligned. The first row is the header.

    >>> print(table([["class", "f1"], ["体育", "0.91"], ["finance", "0.8"]]))
    class      f1
    体育     0.91
    finance   0.8
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for at, cell in enumerate(row):
            padding = " " * (widths[at] - width(cell))
            cells.append(cell + padding if at in left else padding + cell)
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)


def import_tensorflow() -> Any:
    """Imports TensorFlow without its notes on the console, for code without devices.

    Raises:
      InputError: it is not installed.
    """
    # Silences notes on CPU instructions and on oneDNN, whose kernels tf.data does not
    # use. Existing values stay; TensorFlow reads both when it is loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError:
        raise errors.missing_extra("tensorflow", "data") from None
    return tf
