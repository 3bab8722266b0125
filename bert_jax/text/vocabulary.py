"""Learns a vocabulary from a corpus: WordPiece by merging pairs, or SentencePiece.

The same texts give the same bytes in any process, with any number of threads: the
Rust trainer numbers tokens in the order of a hash table, so it gets the counted words
in a fixed order, and every single character as a token with an id.
"""

import collections
import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bert_jax import errors
from bert_jax.text import VocabularyKind, characters, pipelines, spiece
from bert_jax.text import specials as special_tokens
from bert_jax.text.tokenizer import Tokenizer

_SPECIALS = tuple(special_tokens.BERT.present().values())

_ALPHABET_FRACTION = 0.9  # of a vocabulary, at most, for single characters
_MAX_DISTINCT_WORDS = 4_000_000  # about 500 MB of counts
_MAX_SENTENCE_CHARACTERS = 1_000  # SentencePiece silently skips over 4,192 bytes
_SENTENCEPIECE_THREADS = 8  # changes its sums, so it does not depend on the machine
_CHARACTER_COVERAGE = 0.9995  # fraction of characters in SentencePiece's alphabet

_logger = logging.getLogger(__name__)


def learn(
    texts: Iterable[str],
    *,
    kind: VocabularyKind,
    vocab_size: int,
    lowercase: bool,
    folder: Path,
    min_frequency: int = 2,
    max_sentences: int = 2_000_000,
) -> Tokenizer:
    """Learns a vocabulary, writes it to a folder, and returns its tokenizer.

    The ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK]. A corpus that yields fewer
    tokens than requested gives a smaller vocabulary, with a warning.

    Args:
      texts: sentences or paragraphs, read once.
      vocab_size: the maximum number of tokens, special ones included.
      lowercase: whether text is lowercased; WordPiece then strips accents too.
      folder: where `Tokenizer.save` writes.
      min_frequency: WordPiece merges no pair, and keeps no character, that is rarer.
      max_sentences: SentencePiece learns from a fixed sample of this many.

    Raises:
      InputError: the texts have nothing to learn from, or need a larger vocabulary.
    """
    if kind == "wordpiece":
        counts = count_words(texts, lowercase=lowercase)
        tokens = _learn_wordpiece(counts, vocab_size, min_frequency)
        tokenizer = Tokenizer(
            "wordpiece", tokens, lowercase, lowercase, rules="huggingface"
        )
    else:
        model = _learn_sentencepiece(texts, kind, vocab_size, lowercase, max_sentences)
        tokens = spiece.tokens(model, "the learned model")
        tokenizer = Tokenizer("sentencepiece", tokens, False, False, model)
    if tokenizer.vocab_size < vocab_size:
        _logger.warning(
            "The corpus yields %d tokens, fewer than text.vocab_size=%d.",
            tokenizer.vocab_size,
            vocab_size,
        )
    tokenizer.save(folder)
    return tokenizer


def count_words(texts: Iterable[str], *, lowercase: bool) -> collections.Counter[str]:
    """Counts the words of texts as WordPiece sees them: normalized and split.

    Memory is bounded: if there are too many distinct words, the rarest are dropped.

    >>> sorted(count_words(["Été, été 北京"], lowercase=True).items())
    [(',', 1), ('ete', 2), ('京', 1), ('北', 1)]
    """
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=lowercase,
        lowercase=lowercase,
    )
    words_of = characters.punctuation_pattern().findall
    counts: collections.Counter[str] = collections.Counter()
    dropped = 0
    for text in texts:
        text = characters.without_surrogates(text)
        counts.update(words_of(normalizer.normalize_str(text)))
        while len(counts) > _MAX_DISTINCT_WORDS:
            dropped += 1
            counts = collections.Counter(
                {word: n for word, n in counts.items() if n > dropped}
            )
    return counts


def _learn_wordpiece(
    counts: collections.Counter[str], vocab_size: int, min_frequency: int
) -> tuple[str, ...]:
    """Returns the tokens: special ones, single characters, then pairs as merged."""
    singles = _single_characters(counts, vocab_size, min_frequency)
    known = frozenset(token[-1] for token in singles)
    # A word with a character that has no token is unknown as a whole.
    limit = pipelines.CHARACTERS_PER_WORD["google"]
    words = sorted(
        (word, count)
        for word, count in counts.items()
        if len(word) <= limit and known.issuperset(word)
    )
    rust = tokenizers.Tokenizer(models.WordPiece(unk_token=special_tokens.UNK))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*_SPECIALS, *singles],
        show_progress=False,
    )
    rust.train_from_iterator(_repeat(words), trainer)
    ids = rust.get_vocab(with_added_tokens=False)
    return tuple(sorted(ids, key=ids.__getitem__))


def _single_characters(
    counts: collections.Counter[str], vocab_size: int, min_frequency: int
) -> list[str]:
    """Returns "c", and "##c" where it occurs, for the most frequent characters.

    They take up to nine tenths of the vocabulary: enough for Chinese, whose tokens are
    thousands of characters, and the rest is left to merges.
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
            "the texts have no word to learn a vocabulary from. Check the corpus."
        )
    room = int(_ALPHABET_FRACTION * (vocab_size - len(_SPECIALS)))
    chosen: list[str] = []
    for character in sorted(total, key=lambda c: (-total[c], c)):
        forms = [character, f"##{character}"][: 2 if character in tails else 1]
        if total[character] < min_frequency or len(chosen) + len(forms) > room:
            break
        chosen += forms
    if not chosen:
        raise errors.InputError(
            f"no character occurs {min_frequency} times, or text.vocab_size"
            f" {vocab_size} is too small for one. Give more text or a larger"
            " vocabulary."
        )
    return sorted(chosen, key=lambda token: (len(token), token))


def _repeat(words: list[tuple[str, int]]) -> Iterator[str]:
    """Yields each word count times, in texts of moderate size."""
    for word, count in words:
        whole, rest = divmod(count, 1_000)
        text = f"{word} " * 1_000
        yield from itertools.repeat(text, whole)
        yield f"{word} " * rest


def _learn_sentencepiece(
    texts: Iterable[str], kind: str, vocab_size: int, lowercase: bool, sentences: int
) -> bytes:
    """Returns the bytes of a model whose control symbols are BERT's special tokens."""
    import sentencepiece

    writer = io.BytesIO()
    failures: list[BaseException] = []
    pad, unk, cls, sep, mask = _SPECIALS
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_short_texts(texts, failures),
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


def _short_texts(texts: Iterable[str], failures: list[BaseException]) -> Iterator[str]:
    """Yields texts without control characters, split to a length the trainer accepts.

    The trainer reads one sentence a line and ends a string at NUL. What reading the
    texts raises is kept in `failures`, because the trainer replaces it by its error.
    """
    controls = characters.control_pattern()
    try:
        for text in texts:
            text = controls.sub("", characters.without_surrogates(text)).strip()
            for start in range(0, len(text), _MAX_SENTENCE_CHARACTERS):
                yield text[start : start + _MAX_SENTENCE_CHARACTERS]
    except BaseException as error:
        failures.append(error)
        raise


def _explain(message: str, vocab_size: int) -> str:
    """Returns what the trainer's message means for the user."""
    if "smaller than required_chars" in message:
        need = message.split("required_chars.")[1].split("vs")[1].split(".")[0].strip()
        return (
            f"text.vocab_size is {vocab_size}, and the characters of the corpus alone"
            f" need {need} tokens. Give more."
        )
    if "sentences_.empty()" in message:
        return "the texts have no sentence to learn a vocabulary from."
    return f"SentencePiece cannot learn from the texts: {message}"
