"""The five special tokens, however a vocabulary spells them, and added tokens.

BERT spells them [PAD] [UNK] [CLS] [SEP] [MASK], RoBERTa <pad> <unk> <s> </s> <mask>,
ALBERT mixes both; Hugging Face's tokenizer_config.json may name any other.
"""

import dataclasses
from collections.abc import Mapping

from bert_jax import errors

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPELLINGS = {
    "pad": (PAD, "<pad>"),
    "unk": (UNK, "<unk>"),
    "cls": (CLS, "<s>"),
    "sep": (SEP, "</s>"),
    "mask": (MASK, "<mask>"),
}


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """How a vocabulary spells its special tokens; `mask` is None if it has none."""

    pad: str
    unk: str
    cls: str
    sep: str
    mask: str | None

    def present(self) -> dict[str, str]:
        """Returns the spelling of each role that the vocabulary has."""
        return {role: name for role, name in vars(self).items() if name is not None}


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A further special token that is matched in text, such as `[E1]`.

    Attributes:
      content: its spelling, which is in the vocabulary.
      single_word: whether it must not touch letters or digits.
      lstrip, rstrip: whether it includes the white space before and after it.
      normalized: whether it is matched in the normalized text.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


BERT = SpecialTokens(PAD, UNK, CLS, SEP, MASK)
ALBERT = dataclasses.replace(BERT, pad="<pad>", unk="<unk>")


def reserved(specials: SpecialTokens) -> set[str]:
    """Returns the spellings that raw text is never read as.

    They are the special tokens, and the usual names of one that is absent.

    >>> sorted(reserved(dataclasses.replace(BERT, mask=None)))
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
) -> SpecialTokens:
    """Finds how a vocabulary spells its special tokens.

    Args:
      ids: the id of each token.
      named: role -> spelling, for those that an options file names.
      where: the vocabulary's file, for messages.
      require_mask: whether a vocabulary without a mask is an error.

    Raises:
      InputError: a special token is missing, or an options file names an unknown one.
    """
    found: dict[str, str | None] = {}
    missing = []
    for role, spellings in SPELLINGS.items():
        name = named.get(role)
        candidates = spellings if name is None else (name,)
        known = [spelling for spelling in candidates if spelling in ids]
        found[role] = known[0] if known else None
        if not known and (role != "mask" or require_mask):
            missing.append(candidates[0])
    if missing:
        raise errors.InputError(
            f"{where} has no {', '.join(missing)} among its {len(ids)} tokens. Add"
            " what is missing, or name the tokens to use instead in a"
            " tokenizer_config.json next to it, as in"
            ' {"cls_token": "<s>", "mask_token": "<mask>"}.'
        )
    return SpecialTokens(**found)  # pyright: ignore[reportArgumentType]  # none missing


def ids_of(specials: SpecialTokens, ids: Mapping[str, int]) -> dict[str, int]:
    """Returns the id of each role that the vocabulary has."""
    return {role: ids[name] for role, name in specials.present().items()}
