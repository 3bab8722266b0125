"""Finds the columns of an example: as named by the user, or by common names.

The common names are those of GLUE, CLUE, SICK, SNLI, SWAG, HellaSwag, RACE and C-Eval,
of popular tables on Kaggle, and what Chinese tables call the same columns. They are
compared without case, surrounding blanks and byte order marks; the first in the list
that a table has is used.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from bert_jax import errors
from bert_jax.data.labeled import examples
from bert_jax.data.labeled.examples import ExampleRequest

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
    return {name for name in given if not _is_number(name)} - {examples.NONE}


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
    table = _Table(names, request, where)
    given = request.columns
    text, pair = table.texts()
    flags = table.flags()
    choices = tuple(table.given(name, "choices") or "" for name in given.choices)
    if request.form.is_choice and not choices:
        choices = table.usual_choices()
    return ChosenColumns(
        id=table.given_or_usual(given.id, "id", _IDS),
        text=text,
        text_pair=pair,
        label=None if flags else table.label(),
        score=table.score(),
        choices=choices,
        flags=flags,
    )


@dataclasses.dataclass(frozen=True)
class _Table:
    """The names of the columns of a table, in which those of an example are found."""

    names: Sequence[str]
    request: ExampleRequest
    where: str

    @functools.cached_property
    def usual(self) -> dict[str, str]:
        """The names as they are spelled, by how they are compared."""
        return {name_of(name).lower(): name for name in reversed(self.names)}

    def given(self, name: str, what: str) -> str | None:
        """Returns the name of a column that is given by name or number."""
        if name in self.names:
            return name
        if name == examples.NONE:
            return None
        if _is_number(name):
            count = len(self.names)
            at = examples.column_number(name, count, what, self.where)
            return self.names[at]
        more = ""
        if what == "label" and "," in name:
            more = ". For one column per label train with data.multi_label=true"
        raise errors.InputError(
            f"{self.where}: there is no column {name!r} for "
            f"{errors.setting(f'data.columns.{what}')}, only {self._listed}{more}"
        )

    def given_or_usual(self, name: str, what: str, wanted: Sequence[str]) -> str | None:
        """Returns a given column, or the first of the wanted names."""
        if name:
            return self.given(name, what)
        return next((self.usual[each] for each in wanted if each in self.usual), None)

    def texts(self) -> tuple[str, str | None]:
        """Returns the columns of the first text, and of the second if there is one."""
        given = self.request.columns
        text = self.given(given.text, "text") if given.text else None
        pair = self.given(given.text_pair, "text_pair") if given.text_pair else ""
        if text is None:
            text, usual_pair = self._usual_texts()
            pair = usual_pair if pair == "" else pair
        if text is None:
            pair_column = errors.setting("data.columns.text_pair", "NAME")
            raise self._missing("text", f" A second text is {pair_column}.")
        return text, pair or None

    def _usual_texts(self) -> tuple[str | None, str | None]:
        is_choice = self.request.form.is_choice
        for first, second in _CONTEXTS if is_choice else _PAIRS:
            if first in self.usual and second in self.usual:
                return self.usual[first], self.usual[second]
        firsts = (first for first, _ in _PAIRS)
        singles = _SINGLE_CONTEXTS if is_choice else (*_TEXTS, *firsts, *_OTHER_TEXTS)
        for name in singles:
            if name in self.usual:
                return self.usual[name], None
        return (self.names[0] if [*self.names] == ["1"] else None), None

    def label(self) -> str | None:
        """Returns the column of the label, or None without one."""
        request, form = self.request, self.request.form
        if "label" not in form.targets:
            return None
        name = request.columns.label
        if name and not request.needs_labels and not self._has(name):
            return None
        if not name and self.score():
            return None  # scores are richer, as in SICK; name the label to use both
        found = self.given_or_usual(name, "label", _LABELS)
        if found is None and request.needs_labels and form.needs_target:
            more = " If there is one column per label, name all of them, with commas."
            raise self._missing("label", more if request.multi_label else "")
        return found

    def flags(self) -> tuple[str, ...]:
        """Returns the given columns of a table with one column per label."""
        label = self.request.columns.label
        several = () if label in self.names else _several(label, self.request)
        if not self.request.needs_labels and not all(map(self._has, several)):
            return ()
        found = (self.given(name, "label") for name in several)
        return tuple(name for name in found if name is not None)

    def score(self) -> str | None:
        """Returns the column of the score; a regression's may be called its label."""
        request, targets = self.request, self.request.form.targets
        if "score" not in targets:
            return None
        is_regression = "label" not in targets
        given = request.columns
        name = given.score or (given.label if is_regression else "")
        if name and not request.needs_labels and not self._has(name):
            return None
        wanted = (*_SCORES, *_LABELS[:3], "标签", "標籤") if is_regression else _SCORES
        found = self.given_or_usual(name, "score", wanted)
        if found is None and request.needs_labels and is_regression:
            raise self._missing("score")
        return found

    def usual_choices(self) -> tuple[str, ...]:
        """Returns the columns of the choices: one with lists, or one per choice."""
        for name in _CHOICE_LISTS:
            if name in self.usual:
                return (self.usual[name],)
        numbered = [x for x in self.names if _NUMBERED_CHOICE.fullmatch(x.lower())]
        if numbered:
            return tuple(sorted(numbered, key=lambda x: int(re.sub(r"\D", "", x))))
        letters = [letter for letter in "ABCDEFGH" if letter in self.names]
        if len(letters) > 1:
            return tuple(letters)
        raise self._missing("choices")

    def _has(self, name: str) -> bool:
        """Returns whether a column that is given by name or number is there."""
        if name in self.names or not _is_number(name):
            return name in self.names
        number = int(name)
        return number != 0 and -len(self.names) <= number <= len(self.names)

    def _missing(self, what: str, more: str = "") -> errors.InputError:
        """Returns the error for a column that cannot be found."""
        advice = f"Name it: {errors.setting(f'data.columns.{what}', 'NAME')}"
        if self._are_numbered:
            number = errors.setting(f"data.columns.{what}", "1")
            advice = f"Set its number, as in {number}"
        return errors.InputError(
            f"{self.where}: cannot find the column of the {what} among "
            f"{self._listed}. {advice}.{more}"
        )

    @property
    def _are_numbered(self) -> bool:
        """Whether the columns have only numbers as names."""
        return [*self.names] == [str(n) for n in range(1, len(self.names) + 1)]

    @property
    def _listed(self) -> str:
        """The names of the columns for a message."""
        if self._are_numbered:
            header = errors.setting("data.header", "true")
            return f"columns 1 to {len(self.names)} without names ({header} names them)"
        return ", ".join(map(repr, self.names))


def _several(label: str, request: ExampleRequest) -> tuple[str, ...]:
    """Returns the columns of labels, if several are given with commas or plus."""
    if not request.multi_label or not re.search(r"[,+]", label):
        return ()
    return tuple(name.strip() for name in re.split(r"[,+]", label) if name.strip())
