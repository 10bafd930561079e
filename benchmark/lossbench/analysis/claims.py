"""The claims as data: read strictly from a claims file, with the hash that shows whether a criterion moved.

What the keys mean stands at the top of ``experiments/claims.toml``; what they may hold, here, as types.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
)
from pydantic import model_validator as validated

from lossbench.base.errors import UserError, nearest


class Shape(NamedTuple):
    """What a shape of test is called in an estimand, what it may expect, and the keys that only it knows."""

    how: str
    expects: tuple[str, ...]
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


SHAPES = {
    "mean": Shape("mean", ("greater", "less", "equal"), ("minus",)),
    "slope": Shape("change per tenfold foreground", ("greater", "less"), ("dose",)),
    "trend": Shape("change per step of the list", ("greater", "less"), ("among",), ("among",)),
    "each": Shape("in every data set", ("equal",)),
    "agreement": Shape("mean over data sets", ("greater", "less"), ("with",), ("with",)),
    "regret": Shape("worst data set", ("greater", "less"), ("among",), ("among",)),
}


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"must be [smallest, largest], not {list(ends)}")
    return ends


# Strict, since true would pass as 1; TOML also knows inf and nan, which no criterion may be.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Range = Annotated[tuple[Number, Number], Field(strict=False), AfterValidator(_ordered)]
# TOML gives lists, which a strict tuple would refuse.
Names = Annotated[tuple[str, ...], Field(strict=False)]
Losses = str | Annotated[Names, Field(min_length=2)]  # a list: the one that scores best on validation
Value = str | Annotated[dict[str, Number], Field(min_length=1)]
Condition = StrictBool | Number | str | Range
Length = Literal["longest", "shortest"]


class _Strict(BaseModel):
    # Frozen, since a registered criterion must not move between the file, whose hash is shown, and a verdict.
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Minus(_Strict):
    """A second difference that is taken off the first within each seed; what it does not name is the same."""

    times: Number = 1.0
    of: Losses | None = None
    against: Losses | None = None
    where: dict[str, Condition] = {}
    length: Length | None = None


class Test(_Strict):
    """One contrast with its criterion."""

    __test__: ClassVar[bool] = False  # not a test of pytest's

    id: str
    says: str
    value: Value
    of: Losses
    expect: Literal["greater", "less", "equal"]
    margin: Annotated[Number, Field(gt=0)]
    against: Losses | None = None
    shape: Literal["mean", "slope", "trend", "each", "agreement", "regret"] = "mean"
    part: Annotated[Names, BeforeValidator(lambda given: [given] if isinstance(given, str) else given)] = ()
    where: dict[str, Condition] = {}
    data: Names = ()
    foreground: Range | None = None
    length: Length | None = None
    absolute: StrictBool = False
    tuned: StrictBool = False
    with_: Annotated[str | None, Field(alias="with")] = None
    among: Names = ()
    dose: str | None = None
    minus: Minus | None = None
    null: Number = 0.0
    # Files of protocol 1 call what is exploratory "beside".
    role: Annotated[
        Literal["primary", "exploratory"],
        BeforeValidator(lambda given: "exploratory" if given == "beside" else given),
    ] = "primary"

    @validated(mode="after")
    def _makes_sense(self) -> Test:
        # The first problem alone: what follows it is often its consequence.
        for problem in (*_of_shape(self), *_of_null(self)):
            raise ValueError(problem)
        return self

    @property
    def losses(self) -> tuple[str, ...]:
        """All losses that the test names, each once."""
        named = [self.of, self.against, self.among]
        if self.minus:
            named += [self.minus.of, self.minus.against]
        flat = [name for item in named if item for name in ((item,) if isinstance(item, str) else item)]
        return tuple(dict.fromkeys(name for name in flat if name != "any"))

    @property
    def estimand(self) -> str:
        """What is estimated, in one line that names columns and losses."""
        return sentence(self)


class Paper(_Strict):
    """Where a claim comes from: a title, its year, and a link to a DOI or to arXiv."""

    title: str
    year: int
    link: str


class Claim(_Strict):
    """A published statement with the tests that decide about it."""

    id: str
    title: str
    statement: str
    source: str
    family: str
    experiment: str
    tests: Annotated[tuple[Test, ...], Field(alias="test", strict=False)] = ()
    note: str = ""
    prediction: str = ""
    papers: Annotated[tuple[Paper, ...], Field(strict=False)] = ()
    seen: Literal["trial"] | None = None  # the claim was suggested by trainings, not by theory

    @validated(mode="after")
    def _can_be_decided(self) -> Claim:
        if not any(test.role == "primary" for test in self.tests):
            raise ValueError("there is no primary test, so nothing could decide about it")
        return self


@dataclass(frozen=True)
class ClaimSet:
    """All claims of a file, its name, and the first twelve hex digits of its sha256."""

    claims: tuple[Claim, ...]
    file: str
    digest: str = ""


def default_file() -> Path:
    """Return the claims that ship with lossbench: of a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "experiments", package / "experiments"):
        if (folder / "claims.toml").is_file():
            return folder / "claims.toml"
    raise UserError("the file experiments/claims.toml is missing from this installation")


