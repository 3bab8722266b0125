"""Learns a vocabulary from a corpus: WordPiece by merging pairs, or SentencePiece.

The same texts give the same bytes in any process, with any number of threads: the
Rust trainer numbers pieces in the order of a hash table, so it is given the counted
words in a fixed order, and every single character with its id beforehand.
"""

import collections
import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax import errors
from bert_jax.text import characters, spiece, tokenizer, vocabulary_file, wordpiece

Kind = Literal["wordpiece", "sentencepiece-unigram", "sentencepiece-bpe"]
KINDS = ("wordpiece", "sentencepiece-unigram", "sentencepiece-bpe")

_ALPHABET_SHARE = 0.9  # of a vocabulary, at most, for single characters
_MAX_DISTINCT_WORDS = 4_000_000  # about 500 MB of counts
_MAX_SENTENCE_CHARACTERS = 1_000  # SentencePiece skips, silently, over 4,192 bytes
_SENTENCEPIECE_THREADS = 8  # changes its sums, so it does not follow the machine
_CHARACTER_COVERAGE = 0.9995  # the share of text SentencePiece's alphabet must spell

_logger = logging.getLogger(__name__)


def learn(
    texts: Iterable[str],
    *,
    kind: Kind,
    vocab_size: int,
    lowercase: bool,
    folder: Path,
    min_frequency: int = 2,
    max_sentences: int = 2_000_000,
) -> tokenizer.Tokenizer:
    """Learns a vocabulary, writes it to a folder, and returns its tokenizer.

    The ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK]. A corpus that yields fewer
    pieces than asked for makes a smaller vocabulary, and a warning says so.

    Args:
      texts: sentences or paragraphs, read once.
      kind: one of KINDS.
      vocab_size: how many pieces at most, the special ones included.
      lowercase: whether "A" and "a" are one; WordPiece then strips accents too.
      folder: where `Tokenizer.save` writes.
      min_frequency: WordPiece joins no pair, and keeps no character, seen less often.
      max_sentences: SentencePiece learns from a fixed sample of this many.

    Raises:
      InputError: an argument makes no sense, or the texts hold nothing to learn from.
    """
    _check(kind, vocab_size, min_frequency, max_sentences)
    if kind == "wordpiece":
        counts = count_words(texts, lowercase=lowercase)
        tokens = _learn_wordpiece(counts, vocab_size, min_frequency)
        learnt = tokenizer.Tokenizer(
            "wordpiece", tokens, lowercase, lowercase, rules="huggingface"
        )
    else:
        model = _learn_sentencepiece(texts, kind, vocab_size, lowercase, max_sentences)
        pieces = spiece.pieces(model)
        learnt = tokenizer.Tokenizer("sentencepiece", pieces, False, False, model)
    if learnt.vocab_size < vocab_size:
        _logger.warning(
            "The corpus yields %d pieces, fewer than the %d asked for.",
            learnt.vocab_size,
            vocab_size,
        )
    learnt.save(folder)
    return learnt


def _check(kind: str, vocab_size: int, min_frequency: int, max_sentences: int) -> None:
    """Refuses arguments that make no sense."""
    if kind not in KINDS:
        raise errors.InputError(
            f"text.tokenizer is {kind!r}. Choose one of {', '.join(KINDS)}."
        )
    if vocab_size <= len(vocabulary_file.SPECIALS):
        raise errors.InputError(
            f"text.vocab_size is {vocab_size}. Ask for more than the"
            f" {len(vocabulary_file.SPECIALS)} special pieces; thousands are usual."
        )
    if min_frequency < 1:
        raise errors.InputError(
            f"min_frequency is {min_frequency}. Give 1 to keep everything, or more."
        )
    if max_sentences <= 100:
        raise errors.InputError(
            f"max_sentences is {max_sentences}. SentencePiece samples more than 100."
        )


def count_words(texts: Iterable[str], *, lowercase: bool) -> collections.Counter[str]:
    """Counts the words of texts as WordPiece sees them: normalised and parted.

    Memory is bounded: of too many distinct words the rarest are forgotten.

    >>> sorted(count_words(["Été, été 北京"], lowercase=True).items())
    [(',', 1), ('ete', 2), ('京', 1), ('北', 1)]
    """
    clean = wordpiece.normalizer(lowercase, strip_accents=lowercase).normalize_str
    words_of = characters.punctuation_pattern().findall
    counts: collections.Counter[str] = collections.Counter()
    forgotten = 0
    for text in texts:
        counts.update(words_of(clean(wordpiece.without_surrogates(text))))
        while len(counts) > _MAX_DISTINCT_WORDS:
            forgotten += 1
            counts = collections.Counter(
                {word: n for word, n in counts.items() if n > forgotten}
            )
    return counts


