"""Which tokens start a word: by "##" in English, by a segmenter in Chinese.

To BERT every Chinese character is a separate word, so whole-word masking needs a
segmenter there (Cui et al. 2019, "Pre-Training with Whole Word Masking for Chinese
BERT"): all characters of a segmented word are masked together, and Latin letters and
digits keep the rule of "##".
"""

import importlib.util
import itertools
import logging
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from bert_jax import errors
from bert_jax.text import SEGMENTERS, characters
from bert_jax.text.tokenizer import Tokenizer, flatten

_POINTS = ("utf-32-le", "surrogatepass")  # a string as an array of code points


class Jieba:
    """Segments Chinese by jieba's dictionary and its hidden Markov model."""

    def __init__(self) -> None:
        """Reads the dictionary from jieba's own package.

        jieba's cache of it in the temporary folder is not used: processes that start
        together would race for it, and other users can write it.

        Raises:
          InputError: jieba is not installed.
        """
        logging.getLogger("jieba").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of its import
            try:
                import jieba
            except ImportError:
                raise errors.missing_extra("jieba", "zh") from None
            cutter = jieba.Tokenizer()
            cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
            cutter.initialized = True
        self._cut = cutter.lcut

    def cut(self, sentence: str) -> list[str]:
        """Returns the words of a sentence, without its control characters."""
        return self._cut(characters.control_pattern().sub("", sentence))


def segmenter(name: str) -> Jieba | None:
    """Returns the segmenter of one of `SEGMENTERS`; None if no text is segmented.

    "none" keeps the tokens' own rule; with "corpus" the documents have words.

    Raises:
      InputError: the name is unknown, or jieba is not installed.
    """
    if name not in SEGMENTERS:
        raise errors.InputError(
            f"text.segmenter is {name!r}. Choose one of {', '.join(SEGMENTERS)}."
        )
    return Jieba() if name == "jieba" else None


def check_segmenter(name: str) -> None:
    """Raises InputError if a segmenter needs jieba and it is not installed."""
    if name == "jieba" and importlib.util.find_spec("jieba") is None:
        raise errors.missing_extra("jieba", "zh")


def encode(
    tokenizer: Tokenizer,
    sentences: list[str],
    words: Sequence[Sequence[str]] | None = None,
) -> tuple[UInt32[np.ndarray, " n"], Int64[np.ndarray, " s"], Bool[np.ndarray, " n"]]:
    """Returns flat ids, the length of each sentence, and which ids start a word.

    A wordpiece without "##" starts a word if it is not a Chinese character, or if one
    of `words` starts in it or among the characters that were dropped before it. Other
    tokens start one at a space, or where one of `words` does. The first token of a
    sentence always does.

    Args:
      tokenizer: what tokenizes the sentences.
      sentences: raw text; no special token is added.
      words: the words of each sentence; None for the tokens' own rule.

    Raises:
      InputError: the words of a sentence do not join to it.
    """
    if words is None:
        ids, lengths = tokenizer.encode_flat(sentences)
        return ids, lengths, _first_always(~tokenizer.is_continuation[ids], lengths)
    encoded = tokenizer.encode_with_offsets(sentences)
    ids, lengths = flatten([row for row, _ in encoded])
    bounds = _bounds([offsets for _, offsets in encoded], lengths, sentences)
    begins = _begins(bounds, _number_characters(sentences, words))
    own = ~tokenizer.is_continuation[ids]
    if tokenizer.kind != "wordpiece":
        starts = begins | own
    else:
        points = np.frombuffer("".join(sentences).encode(*_POINTS), np.uint32)
        starts = own & (begins | ~_is_cjk(points[bounds[:, 0]]))
    return ids, lengths, starts


def _bounds(
    offsets: list[characters.Offsets],
    lengths: Int64[np.ndarray, " s"],
    sentences: list[str],
) -> Int64[np.ndarray, "n 2"]:
    """Returns the characters [start, end) of each token in all sentences joined."""
    pairs = itertools.chain.from_iterable(offsets)
    flat = itertools.chain.from_iterable(pairs)
    bounds = np.fromiter(flat, np.int64, 2 * int(lengths.sum())).reshape(-1, 2)
    sizes = np.fromiter(map(len, sentences), np.int64, len(sentences))
    return bounds + np.repeat(np.cumsum(sizes) - sizes, lengths)[:, None]


def _begins(
    bounds: Int64[np.ndarray, "n 2"], number: Int64[np.ndarray, " c"]
) -> Bool[np.ndarray, " n"]:
    """Returns in which tokens, or in what was dropped before them, a word starts."""
    # The token of a space that SentencePiece inserted is empty.
    last = np.maximum(bounds[:, 1] - 1, bounds[:, 0])
    return np.diff(number[np.minimum(last, len(number) - 1)], prepend=-1) != 0


def _number_characters(
    sentences: list[str], words: Sequence[Sequence[str]]
) -> Int64[np.ndarray, " c"]:
    """Returns the number of each character's word, counted over all sentences."""
    first, parts = 0, [np.zeros(0, np.int64)]
    for sentence, its_words in zip(sentences, words, strict=True):
        parts.append(word_of_character(sentence, its_words) + first)
        first += len(its_words) + 1
    return np.concatenate(parts)


def word_of_character(sentence: str, words: Sequence[str]) -> Int64[np.ndarray, " c"]:
    """Returns the number of the word that each character of a sentence is in.

    White space and control characters, which tokenizers drop, may be missing on
    either side; they belong to the word before them.

    >>> word_of_character("北京 大学", ["北京", "大学"]).tolist()
    [0, 0, 0, 1, 1]

    Raises:
      InputError: the words do not join to the sentence.
    """
    if "".join(words) == sentence:
        return np.repeat(np.arange(len(words)), [len(word) for word in words])
    dropped = characters.dropped_pattern()
    kept = [i for i, c in enumerate(sentence) if not dropped.match(c)]
    bare = [dropped.sub("", word) for word in words]
    if "".join(bare) != "".join(sentence[i] for i in kept):
        raise errors.InputError(
            f"the words {list(words)[:9]} do not join to the sentence"
            f" {sentence[:60]!r}."
        )
    begins = np.zeros(len(sentence), np.int64)
    ends = np.cumsum([len(word) for word in bare])
    lengths = np.array([len(word) for word in bare])
    begins[np.array(kept, np.int64)[(ends - lengths)[lengths > 0]]] = 1
    return np.maximum(np.cumsum(begins) - 1, 0)


def _is_cjk(points: UInt32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Returns whether each code point is a Chinese character."""
    is_cjk = np.zeros(len(points), bool)
    for first, last in characters.CJK_RANGES:
        is_cjk |= (points >= first) & (points <= last)
    return is_cjk


def _first_always(
    starts: Bool[np.ndarray, " n"], lengths: Int64[np.ndarray, " s"]
) -> Bool[np.ndarray, " n"]:
    """Makes the first token of every sentence start a word."""
    heads = (np.cumsum(lengths) - lengths)[lengths > 0]
    starts[heads] = True
    return starts
