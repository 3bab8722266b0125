"""How many tokens are [UNK] and how many texts are truncated, counted on the way.

Every function that tokenizes adds its counts to a `Coverage`; every command reports it
with `describe` and logs `warnings`, which name the usual cause.
"""

import dataclasses
import itertools
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bert_jax.text import characters, options
from bert_jax.text.tokenizer import Tokenizer

UNUSUAL = 0.05  # fraction of [UNK], or of truncated texts, above which to warn
_SAMPLE_TEXTS = 200
_SAMPLE_CHARACTERS = 400  # of each text of the sample
_log = logging.getLogger(__name__)

# The most frequent characters that differ between the two scripts, in pairs.
_TRADITIONAL = "們個來這說國時會對發學過現後開問長見點經頭動進樣產從還關實種機當無與電"
_SIMPLIFIED = "们个来这说国时会对发学过现后开问长见点经头动进样产从还关实种机当无与电"


@dataclasses.dataclass
class Coverage:
    """Counts of texts and their tokens, without special tokens.

    Attributes:
      texts: the number of texts, or of pairs of texts.
      truncated: the number of those that are longer than the model's maximum.
      tokens: the number of their tokens before truncation.
      unknown: the number of tokens that are [UNK].
      sample: the first texts with an [UNK], for `cause`.
    """

    texts: int = 0
    truncated: int = 0
    tokens: int = 0
    unknown: int = 0
    sample: list[str] = dataclasses.field(default_factory=list, repr=False)

    def __bool__(self) -> bool:
        """Whether there is an [UNK] or a truncated text."""
        return bool(self.unknown or self.truncated)

    def add(
        self, texts: Iterable[str], ids: Iterable[Sequence[int]], unk_id: int
    ) -> None:
        """Counts the tokens of texts, from the ids of each without special tokens."""
        for text, of_text in zip(texts, ids, strict=True):
            unknown = of_text.count(unk_id)
            self.tokens += len(of_text)
            self.unknown += unknown
            if unknown and len(self.sample) < _SAMPLE_TEXTS:
                self.sample.append(text[:_SAMPLE_CHARACTERS])

    def update(self, other: "Coverage") -> None:
        """Adds the counts of `other`."""
        self.texts += other.texts
        self.truncated += other.truncated
        self.tokens += other.tokens
        self.unknown += other.unknown
        self.sample += other.sample[: _SAMPLE_TEXTS - len(self.sample)]

    @property
    def unknown_fraction(self) -> float:
        """The fraction of the tokens that are [UNK], from 0 to 1."""
        return self.unknown / max(1, self.tokens)

    @property
    def truncated_fraction(self) -> float:
        """The fraction of the texts that are truncated, from 0 to 1."""
        return self.truncated / max(1, self.texts)

    def describe(self) -> str:
        """Returns both fractions as text.

        >>> Coverage(texts=8, truncated=1, tokens=200, unknown=3).describe()
        '1.5% [UNK], 12.5% truncated'
        """
        unknown, truncated = self.unknown_fraction, self.truncated_fraction
        return f"{unknown:.1%} [UNK], {truncated:.1%} truncated"

    def warnings(self, tokenizer: Tokenizer, advice: str) -> Iterator[str]:
        """Yields a sentence for each fraction above `UNUSUAL`, with the usual cause.

        Args:
          tokenizer: what tokenized the texts.
          advice: what to do about truncated texts.
        """
        if self.unknown_fraction > UNUSUAL:
            yield unknown_warning(self.unknown_fraction, tokenizer, self.sample)
        if self.truncated_fraction > UNUSUAL:
            percent = f"{100 * self.truncated_fraction:.1f} %"
            yield f"{percent} of the texts are truncated: {advice}"

    def warn(self, tokenizer: Tokenizer, name: str, advice: str) -> None:
        """Logs `warnings` with the name of the texts."""
        for warning in self.warnings(tokenizer, advice):
            _log.warning("%s: %s", name, warning)


def advice_on_length(length: int) -> str:
    """Returns what to do about texts that are longer than a model's maximum."""
    return (
        f"the model reads at most {length} tokens of a text. Split long texts, or "
        "train with a larger data.max_seq_length"
    )


def unknown_warning(
    fraction: float, tokenizer: Tokenizer | None, sample: Sequence[str]
) -> str:
    """Returns a sentence about a fraction of [UNK], with its usual cause.

    >>> unknown_warning(0.06, None, [])[:44]
    '6.0 % of the tokens are [UNK]: is the vocabu'
    """
    return f"{100 * fraction:.1f} % of the tokens are [UNK]: {cause(tokenizer, sample)}"


