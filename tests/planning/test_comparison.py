from pathlib import Path

import pytest
import tiny_run

from bert_jax import errors
from bert_jax.planning import comparison

TREE = tiny_run.config(Path("unread")).to_dict()


def test_a_variant_is_settings_or_chips_or_both():
    tree, chips = comparison.changed(TREE, "h100", "mesh.fsdp=2; run.remat=dots")
    assert (tree["mesh"]["fsdp"], tree["run"]["remat"], chips) == (2, "dots", "h100")
    assert TREE["mesh"]["fsdp"] == 1
    tree, chips = comparison.changed(TREE, "h100", "v5e:4x4;run.batch_size=64")
    assert (tree["run"]["batch_size"], chips) == (64, "v5e:4x4")
    tree, chips = comparison.changed(TREE, "h100", "a100:8")
    assert (tree, chips) == (TREE, "a100:8")


def test_values_have_the_type_of_the_key():
    variant = "data.pack=true;optimizer.learning_rate=1;model.num_hidden_layers=3"
    tree, _ = comparison.changed(TREE, "h100", variant)
    assert tree["data"]["pack"] is True
    assert tree["optimizer"]["learning_rate"] == 1
    assert tree["model"]["num_hidden_layers"] == 3


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("run.remta=dots", "unknown config key run.remta. Did you mean run.remat?"),
        ("run=3", "unknown config key run"),
        ("run.batch_size=many", "run.batch_size is 'many': expected int"),
        ("run.batch_size=true", "expected int"),
        ("run.batch_size=2.5", "expected int"),
        ("data.pack=1", "expected bool"),
    ],
)
def test_wrong_variants(variant, words):
    with pytest.raises(errors.InputError) as caught:
        comparison.changed(TREE, "h100", variant)
    assert words in str(caught.value)
