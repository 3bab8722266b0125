"""Tag schemes: how token spans are encoded as tags, and which transitions are valid.

BIO    B-PER I-PER I-PER O     also called IOB2
IOB1   I-PER I-PER I-PER O     B- only between adjacent spans of one type
BIOES  B-PER I-PER E-PER S-LOC
BILOU  B-PER I-PER L-PER U-LOC
BMES   B-PER M-PER E-PER S-LOC, or without types and O, as in word segmentation
BMEWO  B-PER M-PER E-PER W-LOC
plain  NOUN VERB ...           tags without spans
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from bert_jax.metrics import entities

PLAIN = "plain"
SCHEMES = ("BIO", "IOB1", "BIOES", "BILOU", "BMES", "BMEWO", PLAIN)
OUTSIDE = "O"

_SPAN_TAG = re.compile(r"O|[BIMESLU](-.+)?|W-.+", re.DOTALL)
# Misspellings of span tags: 0, o, B_PER, b-per, B- and PER-B.
_ZERO = re.compile(r"[0oО〇]")
_MISSPELLED = re.compile(
    r"(?P<letter>[BIMESLUWbimesluw])(?:\s*[-_:./–—]\s*)(?P<type>.*)", re.DOTALL
)
_TYPE_FIRST = re.compile(r"(?P<type>.+)[-_](?P<letter>[BIMESLUW])", re.DOTALL)
# Letters of the first, middle and last token of a span, and of a one-token span.
_LETTERS = {
    "BIO": "BIIB",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}


def detect(sentences: Iterable[Sequence[str]]) -> str:
    """Returns the scheme of these tags, one of `SCHEMES`.

    Invalid tags do not change the scheme: if B- starts a span anywhere that IOB1 would
    start with I-, then I- at the start of a span is a BIO error, not IOB1.

    >>> detect([["I-PER", "I-PER", "O"], ["I-PER", "B-PER"]])
    'IOB1'
    """
    every = [tags for tags in sentences if tags]
    found = of_labels(sorted({tag for tags in every for tag in tags}))
    if found != "BIO":
        return found
    parts = any(breaks(tags, "BIO") for tags in every)
    opens = any(_opens(tags) for tags in every)
    return "IOB1" if parts and not opens else "BIO"


def _opens(tags: Sequence[str]) -> bool:
    """Returns whether any B- does not follow a span of the same type."""
    before = ("", *map(_type, tags))
    return any(
        tag[0] == "B" and _type(tag) != kind
        for tag, kind in zip(tags, before, strict=False)
    )


def _type(tag: str) -> str:
    return "" if tag == OUTSIDE else entities.split(tag)[1]


def of_labels(labels: Sequence[str]) -> str:
    """Returns the scheme of a set of labels, without sentences to infer it from.

    >>> of_labels(["B-LOC", "I-LOC", "O"]), of_labels(["ARG0", "O", "V"])
    ('BIO', 'plain')
    """
    if set(labels) <= {OUTSIDE} or not all(map(is_span_tag, labels)):
        return PLAIN
    letters = {label[0] for label in labels}
    if "W" in letters:
        return "BMEWO"
    if "M" in letters:
        return "BMES"
    if letters & {"L", "U"}:
        return "BILOU"
    return "BIOES" if letters & {"E", "S"} else "BIO"


def is_span_tag(tag: str) -> bool:
    """Returns whether a tag belongs to a scheme with spans."""
    return _SPAN_TAG.fullmatch(tag) is not None


def kind_of(tag: str, scheme: str) -> str:
    """Returns the span type of a tag; a plain tag is returned unchanged.

    >>> kind_of("B-LOC", "BIO"), kind_of("O", "BIO"), kind_of("NOUN", "plain")
    ('LOC', 'O', 'NOUN')
    """
    return tag if scheme == PLAIN or tag == OUTSIDE else entities.split(tag)[1]


def problem_of(tags: Iterable[str]) -> tuple[str, str] | None:
    """Returns a tag that is inconsistent with the others, and why; or None.

    If more than half of the distinct tags are typed span tags, any other tag is an
    error; otherwise, only a misspelled span tag is. Letters of two schemes, such as E-
    of BIOES and L- of BILOU, cannot be mixed.

    >>> problem_of(["O", "B-PER", "I-PER", "0"])
    ('0', 'tokens outside of spans have the letter O')
    >>> problem_of(["NOUN", "VERB"])
    """
    known = dict.fromkeys(tags)
    blank = next((tag for tag in known if not tag or re.search(r"\s", tag)), None)
    if blank is not None:
        return (
            blank,
            "a tag cannot be empty or contain white space; write one token per line",
        )
    others = [tag for tag in known if not is_span_tag(tag)]
    typed = sum(is_span_tag(tag) and tag[1:2] == "-" for tag in known)
    if not others:
        return _untyped(known) or _mixed(known) if typed else None
    zeros = [tag for tag in others if _ZERO.fullmatch(tag)]
    slips = [tag for tag in others if _correction(tag)]
    are_spans = 2 * typed > len({*known} - {OUTSIDE})
    has_outside = OUTSIDE in known or bool(zeros)
    if are_spans or (len(slips) == len(others) and (typed or has_outside)):
        wrong = (zeros or slips or others)[0]
        reason = "most tags are span tags such as B-PER, I-PER, O"
        return wrong, _correction(wrong) or reason
    return None


def odd_letters(sentences: Sequence[Sequence[str]]) -> dict[int, str]:
    """Maps sentence indices to tags with a letter outside of the prevailing scheme.

    A single E-PER in a BIO file would turn the scheme into BIOES, which every other
    sentence violates.

    >>> odd_letters([["B-PER", "I-PER"]] * 9 + [["E-PER"]])
    {9: 'E-PER'}
    """
    scheme = of_labels(sorted({tag for tags in sentences for tag in tags}))
    if scheme in ("BIO", PLAIN):
        return {}
    odd = {
        at: next(tag for tag in tags if tag[0] not in "BIO")
        for at, tags in enumerate(sentences)
        if any(tag[0] not in "BIO" for tag in tags)
    }
    rest = [tags for at, tags in enumerate(sentences) if at not in odd]
    fits = detect(rest) in ("BIO", "IOB1") and any(
        breaks(tags, scheme) for tags in rest
    )
    return odd if fits and 5 * len(odd) <= len(sentences) else {}


def _correction(tag: str) -> str:
    """Returns how to correct a misspelled span tag, or "" for any other tag."""
    if _ZERO.fullmatch(tag):
        return "tokens outside of spans have the letter O"
    if match := _MISSPELLED.fullmatch(tag):
        letter, kind = match["letter"].upper(), match["type"].strip()
        return (
            f"write {letter}-{kind}" if kind else "the type after the letter is missing"
        )
    if match := _TYPE_FIRST.fullmatch(tag):
        return f"write {match['letter']}-{match['type']}"
    return ""


def _untyped(tags: Iterable[str]) -> tuple[str, str] | None:
    """Returns a span tag without a type, such as B, and why it is wrong; or None."""
    bare = next((tag for tag in tags if tag != OUTSIDE and len(tag) == 1), None)
    return None if bare is None else (bare, "the type after the letter is missing")


def _mixed(tags: Iterable[str]) -> tuple[str, str] | None:
    """Returns a tag whose letter is not in the scheme of the others; or None."""
    tags = list(tags)
    scheme = of_labels(tags)
    letters = {scheme: scheme for scheme in _LETTERS} | {"BMES": "BMESO"}
    wrong = [tag for tag in tags if tag[0] not in letters[scheme]]
    # Some data sets use I- for M-, with E- and S-.
    wrong = [tag for tag in wrong if not (scheme == "BMES" and tag[0] == "I")]
    if not wrong:
        return None
    return wrong[0], f"{scheme} only has the letters {', '.join(letters[scheme])}"


def breaks(tags: Sequence[str], scheme: str) -> list[int]:
    """Returns the indices of tags that cannot follow the previous tag.

    `len(tags)` is included if the last tag cannot end a sentence.
    """
    moves = zip((None, *tags), (*tags, None), strict=True)
    return [at for at, (one, two) in enumerate(moves) if not _may(one, two, scheme)]


def first_break(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """Returns the index of the first tag that violates the scheme, and why; or None.

    >>> first_break(["B-PER", "I-LOC"], "BIO")
    (1, 'I-LOC after B-PER')
    """
    broken = breaks(tags, scheme)
    if not broken:
        return None
    at = broken[0]
    if at == len(tags):
        return at - 1, f"{tags[-1]} at the end"
    if at == 0:
        return 0, f"{tags[0]} at the start"
    return at, f"{tags[at]} after {tags[at - 1]}"


def _may(one: str | None, two: str | None, scheme: str) -> bool:
    """Returns whether `two` may follow `one`; None is the start or the end."""
    if scheme == PLAIN:
        return True
    before, type_before = entities.split(one or OUTSIDE)
    after, kind = entities.split(two or OUTSIDE)
    same = kind == type_before
    if scheme == "IOB1":
        return after != "B" or (before in "BI" and same)
    if scheme == "BIO":
        return after != "I" or (before in "BI" and same)
    inside, continues = before in "BIM", after in "IMEL"
    return inside == continues and (same or not inside)


def convert(tags: Sequence[str], scheme: str) -> list[str]:
    """Converts the tags of any scheme with spans to another scheme.

    Invalid tags are interpreted as in `entities.spans_of`.

    >>> convert(["I-PER", "I-PER", "O", "I-LOC"], "BIOES")
    ['B-PER', 'E-PER', 'O', 'S-LOC']
    """
    return write(entities.spans_of(tags), len(tags), scheme)


def write(
    spans: Iterable[entities.Span], length: int, scheme: str, outside: str = OUTSIDE
) -> list[str]:
    """Encodes spans as `length` tags; tokens outside of spans get `outside`.

    The scheme must have spans and cannot be IOB1.
    """
    first, middle, last, single = _LETTERS[scheme]
    tags = [outside] * length
    for kind, start, end in spans:
        letters = [single]
        if end - start > 1:
            letters = [first, *middle * (end - start - 2), last]
        tail = "" if kind == entities.UNTYPED else f"-{kind}"
        tags[start:end] = [letter + tail for letter in letters]
    return tags


def labels_of(sentences: Iterable[Sequence[str]], scheme: str) -> tuple[str, ...]:
    """Returns all tags of a scheme for the types that occur: O first, then sorted.

    Each type gets all letters, even if its spans here have only one token.
    """
    known = {tag for tags in sentences for tag in tags}
    if scheme != PLAIN:
        kinds = {entities.split(tag)[1] for tag in known - {OUTSIDE}}
        spans = [[(kind, 0, 1)] for kind in kinds] + [[(kind, 0, 3)] for kind in kinds]
        written = [write(span, 3, scheme) for span in spans]
        known &= {OUTSIDE}
        known |= {tag for tags in written for tag in tags} - {OUTSIDE}
    return tuple(sorted(known, key=lambda tag: (tag != OUTSIDE, tag)))


def allowed(
    labels: Sequence[str], scheme: str
) -> tuple[Bool[np.ndarray, "C C"], Bool[np.ndarray, " C"], Bool[np.ndarray, " C"]]:
    """Returns the valid transitions, and the labels that can start and end a sentence.

    `transitions[i, j]` is whether label j may follow label i.
    """
    transitions = [[_may(one, two, scheme) for two in labels] for one in labels]
    starts = [_may(None, label, scheme) for label in labels]
    ends = [_may(label, None, scheme) for label in labels]
    return np.array(transitions, bool), np.array(starts, bool), np.array(ends, bool)
