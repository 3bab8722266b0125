"""The effect of each fine-tuning recipe on one data set: mean and standard deviation.

    python scripts/compare/recipes.py --init_from=runs/demo_long --workdir=recipes

Each recipe is a sweep over seeds with the settings of --config except its recipe, for
--steps steps, scored once, at the end. Finished ones are read from --workdir and not
repeated. The verdict compares means: a recipe has an effect if its mean differs from
that of the plain run by more than the larger of the two standard deviations.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bert_jax import finetune
from bert_jax.config import file as config_file
from bert_jax.runs import sweep

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer_decay 0.8": {"recipe.layer_decay": 0.8},
    "frozen embeddings": {"recipe.frozen_layers": 0},
    "frozen embeddings and first layer": {"recipe.frozen_layers": 1},
    "top layer reinitialized": {"recipe.reinit_layers": 1},
    "balanced class weights": {"recipe.class_weights": "balanced"},
    "label smoothing 0.1": {"recipe.label_smoothing": 0.1},
    "focal loss, gamma 2": {"recipe.focal_gamma": 2.0},
    "R-Drop 1": {"recipe.r_drop": 1.0},
    "averaged weights, 0.99": {"recipe.average_decay": 0.99},
    "FGM, epsilon 1": {"recipe.adversarial_epsilon": 1.0},
    "LoRA, rank 8": {"recipe.lora_rank": 8},
}


def main() -> None:
    """Runs the missing recipes, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--init_from", required=True, help="folder of a model")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--config", default="configs/demo_finetune.py")
    parser.add_argument("--steps", type=int, default=430)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    found = {}
    for number, (name, changes) in enumerate(RECIPES.items()):
        report = given.workdir / f"{number:02d}" / sweep.FILE
        if not report.is_file():
            finetune.train(_config(given, changes), report.parent)
        tree = json.loads(report.read_text())
        metric = tree["metric"]
        found[name] = [member[metric] for member in tree["members"]]
    print(f"\n| recipe | {metric} | standard deviation | verdict |\n|---|---|---|---|")
    for name, values in found.items():
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        verdict = _verdict(values, found["plain"]) if name != "plain" else ""
        print(f"| {name} | {mean:.4f} | {deviation:.4f} | {verdict} |")


def _config(given: argparse.Namespace, changes: dict[str, Any]) -> Any:
    config = config_file.load(given.config)
    common = {
        "init_from": given.init_from,
        "data.test": "",
        "run.baselines": "",
        "run.num_train_steps": given.steps,
        "run.eval_every_steps": given.steps,
        "run.save_every_steps": given.steps,
        "sweep.seeds": given.seeds,
        "recipe.r_drop": 0.0,
        "recipe.average_decay": 0.0,
    }
    config.update_from_flattened_dict(common | changes)
    return config


def _verdict(values: list[float], plain: list[float]) -> str:
    """Returns whether a recipe changes the score by more than the seed does."""
    difference = statistics.mean(values) - statistics.mean(plain)
    noise = max(statistics.stdev(values), statistics.stdev(plain))
    if abs(difference) <= noise:
        return "no effect"
    return f"{'better' if difference > 0 else 'worse'} by {abs(difference):.4f}"


if __name__ == "__main__":
    main()
