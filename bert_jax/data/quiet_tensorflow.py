"""TensorFlow, imported without its start-up messages and kept off the GPUs.

A leaf module that every room may import.
"""

import os
from typing import Any

from bert_jax import errors


def load() -> Any:
    """Imports TensorFlow; JAX keeps the memory of the GPUs to itself.

    Raises:
      InputError: it is not installed, or already holds the GPUs.
    """
    tf = imported()
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        raise errors.InputError(
            "TensorFlow already uses the GPUs of this process. Make the stream before "
            "TensorFlow runs, or use the loader 'thread'."
        ) from None
    return tf


def imported() -> Any:
    """Imports TensorFlow, for what needs no device.

    Raises:
      InputError: it is not installed.
    """
    # Its notes on the CPU's instructions and on oneDNN, whose kernels tf.data does not
    # use. Values that are set already stay; a TensorFlow that is loaded reads neither.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError:
        raise errors.missing_extra("tensorflow", "data") from None
    return tf
