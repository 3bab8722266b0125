"""Text cleaning before tokenization; off by default.

A model keeps its cleaning next to its vocabulary (text_cleaning.json), and a tokenizer
applies it to every text, so that training and prediction see the same text. BERT was
pretrained on raw text, and its tokenizer already removes control characters: cleaning
helps if a corpus is full of markup; removing stop words rarely helps.
"""

import dataclasses
import functools
import html
import importlib.util
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from bert_jax import errors
from bert_jax.foundation import json_file

NAME = "text_cleaning.json"
NONE_NAME = "none"  # text.clean: no step, even if the vocabulary's folder has some

_BLOCKS = (
    "address article aside blockquote br center dd div dl dt fieldset figcaption "
    "figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table "
    "tbody td tfoot th thead title tr ul"
).split()
_INLINE = (
    "a abbr acronym audio b base bdi bdo big body button canvas caption cite code col "
    "colgroup data datalist del details dfn dialog em embed font frame frameset head "
    "html i iframe img input ins kbd label legend link map mark meta meter noscript "
    "object optgroup option output param picture progress q rp rt ruby s samp script "
    "select small source span strike strong style sub summary sup svg template "
    "textarea time track tt u var video wbr"
).split()
_HIDDEN = re.compile(
    r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|<!doctype[^<>]*>", re.I | re.DOTALL
)
_BLOCK = re.compile(rf"</?(?:{'|'.join(_BLOCKS)})(?:\s[^<>]*)?/?>", re.I)
_TAG = re.compile(rf"</?(?:{'|'.join(_INLINE)})(?:\s[^<>]*)?/?>", re.I)
# Characters of a URL (RFC 3986): Chinese text ends one without a space.
_URL = re.compile(
    r"(?:(?:https?|ftp)://|\bwww\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+"
    r"(?<![.,;:!?'()])",
    re.I,
)
_WIDE = re.compile("[\uff01-\uffee\u3000]+")
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003ffff]")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def _without_html(text: str) -> str:
    text = _BLOCK.sub("\n", _HIDDEN.sub(" ", text))
    return html.unescape(_TAG.sub("", text)).replace("\xa0", " ")


def _without_urls(text: str) -> str:
    return _URL.sub(" ", text)


def _without_control(text: str) -> str:
    """Removes control and format characters except tabs and line ends."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c for c in text if c in "\t\n\r" or unicodedata.category(c) not in ("Cc", "Cf")
    )


def _with_usual_width(text: str) -> str:
    """Converts full-width forms to ASCII, and half-width katakana to full width."""
    return _WIDE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)


def _simplified(text: str) -> str:
    """Converts traditional Chinese by phrases; OpenCC rejects lone surrogates."""
    convert = _converter()
    return _NOT_SURROGATES.sub(lambda run: convert(run[0]), text)


_NOT_SURROGATES = re.compile("[^\ud800-\udfff]+")


@functools.cache
def _converter() -> Callable[[str], str]:
    try:
        import opencc  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise errors.missing_extra("opencc", "opencc") from None
    return opencc.OpenCC("t2s").convert


# In the order in which they are applied.
_STEPS: dict[str, Callable[[str], str]] = {
    "html": _without_html,
    "urls": _without_urls,
    "control": _without_control,
    "width": _with_usual_width,
    "simplified": _simplified,
}
STEPS = tuple(_STEPS)


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """The steps of a cleaning; false if there are none.

    Attributes:
      steps: names of `STEPS`, in their order.
      stop_words: words that are removed, lowercased and sorted.
    """

    steps: tuple[str, ...] = ()
    stop_words: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.steps or self.stop_words)

    def __str__(self) -> str:
        named = [*self.steps]
        if self.stop_words:
            named.append(f"{len(self.stop_words):,} stop words")
        return ", ".join(named) or NONE_NAME

    def __call__(self, text: str) -> str:
        """Returns the cleaned text; line ends stay.

        Raises InputError if a step needs a package that is not installed.
        """
        for step in self.steps:
            text = _STEPS[step](text)
        if self.stop_words:
            text = _without(text, frozenset(self.stop_words))
        return text

    def check(self) -> None:
        """Raises InputError if a step needs a package that is not installed."""
        if "simplified" in self.steps:
            _converter()
        is_chinese = any(map(_CJK.search, self.stop_words))
        if is_chinese and importlib.util.find_spec("jieba") is None:
            raise errors.missing_extra("jieba", "zh")

    def tree(self) -> dict[str, list[str]]:
        """Returns the cleaning as JSON."""
        return {"clean": list(self.steps), "stop_words": list(self.stop_words)}

    def save(self, folder: Path) -> None:
        """Writes the cleaning next to a vocabulary, if there is any."""
        if self:
            text = json.dumps(self.tree(), indent=1, ensure_ascii=False) + "\n"
            (folder / NAME).write_text(text, encoding="utf-8")


NONE = Cleaning()


def _without(text: str, words: frozenset[str]) -> str:
    """Removes words: those between spaces and punctuation, in Chinese jieba's."""
    text = _WORD.sub(lambda word: "" if word[0].lower() in words else word[0], text)
    if _CJK.search(text) is None or not any(map(_CJK.search, words)):
        return text
    import jieba

    jieba.setLogLevel("WARNING")
    return "".join(word for word in jieba.lcut(text) if word.lower() not in words)


def read(folder: Path) -> Cleaning:
    """Returns the cleaning next to a vocabulary, or none.

    Raises InputError for a file that `save` would not write.
    """
    path = folder / NAME
    if not path.is_file():
        return NONE
    tree = json_file.read_object(path)
    try:
        steps = parse_steps(",".join(tree["clean"]), str(path))
        return Cleaning(steps, tuple(tree["stop_words"]))
    except (KeyError, TypeError) as error:
        raise errors.InputError(
            f"{path} is damaged ({error!r}). Copy it again from the trained model."
        ) from None


def parse_steps(names: str, where: str = "text.clean") -> tuple[str, ...]:
    """Returns the steps of a comma-separated list, in the order of `STEPS`.

    Raises InputError for an unknown name.

    >>> parse_steps("urls, html"), parse_steps("none")
    (('html', 'urls'), ())
    """
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if listed == [NONE_NAME]:
        return ()
    for name in listed:
        if name not in STEPS:
            raise errors.InputError(
                f"{where} has {name!r}: list {', '.join(STEPS)} with commas, or"
                " give none"
            )
    return tuple(step for step in STEPS if step in listed)


def from_config(clean: str, stop_words: str, inherited: Cleaning = NONE) -> Cleaning:
    """Returns the cleaning of a configuration.

    Args:
      clean: comma-separated steps; "none" for none.
      stop_words: a file with one word a line.
      inherited: the cleaning of the vocabulary's folder, used if both are empty.

    Raises:
      InputError: a step is unknown, the file cannot be read, or an extra is missing.
    """
    if not clean and not stop_words:
        cleaning = inherited
    else:
        words = _words_of(Path(stop_words)) if stop_words else ()
        cleaning = Cleaning(parse_steps(clean), words)
    cleaning.check()
    return cleaning


def _words_of(path: Path) -> tuple[str, ...]:
    """Returns the lowercased words of a file with one a line."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"text.stop_words is {path}, which cannot be read ({error}). Name a file "
            "in UTF-8 with one word a line."
        ) from None
    words = {word.strip().lower() for word in text.splitlines()} - {""}
    if not words:
        raise errors.InputError(f"{path} has no words. Write one a line.")
    return tuple(sorted(words))
