"""Questions on contexts: SQuAD 1.1 and 2.0, DRCD and CMRC 2018 as files, and as lines.

Publishers differ in small things: `id` or `query_id`, `question` or `query_text`,
`context` or `context_text`, paragraphs below articles or articles that are paragraphs
themselves, answers without their start.
"""

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert_jax import errors
from bert_jax.data import text_files
from bert_jax.data.labeled import examples, table_records
from bert_jax.data.labeled.examples import ExampleRequest
from bert_jax.data.labeled.table_records import BrokenRecord, TableRecord
from bert_jax.foundation import json_file

MOVED = "answers moved to where their text is"
DROPPED = "answers left out that are not in their context"
CONTRADICTED = "answers left out of questions said to have none"
ELSEWHERE = "answers scored that are not in their context word for word"
EMPTY = "questions that are empty"

_IDS = ("id", "query_id", "qid")
_QUESTIONS = ("question", "query_text", "query")
_CONTEXTS = ("context", "context_text")


def read(
    file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.QuestionExample]:
    """Yields the questions of a JSON document, which is read into memory.

    Raises:
      InputError: the document has another format, an answer to learn from is misplaced
        (unless `request.repair`), or a context or question is empty.
    """
    for where, title, context, questions in _paragraphs(file, request, notes):
        try:
            may_be_empty = request.takes_empty
            table_records.text(context, "context", where, may_be_empty=may_be_empty)
        except BrokenRecord as error:
            for _ in questions or [None]:
                table_records.leave_out(error, where, request, notes)
            continue
        for number, question in enumerate(questions):
            at = f"{where}.qas[{number}]"
            try:
                example = _listed_question(question, context, title, at, request, notes)
            except BrokenRecord as error:
                table_records.leave_out(error, at, request, notes)
                continue
            yield example


def _listed_question(
    question: Any,
    context: Any,
    title: str,
    where: str,
    request: ExampleRequest,
    notes: Counter[str],
) -> examples.QuestionExample:
    """Returns the example of a question of a document."""
    if not isinstance(question, dict):
        raise _malformed(where, "is not an object")
    name = table_records.label(_first(question, _IDS, where), where)
    if name is None:
        raise _malformed(where, "has an empty id")
    where = f"{where} (question {name})"
    return _question(question, context, title, name, where, request, notes)


def of_records(
    records: Iterable[TableRecord], request: ExampleRequest, notes: Counter[str]
) -> Iterator[examples.QuestionExample]:
    """Returns the questions of flat records: JSON lines, or a dataset of TFDS."""
    convert = functools.partial(_of_record, request=request, notes=notes)
    rows = zip(records, map(str, itertools.count()), strict=False)
    return table_records.converted(rows, convert, request, notes)


def _of_record(
    record: TableRecord, number: str, request: ExampleRequest, notes: Counter[str]
) -> examples.QuestionExample:
    """Returns the example of a flat record; its number where it has no id."""
    where, cells = record.where, record.cells
    key = next((key for key in _IDS if key in cells), None)
    name = number
    if key is not None:
        name = table_records.label(cells[key], where) or name
    context = _first(cells, _CONTEXTS, where)
    title = _title(cells, where)
    return _question(cells, context, title, name, where, request, notes)


