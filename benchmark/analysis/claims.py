"""The claims as data: read strictly from `experiments/claims.toml`, with the hash that shows whether a criterion was
moved.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest

EXPECT = ("greater", "less", "equal")
SHAPES = ("mean", "slope", "each")
ROLES = ("primary", "beside")


@dataclass(frozen=True)
class Test:
    """One contrast with its criterion; what the keys mean stands at the top of claims.toml."""

    __test__ = False  # not a test of pytest's

    id: str
    says: str
    value: str | Mapping[str, float]
    of: str
    expect: str
    margin: float
    against: str | None = None
    shape: str = "mean"
    data: tuple[str, ...] = ()
    foreground: tuple[float, float] | None = None
    absolute: bool = False
    role: str = "primary"

    @property
    def estimand(self) -> str:
        """Return what is estimated, in one line that names columns and losses."""
        if isinstance(self.value, str):
            value = self.value
        else:
            parts = [f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} '}{c}" for c, w in self.value.items()]
            value = " ".join(parts).removeprefix("+ ")
            value = f"({value})" if len(parts) > 1 else value
        value = f"|{value}|" if self.absolute else value
        what = f"{value} of {self.of}" + (f" minus {self.against}" if self.against else "")
        where = " and ".join(self.data) or "all data sets"
        if self.foreground:
            low, high = self.foreground
            where += f", foreground {f'{low:g} to ' if low else 'up to '}{high:g}"
        how = {"mean": "mean", "slope": "change per tenfold foreground", "each": "in every data set"}[self.shape]
        return f"{what}; {how}; {where}"


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
    """Return the claims that ship with lossbench: beside the experiments of a checkout, or inside the installed
    package.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "experiments", package / "experiments"):
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
    return Claim(tests=tests, **_filled(Claim, {k: v for k, v in item.items() if k != "test"}, where, skip=("tests",)))


def _test(item: dict[str, Any], path: Path) -> Test:
    where = f"{path}: test {item.get('id', '(without id)')}"
    test = Test(**_filled(Test, item, where))
    for name, choices in (("expect", EXPECT), ("shape", SHAPES), ("role", ROLES)):
        if getattr(test, name) not in choices:
            raise UserError(f"{where}: {name} '{getattr(test, name)}'{nearest(getattr(test, name), choices)}")
    if not isinstance(test.margin, int | float) or isinstance(test.margin, bool) or not test.margin > 0:
        raise UserError(f"{where}: margin must be a number above 0, not {test.margin!r}")
    if test.shape == "each" and test.expect != "equal":
        raise UserError(f"{where}: shape 'each' goes with expect 'equal' only")
    if test.expect == "equal" and test.shape == "slope":
        raise UserError(f"{where}: expect 'equal' is not offered for a slope")
    if test.foreground is not None and not (len(test.foreground) == 2 and test.foreground[0] < test.foreground[1]):
        raise UserError(f"{where}: foreground must be [smallest, largest], not {list(test.foreground)!r}")
    return test


def _filled(kind: type, item: dict[str, Any], where: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    known = [f.name for f in fields(kind) if f.name not in skip]
    _only(item, known, where)
    for f in fields(kind):
        if f.name not in skip and f.default is MISSING and f.default_factory is MISSING and f.name not in item:
            raise UserError(f"{where}: the key '{f.name}' is missing")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}


def _only(item: dict[str, Any], known: list[str], where: str) -> None:
    for key in item:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'{nearest(key, known)}")
