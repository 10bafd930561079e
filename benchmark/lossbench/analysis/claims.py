"""The claims as data: read strictly from `experiments/claims.toml`, with the hash that shows whether a
criterion was moved.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError, nearest


@dataclass(frozen=True)
class Test:
    """One contrast with its criterion; what the keys mean stands at the top of claims.toml."""

    __test__ = False  # not a test of pytest's

    id: str
    says: str
    value: str | Mapping[str, float]
    of: str | tuple[str, ...]
    expect: str
    margin: float
    against: str | tuple[str, ...] | None = None
    shape: str = "mean"
    part: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    foreground: tuple[float, float] | None = None
    absolute: bool = False
    tuned: bool = False
    with_: str | None = None
    among: tuple[str, ...] = ()
    dose: str | None = None
    null: float = 0.0
    role: str = "primary"

    @property
    def losses(self) -> tuple[str, ...]:
        """All losses that the test names, each once."""
        named = [self.of, self.against, self.among]
        flat = [name for item in named if item for name in ((item,) if isinstance(item, str) else item)]
        return tuple(dict.fromkeys(name for name in flat if name != "any"))

    @property
    def estimand(self) -> str:
        """What is estimated, in one line that names columns and losses."""
        return sentence(self)


@dataclass(frozen=True)
class Claim:
    """A published statement with the tests that decide about it."""

    id: str
    title: str
    statement: str
    source: str
    family: str
    experiment: str
    tests: tuple[Test, ...]
    note: str = ""


@dataclass(frozen=True)
class ClaimSet:
    """All claims of a file, its name, and the first twelve hex digits of its sha256."""

    claims: tuple[Claim, ...]
    file: str
    digest: str = field(default="")


def default_file() -> Path:
    """Return the claims that ship with lossbench: beside the experiments of a checkout, or inside the
    installed package.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "experiments", package / "experiments"):
        if (folder / "claims.toml").is_file():
            return folder / "claims.toml"
    raise UserError("the file experiments/claims.toml is missing from this installation")


def read_claims(path: str | Path | None = None) -> ClaimSet:
    """Read a claims file; UserError names the claim, the key and the nearest valid one."""
    path = Path(path) if path is not None else default_file()
    try:
        raw = path.read_bytes()
        content = tomllib.loads(raw.decode())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    _only(content, ["claim"], str(path))
    claims = tuple(_claim(item, path) for item in content.get("claim", []))
    ids = [c.id for c in claims] + [t.id for c in claims for t in c.tests]
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"{path}: the id '{name}' stands twice")
    return ClaimSet(claims, path.name, hashlib.sha256(raw).hexdigest()[:12])


def _claim(item: dict[str, Any], path: Path) -> Claim:
    where = f"{path}: claim {item.get('id', '(without id)')}"
    tests = tuple(_test(test, path) for test in item.get("test", []))
    if not any(test.role == "primary" for test in tests):
        raise UserError(f"{where} has no primary test, so nothing could decide about it")
    return Claim(
        tests=tests, **_filled(Claim, {k: v for k, v in item.items() if k != "test"}, where, skip=("tests",))
    )


def _test(item: dict[str, Any], path: Path) -> Test:
    where = f"{path}: test {item.get('id', '(without id)')}"
    if isinstance(item.get("part"), str):
        item = item | {"part": [item["part"]]}
    test = Test(**_filled(Test, item, where))
    check(test, where)
    return test


