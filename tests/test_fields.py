"""A key's line: what it allows, how it refuses, what a resumed run may change."""

import dataclasses

import pytest

from bert_jax import errors
from bert_jax.config import finetuning, pretraining
from bert_jax.foundation import fields
from bert_jax.foundation.fields import field


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = field(1, "Depth.", low=1)

    def __post_init__(self):
        fields.check("tank.inner", self)


@dataclasses.dataclass(frozen=True)
class Tank:
    size: int = field(3, "Size.", low=1, also=-1)
    level: float = field(0.5, "Level.", low=0, below=1)
    rate: float = field(0.1, "Rate.", above=0, high=1, free=True)
    any_number: float = field(2.0, "Anything.")
    color: str = field("red", "Color.", choices=("red", "blue"), added="blue")
    tags: str = field("", "Tags.", choices=("wet", "dry"), many=True, also="none")
    mode: str = field("auto", "Mode.", choices=("auto", "true"), any_case=True)
    path: str = field("", "A path.", convert=str.upper)
    inner: Inner = Inner()

    def __post_init__(self):
        fields.check("tank", self)


@dataclasses.dataclass(frozen=True)
class Config:
    tank: Tank


@pytest.mark.parametrize(
    "values",
    [
        {"size": -1},
        {"level": 0, "rate": 1},
        {"tags": "dry, wet"},
        {"tags": "none"},
        {"mode": "True"},
    ],
)
def test_what_is_allowed(values):
    tank = Tank(**values)
    assert isinstance(tank.level, float) and isinstance(tank.rate, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 0}, "tank.size is 0: it must be at least 1, or -1"),
        ({"level": 1.0}, "tank.level is 1.0: it must be from 0 to below 1"),
        ({"level": float("nan")}, "tank.level is nan: it must be from 0 to below 1"),
        ({"rate": 0.0}, "tank.rate is 0.0: it must be above 0 and at most 1"),
        ({"any_number": float("inf")}, "tank.any_number is inf: it must be finite"),
        ({"color": "bleu"}, "tank.color is 'bleu': use one of red, blue. Did you mean"),
        ({"tags": "wet,none"}, "tank.tags is 'wet,none': use any of wet, dry, or none"),
    ],
)
def test_what_is_refused_is_named_with_what_is_allowed(values, words):
    with pytest.raises(errors.InputError) as caught:
        Tank(**values)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 1.0}, "tank.size is 1.0: expected int, got float"),
        ({"level": True}, "tank.level is True: expected float, got bool"),
        ({"level": 10**400}, "from 0 to below 1"),
        ({"inner": {"depth": 0}}, "tank.inner.depth is 0: it must be at least 1"),
        ({"inner": 3}, "tank.inner is 3: expected a group"),
        ({"inner": {"dept": 1}}, "tank.inner.dept. Did you mean tank.inner.depth?"),
        ({"sizes": 1}, "unknown config key tank.sizes. Did you mean tank.size?"),
    ],
)
def test_a_group_from_a_file_is_checked(change, words):
    tree = dataclasses.asdict(Tank()) | {"path": "a"}
    assert fields.build("tank", Tank, tree).path == "A"
    with pytest.raises(errors.InputError) as caught:
        fields.build("tank", Tank, tree | change)
    assert words in str(caught.value)
    del tree["size"]
    with pytest.raises(errors.InputError, match="tank.size is missing"):
        fields.build("tank", Tank, tree)


def test_a_line_can_be_used_twice_with_changes():
    @dataclasses.dataclass(frozen=True)
    class Other:
        rate: float = fields.same(Tank, "rate", 0.7, high=None)

        def __post_init__(self):
            fields.check("other", self)

    assert Other().rate == 0.7
    assert Other(5.0).rate == 5.0
    (_, key) = fields.keys(Other)["rate"]
    assert key == fields.Key("Rate.", above=0, free=True)


def test_records_of_older_runs_get_the_keys_that_were_added():
    assert fields.free_keys(Config) == ("tank.rate",)
    assert fields.with_added({"tank": {"size": 1}}, Config) == {
        "tank": {"size": 1, "color": "blue"}
    }
    assert fields.with_added({}, Config) == {"tank": {"color": "blue"}}
    assert fields.with_added({"tank": {"color": "red"}}, Config) == {
        "tank": {"color": "red"}
    }


_OF_RUN = {
    "attention": "xla",
    "log_examples": False,
    "max_bad_steps": 0,
    "watchdog_seconds": 600,
}
_MESH = {"mesh.data", "mesh.fsdp", "mesh.tensor"}
_BOTH = {
    "data.loader",
    *_MESH,
    *(f"run.{name}" for name in _OF_RUN),
    "run.keep_checkpoints",
    "run.log_every_steps",
    "run.remat",
    "run.save_every_steps",
    "run.unroll",
}


def test_what_a_resumed_run_may_change():
    free = fields.free_keys(pretraining.PretrainingConfig)
    assert set(free) == _BOTH | {"data.store", "data.workers", "run.eval_every_steps"}
    free = fields.free_keys(finetuning.FinetuningConfig)
    assert set(free) == _BOTH | {"run.eval_batch_size"}


def test_what_runs_did_before_a_key_was_added():
    added = fields.added_keys(pretraining.PretrainingConfig)
    assert {group: keys for group, keys in added.items() if keys} == {
        "init": dataclasses.asdict(pretraining.PretrainingInitConfig()),
        "text": {"clean": "", "stop_words": ""},
        "data": {"pack": False, "first_seq_length": 0, "first_steps_share": 0.9},
        "run": _OF_RUN,
    }
    added = fields.added_keys(finetuning.FinetuningConfig)
    assert {group: keys for group, keys in added.items() if keys} == {
        "text": {"clean": "", "stop_words": ""},
        "data": {"pack": False, "doc_overlap": 0},
        "head": {"transform": False},
        "run": _OF_RUN,
    }
