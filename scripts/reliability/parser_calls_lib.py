"""Calls of each parser of text on a file. A library of parsers_lib.py."""

import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bert_jax import errors, tasks
from bert_jax.config import finetuning, pretraining
from bert_jax.data import text_files
from bert_jax.data.corpus import readers, sources
from bert_jax.data.labeled import examples, python_examples, read_examples
from bert_jax.foundation import json_file
from bert_jax.planning import search, topology
from bert_jax.training import checkpoint, logs, sharding

_MOST = 300  # examples read of a file
Parse = Callable[[Path], Any]


def every_way(path: Path, task: str, kind: str, **options: Any) -> None:
    """Reads a file in each way that the commands do."""
    request = read_examples.Request(path, tasks.TASKS[task].form, kind, **options)
    refusing(lambda: read_examples.read(request))
    auto = dataclasses.replace(request, format="auto", repair=True)
    refusing(lambda: read_examples.read(auto))
    exhaust(read_examples.iterate(dataclasses.replace(request, repair=True)))


def exhaust(values: Iterable[Any]) -> None:
    for _ in itertools.islice(values, _MOST):
        pass


def refusing(call: Callable[[], Any]) -> Any:
    """Calls; an InputError or StorageError of one line is a valid result."""
    try:
        return call()
    except (errors.InputError, errors.StorageError) as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"not a one-line message: {error}") from None
    return None


def documents(path: Path, kind: str) -> None:
    source = sources.Source(kind, str(path), "text" if kind == "jsonl" else "")
    for document in itertools.islice(readers.documents(source), _MOST):
        assert readers.content_hash(document) < 2**64


def package(path: Path) -> None:
    file = text_files.NamedPath(path.name, path)
    refusing(lambda: exhaust(sources.articles_of_news(file, text_files.Tally())))
    for title, text in sources.wikipedia_articles(file, text_files.Tally()):
        readers.parse(readers.RawDocument("wikitext", text, title, ""))


def markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    readers.plain_wikitext(text)
    readers.parse(readers.RawDocument("tagged", text, "f:1", ""))


def typed(path: Path) -> str:
    """Returns a text as it can be typed in a shell: one line, without NUL."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return " ".join(text.splitlines()).replace("\0", "")


def source_of(path: Path) -> None:
    text = typed(path)
    source = sources.parse_source(text)
    if source.kind in sources.FILE_KINDS and "*" not in text:
        sources.find_files(source)
    elif source.kind == "package":
        sources.package_files(source)


def columns(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    name = text.split("\n")[0]
    examples.column_number(name, 5, "tag", "f:1")
    table = path.with_name("table.tsv")
    table.write_text("text\tlabel\na\tb\n", encoding="utf-8")
    columns = read_examples.Columns(text=name, label=text[:9])
    every_way(table, "classification", "tsv", columns=columns)


def metrics(path: Path) -> None:
    for name in (logs.METRICS, "examples-0.jsonl"):
        shutil.copy(path, path.with_name(name))
    logs.cut(path.with_name(logs.METRICS), lambda line: line["step"] < 3)
    logs.ExampleLog(path.parent, start_step=3, is_on=True).__exit__(*[None] * 3)


def curves(path: Path) -> None:
    shutil.copy(path, path.with_name(logs.METRICS))
    with logs.Writer(path.parent, start_step=3) as opened:
        opened.write(3, {"train/loss": 1.0})


def mesh(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = json_file.loads(text)
    except ValueError:
        values = text
    values = values if isinstance(values, list) else [values, 1, 1]
    tree = pretraining.to_dict(pretraining.parse(pretraining.default()))
    tree["mesh"] = dict(zip(("data", "fsdp", "tensor"), values, strict=False))
    parsed = pretraining.parse(tree).mesh
    sharding.make_abstract_mesh(parsed.data, parsed.fsdp, parsed.tensor, num_devices=8)


def variant(path: Path) -> None:
    text = typed(path)
    tree = pretraining.to_dict(pretraining.parse(pretraining.default()))
    search.variant(tree, "a100:8", text)


def chips(path: Path) -> None:
    text = typed(path)
    if text not in topology.HERE:
        topology.parse(text)


def named(name: str, read: Callable[[Path], Any]) -> Parse:
    """Returns a parser that copies a file to `name` in its folder and reads that."""

    def parse(path: Path) -> None:
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, path.parent / name)
        read(path.parent)

    return parse


def step(folder: Path) -> None:
    reason = checkpoint.damage(folder)
    assert reason is None or "\n" not in reason


def task(folder: Path) -> None:
    from bert_jax.checkpoints import native

    native.read_config(folder)
    native.read_task(folder)


def values(path: Path) -> None:
    try:
        value = json_file.loads(path.read_bytes())
    except ValueError:
        return
    for task in tasks.TASKS.values():
        read = python_examples.examples_of_values
        refusing(functools.partial(read, task.form, [value]))


def record(folder: Path) -> None:
    finetuning.parse_record(json_file.read_object(folder / "x.json"))