def _filled(kind: type, item: dict[str, Any], where: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    known = {
        f.name.rstrip("_"): f for f in fields(kind) if f.name not in skip
    }  # 'with' is a word of Python's own
    _only(item, list(known), where)
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and key not in item:
            raise UserError(f"{where}: the key '{key}' is missing")
    return {known[key].name: _frozen(value) for key, value in item.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _only(item: dict[str, Any], known: list[str], where: str) -> None:
    for key in item:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{nearest(key, known)}")


# --- Which tests make sense: every key of a test of claims.toml is checked here, and each mistake gets
# one sentence.

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
    if not isinstance(test.value, str) and not (
        isinstance(test.value, Mapping) and test.value and all(map(_number, test.value.values()))
    ):
        yield (
            f'value must be a column or columns with weights, such as {{ "dice@0.5" = 1 }}, not '
            f"{test.value!r}"
        )
    for name in ("of", "against"):
        given = getattr(test, name)
        if not (
            isinstance(given, str)
            or (name == "against" and given is None)
            or (_texts(given) and len(given) > 1)
        ):
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
        yield (
            "expect 'equal' is not offered for "
            f"{'a slope' if test.shape == 'slope' else f'shape {test.shape!r}'}"
        )
    if test.shape not in ("agreement", "regret"):
        if "any" in (test.of, test.against):
            yield "of = 'any' goes with shape 'agreement' or 'regret' only"
        return
    if not isinstance(test.value, str) or test.absolute:
        yield (
            f"shape '{test.shape}' ranks losses by a column as it is; give one column as value, without "
            "absolute"
        )
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
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(map(_number, value))
        and value[0] < value[1]
    )


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else f"{value}"


# --- What a test estimates, in one line that names columns and losses: the same words for the report, the
# tables and the messages.


def sentence(test: Any) -> str:
    """Return the estimand of a ``claims.Test``: what, how it is summarised, on which data sets, against which
    null.
    """
    how = {
        "mean": "mean",
        "slope": f"slope on {test.dose}, all else equal" if test.dose else "change per tenfold foreground",
        "each": "in every data set",
        "agreement": "mean over data sets",
        "regret": "worst data set",
    }[test.shape]
    parts = [_what(test), how, _where(test)]
    if test.tuned:
        parts.append("each loss at the learning rate that its validation score prefers")
    if test.null:
        parts.append(f"tested against {test.null:g}")
    return "; ".join(parts)


def per(test: Any) -> str:
    """Return what the effect of a test is counted per: "a decade" of foreground, "per unit of" a dose; empty
    where it is no slope.
    """
    if test.shape != "slope":
        return ""
    return f"per unit of {test.dose.split('.')[-1].replace('_', ' ')}" if test.dose else "a decade"


def value(of: str | Mapping[str, float], absolute: bool = False) -> str:
    """Return a tested value in the way it would be written down: dice@0.5, (dice@0.5 - dice@val),
    |log_size_ratio_soft|.
    """
    if isinstance(of, str):
        text = of
    else:
        parts = [f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} '}{c}" for c, w in of.items()]
        text = " ".join(parts).removeprefix("+ ")
        text = f"({text})" if len(parts) > 1 else text
    return f"|{text}|" if absolute else text


def loss(name: str | tuple[str, ...]) -> str:
    """Return a loss, or what a list of losses stands for."""
    return name if isinstance(name, str) else f"the best on validation of {', '.join(name)}"


def _what(test: Any) -> str:
    tested = value(test.value, test.absolute)
    if test.shape == "agreement":
        return f"rank agreement (Kendall's tau) of the losses by {tested} and by {test.with_}"
    if test.shape == "regret":
        whom = "the loss for which it is smallest" if test.of == "any" else test.of
        than = f" minus that of {test.against}" if test.against else ""
        return f"{tested}: largest regret of {whom}{than}, among {', '.join(test.among)}"
    return f"{tested} of {loss(test.of)}" + (f" minus {loss(test.against)}" if test.against else "")


def _where(test: Any) -> str:
    places = " and ".join(test.data) or (
        f"part{'s' * (len(test.part) > 1)} {', '.join(test.part)}" if test.part else "all data sets"
    )
    if test.data and test.part:
        places += f" of {', '.join(test.part)}"
    if test.foreground:
        low, high = test.foreground
        places += f", foreground {f'{low:g} to ' if low else 'up to '}{high:g}"
    for column, wanted in test.where.items():
        name = column.split(".")[-1].replace("_", " ")
        places += f", {name} " + (
            f"{wanted[0]:g} to {wanted[1]:g}" if isinstance(wanted, tuple) else f"{wanted}"
        )
    return places
