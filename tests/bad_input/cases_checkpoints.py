"""Bad checkpoints: the Orbax folders of a run, its record, and the models of tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import forged
from bad_files import Case, Content, case, change, replace

_COMMANDS = {
    "evaluate": "evaluate --workdir={here}/run",
    "predict": "predict --model={here}/run cat[MASK]",
    "convert": "convert --input={here}/run --output={here}/out --to=huggingface",
    "pretrain": "pretrain --config={good}/text/tiny.py --workdir={here}/run",
    "finetune": "finetune --config={good}/tasks/given.py --workdir={here}/w "
    "--config.init_from={here}/run",
}


def _both(edit: Content) -> dict[str, Content]:
    """Returns an edit of the manifests of both steps."""
    return {f"run/checkpoints/{step}/manifest.json": edit for step in (3, 6)}


def _every(edit: Callable[[Path], object]) -> dict[str, Content]:
    """Returns an edit of the folders of both steps."""
    return {f"run/checkpoints/{step}": edit for step in (3, 6)}


def _some_file(path: Path) -> Path:
    """Returns the largest file of the parameters."""
    files = (x for x in (path / "params").rglob("*") if x.is_file())
    return max(files, key=lambda x: (x.stat().st_size, x.name))


def _of_file(edit: Callable[[bytes], bytes]) -> dict[str, Content]:
    return _every(lambda path: change(edit)(_some_file(path)))


_NO_STEP = "{here}/run/checkpoints…[3, 6]"


def _orbax(
    name: str, command: str, files: dict[str, Content], expected: str = ""
) -> Case:
    words = expected or _NO_STEP
    return case(
        "Orbax", name, _COMMANDS[command], words, files, base="text/run", code=3
    )


def _without_params(path: Path) -> None:
    for file in sorted((path / "params").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()


_REMOVED = _every(lambda path: (path / "manifest.json").unlink())
ORBAX = [
    *(_orbax(f"{x}: no manifest in any step", x, _REMOVED) for x in _COMMANDS),
    _orbax("a manifest that is empty", "evaluate", _both(b"")),
    _orbax("a manifest that is cut", "evaluate", _both(change(lambda x: x[:-40]))),
    _orbax("a manifest that is a list", "evaluate", _both(b"[]")),
    _orbax("a manifest without sums", "evaluate", _both(b"{}")),
    _orbax("a manifest whose sums are a list", "evaluate", _both(b'{"sha256": []}')),
    _orbax("a manifest that names no file", "evaluate", _both(b'{"sha256": {}}')),
    _orbax("a manifest whose sums are null", "evaluate", _both(b'{"sha256": null}')),
    _orbax("a manifest of deep nesting", "evaluate", _both(b"[" * 100000)),
    _orbax("a manifest that is not UTF-8", "evaluate", _both(b'{"\xff": 1}')),
    _orbax(
        "a manifest with other sums",
        "predict",
        _both(
            forged.manifest(lambda t: t.update(sha256=dict.fromkeys(t["sha256"], "0")))
        ),
    ),
    _orbax(
        "a manifest that is a folder",
        "evaluate",
        _both(lambda path: (path.unlink(), path.mkdir())),
    ),
    _orbax(
        "a file of parameters: gone",
        "evaluate",
        _every(lambda p: _some_file(p).unlink()),
    ),
    _orbax("a file of parameters: empty", "predict", _of_file(lambda content: b"")),
    _orbax(
        "a file of parameters: half", "convert", _of_file(lambda x: x[: len(x) // 2])
    ),
    _orbax(
        "a file of parameters: zeros", "pretrain", _of_file(lambda x: bytes(len(x)))
    ),
    _orbax(
        "a file of parameters: a flipped bit",
        "finetune",
        _of_file(lambda x: x[:9] + bytes([x[9] ^ 4]) + x[10:]),
    ),
    _orbax("half deleted: no parameters", "evaluate", _every(_without_params)),
    _orbax(
        "half deleted: no parameters, of pretrain", "pretrain", _every(_without_params)
    ),
    _orbax(
        "steps that are files",
        "evaluate",
        {
            "run/checkpoints/3": None,
            "run/checkpoints/6": None,
            "run/checkpoints/9": b"x",
        },
        "{here}/run/checkpoints…[]",
    ),
    _orbax(
        "a step whose number is not ASCII",
        "evaluate",
        {
            "run/checkpoints/3": None,
            "run/checkpoints/6": None,
            "run/checkpoints/\u00b2": lambda path: path.mkdir(),
        },
        "{here}/run/checkpoints…[]",
    ),
    _orbax(
        "no step",
        "evaluate",
        {"run/checkpoints/3": None, "run/checkpoints/6": None},
        "{here}/run/checkpoints…[]",
    ),
    _orbax(
        "of another model",
        "evaluate",
        {
            "run/config.json": replace(
                '"intermediate_size": 64', '"intermediate_size": 65'
            )
        },
        "{here}/run/checkpoints/6/params",
    ),
]


def _record(name: str, edit: Content, expected: str, command: str = "evaluate") -> Case:
    words = f"{{here}}/run/config.json{expected}"
    files = {"run/config.json": edit}
    return case("config.json", name, _COMMANDS[command], words, files, base="text/run")


def _update(**changes: Any) -> Callable[[Path], object]:
    return forged.manifest(lambda tree: tree.update(changes))


_CHANGED = "…written"
RECORDS = [
    _record("empty", b"", "…JSON"),
    _record("cut", change(lambda content: content[:-9]), "…JSON", "predict"),
    _record("no UTF-8", b'{"run": "\xff"}', "…JSON"),
    _record("deep nesting", b"[" * 100000, "…JSON"),
    _record("a key twice", change(lambda x: b'{"run": 1, ' + x[1:]), "…'run'"),
    _record("a list", b"[]", "…record"),
    _record("null", b"null", "…record", "predict"),
    _record("a group that is a number", _update(run=3), f"{_CHANGED}…run is 3"),
    _record(
        "a group less",
        forged.manifest(lambda t: t.pop("text")),
        f"{_CHANGED}…config key",
    ),
    _record(
        "a size that is a number", _update(model={"size": 3}), f"{_CHANGED}…model.size"
    ),
    _record(
        "an unknown key",
        _update(model={"size": "tiny", "depth": 3}),
        f"{_CHANGED}…model.depth",
        "predict",
    ),
    _record(
        "a text for a number",
        _update(mesh={"data": "all", "fsdp": 1, "tensor": 1}),
        f"{_CHANGED}…mesh.data is 'all'",
    ),
    _record(
        "NaN for a rate",
        forged.manifest(lambda t: t["optimizer"].update(learning_rate=float("nan"))),
        f"{_CHANGED}…optimizer.learning_rate",
    ),
    _record(
        "a number of layers that is a fraction",
        forged.manifest(lambda t: t["model"].update(num_hidden_layers=2.5)),
        f"{_CHANGED}…model.num_hidden_layers is 2.5",
        "convert",
    ),
    _record("of pretrain: cut", change(lambda x: x[:-9]), "…JSON", "pretrain"),
    case(
        "config.json",
        "a folder without it",
        _COMMANDS["evaluate"],
        "{here}/run…config.json",
        {"run/config.json": None},
        base="text/run",
    ),
]


def _task(
    name: str, file: str, edit: Content, expected: str, command: str = ""
) -> Case:
    commands = {
        "": "predict --model={here}/run cat",
        "evaluate": "evaluate --workdir={here}/run",
        "convert": "convert --input={here}/run --output={here}/out --to=huggingface",
    }
    words = f"{{here}}/run/best/3/{file}{expected}"
    files = {f"run/best/3/{file}": edit}
    return case("task model", name, commands[command], words, files, base="tasks/run")


def _learned(**changes: Any) -> Callable[[Path], object]:
    return forged.manifest(lambda tree: tree["learned"].update(changes))


_OTHER = "…written"
_BROKEN = "…damaged"
TASKS = [
    _task("task.json: empty", "task.json", b"", "…JSON"),
    _task("task.json: half", "task.json", change(lambda x: x[: len(x) // 2]), "…JSON"),
    _task(
        "task.json: half",
        "task.json",
        change(lambda x: x[:99]),
        "…JSON",
        "evaluate",
    ),
    _task("task.json: a list", "task.json", b"[]", "…JSON"),
    _task("task.json: nothing in it", "task.json", b"{}", "…format"),
    _task("task.json: no labels", "task.json", _learned(labels=None), _BROKEN),
    _task(
        "task.json: labels of numbers", "task.json", _learned(labels=[1, 2]), _BROKEN
    ),
    _task("task.json: a deviation of 0", "task.json", _learned(deviation=0), _BROKEN),
    _task("task.json: an unknown key", "task.json", _learned(color="red"), _BROKEN),
    _task(
        "task.json: sums that are a text",
        "task.json",
        forged.manifest(lambda tree: tree.update(files="x")),
        _BROKEN,
    ),
    _task(
        "task.json: sums of a file outside",
        "task.json",
        forged.manifest(lambda tree: tree.update(files={"../x": "0"})),
        _BROKEN,
    ),
    _task(
        "task.json: a setting that is a text",
        "task.json",
        forged.manifest(lambda tree: tree["settings"]["run"].update(seed="x")),
        _BROKEN,
        "evaluate",
    ),
    _task("model.json: half", "model.json", change(lambda x: x[: len(x) // 2]), _OTHER),
    _task(
        "parameters: cut", "parameters.safetensors", change(lambda x: x[:-9]), _OTHER
    ),
    _task(
        "parameters: cut",
        "parameters.safetensors",
        change(lambda x: x[:-9]),
        "…refused",
        "convert",
    ),
    _task("vocabulary: half", "vocab.txt", change(lambda x: x[: len(x) // 2]), _OTHER),
    _task("vocabulary: gone", "vocab.txt", None, "…missing", "evaluate"),
    case(
        "task model",
        "a best model that is a file",
        "predict --model={here}/run --task=answer cat",
        "{here}/run…model",
        {"run/best/3": None, "run/best/4": b"x"},
        base="tasks/run",
    ),
]
CASES = ORBAX + RECORDS + TASKS