def find_claims(results: str | Path) -> ClaimSet:
    """Return the claims that a results folder was made to test, else those that ship with lossbench."""
    # A study keeps its own; those that ship may have moved on.
    own = Path(results) / "claims.toml"
    return read_claims(own if own.is_file() else None)


def read_claims(path: str | Path | None = None) -> ClaimSet:
    """Read a claims file; UserError names the claim or test, the key and the nearest valid one."""
    path = Path(path) if path is not None else default_file()
    try:
        raw = path.read_bytes()
        content = tomllib.loads(raw.decode())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    # A misspelt [[claims]] would read as a file that holds no claims.
    for key in content:
        if key != "claim":
            raise UserError(f"{path}: unknown key '{key}'; there is: claim")
    claims = tuple(_claim(item, path) for item in content.get("claim", []))
    # Verdicts are kept by test over all claims, and messages name either by its id alone.
    ids = [c.id for c in claims] + [t.id for c in claims for t in c.tests]
    for name in ids:
        if ids.count(name) > 1:
            raise UserError(f"{path}: the id '{name}' stands twice")
    # Of the bytes, comments included: whoever edits the file at all shows it.
    return ClaimSet(claims, path.name, hashlib.sha256(raw).hexdigest()[:12])


def _claim(item: dict[str, Any], path: Path) -> Claim:
    try:
        return Claim.model_validate(item)
    except ValidationError as error:
        raise UserError(f"{path}: {_first(error, item)}") from None


def _first(error: ValidationError, item: dict[str, Any]) -> str:
    """Return the first mistake of a claim in one sentence: of which test, at which key, what is wrong."""
    # A misspelt key is also a missing one; what was written says more.
    found = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = list(found["loc"])
    kind, model, given = "claim", Claim, item
    if place[:1] in (["test"], ["tests"]) and len(place) > 1:
        kind, model, given = "test", Test, item["test"][place[1]]
        place = place[2:]
    where = f"{kind} {given.get('id', '(without id)')}"
    # Of a choice between types pydantic names each; the key is what the file holds.
    key = next((str(name) for name in place if isinstance(name, str)), "")
    if found["type"] == "extra_forbidden":
        known = [f.alias or name for name, f in model.model_fields.items()]
        return f"{where}: unknown key '{place[-1]}'{nearest(str(place[-1]), known)}"
    if found["type"] == "missing":
        return f"{where}: the key '{key}' is missing"
    if found["type"] == "value_error":
        says = str(found["ctx"]["error"])
        return f"{where}: {key} {says}" if key else f"{where}: {says}"
    if found["type"] == "literal_error":
        return f"{where}: {key} must be {found['ctx']['expected']}, not {found['input']!r}"
    return f"{where}: {key} = {given.get(key)!r} is not possible: {found['msg'][0].lower()}{found['msg'][1:]}"


def _of_shape(test: Test):
    """Yield what does not go together with the shape of a test."""
    shape = SHAPES[test.shape]
    keys = {"minus": test.minus, "dose": test.dose, "with": test.with_, "among": test.among}
    for key, given in keys.items():
        if given and key not in shape.keys:
            owners = " or ".join(repr(name) for name, other in SHAPES.items() if key in other.keys)
            yield f"the key '{key}' goes with shape {owners} only"
        if key in shape.needs and not given:
            yield f"shape '{test.shape}' needs the key '{key}'"
    if test.expect not in shape.expects:
        yield f"shape '{test.shape}' goes with expect {' or '.join(map(repr, shape.expects))} only"
    if test.shape == "trend":
        if test.of != "any" or test.against:
            yield "shape 'trend' is about the losses of among, in their order: of = 'any', without against"
        return
    if test.shape not in ("agreement", "regret"):
        if "any" in (test.of, test.against):
            yield "of = 'any' goes with shape 'agreement', 'regret' or 'trend' only"
        return
    if not isinstance(test.value, str) or test.absolute:
        yield f"shape '{test.shape}' ranks losses by one column as it is, without absolute"
    if test.shape == "agreement":
        if test.of != "any" or test.against:
            yield "shape 'agreement' is about all losses: of = 'any', without against"
        return
    for name, allowed in (("of", [*test.among, "any"]), ("against", [*test.among, None])):
        if getattr(test, name) not in allowed:
            yield f"{name} '{getattr(test, name)}' is not one of the losses of among"
    if test.of == "any" and test.against:
        yield "of = 'any' has no regret of its own to compare; leave out against"


