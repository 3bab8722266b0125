"""The part of `predict` for fine-tuned models: examples in, answers out, in order."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm
from absl import flags

from bert_jax import (
    commands,
    errors,
    prediction_files,
    task_predictor,
    task_setup,
)
from bert_jax.data import example_request, lines, raw_examples, read_examples, sources
from bert_jax.formats import whole_file

LINES = "lines"
INPUT_FORMATS = (
    "auto",
    LINES,
    *sorted({name for names in example_request.FORMATS.values() for name in names}),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be answered, and how.

    Attributes:
      input: a file of the task, or of plain lines; None for the arguments, or standard
        input.
      input_format: of that file; `lines` has one text (or pair, with a tab) a line.
      columns: where in a table things stand; empty = as in training.
      output: a file, or None for standard output.
      format: one of `prediction_files.FORMATS`.
    """

    input: str | None = None
    input_format: str = "auto"
    columns: tuple[str, ...] = ()
    output: Path | None = None
    format: str = "jsonl"
    dtype: str = "float32"


def write(folder: Path, arguments: list[str], request: Request) -> int:
    """Answers all examples, in their order, and returns how many there were.

    A file appears under its name when it is whole.

    Raises:
      InputError: an example is not as it should be; nothing is left behind.
    """
    if request.output is not None and not request.output.absolute().parent.is_dir():
        raise errors.InputError(
            f"--output is {request.output}, and there is no folder "
            f"{request.output.parent}: make it"
        )
    model = task_predictor.load(folder, request.dtype)
    prediction_files.check(request.format, model.kind)
    examples = _examples(model, arguments, request)
    with tqdm.tqdm(unit=" examples", disable=request.output is None) as progress:
        said = _counted(model.stream(examples), progress)
        made = prediction_files.lines(request.format, model.kind, said)
        if request.output is None:
            for line in made:
                print(line, end="", flush=True)
        else:
            with whole_file.writing(request.output) as file:
                for line in made:
                    file.write(line.encode("utf-8"))
        count = progress.n
    if not count:
        raise errors.InputError("there is nothing to answer: the input has no example")
    return count


def _counted(said: Iterator[Any], progress: Any) -> Iterator[Any]:
    """Yields the same, and counts."""
    for one in said:
        progress.n += 1
        if progress.n % 64 == 0:
            progress.refresh()
        yield one


def _examples(
    model: task_predictor.TaskPredictor, arguments: list[str], request: Request
) -> Iterator[Any]:
    """Yields the examples of the arguments, of a file or of standard input."""
    if arguments:
        names = [f"argument {n}" for n in range(1, len(arguments) + 1)]
        values = [_parts(text) for text in arguments]
        yield from raw_examples.of_values(model.kind, values, names)
    elif request.input is None:
        if sys.stdin.isatty():
            commands.say("reading texts from the keyboard, one a line")
        yield from _of_lines(model.kind, "standard input", sys.stdin.buffer)
    elif request.input_format == LINES:
        named = sources.NamedPath(request.input, Path(request.input))
        numbered = lines.lines(named, lines.Tally())
        for number, text in numbered:
            if text.strip():
                yield _one(model.kind, f"{request.input}:{number}", text)
    else:
        yield from read_examples.iterate(reading(model, request))


def _of_lines(kind: str, name: str, stream: Any) -> Iterator[Any]:
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"{name}:{number}: byte {error.start + 1} of the line is not UTF-8: "
                "convert the text to UTF-8"
            ) from None
        if text.strip():
            yield _one(kind, f"{name}:{number}", text)


def _one(kind: str, where: str, text: str) -> Any:
    (example,) = raw_examples.of_values(kind, [_parts(text)], [where])
    number = where.rpartition(":")[2]
    return dataclasses.replace(example, id=str(int(number) - 1))


def _parts(text: str) -> Any:
    """Returns the text, or what a tab parts."""
    parts = text.split("\t")
    if len(parts) == 1:
        return text
    return (parts[0], parts[1:]) if len(parts) > 2 else tuple(parts)


def reading(
    model: task_predictor.TaskPredictor, request: Request
) -> read_examples.Request:
    """Returns how the file is read: as in training, but for what was given."""
    assert request.input is not None
    asked = task_setup.request(model.made.settings, request.input)
    asked = dataclasses.replace(asked, needs_labels=False)
    if request.input_format != "auto":
        asked = dataclasses.replace(asked, format=request.input_format)
    if request.columns:
        asked = dataclasses.replace(asked, columns=columns(request.columns))
    return asked


def columns(pairs: tuple[str, ...]) -> read_examples.Columns:
    """Returns the columns that a flag names.

    >>> columns(("text=sentence", "label=2")).text
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
    return read_examples.Columns(**values)


def define_flags() -> None:
    """Defines the flags of a file of examples and of what is said of them."""
    flags.DEFINE_enum(
        "format", "jsonl", tuple(prediction_files.FORMATS), "Of the answers."
    )
    define_input_flags()


def define_input_flags() -> None:
    """Defines how a file of examples is read."""
    flags.DEFINE_enum(
        "input_format",
        "auto",
        INPUT_FORMATS,
        "Of the file; auto: as in training, or by its name and content.",
    )
    flags.DEFINE_list(
        "columns", [], "Where things stand, as text=sentence,label=2; as in training."
    )


def request_of_flags() -> Request:
    """Returns what the flags ask for."""
    given = flags.FLAGS
    output = Path(given.output) if given.output else None
    return Request(
        given.input,
        given.input_format,
        tuple(given.columns),
        output,
        given.format,
        given.dtype,
    )
