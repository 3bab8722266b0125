"""Learns a vocabulary and tokenizes a corpus into a store.

python -m bert_jax.prepare --config=configs/pretrain_zh.py:base --store=stores/zh

Reads the groups `text` and `data` of a pretraining config. Training with
`--config.data.store=stores/zh` then starts at once; without a store, training runs the
same code.

Apache Beam prepares a corpus that is too large for one machine, with identical bytes:

python -m bert_jax.prepare --config=... --store=/shared/zh --engine=beam \\
  --runner=DataflowRunner -- --project=mine --region=europe-west4 --num_workers=64

Options of the runner come after `--`, as Beam spells them. This needs the extra `beam`,
in its own environment, here and on the workers. Corpus and store must be on a disk that
all workers share under one name; an object store must be mounted. Intermediate files
are in the folder of the store until it is finished. Give a vocabulary
(config.text.vocab): learning one runs only on this machine.
"""

import functools
from pathlib import Path

from absl import flags

from bert_jax import commands, errors
from bert_jax.checkpoints import initial_weights
from bert_jax.config import pretraining
from bert_jax.contrib.beam import beam_engine, beam_runner
from bert_jax.data.corpus import store_build
from bert_jax.runs import corpus_store, workdirs


def _engine(argv: list[str]) -> store_build.Engine | None:
    """Returns the engine of the flags; None for this machine."""
    if flags.FLAGS.engine == "beam":
        arguments = [f"--runner={flags.FLAGS.runner or 'DirectRunner'}", *argv[1:]]
        runner = beam_runner.runner(arguments)
        return functools.partial(beam_engine.fill_distributed, runner=runner)
    commands.no_arguments(argv)
    if flags.FLAGS.runner is not None:
        raise errors.InputError("--runner is for --engine=beam: give both, or none")
    return None


def main(argv: list[str]) -> None:
    """Runs the command."""
    engine = _engine(argv)
    config, store = commands.required("config", "store")
    folder = Path(store)
    settings = workdirs.pinned(pretraining.parse(config))
    settings = initial_weights.resolve(settings, None, folder)
    built = corpus_store.ensure(settings.text, settings.data, folder, engine)
    print(corpus_store.describe(built))
    corpus_store.check_text(
        built,
        settings.data.objective,
        folder,
        corpus_store.sources_of(settings.data.corpus),
    )
    print(f"store: {folder}")


if __name__ == "__main__":
    commands.define_config(pretraining.PretrainingConfig, only=("text", "data"))
    flags.DEFINE_string("store", None, "Folder of the store to build.")
    flags.DEFINE_enum(
        "engine",
        "local",
        ["local", "beam"],
        "What tokenizes: this machine, or the workers of Apache Beam, which must share "
        "the disk of the corpus and of the store; the store is the same.",
    )
    flags.DEFINE_string(
        "runner",
        None,
        "What runs Apache Beam: DirectRunner (this machine, to try it: it keeps the "
        "text in memory), DataflowRunner, FlinkRunner, SparkRunner ... Its own options "
        "come after `--`, as in "
        "--engine=beam --runner=DirectRunner -- --direct_num_workers=2 "
        "--direct_running_mode=multi_processing.",
    )
    commands.run(main)
