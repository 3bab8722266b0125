"""Shared by all commands: flags, exit codes instead of tracebacks, progress messages.

Flags are defined when a command runs, not when its module is imported, so that one
command can use the library part of another.
"""

import dataclasses
import io
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from bert_jax import errors
from bert_jax.config import file as config_file
from bert_jax.config import reference
from bert_jax.foundation import devices, interrupts
from bert_jax.tasks import TASKS
from bert_jax.training import distributed

WORDS = ("-h", "--h", "-help", "--help", "-helpshort", "--helpshort", "-?", "--?")
# The flags of all commands that are paths: shells leave the `~` of --flag=~/x as it is.
PATH_FLAGS = ("workdir", "model", "input", "output", "data", "store", "label_map")
_WIDTH = 80
_QUOTE = "'"  # absl writes defaults as literals


def wants_help(arguments: Iterable[str]) -> bool:
    """Returns whether the arguments ask for help, before `--` if there is one.

    >>> wants_help(["--model=runs/demo", "-h"]), wants_help(["--", "-h"])
    (True, False)
    """
    for argument in arguments:
        if argument == "--":
            return False
        if argument in WORDS:
            return True
    return False


def help_text(command: str) -> str:
    """Returns the help of a command whose flags are defined and not parsed."""
    shared = [field.name for field in dataclasses.fields(distributed.Flags)]
    keys = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    own = [name for name in flags.FLAGS if name in keys and name not in shared]
    of_processes = [name for name in shared if name in keys]
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), _flags("flags", own)]
    if of_processes:
        parts.append(_flags("flags of a run with several processes", of_processes))
    if "config" in keys:
        parser: Any = flags.FLAGS["config"].parser
        parts.append(_recipes(config_file.of_command(command)))
        parts.append(reference.help_text(parser.keys))
    parts.append("--helpfull lists the flags of the libraries, too.")
    return "\n\n".join(parts)


def help_table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns names and what they are, in two columns of a terminal.

    >>> print(help_table([("demo", "A tiny BERT."), ("glue", "Nine tasks.")]))
      demo  A tiny BERT.
      glue  Nine tasks.
    """
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0) + 4
    lines = []
    for name, words in rows:
        wrapped = textwrap.wrap(words, _WIDTH - width) or [""]
        lines.append(f"  {name}".ljust(width) + wrapped[0])
        lines += [" " * width + line for line in wrapped[1:]]
    return "\n".join(lines)


def _flags(title: str, names: list[str]) -> str:
    return "\n".join([f"{title}:", *(_flag(flags.FLAGS[name]) for name in names)])


def _flag(flag: flags.Flag) -> str:
    """Returns the lines of a flag: name, meaning, values, default."""
    name = f"[no]{flag.name}" if flag.boolean else flag.name
    words = [flag.help or ""]
    if flag.default not in (None, "", []):
        words.append(f"(default: {str(flag.default_as_str).strip(_QUOTE)})")
    rest = textwrap.indent(textwrap.fill(" ".join(words), _WIDTH - 6), " " * 6)
    return f"  --{name}:\n{rest}"


def _recipes(known: list[config_file.RecipeFile]) -> str:
    """Returns the recipes, with what each does and where they are."""
    rows = []
    for recipe in known:
        options = f" OPTION: {', '.join(recipe.options)}." if recipe.options else ""
        name = f"{recipe.name}:OPTION" if recipe.options else recipe.name
        rows.append((name, recipe.summary + options))
    about = (
        "Each is a file; copy one to change more than flags can. They are in "
        f"{config_file.folder()}"
    )
    title = "recipes, as in --config=" + (known[0].name if known else "FILE") + ":"
    return f"{title}\n{help_table(rows)}\n\n{textwrap.fill(about, _WIDTH)}"


_LONGEST_MESSAGE = 4000  # with the missing data of a suite in it
_READER_GONE = 141  # 128 + SIGPIPE, as shells do

# Python's message for a value of the wrong type, and one that users understand.
_PLAIN = (
    ("invalid literal for int() with base 10:", "expected an integer, not"),
    ("could not convert string to float:", "expected a number, not"),
    ("('Non-boolean argument to boolean flag', ", "expected true or false, not ("),
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
        if "coordinator" in flags.FLAGS:
            distributed.start(_processes_of_flags())
        devices.leave_out(report=distributed.is_first())
        main(argv)
        sys.stdout.flush()  # a full disk or a reader that has gone shows here
        distributed.shutdown()

    interrupts.begin()
    try:
        with interrupts.listening():
            app.run(quiet, flags_parser=_parse_flags)
    except interrupts.SignalReceived as heard:
        _fail(errors.Stopped(interrupts.stopped_text(str(heard))))
    except errors.BertJaxError as error:
        _fail(error)
    except KeyboardInterrupt:
        distributed.print_once(
            "interrupted: no unfinished file is kept; run the same command again"
        )
        distributed.end(interrupts.INTERRUPTED)
    except BrokenPipeError:  # `command | head` is not an error
        _forget_output()
        distributed.end(_READER_GONE)
    except OSError as error:
        _fail(_of_system(error))
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error) or type(error) is MemoryError:
            _fail(_out_of_memory(error))
        if distributed.is_peer_error(error):
            _fail(distributed.peer_error(error))
        if distributed.count() > 1:
            traceback.print_exc()
            _fail(errors.BertJaxError("this is a mistake of the program: see above"))
        if interrupts.is_owned():  # else the interpreter's end may crash
            traceback.print_exc()
            interrupts.end(1)
        raise


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; what a user can get wrong ends with exit code 2."""
    if wants_help(argv[1:]):
        print(help_text(Path(argv[0]).stem))
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # --helpfull, which absl takes for a failure
        sys.exit(0)
    except flags.Error as error:
        text = str(error).strip().split("\n")[0]
        for python, plain in _PLAIN:
            text = text.replace(python, plain)
        raise errors.InputError(f"{text} (--help lists the options)") from None
    for name in PATH_FLAGS:
        value = flags.FLAGS[name].value if name in flags.FLAGS else None
        if isinstance(value, str):
            flags.FLAGS[name].value = os.path.expanduser(value)
    return rest


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
    advice = "Use a machine with more, or a smaller model"
    if "config" in flags.FLAGS:  # of the commands that train
        advice = (
            "Lower run.batch_size, raise run.accumulation_steps, set run.remat=full, "
            "or shard with mesh.fsdp"
        )
    return errors.InputError(f"the memory is not enough{text}. {advice}")


