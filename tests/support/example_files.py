"""Small files of examples, and what is read from them, for several test modules."""

import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import read_examples


def write(tmp_path, content, name="c.tsv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, task="classification", **options):
    return read_examples.read(
        read_examples.Request(path, tasks.TASKS[task].form, **options)
    )


def iterate(path, task="classification", **options):
    return list(
        read_examples.iterate(
            read_examples.Request(path, tasks.TASKS[task].form, **options)
        )
    )


def columns(**given):
    return read_examples.Columns(**given)


def refused(message, path, task="classification", **options):
    """Reading raises an InputError with this message, and streaming may too."""
    with pytest.raises(errors.InputError, match=message):
        read(path, task, **options)
