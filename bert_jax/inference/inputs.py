"""The part of `predict` for fine-tuned models: examples in, answers out, in order."""

import dataclasses
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bert_jax import console, errors, tasks
from bert_jax.config import finetuning
from bert_jax.data import text_files
from bert_jax.data.labeled import (
    column_names,
    python_examples,
    read_examples,
    table_records,
    tables,
)
from bert_jax.data.labeled import examples as data_examples
from bert_jax.foundation import fields, files, hub
from bert_jax.inference import answer, outputs
from bert_jax.text.coverage import Coverage
from bert_jax.training import distributed

_log = logging.getLogger(__name__)

LINES = "lines"
STANDARD_INPUT = "standard input"
# The flags of predict and evaluate that read a file otherwise than in training.
FLAGS = {
    "data.format": "--input_format",
    "data.header": "--header",
    "data.repair": "--repair",
    **{
        f"data.columns.{field.name}": f"--columns={field.name}"
        for field in dataclasses.fields(read_examples.Columns)
    },
}
INPUT_FORMATS = (
    "auto",
    LINES,
    *sorted({name for task in tasks.TASKS.values() for name in task.form.formats}),
)


@dataclasses.dataclass(frozen=True)
class AnswerRequest:
    """What is to be answered, and how.

    Attributes:
      input: a file of the task, or of plain lines; None for the arguments, or standard
        input.
      input_format: of that file; `lines` has one text (or pair, with a tab) a line.
      columns: column names of a table by field, as `text=sentence`; the other fields
        are read as in training.
      repair: fix what can be fixed, as in training with `data.repair`.
      output: a file, or None for standard output.
      format: one of `outputs.FORMATS`.
      header: whether the first line of a table has the names of its columns: `true`,
        `false`, or `auto`, which detects it; None is as in training.
    """

    input: str | None = None
    input_format: str = "auto"
    columns: tuple[str, ...] = ()
    repair: bool = False
    output: Path | None = None
    format: str = "jsonl"
    dtype: str = "float32"
    header: str | None = None


@errors.naming_flags(FLAGS)
def write(folder: Path, arguments: list[str], request: AnswerRequest) -> int:
    """Answers all examples, in their order, and returns how many there were.

    A file appears under its name when it is complete.

    Raises:
      InputError: an example is malformed; no partial file remains.
    """
    _check(arguments, request)
    model = answer.load(folder, request.dtype, repair=request.repair)
    several = bool(model.task_folder.settings.data.multi_label)
    outputs.check(request.format, model.task_spec, several)
    if request.input is not None and request.input_format != LINES:
        report_first_line(request, reading(model, request))
    notes, coverage = table_records.Notes(), Coverage()
    # An input that can be read twice is counted first, which also finds its errors.
    total = None
    if request.output is not None and _is_file(request.input):
        total = sum(
            1 for _ in _examples(model, arguments, request, table_records.Notes())
        )
    examples = _examples(model, arguments, request, notes)
    # Whoever types is answered line by line.
    is_typed = not arguments and request.input is None and sys.stdin.isatty()
    window = 1 if is_typed else answer.WINDOW
    with console.Bar(
        total,
        "examples",
        "predicting",
        is_kept=True,
        is_shown=request.output is not None,
    ) as progress:
        answers = _counted(model.stream(examples, window, notes, coverage), progress)
        result = outputs.lines(request.format, model.task_spec, answers)
        if request.output is None:
            for line in result:
                print(line, end="", flush=True)
        else:
            with files.writing(request.output) as file:
                for line in result:
                    file.write(line.encode("utf-8"))
        count = progress.n
    noted = counts(notes)
    # On a terminal, no summary follows the answers unless there is something to note.
    if request.output is not None or coverage or noted:
        distributed.print_once(f"{count:,} examples{noted}: {coverage.describe()}")
    model.warn(coverage, request.input or "the texts")
    return count