def _fail(error: errors.BertJaxError) -> NoReturn:
    """Ends the process with the message and the code of an error."""
    _forget_output()
    text = str(error)
    if len(text) > _LONGEST_MESSAGE:  # it quotes a file; the fix comes last
        text = f"{text[:1000]} [...] {text[-1000:]}"
    code = distributed.print_final_error(text, error.exit_code)
    distributed.report_failure(error)
    distributed.end(code)


def _forget_output() -> None:
    """Drops what standard output does not take, or Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ConfigParser(flags.ArgumentParser):
    """Reads the file that --config names, after a look at the keys to be changed."""

    def __init__(self, keys: Iterable[reference.KeyGroup]) -> None:
        self.keys = keys

    def parse(self, argument: str) -> Any:
        """Returns the locked config; raises InputError for the file or a key."""
        config_file.check_command(argument, Path(sys.argv[0]).stem)
        config = config_file.load(argument)
        for word in sys.argv[1:]:
            changed = re.match(r"--?(?:no)?config\.([^=]*)", word)
            if changed is not None:
                config_file.check_key(config, changed[1])
        return config.lock()


def define_config(
    kind: type, own: type | None = None, only: tuple[str, ...] = ()
) -> None:
    """Defines --config, a file whose keys --config.group.key=value can change.

    Its --help lists the keys that the command reads: see `reference.groups`.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment: a recipe, as demo or pretrain:base, or a file of your own, as "
        "my.py. Any of its keys can be changed: --config.run.num_train_steps=60.",
        lock_config=True,
    )
    readers = {name: task.keys for name, task in TASKS.items()}
    keys = reference.groups(kind, readers, own, only)
    flags.FLAGS["config"].parser = _ConfigParser(keys)
    show_in_help("config")


def define_run() -> None:
    """Defines the flags of a command that trains a run."""
    define_processes()
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run, created if missing; or a URL as gs://bucket/runs/zh "
        "or s3://..., of which each process keeps a working copy in $TMPDIR.",
    )
    flags.DEFINE_bool(
        "allow_changed_config",
        False,
        "Resume even if the config changes the result of the run.",
    )
    show_in_help("workdir", "allow_changed_config")


def define_processes() -> None:
    """Defines the flags of a command that several processes may run together."""
    default = distributed.Flags()
    flags.DEFINE_string(
        "cluster",
        default.cluster,
        "How the processes of a run find each other: "
        f"{', '.join(distributed.CLUSTERS)}. auto asks a TPU pod, Slurm, Open MPI or "
        "JAX_COORDINATOR_ADDRESS, where there is one.",
    )
    flags.DEFINE_string(
        "coordinator",
        default.coordinator,
        "HOST:PORT of process 0, if no cluster provides it; requires --num_processes "
        "and --process_id.",
    )
    flags.DEFINE_integer("num_processes", default.num_processes, "How many there are.")
    flags.DEFINE_integer("process_id", default.process_id, "The number of this one.")
    flags.DEFINE_integer(
        "heartbeat_seconds",
        default.heartbeat_seconds,
        "A process that is silent for so long is lost, and the others end.",
        lower_bound=1,
    )
    show_in_help(*(field.name for field in dataclasses.fields(default)))


def _processes_of_flags() -> distributed.Flags:
    names = (field.name for field in dataclasses.fields(distributed.Flags))
    given: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    return distributed.Flags(**given)


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


def required(*names: str) -> list[Any]:
    """Returns the values of flags; raises InputError for one that is not set.

    The message has the first example of the command's docstring with that flag.
    """
    doc = sys.modules["__main__"].__doc__ or ""
    examples = re.findall(r"^ *(python .*?) *\\?$", doc, re.M)
    for name in names:
        if flags.FLAGS[name].value in (None, ""):
            example = [x for x in examples if f"--{name}=" in x]
            hint = f", as in: {example[0]}" if example else ""
            raise errors.InputError(f"--{name} is missing{hint}")
    return [flags.FLAGS[name].value for name in names]
