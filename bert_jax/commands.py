"""What every command shares: flags, exit codes instead of tracebacks, a word on stderr.

Flags are defined when a command runs, not when its module is imported, so that one
command can use the library part of another.
"""

import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bert_jax import errors


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs a command; its errors are one message and a code."""

    def guarded(argv: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)
        try:
            main(argv)
        except errors.BertJaxError as error:
            _fail(error)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; what a user can get wrong ends with exit code 2."""
    try:
        return flags.FLAGS(argv)
    except errors.BertJaxError as error:
        _fail(error)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        _fail(errors.InputError(f"{_first_line(error)} (--help lists the options)"))
    except (OSError, SyntaxError, ImportError) as error:
        _fail(errors.InputError(f"the config cannot be read: {_first_line(error)}"))
    return []


def _first_line(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else str(error)
    return (str(error) if isinstance(error, OSError) else text).strip().split("\n")[0]


def _fail(error: errors.BertJaxError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def define_config() -> Any:
    """Defines --config, a file whose keys --config.group.key=value can change."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "File of the experiment, as in configs/demo.py or configs/pretrain.py:base. "
        "Any of its keys can be changed: --config.run.num_train_steps=60.",
        lock_config=True,
    )


def no_arguments(argv: list[str]) -> None:
    """Raises InputError if words are left that are no flags."""
    if len(argv) > 1:
        raise errors.InputError(
            f"unexpected argument {argv[1]!r}: options are written --name=value; "
            "--help lists them"
        )


def required(name: str, value: Any, example: str) -> Any:
    """Returns the value of a flag, or raises InputError with an example if not set."""
    if not value:
        raise errors.InputError(f"--{name} is missing, as in: {example}")
    return value


def say(message: str) -> None:
    """Tells the user on stderr what happens now."""
    print(message, file=sys.stderr, flush=True)
