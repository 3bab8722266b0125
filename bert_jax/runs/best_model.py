"""Which model of a fine-tuning run is best, and its scores next to baselines.

The baseline `tfidf` counts words (characters where the texts are Chinese) and fits a
linear support vector machine; `fresh` trains the same network in the same way, but from
random weights.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax import console, errors, tasks
from bert_jax.checkpoints import native
from bert_jax.config import finetuning
from bert_jax.foundation import faults, files, interrupts
from bert_jax.inference import answer
from bert_jax.metrics import report
from bert_jax.metrics import scores as scores_lib
from bert_jax.runs import splits
from bert_jax.tasks import classification, spec
from bert_jax.text import characters
from bert_jax.training import distributed

if TYPE_CHECKING:
    from bert_jax.runs.finetuning import FinetuningRun

TITLES = {"tfidf": "TF-IDF + LinearSVC", "fresh": "the same network, fresh"}
_SHOWN = ("accuracy", "macro_f1", "micro_f1", "matthews")
_MOST_CJK = 0.3  # fraction of CJK characters above which characters are counted


def kept_by(settings: finetuning.FinetuningConfig, metrics: Mapping[str, float]) -> str:
    """Returns the name of the metric by which the best model is kept.

    Raises:
      InputError: `run.keep_best` names one that the task does not have.
    """
    name = settings.run.keep_best
    if name and name not in metrics:
        raise errors.InputError(
            f"run.keep_best is {name!r}: {settings.data.task} has "
            f"{', '.join(sorted(metrics))}"
        )
    return name or next(x for x in tasks.of(settings).default_metrics if x in metrics)


def shown_metric(
    settings: finetuning.FinetuningConfig, labels: Sequence[str], metric: str
) -> str:
    """Returns a metric for people: of two classes, with the class that it is of.

    Args:
      labels: the labels of the model.
    """
    positive = tasks.of(settings).positive(settings, labels)
    return scores_lib.named(metric, console.visible(positive))


def tuned(
    task: spec.TaskSpec, metadata: spec.Metadata, metrics: Mapping[str, float]
) -> spec.Metadata:
    """Returns what a model keeps, with the best threshold on the dev data."""
    name = task.threshold_metric
    if name not in metrics:
        return metadata
    return dataclasses.replace(metadata, threshold=metrics[name])


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
    for split in filter(None, (dev, run.test)):
        scored, predictions = predictor.scores(
            model.params, split.examples, split.table
        )
        metrics |= _named(split, scored)
        if distributed.is_first():
            about = {"model": str(folder), "data": split.name}
            report.write(scored, run.workdir / "eval", split.name, about)
            _write_predictions(run.workdir, split.name, predictions)
            print(f"\n{split.name}:\n{report.text(scored)}")
    if run.settings.run.baseline_names:
        compared = _compare(run, metrics, train_fresh)
        if distributed.is_first():
            print(f"\n{_table(compared)}")
    return folder, metrics


def _named(split: splits.Split, scored: scores_lib.Scores) -> dict[str, float]:
    """Returns metrics by the name of their split, as `test/accuracy`."""
    return {f"{split.name}/{name}": x for name, x in scored.metrics.items()}


def _write_predictions(workdir: Path, name: str, predictions: list[Any]) -> None:
    """Writes predictions/NAME.jsonl, one object an example."""
    path = workdir / "predictions" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(result, ensure_ascii=False) for result in predictions)
    with files.writing(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def _compare(
    run: "FinetuningRun",
    metrics: dict[str, float],
    train_fresh: Callable[[finetuning.FinetuningConfig], dict[str, float]],
) -> dict[str, dict[str, float]]:
    """Returns the metrics of the model and its baselines, and writes baselines.json."""
    found = {"this model": metrics}
    for name in run.settings.run.baseline_names:
        distributed.print_once(f"baseline: {TITLES[name]}")
        if name == "fresh":
            found[TITLES[name]] = train_fresh(fresh(run.settings))
        else:
            found[TITLES[name]] = tfidf(run.task, run.train, (run.dev, run.test))
    with files.writing(run.workdir / "eval" / "baselines.json") as file:
        file.write(json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n")
    return found


def _table(found: dict[str, dict[str, float]]) -> str:
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
    for split in filter(None, scored):
        shown = [classification.readable(x) for x in split.examples]
        predicted = _one_hot(task.labels, model.predict(shown))
        metrics |= _named(split, task.score(split.examples, predicted))
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
