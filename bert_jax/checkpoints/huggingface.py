"""Folders of Hugging Face's: weights and config.json, in and out.

Old and new spellings are mapped to the names of the table (`mapping`): any prefix,
`gamma` and `beta`, a decoder that is a copy of the token embeddings. A wrong label is
detected from the tensors (`recognition`).
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bert_jax import console, errors
from bert_jax.checkpoints import hf_config, mapping, recognition, tensors, weights
from bert_jax.foundation import json_file
from bert_jax.model import config
from bert_jax.model import heads as model_heads

# Class of transformers -> the part that is the head of a task.
_HEAD_OF_CLASS = {
    kind.transformers: name
    for name, kind in model_heads.KINDS.items()
    if kind.reads and kind.transformers
} | {"ForNextSentencePrediction": "nsp_head"}
HEADS = tuple(_HEAD_OF_CLASS.values())
_say = functools.cache(console.print_message)  # a line about a folder, once
# Integers that old versions saved, and that a model makes by itself.
_BUFFER = re.compile(r"(^|\.)(position_ids|token_type_ids)$")


def read(
    path: Path, choice: weights.Choice = weights.WHOLE
) -> tuple[weights.Weights, weights.Report]:
    """Reads a folder, or one file of weights next to its config.json.

    Raises:
      InputError: as `weights.assemble`, or the files are not whole and safe.
    """
    raw = tensors.read(path)
    shapes = {name: array.shape for name, array in raw.arrays.items()}
    recognized = _recognized(path, shapes, choice)
    described = hf_config.read(_config_of(path), recognized.model_type)
    if recognized.note:
        _say(recognized.note)
    bert, model_type = described.bert, described.bert.model_type
    buffers = [name for name in raw.arrays if _BUFFER.search(name)]
    arrays = {x: array for x, array in raw.arrays.items() if x not in buffers}
    found = _found(arrays, recognized, str(path), raw.files)
    found, bert, notes = _untie(found, bert)
    wanted = _parts(found, described, choice)
    if described.labels and weights.classifying(wanted):
        notes += described.notes
    notes += [f"{name}: a buffer, not a parameter" for name in buffers]
    notes += [recognized.note] * bool(recognized.note)
    pooler = mapping.class_pooler(model_type)
    if described.class_name == "Model" and pooler - wanted:
        notes.append("no pooler: no head of this class reads it")
    of_class = mapping.CLASS_PREFIX[model_type] + (described.class_name or ", no class")
    return weights.assemble(
        found,
        dataclasses.replace(described, bert=bert),
        mapping.huggingface_mapping,
        wanted,
        choice,
        f"Hugging Face, {of_class}",
        notes,
    )


class HuggingFaceFiles(weights.ModelFiles):
    """A folder of Hugging Face's, or one file of weights next to its config.json."""

    format = "huggingface"

    def describe(self) -> weights.Described:
        """Returns what config.json and the names of the tensors say."""
        return describe(self.path)

    @property
    def head(self) -> str:
        """The head of the class in config.json."""
        file = config_file(self.folder)
        return head_of(hf_config.class_name_of(json_file.read_object(file), file))

    def weights(self, choice: weights.Choice) -> tuple[weights.Weights, weights.Report]:
        """Reads all parameters."""
        return read(self.path, choice)


def head_of(class_name: str) -> str:
    """Returns the part that is the head of a class, or "" if it has none of a task.

    >>> head_of("ForTokenClassification"), head_of("ForMaskedLM")
    ('tagger', '')
    """
    return _HEAD_OF_CLASS[class_name] if class_name in _HEAD_OF_CLASS else ""


def head_among(parts: Collection[str]) -> str:
    """Returns the part that is the head of a task, or "" if these have none.

    Next to a head for masked tokens, one for next sentences is of pretraining.

    >>> head_among(("encoder", "pooler", "nsp_head", "mlm_head"))
    ''
    """
    found = [x for x in parts if x in HEADS]
    is_pretrained = "mlm_head" in parts and found == ["nsp_head"]
    return found[0] if found and not is_pretrained else ""


