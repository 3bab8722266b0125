"""Config files: Python with a function `get_config`, which may take one option.

In `configs/pretrain.py:base`, "base" is the option; `pretrain:base` is the same. The
recipes that ship with the package are in configs/ of a checkout, in bert_jax/configs of
the wheel; each begins with a docstring: a line that summarizes it, and the command that
runs it. An error in a config file is reported in one line, with the file's own line.
"""

import ast
import importlib.machinery
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from bert_jax import errors
from bert_jax.foundation import fields

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"(?:configs/)?(\w+)(?:\.py)?")
_COMMAND = re.compile(r"python -m bert_jax\.(\w+) --config=configs/(\w+)\.py")
# Commands that read the recipes of another one.
_READ_BY = {"plan": "pretrain", "prepare": "pretrain"}


@dataclass(frozen=True)
class RecipeFile:
    """A file in the folder of recipes.

    Attributes:
      name: stem of the file, as --config takes it.
      summary: first line of its docstring.
      commands: those in its docstring, without `python -m bert_jax.`.
      options: what may, or must, follow the name and a colon.
    """

    name: str
    summary: str
    commands: tuple[str, ...]
    options: tuple[str, ...]


def folder() -> Path:
    """Returns the folder of the recipes, in the wheel or else in the checkout."""
    shipped = _PACKAGE / "configs"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "configs"


def find(name: str) -> Path | None:
    """Returns the file that --config names, or None.

    A file of that name comes first, then configs/NAME.py of the working directory, then
    the recipe that ships with the package.
    """
    file = Path(os.path.expanduser(name))
    if file.is_file():
        return file
    match = _NAME.fullmatch(os.path.normpath(name)) if name else None
    if match is None:
        return None
    files = (here / f"{match[1]}.py" for here in (Path("configs"), folder()))
    return next((file for file in files if file.is_file()), None)


def shipped() -> list[RecipeFile]:
    """Returns the recipes of the package, by name."""
    return [read(file) for file in sorted(folder().glob("*.py"))]


def read(file: Path) -> RecipeFile:
    """Returns what the text of a config file describes, without running it.

    A file that is not Python has an empty summary, and no commands or options.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return RecipeFile(file.stem, "", (), ())
    text = ast.get_docstring(tree) or ""
    own = [command for command, name in _COMMAND.findall(text) if name == file.stem]
    lines = text.splitlines() or [""]
    return RecipeFile(file.stem, lines[0], tuple(own), _options(tree))


def of_command(command: str) -> list[RecipeFile]:
    """Returns the recipes that a command reads."""
    command = _READ_BY.get(command, command)
    return [recipe for recipe in shipped() if recipe.commands[:1] == (command,)]


def hint(name: str) -> str:
    """Returns the nearest recipe to a name that is not found, and all recipes."""
    names = [recipe.name for recipe in shipped()]
    near = fields.nearest(Path(name).stem, names, prefix="--config=")
    return f"{near} Name a file, or one of the recipes {', '.join(names)}".strip()


def _options(tree: ast.Module) -> tuple[str, ...]:
    """Returns the names in OPTIONS, a tuple, list or dict at the top of a recipe."""
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        value = node.value
        if names == ["OPTIONS"] and isinstance(value, (ast.Tuple, ast.List, ast.Dict)):
            parts = value.keys if isinstance(value, ast.Dict) else value.elts
            constants = (part for part in parts if isinstance(part, ast.Constant))
            return tuple(str(constant.value) for constant in constants)
    return ()


def load(argument: str) -> ml_collections.ConfigDict:
    """Returns the config of `file.py`, `file.py:option`, or a recipe's `name:option`.

    Raises:
      InputError: there is no such file, it fails, or it does not return a ConfigDict.
    """
    name, *options = argument.split(":", 1)
    file = find(name)
    if file is None:
        raise errors.InputError(f"there is no config file {name}. {hint(name)}")
    path = str(file)
    try:
        get_config = _function(path)
        _check_options(name, get_config, options, read(file).options)
        config = get_config(*options)
    except errors.BertJaxError:
        raise
    # A config file may raise anything, also by sys.exit.
    except (Exception, SystemExit) as error:
        raise errors.InputError(_message(path, error)) from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise errors.InputError(
            f"{path}: get_config returns {type(config).__name__}, not a ConfigDict: "
            "begin with config = pretraining.default(), end with return config"
        )
    return config


def check_command(argument: str, command: str) -> None:
    """Raises InputError if `argument` names a shipped recipe of another command."""
    name = argument.partition(":")[0]
    file = find(name)
    if file is None or file.parent.resolve() != folder():
        return
    commands = read(file).commands
    wanted = of_command(command)
    if commands and wanted and file.stem not in {recipe.name for recipe in wanted}:
        raise errors.InputError(
            f"--config={name} is a recipe of {commands[0]}; those of {command} are "
            f"{', '.join(recipe.name for recipe in wanted)}"
        )


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Raises InputError, with the nearest name, unless `key` is a leaf of the config.

    >>> config = ml_collections.ConfigDict({"run": {"seed": 0}})
    >>> check_key(config, "run.sead")
    Traceback (most recent call last):
    bert_jax.errors.InputError: unknown config key run.sead. Did you mean run.seed?
    """
    node: Any = config
    names = key.split(".")
    for depth, name in enumerate(names):
        known = list(node.keys()) if isinstance(node, ml_collections.ConfigDict) else []
        if name not in known:
            prefix = "".join(f"{name}." for name in names[:depth])
            near = fields.nearest(name, known, prefix=prefix)
            raise errors.InputError(f"unknown config key {key}.{near}")
        node = node[name]
    if isinstance(node, ml_collections.ConfigDict):
        raise errors.InputError(
            f"the config key {key} is a group: set its keys one by one, as in "
            f"--config.{key}.{next(iter(node.keys()))}=..."
        )


def _function(path: str) -> Callable[..., object]:
    """Runs a config file and returns its `get_config`."""
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    spec = importlib.util.spec_from_loader("config_file", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise errors.InputError(
            f"{path} is not a config file: it has no function get_config"
        )
    return module.get_config


def _check_options(
    name: str,
    get_config: Callable[..., object],
    options: list[str],
    known: tuple[str, ...],
) -> None:
    """Raises InputError if `get_config` takes no option, or must have one."""
    try:
        inspect.signature(get_config).bind(*options)
    except TypeError:
        problem = f"takes no option {options[0]!r}" if options else "needs an option"
        which = "" if options else ":OPTION"
        listed = f", one of {', '.join(known)}" if known and not options else ""
        raise errors.InputError(
            f"the config file {name} {problem}: write --config={name}{which}{listed}"
        ) from None


def _message(path: str, error: Exception | SystemExit) -> str:
    """Returns the error of a config file in one line, with the file's own line."""
    if isinstance(error, SyntaxError) and error.filename is None:
        return f"{path} is not Python: {error.msg}"
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    # ml_collections lists all keys when one is unknown, and quotes its message.
    text = re.sub(r' Other fields present: "{.*}"', "", str(error))
    text = re.sub(r"\A'(.*)'\Z", r"\1", text.replace("\\n", " "), flags=re.DOTALL)
    text = " ".join(text.split())
    if isinstance(error, SystemExit):
        text = "it exits the process"
    text = text or type(error).__name__
    if text.startswith(path):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(path)]
    return f"{path}:{lines[-1]}: {text}" if lines else f"{path}: {text}"
