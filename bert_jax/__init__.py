"""Train your own BERT from raw text, fine-tune it, and carry it anywhere, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_jax.loading import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports `load` when it is asked for: rooms import without what it needs."""
    if name == "load":
        from bert_jax import loading

        return loading.load
    raise AttributeError(f"module 'bert_jax' has no attribute {name!r}")
