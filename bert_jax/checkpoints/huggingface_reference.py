"""What `transformers` computes from a folder of Hugging Face's, under our names.

The class is the one that config.json names, so that what a user of `transformers` gets
is what is compared. Nothing is looked for outside the folder.
"""

import contextlib
import dataclasses
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from bert_jax import errors, json_file
from bert_jax.checkpoints import huggingface, huggingface_config, names, weights

_RENAMED = {
    "pooler_output": "pooled_output",
    "seq_relationship_logits": "nsp_logits",
    "sop_logits": "nsp_logits",
    "prediction_logits": "mlm_logits",
    "logits": "logits",
}
_PROGRAMS = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "custom_pipelines",
)
# Classes that call `logits` what has a name of its own here.
_LOGITS = {
    "ForMaskedLM": "mlm_logits",
    "LMHeadModel": "mlm_logits",
    "ForNextSentencePrediction": "nsp_logits",
    "ElectraForPreTraining": "rtd_logits",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What `transformers` says.

    Attributes:
      made_by: the library, its version and the class.
      values: `embeddings`, `layer 1` to `layer n`, and whatever the class returns.
      notes: tensors that it did not find or did not want.
    """

    made_by: str
    values: dict[str, np.ndarray]
    notes: tuple[str, ...]


def outputs(
    path: Path,
    given: weights.Weights,
    input_ids: Int[np.ndarray, "B L"],
    token_type_ids: Int[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    choice: weights.Choice | None = None,
) -> Reference:
    """Runs the model of a folder, or of a file's folder, in float32.

    Tensors below a prefix that `transformers` does not look for are renamed.

    Args:
      given: what was read from it; its parts decide if config.json names no class.
      choice: that of the reader.

    Raises:
      ImportError: torch or transformers is not installed.
      Exception: whatever `transformers` raises for a folder that it cannot load.
    """
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    folder = path if path.is_dir() else path.parent
    arrays = {"input_ids": input_ids, "attention_mask": mask}
    with _quiet(transformers), torch.no_grad():
        renamed = huggingface.renamed(path, choice or weights.Choice())
        state = renamed and {key: torch.tensor(x) for key, x in renamed.items()}
        model, info = _load(transformers, folder, given, state)
        name = type(model).__name__
        if "token_type_ids" in inspect.signature(model.forward).parameters:
            arrays["token_type_ids"] = token_type_ids
        tensors = {key: torch.tensor(x.astype(np.int64)) for key, x in arrays.items()}
        if name.endswith("ForMultipleChoice"):  # [1, B, L]: of one question
            tensors = {key: x[None] for key, x in tensors.items()}
        found = model(**tensors, output_hidden_states=True, return_dict=True)
    values = {key: x.numpy() for key, x in found.items() if torch.is_tensor(x)}
    states = [state.numpy() for state in found.hidden_states]
    made_by = f"transformers {transformers.__version__}, {name}"
    return Reference(made_by, _renamed(name, values, states), _notes(info))


def _load(
    transformers: Any,
    folder: Path,
    given: weights.Weights,
    state: dict[str, Any] | None,
) -> tuple[Any, dict[str, Any]]:
    """Returns the model in float32, and which tensors were missing or left over."""
    tree = json_file.read_object(huggingface.config_file(folder))
    classes = tree["architectures"] if "architectures" in tree else None
    name = classes[0] if isinstance(classes, list) and classes else ""
    if not _is_of_model(name, given) or not hasattr(transformers, name):
        name = _class_for(given)
    of_class = getattr(transformers, name)
    # What names a program of elsewhere is left out.
    kept = {key: x for key, x in tree.items() if key not in _PROGRAMS}
    in_float32 = kept | {
        "model_type": given.config.model_type,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    model, info = of_class.from_pretrained(
        None if state else str(folder),
        state_dict=state,
        config=of_class.config_class.from_dict(in_float32),
        local_files_only=True,
        output_loading_info=True,
    )
    return model.eval(), info


def _is_of_model(name: Any, given: weights.Weights) -> bool:
    """Says whether a name is that of a class of this model type, and nothing else."""
    prefix = names.CLASS_PREFIX[given.config.model_type]
    return isinstance(name, str) and re.fullmatch(rf"{prefix}\w*", name) is not None


def _class_for(given: weights.Weights) -> str:
    """Returns the class with exactly these parts, or that of the encoder alone."""
    model_type = given.config.model_type
    try:
        end = huggingface_config.class_of(model_type, frozenset(given.parts))
    except errors.InputError:
        end = "Model"
    return names.CLASS_PREFIX[model_type] + end


def _renamed(
    of_class: str, values: dict[str, np.ndarray], states: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns hidden states and outputs by our names."""
    made = {f"layer {number}": state for number, state in enumerate(states)}
    made["embeddings"] = made.pop("layer 0")
    if "start_logits" in values:
        ends = values["start_logits"], values["end_logits"]
        made["logits"] = np.stack(ends, axis=-1)
    own = [ours for end, ours in _LOGITS.items() if of_class.endswith(end)]
    renamed = _RENAMED | {"logits": own[0]} if own else _RENAMED
    made |= {renamed[key]: x for key, x in values.items() if key in renamed}
    if of_class.endswith("ForMultipleChoice"):
        made["logits"] = made["logits"].T
    return made


def _notes(info: dict[str, Any]) -> tuple[str, ...]:
    """Says which tensors a class drew at random for want of them, or passed over."""
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    notes = []
    if missing:
        notes.append(
            f"transformers lacks and draws at random: {weights.shortened(missing)}"
        )
    if unexpected:
        notes.append(f"transformers has no use for: {weights.shortened(unexpected)}")
    return tuple(notes)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences messages, progress bars and warnings, and puts them back after."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
