"""Estimates the memory, time and cost of a pretraining run before it starts.

python -m bert_jax.plan --config=configs/pretrain.py:large --topology=v5e:16x16

The chips need not be present: the run's own train step is compiled for them on this
machine (TPUs: extra `tpu`; GPUs: extra `gpu-plan`, without which formulas and a table
of chips are used). The last two lines are `fits: yes` or `no`, and `bound by: compute`,
`memory` or `communication`.
"""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from bert_jax import commands
from bert_jax.config import pretraining
from bert_jax.planning import costs, report, search
from bert_jax.planning import topology as topologies
from bert_jax.training import distributed


def plan(
    config: Any, topology: str, *, log: costs.Log = distributed.print_once
) -> costs.RunPlan:
    """Returns the plan of a run.

    Args:
      config: a ConfigDict or nested dict, as `pretraining.default` returns.
      topology: chips, as in `v5e:16x16`, `h100:8`, `cpu` or `here`.
      log: receives progress messages.

    Raises:
      InputError: invalid settings or topology, or the compiler of the chips is
        missing.
    """
    chips = topologies.parse(topology)
    return costs.plan(pretraining.parse(config), chips, log)


def text(
    config: Any,
    topology: str,
    variants: Sequence[str] = (),
    *,
    confirm: bool = True,
    log: costs.Log = distributed.print_once,
) -> str:
    """Returns the plan as text, or with variants a table of all.

    Args:
      config: a ConfigDict or nested dict.
      topology: chips.
      variants: each as `planning.search.variant` reads it.
      confirm: compile what the search for settings that fit finds.
      log: receives progress messages.

    Raises:
      InputError: invalid settings, topology or variant, or the compiler of the chips
        is missing.
    """
    trees = [search.variant(_tree(config), topology, text) for text in variants]
    for _, chips in trees:  # report any error before one has taken minutes
        topologies.parse(chips)
    first = plan(config, topology, log=log)
    if variants:
        rows = [(f"{topology} (as given)", first)]
        for variant, (tree, chips) in zip(variants, trees, strict=True):
            log(f"variant {variant}")
            rows.append((variant, plan(tree, chips, log=log)))
        return f"{report.comparison(rows)}\n\n{report.verdict(first)}"
    settings_search = search.SettingsSearch(first, log, confirm=confirm)
    change = None if first.fits else settings_search.change()
    return report.report(first, settings_search.largest_batch(), change)


def _tree(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    config, topology = commands.required("config", "topology")
    if topology != "here":  # remote chips: do not claim those of this machine
        jax.config.update("jax_platforms", "cpu")
    variants = flags.FLAGS.compare
    print(text(config, topology, variants, confirm=flags.FLAGS.confirm))


if __name__ == "__main__":
    commands.define_config(pretraining.PretrainingConfig)
    flags.DEFINE_string(
        "topology",
        "here",
        "Chips of the run: a TPU slice such as v5e:16x16 or v5p:4x4x4 (v5e:16x16*2 for "
        "two slices), GPUs such as h100:8 (h100:2x8 for two machines), cpu, or here "
        "(this machine).",
    )
    flags.DEFINE_list(
        "compare",
        [],
        "Variants to compare with the plan, separated by commas. Each is a "
        "topology, changed settings, or both, separated by semicolons: "
        "--compare='v5e:8x8,mesh.fsdp=16;run.remat=dots,v5p:4x4x4;mesh.fsdp=4'.",
    )
    flags.DEFINE_bool(
        "confirm",
        True,
        "Compile what the search for the largest batch, and for settings that fit, "
        "finds by formula. This takes minutes.",
    )
    commands.run(main)
