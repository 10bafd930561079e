"""Which tests make sense: every key of a test of claims.toml is checked here, and each mistake gets one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.errors import UserError, nearest

EXPECT = ("greater", "less", "equal")
SHAPES = ("mean", "slope", "each", "agreement", "regret")
ROLES = ("primary", "beside")
ONLY_WITH = {"dose": "slope", "with": "agreement", "among": "regret"}  # key -> the one shape that knows it


def check(test: Any, where: str) -> None:
    """Raise UserError for the first key of a ``claims.Test`` that is not as the head of claims.toml says."""
    for problem in (*_types(test), *_shape(test), *_null(test)):
        raise UserError(f"{where}: {problem}")


def _types(test: Any):
    for name, choices in (("expect", EXPECT), ("shape", SHAPES), ("role", ROLES)):
        if getattr(test, name) not in choices:
            yield f"{name} '{getattr(test, name)}'{nearest(str(getattr(test, name)), choices)}"
    for name in ("id", "says"):
        if not isinstance(getattr(test, name), str):
            yield f"{name} must be a text, not {getattr(test, name)!r}"
    for name in ("absolute", "tuned"):
        if not isinstance(getattr(test, name), bool):
            yield f"{name} must be true or false, not {getattr(test, name)!r}"
    if not _number(test.margin) or not test.margin > 0:
        yield f"margin must be a number above 0, not {test.margin!r}"
    if not _number(test.null):
        yield f"null must be a number, not {test.null!r}"
    if not isinstance(test.value, str) and not (isinstance(test.value, Mapping) and test.value and all(map(_number, test.value.values()))):
        yield f'value must be a column or columns with weights, such as {{ "dice@0.5" = 1 }}, not {test.value!r}'
    for name in ("of", "against"):
        given = getattr(test, name)
        if not (isinstance(given, str) or (name == "against" and given is None) or (_texts(given) and len(given) > 1)):
            yield f"{name} must be a loss or a list of two or more losses, not {given!r}"
    for name in ("part", "data", "among"):
        if not _texts(getattr(test, name)):
            yield f"{name} must be a list of names, not {getattr(test, name)!r}"
    for name in ("with_", "dose"):
        if not isinstance(getattr(test, name), str | None):
            yield f"{name.rstrip('_')} must be a column, not {getattr(test, name)!r}"
    if test.foreground is not None and not _range(test.foreground):
        yield f"foreground must be [smallest, largest], not {_shown(test.foreground)}"
    if not isinstance(test.where, Mapping):
        yield f'where must be a table of columns, such as {{ "data.rim" = 0 }}, not {test.where!r}'
    else:
        for column, wanted in test.where.items():
            if not (isinstance(wanted, str | bool) or _number(wanted) or _range(wanted)):
                yield f"where: '{column}' must be a value or [smallest, largest], not {_shown(wanted)}"


def _shape(test: Any):
    for key, shape in ONLY_WITH.items():
        if getattr(test, "with_" if key == "with" else key) and test.shape != shape:
            yield f"the key '{key}' goes with shape '{shape}' only"
    if test.shape == "each" and test.expect != "equal":
        yield "shape 'each' goes with expect 'equal' only"
    if test.expect == "equal" and test.shape not in ("mean", "each"):
        yield f"expect 'equal' is not offered for {'a slope' if test.shape == 'slope' else f'shape {test.shape!r}'}"
    if test.shape not in ("agreement", "regret"):
        if "any" in (test.of, test.against):
            yield "of = 'any' goes with shape 'agreement' or 'regret' only"
        return
    if not isinstance(test.value, str) or test.absolute:
        yield f"shape '{test.shape}' ranks losses by a column as it is; give one column as value, without absolute"
    if test.shape == "agreement":
        if test.of != "any" or test.against:
            yield "shape 'agreement' is about all losses: of = 'any', without against"
        if not test.with_:
            yield "shape 'agreement' needs the key 'with', the column that ranks the losses a second time"
        return
    if len(test.among) < 2:
        yield "shape 'regret' needs the key 'among', the two or more losses that are compared"
    for name, allowed in (("of", [*test.among, "any"]), ("against", [*test.among, None])):
        if getattr(test, name) not in allowed:
            yield f"{name} '{_shown(getattr(test, name))}' is not one of the losses of among"
    if test.of == "any" and test.against:
        yield "of = 'any' has no regret of its own to compare; leave out against"


def _null(test: Any):
    if test.null and test.expect == "equal":
        yield "expect 'equal' is to zero; leave out null"
    if test.null and test.shape == "slope":
        yield "a slope is tested against zero; leave out null"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_number, value)) and value[0] < value[1]


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else f"{value}"