def _check(arguments: list[str], request: AnswerRequest) -> None:
    """Raises InputError for an output that cannot be, or an option without a file."""
    if request.output is not None and request.output.is_dir():
        raise errors.InputError(f"--output is {request.output}, a folder: name a file")
    if request.output is not None and not request.output.absolute().parent.is_dir():
        raise errors.InputError(
            f"--output is {request.output}, but the folder {request.output.parent} "
            "does not exist: create it"
        )
    if request.input is None:
        given = {
            "--input_format": request.input_format != "auto",
            "--header": request.header is not None,
            "--columns": bool(request.columns),
            "--repair": request.repair,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise errors.InputError(
                f"{name} is for reading a file: give one with --input, or remove {name}"
            )
    if request.input_format == LINES and request.header is not None:
        raise _no_header(request, LINES)


def _no_header(request: AnswerRequest, kind: str) -> errors.InputError:
    return errors.InputError(
        f"--header={request.header} does nothing with {request.input}, which is read "
        f"as {kind}: only {', '.join(tables.WITH_HEADERS)} have a header. Leave "
        "--header out, or set --input_format."
    )


def _is_file(path: str | None) -> bool:
    """Returns whether an input is a file on the disk, not a pipe or a name."""
    return path is not None and os.path.isfile(path)


def _counted(answers: Iterator[Any], progress: console.Bar) -> Iterator[Any]:
    """Yields the answers, and advances the bar by one for each."""
    for one in answers:
        yield one
        progress.update()


def _examples(
    model: answer.TaskModel,
    arguments: list[str],
    request: AnswerRequest,
    notes: Counter[str],
) -> Iterator[Any]:
    """Yields the examples of the arguments, of a file or of standard input."""
    if arguments:
        names = [f"argument {n}" for n in range(1, len(arguments) + 1)]
        form = model.task_spec.form
        values = [_parts(form, *each) for each in zip(arguments, names, strict=True)]
        yield from python_examples.examples_of_values(form, values, names)
    elif request.input is None or request.input_format == LINES:
        form, faults = model.task_spec.form, text_files.Faults.REFUSE
        if request.input is not None:
            faults = (
                text_files.Faults.KEEP if request.repair else text_files.Faults.OFFER
            )
        skipped = notes if request.repair else None
        for number, where, text in numbered_texts(
            [], request.input, faults, skipped, keeps_blank=True
        ):
            value = _parts(form, text, where) if text else python_examples.blank(form)
            (one,) = python_examples.examples_of_values(form, [value], [where])
            yield dataclasses.replace(one, id=str(number - 1))
    else:
        yield from read_examples.iterate(reading(model, request), notes)


def numbered_texts(
    arguments: list[str],
    path: str | None,
    faults: text_files.Faults = text_files.Faults.REFUSE,
    notes: Counter[str] | None = None,
    *,
    keeps_blank: bool = False,
) -> Iterator[tuple[int, str, str]]:
    """Yields the texts of arguments, a file or standard input.

    Each is (number from 1, where it comes from, text).

    Args:
      faults: policy for bytes that are not text.
      notes: lines with such bytes, or without a visible character, are counted there
        and skipped.
      keeps_blank: whether blank lines are empty texts, or are skipped.

    Raises:
      InputError: the file is missing, without text or not UTF-8; the message names the
        line.
    """
    if arguments:
        for number, text in enumerate(arguments, 1):
            yield number, f"argument {number}", text
        return
    if path is None:
        if sys.stdin.isatty():
            distributed.print_once("reading texts from the keyboard, one a line")
        path, numbered = (
            STANDARD_INPUT,
            text_files.of_stream(sys.stdin.buffer, STANDARD_INPUT, faults),
        )
    else:
        hub.refuse_as_lines(path)
        named = text_files.NamedPath(path, Path(path))
        numbered = text_files.whole_lines(named, faults)
    blanks: list[int] | None = []  # blank lines before the first that has a text
    for number, text in numbered:
        where, is_blank = f"{path}:{number}", table_records.is_invisible(text)
        broken = None if notes is None else table_records.of_line(text, where)
        if broken and notes is not None:
            table_records.count(broken, where, notes)
        elif is_blank and blanks is not None:
            blanks.append(number)
        else:
            for earlier in (blanks or ()) if keeps_blank else ():
                yield earlier, f"{path}:{earlier}", ""
            blanks = None
            if keeps_blank or not is_blank:
                yield number, where, "" if is_blank else text
    if blanks is not None:
        raise errors.InputError(
            f"{path} has no text: give texts as arguments, in a file (--input) or "
            "through a pipe, one a line"
        )


def _parts(form: data_examples.ExampleForm, text: str, where: str) -> Any:
    """Returns the parts of an example that tabs separate, as a value of Python.

    Raises:
      InputError: the task has more parts, or fewer.
    """
    parts = text.split("\t")
    names, least, most = form.parts, len(form.required), len(form.parts)
    if form.is_choice:
        names, least, most = ("context", "choice", "choice"), 3, max(3, len(parts))
    if least <= len(parts) <= most:
        return (parts[0], parts[1:]) if form.is_choice else tuple(parts)
    advice = f'separate them by tabs, as in "{"<TAB>".join(names)}"'
    if most == 1:
        advice = "write it without a tab"
    raise errors.InputError(
        f"{where}: {form.task} takes {' and '.join(form.parts)}: {advice}"
    )


def reading(
    model: answer.TaskModel, request: AnswerRequest, *, needs_labels: bool = False
) -> read_examples.Request:
    """Returns how the file is read: as in training, except for the given options.

    Where labels are not needed, none of them leaves an example out.
    """
    assert request.input is not None
    asked = training_request(
        model.task_folder.settings, request.input, is_scored=needs_labels
    )
    skips = request.repair and not needs_labels
    header = request.header or asked.header
    asked = dataclasses.replace(
        asked, needs_labels=needs_labels, skips=skips, header=header
    )
    if not needs_labels:
        asked = dataclasses.replace(asked, skip_labels=())
    if request.input_format != "auto":
        asked = dataclasses.replace(asked, format=request.input_format)
    named = columns(request.columns, asked.columns)
    asked = dataclasses.replace(asked, columns=named)
    if request.header is not None:
        kind = read_examples.format_of(asked)
        if kind not in tables.WITH_HEADERS:
            raise _no_header(request, kind)
    return asked


def report_first_line(request: AnswerRequest, asked: read_examples.Request) -> None:
    """Reports what the first line of a file was taken as, unless the user specified it.

    Args:
      asked: how the file is read, of `reading`.
    """
    if request.header in (None, "auto"):
        is_inherited = request.header is None
        report_table_header(asked, is_inherited=is_inherited)


def training_request(
    settings: finetuning.FinetuningConfig, path: str, *, is_scored: bool = False
) -> read_examples.Request:
    """Returns how a file of the run's task is read, to learn from it or to score."""
    data = settings.data
    return read_examples.Request(
        path=path,
        form=tasks.of(settings).form,
        format=data.format,
        header=data.header.lower(),
        columns=_training_columns(data.columns),
        multi_label=data.multi_label,
        skip_labels=fields.names(data.skip_labels),
        repair=data.repair,
        strip_digit=data.strip_digit,
        is_scored=is_scored,
    )


def _training_columns(given: finetuning.ColumnsConfig) -> read_examples.Columns:
    values: dict[str, Any] = dataclasses.asdict(given)
    values["choices"] = fields.names(given.choices)
    return read_examples.Columns(**values)


def report_table_header(
    request: read_examples.Request, *, is_inherited: bool = False
) -> tables.FirstLine | None:
    """Reports whether the first line of a table was taken as a header, and returns it.

    Logs a warning if the guess is doubtful. Formats without headers and choices of the
    user are not reported.

    Args:
      is_inherited: whether `request.header` is that of the training.

    Raises:
      InputError: the file cannot be read.
    """
    found = read_examples.first_line(request)
    if found is None:
        return None
    line = f"{request.path}: {_taken_as(found)}"
    line += " as in training" * (is_inherited and found.is_given)
    if found.is_doubtful or found.contradicts:
        _log.warning("%s", line)
    elif is_inherited or not found.is_given:
        distributed.print_once(line)
    return found


def _taken_as(found: tables.FirstLine) -> str:
    """Describes how a first line was interpreted, why, and how to change it."""
    if found.is_header:
        names = ", ".join(column_names.name_of(cell) or "''" for cell in found.cells)
        note = f"first line taken as a header: {_short(names)}"
        change = f"{errors.setting('data.header', 'false')} if it is an example"
    else:
        note = f"first line {_short(chr(9).join(found.cells))!r} taken as an example"
        change = f"{errors.setting('data.header', 'true')} if it is a header"
    if found.is_doubtful:
        note += f", as only {found.usual[0]!r} is a usual name of a column"
    if found.contradicts:
        note += f", but {' and '.join(found.usual[:3])} are usual names of columns"
    return f"{note} ({change})"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def counts(notes: Mapping[str, int]) -> str:
    """Returns what happened how often and where first, in brackets, or nothing."""
    first = notes.first if isinstance(notes, table_records.Notes) else {}
    parts = [
        f"{what}: {count:,}" + (f", first at {first[what][0]}" if what in first else "")
        for what, count in notes.items()
        if count
    ]
    return f" ({'; '.join(parts) if first else ', '.join(parts)})" if parts else ""


def columns(
    pairs: tuple[str, ...], others: read_examples.Columns
) -> read_examples.Columns:
    """Returns the columns that a flag names, and the others as they are.

    >>> columns(("text=sentence",), read_examples.Columns(label="2")).text
    'sentence'
    """
    known = [field.name for field in dataclasses.fields(read_examples.Columns)]
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known or not value:
            raise errors.InputError(
                f"--columns has {pair!r}: write what=column, as in "
                f"--columns=text=sentence,label=2; what is one of {', '.join(known)}"
            )
        values[name] = tuple(value.split("+")) if name == "choices" else value
    return dataclasses.replace(others, **values)
