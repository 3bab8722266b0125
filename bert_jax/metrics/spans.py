"""Exact match and F1 of answer spans, by the published rules for two languages.

English: SQuAD (arXiv:1606.05250 section 6.1, arXiv:1806.03822 for questions without an
answer): case, punctuation and articles do not count; F1 is over the common words. The
scripts of 1.1 and 2.0 differ in answers of only punctuation or articles. Chinese: CMRC
2018 (arXiv:1810.07366 section 4, also used for DRCD): each Chinese character is a word;
F1 is over the longest common run of words. Values are in [0, 1]; the published scripts
print percentages.
"""

import collections
import dataclasses
import difflib
import re
import string
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from bert_jax import errors

ENGLISH_1 = "english 1.1"  # the script of SQuAD 1.1; `english` is that of 2.0

_CHINESE = re.compile("[\u4e00-\u9fa5]")
_CHINESE_FRACTION = 0.3  # of the characters of the answers
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The punctuation that the Chinese rules remove; other ASCII punctuation stays.
_MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_NO_MARKS = str.maketrans("", "", _MARKS)
# Text that is not Chinese is split as by the script's Penn Treebank word tokenizer:
# punctuation is separated, except periods and commas inside words and numbers. On the
# 8,050 answers of DRCD dev and CMRC trial the words are the same, apart from the form
# of quotation marks.
_SEPARATE = r"""[;@#$%&?!()\[\]{}<>"–—]"""
_FINAL = r"""(?=[\])}>"']*$)"""
_CLITIC = r"(?:n't|'(?:s|m|d|ll|re|ve))\b"
_WORD = re.compile(
    rf"""\.{{2,}}|{_SEPARATE}|,|[.']{_FINAL}|{_CLITIC}"""
    rf"""|(?:(?!{_SEPARATE}|{_CLITIC}|[.']{_FINAL}|\.\.|,(?!\d))\S)+"""
)


@dataclasses.dataclass(frozen=True)
class AnsweredQuestion:
    """The annotators' answers to a question, and the predicted one.

    Attributes:
      answers: those of the annotators; none if the text has no answer.
      predicted: the predicted answer, or "" for no answer.
      best: the most likely answer, even if no answer is predicted.
      margin: the score of no answer minus that of `best`, on any scale: no answer is
        predicted if it is above a threshold. None if an answer is always predicted.
    """

    answers: tuple[str, ...]
    predicted: str
    best: str
    margin: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerScores:
    """Scores of questions.

    Attributes:
      metrics: `exact_match` and `f1`; if some have no answer, both also over those with
        (`has_answer_*`) and without (`no_answer_*`); if there are margins,
        `best_exact_match`, `best_f1` and the threshold of each (`*_threshold`).
      exact_match: of each question, 0 or 1.
      f1: of each question.
    """

    metrics: dict[str, float]
    exact_match: Float[np.ndarray, " n"]
    f1: Float[np.ndarray, " n"]


def evaluate(questions: Sequence[AnsweredQuestion]) -> AnswerScores:
    """Scores the answers to questions, by the rules of their language.

    Raises:
      InputError: no questions.
    """
    if not questions:
        raise errors.InputError("there are no questions to score: give at least one")
    language = language_of([text for one in questions for text in one.answers])
    can_be_empty = any(not one.answers or one.margin is not None for one in questions)
    of_answers = language
    if language == "english" and not can_be_empty:
        of_answers = ENGLISH_1
    pairs = [(question.answers, question.predicted) for question in questions]
    exact = np.array([exact_match(*pair, of_answers) for pair in pairs])
    overlap = np.array([f1(*pair, of_answers) for pair in pairs])
    metrics = _means(questions, exact, overlap)
    if all(question.margin is not None for question in questions):
        metrics |= _best("exact_match", exact_match, questions, language)
        metrics |= _best("f1", f1, questions, language)
    return AnswerScores(metrics, exact, overlap)


def language_of(answers: Sequence[str]) -> str:
    """Returns the language whose rules fit these answers.

    It is Chinese if more than three in ten of their characters are.

    >>> language_of(["1786年2月2日", "德國學者"]), language_of(["in Xi'an (西安)"])
    ('chinese', 'english')
    """
    text = "".join("".join(answers).split())
    chinese = len(_CHINESE.findall(text))
    return "chinese" if chinese > _CHINESE_FRACTION * len(text) else "english"


