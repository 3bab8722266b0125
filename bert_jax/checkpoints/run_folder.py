"""The folder of a run: the names of what is in it, and the settings that it records."""

from pathlib import Path

from bert_jax import errors, json_file
from bert_jax.config import pretraining

CONFIG = "config.json"
TOKENIZER = "tokenizer"
CHECKPOINTS = "checkpoints"
STORE = "store"


def store_of(settings: pretraining.PretrainingConfig, workdir: Path) -> Path:
    """Returns the folder of the store: as configured, or in the workdir."""
    return Path(settings.data.store) if settings.data.store else workdir / STORE


def read_settings(folder: Path) -> pretraining.PretrainingConfig:
    """Reads the config.json that a run left in its workdir.

    Raises:
      InputError: there is none, or it is not of a run of this package.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise errors.InputError(
            f"{folder} is not the workdir of a run: it has no {CONFIG}. Name the "
            "folder that was given to --workdir"
        )
    tree = json_file.parse(json_file.read_bytes(path), str(path))
    if not isinstance(tree, dict) or "run" not in tree:
        raise errors.InputError(
            f"{path} is not the record of a run of bert_jax: it has no group 'run'"
        )
    if "recipe" in tree:
        raise errors.InputError(
            f"{folder} is the workdir of a run of finetune, and not of pretrain; what "
            "it has learned is in best/, from its first evaluation on"
        )
    try:
        return pretraining.parse_record(tree)
    except errors.InputError as error:
        raise errors.InputError(
            f"{path} was written by another version or changed by hand: {error}"
        ) from None
