"""What --help prints: the command, its own flags first, and the recipes it reads."""

import dataclasses
import sys
import textwrap
from collections.abc import Iterable

from absl import flags

from bert_jax.config import recipes
from bert_jax.training import processes

WORDS = ("-h", "--h", "-help", "--help", "-helpshort", "--helpshort", "-?", "--?")
_WIDTH = 80
_QUOTE = "'"  # absl writes defaults as literals


def is_wanted(arguments: Iterable[str]) -> bool:
    """Returns whether the arguments ask for help, before `--` if there is one.

    >>> is_wanted(["--model=runs/demo", "-h"]), is_wanted(["--", "-h"])
    (True, False)
    """
    for argument in arguments:
        if argument == "--":
            return False
        if argument in WORDS:
            return True
    return False


def text(command: str) -> str:
    """Returns the help of a command whose flags are defined and not parsed."""
    shared = [field.name for field in dataclasses.fields(processes.Flags)]
    keys = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    own = [name for name in flags.FLAGS if name in keys and name not in shared]
    of_processes = [name for name in shared if name in keys]
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), _flags("flags", own)]
    if of_processes:
        parts.append(_flags("flags of a run with several processes", of_processes))
    if "config" in keys:
        parts.append(_recipes(recipes.of_command(command)))
    parts.append("--helpfull lists the flags of the libraries, too.")
    return "\n\n".join(parts)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns names and what they are, in two columns of a terminal.

    >>> print(table([("demo", "A tiny BERT."), ("glue", "Nine tasks.")]))
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


def _recipes(known: list[recipes.Recipe]) -> str:
    """Returns the recipes, with what each does and where they are."""
    rows = []
    for recipe in known:
        options = f" OPTION: {', '.join(recipe.options)}." if recipe.options else ""
        name = f"{recipe.name}:OPTION" if recipe.options else recipe.name
        rows.append((name, recipe.summary + options))
    about = (
        "Each is a file; copy one to change more than flags can. They are in "
        f"{recipes.folder()}"
    )
    title = "recipes, as in --config=" + (known[0].name if known else "FILE") + ":"
    return f"{title}\n{table(rows)}\n\n{textwrap.fill(about, _WIDTH)}"