def exact_match(answers: Sequence[str], predicted: str, language: str) -> float:
    """Returns 1 if the predicted answer is that of an annotator, else 0.

    >>> exact_match(["The Nile."], "nile", "english")
    1.0
    >>> exact_match(["《梵語》"], "梵語。", "chinese")
    1.0
    """
    normal = _normal_chinese if language == "chinese" else _normal
    valid = _valid(answers, language)
    return float(normal(predicted) in {normal(answer) for answer in valid})


def f1(answers: Sequence[str], predicted: str, language: str) -> float:
    """Returns the best F1 of an answer against those of the annotators, in [0, 1].

    >>> f1(["upper Nile river"], "the Nile", "english")
    0.5
    >>> f1(["德國學者陸特"], "學者", "chinese")
    0.5
    """
    if not answers and language == "chinese":
        return float(not predicted)
    score = _run_f1 if language == "chinese" else _word_f1
    if language == ENGLISH_1 and not _normal(predicted):
        return 0.0  # no common words, not even with an empty answer
    return max(score(answer, predicted) for answer in _valid(answers, language))


def _valid(answers: Sequence[str], language: str) -> Sequence[str]:
    """Returns the valid answers, or an empty one if there is none.

    English answers that normalize to nothing are invalid, as in SQuAD 2.0's script.
    """
    if language == "english":
        answers = [answer for answer in answers if _normal(answer)]
    return answers or [""]


def _normal(text: str) -> str:
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def _normal_chinese(text: str) -> str:
    return text.lower().strip().translate(_NO_MARKS)


def _word_f1(answer: str, predicted: str) -> float:
    """Returns the F1 of two bags of words; it is 1 if both are empty."""
    true, words = _normal(answer).split(), _normal(predicted).split()
    if not true or not words:
        return float(true == words)
    common = collections.Counter(true) & collections.Counter(words)
    return _f1(common.total(), len(words), len(true))


def _run_f1(answer: str, predicted: str) -> float:
    """Returns the F1 of the longest common run of words."""
    true, words = segments(answer), segments(predicted)
    match = difflib.SequenceMatcher(None, true, words, autojunk=False)
    return _f1(match.find_longest_match().size, len(words), len(true))


def _f1(common: int, predicted: int, true: int) -> float:
    return 2 * common / (predicted + true) if common else 0.0


def segments(text: str) -> list[str]:
    """Splits an answer by the Chinese rules: Chinese characters, and other words.

    >>> segments("由Ubisoft於1998年（民國87）發行, 3.5%")
    ['由', 'ubisoft', '於', '1998', '年', '民', '國', '87', '發', '行', ',', '3.5', '%']
    """
    words = []
    for part in re.split(f"({_CHINESE.pattern})", _normal_chinese(text)):
        words += [part] if _CHINESE.fullmatch(part) else _WORD.findall(part)
    return words


def _means(
    questions: Sequence[AnsweredQuestion],
    exact: Float[np.ndarray, " n"],
    overlap: Float[np.ndarray, " n"],
) -> dict[str, float]:
    """Returns means over all questions, and over those with and without an answer."""
    answered = np.array([bool(question.answers) for question in questions])
    parts = {"": np.ones(len(questions), bool)}
    if not answered.all():
        parts |= {"has_answer_": answered, "no_answer_": ~answered}
    return {
        f"{part}{name}": float(values[rows].mean())
        for part, rows in parts.items()
        if rows.any()
        for name, values in (("exact_match", exact), ("f1", overlap))
    }


def _best(
    name: str,
    score: Callable[[Sequence[str], str, str], float],
    questions: Sequence[AnsweredQuestion],
    language: str,
) -> dict[str, float]:
    """Returns the best mean that a threshold on the margins can reach, and it.

    No answer is predicted for margins above the threshold; questions of equal margin
    go together. Of equally good thresholds the lowest is returned, below all margins if
    predicting no answer at all is best.
    """
    margins = np.array([question.margin for question in questions], np.float64)
    none = np.array([float(not q.answers) for q in questions])
    answered = np.array([score(q.answers, q.best, language) for q in questions])
    thresholds, group = np.unique(margins, return_inverse=True)
    gains = np.bincount(group, answered - none, len(thresholds))
    totals = none.sum() + np.append(0.0, np.cumsum(gains))
    thresholds = np.append(np.nextafter(thresholds[0], -np.inf), thresholds)
    best = int(np.argmax(totals))
    return {
        f"best_{name}": float(totals[best]) / len(questions),
        f"best_{name}_threshold": float(thresholds[best]),
    }
