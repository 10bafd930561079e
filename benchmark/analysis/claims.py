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

from benchmark.analysis import criteria, estimands
from benchmark.errors import UserError, nearest


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
        return estimands.sentence(self)


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
    if isinstance(item.get("part"), str):
        item = item | {"part": [item["part"]]}
    test = Test(**_filled(Test, item, where))
    criteria.check(test, where)
    return test


def _filled(kind: type, item: dict[str, Any], where: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    known = {f.name.rstrip("_"): f for f in fields(kind) if f.name not in skip}  # 'with' is a word of Python's own
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
