"""Finds, in the source, what runs or unpickles data: the library of a test."""

import ast
from collections.abc import Iterator

MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "marshal", "shelve", "dill"),
    *("joblib", "jsonpickle", "pandas", "runpy", "code", "codeop"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("os.system", "os.popen", "tempfile.mktemp", "importlib.import_module"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "commands.getoutput"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive"),
}
# Methods, whatever they are called on.
METHODS = {"exec_module", "load_module", "extractall", "extract", "unsafe_load"}
# Calls that need a keyword with just this value.
NEEDED = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def in_source(text: str) -> Iterator[str]:
    """Yields what is forbidden in a program, by name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _module(node.module or "")
            yield from (_call(f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _in_call(node)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield _reference(_name(node))


def forbidden(text: str) -> list[str]:
    """Returns what is forbidden in a program, once each, sorted."""
    return sorted({name for name in in_source(text) if name})


def _module(name: str) -> str:
    return name if name.split(".")[0] in MODULES else ""


def _call(name: str) -> str:
    return name if name in CALLS or name in NEEDED else ""


def _reference(name: str) -> str:
    """Returns a function that is handed on, to be called elsewhere."""
    return name if name in CALLS - {"compile"} else ""


def _in_call(node: ast.Call) -> Iterator[str]:
    name = _name(node.func)
    keywords = {key.arg: key.value for key in node.keywords}
    if name in CALLS:
        yield name
    if name.rpartition(".")[2] in METHODS and "." in name:
        yield name.rpartition(".")[2]
    if name in NEEDED:
        key, value = NEEDED[name]
        found = keywords[key] if key in keywords else None
        if not (isinstance(found, ast.Constant) and found.value is value):
            yield f"{name} without {key}={value}"
    for key in ("shell", "allow_pickle"):
        value = keywords[key] if key in keywords else ast.Constant(False)
        if not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{key}="
    is_getattr = name == "getattr" and len(node.args) > 1
    if is_getattr and _name(node.args[0]) in ("builtins", "__builtins__"):
        yield "getattr of builtins"


def _name(node: ast.AST) -> str:
    """Writes a name with its dots; a part that is not a name is `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return "?"
