"""What a model says of examples, line by line in the format that was asked for.

jsonl   one object an example: what it says, beside the texts
tsv     one line an example, with a header; of entities and roles one a span, of other
        tags one a token
conll   a token and its tag a line, a blank line behind each sentence
glue    index and prediction, as the GLUE benchmark takes them
clue    {"id": ..., "label": ...} a line, as CLUE takes them; a label of entities is
        {type: {text: [[first character, last character], ...]}}
squad   one object, id -> answer, as the official script takes it
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.tasks import spec

# Format -> the tasks that have it.
FORMATS = {
    "jsonl": (),  # all
    "tsv": (),
    "conll": ("tagging", "srl"),
    "glue": ("classification", "regression"),
    "clue": ("classification", "multiple_choice", "tagging"),
    "squad": ("span",),
}

Said = tuple[data_examples.Example, spec.Prediction]


_ONE_LABEL = ("glue", "clue")


def check(name: str, kind: str, several_labels: bool = False) -> None:
    """Raises InputError unless predictions of a task have this format."""
    tasks = FORMATS[name]
    known = [other for other, of in FORMATS.items() if not of or kind in of]
    if tasks and kind not in tasks:
        raise errors.InputError(
            f"the format {name} is for {' and '.join(tasks)}, and this model's task is "
            f"{kind}: use one of {', '.join(known)}"
        )
    if several_labels and name in _ONE_LABEL:
        known = [other for other in known if other not in _ONE_LABEL]
        raise errors.InputError(
            f"the format {name} has one label a text, and this model gives several: "
            f"use one of {', '.join(known)}"
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
    for example, made in said:
        for row in _rows(kind, example, made):
            yield "\t".join(_cell(row[name]) for name in columns) + "\n"


_SPAN = ("start", "end", "text")
_COLUMNS = {
    "classification": ("id", "label", "probability"),
    "regression": ("id", "score"),
    "matching": ("id", "similarity", "label"),
    "multiple_choice": ("id", "label", "probability"),
    "span": ("id", "answer", "start", "end", "probability"),
    "tagging": ("id", *_SPAN, "type", "probability"),
    "srl": ("id", "predicate", *_SPAN, "role"),
}


def _rows(
    kind: str, example: data_examples.Example, made: spec.Prediction
) -> list[dict[str, Any]]:
    """Returns the lines of a prediction, by column."""
    if kind == "tagging":
        spans = made["entities"] if "entities" in made else _tokens(example, made)
        return [{"id": made["id"], **span} for span in spans]
    if kind == "srl":
        word = made["predicate"]["text"]
        return [{"id": made["id"], "predicate": word, **role} for role in made["roles"]]
    if kind == "classification" and "labels" in made:
        given = made["labels"]
        odds = [made["probabilities"][label] for label in given]
        sure = min(odds) if odds else None
        return [made | {"label": ",".join(given), "probability": sure}]
    if kind in ("classification", "multiple_choice"):
        odds = made["probabilities"]
        best = max(odds.values() if isinstance(odds, dict) else odds)
        return [made | {"probability": best}]
    if kind == "matching" and "label" not in made:  # no threshold was learned
        return [made | {"label": None}]
    return [made]


def _tokens(
    example: data_examples.Example, made: spec.Prediction
) -> list[dict[str, Any]]:
    """Returns the tokens of a sentence with their tags."""
    assert isinstance(example, data_examples.TaggedExample)
    each = zip(example.tokens, made["tags"], made["probabilities"], strict=True)
    return [
        {
            "start": start,
            "end": end,
            "text": example.text[start:end],
            "type": tag,
            "probability": odds,
        }
        for (start, end), tag, odds in each
    ]


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
    for _, made in said:
        number = int(made["id"]) if made["id"].isdecimal() else made["id"]
        label = _by_type(made) if kind == "tagging" else made["label"]
        line = {"id": number, "label": label}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _by_type(made: spec.Prediction) -> dict[str, dict[str, list[list[int]]]]:
    """Returns entities as CLUENER has them: the last character is inside."""
    if "entities" not in made:
        raise errors.InputError(
            "the format clue is for entities, and the tags of this model are not of "
            "such: use one of jsonl, tsv, conll"
        )
    label: dict[str, dict[str, list[list[int]]]] = {}
    for one in made["entities"]:
        places = label.setdefault(one["type"], {}).setdefault(one["text"], [])
        places.append([one["start"], one["end"] - 1])
    return label


def _squad(kind: str, said: Iterable[Said]) -> Iterator[str]:
    """Yields one object, entry by entry: it may be larger than memory."""
    del kind  # answers alone
    yield "{"
    for number, (_, made) in enumerate(said):
        entry = json.dumps({made["id"]: made["answer"]}, ensure_ascii=False)[1:-1]
        yield (",\n " if number else "\n ") + entry
    yield "\n}\n"
