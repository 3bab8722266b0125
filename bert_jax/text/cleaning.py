"""What of a text is removed or respelled before it is cut into tokens; off by default.

A model keeps its cleaning next to its vocabulary (text_cleaning.json), and a tokenizer
applies it to every text, so that training and prediction see the same. BERT was
pretrained on text as it is written, and its tokenizer already removes control
characters: cleaning helps where a corpus is full of markup, and stop words rarely.
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

from bert_jax import errors, files, json_file

NAME = "text_cleaning.json"
NONE_NAME = "none"  # of text.clean: no step, whatever the vocabulary's folder has
_MAX_BYTES = 1 << 22

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
    """Removes control and format characters but for tabs and line ends."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c for c in text if c in "\t\n\r" or unicodedata.category(c) not in _NO
    )


_NO = ("Cc", "Cf")


def _with_usual_width(text: str) -> str:
    """Makes full-width letters, digits and marks ASCII, half-width katakana full."""
    return _WIDE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)


def _simplified(text: str) -> str:
    """Converts traditional Chinese by phrases; OpenCC refuses lone surrogates."""
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
    """The steps of a cleaning; false where there are none.

    Attributes:
      steps: of `STEPS`, in their order.
      stop_words: words that are removed, in lower case and sorted.
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
        """Returns a text as it is tokenized; line ends stay.

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
        """Returns what is written of the cleaning."""
        return {"clean": list(self.steps), "stop_words": list(self.stop_words)}

    def save(self, folder: Path) -> None:
        """Writes the cleaning next to a vocabulary, if there is any."""
        if self:
            text = json.dumps(self.tree(), indent=1, ensure_ascii=False) + "\n"
            (folder / NAME).write_text(text, encoding="utf-8")


NONE = Cleaning()


def _without(text: str, words: frozenset[str]) -> str:
    """Removes words: those between spaces and marks, of Chinese those of jieba."""
    text = _WORD.sub(lambda word: "" if word[0].lower() in words else word[0], text)
    if _CJK.search(text) is None or not any(map(_CJK.search, words)):
        return text
    import jieba

    jieba.setLogLevel("WARNING")
    return "".join(word for word in jieba.lcut(text) if word.lower() not in words)


def read(folder: Path) -> Cleaning:
    """Returns the cleaning next to a vocabulary, or none.

    Raises InputError for a file that is not as `save` writes it.
    """
    path = folder / NAME
    if not path.is_file():
        return NONE
    tree = json_file.read_object(path)
    if set(tree) != {"clean", "stop_words"} or not all(
        isinstance(x, list) and all(isinstance(each, str) for each in x)
        for x in tree.values()
    ):
        raise errors.InputError(
            f"{path} is damaged: it needs the lists clean and stop_words, and no more. "
            "Copy it again from where the model was trained."
        )
    return Cleaning(
        steps_of(",".join(tree["clean"]), str(path)), tuple(tree["stop_words"])
    )


def steps_of(names: str, where: str = "text.clean") -> tuple[str, ...]:
    """Returns the steps that a text lists with commas, in their order.

    Raises InputError for an unknown name.

    >>> steps_of("urls, html"), steps_of("none")
    (('html', 'urls'), ())
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    if given == [NONE_NAME]:
        return ()
    for name in given:
        if name not in STEPS:
            raise errors.InputError(
                f"{where} has {name!r}: use {', '.join(STEPS)}, with commas, or none"
            )
    return tuple(step for step in STEPS if step in given)


def of_settings(clean: str, stop_words: str, inherited: Cleaning = NONE) -> Cleaning:
    """Returns the cleaning that a configuration asks for.

    Args:
      clean: steps with commas; "none" for none.
      stop_words: a file with one word a line.
      inherited: that of the vocabulary's folder, taken where both are empty.

    Raises:
      InputError: a step is unknown, the file cannot be read, or an extra is missing.
    """
    if not clean and not stop_words:
        made = inherited
    else:
        words = _words_of(Path(stop_words)) if stop_words else ()
        made = Cleaning(steps_of(clean), words)
    made.check()
    return made


def _words_of(path: Path) -> tuple[str, ...]:
    """Returns the words of a file, one a line, in lower case."""
    try:
        content = files.read(path, _MAX_BYTES)
    except FileNotFoundError:
        raise errors.InputError(
            f"text.stop_words is {path}, which does not exist. Name a file with one "
            "word a line."
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InputError(
            f"{path}: byte {error.start} is not UTF-8. Convert the file: iconv -f "
            "ENCODING -t UTF-8"
        ) from None
    words = {word.strip().lower() for word in text.splitlines()} - {""}
    if not words:
        raise errors.InputError(f"{path} has no word. Write one a line.")
    return tuple(sorted(words))