def _of_null(test: Test):
    if test.null and test.expect == "equal":
        yield "expect 'equal' is to zero; leave out null"
    if test.null and test.shape in ("slope", "trend"):
        yield f"a {test.shape} is tested against zero; leave out null"


def sentence(test: Test) -> str:
    """Return the estimand of a test: what, how it is summarised, on which data sets, against which null.

    These are the words of the report, of the tables and of the messages."""
    how = f"slope on {test.dose}, all else equal" if test.dose else SHAPES[test.shape].how
    parts = [_what(test), how, where(test)]
    if test.minus:
        parts.append(_taken_off(test.minus))
    if test.tuned:
        parts.append("each loss at the learning rate that its validation score prefers")
    if test.null:
        of = " times what one order would give" if test.shape == "agreement" else ""
        parts.append(f"tested against {test.null:g}{of}")
    return "; ".join(parts)


def per(test: Test) -> str:
    """Return what an effect is counted per: a decade of foreground, a unit of a dose, a step of a list, or
    nothing.
    """
    if test.shape == "trend":
        return "a step"
    if test.shape != "slope":
        return ""
    return f"per unit of {test.dose.split('.')[-1].replace('_', ' ')}" if test.dose else "a decade"


def value(of: Value, absolute: bool = False) -> str:
    """Return a tested value as it would be written: dice@0.5, (dice@0.5 - dice@val),
    |log_size_ratio_soft|.
    """
    if isinstance(of, str):
        text = of
    else:
        parts = [f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} '}{c}" for c, w in of.items()]
        text = " ".join(parts).removeprefix("+ ")
        text = f"({text})" if len(parts) > 1 else text
    return f"|{text}|" if absolute else text


def loss(name: Losses) -> str:
    """Return a loss, or what a list of losses stands for."""
    return name if isinstance(name, str) else f"the best on validation of {', '.join(name)}"


def _what(test: Test) -> str:
    tested = value(test.value, test.absolute)
    if test.shape == "agreement":
        return f"rank agreement (Kendall's tau-b) of the losses by {tested} and by {test.with_}"
    if test.shape == "regret":
        whom = "the loss for which it is smallest" if test.of == "any" else test.of
        than = f" minus that of {test.against}" if test.against else ""
        return f"{tested}: largest regret of {whom}{than}, among {', '.join(test.among)}"
    if test.shape == "trend":
        return f"{tested} of {', '.join(test.among)}, in this order"
    return f"{tested} of {loss(test.of)}" + (f" minus {loss(test.against)}" if test.against else "")


def where(test: Test) -> str:
    places = " and ".join(test.data)
    if test.part:
        parts = f"part{'s' * (len(test.part) > 1)} {', '.join(test.part)}"
        places = f"{places} of {', '.join(test.part)}" if places else parts
    places = places or "all data sets"
    if test.foreground:
        low, high = test.foreground
        places += f", foreground {f'{low:g} to ' if low else 'up to '}{high:g}"
    return places + _conditions(test.where, test.length)


def _conditions(where: dict[str, Condition], length: Length | None) -> str:
    text = f", {length} training" if length else ""
    for column, wanted in where.items():
        name = column.split(".")[-1].replace("_", " ")
        if isinstance(wanted, tuple):
            text += f", {name} {wanted[0]:g} to {wanted[1]:g}"
        else:
            text += f", {name} {wanted:g}" if type(wanted) is float else f", {name} {wanted}"
    return text


def _taken_off(minus: Minus) -> str:
    times = "" if minus.times == 1 else f"{minus.times:g} times "
    what = "the same"
    if minus.of:
        what = f"that of {loss(minus.of)}" + (f" minus {loss(minus.against)}" if minus.against else "")
    return f"minus {times}{what}{_conditions(minus.where, minus.length).replace(', ', ' with ', 1)}"
