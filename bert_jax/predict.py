"""Fills [MASK] in text with a trained model.

python -m bert_jax.predict --model=runs/demo "今天天气很[MASK]。"
python -m bert_jax.predict --model=runs/demo --input=lines.txt > guesses.jsonl
cat lines.txt | python -m bert_jax.predict --model=runs/demo

Reads texts from the arguments, else from --input, else from standard input, one a line.
Writes one JSON object a text: `text`, and `guesses`, a list for each [MASK].
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from bert_jax import commands, errors, loading

_EXAMPLE = 'python -m bert_jax.predict --model=runs/demo "今天天气很[MASK]。"'


def numbered_texts(arguments: list[str], path: str | None) -> Iterator[tuple[str, str]]:
    """Yields (where it comes from, text) for the texts of a command.

    Blank lines are passed over. Raises InputError for a file that is missing, without
    text or not UTF-8, naming the line.
    """
    if arguments:
        for number, text in enumerate(arguments, start=1):
            yield f"argument {number}", text
    elif path is not None:
        try:
            with Path(path).open("rb") as file:
                yield from _numbered_lines(path, file)
        except OSError as error:
            raise errors.InputError(
                f"cannot read --input {path}: {error.strerror}"
            ) from None
    else:
        if sys.stdin.isatty():
            commands.say("reading texts from the keyboard, one a line")
        yield from _numbered_lines("standard input", sys.stdin.buffer)


def _numbered_lines(name: str, lines) -> Iterator[tuple[str, str]]:
    number_of_texts = 0
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise errors.InputError(
                f"{name}:{number}: byte {error.start + 1} of the line is not UTF-8: "
                "convert the text to UTF-8"
            ) from None
        if text:
            number_of_texts += 1
            yield f"{name}:{number}", text
    if not number_of_texts:
        raise errors.InputError(
            f"{name} has no text: give texts as arguments, in a file (--input) or "
            "through a pipe, one a line"
        )


def main(argv: list[str]) -> None:
    """Runs the command."""
    folder = commands.required("model", flags.FLAGS.model, _EXAMPLE)
    if flags.FLAGS.top < 1:
        raise errors.InputError(f"--top is {flags.FLAGS.top}: give at least 1")
    model = loading.load(folder)
    for where, text in numbered_texts(argv[1:], flags.FLAGS.input):
        try:
            filled = model.fill_mask(text, top=flags.FLAGS.top)
        except errors.InputError as error:
            raise errors.InputError(f"{where}: {error}") from None
        guesses = [
            [{"token": token, "probability": round(odds, 6)} for token, odds in best]
            for best in filled
        ]
        line = {"text": text, "guesses": guesses}
        print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir of the run whose model is used.")
    flags.DEFINE_string("input", None, "File with one text a line.")
    flags.DEFINE_integer("top", 5, "How many guesses for each [MASK].")
    commands.run(main)
