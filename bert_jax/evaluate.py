"""Scores a trained model on the held-out documents of its store.

python -m bert_jax.evaluate --workdir=runs/demo

The masks are fixed, so the numbers are those that training wrote at this step, to the
last digit. Writes eval/heldout.json into the workdir.
"""

import json
import os
from pathlib import Path

from absl import flags

from bert_jax import commands, errors, experiments, workdirs
from bert_jax.data import manifest
from bert_jax.tasks import heldout
from bert_jax.training import checkpoint, state

_EXAMPLE = "python -m bert_jax.evaluate --workdir=runs/demo"


def evaluate(workdir: str | Path) -> dict[str, float]:
    """Returns the held-out metrics of the newest undamaged checkpoint of a run.

    Raises:
      InputError: the folder is no workdir, or its store is gone.
      CheckpointError: it has no usable checkpoint.
    """
    workdir = Path(workdir)
    settings = workdirs.read_settings(workdir)
    folder = workdirs.store_of(settings, workdir)
    if not (folder / manifest.NAME).exists():
        raise errors.InputError(
            f"the store {folder} of this run is not there: move it back, or build it "
            "again with python -m bert_jax.prepare"
        )
    experiment = experiments.assemble(settings, folder)
    workdirs.check_tokenizer(workdir, experiment.tokenizer)
    shapes = state.abstract_params(experiment.task.init, experiment.mesh)
    params, _ = checkpoint.restore_params(workdir / workdirs.CHECKPOINTS, shapes)
    return experiment.held_out().metrics(params)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    workdir = Path(commands.required("workdir", flags.FLAGS.workdir, _EXAMPLE))
    metrics = evaluate(workdir)
    path = workdir / "eval" / "heldout.json"
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    os.replace(beside, path)
    print(heldout.table(metrics))
    print(f"all digits: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run to evaluate.")
    commands.run(main)