def config_file(folder: Path) -> Path:
    """Returns the config of a folder, which older ones call bert_config.json."""
    older = folder / "bert_config.json"
    path = folder / hf_config.NAME
    return older if older.is_file() and not path.is_file() else path


def write(
    folder: Path,
    given: weights.Weights,
    *,
    dtype: str,
    needs_pooler: bool = True,
) -> None:
    """Writes model.safetensors and config.json into a folder that is there.

    Args:
      dtype: `float32` or `bfloat16`, of the file.
      needs_pooler: whether a bare encoder is refused where its class has a pooler.

    Raises:
      InputError: no class of Hugging Face has exactly these parts.
    """
    # Without names transformers builds two classes.
    head = given.class_names, given.problem_type, given.head_dropout
    described = weights.Described(given.config, *head)
    of_parts = frozenset(given.parts)
    tree = hf_config.tree(described, of_parts, dtype, needs_pooler=needs_pooler)
    arrays = state_dict(given)
    result = {name: x.astype(tensors.DTYPES[dtype]) for name, x in arrays.items()}
    tensors.write_safetensors(folder / tensors.SINGLE, result)
    json_file.write(folder / hf_config.NAME, tree, sort_keys=True)


def state_dict(given: weights.Weights) -> dict[str, np.ndarray]:
    """Returns float32 arrays under the names of Hugging Face's class for the parts."""
    bert, of_parts = given.config, frozenset(given.parts)
    flat = mapping.flatten(given.params)
    result: dict[str, np.ndarray] = {}
    for param in mapping.huggingface_mapping(bert, of_parts, given.num_labels):
        result |= param.split(flat[param.ours])
    if "mlm_head" in of_parts and not bert.tie_word_embeddings:
        # Untied models of transformers have the bias twice.
        result[f"{mapping.DECODER[bert.model_type]}.bias"] = flat["mlm_head/bias"]
    if of_parts <= {"encoder", "pooler"}:
        prefix = f"{mapping.encoder_prefix(bert.model_type)}."
        result = {name.removeprefix(prefix): x for name, x in result.items()}
    return result


def describe(path: Path, choice: weights.Choice = weights.WHOLE) -> hf_config.HfConfig:
    """Returns what a folder, or a file of weights, is, by config and tensor names.

    Where the weights cannot be read, only the config counts: `read` refuses them.

    Raises:
      InputError: it is not a supported model.
    """
    try:
        shapes = tensors.shapes(path)
    except errors.InputError:
        return hf_config.read(_config_of(path))
    recognized = _recognized(path, shapes, choice)
    return hf_config.read(_config_of(path), recognized.model_type)


def renamed(path: Path, choice: weights.Choice) -> dict[str, np.ndarray] | None:
    """Returns the tensors of a folder by Hugging Face's own names.

    Returns None where `transformers` reads the folder as it is.

    Raises:
      InputError: as `read`.
    """
    shapes = tensors.shapes(path)
    recognized = _recognized(path, shapes, choice)
    stated = hf_config.stated_type(json_file.read_object(_config_of(path)))
    if recognition.is_plain(recognized, stated):
        return None
    raw = tensors.read(path)
    return dict(_found(raw.arrays, recognized, str(path), raw.files).arrays)


def _config_of(path: Path) -> Path:
    return config_file(path if path.is_dir() else path.parent)


def _recognized(
    path: Path, shapes: recognition.Shapes, choice: weights.Choice
) -> recognition.Recognized:
    """Returns what the tensors of a folder, or of a file in it, are."""
    file = _config_of(path)
    tree = json_file.read_object(file)
    stated = hf_config.stated_type(tree)
    return recognition.recognize(shapes, tree, stated, file.parent, choice)