def cause(tokenizer: Tokenizer | None, sample: Sequence[str]) -> str:
    """Returns why texts have many [UNK], and how to fix it.

    The cause is checked on the sample: with the other setting it has fewer than half
    as many [UNK], or most of its letters are not in the vocabulary.
    """
    reason = ""
    if tokenizer is not None and sample:
        reason = _case(tokenizer, sample) or _script(tokenizer, sample)
    return reason or (
        "is the vocabulary for another language, or its do_lower_case wrong?"
    )


def _case(tokenizer: Tokenizer, sample: Sequence[str]) -> str:
    """Returns which setting of case or accents is wrong, or an empty text."""
    before = _unknown(tokenizer, sample)
    lowered = [text.lower() for text in sample]
    if not tokenizer.lowercase and 2 * _unknown(tokenizer, lowered) < before:
        return (
            "the texts have capital letters and the vocabulary is lowercase. Set "
            f"do_lower_case to true in its {options.CONFIG} "
            "(text.lowercase=true in pretraining)"
        )
    plain = [_without_accents(text) for text in lowered]
    if not tokenizer.strip_accents and 2 * _unknown(tokenizer, plain) < before:
        return (
            "the texts have accents and the vocabulary has none. Set do_lower_case and "
            f"strip_accents to true in its {options.CONFIG}"
        )
    if tokenizer.kind == "wordpiece" and tokenizer.lowercase:
        cased = dataclasses.replace(tokenizer, lowercase=False, strip_accents=False)
        if 2 * _unknown(cased, sample) < before:
            return (
                "the vocabulary is cased and texts are lowercased first. Set "
                f"do_lower_case to false in its {options.CONFIG} "
                "(text.lowercase=false in pretraining)"
            )
    return ""


def _script(tokenizer: Tokenizer, sample: Sequence[str]) -> str:
    """Returns which script the vocabulary lacks, or an empty text."""
    known = frozenset(itertools.chain.from_iterable(tokenizer.tokens))
    letters = Counter(
        character for character in _normalized(tokenizer, sample) if character.isalpha()
    )
    missing = {x: count for x, count in letters.items() if x not in known}
    for texts_are, other, vocabulary_is in (
        (_TRADITIONAL, _SIMPLIFIED, "simplified"),
        (_SIMPLIFIED, _TRADITIONAL, "traditional"),
    ):
        pairs = [(a, b) for a, b in zip(texts_are, other, strict=True) if a in missing]
        if pairs and sum(b in known for _, b in pairs) > len(pairs) / 2:
            return _CHINESE[vocabulary_is]
    scripts: Counter[str] = Counter()
    for character, count in missing.items():
        scripts[_script_of(character)] += count
    name, count = max(scripts.items(), key=lambda item: item[1], default=("", 0))
    of_script = sum(n for x, n in letters.items() if _script_of(x) == name)
    if 2 * count <= of_script or not count:
        return ""
    return (
        f"the vocabulary does not know this script ({name}). Use a model of the "
        "language of the texts"
    )


_CHINESE = {
    "simplified": "the texts are traditional Chinese and the vocabulary is simplified. "
    "Convert the texts, or train with text.clean=simplified",
    "traditional": "the texts are simplified Chinese and the vocabulary is "
    "traditional. Convert the texts, or use a model of simplified Chinese",
}


def _script_of(letter: str) -> str:
    """Returns the script of a letter, by its Unicode name.

    >>> [_script_of(letter) for letter in "a京жあ"]
    ['Latin', 'Chinese', 'Cyrillic', 'Hiragana']
    """
    name = unicodedata.name(letter, "other").split()[0].capitalize()
    return "Chinese" if characters.is_cjk(letter) else name


def _unknown(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Returns the number of [UNK] tokens in texts."""
    return sum(ids.count(tokenizer.unk_id) for ids in tokenizer.encode([*texts]))


def _normalized(tokenizer: Tokenizer, sample: Sequence[str]) -> str:
    """Returns the texts in one string, lowercased and without accents as configured."""
    text = "\n".join(map(tokenizer.cleaning, sample))
    text = text.lower() if tokenizer.lowercase else text
    return _without_accents(text) if tokenizer.strip_accents else text


def _without_accents(text: str) -> str:
    """Removes accents as BERT does, which leaves letters decomposed.

    >>> _without_accents("Été")
    'Ete'
    """
    split = unicodedata.normalize("NFD", text)
    return "".join(x for x in split if unicodedata.category(x) != "Mn")
