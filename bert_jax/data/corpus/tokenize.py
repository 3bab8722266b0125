"""Chunks of raw documents into blocks of ids, in as many processes as there are cores.

Workers are plain child processes that read chunks from a pipe and end when it closes:
they outlive no parent, need no guarded main module, and load numpy and the tokenizer
alone. Results come back in the order of the chunks, whatever the number of workers.
"""

import collections
import dataclasses
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt64

from bert_jax import errors
from bert_jax.data.corpus import readers, store
from bert_jax.text import cleaning, words
from bert_jax.text.tokenizer import Tokenizer

# Bounds the memory of a worker: `tokenizers` needs some hundred bytes a token.
_BATCH_CHARACTERS = 1 << 18
# What `Tokenised` counts, by the names of the manifest.
COUNTED = ("empty_documents", "empty_sentences", "documents_without_words")


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know: the tokenizer's folder and where words begin."""

    tokenizer: Path
    segmenter: str
    fallback: str


class Chunk(NamedTuple):
    """Records of one source that are tokenised together."""

    source: int
    records: tuple[readers.Record, ...]


@dataclass(frozen=True, eq=False)
class Tokenised:
    """The documents of a chunk that have tokens, and what was dropped."""

    block: store.Block
    content: UInt64[np.ndarray, " documents"]
    empty_documents: int
    empty_sentences: int
    documents_without_words: int


class Worker:
    """Turns chunks into blocks by one tokenizer and one segmenter."""

    def __init__(self, settings: Settings) -> None:
        """Loads the tokenizer and the segmenter; raises InputError."""
        given = Tokenizer.load(settings.tokenizer)
        given.cleaning.check()
        self._clean = given.cleaning or None
        # Documents are cleaned before they are cut into sentences and words.
        self._tokenizer = dataclasses.replace(given, cleaning=cleaning.NONE)
        self._from_corpus = settings.segmenter == "corpus"
        name = settings.fallback if self._from_corpus else settings.segmenter
        self._segmenter = words.segmenter(name)
        self._dtype = store.token_dtype(self._tokenizer.vocab_size)

    def tokenise(self, chunk: Chunk) -> Tokenised:
        """Returns the ids of a chunk; raises InputError naming a record's place."""
        documents = [readers.parse(r, self._clean) for r in chunk.records]
        parts = [self._encode(batch) for batch in _batches(documents)]
        tokens, lengths, starts = (np.concatenate(p) for p in zip(*parts, strict=True))
        counts = np.array([len(d.sentences) for d in documents], np.int64)
        owner = np.repeat(np.arange(len(documents)), counts)
        kept = np.bincount(owner[lengths > 0], minlength=len(documents))
        content = np.array([readers.content_hash(d) for d in documents], np.uint64)
        block = store.Block(
            tokens=tokens,
            word_starts=starts,
            sentence_lengths=lengths[lengths > 0],
            document_lengths=kept[kept > 0],
            sources=np.full(int((kept > 0).sum()), chunk.source, np.uint16),
        )
        without = sum(d.words is None for d in documents) if self._from_corpus else 0
        return Tokenised(
            block=block,
            content=content[kept > 0],
            empty_documents=int((kept == 0).sum()),
            empty_sentences=int((lengths == 0).sum()),
            documents_without_words=without,
        )

    def _encode(self, documents: Sequence[readers.Document]) -> tuple[np.ndarray, ...]:
        """Returns ids, sentence lengths and word starts of some documents."""
        sentences = [s for document in documents for s in document.sentences]
        try:
            ids, lengths, starts = words.encode(
                self._tokenizer, sentences, self._words(documents)
            )
        except errors.InputError as error:
            raise errors.InputError(f"near {documents[0].where}: {error}") from None
        if len(ids) and int(ids.max()) >= self._tokenizer.vocab_size:
            raise errors.InputError(
                f"near {documents[0].where}: the tokenizer gave the id {ids.max()}, "
                f"but it has {self._tokenizer.vocab_size} pieces. Check the vocabulary."
            )
        return ids.astype(self._dtype), lengths, starts

    def _words(
        self, documents: Sequence[readers.Document]
    ) -> list[Sequence[str]] | None:
        """Returns the words of every sentence; None where pieces decide."""
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
        """Returns the segmenter's words, or what leaves the rule to the pieces."""
        if self._segmenter is not None:
            return self._segmenter.cut(sentence)
        # A WordPiece may begin a word only where one of these begins, a SentencePiece
        # also elsewhere: so characters for one, the whole for the other.
        return list(sentence) if self._tokenizer.kind == "wordpiece" else [sentence]


