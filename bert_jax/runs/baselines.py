"""What a fine-tuned model is compared with, on the same examples.

`tfidf` counts words (characters where the texts are Chinese) and fits a linear support
vector machine; `fresh` trains the same network in the same way, but not from given
weights.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import commands, console, errors, files, interrupts
from bert_jax.config import finetuning
from bert_jax.runs import assembly
from bert_jax.tasks import classification
from bert_jax.text import characters

NAMES = finetuning.BASELINES
TITLES = {
    "tfidf": "TF-IDF + LinearSVC",
    "fresh": "the same network, fresh",
}
_SHOWN = ("accuracy", "macro_f1", "micro_f1", "matthews")
_MOST_CJK = 0.3  # share of characters above which texts are cut into characters

# train(settings, workdir) -> metrics: what trains the network that is fresh.
Train = Callable[[Any, Path], dict[str, float]]


def compare(
    run: assembly.FinetuningRun,
    metrics: dict[str, float],
    workdir: Path,
    train: Train,
) -> str:
    """Returns the scores of the model beside those of the baselines that are asked for.

    Writes eval/baselines.json.

    Args:
      metrics: of the model, as `test/accuracy`.
      train: makes a run, for `fresh`.
    """
    asked = run.settings.run.baseline_names
    if not asked:
        return ""
    found = {"this model": metrics}
    for name in asked:
        commands.say(f"baseline: {TITLES[name]}")
        made = tfidf(run) if name == "tfidf" else _fresh(run, workdir, train)
        found[TITLES[name]] = made
    with files.writing(workdir / "eval" / "baselines.json") as file:
        file.write(json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n")
    return table(found)


def table(found: dict[str, dict[str, float]]) -> str:
    """Returns the main metrics of each model, one model a line."""
    first = next(iter(found.values()))
    names = [n for n in first if n.split("/")[1] in _SHOWN]
    rows = [
        [title, *(f"{made[n]:.4f}" if n in made else "-" for n in names)]
        for title, made in found.items()
    ]
    return console.table([["", *names], *rows])


def _fresh(
    run: assembly.FinetuningRun, workdir: Path, train: Train
) -> dict[str, float]:
    """Trains the network without what it was given; its run lies in fresh/."""
    settings = run.settings
    if settings.init_from == "none":
        raise errors.InputError(
            "run.baselines has fresh, and init_from is none: this run is that"
        )
    alone = dataclasses.replace(
        settings,
        init_from="none",
        size=settings.init_from,
        text=finetuning.FinetuningTextConfig(settings.init_from),
        run=dataclasses.replace(settings.run, baselines=""),
    )
    return train(alone, workdir / "fresh")


def tfidf(run: assembly.FinetuningRun) -> dict[str, float]:
    """Returns the scores of a support vector machine on counts, on dev and test.

    Raises:
      InputError: the task has no single label a text, or scikit-learn is missing.
    """
    of_task = run.task
    if not isinstance(of_task, classification.Classification) or of_task.multi_label:
        raise errors.InputError(
            "run.baselines has tfidf, which is for classification with one label"
        )
    try:
        from sklearn import feature_extraction, pipeline, svm
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    texts = [classification.readable(x) for x in run.train.examples]
    model = pipeline.make_pipeline(
        feature_extraction.text.TfidfVectorizer(
            analyzer=analyzer(texts), ngram_range=(1, 2), sublinear_tf=True
        ),
        svm.LinearSVC(random_state=0),
    )
    labels = [x.labels[0] for x in run.train.examples]
    interrupts.apart(lambda: model.fit(texts, labels))
    made: dict[str, float] = {}
    for split in (run.dev, run.test):
        if split is not None:
            shown = [classification.readable(x) for x in split.examples]
            scores = of_task.score(
                split.examples, _certain(of_task.labels, model.predict(shown))
            )
            made |= {f"{split.name}/{n}": x for n, x in scores.metrics.items()}
    return made


def analyzer(texts: Sequence[str]) -> str:
    """Returns what is counted: `char` where the texts are mostly Chinese, or `word`."""
    sample = "".join(texts[:1000])
    share = np.mean([characters.is_cjk(x) for x in sample]) if sample else 0.0
    return "char" if share > _MOST_CJK else "word"


def _certain(labels: tuple[str, ...], said: Sequence[str]) -> list[dict[str, Any]]:
    """Returns predictions of a model that gives no probabilities."""
    return [
        {"id": "", "probabilities": {label: float(label == one) for label in labels}}
        for one in said
    ]
