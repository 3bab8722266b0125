"""Tokenizes chunks of raw documents into blocks of ids, in parallel processes.

Workers are spawned, load only numpy and the tokenizer, and end with their parent.
Results come in the order of the chunks, whatever the number of workers.
"""

import collections
import dataclasses
import functools
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from bert_jax import errors
from bert_jax.data.corpus import parsing, store
from bert_jax.text import cleaning, words
from bert_jax.text.tokenizer import Tokenizer

# Bounds the memory of a worker: `tokenizers` needs about a hundred bytes per token.
_BATCH_CHARACTERS = 1 << 18
# Counts of `TokenizedChunk`, by their names in the manifest.
COUNTED = ("empty_documents", "empty_sentences", "documents_without_words")


@dataclass(frozen=True)
class TokenizeSettings:
    """The tokenizer's folder and the word segmenters."""

    tokenizer: Path
    segmenter: str
    fallback: str


class Chunk(NamedTuple):
    """Records of one source that are tokenized together."""

    source: int
    records: tuple[parsing.RawDocument, ...]


@dataclass(frozen=True, eq=False)
class TokenizedChunk:
    """The documents of a chunk that have tokens, and counts of the others."""

    block: store.Block
    content: UInt64[np.ndarray, " documents"]
    empty_documents: int
    empty_sentences: int
    documents_without_words: int


class ChunkTokenizer:
    """Tokenizes chunks with one tokenizer and one segmenter."""

    def __init__(self, settings: TokenizeSettings) -> None:
        """Loads the tokenizer and the segmenter; raises InputError."""
        given = Tokenizer.load(settings.tokenizer)
        given.cleaning.check()
        self._clean = given.cleaning or None
        # Documents are cleaned before they are split into sentences and words.
        self._tokenizer = dataclasses.replace(given, cleaning=cleaning.NONE)
        self._from_corpus = settings.segmenter == "corpus"
        name = settings.fallback if self._from_corpus else settings.segmenter
        self._segmenter = words.segmenter(name)
        self._dtype = store.token_dtype(self._tokenizer.vocab_size)

    def tokenize(self, chunk: Chunk) -> TokenizedChunk:
        """Returns the ids of a chunk; raises InputError for a bad record."""
        documents = [parsing.parse(r, self._clean) for r in chunk.records]
        parts = [self._encode(batch) for batch in _batches(documents)]
        tokens, lengths, starts = (np.concatenate(p) for p in zip(*parts, strict=True))
        counts = np.array([len(d.sentences) for d in documents], np.int64)
        owner = np.repeat(np.arange(len(documents)), counts)
        kept = np.bincount(owner[lengths > 0], minlength=len(documents))
        content = np.array([parsing.content_hash(d) for d in documents], np.uint64)
        block = store.Block(
            tokens=tokens,
            word_starts=starts,
            sentence_lengths=lengths[lengths > 0],
            document_lengths=kept[kept > 0],
            sources=np.full(int((kept > 0).sum()), chunk.source, np.uint16),
        )
        without = sum(d.words is None for d in documents) if self._from_corpus else 0
        return TokenizedChunk(
            block=block,
            content=content[kept > 0],
            empty_documents=int((kept == 0).sum()),
            empty_sentences=int((lengths == 0).sum()),
            documents_without_words=without,
        )

    def _encode(self, documents: Sequence[parsing.Document]) -> tuple[np.ndarray, ...]:
        """Returns ids, sentence lengths and word starts of some documents."""
        sentences = [s for document in documents for s in document.sentences]
        try:
            ids, lengths, starts = words.encode(
                self._tokenizer, sentences, self._words(documents)
            )
        except errors.InputError as error:
            raise errors.InputError(f"near {documents[0].where}: {error}") from None
        return ids.astype(self._dtype), lengths, starts

    def _words(
        self, documents: Sequence[parsing.Document]
    ) -> list[Sequence[str]] | None:
        """Returns the words of every sentence; None where subwords decide."""
        own = self._from_corpus and any(d.words is not None for d in documents)
        if not own and self._segmenter is None:
            return None
        found: list[Sequence[str]] = []
        for document in documents:
            if own and document.words is not None:
                found.extend(document.words)
            else:
                found.extend(map(self._cut, document.sentences))
        return found

    def _cut(self, sentence: str) -> Sequence[str]:
        """Returns the segmenter's words, or a split that defers to subwords."""
        if self._segmenter is not None:
            return self._segmenter.cut(sentence)
        # A WordPiece token can begin a word only where one of these begins, one of
        # SentencePiece also elsewhere: characters for the first, else the sentence.
        return list(sentence) if self._tokenizer.kind == "wordpiece" else [sentence]


def _batches(
    documents: Sequence[parsing.Document],
) -> Iterator[Sequence[parsing.Document]]:
    """Yields batches of documents of a few hundred kilobytes each."""
    batch, size = [], 0
    for document in documents:
        first = 0
        for index, sentence in enumerate(document.sentences):
            size += len(sentence)
            if size >= _BATCH_CHARACTERS:
                yield [*batch, _part(document, first, index + 1)]
                batch, size, first = [], 0, index + 1
        batch.append(_part(document, first, len(document.sentences)))
    yield batch


def _part(document: parsing.Document, first: int, last: int) -> parsing.Document:
    """Returns a document of some of the sentences of another."""
    if last - first == len(document.sentences):
        return document
    words_of = document.words and document.words[first:last]
    return parsing.Document(document.sentences[first:last], words_of, document.where)


def tokenize_all(
    chunks: Iterable[Chunk], settings: TokenizeSettings, workers: int
) -> Generator[TokenizedChunk, None, None]:
    """Yields what `ChunkTokenizer` makes of every chunk, in order.

    One worker is this process, several are child processes; at most two chunks per
    worker are in flight.

    Raises:
      InputError: a chunk cannot be tokenized.
      StorageError: a worker process died.
    """
    if workers == 1:
        yield from map(ChunkTokenizer(settings).tokenize, chunks)
        return
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker
    )
    pending: collections.deque[futures.Future[TokenizedChunk]] = collections.deque()
    try:
        for chunk in chunks:
            with _hidden_main():  # a process starts where all others are busy
                pending.append(pool.submit(_tokenize_in_worker, settings, chunk))
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise errors.StorageError(
            "a worker process that tokenizes the corpus died; usually memory ran out. "
            "Start again with fewer workers (data.workers)."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Hides the main module, so that a new process does not run it again.

    A script that calls this package needs no `if __name__ == "__main__"` then.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    """Prepares a worker process: it ignores Ctrl-C and ends with its parent."""
    os.setpgid(0, 0)  # the terminal sends signals only to the parent's group
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(0)


def _tokenize_in_worker(settings: TokenizeSettings, chunk: Chunk) -> TokenizedChunk:
    return worker_tokenizer(settings).tokenize(chunk)


@functools.lru_cache(maxsize=1)
def worker_tokenizer(settings: TokenizeSettings) -> ChunkTokenizer:
    """Returns the tokenizer of a worker process, loaded once.

    Other workers use the other cores, so it runs in one thread.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return ChunkTokenizer(settings)
