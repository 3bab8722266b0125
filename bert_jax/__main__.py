"""Train your own BERT from raw text, fine-tune it, and carry it anywhere.

bert_jax COMMAND --help             the flags and recipes of a command
bert_jax pretrain --config=demo --workdir=runs/demo

`python -m bert_jax.COMMAND` is the same, and `python -m bert_jax COMMAND`, too.
"""

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

import bert_jax
from bert_jax import commands
from bert_jax.config import file as config_file
from bert_jax.foundation import fields

COMMANDS = (
    "pretrain",
    "finetune",
    "evaluate",
    "predict",
    "convert",
    "prepare",
    "plan",
    "suite",
)


def main() -> None:
    """Runs `bert_jax COMMAND ...`, as `python -m bert_jax.COMMAND ...` does."""
    command, *arguments = sys.argv[1:] or [""]
    if command in COMMANDS:
        sys.argv = [f"bert_jax {command}", *arguments]
        runpy.run_module(f"bert_jax.{command}", run_name="__main__", alter_sys=True)
    elif command in commands.WORDS:
        print(_help())
    elif command == "--version":
        print(f"bert_jax {bert_jax.__version__}")
    else:
        sys.exit(_refuse(command))


def _help() -> str:
    """Returns the commands and the recipes, with a line of each."""
    known = [(recipe.name, recipe.summary) for recipe in config_file.shipped()]
    return "\n\n".join(
        [
            (__doc__ or "").strip(),
            "commands:\n" + commands.help_table((x, _summary(x)) for x in COMMANDS),
            "recipes, as in --config=demo:\n" + commands.help_table(known),
            f"They are in {config_file.folder()}",
        ]
    )


def _summary(command: str) -> str:
    """Returns the first line of a command's docstring; it is not imported."""
    spec = importlib.util.find_spec(f"bert_jax.{command}")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def _refuse(command: str) -> int:
    """Reports a command that is missing or unknown; returns the exit code."""
    wrong = f"unknown command {command!r}.{fields.nearest(command, COMMANDS)}"
    if not command:
        wrong = "a command is missing."
    print(
        f"error: {wrong} Write bert_jax COMMAND, one of {', '.join(COMMANDS)}; "
        "--help explains them",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    main()
