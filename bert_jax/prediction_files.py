"""What a model says of examples, line by line in the format that was asked for.

jsonl   one object an example: what it says, beside the texts
tsv     one line an example (of tags and roles one a span), with a header
conll   a token and its tag a line, a blank line behind each sentence
glue    index and prediction, as the GLUE benchmark takes them
clue    {"id": ..., "label": ...} a line, as CLUE takes them
squad   one object, id -> answer, as the official script takes it
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax import errors
from bert_jax.data import examples as data_examples
from bert_jax.tasks import task

# Format -> the tasks that have it.
FORMATS = {
    "jsonl": (),  # all
    "tsv": (),
    "conll": ("tagging", "srl"),
    "glue": ("classification", "regression"),
    "clue": ("classification", "multiple_choice"),
    "squad": ("span",),
}

Said = tuple[data_examples.Example, task.Prediction]


def check(name: str, kind: str) -> None:
    """Raises InputError unless predictions of a task have this format."""
    tasks = FORMATS[name]
    if tasks and kind not in tasks:
        known = [other for other, of in FORMATS.items() if not of or kind in of]
        raise errors.InputError(
            f"the format {name} is for {' and '.join(tasks)}, and this model's task is "
            f"{kind}: use one of {', '.join(known)}"
        )


def lines(name: str, kind: str, said: Iterable[Said]) -> Iterator[str]:
    """Yields what is written, in the order of the examples; line ends are in it."""
    writers = {
        "jsonl": _json_lines,
        "tsv": _tsv,
        "conll": _conll,
        "glue": _glue,
        "clue": _clue,
        "squad": _squad,
    }
    check(name, kind)
    return writers[name](kind, said)


def _json_lines(kind: str, said: Iterable[Said]) -> Iterator[str]:
    del kind  # alike for all
    for example, made in said:
        texts = {n: x for n, x in _texts(example).items() if n not in made}
        line = {"id": made["id"], **texts, **made}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _texts(example: data_examples.Example) -> dict[str, Any]:
    """Returns the texts of an example by their names."""
    if isinstance(example, data_examples.TextExample):
        pair = {"text_pair": example.text_pair} if example.text_pair else {}
        return {"text": example.text, **pair}
    if isinstance(example, data_examples.QuestionExample):
        return {"question": example.question, "context": example.context}
    if isinstance(example, data_examples.ChoiceExample):
        return {"context": example.context, "choices": list(example.choices)}
    return {"text": example.text}


def _tsv(kind: str, said: Iterable[Said]) -> Iterator[str]:
    """Yields one line an example, or one a span."""
    columns = _COLUMNS[kind]
    yield "\t".join(columns) + "\n"
    for _, made in said:
        for row in _rows(kind, made):
            yield "\t".join(_cell(row[name]) for name in columns) + "\n"


_SPAN = ("start", "end", "text")
_COLUMNS = {
    "classification": ("id", "label", "probability"),
    "regression": ("id", "score"),
    "matching": ("id", "similarity"),
    "multiple_choice": ("id", "label", "probability"),
    "span": ("id", "answer", "start", "end", "probability"),
    "tagging": ("id", *_SPAN, "type", "probability"),
    "srl": ("id", "predicate", *_SPAN, "role"),
}


def _rows(kind: str, made: task.Prediction) -> list[dict[str, Any]]:
    """Returns the lines of a prediction, by column."""
    if kind == "tagging":
        spans = made["entities"] if "entities" in made else []
        return [{"id": made["id"], **span} for span in spans]
    if kind == "srl":
        word = made["predicate"]["text"]
        return [{"id": made["id"], "predicate": word, **role} for role in made["roles"]]
    if kind == "classification" and "labels" in made:
        given = made["labels"]
        odds = [made["probabilities"][label] for label in given]
        return [made | {"label": ",".join(given), "probability": min(odds, default=1)}]
    if kind in ("classification", "multiple_choice"):
        odds = made["probabilities"]
        best = max(odds.values() if isinstance(odds, dict) else odds)
        return [made | {"probability": best}]
    return [made]


def _cell(value: Any) -> str:
    """Returns a value without what would break the line."""
    text = "" if value is None else str(value)
    return " ".join(text.replace("\t", " ").splitlines())


def _conll(kind: str, said: Iterable[Said]) -> Iterator[str]:
    del kind  # both have tokens and tags
    for example, made in said:
        assert isinstance(example, data_examples.TaggedExample)
        words = [example.text[start:end] for start, end in example.tokens]
        tagged = zip(words, made["tags"], strict=True)
        yield "".join(f"{_cell(word)}\t{tag}\n" for word, tag in tagged) + "\n"


def _glue(kind: str, said: Iterable[Said]) -> Iterator[str]:
    yield "index\tprediction\n"
    for number, (_, made) in enumerate(said):
        value = f"{made['score']:.3f}" if kind == "regression" else made["label"]
        yield f"{number}\t{_cell(value)}\n"


def _clue(kind: str, said: Iterable[Said]) -> Iterator[str]:
    del kind  # both have a label
    for _, made in said:
        number = int(made["id"]) if made["id"].isdigit() else made["id"]
        line = {"id": number, "label": made["label"]}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _squad(kind: str, said: Iterable[Said]) -> Iterator[str]:
    """Yields one object, entry by entry: it may be larger than memory."""
    del kind  # answers alone
    yield "{"
    for number, (_, made) in enumerate(said):
        entry = json.dumps({made["id"]: made["answer"]}, ensure_ascii=False)[1:-1]
        yield (",\n " if number else "\n ") + entry
    yield "\n}\n"
