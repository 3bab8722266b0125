"""Questions with choices in the shape of C3, a JSON list of documents.

    [[["a paragraph", ...], [{"question": ..., "choice": [...], "answer": ...}], "id"]]

The answer is the text of one of the choices; a test file has none.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax import json_file
from bert_jax.data import lines
from bert_jax.data.corpus import left_out, sources
from bert_jax.data.labeled import cell_values, table_records


def records(
    file: sources.NamedPath, faults: lines.Faults = lines.Faults.REFUSE
) -> Iterator[table_records.Record]:
    """Yields a record a question: `context`, `question`, `choices`, `label`, `id`.

    Raises:
      InputError: the file has another shape, or an answer is none of the choices.
    """
    for number, document in enumerate(documents(file, faults)):
        where = f"{file.path}: [{number}]"
        is_whole = isinstance(document, list) and len(document) > 1
        paragraphs, questions = document[:2] if is_whole else ([], None)
        if not _are_texts(paragraphs) or not isinstance(questions, list):
            yield table_records.Record(where, {}, fault=_malformed(where))
            continue
        name = str(document[2]) if len(document) > 2 else str(number)
        for place, question in enumerate(questions):
            at = f"{where}, question {place}"
            own = {"id": f"{name}-{place}", "context": "\n".join(paragraphs)}
            try:
                yield table_records.Record(at, own | _cells(question, at))
            except cell_values.BrokenRecord as error:
                yield table_records.Record(at, own, fault=error)


def documents(
    file: sources.NamedPath, faults: lines.Faults = lines.Faults.REFUSE
) -> list[Any]:
    """Returns the documents of a file; raises InputError if it is no JSON list."""
    content = lines.decode(lines.document(file), file.path, 1, faults)
    with left_out.in_one_document(file.path):
        found = json_file.parse(content, str(file.path))
        if not isinstance(found, list):
            raise _malformed(str(file.path))
    return found


def _cells(question: Any, where: str) -> dict[str, Any]:
    """Returns what a question says; its label is the number of the right choice."""
    if not isinstance(question, Mapping) or "question" not in question:
        raise _malformed(where)
    choices: Any = question["choice"] if "choice" in question else None
    if not _are_texts(choices):
        raise _malformed(where)
    twice = next((each for each in choices if choices.count(each) > 1), None)
    if twice is not None:
        raise cell_values.BrokenRecord(
            f"{where}: the choice {twice!r} comes twice. Mend the record."
        )
    answer = question["answer"] if "answer" in question else None
    if answer not in ("", None) and answer not in choices:
        raise cell_values.BrokenRecord(
            f"{where}: the answer {answer!r} is none of the choices "
            f"({', '.join(choices)}). Mend the record."
        )
    label = choices.index(answer) if answer else None
    made = {"question": question["question"], "choices": choices, "label": label}
    return made | ({"id": question["id"]} if "id" in question else {})


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _malformed(where: str) -> cell_values.BrokenRecord:
    return cell_values.BrokenRecord(
        f"{where} has not the shape of C3: a list of documents, each a list of its "
        "paragraphs, its questions (question, choice, answer) and its id."
    )