def _paragraphs(
    file: text_files.NamedPath, request: ExampleRequest, notes: Counter[str]
) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Yields the paragraphs of a document: where, title, context, questions."""
    content = text_files.decode(text_files.document(file), file.path, 1, request.faults)
    if content.lstrip().startswith("["):  # CMRC's own shape: a list of contexts
        content = f'{{"data": {content}}}'
    document = json_file.parse_object(content, str(file.path))
    articles = _first(document, ("data",), str(file.path))
    articles = _listed(articles, f"{file.path}: data")
    for i, article in enumerate(articles):
        where = f"{file.path}: data[{i}]"
        try:
            parts = _paragraphs_of(article, where)
        except BrokenRecord as error:
            table_records.leave_out(error, where, request, notes)
            continue
        for at, title, paragraph in parts:
            try:
                part = _paragraph(paragraph, title, at)
            except BrokenRecord as error:
                table_records.leave_out(error, at, request, notes)
                continue
            yield part


def _paragraphs_of(article: Any, where: str) -> list[tuple[str, str, Any]]:
    """Returns the paragraphs of an article: where, title, paragraph."""
    if not isinstance(article, dict):
        raise _malformed(where, "is not an object")
    title = _title(article, where)
    if "paragraphs" not in article:
        return [(where, title, article)]
    where = f"{where}.paragraphs"
    listed = enumerate(_listed(article["paragraphs"], where))
    return [(f"{where}[{number}]", title, paragraph) for number, paragraph in listed]


def _title(article: Mapping[str, Any], where: str) -> str:
    title = article["title"] if "title" in article else None
    if not isinstance(title, str | None):
        raise _malformed(where, "has a title that is not a text")
    table_records.check_unicode(title or "", where)
    return title or ""


def _paragraph(
    paragraph: Any, title: str, where: str
) -> tuple[str, str, Any, list[Any]]:
    if not isinstance(paragraph, dict):
        raise _malformed(where, "is not an object")
    questions = _listed(_first(paragraph, ("qas",), where), f"{where}.qas")
    return where, title, _first(paragraph, _CONTEXTS, where), questions


def _question(
    question: Mapping[str, Any],
    context: Any,
    title: str,
    name: str,
    where: str,
    request: ExampleRequest,
    notes: Counter[str],
) -> examples.QuestionExample:
    """Returns the example of a question."""
    is_open = request.takes_empty
    context = table_records.text(context, "context", where, may_be_empty=is_open)
    text = _first(question, _QUESTIONS, where)
    if request.repair and isinstance(text, str) and not text.strip():
        notes[EMPTY] += 1
    else:
        text = table_records.text(text, "question", where, may_be_empty=is_open)
    is_impossible = _is_impossible(question, where)
    found = _texts_and_starts(question, where)
    gold = tuple(text for text, _ in found)
    answers = _answers(found, context, where, request, notes)
    if request.is_scored:  # answers count in any case, as in the official script
        is_impossible = is_impossible and not gold
    if is_impossible and gold:
        if not request.repair:
            raise errors.InputError(
                f"{where} is marked impossible, but has answers. Remove one of the "
                f"two, or set {errors.setting('data.repair')}, which leaves the "
                "answers out."
            )
        notes[CONTRADICTED] += len(gold)
        answers, gold = (), ()
    is_labeled = bool(gold if request.is_scored else answers)
    is_labeled = is_labeled or (is_impossible and "answers" in question)
    if request.needs_labels and not is_labeled and not request.repair:
        raise errors.InputError(
            f"{where} has no answer, and is not marked impossible. Give it "
            'answers, or "is_impossible": true, or remove it.'
        )
    return examples.QuestionExample(
        where,
        name,
        text,
        context,
        answers,
        is_impossible,
        is_labeled,
        title,
        () if gold == tuple(answer.text for answer in answers) else gold,
    )


def _is_impossible(question: Mapping[str, Any], where: str) -> bool:
    """Returns whether a question is marked as having no answer."""
    if "is_impossible" not in question:
        return False
    value = question["is_impossible"]
    if value not in (True, False, None):  # also 1 and 0, and numpy booleans
        raise _malformed(
            where, f"has {value!r} for is_impossible, which must be true or false"
        )
    return bool(value)


def _answers(
    given: list[tuple[str, int | None]],
    context: str,
    where: str,
    request: ExampleRequest,
    notes: Counter[str],
) -> tuple[examples.Answer, ...]:
    """Returns the answers that are in the context."""
    is_learned = request.needs_labels and not request.is_scored
    answers = []
    for text, start in given:
        found = _find_answer(text, start, context)
        if is_learned and (found is None or found != start):
            if not request.repair:
                raise _misplaced(text, start, found, context, where)
            notes[DROPPED if found is None else MOVED] += 1
        elif request.is_scored and found is None:
            notes[ELSEWHERE] += 1
        if found is not None:
            answers.append(examples.Answer(text, found))
    return tuple(answers)


def _texts_and_starts(
    question: Mapping[str, Any], where: str
) -> list[tuple[str, int | None]]:
    """Returns the answers of a question and their starts; a start of -1 counts as None.

    A number becomes its JSON text.
    """
    answers = question["answers"] if "answers" in question else None
    if answers is None:
        return []
    if isinstance(answers, dict):  # columns, as TFDS and others have them
        texts = _listed(_first(answers, ("text",), where), f"{where}: answers.text")
        starts = _listed(
            _first(answers, ("answer_start",), where), f"{where}: answers.answer_start"
        )
        if len(texts) != len(starts):
            raise _malformed(where, "has different numbers of answers and starts")
        answers = [
            {"text": text, "answer_start": start}
            for text, start in zip(texts, starts, strict=True)
        ]
    result = []
    for answer in _listed(answers, f"{where}: answers"):
        if not isinstance(answer, dict):
            answer = {"text": answer}
        text = _text_of(_first(answer, ("text",), where), where)
        start = answer["answer_start"] if "answer_start" in answer else None
        if start is not None and type(start) is not int:
            raise _malformed(
                where, f"has the answer_start {start!r}, which is not a number"
            )
        result.append((text, start))
    return result


def _text_of(answer: Any, where: str) -> str:
    """Returns the text of an answer, which may be written as a number."""
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    if is_number and math.isfinite(answer):
        return json.dumps(answer)
    if not isinstance(answer, str):
        raise _malformed(where, "has an answer that is not a text")
    table_records.check_unicode(answer, where)
    return answer


def _find_answer(text: str, start: int | None, context: str) -> int | None:
    """Returns the start of the occurrence of an answer nearest to the given start."""
    if not text.strip():
        return None
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    starts, at = [], context.find(text)
    while at >= 0:
        starts.append(at)
        at = context.find(text, at + 1)
    return min(starts, key=lambda x: abs(x - (start or 0)), default=None)


def _misplaced(
    text: str, start: int | None, found: int | None, context: str, where: str
) -> errors.InputError:
    """Returns the error for a misplaced answer."""
    problem = "has no answer_start"
    if start is not None:
        there = context[max(start, 0) : max(start, 0) + 20]
        problem = f"is not at its answer_start {start}, where the text is {there!r}"
    repair = "it is left out" if found is None else f"it is moved to {found}"
    return errors.InputError(
        f"{where}: the answer {text[:40]!r} {problem}. Fix it, or set "
        f"{errors.setting('data.repair')}: {repair}."
    )


def _first(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    """Returns the value of the first of these names that exists."""
    for name in names:
        if name in values:
            return values[name]
    raise _malformed(where, f"has no {' or '.join(map(repr, names))}")


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _malformed(where, "is not a list")
    return value


def _malformed(where: str, what: str) -> BrokenRecord:
    return BrokenRecord(
        f"{where} {what}. Use the format of SQuAD: data[].paragraphs[] of context "
        "and qas[] of id, question and answers[] of text and answer_start."
    )
