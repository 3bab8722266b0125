"""Scores of the best model of a fine-tuning run, next to baselines on the same data.

The baseline `tfidf` counts words (characters where the texts are Chinese) and fits a
linear support vector machine; `fresh` trains the same network in the same way, but from
random weights.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax import console, errors
from bert_jax.checkpoints import native
from bert_jax.config import finetuning
from bert_jax.foundation import faults, files, interrupts
from bert_jax.inference import answer
from bert_jax.metrics import report
from bert_jax.runs import splits
from bert_jax.tasks import classification
from bert_jax.text import characters
from bert_jax.training import distributed

if TYPE_CHECKING:
    from bert_jax.runs.finetuning import FinetuningRun

NAMES = finetuning.BASELINES
TITLES = {
    "tfidf": "TF-IDF + LinearSVC",
    "fresh": "the same network, fresh",
}
_SHOWN = ("accuracy", "macro_f1", "micro_f1", "matthews")
_MOST_CJK = 0.3  # fraction of CJK characters above which characters are counted


def score(
    run: "FinetuningRun",
    dev: splits.Split,
    train_fresh: Callable[[finetuning.FinetuningConfig], dict[str, float]],
) -> tuple[Path, dict[str, float]]:
    """Scores the best model on `dev` and `test`; returns its folder and the metrics.

    Process 0 writes eval/ and predictions/, and prints the scores.

    Args:
      train_fresh: trains a run with other settings; returns its metrics.

    Raises:
      CheckpointError: there is no best model.
    """
    folder = native.best(run.workdir)
    if folder is None:
        raise errors.CheckpointError(
            f"{run.workdir} has no best model, though its run is finished: it was "
            "removed. Train again in another workdir"
        )
    faults.point("finetune/scores")
    model = answer.load(folder, run.settings.run.dtype)
    num_lengths = run.settings.data.num_lengths
    predictor = dataclasses.replace(model.predictor, num_lengths=num_lengths)
    metrics: dict[str, float] = {}
    for split in (dev, run.test):
        if split is not None:
            scored, predictions = predictor.scores(
                model.params, split.examples, split.table
            )
            metrics |= {f"{split.name}/{n}": x for n, x in scored.metrics.items()}
            if distributed.is_first():
                about = {"model": str(folder), "data": split.name}
                report.write(scored, run.workdir / "eval", split.name, about)
                _write_predictions(run.workdir, split.name, predictions)
                print(f"\n{split.name}:\n{report.text(scored)}")

    def baseline(name: str) -> dict[str, float]:
        if name == "fresh":
            return train_fresh(fresh(run.settings))
        return tfidf(run.task, run.train, (run.dev, run.test))

    if names := run.settings.run.baseline_names:
        compared = compare(names, metrics, baseline, run.workdir)
        if distributed.is_first():
            print(f"\n{compared}")
    return folder, metrics


def _write_predictions(workdir: Path, name: str, predictions: list[Any]) -> None:
    """Writes predictions/NAME.jsonl, one object an example."""
    path = workdir / "predictions" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(result, ensure_ascii=False) for result in predictions)
    with files.writing(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def compare(
    names: Sequence[str],
    metrics: dict[str, float],
    score: Callable[[str], dict[str, float]],
    workdir: Path,
) -> str:
    """Returns the table of the model and its baselines; writes eval/baselines.json.

    Args:
      names: of NAMES.
      metrics: of the model, as `test/accuracy`.
      score: returns the same metrics of a baseline.
    """
    found = {"this model": metrics}
    for name in names:
        distributed.print_once(f"baseline: {TITLES[name]}")
        found[TITLES[name]] = score(name)
    with files.writing(workdir / "eval" / "baselines.json") as file:
        file.write(json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n")
    return table(found)


def table(found: dict[str, dict[str, float]]) -> str:
    """Returns the main metrics of each model, one model a line."""
    first = next(iter(found.values()))
    names = [n for n in first if n.split("/")[1] in _SHOWN]
    rows = [
        [title, *(f"{result[n]:.4f}" if n in result else "-" for n in names)]
        for title, result in found.items()
    ]
    return console.table([["", *names], *rows])


def fresh(settings: finetuning.FinetuningConfig) -> finetuning.FinetuningConfig:
    """Returns the settings of the same run, randomly initialized.

    Raises:
      InputError: the run itself is that.
    """
    if settings.init_from == "none":
        raise errors.InputError(
            "run.baselines has fresh, and init_from is none: this run is that"
        )
    return dataclasses.replace(
        settings,
        init_from="none",
        size=settings.init_from,
        init=finetuning.FinetuningInitConfig(),
        text=finetuning.FinetuningTextConfig(settings.init_from),
        run=dataclasses.replace(settings.run, baselines=""),
    )


def tfidf(
    task: Any, train: splits.Split, scored: Sequence[splits.Split | None]
) -> dict[str, float]:
    """Returns the scores of a support vector machine on word counts.

    Args:
      scored: the splits, as dev and test; None is skipped.

    Raises:
      InputError: the task has no single label a text, or scikit-learn is missing.
    """
    if not task.single_labels:
        raise errors.InputError(
            "run.baselines has tfidf, which is for classification with one label"
        )
    try:
        from sklearn import feature_extraction, pipeline, svm
    except ImportError:
        raise errors.missing_extra("scikit-learn", "tasks") from None
    texts = [classification.readable(x) for x in train.examples]
    model = pipeline.make_pipeline(
        feature_extraction.text.TfidfVectorizer(
            analyzer=analyzer(texts), ngram_range=(1, 2), sublinear_tf=True
        ),
        svm.LinearSVC(random_state=0),
    )
    labels = [x.labels[0] for x in train.examples]
    interrupts.run_in_thread(lambda: model.fit(texts, labels))
    metrics: dict[str, float] = {}
    for split in scored:
        if split is not None:
            shown = [classification.readable(x) for x in split.examples]
            scores = task.score(
                split.examples, _one_hot(task.labels, model.predict(shown))
            )
            metrics |= {f"{split.name}/{n}": x for n, x in scores.metrics.items()}
    return metrics


def analyzer(texts: Sequence[str]) -> str:
    """Returns what to count: `char` if the texts are mostly Chinese, else `word`."""
    sample = "".join(texts[:1000])
    cjk = np.mean([characters.is_cjk(x) for x in sample]) if sample else 0.0
    return "char" if cjk > _MOST_CJK else "word"


def _one_hot(labels: tuple[str, ...], predicted: Sequence[str]) -> list[dict[str, Any]]:
    """Returns predictions as one-hot probabilities, of a model without any."""
    return [
        {"id": "", "probabilities": {label: float(label == one) for label in labels}}
        for one in predicted
    ]
