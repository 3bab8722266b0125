"""Beartype for jaxtyping's import hook, which decorates functions within functions too.

Those are decorated again at each call of the outer function, often while a step is
traced: a tenth of the suite's time. What jaxtyping passes has an empty body, so equal
signatures have equal checks.
"""

from collections.abc import Callable

from beartype import beartype

_CHECKED: dict[tuple, Callable] = {}


def checked(function: Callable) -> Callable:
    """Returns `function` with its arguments and its result checked."""
    signature = (
        function.__module__,
        function.__qualname__,
        function.__code__.co_varnames,
        tuple(function.__annotations__.items()),
    )
    if signature not in _CHECKED:
        _CHECKED[signature] = beartype(function)
    return _CHECKED[signature]
