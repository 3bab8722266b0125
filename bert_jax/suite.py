"""Fine-tunes a model on all tasks of a suite, and writes one table of their scores.

python -m bert_jax.suite --config=configs/glue.py --config.init_from=FOLDER --workdir=runs/glue

The data comes from TFDS, or from the publisher's own files: --config.folder=DIR. All of
it is read before anything is trained. --config.tasks=cola,rte runs only these tasks; any
key of a fine-tuning run holds for all of them, as in --config.sweep.seeds=5 or
--config.run.dtype=bfloat16.

Each task has its own folder in the workdir, a workdir of `finetune`. suite.json and
suite.md have the table: mean and standard deviation over the seeds, next to the
published figures. results/ has the metrics of the runs of each finished task, and
predictions/ a submission for each test file that is there, in the format of the
benchmark's server. The same command resumes a suite that was stopped; finished tasks are
not run again.
"""  # noqa: E501

from pathlib import Path
from typing import Any

from absl import flags

from bert_jax import commands
from bert_jax.config import finetuning
from bert_jax.runs import suite
from bert_jax.training import distributed


def run(config: Any, workdir: str | Path) -> dict[str, suite.Result]:
    """Runs the tasks of a suite that are not finished, and writes their table.

    Args:
      config: as `runs.suite.default` makes it.
      workdir: folder of the suite, created if missing; or a URL, as
        gs://bucket/runs/glue, of which working copies are kept in $TMPDIR.

    Returns:
      The results of all tasks of the suite that are finished, by name.

    Raises:
      InputError: data of a task is missing or broken; nothing has been trained then.
      CheckpointError, NotFiniteError, StorageError, Stopped: as `sweep.train_in`.
    """
    return suite.run(suite.parse(config), workdir)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config, workdir = commands.required("config", "workdir")
    results = run(config, workdir)
    if distributed.is_first():
        print(f"\n{suite.text(config.suite, results)}")
        print(f"\ntable        {workdir.rstrip('/')}/{suite.MARKDOWN}")
        print(f"all digits   {workdir.rstrip('/')}/{suite.JSON}")


if __name__ == "__main__":
    commands.define_config(finetuning.FinetuningConfig, finetuning.SuiteConfig)
    commands.define_processes()
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the suite, created if missing; or a URL as gs://bucket/glue or "
        "s3://..., of which each process keeps working copies in $TMPDIR.",
    )
    commands.run(main)
