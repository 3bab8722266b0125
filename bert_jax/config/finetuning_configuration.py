"""The configuration of a fine-tuning run, beside that of pretraining."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from bert_jax import errors
from bert_jax.config import (
    config_checks,
    configuration,
    finetuning_checks,
    finetuning_groups,
    run_groups,
)
from bert_jax.model import encoder


@dataclasses.dataclass(frozen=True)
class FinetuningConfig:
    """All groups of a fine-tuning run, typed and checked.

    `size` is `init_from`, a published size, or a folder whose architecture is taken;
    `model` holds the keys of bert_config.json that are set by name.
    """

    init_from: str
    size: str
    model: dict[str, Any]
    init: finetuning_groups.InitConfig
    text: finetuning_groups.TextConfig
    data: finetuning_groups.DataConfig
    head: finetuning_groups.HeadConfig
    recipe: finetuning_groups.RecipeConfig
    optimizer: finetuning_groups.OptimizerConfig
    mesh: run_groups.MeshConfig
    run: finetuning_groups.RunConfig
    sweep: finetuning_groups.SweepConfig

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The peaks of the rate: of each sweep member, or of the one run."""
        return self.sweep.rates or (self.optimizer.learning_rate,)

    def execution(self) -> encoder.Execution:
        """Returns how the model runs."""
        return self.run.execution(packed=self.data.pack)


GROUPS = {
    "init": finetuning_groups.InitConfig,
    "text": finetuning_groups.TextConfig,
    "data": finetuning_groups.DataConfig,
    "head": finetuning_groups.HeadConfig,
    "recipe": finetuning_groups.RecipeConfig,
    "optimizer": finetuning_groups.OptimizerConfig,
    "mesh": run_groups.MeshConfig,
    "run": finetuning_groups.RunConfig,
    "sweep": finetuning_groups.SweepConfig,
}


SPLITS = ("train", "dev", "test")
GIVEN = "python:"  # what stands for the file of examples that Python hands over

# Keys that the records of earlier runs lack, by group, with what those runs did.
ADDED_KEYS: dict[str, dict[str, Any]] = {
    "text": {"clean": "", "stop_words": ""},
    "data": {"pack": False, "doc_overlap": 0},
    "head": {"transform": False},
    "run": {
        "attention": "xla",
        "log_examples": False,
        "max_bad_steps": 0,
        "watchdog_seconds": 600,
    },
}


def default() -> ml_collections.ConfigDict:
    """Returns the usual recipe of BERT as a locked ConfigDict.

    `init_from` and `data.train` are empty and must be set.
    """
    rate = finetuning_groups.OptimizerConfig(learning_rate=3e-5)
    groups = {name: group() for name, group in GROUPS.items() if name != "optimizer"}
    tree = {"init_from": "", "model": configuration.model_group(configuration.GIVEN)}
    tree |= {
        name: dataclasses.asdict(group)
        for name, group in (groups | {"optimizer": rate}).items()
    }
    return ml_collections.ConfigDict(tree).lock()


def parse(
    config: ml_collections.ConfigDict | Mapping[str, Any],
    given: Sequence[str] = (),
) -> FinetuningConfig:
    """Turns a configuration into typed groups.

    Args:
      given: the splits whose examples come from Python and not from files.

    Raises:
      InputError: a key is unknown or missing, a value has a wrong type or range, or
        does nothing.
    """
    tree = configuration.plain(config, GROUPS)
    tree["data"] = _with_splits(tree["data"], given)
    size, keys = configuration.model_keys(tree["model"])
    groups = {
        name: config_checks.typed(name, kind, tree[name])
        for name, kind in GROUPS.items()
    }
    settings = FinetuningConfig(tree["init_from"], size, keys, **groups)
    _check_init(settings)
    if not settings.data.train:
        raise errors.InputError(
            "data.train is empty: name a file of labelled examples, as in "
            "--config.data.train=train.tsv"
        )
    finetuning_checks.check(settings)
    return settings


def _with_splits(data: Any, given: Sequence[str]) -> Any:
    """Returns the group `data`, with a name for each split that is not a file."""
    for name in given:
        if name not in SPLITS:
            raise errors.InputError(
                f"data has {name!r}: give examples of {', '.join(SPLITS)}"
            )
        if isinstance(data, Mapping) and data.get(name):
            raise errors.InputError(
                f"data.{name} is {data[name]!r}, and its examples are given from "
                "Python too: leave one of them out"
            )
    return {**data, **{name: GIVEN for name in given}} if given else data


def parse_record(tree: Mapping[str, Any]) -> FinetuningConfig:
    """Turns what a run has recorded into typed groups, as `parse` does.

    Keys that are newer than the record have the values of `ADDED_KEYS`.
    """
    return parse(config_checks.with_added(tree, ADDED_KEYS))


def _check_init(settings: FinetuningConfig) -> None:
    """Raises InputError unless it is clear where the weights come from."""
    if not settings.init_from:
        raise errors.InputError(
            "init_from is empty: name the folder of a model that was pretrained, as in "
            "--config.init_from=runs/demo, or --config.init_from=none for fresh weights"
        )
    given = configuration.GIVEN
    if settings.init_from == "none":
        if given in (settings.size, settings.text.vocab):
            raise errors.InputError(
                "init_from is none: say which architecture and vocabulary, as in "
                "--config.model.size=tiny --config.text.vocab=vocab.txt; both may also "
                "be the folder of a model"
            )
    elif settings.text.vocab != given or settings.size != given:
        raise errors.InputError(
            f"init_from is {settings.init_from}: its architecture and vocabulary come "
            "with it, so leave model.size and text.vocab at init_from"
        )


def to_dict(config: FinetuningConfig) -> dict[str, Any]:
    """Returns the groups as a plain tree that `parse` reads back."""
    model = {"size": config.size, **config.model}
    tree: dict[str, Any] = {"init_from": config.init_from, "model": model}
    return tree | {name: dataclasses.asdict(getattr(config, name)) for name in GROUPS}
