"""What data sets and their classes are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lossbench.base import specs


def without_seed(variables: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a builder from its ``locals()``, taken in its first line."""
    # The seed is no part of what a data set is called or prepared from.
    return {key: _plain(value) for key, value in variables.items() if key != "seed"}


def canonical(function: Callable, given: dict[str, Any]) -> str:
    """Return the spec string of a builder's call: only what differs from its defaults, sorted."""
    # Lists stand in spec strings, tuples in signatures: both are compared as lists.
    defaults = {key: _plain(p.default) for key, p in inspect.signature(function).parameters.items()}
    changed = {key: value for key, value in given.items() if _plain(value) != defaults[key]}
    return specs.render(function.__name__, changed)


def class_names(count: int) -> tuple[str, ...]:
    """Return names for classes that have none: background, foreground; or background, class_1, ..."""
    if count <= 2:
        return ("background", "foreground")
    return ("background", *(f"class_{k}" for k in range(1, count)))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
