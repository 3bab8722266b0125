"""Finds the columns of an example: as named by the user, or by common names.

The common names are those of GLUE, CLUE, SICK, SNLI, SWAG, HellaSwag, RACE and C-Eval,
of popular tables on Kaggle, and what Chinese tables call the same columns. They are
compared without case, surrounding blanks and byte order marks; the first in the list
that a table has is used.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from bert_jax import errors
from bert_jax.data.labeled import example_request
from bert_jax.data.labeled.example_request import ExampleRequest

_IDS = ("id", "index", "idx", "guid", "pair_id", "pairid", "编号", "序号", "索引")
_PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("premise", "hypothesis"),
    ("sentence_a", "sentence_b"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("#1 string", "#2 string"),
    ("keyword", "abst"),
    ("query", "title"),
    ("句子1", "句子2"),
    ("句子一", "句子二"),
    ("文本1", "文本2"),
    ("文本一", "文本二"),
    ("问题1", "问题2"),
    ("前提", "假设"),
    ("问题", "句子"),
)
_TEXTS = (
    *("text", "sentence", "content", "review", "comment", "comment_text"),
    *("headline", "title"),
)
_OTHER_TEXTS = (
    *("tweet", "body", "message", "utterance", "document"),
    *("文本", "句子", "内容", "文本内容", "评论", "评论内容", "正文", "标题", "文章"),
    *("內容", "內文", "評論", "留言", "標題"),
)
_LABELS = (
    *("label", "labels", "gold_label", "quality", "is_duplicate"),
    *("entailment_judgment", "class", "category", "answer", "label_desc"),
    *("sentiment", "intent"),
    *("标签", "类别", "分类", "情感", "情感倾向", "意图", "答案"),
    *("標籤", "標簽", "類別", "分類", "情感傾向", "意圖"),
)
_SCORES = (
    *("score", "similarity", "similarity_score", "relatedness_score"),
    *("相似度", "得分", "分数", "评分", "分數", "評分"),
)
_CONTEXTS = (
    ("sent1", "sent2"),
    ("ctx_a", "ctx_b"),
    ("article", "question"),
    ("context", "question"),
    ("文章", "问题"),
    ("上下文", "问题"),
)
_SINGLE_CONTEXTS = (
    *("startphrase", "context", "ctx", "premise", "question", "text"),
    *("上下文", "问题", "文本"),
)
_CHOICE_LISTS = ("choices", "endings", "options", "选项")
_NUMBERED_CHOICE = re.compile(r"(?:ending|choice|option|选项)_?\d{1,2}")
TEXT_NAMES = frozenset((*_TEXTS, *_OTHER_TEXTS, *_SINGLE_CONTEXTS)) | {
    first for first, _ in (*_PAIRS, *_CONTEXTS)
}
_KNOWN = TEXT_NAMES.union(*_PAIRS, *_CONTEXTS, _IDS, _LABELS, _SCORES, _CHOICE_LISTS)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?\s*")


@dataclasses.dataclass(frozen=True)
class ChosenColumns:
    """The names of the columns of an example; None for missing ones.

    `flags` are the columns of a table with one column per label; `label` is then None.
    """

    id: str | None
    text: str
    text_pair: str | None
    label: str | None
    score: str | None
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def name_of(cell: str) -> str:
    """Returns the name in a header cell, without surrounding blanks and marks."""
    return cell.strip().strip("\ufeff\u200b").strip()


def usual_names(cells: Sequence[str]) -> tuple[str, ...]:
    """Returns the common names among cells, each once, as they are spelled there.

    >>> usual_names([" Text", "note", "LABEL", "text"])
    ('Text', 'LABEL')
    """
    found: dict[str, str] = {}
    for name in map(name_of, cells):
        if name.lower() in _KNOWN or _NUMBERED_CHOICE.fullmatch(name.lower()):
            found.setdefault(name.lower(), name)
    return tuple(found.values())


def is_header(
    cells: Sequence[str],
    request: ExampleRequest,
    following: Sequence[Sequence[str]] = (),
) -> bool:
    """Returns whether the first line of a table is its header.

    If the request leaves it open, this takes two common names, or one that the request
    gives; where labels are needed, a given name is enough (if the line does not have
    it, the error lists its names). With a single common name the rows decide: see
    `_is_above_numbers` and `have_row_names`.

    Args:
      cells: the cells of the first line.
      request: the header and the columns, by name or number.
      following: the cells of some of the next rows.
    """
    if request.header != "auto":
        return request.header == "true"
    given = _given_names(request)
    if given and (request.needs_labels or given & {name_of(cell) for cell in cells}):
        return True
    count = len(usual_names(cells))
    if count == 1:
        has_row_names = have_row_names(cells, following)
        return has_row_names or _is_above_numbers(cells, following)
    return count > 1


def _given_names(request: ExampleRequest) -> set[str]:
    """Returns the columns that a request gives by name."""
    columns = request.columns
    given = {columns.id, columns.text, columns.text_pair, columns.label, columns.score}
    given |= {*columns.choices, *_several(columns.label, request)}
    return {name for name in given if not _is_number(name)} - {example_request.NONE}


def have_row_names(cells: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Returns whether rows begin with their number, without a header, as in R."""
    expected = [(str(n), len(cells) + 1) for n in range(1, len(following) + 1)]
    return bool(following) and [(row[0], len(row)) for row in following] == expected


