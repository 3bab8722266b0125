"""The configurations of suites, made small enough for tests."""

import importlib.util
from pathlib import Path

import tiny_tasks

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SMALL = {
    "init_from": "none",
    "model.size": "tiny",
    "model.hidden_size": 32,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 4,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 32,
    "data.max_seq_length": 32,
    "data.num_lengths": 1,
    "mesh.data": 1,
    "run.batch_size": 8,
    "run.num_train_steps": 2,
    "run.eval_every_steps": 2,
    "run.save_every_steps": 2,
    "optimizer.learning_rate": 1e-2,
}


def module(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def config(name, place, **changes):
    made = module(name).get_config()
    vocab = str(tiny_tasks.write_vocab(place))
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    values = {**SMALL, "text.vocab": vocab, "folder": str(place), "sweep.seeds": 1}
    made.update_from_flattened_dict({**values, **keys})
    return made
