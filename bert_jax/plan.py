"""Tells what a pretraining run will need and cost, before it runs, on any chips.

python -m bert_jax.plan --config=configs/pretrain.py:large --topology=v5e:16x16

Nothing of the topology needs to be here: for TPUs the very train step is compiled on
this machine (extra `tpu`), for GPUs formulas and a table of chips stand in. The last
two lines are `fits: yes` or `no`, and `bound by: compute`, `memory` or `communication`.
"""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from bert_jax import commands
from bert_jax.planning import comparison, fitting, plan_making, plan_text
from bert_jax.planning import topology as topologies
from bert_jax.settings import configuration

_EXAMPLE = (
    "python -m bert_jax.plan --config=configs/pretrain.py:large --topology=v5e:16x16"
)


def plan(
    config: Any, topology: str, *, say: plan_making.Say = commands.say
) -> plan_making.Plan:
    """Returns the plan of a run.

    Args:
      config: a ConfigDict or a plain tree, as `configuration.default` makes.
      topology: chips, as in `v5e:16x16`, `a100:8`, `cpu` or `here`.
      say: takes what happens now.

    Raises:
      InputError: settings or topology are wrong, or libtpu is missing.
    """
    chips = topologies.parse(topology)
    return plan_making.make(configuration.parse(config), chips, say)


def text(
    config: Any,
    topology: str,
    variants: Sequence[str] = (),
    *,
    confirm: bool = True,
    say: plan_making.Say = commands.say,
) -> str:
    """Returns the plan as text, or with variants the table of all.

    Args:
      variants: each as `planning.comparison` reads it.
      confirm: compile what the search for settings that fit finds.
    """
    trees = [
        comparison.changed(_tree(config), topology, variant) for variant in variants
    ]
    for tree, chips in trees:  # all are wrong before one has taken minutes
        configuration.parse(tree)
        topologies.parse(chips)
    made = plan(config, topology, say=say)
    if variants:
        rows = [(f"{topology} (as given)", made)]
        for variant, (tree, chips) in zip(variants, trees, strict=True):
            say(f"variant {variant}")
            rows.append((variant, plan(tree, chips, say=say)))
        return f"{plan_text.comparison(rows)}\n\n{plan_text.verdict(made)}"
    search = fitting.Search(made, say, confirm=confirm)
    change = None if made.fits else search.change()
    return plan_text.report(made, search.largest_batch(), change)


def _tree(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config = commands.required("config", flags.FLAGS.config, _EXAMPLE)
    topology = commands.required("topology", flags.FLAGS.topology, _EXAMPLE)
    if topology != "here":  # chips elsewhere: do not take those of this machine
        jax.config.update("jax_platforms", "cpu")
    variants = flags.FLAGS.compare
    print(text(config, topology, variants, confirm=flags.FLAGS.confirm))


if __name__ == "__main__":
    commands.define_config()
    flags.DEFINE_string(
        "topology",
        "here",
        "Chips of the run: a TPU slice such as v5e:16x16 or v5p:4x4x4 (v5e:16x16*2 for "
        "two of them), GPUs such as h100 or a100:8, cpu, or here, the present machine.",
    )
    flags.DEFINE_list(
        "compare",
        [],
        "Variants to tabulate beside the plan, separated by commas. Each is a "
        "topology, changed settings, or both, separated by semicolons: "
        "--compare='v5e:8x8,mesh.fsdp=16;run.remat=dots,v5p:4x4x4;mesh.fsdp=4'.",
    )
    flags.DEFINE_bool(
        "confirm",
        True,
        "Compile what the search for the largest batch, and for settings that fit, has "
        "found by formula, which takes minutes.",
    )
    commands.run(main)