def _learn_wordpiece(
    counts: collections.Counter[str], vocab_size: int, min_frequency: int
) -> tuple[str, ...]:
    """Returns the pieces: special ones, single characters, then pairs as merged."""
    singles = _single_pieces(counts, vocab_size, min_frequency)
    known = frozenset(piece[-1] for piece in singles)
    # A word with a character that has no piece is unknown as a whole.
    words = sorted(
        (word, count)
        for word, count in counts.items()
        if len(word) <= wordpiece.MAX_CHARACTERS_PER_WORD and known.issuperset(word)
    )
    rust = tokenizers.Tokenizer(models.WordPiece(unk_token=vocabulary_file.UNK))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*vocabulary_file.SPECIALS, *singles],
        show_progress=False,
    )
    rust.train_from_iterator(_repeat(words), trainer)
    pieces = rust.get_vocab(with_added_tokens=False)
    return tuple(sorted(pieces, key=pieces.__getitem__))


def _single_pieces(
    counts: collections.Counter[str], vocab_size: int, min_frequency: int
) -> list[str]:
    """Returns "c", and "##c" where it occurs, for the characters that find room.

    The most frequent come first, up to nine tenths of the vocabulary: enough for
    Chinese, whose thousands of characters are the pieces, and room to merge.
    """
    heads: collections.Counter[str] = collections.Counter()
    tails: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        heads[word[0]] += count
        for character in word[1:]:
            tails[character] += count
    total = heads + tails
    if not total:
        raise errors.InputError(
            "the texts hold no word to learn a vocabulary from. Check the corpus."
        )
    room = int(_ALPHABET_SHARE * (vocab_size - len(vocabulary_file.SPECIALS)))
    chosen: list[str] = []
    for character in sorted(total, key=lambda c: (-total[c], c)):
        forms = [character, f"##{character}"][: 2 if character in tails else 1]
        if total[character] < min_frequency or len(chosen) + len(forms) > room:
            break
        chosen += forms
    if not chosen:
        raise errors.InputError(
            f"no character occurs {min_frequency} times, or text.vocab_size"
            f" {vocab_size} has no room for one. Give more text or a larger vocabulary."
        )
    return sorted(chosen, key=lambda piece: (len(piece), piece))


def _repeat(words: list[tuple[str, int]]) -> Iterator[str]:
    """Yields each word as often as it was counted, in texts of moderate size."""
    for word, count in words:
        whole, rest = divmod(count, 1_000)
        text = f"{word} " * 1_000
        yield from itertools.repeat(text, whole)
        yield f"{word} " * rest


def _learn_sentencepiece(
    texts: Iterable[str], kind: str, vocab_size: int, lowercase: bool, sentences: int
) -> bytes:
    """Returns the bytes of a model whose control symbols are BERT's."""
    import sentencepiece

    writer = io.BytesIO()
    failures: list[BaseException] = []
    pad, unk, cls, sep, mask = vocabulary_file.SPECIALS
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_pieces_of_text(texts, failures),
            model_writer=writer,
            model_type=kind.removeprefix("sentencepiece-"),
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=_CHARACTER_COVERAGE,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            input_sentence_size=sentences,
            shuffle_input_sentence=True,
            num_threads=_SENTENCEPIECE_THREADS,
            control_symbols=[mask],
            pad_id=0,
            pad_piece=pad,
            unk_id=1,
            unk_piece=unk,
            bos_id=2,
            bos_piece=cls,
            eos_id=3,
            eos_piece=sep,
            minloglevel=2,
        )
    except (RuntimeError, SystemError) as error:  # the latter in version 0.2.0
        if failures:
            raise failures[0] from None
        raise errors.InputError(_explain(str(error), vocab_size)) from None
    return writer.getvalue()


def _pieces_of_text(
    texts: Iterable[str], failures: list[BaseException]
) -> Iterator[str]:
    """Yields texts without controls, cut where they are longer than the trainer takes.

    The trainer reads one sentence a line and ends a string at NUL. What reading the
    texts raises is kept in `failures`, for the trainer turns it into its own error.
    """
    controls = characters.control_pattern()
    try:
        for text in texts:
            text = controls.sub("", wordpiece.without_surrogates(text)).strip()
            for start in range(0, len(text), _MAX_SENTENCE_CHARACTERS):
                yield text[start : start + _MAX_SENTENCE_CHARACTERS]
    except BaseException as error:
        failures.append(error)
        raise


def _explain(message: str, vocab_size: int) -> str:
    """Turns the trainer's message into one for the user."""
    if "smaller than required_chars" in message:
        need = message.split("required_chars.")[1].split("vs")[1].split(".")[0].strip()
        return (
            f"text.vocab_size is {vocab_size}, and the characters of the corpus alone"
            f" need {need} pieces. Ask for more."
        )
    if "sentences_.empty()" in message:
        return "the texts hold no sentence to learn a vocabulary from."
    return f"SentencePiece cannot learn from the texts: {message}"
