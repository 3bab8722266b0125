"""Prefetches batches and moves them to the devices, in the order of the steps.

`batch_at` is pure, so it may run for several steps at once; batches are yielded in the
order of the steps, whichever is ready first.
"""

import collections
import concurrent.futures
import contextlib
import functools
import importlib.util
import itertools
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from bert_jax import console, errors

Batch = dict[str, np.ndarray]
OnDevice = TypeVar("OnDevice")


def batches(
    batch_at: Callable[[int], Batch],
    start_step: int,
    num_steps: int,
    *,
    loader: str,
    put: Callable[[Batch], OnDevice],
    prefetch: int = 2,
) -> Generator[OnDevice, None, None]:
    """Returns the batches on device from start_step on.

    Closing or deleting the generator stops prefetching.

    Args:
      batch_at: the batch of a step: the same keys, types and shapes at every step.
      num_steps: the number of batches.
      loader: "tfdata" computes them in TensorFlow's threads, "thread" in Python's.
      put: moves a batch to the devices; called in the caller's thread, in the order of
        the steps, ahead of time.
      prefetch: number of batches computed ahead, and of batches moved ahead.

    Raises:
      InputError: a negative count, an unknown loader, or TensorFlow is missing.
      Errors of batch_at and put are raised at their step, after the batches before it.
    """
    if prefetch < 1 or num_steps < 0 or start_step < 0:
        raise errors.InputError(
            f"start_step {start_step} and num_steps {num_steps} must be 0 or more, "
            f"and prefetch {prefetch} must be 1 or more."
        )
    steps = range(start_step, start_step + num_steps)
    if loader == "tfdata":
        check_loader(loader)
        source = _from_tfdata(batch_at, steps, prefetch, load_tensorflow())
    elif loader == "thread":
        source = _from_threads(batch_at, steps, prefetch)
    else:
        raise errors.InputError(f"loader is {loader!r}: use 'tfdata' or 'thread'")
    return _put_ahead(source, put, prefetch, num_steps)


def _put_ahead(
    source: Generator[Batch, None, None],
    put: Callable[[Batch], OnDevice],
    prefetch: int,
    left: int,
) -> Generator[OnDevice, None, None]:
    """Yields batches on device, with up to `prefetch` of them at a time.

    The iterator is closed after all batches are yielded, not when the last one is
    computed: TensorFlow may take seconds to stop while the devices wait for batches.
    """
    ahead: collections.deque[OnDevice] = collections.deque()
    end: Exception | None = None
    with contextlib.closing(source):
        while True:
            while end is None and left and len(ahead) < prefetch:
                try:
                    ahead.append(put(next(source)))
                    left -= 1
                except Exception as error:  # Raised after the batches before it.
                    end = error
            if not ahead:
                break
            yield ahead.popleft()
    if end is not None:
        raise end


def _from_threads(
    batch_at: Callable[[int], Batch], steps: range, prefetch: int
) -> Generator[Batch, None, None]:
    """Yields batches computed by `prefetch` threads."""
    executor = concurrent.futures.ThreadPoolExecutor(prefetch, "batches")
    try:
        left = iter(steps)
        submit = functools.partial(executor.submit, batch_at)
        futures = collections.deque(map(submit, itertools.islice(left, prefetch)))
        while futures:
            batch = futures.popleft().result()
            futures.extend(map(submit, itertools.islice(left, 1)))
            yield batch
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _from_tfdata(
    batch_at: Callable[[int], Batch], steps: range, prefetch: int, tf: Any
) -> Generator[Batch, None, None]:
    """Yields batches computed by tf.data, with the signature of the first."""
    if not steps:
        return
    first = batch_at(steps.start)
    names, types = list(first), [array.dtype for array in first.values()]
    failures: dict[int, Exception] = {}

    def arrays(step: np.int64) -> list[np.ndarray]:
        try:
            batch = batch_at(int(step))
            return [batch[name] for name in names]
        except Exception as error:  # TensorFlow would only keep its text.
            failures[int(step)] = error
            raise

    def tensors(step: Any) -> Any:
        return tf.numpy_function(arrays, [step], types, stateful=False)

    dataset = tf.data.Dataset.range(steps.start, steps.stop)
    dataset = dataset.map(tensors, num_parallel_calls=prefetch, deterministic=True)
    iterator = dataset.prefetch(prefetch).as_numpy_iterator()
    for step in steps:
        try:
            batch = next(iterator)
        except tf.errors.OpError:
            if step in failures:
                raise failures[step] from None
            raise
        yield dict(zip(names, batch, strict=True))


def check_loader(loader: str) -> None:
    """Raises InputError if the loader needs TensorFlow and it is not installed."""
    if loader == "tfdata" and importlib.util.find_spec("tensorflow") is None:
        missing = errors.missing_extra("tensorflow", "data")
        raise errors.InputError(
            f"{missing}\nOr use the loader 'thread', which does not need TensorFlow."
        )


def load_tensorflow() -> Any:
    """Imports TensorFlow without GPUs, whose memory belongs to JAX.

    Raises:
      InputError: it is not installed, or already uses the GPUs.
    """
    tf = console.import_tensorflow()
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        raise errors.InputError(
            "TensorFlow already uses the GPUs of this process. Create the stream "
            "before TensorFlow runs, or use the loader 'thread'."
        ) from None
    return tf
