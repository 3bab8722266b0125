"""The tokenised corpus on disk, built: sources and a tokenizer become a store.

What is around every engine that fills one: checks, all or nothing, the manifest last,
and whether a store that is there is what would be built.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from bert_jax import errors, faults, files
from bert_jax.data.corpus import filling, local_engine, readers, shards
from bert_jax.data.corpus import manifest as manifests
from bert_jax.data.corpus import sources as sources_lib
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text import words


def ensure(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source],
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
    workers: int | None = None,
    progress: bool = True,
    engine: filling.Engine | None = None,
) -> manifests.Manifest:
    """Reuses a store that is what `build` would make now, or builds it.

    Raises InputError naming what differs when another store is there.
    """
    if not (folder / manifests.NAME).exists():
        return build(
            folder,
            sources=sources,
            tokenizer=tokenizer,
            options=options,
            workers=workers,
            progress=progress,
            engine=engine,
        )
    return reuse(folder, sources=sources, tokenizer=tokenizer, options=options)


def reuse(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source] | None = None,
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
) -> manifests.Manifest:
    """Returns the manifest of a store that is there, if it is what is wanted.

    Without `sources` any text will do. Raises InputError naming what differs, and when
    the text of the store is not there to be compared.
    """
    manifest = manifests.read(folder)
    try:
        found = differences(
            folder, sources=sources, tokenizer=tokenizer, options=options
        )
    except errors.InputError as error:
        raise errors.InputError(
            f"the store {folder} cannot be compared with the corpus: {error} To take "
            "it as it is, leave the corpus empty: --config.data.corpus="
        ) from None
    if found:
        raise errors.InputError(
            f"the store {folder} was built from something else: {'; '.join(found)}. "
            "Choose another data.store, or delete this one to build it again."
        )
    return manifest


def build(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source],
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
    workers: int | None = None,
    progress: bool = True,
    engine: filling.Engine | None = None,
    shard_tokens: int = shards.SHARD_TOKENS,
) -> manifests.Manifest:
    """Builds a store, byte for byte the same for any engine and number of workers.

    Args:
      folder: where the store will be; it must not exist.
      workers: processes that tokenise on this machine; one for every core when left
        out.
      progress: whether to show a bar of the bytes read.
      engine: what does the work instead of this machine.
      shard_tokens: a shard ends with the document that reaches so many tokens, or
        a thirty-second of them when it is held out.

    Raises:
      InputError: a source, an option or the folder is bad.
      StorageError: the disk failed or is full, or a worker died.
    """
    check_options(options)
    if workers is not None and workers < 1:
        raise errors.InputError(f"workers is {workers}. Give one or more.")
    readings = tuple(readers.Reading(source) for source in sources)
    if engine is None:
        engine = functools.partial(
            local_engine.fill, workers=workers, progress=progress
        )
    with files.building_folder(folder) as unfinished:
        tokenizer.save(unfinished)
        faults.point("store/tokenizer")
        job = filling.Job(unfinished, readings, options, tokenizer.unk_id, shard_tokens)
        manifest = _manifest(engine(job), tokenizer, options)
        shards.write_manifest(unfinished, manifest)
        faults.point("store/manifest")
    return manifest


def _manifest(
    filled: filling.Filled, tokenizer: tokenizers.Tokenizer, options: manifests.Options
) -> manifests.Manifest:
    """Returns the manifest of what an engine filled; raises InputError for nothing."""
    if not filled.shards:
        raise errors.InputError(
            "the corpus has no text that gives a token. Check data.corpus."
        )
    return manifests.Manifest(
        format_version=manifests.FORMAT_VERSION,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        options=options,
        sources=filled.sources,
        dropped=filled.dropped,
        shards=filled.shards,
    )


def check_options(options: manifests.Options) -> None:
    """Raises InputError for a value that means nothing."""
    if not 0 <= options.held_out_fraction < 1:
        raise errors.InputError(
            f"held_out_fraction is {options.held_out_fraction}. It is a share of the "
            "documents from 0 to less than 1."
        )
    if options.segmenter not in words.NAMES:
        raise errors.InputError(
            f"text.segmenter is {options.segmenter!r}. Choose one of "
            f"{', '.join(words.NAMES)}."
        )
    if options.segmenter_fallback not in ("none", "jieba"):
        raise errors.InputError(
            f"the segmenter of documents without words is "
            f"{options.segmenter_fallback!r}. Choose none or jieba."
        )


def differences(
    folder: Path,
    *,
    sources: Sequence[sources_lib.Source] | None,
    tokenizer: tokenizers.Tokenizer,
    options: manifests.Options,
) -> list[str]:
    """Returns what a store was built from otherwise, in words; [] when nothing.

    The files of the corpus are compared by name and size and then by sha256, about a
    second per gigabyte; `sources=None` leaves the corpus out.
    """
    manifest = manifests.read(folder)
    found = []
    if manifest.tokenizer != tokenizer.fingerprint:
        found.append("another tokenizer")
    for field in dataclasses.fields(options):
        then, now = (getattr(o, field.name) for o in (manifest.options, options))
        if then != now:
            found.append(f"{field.name} was {then!r} and is {now!r}")
    if sources is not None:
        found += _source_differences(manifest.sources, sources)
    return found


def _source_differences(
    then: Sequence[manifests.SourceEntry], now: Sequence[sources_lib.Source]
) -> list[str]:
    """Returns what differs between the sources of a store and those of today."""
    if len(then) != len(now):
        return [f"the corpus had {len(then)} sources and has {len(now)}"]
    found = []
    for entry, source in zip(then, now, strict=True):
        name = f"{source.kind}:{source.where}"
        for key in ("kind", "field", "weight"):
            old = getattr(entry, key)
            new = source.recorded_kind if key == "kind" else getattr(source, key)
            if old != new:
                found.append(f"{key} of {name} was {old!r} and is {new!r}")
        if not found:
            found += _file_differences(entry.files, source)
    return found


def _file_differences(
    then: Sequence[manifests.FileEntry], source: sources_lib.Source
) -> list[str]:
    """Returns what differs in the files of one source; digests come last."""
    old = {entry.name: entry for entry in then}
    new = {entry.name: entry for entry in readers.file_entries(source, digests=False)}
    if old.keys() != new.keys():
        names = sorted(old.keys() ^ new.keys())
        return [f"files came or went: {', '.join(names[:5])}"]
    changed = [name for name in new if new[name].bytes != old[name].bytes]
    if not changed:
        entries = readers.file_entries(source)
        changed = [entry.name for entry in entries if entry != old[entry.name]]
    return [f"other text in {', '.join(changed[:5])}"] if changed else []
