"""What ModernBERT's config.json says in ways of its own, old and new.

Files of transformers 5 list the kind of every layer (`layer_types`) and nest the bases
of the angles (`rope_parameters`); older ones have the keys that `BertConfig` has, which
newer versions still read, and which are written here.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from bert_jax import errors
from bert_jax.model import config

_POOLINGS = ("cls", "mean")
_FAR, _NEAR = "full_attention", "sliding_attention"
_THETAS = {_FAR: "global_rope_theta", _NEAR: "local_rope_theta"}
# The tokenizer knows them; absent, they would be those of the published vocabulary,
# which may lie beyond the end of another.
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def plain(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """Returns a config.json with the keys that older files have.

    Raises:
      InputError: layers follow no period, angles are scaled, or two dropouts differ
        that are one here.
    """
    made = dict(tree)
    if _given(tree, "layer_types"):
        made["global_attn_every_n_layers"] = _period(tree, path)
    if "local_rope_theta" in tree and tree["local_rope_theta"] is None:
        made["local_rope_theta"] = tree["global_rope_theta"]
    if _given(tree, "rope_parameters"):
        made |= _thetas(tree["rope_parameters"], path)
    dropouts = [
        tree[key] for key in ("embedding_dropout", "mlp_dropout") if key in tree
    ]
    if len(dropouts) == 2 and dropouts[0] != dropouts[1]:
        raise errors.InputError(
            f"{path}: embedding_dropout is {dropouts[0]!r} and mlp_dropout "
            f"{dropouts[1]!r}, and only one share for both is supported"
        )
    return made


def _given(tree: dict[str, Any], key: str) -> bool:
    return key in tree and tree[key] is not None


def _period(tree: dict[str, Any], path: Path) -> int:
    """Returns after how many layers the next one comes that sees the whole sequence."""
    kinds = tree["layer_types"]
    if isinstance(kinds, list) and _FAR in kinds and kinds[0] == _FAR:
        behind = kinds[1:]
        alone = behind.index(_FAR) + 1 if _FAR in behind else len(kinds)
        key = "global_attn_every_n_layers"
        said = [tree[key]] if key in tree and isinstance(tree[key], int) else []
        for period in (*said, alone):
            if period > 0 and kinds == _kinds(len(kinds), period):
                return period
    raise errors.InputError(
        f"{path}: layer_types is {kinds!r}, and only one {_FAR} in so many layers, "
        f"from the first on, and {_NEAR} for the others are supported"
    )


def _kinds(layers: int, period: int) -> list[str]:
    return [_NEAR if number % period else _FAR for number in range(layers)]


def _thetas(found: Any, path: Path) -> dict[str, Any]:
    """Returns the bases of the angles that are given by kind of layer."""
    made = {}
    for kind, ours in _THETAS.items():
        own = found[kind] if isinstance(found, dict) and kind in found else {}
        scaled = not isinstance(own, dict) or (
            "rope_type" in own and own["rope_type"] != "default"
        )
        if scaled:
            raise errors.InputError(
                f"{path}: rope_parameters of {kind} are {own!r}, and only the "
                "rope_type 'default' is supported"
            )
        if "rope_theta" in own:
            made[ours] = own["rope_theta"]
    return made


def own_keys(bert: config.BertConfig, of_parts: Collection[str]) -> dict[str, Any]:
    """Returns what config.json has beside the keys that are `BertConfig`'s."""
    return {
        "embedding_dropout": bert.hidden_dropout_prob,
        "classifier_pooling": "mean" if "head_transform" in of_parts else "cls",
        "classifier_bias": False,
        "decoder_bias": True,
        **dict.fromkeys(_SPECIAL_IDS),
    }


def pools_mean(tree: dict[str, Any], path: Path) -> bool:
    """Returns whether a classifier reads the mean of the tokens, and not [CLS].

    Raises:
      InputError: `classifier_pooling` is neither.
    """
    pooling = tree["classifier_pooling"] if "classifier_pooling" in tree else "cls"
    if pooling not in _POOLINGS:
        raise errors.InputError(
            f"{path}: classifier_pooling is {pooling!r}; supported are "
            f"{' and '.join(_POOLINGS)}"
        )
    return pooling == "mean"
