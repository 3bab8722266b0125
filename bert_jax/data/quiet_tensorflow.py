"""Imports TensorFlow without its startup messages and without GPUs."""

import os
from typing import Any

from bert_jax import errors


def load() -> Any:
    """Imports TensorFlow without GPUs, whose memory belongs to JAX.

    Raises:
      InputError: it is not installed, or already uses the GPUs.
    """
    tf = imported()
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        raise errors.InputError(
            "TensorFlow already uses the GPUs of this process. Create the stream "
            "before TensorFlow runs, or use the loader 'thread'."
        ) from None
    return tf


def imported() -> Any:
    """Imports TensorFlow for code that needs no device.

    Raises:
      InputError: it is not installed.
    """
    # Silences notes on CPU instructions and on oneDNN, whose kernels tf.data does not
    # use. Existing values stay; TensorFlow reads both when it is loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError:
        raise errors.missing_extra("tensorflow", "data") from None
    return tf
