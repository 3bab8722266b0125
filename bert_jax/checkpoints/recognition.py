"""Which model the tensors of a Hugging Face folder are, whatever config.json calls it.

The names below a common prefix (`bert.`, `model.bert.`, none) determine the layout.
BERT, RoBERTa and ELECTRA share one; the names of the heads and of the prefix, the
padding id, the number of positions and token types, and the tokenizer distinguish them.
A label that these facts do not contradict is kept. What they leave open is refused
unless the user names the type: RoBERTa's positions begin at 2, so a wrong guess gives
wrong outputs without any error.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.checkpoints import mapping, weights

Shapes = Mapping[str, tuple[int, ...]]

# The layouts of encoders, and the model types that have each.
_LAYOUTS = {
    "bert": ("bert", "roberta", "electra"),
    "albert": ("albert",),
    "distilbert": ("distilbert",),
    "modernbert": ("modernbert",),
}
_LAYOUT_OF = {kind: layout for layout, kinds in _LAYOUTS.items() for kind in kinds}
# Not in every model of the layout.
_OPTIONAL = {
    "encoder/embeddings/projection",
    "encoder/embeddings/token_type_embeddings",
}
_SPOKEN = {
    "bert": "BERT",
    "roberta": "RoBERTa",
    "albert": "ALBERT",
    "electra": "ELECTRA",
    "distilbert": "DistilBERT",
    "modernbert": "ModernBERT",
}
_WORDS = "encoder/embeddings/word_embeddings"
_POSITIONS = "encoder/embeddings/position_embeddings"
_TYPES = "encoder/embeddings/token_type_embeddings"
_ZERO_BASED = frozenset({"bert", "electra"})  # positions from 0, padding with id 0
_ROBERTA = frozenset({"roberta"})
# Beginnings of the names of heads, and the types that have them.
_HEADS = {
    "cls.predictions.": frozenset({"bert"}),
    "cls.seq_relationship.": frozenset({"bert"}),
    "lm_head.dense.": _ROBERTA,
    "lm_head.layer_norm.": _ROBERTA,
    "generator_": frozenset({"electra"}),
    "discriminator_": frozenset({"electra"}),
    "sequence_summary.": frozenset({"electra"}),
    "classifier.out_proj.": frozenset({"roberta", "electra"}),
}
_BYTE_LEVEL = ("vocab.json", "merges.txt")


@dataclasses.dataclass(frozen=True)
class Recognized:
    """What the tensors of a folder are.

    Attributes:
      model_type: one of `model.config.MODEL_TYPES`.
      prefix: of the encoder's tensors, with its last dot; may be empty.
      note: a line about tensors that contradict the label; or "".
    """

    model_type: str
    prefix: str
    note: str = ""

    def canonical(self, name: str) -> str:
        """Returns the table's name of a tensor, as in `mapping`.

        >>> Recognized("bert", "model.bert.").canonical("model.bert.pooler.dense.bias")
        'bert.pooler.dense.bias'
        >>> Recognized("bert", "model.bert.").canonical("model.cls.predictions.bias")
        'cls.predictions.bias'
        """
        name = _spelled(name)
        above = [self.prefix, *_ancestors(self.prefix)]
        rest = next((name.removeprefix(p) for p in above if name.startswith(p)), name)
        if rest.split(".")[0] in _tops(self.model_type):
            return f"{mapping.encoder_prefix(self.model_type)}.{rest}"
        return rest


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """The tensors of one layout below one prefix."""

    layout: str
    prefix: str
    found: Mapping[str, str]  # our module: the name of a tensor
    count: int

    @property
    def is_whole(self) -> bool:
        """Whether every kind of module of the layout is there."""
        return {*mapping.ENCODER[self.layout]} - _OPTIONAL <= {*self.found}


@dataclasses.dataclass(frozen=True)
class _Fact:
    """Something that only some model types have.

    Attributes:
      strength: `name` for a prefix, which a program may choose freely, `part` for a
        module that other types cannot have, or `size` for numbers and files.
    """

    kinds: frozenset[str]
    text: str
    strength: str = "size"


def recognize(
    shapes: Shapes,
    tree: Mapping[str, Any],
    stated: str,
    folder: Path,
    choice: weights.Choice,
) -> Recognized:
    """Returns what the tensors of a folder are.

    Args:
      shapes: of all tensors, by the names in the file.
      tree: the content of config.json.
      stated: the model type that it states, in small letters; "" for none.
      choice: its `model_type` is what the user asks for; ignored names are no evidence.

    Raises:
      InputError: the tensors are no supported model, or may be one of several.
    """
    kept = {
        name: shape
        for name, shape in shapes.items()
        if not weights.matches(name, choice.ignore)
    }
    wanted = choice.model_type or stated or "bert"
    encoders = _encoders(kept)
    whole = [x for x in encoders if x.is_whole]
    of_layout = [x for x in whole if _LAYOUT_OF.get(wanted) == x.layout]
    best = next(iter(of_layout or whole), None)
    if best is None or (choice.model_type and not of_layout):
        partly = [x for x in encoders if _LAYOUT_OF.get(wanted) == x.layout]
        if not partly:
            raise _nothing_fits(kept, choice.model_type or stated, folder)
        # `weights.assemble` reports what is missing.
        return Recognized(wanted, partly[0].prefix)
    facts = _facts(kept, tree, folder, best)
    kind = _kind(best, facts, stated, choice.model_type, folder)
    note = ""
    if stated and stated != kind:
        shown = best.prefix or "embeddings."
        note = (
            f"{folder}: config.json says {stated}; the tensors are "
            f"{_SPOKEN[kind]}'s ({shown}*): read as {kind}"
        )
    return Recognized(kind, best.prefix, note)


def is_plain(recognized: Recognized, stated: str) -> bool:
    """Returns whether transformers reads a folder so named and labeled by itself."""
    usual = ("", f"{mapping.encoder_prefix(recognized.model_type)}.")
    return recognized.model_type == stated and recognized.prefix in usual


def _spelled(name: str) -> str:
    """Returns a name with the newer spelling of the norms' parameters.

    >>> _spelled("embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def _ancestors(prefix: str) -> list[str]:
    """Returns the prefixes above a prefix, the longest first.

    >>> _ancestors("a.b.bert.")
    ['a.b.', 'a.']
    """
    above = prefix.split(".")[:-2]
    return [".".join(above[:end]) + "." for end in range(len(above), 0, -1)]


def _tops(model_type: str) -> frozenset[str]:
    """Returns the first names below the prefix of the encoder."""
    modules = mapping.ENCODER[model_type].values()
    return frozenset({"pooler", *(module.split(".")[0] for module in modules)})


def _encoders(shapes: Shapes) -> list[_Encoder]:
    """Returns what looks like an encoder, the one with most tensors first."""
    result = []
    for layout, kinds in _LAYOUTS.items():
        table: dict[str, str] = {}
        for kind in kinds:
            table |= mapping.ENCODER[kind]
        order = list(table)
        alternatives = "|".join(
            f"({re.escape(table[ours]).replace(re.escape('{}'), '[0-9]+')})"
            for ours in order
        )
        pattern = re.compile(rf"(?:^|\.)(?:{alternatives})\.(?:weight|bias)$")
        found: dict[str, dict[str, str]] = {}
        counts: dict[str, int] = {}
        for name in shapes:
            match = pattern.search(_spelled(name))
            if match is None or match.lastindex is None:
                continue
            prefix = name[: match.start(match.lastindex)]
            found.setdefault(prefix, {}).setdefault(order[match.lastindex - 1], name)
            counts[prefix] = counts.get(prefix, 0) + 1
        result += [_Encoder(layout, p, x, counts[p]) for p, x in found.items()]
    return sorted(result, key=lambda x: (-x.count, x.prefix))


def _facts(
    shapes: Shapes, tree: Mapping[str, Any], folder: Path, encoder: _Encoder
) -> list[_Fact]:
    """Returns the evidence for some of the model types that share BERT's layout."""
    if encoder.layout != "bert":
        return []
    facts = _named_facts(shapes, encoder)
    if f"{encoder.prefix}pooler.dense.weight" in shapes:
        facts.append(_Fact(frozenset({"bert", "roberta"}), "it has a pooler", "part"))
    pad = tree.get("pad_token_id")
    if type(pad) is int and pad in (0, 1):
        kinds = _ROBERTA if pad else _ZERO_BASED
        facts.append(_Fact(kinds, f"pad_token_id is {pad}"))
    positions, types = (
        shapes[encoder.found[x]][0] if x in encoder.found else 0
        for x in (_POSITIONS, _TYPES)
    )
    if positions >= 16 and positions & (positions - 1) == 0:
        facts.append(_Fact(_ZERO_BASED, f"it has {positions} positions"))
    elif positions >= 16 and (positions - 2) & (positions - 3) == 0:
        facts.append(_Fact(_ROBERTA, f"it has {positions} = 2 + {positions - 2} rows"))
    if types == 1:
        facts.append(_Fact(_ROBERTA, "it has one token type"))
    files = [name for name in _BYTE_LEVEL if (folder / name).is_file()]
    if files and not (folder / "vocab.txt").is_file():
        facts.append(_Fact(_ROBERTA, f"the tokenizer is of {' and '.join(files)}"))
    return facts


def _named_facts(shapes: Shapes, encoder: _Encoder) -> list[_Fact]:
    """Returns the facts of `_facts` that are names."""
    facts = []
    words = set(re.split(r"[._]", encoder.prefix))
    for kind in _LAYOUTS["bert"]:
        if kind in words:
            facts.append(_Fact(frozenset({kind}), f"{encoder.prefix}*", "name"))
    above = ["", *_ancestors(encoder.prefix)]
    for head, kinds in _HEADS.items():
        if any(name.startswith(p + head) for name in shapes for p in above):
            facts.append(_Fact(kinds, f"{head}*", "part"))
    if "encoder/embeddings/projection" in encoder.found:
        facts.append(_Fact(frozenset({"electra"}), "embeddings_project.*", "part"))
    return facts


def _kind(
    encoder: _Encoder, facts: list[_Fact], stated: str, asked: str, folder: Path
) -> str:
    """Returns the model type of an encoder by its label, the facts and the request."""
    kinds = _LAYOUTS[encoder.layout]
    fitting = [x for x in kinds if not _against(facts, x)]
    if asked:
        hard = [x for x in facts if x.strength != "name"]
        others = [x for x in kinds if x != asked and not _against(hard, x)]
        if others and len(_against(hard, asked)) > 1:
            raise _contradiction(facts, f"--model_type={asked}", others, folder)
        return asked
    if stated in kinds and _is_kept(facts, stated):
        return stated
    # Without a label an old file is BERT's, unless something speaks against it.
    if stated and "roberta" in fitting and len(fitting) > 1:
        fitting = []
    if not fitting:
        raise _contradiction(facts, f"the label {stated or '(none)'}", kinds, folder)
    return fitting[0]


def _is_kept(facts: list[_Fact], stated: str) -> bool:
    """Returns whether a label stays that its layout allows.

    It does unless a part or the prefix of another type contradicts it, or two sizes
    where the prefix is of no type. A prefix may be that of another type if the sizes
    are those of the label only: programs call an encoder `bert` whatever it is.
    """
    against = _against(facts, stated)
    named = [x for x in facts if x.strength == "name"]
    if any(x.strength == "part" for x in against):
        return False
    if any(stated not in x.kinds for x in named):
        rivals = frozenset().union(*(x.kinds for x in named)) - {stated}
        own = [x for x in facts if stated in x.kinds and not x.kinds & rivals]
        return bool(own) and all(x in named for x in against)
    return bool(named) or len(against) < 2


def _against(facts: list[_Fact], kind: str) -> list[_Fact]:
    return [x for x in facts if kind not in x.kinds]


def _contradiction(
    facts: list[_Fact], claim: str, kinds: Sequence[str], folder: Path
) -> errors.InputError:
    """Returns the refusal of tensors that may be of several model types: `kinds`."""
    others = f" (or {', '.join(kinds[1:])})" if kinds[1:] else ""
    seen = [f"{x.text} ({' or '.join(sorted(x.kinds))})" for x in facts]
    return errors.InputError(
        f"{folder}: the tensors do not agree with {claim}: "
        f"{'; '.join(seen) or 'no name or size is specific'}. RoBERTa counts "
        "positions from 2, so a wrong choice gives wrong outputs: correct model_type "
        "and pad_token_id in config.json, or write a folder that is right with "
        f"{weights.CONVERT} --model_type={kinds[0]}{others}"
    )


def _nothing_fits(shapes: Shapes, wanted: str, folder: Path) -> errors.InputError:
    """Returns the refusal of tensors that are no supported model, and names them."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(re.sub(r"(?<=\.)[0-9]+(?=\.|$)", "{}", name), []).append(name)
    named = [
        f"{group} {list(shapes[names[0]])} x {len(names)}"
        for group, names in sorted(groups.items())
    ]
    modules = mapping.ENCODER[_LAYOUT_OF.get(wanted, "bert")]
    expected = [modules[_WORDS], *(x for x in modules.values() if "{}" in x)][:2]
    return errors.InputError(
        f"{folder} holds no model that is supported ({', '.join(mapping.CLASSES)}): "
        f"config.json says {wanted or 'nothing of the model_type'}, and the tensors "
        f"are {weights.shortened(named)}. Expected are {' and '.join(expected)}.weight "
        "below one prefix. Give a model of one of these kinds, or the folder that it "
        "was made from"
    )
