"""Heads that no class of `transformers` has, next to an encoder that it loads.

A classifier, regression or multiple choice over the mean or the maximum of the tokens
is a linear map: `classifier.safetensors` holds it as torch does, [C, D] and [C], and
the lines of `torch_lines` compute its outputs with `transformers`.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.checkpoints import tensors, weights

FILE = "classifier.safetensors"
_POOLINGS = {
    "mean": "pooled = (states * mask).sum(1) / mask.sum(1)",
    "max": "pooled = states.masked_fill(mask == 0, -torch.inf).amax(1)",
}
PARTS = ("classifier", "multiple_choice")
_OUTCOMES = {
    weights.MULTI_LABEL: ["probabilities = logits.sigmoid()"],
    weights.REGRESSION: ["scores = logits[:, 0]"],
    weights.SINGLE_LABEL: [
        "probabilities = logits.softmax(-1)",
        "labels = [model.config.id2label[int(best)] for best in logits.argmax(-1)]",
    ],
}


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A linear map of pooled texts.

    Attributes:
      part: `classifier` or `multiple_choice`, which scores each choice.
      pooling: `mean` or `max`, over all tokens.
      weight, bias: in torch's layout.
      labels: the names of the classes.
      problem_type: what the outputs mean, one of `weights.PROBLEM_TYPES`.
      max_seq_length: the most tokens of a text.
    """

    part: str
    pooling: str
    weight: Float[np.ndarray, "C D"]
    bias: Float[np.ndarray, " C"]
    labels: tuple[str, ...]
    problem_type: str
    max_seq_length: int


def can_separate(parts: Collection[str]) -> bool:
    """Returns whether the head of a model with these parts can be such a file.

    >>> can_separate(("encoder", "classifier"))
    True
    >>> can_separate(("encoder", "recurrent", "classifier"))
    False
    """
    return any({*parts} == {"encoder", part} for part in PARTS)


def write(folder: Path, head: Head) -> None:
    """Writes the file of a head into a folder."""
    arrays = {f"{head.part}.weight": head.weight, f"{head.part}.bias": head.bias}
    tensors.write_safetensors(folder / FILE, arrays)


def read(folder: Path) -> dict[str, Any]:
    """Returns the parameters of the head in a folder, under our names; {} for none.

    Raises:
      InputError: the file is damaged, or is not that of a head.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    arrays = tensors.read(path).arrays
    for part in PARTS:
        if arrays.keys() == {f"{part}.weight", f"{part}.bias"}:
            weight, bias = arrays[f"{part}.weight"], arrays[f"{part}.bias"]
            return {part: {"dense": {"kernel": weight.T.copy(), "bias": bias}}}
    raise errors.InputError(
        f"{path} holds {weights.shortened(sorted(arrays))}, and should hold the weight "
        f"and bias of a {' or '.join(PARTS)}: copy the whole folder again"
    )


def torch_lines(head: Head, folder: str, *, has_pooler: bool) -> list[str]:
    """Returns lines of Python that compute the outputs with `transformers`.

    Args:
      folder: its path in the lines.
      has_pooler: whether the class of the encoder builds a pooler, which is not read.
    """
    option = ", add_pooling_layer=False" if has_pooler else ""
    texts, outcome = '["One text.", "Another text."]', _OUTCOMES[head.problem_type]
    if head.part == "multiple_choice":
        texts = '["A question?", "A question?"], ["One answer.", "Another."]'
        outcome = ["choice = int(logits[:, 0].argmax())"]
    return [
        "import torch",
        "from safetensors.torch import load_file",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'folder = "{folder}"',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = AutoModel.from_pretrained(folder{option}).eval()",
        f'head = load_file(f"{{folder}}/{FILE}")',
        "rows = tokenizer(",
        f"    {texts},",
        "    padding=True,",
        "    truncation=True,",
        f"    max_length={head.max_seq_length},",
        '    return_tensors="pt",',
        ")",
        "with torch.no_grad():",
        "    states = model(**rows).last_hidden_state",
        'mask = rows["attention_mask"][..., None]',
        _POOLINGS[head.pooling],
        f'logits = pooled @ head["{head.part}.weight"].T + head["{head.part}.bias"]',
        *outcome,
    ]
