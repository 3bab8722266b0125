"""The recipes that ship with the package: `demo` is configs/demo.py.

A checkout has them in configs/, the wheel in bert_jax/configs. Each begins with a
docstring: one line that says what it does, and the command that runs it.
"""

import ast
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bert_jax import home_folder

_PACKAGE = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"(?:configs/)?(\w+)(?:\.py)?")
_COMMAND = re.compile(r"python -m bert_jax\.(\w+) --config=configs/(\w+)\.py")
# Commands that read the recipes of another one.
_READ_BY = {"plan": "pretrain", "prepare": "pretrain"}


@dataclass(frozen=True)
class Recipe:
    """One file of the folder of recipes.

    Attributes:
      name: stem of the file, as --config takes it.
      summary: first line of its docstring.
      commands: those that its docstring shows, without `python -m bert_jax.`.
      options: the first word that may or must follow the name and a colon.
    """

    name: str
    summary: str
    commands: tuple[str, ...]
    options: tuple[str, ...]


def folder() -> Path:
    """Returns the folder of the recipes: of the wheel, or else of the checkout."""
    shipped = _PACKAGE / "configs"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "configs"


def find(name: str) -> Path | None:
    """Returns the file that --config names, or None.

    A file of that name comes first, then configs/NAME.py of the working directory, then
    the recipe that ships with the package.
    """
    file = home_folder.path(name)
    if file.is_file():
        return file
    match = _NAME.fullmatch(os.path.normpath(name)) if name else None
    if match is None:
        return None
    files = (here / f"{match[1]}.py" for here in (Path("configs"), folder()))
    return next((file for file in files if file.is_file()), None)


def shipped() -> list[Recipe]:
    """Returns the recipes of the package, by name."""
    return [read(file) for file in sorted(folder().glob("*.py"))]


def read(file: Path) -> Recipe:
    """Returns what a config file states of itself; nothing in it is run.

    A file that is not Python has an empty summary, and no commands or options.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return Recipe(file.stem, "", (), ())
    text = ast.get_docstring(tree) or ""
    own = [command for command, name in _COMMAND.findall(text) if name == file.stem]
    lines = text.splitlines() or [""]
    return Recipe(file.stem, lines[0], tuple(own), _options(tree))


def of_command(command: str) -> list[Recipe]:
    """Returns the recipes that a command reads."""
    command = _READ_BY.get(command, command)
    return [recipe for recipe in shipped() if recipe.commands[:1] == (command,)]


def hint(name: str) -> str:
    """Returns what could have been meant by a name that is not found."""
    names = [recipe.name for recipe in shipped()]
    stem = Path(name).stem
    near = difflib.get_close_matches(stem, names, n=1)
    meant = f"Did you mean --config={near[0]}? " if near else ""
    return f"{meant}Name a file, or one of the recipes {', '.join(names)}"


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
