"""Answers against those of annotators, by the published rules of two languages.

English: SQuAD (arXiv:1606.05250 section 6.1, arXiv:1806.03822 for questions without an
answer): case, punctuation and articles do not count; F1 over the words in common. The
scripts of 1.1 and 2.0 differ in answers that are nothing but punctuation or articles.
Chinese: CMRC 2018 (arXiv:1810.07366 section 4, used for DRCD too): every Chinese
character is a word; F1 over the longest run of words in common. Shares in [0, 1]; the
published scripts print them times 100.
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

LANGUAGES = ("auto", "english", "chinese")
ENGLISH_1 = "english 1.1"  # by the script of SQuAD 1.1; `english` is that of 2.0

_CHINESE = re.compile("[\u4e00-\u9fa5]")
_CHINESE_SHARE = 0.3  # of the characters of the answers
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The marks that the Chinese rules remove; ASCII's others stay.
_MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_NO_MARKS = str.maketrans("", "", _MARKS)
# What is not Chinese is cut as the script's word tokenizer (of the Penn Treebank) does:
# marks stand alone, but for full stops and commas inside words and numbers. On the
# 8,050 answers of DRCD's dev and CMRC's trial both give the same words, apart from how
# a quotation mark is spelt.
_ALONE = r"""[;@#$%&?!()\[\]{}<>"–—]"""
_FINAL = r"""(?=[\])}>"']*$)"""
_CLITIC = r"(?:n't|'(?:s|m|d|ll|re|ve))\b"
_WORD = re.compile(
    rf"""\.{{2,}}|{_ALONE}|,|[.']{_FINAL}|{_CLITIC}"""
    rf"""|(?:(?!{_ALONE}|{_CLITIC}|[.']{_FINAL}|\.\.|,(?!\d))\S)+"""
)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A question's answers, and what was found.

    Attributes:
      answers: those of the annotators; none if the text does not answer.
      found: the answer given, or "" for none.
      best: the best answer if one must be given.
      margin: how much more likely none is than `best`, on any scale: none is given
        where it is above a threshold. None where an answer is always given.
    """

    answers: tuple[str, ...]
    found: str
    best: str
    margin: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Scores of questions.

    Attributes:
      metrics: `exact_match` and `f1`; where some have no answer, both also of those
        with (`has_answer_*`) and without (`no_answer_*`); where there are margins,
        `best_exact_match`, `best_f1` and the threshold of each (`*_threshold`).
      exact_match: of each question, 0 or 1.
      f1: of each question.
      language: by whose rules.
    """

    metrics: dict[str, float]
    exact_match: Float[np.ndarray, " n"]
    f1: Float[np.ndarray, " n"]
    language: str


def evaluate(questions: Sequence[Judged], language: str = "auto") -> Result:
    """Scores the answers to questions.

    Args:
      language: of `LANGUAGES`; `auto` is Chinese where three in ten characters of the
        annotators' answers are.

    Raises:
      InputError: there is no question, or the language is unknown.
    """
    if not questions:
        raise errors.InputError("there is no question to score: give at least one")
    if language not in LANGUAGES:
        raise errors.InputError(
            f"the language of answers is {language!r}: use one of {LANGUAGES}"
        )
    if language == "auto":
        language = language_of([text for one in questions for text in one.answers])
    if language == "english" and not _is_version2(questions):
        language = ENGLISH_1
    exact = np.array([exact_match(q.answers, q.found, language) for q in questions])
    overlap = np.array([f1(q.answers, q.found, language) for q in questions])
    metrics = _means(questions, exact, overlap)
    language = "english" if language == ENGLISH_1 else language
    if all(question.margin is not None for question in questions):
        metrics |= _best("exact_match", exact_match, questions, language)
        metrics |= _best("f1", f1, questions, language)
    return Result(metrics, exact, overlap, language)


def _is_version2(questions: Sequence[Judged]) -> bool:
    """Returns whether questions may have no answer, as in SQuAD 2.0."""
    return any(not one.answers or one.margin is not None for one in questions)


def language_of(answers: Sequence[str]) -> str:
    """Returns the language whose rules fit these answers.

    >>> language_of(["1786年2月2日", "德國學者"]), language_of(["in Xi'an (西安)"])
    ('chinese', 'english')
    """
    text = "".join("".join(answers).split())
    chinese = len(_CHINESE.findall(text))
    return "chinese" if chinese > _CHINESE_SHARE * len(text) else "english"


def exact_match(answers: Sequence[str], found: str, language: str) -> float:
    """Returns 1 if the answer found is that of an annotator, else 0.

    >>> exact_match(["The Nile."], "nile", "english")
    1.0
    >>> exact_match(["《梵語》"], "梵語。", "chinese")
    1.0
    """
    normal = _normal_chinese if language == "chinese" else _normal
    wanted = _wanted(answers, language)
    return float(normal(found) in {normal(answer) for answer in wanted})


def f1(answers: Sequence[str], found: str, language: str) -> float:
    """Returns the best F1 of an answer with those of the annotators, in [0, 1].

    >>> f1(["upper Nile river"], "the Nile", "english")
    0.5
    >>> f1(["德國學者陸特"], "學者", "chinese")
    0.5
    """
    if not answers and language == "chinese":
        return float(not found)
    score = _run_f1 if language == "chinese" else _word_f1
    if language == ENGLISH_1 and not _normal(found):
        return 0.0  # nothing is in common, not even with an empty answer
    return max(score(answer, found) for answer in _wanted(answers, language))


def _wanted(answers: Sequence[str], language: str) -> Sequence[str]:
    """Returns the answers that count: an empty one where there is none.

    English ones of which normalisation leaves nothing do not, as in SQuAD 2.0's script.
    """
    if language == "english":
        answers = [answer for answer in answers if _normal(answer)]
    return answers or [""]


def _normal(text: str) -> str:
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def _normal_chinese(text: str) -> str:
    return text.lower().strip().translate(_NO_MARKS)


def _word_f1(answer: str, found: str) -> float:
    """Returns the F1 of two bags of words; of two empty ones it is 1."""
    wanted, given = _normal(answer).split(), _normal(found).split()
    if not wanted or not given:
        return float(wanted == given)
    common = collections.Counter(wanted) & collections.Counter(given)
    return _f1(common.total(), len(given), len(wanted))


def _run_f1(answer: str, found: str) -> float:
    """Returns the F1 of the longest run of words that two answers share."""
    wanted, given = segments(answer), segments(found)
    match = difflib.SequenceMatcher(None, wanted, given, autojunk=False)
    return _f1(match.find_longest_match().size, len(given), len(wanted))


def _f1(common: int, given: int, wanted: int) -> float:
    return 2 * common / (given + wanted) if common else 0.0


def segments(text: str) -> list[str]:
    """Cuts an answer as the Chinese rules do: characters, and words of what is else.

    >>> segments("由Ubisoft於1998年（民國87）發行, 3.5%")
    ['由', 'ubisoft', '於', '1998', '年', '民', '國', '87', '發', '行', ',', '3.5', '%']
    """
    made = []
    for part in re.split(f"({_CHINESE.pattern})", _normal_chinese(text)):
        made += [part] if _CHINESE.fullmatch(part) else _WORD.findall(part)
    return made


def _means(
    questions: Sequence[Judged],
    exact: Float[np.ndarray, " n"],
    overlap: Float[np.ndarray, " n"],
) -> dict[str, float]:
    """Returns the means over all questions, and over those with and without answer."""
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
    questions: Sequence[Judged],
    language: str,
) -> dict[str, float]:
    """Returns the best mean that a threshold on the margins can give, and it.

    None is given where a margin is above the threshold; questions of equal margin go
    together. The lowest of equally good thresholds is taken, below all margins if no
    answer at all is best.
    """
    margins = np.array([question.margin for question in questions], np.float64)
    none = np.array([float(not q.answers) for q in questions])
    given = np.array([score(q.answers, q.best, language) for q in questions])
    thresholds, group = np.unique(margins, return_inverse=True)
    gains = np.bincount(group, given - none, len(thresholds))
    totals = none.sum() + np.append(0.0, np.cumsum(gains))
    thresholds = np.append(np.nextafter(thresholds[0], -np.inf), thresholds)
    best = int(np.argmax(totals))
    return {
        f"best_{name}": float(totals[best]) / len(questions),
        f"best_{name}_threshold": float(thresholds[best]),
    }