def _is_above_numbers(cells: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Returns whether a word is above a column of numbers, and so is its name.

    The first column may have an empty name, as the index of pandas has.
    """
    are_even = all(len(row) == len(cells) for row in following)
    if len(cells) < 2 or not following or not are_even:
        return False
    for at, cell in enumerate(cells):
        is_index = at == 0 and not name_of(cell)
        is_word = bool(name_of(cell)) and not _NUMBER.fullmatch(cell)
        are_numbers = all(_NUMBER.fullmatch(row[at]) for row in following)
        if (is_word or is_index) and are_numbers:
            return True
    return False


def _is_number(name: str) -> bool:
    return not name or re.fullmatch(r"-?\d+", name) is not None


def choose_columns(
    names: Sequence[str], request: ExampleRequest, where: str
) -> ChosenColumns:
    """Chooses the columns of an example.

    Raises InputError for a given column that is not among `names`, and if the text, or
    the label where examples need one, cannot be found.
    """
    usual = {name_of(name).lower(): name for name in reversed(names)}
    given = request.columns
    text, pair = _texts(names, usual, request, where)
    flags = _flags(names, request, where)
    choices = tuple(_given(c, "choices", names, where) or "" for c in given.choices)
    if request.form.is_choice and not choices:
        choices = _usual_choices(usual, names, where)
    return ChosenColumns(
        id=_given_or_usual(given.id, "id", names, usual, _IDS, where),
        text=text,
        text_pair=pair,
        label=None if flags else _label(names, usual, request, where),
        score=_score(names, usual, request, where),
        choices=choices,
        flags=flags,
    )


def _given(name: str, what: str, names: Sequence[str], where: str) -> str | None:
    """Returns the name of a column that is given by name or number."""
    if name in names:
        return name
    if name == example_request.NONE:
        return None
    if _is_number(name):
        return names[example_request.column_number(name, len(names), what, where)]
    more = ""
    if what == "label" and "," in name:
        more = ". For one column per label train with data.multi_label=true"
    raise errors.InputError(
        f"{where}: there is no column {name!r} for "
        f"{errors.setting(f'data.columns.{what}')}, only "
        f"{_listed(names)}{more}"
    )


def _given_or_usual(
    name: str,
    what: str,
    names: Sequence[str],
    usual: Mapping[str, str],
    wanted: Sequence[str],
    where: str,
) -> str | None:
    if name:
        return _given(name, what, names, where)
    return next((usual[each] for each in wanted if each in usual), None)


def _texts(
    names: Sequence[str], usual: Mapping[str, str], request: ExampleRequest, where: str
) -> tuple[str, str | None]:
    """Returns the columns of the first text, and of the second if there is one."""
    given = request.columns
    text = _given(given.text, "text", names, where) if given.text else None
    pair = _given(given.text_pair, "text_pair", names, where) if given.text_pair else ""
    if text is None:
        text, usual_pair = _usual_texts(names, usual, request.form.is_choice)
        pair = usual_pair if pair == "" else pair
    if text is None:
        raise errors.InputError(
            f"{where}: cannot find the column of the text among {_listed(names)}. "
            f"{_how_to_name(names, 'text')} (and "
            f"{errors.setting('data.columns.text_pair', 'NAME')})."
        )
    return text, pair or None


def _usual_texts(
    names: Sequence[str], usual: Mapping[str, str], is_choice: bool
) -> tuple[str | None, str | None]:
    for first, second in _CONTEXTS if is_choice else _PAIRS:
        if first in usual and second in usual:
            return usual[first], usual[second]
    singles = _SINGLE_CONTEXTS if is_choice else _singles()
    for name in singles:
        if name in usual:
            return usual[name], None
    return (names[0], None) if len(names) == 1 and names[0] == "1" else (None, None)


def _singles() -> tuple[str, ...]:
    """Returns the common names of a single text, including the first of a pair."""
    return (*_TEXTS, *(first for first, _ in _PAIRS), *_OTHER_TEXTS)


def _label(
    names: Sequence[str], usual: Mapping[str, str], request: ExampleRequest, where: str
) -> str | None:
    """Returns the column of the label, or None without one."""
    form = request.form
    if "label" not in form.targets:
        return None
    name = request.columns.label
    if name and not request.needs_labels and not _is_there(name, names):
        return None
    if not name and _score(names, usual, request, where):
        return None  # scores are richer, as in SICK; name the label to use both
    found = _given_or_usual(name, "label", names, usual, _LABELS, where)
    if found is None and request.needs_labels and form.needs_target:
        more = ""
        if request.multi_label:
            more = " If there is one column per label, name all of them, with commas."
        raise _no_label(names, "label", where, more)
    return found


def _several(label: str, request: ExampleRequest) -> tuple[str, ...]:
    """Returns the columns of labels, if several are given with commas or plus."""
    if not request.multi_label or not re.search(r"[,+]", label):
        return ()
    return tuple(name.strip() for name in re.split(r"[,+]", label) if name.strip())


def _flags(
    names: Sequence[str], request: ExampleRequest, where: str
) -> tuple[str, ...]:
    """Returns the given columns of a table with one column per label."""
    given = request.columns.label
    several = () if given in names else _several(given, request)
    if several and not request.needs_labels:
        if not all(_is_there(name, names) for name in several):
            return ()
    found = (_given(name, "label", names, where) for name in several)
    return tuple(name for name in found if name is not None)


def _score(
    names: Sequence[str], usual: Mapping[str, str], request: ExampleRequest, where: str
) -> str | None:
    """Returns the column of the score; a regression's may be called its label."""
    targets = request.form.targets
    if "score" not in targets:
        return None
    is_regression = "label" not in targets
    given = request.columns
    name = given.score or (given.label if is_regression else "")
    if name and not request.needs_labels and not _is_there(name, names):
        return None
    wanted = (*_SCORES, *_LABELS[:3], "标签", "標籤") if is_regression else _SCORES
    found = _given_or_usual(name, "score", names, usual, wanted, where)
    if found is None and request.needs_labels and is_regression:
        raise _no_label(names, "score", where)
    return found


def _is_there(name: str, names: Sequence[str]) -> bool:
    """Returns whether a column that is given by name or number is among these."""
    if name in names or not _is_number(name):
        return name in names
    number = int(name)
    return number != 0 and -len(names) <= number <= len(names)


def _no_label(
    names: Sequence[str], what: str, where: str, more: str = ""
) -> errors.InputError:
    return errors.InputError(
        f"{where}: cannot find the column of the {what} among {_listed(names)}. "
        f"{_how_to_name(names, what)}.{more}"
    )


def _usual_choices(
    usual: Mapping[str, str], names: Sequence[str], where: str
) -> tuple[str, ...]:
    """Returns the columns of the choices: one with lists, or one per choice."""
    for name in _CHOICE_LISTS:
        if name in usual:
            return (usual[name],)
    numbered = [name for name in names if _NUMBERED_CHOICE.fullmatch(name.lower())]
    if numbered:
        return tuple(sorted(numbered, key=_number_in))
    letters = [letter for letter in "ABCDEFGH" if letter in names]
    if len(letters) > 1:
        return tuple(letters)
    raise errors.InputError(
        f"{where}: cannot find the columns of the choices among "
        f"{_listed(names)}. Name them: "
        f"{errors.setting('data.columns.choices', 'A+B')}."
    )


def _number_in(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _are_numbers(names: Sequence[str]) -> bool:
    """Returns whether columns have only numbers as names."""
    return list(names) == [str(number) for number in range(1, len(names) + 1)]


def _how_to_name(names: Sequence[str], what: str) -> str:
    if _are_numbers(names):
        return f"Set its number, as in {errors.setting(f'data.columns.{what}', '1')}"
    return f"Name it: {errors.setting(f'data.columns.{what}', 'NAME')}"


def _listed(names: Sequence[str]) -> str:
    """Writes the names of columns for a message."""
    if _are_numbers(names):
        header = errors.setting("data.header", "true")
        return f"columns 1 to {len(names)} without names ({header} names them)"
    return ", ".join(map(repr, names))
