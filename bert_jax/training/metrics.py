"""Metrics as sums and weights: added everywhere, divided once."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

# name -> (sum, weight), on the host as Python floats (float64).
Sums = dict[str, tuple[float, float]]


def add(total: Mapping[str, Any], more: Mapping[str, Any]) -> Sums:
    """Returns the sums and weights of both, by name.

    >>> add({"accuracy": (3.0, 4.0)}, {"accuracy": (1, 6), "loss": (2, 1)})
    {'accuracy': (4.0, 10.0), 'loss': (2.0, 1.0)}
    """
    result = {name: (float(s), float(w)) for name, (s, w) in total.items()}
    for name, (part, weight) in more.items():
        old_sum, old_weight = result[name] if name in result else (0.0, 0.0)
        result[name] = (old_sum + float(part), old_weight + float(weight))
    return result


def divide(sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns sum / weight by name; a name without any weight is left out.

    >>> divide({"accuracy": (4.0, 10.0), "empty": (0.0, 0.0)})
    {'accuracy': 0.4}
    """
    return {name: float(s) / float(w) for name, (s, w) in sums.items() if w}


def total(parts: Iterable[Mapping[str, Any]]) -> Sums:
    """Returns the sums and weights of all parts, which may lie on devices."""
    result: Sums = {}
    for part in parts:
        result = add(result, jax.device_get(part))
    return result
