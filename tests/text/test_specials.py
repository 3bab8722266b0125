"""Special tokens are found by BERT's, RoBERTa's or any named spelling."""

import pytest

from bert_jax import errors
from bert_jax.text import specials

ROBERTA = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5}
BERT = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}


def find(ids: dict[str, int], require_mask: bool = True, **named: str):
    """Finds special tokens in a vocabulary named v.txt."""
    return specials.find(ids, named, "v.txt", require_mask=require_mask)


def test_usual_spellings():
    assert find(BERT) == specials.BERT
    assert find(ROBERTA) == specials.SpecialTokens(
        pad="<pad>", unk="<unk>", cls="<s>", sep="</s>", mask="<mask>"
    )
    albert = {"<pad>": 0, "<unk>": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert find(albert) == specials.ALBERT


def test_a_name_goes_before_the_usual_spelling():
    both = BERT | {"<s>": 5, "@": 6}
    assert find(both).cls == "[CLS]"
    assert find(both, cls="<s>", mask="@").present() == {
        **{"pad": "[PAD]", "unk": "[UNK]", "cls": "<s>", "sep": "[SEP]", "mask": "@"}
    }


def test_ids_of():
    found = find(ROBERTA)
    assert specials.ids_of(found, ROBERTA) == {
        **{"pad": 1, "unk": 3, "cls": 0, "sep": 2, "mask": 4}
    }


def test_a_mask_may_be_missing_only_where_none_is_needed():
    no_mask = {name: index for name, index in BERT.items() if name != "[MASK]"}
    found = find(no_mask, require_mask=False)
    assert found.mask is None
    assert specials.ids_of(found, no_mask) == {
        **{"pad": 0, "unk": 1, "cls": 2, "sep": 3}
    }
    with pytest.raises(errors.InputError, match=r"v.txt has no \[MASK\] among its 4"):
        find(no_mask)


@pytest.mark.parametrize(
    ("ids", "named", "message"),
    [
        (
            {"a": 0, "[UNK]": 1},
            {},
            r"no \[PAD\], \[CLS\], \[SEP\], \[MASK\] among its 2",
        ),
        ({"<s>": 0, "<pad>": 1, "</s>": 2}, {}, r"no \[UNK\], \[MASK\] among its 3"),
        (BERT, {"cls": "<cls>"}, "v.txt has no <cls> among its 5"),
        (BERT, {"mask": "<mask>"}, "v.txt has no <mask> among"),
    ],
)
def test_what_is_missing_is_named(ids: dict, named: dict, message: str):
    with pytest.raises(errors.InputError, match=message):
        find(ids, **named)
