"""Scores a trained model: on a file of its task, or on held-out documents.

python -m bert_jax.evaluate --workdir=runs/demo
python -m bert_jax.evaluate --workdir=runs/sst2 --data=test.tsv
python -m bert_jax.evaluate --workdir=hf:owner/name --data=test.tsv --output=scores

A pretrained model is scored on the held-out documents of its store. The masks are
fixed, so the numbers are those that training wrote at this step, to the last digit.

A fine-tuned model, a run, a folder of Hugging Face's or hf:owner/name of its hub, is
scored on --data, a file that --input_format, --header and --columns describe where it
is not as in training; without it, on the dev file of its run. Writes eval/NAME.json of
the workdir with every number, NAME_confusion.png, NAME_reliability.png and
NAME_errors.tsv, a hundred errors, the worst first; NAME is that of the file, or --name.
--output names another folder. Nothing is written into the cache of the hub: without
--output the scores of a model there are only printed. Labels that the model has not
seen count as errors and are listed; --label_map=FILE gives them the names that the
model has, one pair a line (`person<TAB>PER`) or as a JSON object.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from absl import flags

from bert_jax import commands, errors, predict
from bert_jax.checkpoints import run_folder, tensors
from bert_jax.data.corpus import store
from bert_jax.data.labeled import python_examples, read_examples, table_records
from bert_jax.foundation import files, hub
from bert_jax.inference import answer, inputs
from bert_jax.metrics import report, scores
from bert_jax.runs import pretraining as pretraining_run
from bert_jax.runs import splits, workdirs
from bert_jax.tasks import class_names, pretraining
from bert_jax.text.coverage import Coverage
from bert_jax.training import checkpoint, distributed, state

_OF_FINE_TUNED = (
    *("data", "name", "label_map", "input_format", "header", "columns"),
    "repair",
)


def evaluate(workdir: str | Path) -> dict[str, float]:
    """Returns the held-out metrics of the newest undamaged checkpoint of a run.

    Raises:
      InputError: the folder is not a workdir, or its store is gone.
      CheckpointError: it has no usable checkpoint.
      StorageError: a shard of the store is damaged, of held-out or of training text.
    """
    workdir = Path(os.path.expanduser(workdir))
    settings = run_folder.read_settings(workdir)
    folder = run_folder.store_of(settings, workdir)
    if not (folder / store.MANIFEST).exists():
        raise errors.InputError(
            f"the store {folder} of this run is not there: move it back, or build it "
            "again with python -m bert_jax.prepare"
        )
    run = pretraining_run.assemble(settings, folder, workdir)
    workdirs.check_tokenizer(workdir, run.tokenizer)
    shapes = state.abstract_params(run.task.init, run.mesh)
    params, _ = checkpoint.restore_params(workdir / run_folder.CHECKPOINTS, shapes)
    return run.held_out.metrics(params)


@errors.naming_flags(inputs.FLAGS)
def evaluate_task(
    folder: Path,
    request: inputs.AnswerRequest,
    name: str = "",
    label_map: Path | None = None,
    output: Path | None = None,
) -> tuple[scores.Scores, Path | None]:
    """Scores a fine-tuned model on a file, and writes the results into a folder.

    Args:
      folder: a run, a folder of a fine-tuned model, or its name on the hub.
      request: its `input` is the file; None is the dev file of the run.
      name: of the written files; empty is that of the data file.
      label_map: file of other names for the labels; see `class_names.read_map`.
      output: the folder of the written files; None is `eval` in `folder`, and nothing
        is written where that is in the cache of the hub.

    Returns:
      The scores, and the JSON file that has them, or None if nothing is written.

    Raises:
      InputError: the file is not as it should be, or has no label of the model.
    """
    given = hub.pinned(str(folder))
    folder = hub.folder(given)
    output = _output(folder, output, name)
    model = answer.load(folder, request.dtype, repair=request.repair)
    data = model.task_folder.settings.data
    path = os.path.expanduser(request.input or data.dev)
    if not path or path.startswith(python_examples.PREFIX):
        raise errors.InputError(
            f"{given} was trained without a dev file: name a file, as in "
            "--data=test.tsv"
        )
    request = dataclasses.replace(request, input=path)
    asked = inputs.reading(model, request, needs_labels=True)
    inputs.report_first_line(request, asked)
    found = read_examples.read(asked)
    notes = table_records.Notes(found.notes)
    examples = found.examples
    if request.repair:
        misfits = model.task_spec.misfits(examples)
        examples = splits.without(examples, misfits, notes)
    examples = _renamed(model, examples, label_map)
    examples = model.task_spec.named(examples, model.task_folder.learned.labels)
    coverage = Coverage()
    scored, _ = model.scores(examples, notes, coverage)
    if scored.unseen:
        distributed.print_once(
            f"{class_names.describe_unseen(scored.unseen)}. --label_map=FILE renames "
            "labels"
        )
    distributed.print_once(
        f"{len(examples):,} examples of {path}{inputs.counts(notes)}: "
        f"{coverage.describe()}"
    )
    model.warn(coverage, path)
    name = name or re.sub(r"\W+", "_", _stem(path)).strip("_") or "data"
    if output is None:
        return scored, None
    about = {"model": str(given), "data": path, "examples": len(examples)}
    if label_map is not None:
        about["label_map"] = str(label_map)
    report.write(scored, output, name, about)
    return scored, output / f"{name}.json"


def _output(folder: Path, output: Path | None, name: str) -> Path | None:
    """Returns the folder of the written files, or None if there are none.

    Raises:
      InputError: `output` is a file, or `name` cannot name files.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise errors.InputError(f"--output is {output}, a file: name a folder")
    if output is None and not hub.is_cached(folder):
        output = folder / "eval"
    if name and output is None:
        raise errors.InputError(
            f"--name is {name!r}, and nothing is written into the cache of the hub: "
            "add --output=FOLDER"
        )
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        raise errors.InputError(
            f"--name is {name!r}, and names files in {output}: write letters, digits, "
            "points, - and _"
        )
    return output


