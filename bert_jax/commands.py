"""What every command shares: flags, exit codes instead of tracebacks, a word on stderr.

Flags are defined when a command runs, not when its module is imported, so that one
command can use the library part of another.
"""

import io
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bert_jax import errors
from bert_jax.settings import config_file

_INTERRUPTED, _READER_GONE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells do

# What Python says of a value of the wrong type, and what a user understands.
_PLAIN = (
    ("invalid literal for int() with base 10:", "a whole number is wanted, not"),
    ("could not convert string to float:", "a number is wanted, not"),
    ("('Non-boolean argument to boolean flag', ", "true or false is wanted, not ("),
)


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs a command; its errors are one message and a code."""

    def quiet(argv: list[str]) -> None:
        for stream in (sys.stdout, sys.stderr):  # may be no UTF-8, as in LC_ALL=C
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        absl_logging.set_verbosity(absl_logging.WARNING)
        plain = logging.Formatter("%(levelname)s: %(message)s")
        absl_logging.get_absl_handler().setFormatter(plain)
        main(argv)
        sys.stdout.flush()  # a full disk or a reader that has gone shows here

    try:
        app.run(quiet, flags_parser=_parse_flags)
    except errors.BertJaxError as error:
        _fail(error)
    except KeyboardInterrupt:
        say("interrupted: nothing unfinished is kept, the same command starts again")
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # `command | head` is no error
        _forget_output()
        sys.exit(_READER_GONE)
    except OSError as error:
        _fail(_of_system(error))
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and type(error) is not MemoryError:
            raise
        _fail(_out_of_memory(error))


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; what a user can get wrong ends with exit code 2."""
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # --help, which absl takes for a failure
        sys.exit(0)
    except flags.Error as error:
        text = str(error).strip().split("\n")[0]
        for python, plain in _PLAIN:
            text = text.replace(python, plain)
        raise errors.InputError(f"{text} (--help lists the options)") from None


def _of_system(error: OSError) -> errors.BertJaxError:
    """Returns what the system refused as an error: a wrong path, or a failing disk."""
    wrong_path = (
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    )
    reason = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    if isinstance(error, wrong_path):
        return errors.InputError(f"{where}{reason}. Check the path and its permissions")
    return errors.StorageError(f"{where}{reason}. Check the disk and start again")


def _out_of_memory(error: Exception) -> errors.InputError:
    """Returns the error for a batch or a model that the memory cannot hold."""
    text = f": {str(error).strip().splitlines()[0]}" if str(error).strip() else ""
    return errors.InputError(
        f"the memory is not enough{text}. Lower run.batch_size, raise "
        "run.accumulation_steps, set run.remat=full, or shard with mesh.fsdp"
    )


def _fail(error: errors.BertJaxError) -> NoReturn:
    """Ends the process with the message and the code of an error."""
    _forget_output()
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _forget_output() -> None:
    """Drops what standard output does not take, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConfigParser(flags.ArgumentParser):
    """Reads the file that --config names, after a look at the keys to be changed."""

    def parse(self, argument: str) -> Any:
        """Returns the locked config; raises InputError for the file or a key."""
        config = config_file.load(argument)
        for word in sys.argv[1:]:
            changed = re.match(r"--?(?:no)?config\.([^=]*)", word)
            if changed is not None:
                config_file.check_key(config, changed[1])
        return config.lock()


def define_config() -> None:
    """Defines --config, a file whose keys --config.group.key=value can change."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "File of the experiment, as in configs/demo.py or configs/pretrain.py:base. "
        "Any of its keys can be changed: --config.run.num_train_steps=60.",
        lock_config=True,
    )
    flag = flags.FLAGS["config"]
    flag.parser = _ConfigParser()
    show_in_help("config")


def show_in_help(*names: str) -> None:
    """Lists flags that another module than the one that was started has defined."""
    for name in names:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


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
