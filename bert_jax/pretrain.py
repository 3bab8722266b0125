"""Pretrains BERT from raw text: vocabulary, store, training and evaluation in one go.

python -m bert_jax.pretrain --config=configs/demo.py --workdir=runs/demo

The same command again resumes, or reports that the run is finished.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from bert_jax import commands
from bert_jax.checkpoints import initial_weights, run_folder
from bert_jax.config import pretraining
from bert_jax.config.pretraining import PretrainingConfig
from bert_jax.data.corpus import python_documents, store
from bert_jax.inference.model import Model, load
from bert_jax.runs import corpus_store, run, workdirs
from bert_jax.runs import pretraining as pretraining_run
from bert_jax.runs.pretraining import PretrainingRun, Trained
from bert_jax.tasks.pretraining import heldout_table
from bert_jax.training import distributed, logs, remote

_SAMPLES = 5
_SAMPLE_LENGTHS = (10, 28)  # tokens of a sentence that is shown


def train(
    config: Any,
    workdir: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    allow_changed_config: bool = False,
) -> Trained:
    """Trains, or resumes, and returns the final state and metrics.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      config: a ConfigDict or a plain tree, as `config.pretraining.default` returns.
      workdir: folder of the run, created if it does not exist; or a URL, as
        gs://bucket/runs/zh, of which a working copy is kept in $TMPDIR.
      data: documents from Python in place of `config.data.corpus`, as {"train":
        documents, "dev": documents}; a document is a text or a list of sentences, and
        `dev` the held-out ones (see `data.python_documents`). The record of the run has
        their sha256, and a resumed run must be given the same.
      allow_changed_config: resume even if the config changes the result.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    settings = pretraining.parse(config)

    def assemble(copy: remote.WorkingCopy) -> PretrainingRun:
        if data is None:
            none = python_documents.NONE
            return _assemble(settings, none, allow_changed_config, copy)
        with python_documents.written(data) as documents:
            own = dataclasses.replace(settings.data, corpus=documents.corpus)
            of_run = dataclasses.replace(settings, data=own)
            return _assemble(of_run, documents, allow_changed_config, copy)

    return run.train(assemble, workdir)


def _assemble(
    settings: PretrainingConfig,
    documents: python_documents.PythonDocuments,
    allow_changed: bool,
    copy: remote.WorkingCopy,
) -> PretrainingRun:
    """Builds or opens the store, writes the record of the run, and returns the run."""
    distributed.require_same(json.dumps(pretraining.to_dict(settings)), "the config")
    workdir = copy.folder
    folder = run_folder.store_of(settings, workdir)
    settings = workdirs.pinned(settings, workdir)
    tree = pretraining.to_dict(settings)
    distributed.require_same(json.dumps(tree), "names of the hub")
    resolved = initial_weights.resolve(settings, workdir, folder)
    pretraining_run.check(resolved)
    distributed.print_once(f"store: {folder}")

    def build() -> store.Manifest:
        is_own = not settings.data.store  # which an object store has, too
        if is_own:
            copy.fetch_folder(run_folder.STORE)
        built = corpus_store.ensure(
            resolved.text, settings.data, folder, given=documents.sources
        )
        if is_own:
            copy.push_folder(folder, run_folder.STORE)
        return built

    built = distributed.process_zero_first(build)
    distributed.require_same(repr(built), f"the store {folder}")
    distributed.print_once(corpus_store.describe(built))
    if distributed.is_first():
        corpus = documents.sources or corpus_store.sources_of(settings.data.corpus)
        corpus_store.check_text(built, resolved.data.objective, folder, corpus)
    assembled = pretraining_run.assemble(resolved, folder, workdir)
    workdirs.record(
        workdir,
        settings,
        assembled.bert,
        assembled.tokenizer,
        data=workdirs.data_of_store(built, folder, documents.files),
        allow_changed=allow_changed,
    )
    return assembled


def _final(workdir: Path, metrics: dict[str, float]) -> str:
    """Returns the table of scores, five masked sentences, and the paths of the run."""
    model = load(workdir)
    settings = run_folder.read_settings(workdir)
    folder = run_folder.store_of(settings, workdir)
    samples = [sample(model, ids, at) for ids, at in _masked(folder, model)]
    return "\n".join(
        [
            "",
            "held-out documents, 15 % of the tokens behind [MASK]:",
            heldout_table(metrics),
            "",
            "held-out sentences with one token masked, and the model's top five:",
            *samples,
            "",
            f"checkpoints  {workdir / run_folder.CHECKPOINTS}",
            f"metrics      {workdir / logs.METRICS}",
            f"curves       {workdir / logs.CURVES}",
            f"TensorBoard  {workdir / logs.TENSORBOARD}",
            f"tokenizer    {workdir / run_folder.TOKENIZER}",
            f"store        {folder}",
            f"config       {workdir / run_folder.CONFIG}",
            f"next         python -m bert_jax.predict --model={workdir} "
            "'text with [MASK]'",
        ]
    )


def sample(model: Model, ids: list[int], at: int) -> str:
    """Returns a masked sentence, the answer, and the five most likely tokens."""
    masked = [*ids[:at], model.tokenizer.mask_id, *ids[at + 1 :]]
    (guesses,) = model.fill_ids(masked)
    shown = "  ".join(f"{token} {probability:.0%}" for token, probability in guesses)
    answer = model.tokenizer.tokens[ids[at]]
    return f"  {model.tokenizer.decode(masked)}\n      {answer}  <-  {shown}"


def _masked(folder: Path, model: Model) -> list[tuple[list[int], int]]:
    """Picks sentences of the held-out documents, and the token to mask in each.

    The first of suitable length in each of five equal parts of the documents.
    """
    held_out = store.open_store(folder, "heldout", verify=False)
    shard = held_out.shards[0]
    bounds = np.linspace(0, shard.num_sentences, _SAMPLES + 1).astype(int)
    picked = []
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        for sentence in range(first, last):
            start, stop = shard.sentence_offsets[sentence : sentence + 2]
            ids = [int(token) for token in shard.tokens[start:stop]]
            at = _ordinary(ids, model)
            if _SAMPLE_LENGTHS[0] <= len(ids) <= _SAMPLE_LENGTHS[1] and at is not None:
                picked.append((ids, at))
                break
    return picked


def _ordinary(ids: list[int], model: Model) -> int | None:
    """Returns the index of the whole word or character nearest to the middle."""
    tokenizer = model.tokenizer
    for at in sorted(range(len(ids)), key=lambda at: abs(at - len(ids) // 2)):
        piece = tokenizer.tokens[ids[at]].lstrip("▁")  # SentencePiece marks a start
        if ids[at] not in tokenizer.special_ids and piece.isalnum():
            return at
    return None


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config, workdir = commands.required("config", "workdir")
    trained = train(
        config, workdir, allow_changed_config=flags.FLAGS.allow_changed_config
    )
    text = _final(trained.workdir, trained.metrics)  # all read the checkpoint
    if distributed.is_first():
        print(text)


if __name__ == "__main__":
    commands.define_config(pretraining.PretrainingConfig)
    commands.define_run()
    commands.run(main)