def _batches(
    documents: Sequence[readers.Document],
) -> Iterator[Sequence[readers.Document]]:
    """Yields runs of sentences, a few hundred kilobytes each, as documents."""
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


def _part(document: readers.Document, first: int, last: int) -> readers.Document:
    """Returns some sentences of a document as a document."""
    if last - first == len(document.sentences):
        return document
    words_of = document.words and document.words[first:last]
    return readers.Document(document.sentences[first:last], words_of, document.where)


def tokenise_all(
    chunks: Iterable[Chunk], settings: Settings, workers: int
) -> Generator[Tokenised, None, None]:
    """Yields what `Worker.tokenise` makes of every chunk, in order.

    With one worker in this process, else in so many children; at most two chunks a
    worker are in flight. Raises InputError of a chunk, and StorageError when a child
    dies.
    """
    if workers == 1:
        yield from map(Worker(settings).tokenise, chunks)
        return
    with _children(settings, workers) as idle:
        with futures.ThreadPoolExecutor(workers) as pool:
            pending: collections.deque[futures.Future[Tokenised]] = collections.deque()
            try:
                for chunk in chunks:
                    pending.append(pool.submit(_ask, idle, chunk))
                    if len(pending) == 2 * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


Child = subprocess.Popen[bytes]


@contextmanager
def _children(settings: Settings, count: int) -> Iterator[queue.SimpleQueue[Child]]:
    """Starts children, and ends them when the context is left."""
    code = "from bert_jax.data.corpus import tokenize; tokenize.serve()"
    # A group of its own: Ctrl-C is for the parent, which ends its children.
    paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "false",
    }
    idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
    children = []
    try:
        for _ in range(count):
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                process_group=0,
            )
            children.append(child)
            _send(child, settings)
        for child in children:
            _receive(child)
            idle.put(child)
        yield idle
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _send(child: Child, message: Settings | Chunk) -> None:
    """Gives a child its settings or a chunk."""
    assert child.stdin is not None
    try:
        pickle.dump(message, child.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        child.stdin.flush()
    except BrokenPipeError:
        raise _died(child) from None


def _ask(idle: queue.SimpleQueue[Child], chunk: Chunk) -> Tokenised:
    """Has an idle child tokenise a chunk; raises what the child raised."""
    child = idle.get()
    try:
        _send(child, chunk)
        return _receive(child)
    finally:
        idle.put(child)


def _receive(child: Child) -> Any:
    """Returns a child's answer, or raises it where it is an error."""
    assert child.stdout is not None
    try:
        answer = pickle.load(child.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _died(child) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _died(child: Child) -> errors.StorageError:
    """Returns the error for a child that ended by itself."""
    status = child.wait()
    how = (
        f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    )
    return errors.StorageError(
        f"a process that tokenised was ended {how}; often memory had run out. "
        "Start again with fewer workers."
    )


def serve() -> None:
    """Answers chunks from standard input until it closes: the life of a child."""
    # Whatever prints must not print into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    try:
        worker = Worker(pickle.load(requests))
    except errors.BertJaxError as error:
        _answer(answers, error)
        return
    _answer(answers, None)
    while True:
        try:
            chunk = pickle.load(requests)
        except EOFError:
            return
        try:
            _answer(answers, worker.tokenise(chunk))
        except errors.BertJaxError as error:
            _answer(answers, error)
        except Exception:
            _answer(answers, RuntimeError(traceback.format_exc()))


def _answer(answers: BinaryIO, value: Tokenised | Exception | None) -> None:
    """Sends one answer; ends quietly when the parent is gone."""
    try:
        pickle.dump(value, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