def _found(
    arrays: Mapping[str, np.ndarray],
    recognized: recognition.Recognized,
    where: str,
    digests: dict[str, str],
) -> weights.Found:
    """Returns the tensors of a file under the names of the table."""
    result: dict[str, np.ndarray] = {}
    originals: dict[str, str] = {}
    for name in sorted(arrays):
        canonical = recognized.canonical(name)
        if canonical in originals:
            raise errors.InputError(
                f"{where} holds both {originals[canonical]} and {name}, which are the "
                "same parameter: remove one"
            )
        result[canonical], originals[canonical] = arrays[name], name
    return weights.Found(result, where, digests, originals)


def _untie(
    found: weights.Found, bert: config.BertConfig
) -> tuple[weights.Found, config.BertConfig, list[str]]:
    """Drops a decoder that copies the token embeddings; notes one that does not.

    Also takes the decoder's bias for the head's, of which it is a copy.
    """
    decoder = mapping.DECODER[bert.model_type]
    modules = mapping.module_names(bert.model_type, frozenset({"encoder"}))
    table = f"{modules['encoder/embeddings/word_embeddings']}.weight"
    bias = f"{mapping.HEADS[bert.model_type]['mlm_head']}.bias"
    arrays, notes = dict(found.arrays), []
    originals = dict(found.originals)
    copy = f"{decoder}.bias"
    if copy in arrays and copy != bias:
        if bias not in arrays:
            arrays[bias], originals[bias] = arrays[copy], originals[copy]
        elif not np.array_equal(arrays[bias], arrays[copy]):
            raise errors.InputError(
                f"{found.where}: {originals[bias]} and {originals[copy]} should be "
                "copies and differ: the file is damaged or not of this kind of model"
            )
        notes.append(f"{originals[copy]}: a copy of {bias}")
        del arrays[copy]
    own = f"{decoder}.weight"
    if own in arrays and table in arrays and np.array_equal(arrays[own], arrays[table]):
        if bert.tie_word_embeddings:
            notes.append(f"{originals[own]}: a copy of {originals[table]}")
            del arrays[own]
    elif own in arrays and bert.tie_word_embeddings:
        notes.append(
            f"{originals[own]}: differs from {originals[table]}, so the decoder is not "
            "tied, against the config"
            if table in arrays
            else f"{originals[own]}: the decoder"
        )
        bert = dataclasses.replace(bert, tie_word_embeddings=False)
    elif own not in arrays and bias not in arrays:
        # Nothing to decode with: its config key has no meaning.
        bert = dataclasses.replace(bert, tie_word_embeddings=True)
    found = dataclasses.replace(found, arrays=arrays, originals=originals)
    return found, bert, notes


def _parts(
    found: weights.Found, described: hf_config.HfConfig, choice: weights.Choice
) -> frozenset[str]:
    """Returns the parts that the config names, or that have tensors in the file."""
    model_type, name = described.bert.model_type, described.class_name
    if choice.head and head_of(name) != choice.head:
        # The user knows better than config.json.
        name = model_heads.KINDS[choice.head].transformers
    of_class = mapping.parts_of(model_type, name, pools_mean=described.pools_mean)
    wanted = {"encoder", *of_class}
    outputs = [part for part in wanted if part in HEADS]
    has_classifier = any(
        n.startswith("classifier.") and not weights.matches(n, choice.ignore)
        for n in found.arrays
    )
    if choice.head:
        outputs = [choice.head]
    elif has_classifier and not outputs:
        raise errors.InputError(
            f"{found.where} has a classifier, and its config.json does not define its "
            "kind: write a folder that does with "
            f"{weights.CONVERT} --head=classifier, tagger or multiple_choice"
        )
    wanted |= set(outputs)
    pooler = mapping.HEADS[model_type].get("pooler/dense", "")
    if name == "Model" and not any(n.startswith(f"{pooler}.") for n in found.arrays):
        wanted -= mapping.class_pooler(model_type)  # which no head of the class reads
    pooled = mapping.module_names(model_type, frozenset(outputs) | {"pooler"})
    if has_classifier and not (choice.head or choice.allow_missing):
        _refuse_head_without_pooler(found, frozenset(wanted), pooled)
    table = mapping.HEADS[model_type] | pooled
    for module, theirs in table.items():
        part = module.split("/")[0]
        rival = part in mapping.CLASSIFIERS
        rival |= list(table.values()).count(theirs) > 1  # two parts call it so
        if not rival and any(n.startswith(f"{theirs}.") for n in found.arrays):
            wanted.add(part)
    return frozenset(wanted)