def _renamed(
    model: answer.TaskModel, examples: list[Any], label_map: Path | None
) -> list[Any]:
    """Returns examples with the names of a label map, and logs which it lacks."""
    if label_map is None:
        return examples
    names = class_names.read_map(label_map)
    result, unused = class_names.renamed(model.predictor.task, examples, names)
    if unused:
        distributed.print_once(f"{label_map}: no example has {', '.join(unused)}")
    return result


def _stem(path: str) -> str:
    """Returns the stem of the names of result files, without a commit."""
    if hub.is_name(path):
        return re.sub("@[0-9a-f]{40}", "", path.removeprefix(hub.PREFIX))
    return Path(path).stem


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    given = flags.FLAGS
    (workdir,) = commands.required("workdir")
    name = hub.pinned(workdir)
    workdir = hub.folder(name)
    output = Path(given.output) if given.output else None
    if answer.can_answer(workdir):
        request = inputs.AnswerRequest(
            given.data,
            given.input_format,
            tuple(given.columns),
            given.repair,
            header=given.header,
        )
        label_map = Path(given.label_map) if given.label_map else None
        scored, path = evaluate_task(Path(name), request, given.name, label_map, output)
        print(report.text(scored))
        if path is None:
            print("\nno files were written: --output=FOLDER writes all digits")
        else:
            print(f"\nall digits, pictures, errors: {path.with_suffix('')}*")
        return
    for flag in _OF_FINE_TUNED:
        if given[flag].present and workdir.is_dir():
            raise errors.InputError(
                f"--{flag} is for fine-tuned models, and {name} is none"
            )
    if workdir.is_dir() and tensors.has_weights(workdir):
        raise errors.InputError(
            f"{name} has no head of a task, and is not a run of pretraining: evaluate "
            "scores fine-tuned models, and runs on their held-out documents"
        )
    output = output or workdir / "eval"
    metrics = evaluate(workdir)
    path = output / "heldout.json"
    output.mkdir(parents=True, exist_ok=True)
    with files.writing(path) as file:
        file.write(json.dumps(metrics, indent=2, sort_keys=True).encode() + b"\n")
    print(pretraining.heldout_table(metrics))
    print(f"all digits: {path}")


if __name__ == "__main__":
    flags.DEFINE_string(
        "workdir", None, "Folder of the run or model to evaluate, or hf:owner/name."
    )
    flags.DEFINE_string("data", None, "File of labeled examples of the model's task.")
    flags.DEFINE_string("name", "", "Of the written files; of the data if empty.")
    flags.DEFINE_string(
        "output", "", "Folder of the written files; eval/ in the workdir if empty."
    )
    flags.DEFINE_string(
        "label_map",
        "",
        "File that renames labels of the data: a label, a tab and the model's name a "
        "line, or a JSON object.",
    )
    predict.define_input_flags()
    commands.run(main)
