"""What a pretraining run says to people: its plan, its evaluations, its end."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from bert_jax.checkpoints import run_folder
from bert_jax.config import pretraining
from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances, phases
from bert_jax.inference import loading
from bert_jax.model import attention_plan
from bert_jax.model import config as model_config
from bert_jax.tasks import pretraining as pretraining_task
from bert_jax.training import logs, state

_SAMPLES = 5
_SAMPLE_LENGTHS = (10, 28)  # tokens of a sentence that is shown


def describe(
    settings: pretraining.PretrainingConfig,
    bert: model_config.BertConfig,
    of_run: Sequence[phases.Phase],
    shapes: state.TrainState,
    mesh: jax.sharding.Mesh,
) -> str:
    """Returns what is about to be trained, on what and for how long."""
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes.params))
    devices = f"{mesh.size} x {jax.devices()[0].device_kind}"
    lines = [
        f"model: {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
        f"{count:,} parameters (vocabulary padded), {settings.run.dtype}, on {devices}",
        _attention(settings, bert, of_run, mesh),
        *(_phase(phase, settings.run.batch_size) for phase in of_run),
    ]
    return "\n".join(lines)


def _attention(
    settings: pretraining.PretrainingConfig,
    bert: model_config.BertConfig,
    of_run: Sequence[phases.Phase],
    mesh: jax.sharding.Mesh,
) -> str:
    """Returns which kernels compute attention; raises InputError if none can."""
    run = settings.run
    return attention_plan.describe(
        bert,
        run.execution(packed=settings.data.pack),
        [phase.length for phase in of_run],
        run.batch_size // run.accumulation_steps,
        mesh,
    )


def _phase(phase: phases.Phase, batch_size: int) -> str:
    """Returns how long rows of one length are seen, and what they hold."""
    rows, steps = phase.rows, phase.last_step - phase.first_step
    epochs = steps * batch_size / rows.num_rows
    return (
        f"plan: {steps:,} steps of {batch_size} rows of {phase.length} tokens, "
        f"{epochs:.1f} epochs of {rows.num_rows:,} rows\n"
        f"rows: {_filled(rows)}{rows.num_long_sentences:,} sentences are longer than a "
        "row and are seen in parts"
    )


def _filled(rows: instances.Instances) -> str:
    """Returns how many instances are packed into rows, if they are."""
    if rows.fill is None:
        return ""
    return (
        f"{rows.num_instances:,} instances in {rows.num_rows:,} rows, at most "
        f"{rows.num_segments} in one, {rows.fill:.1%} of the places taken; "
    )


def line(step: int, metrics: dict[str, float]) -> str:
    """Returns an evaluation in one line."""
    names = ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "unigram_accuracy")
    shown = [
        f"{name} {metrics[f'eval/{name}']:.4f}"
        for name in names
        if f"eval/{name}" in metrics
    ]
    return f"evaluation after step {step}: {'  '.join(shown)}"


def final(workdir: Path, metrics: dict[str, float]) -> str:
    """Returns the table, five masked sentences with guesses, and where all lies."""
    model = loading.load(workdir)
    settings = run_folder.read_settings(workdir)
    folder = run_folder.store_of(settings, workdir)
    samples = [sample(model, ids, at) for ids, at in _masked(folder, model)]
    return "\n".join(
        [
            "",
            "held-out documents, 15 % of the tokens behind [MASK]:",
            pretraining_task.heldout_table(metrics),
            "",
            "held-out sentences with one token masked, and the model's top five:",
            *samples,
            "",
            *_places(workdir, folder),
        ]
    )


def sample(model: loading.Model, ids: list[int], at: int) -> str:
    """Returns a masked sentence, its answer, and the five likeliest pieces."""
    masked = [*ids[:at], model.tokenizer.mask_id, *ids[at + 1 :]]
    (guesses,) = model.fill_ids(masked)
    shown = "  ".join(f"{piece} {odds:.0%}" for piece, odds in guesses)
    answer = model.tokenizer.tokens[ids[at]]
    return f"  {model.tokenizer.decode(masked)}\n      {answer}  <-  {shown}"


def _masked(folder: Path, model: loading.Model) -> list[tuple[list[int], int]]:
    """Picks sentences of the held-out documents, and the token to mask in each.

    One of each of five equal parts of the documents: the first of a fit length.
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


def _ordinary(ids: list[int], model: loading.Model) -> int | None:
    """Returns the place of the middle-most token that is a whole word or character."""
    tokenizer = model.tokenizer
    for at in sorted(range(len(ids)), key=lambda at: abs(at - len(ids) // 2)):
        piece = tokenizer.tokens[ids[at]].lstrip("▁")  # SentencePiece marks a start
        if ids[at] not in tokenizer.special_ids and piece.isalnum():
            return at
    return None


def _places(workdir: Path, folder: Path) -> list[str]:
    return [
        f"checkpoints  {workdir / run_folder.CHECKPOINTS}",
        f"metrics      {workdir / logs.METRICS}",
        f"curves       {workdir / logs.CURVES}",
        f"TensorBoard  {workdir / logs.TENSORBOARD}",
        f"tokenizer    {workdir / run_folder.TOKENIZER}",
        f"store        {folder}",
        f"config       {workdir / run_folder.CONFIG}",
        f"next         python -m bert_jax.predict --model={workdir} 'text with [MASK]'",
    ]