def _refuse_head_without_pooler(
    found: weights.Found, wanted: frozenset[str], modules: Mapping[str, str]
) -> None:
    """Raises InputError for a classifier whose pooler is absent: is it of tokens?"""
    heads = sorted(wanted & {"classifier", model_heads.MULTIPLE_CHOICE})
    if not heads or not {"pooler", "pooler/dense"} <= {*wanted, *modules}:
        return
    if not any(n.startswith(f"{modules['pooler/dense']}.") for n in found.arrays):
        raise errors.InputError(
            f"{found.where}: config.json names {heads[0]}, which reads a pooler, and "
            f"{modules['pooler/dense']}.* is not there. If the classifier is one of "
            f"tokens, write a folder that names it: {weights.CONVERT} --head=tagger. "
            f"To leave out the classifier too: {weights.CONVERT} --allow_missing=pooler"
        )


SEPARATE_HEAD = "classifier.safetensors"
_POOLINGS = {
    "mean": "pooled = (states * mask).sum(1) / mask.sum(1)",
    "max": "pooled = states.masked_fill(mask == 0, -torch.inf).amax(1)",
}
SEPARATE_PARTS = ("classifier", model_heads.MULTIPLE_CHOICE)
_OUTCOMES = {
    weights.MULTI_LABEL: ["probabilities = logits.sigmoid()"],
    weights.REGRESSION: ["scores = logits[:, 0]"],
    weights.SINGLE_LABEL: [
        "probabilities = logits.softmax(-1)",
        "labels = [model.config.id2label[int(best)] for best in logits.argmax(-1)]",
    ],
}


@dataclasses.dataclass(frozen=True, eq=False)
class SeparateHead:
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
    return any({*parts} == {"encoder", part} for part in SEPARATE_PARTS)


def write_separate_head(folder: Path, head: SeparateHead) -> None:
    """Writes the file of a head into a folder."""
    arrays = {f"{head.part}.weight": head.weight, f"{head.part}.bias": head.bias}
    tensors.write_safetensors(folder / SEPARATE_HEAD, arrays)


def read_separate_head(folder: Path) -> dict[str, Any]:
    """Returns the parameters of the head in a folder, under our names; {} for none.

    Raises:
      InputError: the file is damaged, or is not that of a head.
    """
    path = folder / SEPARATE_HEAD
    if not path.is_file():
        return {}
    arrays = tensors.read(path).arrays
    for part in SEPARATE_PARTS:
        if arrays.keys() == {f"{part}.weight", f"{part}.bias"}:
            weight, bias = arrays[f"{part}.weight"], arrays[f"{part}.bias"]
            return {part: {"dense": {"kernel": weight.T.copy(), "bias": bias}}}
    raise errors.InputError(
        f"{path} holds {weights.shortened(sorted(arrays))}, and should hold the weight "
        f"and bias of a {' or '.join(SEPARATE_PARTS)}: copy the whole folder again"
    )


def torch_lines(head: SeparateHead, folder: str, *, has_pooler: bool) -> list[str]:
    """Returns lines of Python that compute the outputs with `transformers`.

    Args:
      folder: its path in the lines.
      has_pooler: whether the class of the encoder builds a pooler, which is not read.
    """
    option = ", add_pooling_layer=False" if has_pooler else ""
    texts, outcome = '["One text.", "Another text."]', _OUTCOMES[head.problem_type]
    if head.part == model_heads.MULTIPLE_CHOICE:
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
        f'head = load_file(f"{{folder}}/{SEPARATE_HEAD}")',
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
