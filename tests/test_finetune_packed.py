"""Fine-tuning in shared rows: it learns, resumes, and does not depend on the mesh."""

import json

import jax
import numpy as np
import pytest
import tiny_tasks

from bert_jax import errors, finetune
from bert_jax.config import finetuning
from bert_jax.training import logs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    tiny_tasks.write_vocab(folder)
    tiny_tasks.write_classes(folder / "train.tsv", 61, seed=0)
    tiny_tasks.write_classes(folder / "dev.tsv", 30, seed=1)
    return folder


def metrics_of(workdir, name):
    lines = (workdir / logs.METRICS).read_text().splitlines()
    return [x[name] for x in map(json.loads, lines) if name in x]


def test_it_learns(place):
    made = finetune.train(tiny_tasks.config(place, data__pack=True), place / "run")
    assert made.metrics["dev/accuracy"] == 1.0


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_mesh_of_eight_learns_the_same(place):
    found = []
    for devices in (1, 8):
        config = tiny_tasks.config(
            place,
            data__pack=True,
            mesh__data=devices,
            run__num_train_steps=3,
            run__log_every_steps=1,
        )
        workdir = place / f"mesh{devices}"
        finetune.train(config, workdir)
        found.append(metrics_of(workdir, "train/loss"))
    assert len(found[0]) == 3 and len(set(found[0])) == 3
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_parts_of_a_batch_cannot_share_rows(place):
    config = tiny_tasks.config(place, data__pack=True, run__accumulation_steps=2)
    with pytest.raises(errors.InputError, match=r"data\.pack.*run\.accumulation"):
        finetuning.parse(config)
