"""Train your own BERT from raw text, fine-tune it, and carry it anywhere, in JAX."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_jax.inference.model import load as load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"

# `python -m bert_jax.COMMAND`, which Python is looking for now, or `bert_jax COMMAND`.
if sys.argv and (sys.argv[0] == "-m" or sys.argv[0].rpartition("/")[2] == "bert_jax"):
    from bert_jax.foundation import host_memory

    host_memory.keep_freed()  # before there are threads, as `own` starts one
    from bert_jax.foundation import interrupts

    interrupts.own()


def __getattr__(name: str) -> Any:
    """Imports `load` when it is asked for: rooms import without what it needs."""
    if name == "load":
        from bert_jax.inference.model import load

        return load
    raise AttributeError(f"module 'bert_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the names of the module, `load` among them before it is imported."""
    return sorted({*globals(), *__all__})
