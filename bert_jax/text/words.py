"""Where words begin among pieces: '##' in English, a segmenter's words in Chinese.

To BERT every Chinese character is a word of its own, so whole-word masking needs a
segmenter there (Cui et al. 2019, "Pre-Training with Whole Word Masking for Chinese
BERT"): all characters of a segmented word are masked together, and Latin letters and
digits keep the rule of '##'.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from bert_jax import errors
from bert_jax.text import characters, tokenizer, wordpiece

NAMES = ("none", "jieba", "corpus")


@runtime_checkable
class Segmenter(Protocol):
    """Cuts a sentence into words."""

    name: str

    def cut(self, sentence: str) -> list[str]:
        """Returns words that join to the sentence, white space included."""
        ...


class Jieba:
    """Cuts Chinese by jieba's dictionary and its hidden Markov model."""

    name = "jieba"

    def __init__(self) -> None:
        """Reads the dictionary from jieba's own package.

        jieba's cache of it in the temporary folder, which processes that start
        together would race for and anybody could have written, is not used.

        Raises:
          InputError: jieba is not installed.
        """
        with _quiet():
            try:
                import jieba
            except ImportError:
                raise errors.missing_extra("jieba", "zh") from None
            cutter = jieba.Tokenizer()
            cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
            cutter.initialized = True
        self._cut = cutter.lcut

    def cut(self, sentence: str) -> list[str]:
        """Returns the words of a sentence; control characters divide none."""
        return self._cut(characters.control_pattern().sub("", sentence))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps jieba's import from warning and from logging."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("jieba").setLevel(logging.ERROR)
        yield


def segmenter(name: str) -> Segmenter | None:
    """Returns the segmenter of a name; None where there is nothing to cut.

    "none" keeps the pieces' own rule; with "corpus" the words come with the documents.

    Raises:
      InputError: the name is unknown, or jieba is not installed.
    """
    if name not in NAMES:
        raise errors.InputError(
            f"text.segmenter is {name!r}. Choose one of {', '.join(NAMES)}."
        )
    return Jieba() if name == "jieba" else None


def encode(
    cutter: tokenizer.Tokenizer,
    sentences: list[str],
    words: Sequence[Sequence[str]] | None = None,
) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"], Bool[np.ndarray, " n"]]:
    """Returns ids in a row, each sentence's length, and which ids begin a word.

    Args:
      cutter: the tokenizer.
      sentences: raw text; no special piece is added.
      words: the words of each sentence; None for the pieces' own rule.

    Raises:
      InputError: the words of a sentence do not spell it.
    """
    if words is None:
        ids, lengths = cutter.encode_flat(sentences)
        return ids, lengths, _first_always(~cutter.is_continuation[ids], lengths)
    encoded = cutter.encode_with_offsets(sentences)
    ids, lengths = wordpiece.flatten([row for row, _ in encoded])
    starts = [
        word_starts(cutter, row, offsets, sentence, its_words)
        for (row, offsets), sentence, its_words in zip(
            encoded, sentences, words, strict=True
        )
    ]
    return ids, lengths, np.concatenate([np.zeros(0, bool), *starts])


def word_starts(
    cutter: tokenizer.Tokenizer,
    ids: Sequence[int],
    offsets: wordpiece.Offsets,
    sentence: str,
    words: Sequence[str],
) -> Bool[np.ndarray, " n"]:
    """Says which pieces of one sentence begin a word.

    A WordPiece that does not continue ("##") begins a word if it is no Chinese
    character, or if one of `words` begins in it or among what was dropped before it.
    A SentencePiece begins one at a space, or where one of `words` does.

    Raises:
      InputError: the words do not spell the sentence.
    """
    if not ids:
        return np.zeros(0, bool)
    number = word_of_character(sentence, words)
    bounds = np.array(offsets, np.int64)
    last = number[np.maximum(bounds[:, 1] - 1, bounds[:, 0])]
    begins = np.diff(last, prepend=-1) != 0
    own = ~cutter.is_continuation[np.array(ids)]
    if cutter.kind == "sentencepiece":
        starts = begins | own
    else:
        heads = "".join(sentence[start] for start in bounds[:, 0])
        starts = own & (begins | ~_is_cjk(heads))
    starts[0] = True
    return starts


def word_of_character(sentence: str, words: Sequence[str]) -> Int64[np.ndarray, " c"]:
    """Returns the number of the word that each character of a sentence is in.

    White space and control characters, which tokenizers drop, may be missing on
    either side; they count to the word before them.

    >>> word_of_character("北京 大学", ["北京", "大学"]).tolist()
    [0, 0, 0, 1, 1]

    Raises:
      InputError: the words do not spell the sentence.
    """
    if "".join(words) == sentence:
        return np.repeat(np.arange(len(words)), [len(word) for word in words])
    dropped = characters.dropped_pattern()
    kept = [i for i, c in enumerate(sentence) if not dropped.match(c)]
    bare = [dropped.sub("", word) for word in words]
    if "".join(bare) != "".join(sentence[i] for i in kept):
        raise errors.InputError(
            f"the words {list(words)[:9]} do not spell the sentence"
            f" {sentence[:60]!r}. Words must join to their sentence."
        )
    begins = np.zeros(len(sentence), np.int64)
    ends = np.cumsum([len(word) for word in bare])
    lengths = np.array([len(word) for word in bare])
    begins[np.array(kept, np.int64)[(ends - lengths)[lengths > 0]]] = 1
    return np.maximum(np.cumsum(begins) - 1, 0)


def _is_cjk(text: str) -> Bool[np.ndarray, " c"]:
    """Says of each character whether it is Chinese."""
    points = np.array([*map(ord, text)])
    found = np.zeros(len(points), bool)
    for first, last in characters.CJK_RANGES:
        found |= (points >= first) & (points <= last)
    return found


def _first_always(
    starts: Bool[np.ndarray, " n"], lengths: Int64[np.ndarray, " s"]
) -> Bool[np.ndarray, " n"]:
    """Lets the first piece of every sentence begin a word."""
    heads = (np.cumsum(lengths) - lengths)[lengths > 0]
    starts[heads] = True
    return starts
