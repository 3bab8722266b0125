import jax.numpy as jnp
import pytest

from bert_jax.training import metrics


def test_total_is_not_a_mean_of_means():
    parts = [{"loss": (jnp.float32(1), jnp.float32(1))}, {"loss": (9.0, 3.0)}]
    assert metrics.divide(metrics.total(parts)) == {"loss": 2.5}


def test_sums_are_kept_in_double_precision():
    many = metrics.add({"n": (2.0**24, 2.0**24)}, {"n": (jnp.float32(1), 1)})
    assert many == {"n": (16777217.0, 16777217.0)}


def test_add_changes_neither_side():
    one, two = {"a": (1.0, 2.0)}, {"a": (3.0, 4.0), "b": (5.0, 6.0)}
    assert metrics.add(one, two) == {"a": (4.0, 6.0), "b": (5.0, 6.0)}
    assert one == {"a": (1.0, 2.0)} and two == {"a": (3.0, 4.0), "b": (5.0, 6.0)}


def test_a_metric_without_weight_is_left_out():
    assert metrics.divide({"empty": (0.0, 0.0), "full": (3, 2)}) == {
        "full": pytest.approx(1.5)
    }
