"""The five special pieces, whatever a vocabulary calls them, and added tokens.

BERT spells them [PAD] [UNK] [CLS] [SEP] [MASK], RoBERTa <pad> <unk> <s> </s> <mask>,
ALBERT mixes both; Hugging Face's tokenizer_config.json may name any other.
"""

import dataclasses
from collections.abc import Mapping

from bert_jax import errors
from bert_jax.text import vocabulary_file

SPELLINGS = {
    "pad": (vocabulary_file.PAD, "<pad>"),
    "unk": (vocabulary_file.UNK, "<unk>"),
    "cls": (vocabulary_file.CLS, "<s>"),
    "sep": (vocabulary_file.SEP, "</s>"),
    "mask": (vocabulary_file.MASK, "<mask>"),
}


@dataclasses.dataclass(frozen=True)
class Specials:
    """How a vocabulary spells its special pieces; `mask` is None where it has none."""

    pad: str
    unk: str
    cls: str
    sep: str
    mask: str | None

    def present(self) -> dict[str, str]:
        """Returns the spelling of each role that the vocabulary has."""
        return {role: name for role, name in vars(self).items() if name is not None}


@dataclasses.dataclass(frozen=True)
class Added:
    """A special token that text may spell, as `[E1]`, and how it is matched there.

    Attributes:
      content: its spelling, which is one of the vocabulary's.
      single_word: whether it must not touch letters or digits.
      lstrip, rstrip: whether it takes the blanks before and after it.
      normalized: whether it is searched for in the normalized text.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


BERT = Specials(*(spellings[0] for spellings in SPELLINGS.values()))
ALBERT = dataclasses.replace(BERT, pad="<pad>", unk="<unk>")


def spellings(specials: Specials) -> set[str]:
    """Returns what no text is read as: the pieces, and usual names of an absent one.

    >>> sorted(spellings(dataclasses.replace(BERT, mask=None)))
    ['<mask>', '[CLS]', '[MASK]', '[PAD]', '[SEP]', '[UNK]']
    """
    present = specials.present()
    absent = (names for role, names in SPELLINGS.items() if role not in present)
    return set(present.values()).union(*absent)


def find(
    ids: Mapping[str, int],
    named: Mapping[str, str],
    where: str,
    *,
    require_mask: bool,
) -> Specials:
    """Finds how a vocabulary spells its special pieces.

    Args:
      ids: the id of each piece.
      named: role -> spelling, for those that an options file names.
      where: the vocabulary's file, for messages.
      require_mask: whether a vocabulary without a mask is refused.

    Raises:
      InputError: a piece is missing, or named and not there.
    """
    found: dict[str, str | None] = {}
    missing = []
    for role, spellings in SPELLINGS.items():
        name = named.get(role)
        candidates = spellings if name is None else (name,)
        there = [spelling for spelling in candidates if spelling in ids]
        found[role] = there[0] if there else None
        if not there and (role != "mask" or require_mask):
            missing.append(candidates[0])
    if missing:
        raise errors.InputError(
            f"{where} has no {', '.join(missing)} among its {len(ids)} pieces. Add"
            " what is missing, or name the pieces that take its place in a"
            " tokenizer_config.json beside it, as in"
            ' {"cls_token": "<s>", "mask_token": "<mask>"}.'
        )
    return Specials(**found)  # pyright: ignore[reportArgumentType]  # none is missing


def ids_of(specials: Specials, ids: Mapping[str, int]) -> dict[str, int]:
    """Returns the id of each role that the vocabulary has."""
    return {role: ids[name] for role, name in specials.present().items()}
