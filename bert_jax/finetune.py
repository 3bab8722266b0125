"""Fine-tunes a model on a task: data to rows, training, scores, the best model kept.

python -m bert_jax.finetune --config=configs/finetune.py:sst2 --config.init_from=FOLDER --workdir=runs/sst2

`configs/finetune.py` has a recipe for every task; any file of your own needs no code:

python -m bert_jax.finetune --config=configs/finetune.py:classification --config.init_from=FOLDER --config.data.train=train.tsv --config.data.dev=dev.tsv --config.data.columns.text=sentence --config.data.columns.label=label --workdir=runs/mine

FOLDER is a run of `pretrain` or anything that `convert` reads. The same command again
resumes, or reports that the run is finished. The best model is kept in best/, its scores
in eval/, what it predicts in predictions/. `--config.sweep.seeds=5` trains five side by
side; docs/en/config.md explains every key.
"""  # noqa: E501

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from bert_jax import commands, tasks
from bert_jax.config import finetuning
from bert_jax.data.labeled import python_examples
from bert_jax.runs import sweep
from bert_jax.runs.finetuning import Finetuned
from bert_jax.training import distributed


def train(
    config: Any,
    workdir: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    allow_changed_config: bool = False,
) -> Finetuned:
    """Trains, or resumes, and scores the best model.

    Never ends the process: a signal raises `errors.Stopped`, with everything saved.

    Args:
      config: a ConfigDict or a plain tree, as `finetuning.default` makes.
      workdir: folder of the run, created if it does not exist; or a URL, as
        gs://bucket/runs/sst2, of which a working copy is kept in $TMPDIR.
      data: examples from Python in place of files, as {"train": [(text, label), ...],
        "dev": ..., "test": ...}; `data.python_examples` has the forms of all tasks. The
        record of the run has their sha256, and a resumed run must be given the same.
      allow_changed_config: resume even if the config changes the result.

    Raises:
      InputError, CheckpointError, NotFiniteError, StorageError, Stopped.
    """
    data = {} if data is None else python_examples.by_split(data)
    settings = tasks.check(finetuning.parse(config, from_python=tuple(data)))
    return sweep.train_in(workdir, settings, data, allow_changed_config)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config, workdir = commands.required("config", "workdir")
    finetuned = train(
        config, workdir, allow_changed_config=flags.FLAGS.allow_changed_config
    )
    if distributed.is_first():
        print(f"\nbest model   {finetuned.folder}")
        folder = finetuned.folder.parents[1]  # of a URL, the working copy
        print(f"scores       {folder / 'eval'}")
        print(f"predictions  {folder / 'predictions'}")
        command = f"python -m bert_jax.predict --model={shlex.quote(str(folder))}"
        print(f"next         {command} {finetuned.example}")


if __name__ == "__main__":
    commands.define_config(finetuning.FinetuningConfig)
    commands.define_run()
    commands.run(main)
