"""From claims and cells to verdicts: supported, contradicted, equivalent, inconclusive or not testable.

A directional test ("greater", "less") is
  equivalent     if the effect is shown to lie within the margin (TOST, Holm-adjusted): too small to matter,
                 whatever its sign; never where the test has a null of its own, since that already is the
                 smallest effect that matters;
  supported      if its two-sided p (Holm-adjusted within the family) is below .05 and the effect lies on the
  claimed side of the null; contradicted   if it is below .05 and the effect lies on the other side;
  not testable   if no number of agreeing blocks could bring p below .05, or cells are missing;
  inconclusive   otherwise. A large p is never "no difference".
An equality test is supported if TOST is passed (shape "each": in every data set), contradicted if some data
set is shown to lie beyond the margin, else inconclusive. Holm counts the tests that were declared, also those
that could not be run. A claim is contradicted if one of its primary tests is, supported if all are; else not
testable, equivalent or inconclusive, in this order, if one of its tests is.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lossbench.analysis import resampling, selection, stats
from lossbench.analysis.claims import Claim, Test
from lossbench.analysis.pairs import Effect, NotPaired, differences, effect
from lossbench.analysis.rankings import ranked
from lossbench.base.errors import UserError

ALPHA = 0.05

VERDICTS = ("supported", "contradicted", "equivalent", "inconclusive", "not testable")


@dataclass(frozen=True)
class Result:
    """What the cells say about one test."""

    test: Test
    verdict: str
    why: str  # one sentence
    effect: Effect | None = None
    p: float = float("nan")  # of the deciding test, unadjusted
    p_adjusted: float = float("nan")
    incomplete: int = 0  # blocks that lack one of the two cells
    where: str = ""  # shape "each": the data set furthest from equality
    command: str = ""  # what fills the missing cells


@dataclass(frozen=True)
class Verdict:
    """What the records say about one claim."""

    claim: Claim
    verdict: str
    results: tuple[Result, ...] = field(default=())


@dataclass(frozen=True)
class _Raw:
    """A test before it is adjusted: the p-values for a difference, for equality, and for lying beyond the
    margin.
    """

    effect: Effect | None = None
    p: float = float("nan")
    p_equal: float = float("nan")
    p_beyond: float = float("nan")
    incomplete: int = 0
    where: str = ""
    problem: str = ""
    fills: bool = False  # more cells would solve the problem


NO_PARTS = pd.DataFrame(columns=["experiment", "part", "losses", "seeds"])


def evaluate(
    claims: Iterable[Claim], cells: pd.DataFrame, parts: pd.DataFrame = NO_PARTS
) -> tuple[Verdict, ...]:
    """Return the verdict on every claim; p-values are Holm-adjusted over the primary tests of each family of
    claims. ``parts`` is the table of that name: what the experiment plans, for the commands that fill gaps.
    """
    claims = tuple(claims)
    raw = {test.id: _measure(test, cells) for claim in claims for test in claim.tests}
    results: dict[str, Result] = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        members = [(claim, test) for claim in claims if claim.family == family for test in claim.tests]
        primary = [test for _, test in members if test.role == "primary"]
        adjusted = _adjust(primary, raw)
        for claim, test in members:
            # What is reported beside the verdict carries its own, unadjusted p-values.
            own = adjusted[test.id] if test.role == "primary" else raw[test.id]
            planned = parts[parts["experiment"] == claim.experiment]
            results[test.id] = _judge(test, raw[test.id], own, claim.experiment, planned)
    return tuple(
        Verdict(
            claim,
            _combine([results[t.id].verdict for t in claim.tests if t.role == "primary"]),
            tuple(results[t.id] for t in claim.tests),
        )
        for claim in claims
    )


def verdict_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return one row a test, with the claim's own verdict in every row: the table behind the report's first
    page.
    """
    rows: list[dict[str, Any]] = []
    for verdict in verdicts:
        for result in verdict.results:
            measured = result.effect
            rows.append(
                {
                    "claim": verdict.claim.id,
                    "title": verdict.claim.title,
                    "claim_verdict": verdict.verdict,
                    "test": result.test.id,
                    "role": result.test.role,
                    "says": result.test.says,
                    "estimand": result.test.estimand,
                    "verdict": result.verdict,
                    **{name: getattr(measured, name, np.nan) for name in Effect.__annotations__},
                    "p": result.p,
                    "p_adjusted": result.p_adjusted,
                    "margin": result.test.margin,
                    "null": result.test.null,
                    "incomplete": result.incomplete,
                    "where": result.where,
                    "why": result.why,
                    "command": result.command,
                }
            )
    return pd.DataFrame(rows)


def _measure(test: Test, cells: pd.DataFrame) -> _Raw:
    try:
        part = selection.select(cells, test)
        absent = [loss for loss in test.losses if not len(selection.select_loss(part, loss))]
        if absent or not len(part):
            what = " and ".join(absent) if absent else "this kind"
            return _Raw(problem=f"there are no cells of {what}{_place(test)}", fills=True)
        if test.tuned:
            part = selection.tuned(part, test.value)
        if test.shape in ("agreement", "regret"):
            found = ranked(part, test)
            # A null of one's own is the smallest effect that matters: nothing is equivalent to it.
            return _Raw(found.effect, found.effect.p, found.p_equal, incomplete=found.incomplete)
        pairs, lost = differences(part, test.of, test.against, test.value, test.absolute, test.dose)
        if not len(pairs):
            what = (
                "both losses"
                if isinstance(test.of, str) and isinstance(test.against, str)
                else "all losses with a value"
            )
            return _Raw(problem=f"no block holds {what}{_place(test)}", incomplete=lost, fills=True)
        measured = effect(pairs, "slope" if test.shape == "slope" else "mean", null=test.null)
    except NotPaired as error:
        return _Raw(problem=str(error))
    except UserError as error:
        return _Raw(problem=str(error), fills=True)
    if test.shape == "each":
        labels = (
            part.drop_duplicates(["dataset", "recipe"])
            .set_index(["dataset", "recipe"])["data_label"]
            .to_dict()
        )
        return _each(test, pairs, lost, labels)
    found = stats.Estimate(measured.estimate, measured.se, measured.df)
    p_equal = float("nan") if test.null else stats.tost(found, test.margin)
    return _Raw(measured, measured.p, p_equal, stats.beyond(found, test.margin), lost)


def _place(test: Test) -> str:
    return (
        f" in {test.estimand.split('; ')[2]}"
        if test.part or test.where
        else f" on {' or '.join(test.data)}"
        if test.data
        else ""
    )


def _each(test: Test, pairs: pd.DataFrame, lost: int, labels: dict[tuple[str, str], str]) -> _Raw:
    """Return the data set furthest from equality; equal only if all are (intersection-union), beyond if one
    of them is (Bonferroni).
    """
    found = [
        (labels[place], effect(own))
        for place, own in pairs.groupby(["dataset", "recipe"], sort=True, observed=True)
    ]
    estimates = [stats.Estimate(own.estimate, own.se, own.df) for _, own in found]
    equal = [stats.tost(e, test.margin) for e in estimates]
    beyond = [stats.beyond(e, test.margin) for e in estimates]
    where, furthest = max(found, key=lambda item: abs(item[1].estimate))
    p_beyond = float(np.nanmin(beyond)) * len(found) if not np.all(np.isnan(beyond)) else float("nan")
    # One data set without an interval leaves "all are equal" open.
    return _Raw(furthest, furthest.p, float(np.max(equal)), min(p_beyond, 1.0), lost, where)


@dataclass(frozen=True)
class _Adjusted:
    p: float
    p_equal: float
    p_beyond: float


def _adjust(primary: list[Test], raw: dict[str, _Raw]) -> dict[str, _Adjusted]:
    columns = []
    for name in ("p", "p_equal", "p_beyond"):
        columns.append(stats.holm([getattr(raw[test.id], name) for test in primary]))
    return {
        test.id: _Adjusted(*map(float, row))
        for test, row in zip(primary, zip(*columns, strict=True), strict=True)
    }


def _judge(test: Test, raw: _Raw, own: _Adjusted | _Raw, experiment: str, parts: pd.DataFrame) -> Result:
    equality = test.expect == "equal"
    verdict, why, command = (
        _decide_equality(test, raw, own, experiment, parts)
        if equality
        else _decide_direction(test, raw, own, experiment, parts)
    )
    if raw.problem:
        command = fill(test, experiment, parts) if raw.fills else ""
        verdict, why = (
            "not testable",
            raw.problem[0].upper() + raw.problem[1:] + (f"; `{command}` trains them" if command else ""),
        )
    deciding = ("p_beyond" if verdict == "contradicted" else "p_equal") if equality else "p"
    return Result(
        test,
        verdict,
        why,
        raw.effect,
        p=getattr(raw, deciding),
        p_adjusted=getattr(own, deciding),
        incomplete=raw.incomplete,
        where=raw.where,
        command=command,
    )


def _decide_equality(
    test: Test, raw: _Raw, own: _Adjusted | _Raw, experiment: str, parts: pd.DataFrame
) -> tuple[str, str, str]:
    where = f" in {raw.where}" if raw.where else ""
    if own.p_equal < ALPHA:
        return "supported", "Equal within the margin" + (" in every data set" if where else ""), ""
    if own.p_beyond < ALPHA:
        return "contradicted", f"Shown to lie beyond the margin{where}", ""
    if np.isnan(own.p_beyond):
        command = more_seeds(test, experiment, raw.effect, ALPHA, parts) if raw.effect else ""
        return (
            "not testable",
            f"So few seeds show no spread, so nothing can be shown{where}; `{command}` trains more",
            command,
        )
    return (
        "inconclusive",
        "Neither equality nor a difference beyond the margin is shown"
        + (f"; furthest{where}" if where else ""),
        "",
    )


def _decide_direction(
    test: Test, raw: _Raw, own: _Adjusted | _Raw, experiment: str, parts: pd.DataFrame
) -> tuple[str, str, str]:
    if own.p_equal < ALPHA:
        return "equivalent", "Any difference is shown to be smaller than the smallest effect of interest", ""
    if own.p < ALPHA and not raw.effect.low <= test.null <= raw.effect.high:
        if (raw.effect.estimate > test.null) == (test.expect == "greater"):
            return (
                "supported",
                "The difference has the claimed direction"
                if not test.null
                else f"On the claimed side of {test.null:g}",
                "",
            )
        return (
            "contradicted",
            "The difference has the opposite direction"
            if not test.null
            else f"On the other side of {test.null:g}",
            "",
        )
    if raw.effect is not None and raw.effect.smallest_p >= ALPHA:
        command = more_seeds(test, experiment, raw.effect, ALPHA, parts)
        why = f"No outcome of so few blocks could bring p below {ALPHA:g}; `{command}` trains enough of them"
        return "not testable", why, command
    if own.p < ALPHA:
        return "inconclusive", "The blocks agree on the sign, but outlying ones leave its size open", ""
    if raw.p < ALPHA:
        return (
            "inconclusive",
            "Significant by itself, not after adjustment for the other tests of the family",
            "",
        )
    return "inconclusive", "Neither a difference nor its absence is shown", ""


def _combine(verdicts: list[str]) -> str:
    if "contradicted" in verdicts:
        return "contradicted"
    if all(verdict == "supported" for verdict in verdicts):
        return "supported"
    return next(name for name in ("not testable", "equivalent", "inconclusive") if name in verdicts)


# --- The command that trains what a test lacks: its experiment, losses that no part of it holds, or more
# seeds.


def fill(test: Test, experiment: str, parts: pd.DataFrame) -> str:
    """Return the command that trains the missing cells of a test."""
    # Of another experiment than the one that was swept here nothing is known, but that its file holds the
    # test.
    planned = {loss for losses in parts["losses"] for loss in json.loads(losses)}
    added = [name for name in test.losses if planned and name not in planned]
    return " ".join(["lossbench sweep", experiment, *(f"--loss {shlex.quote(name)}" for name in added)])


def more_seeds(test: Test, experiment: str, measured: Effect, alpha: float, parts: pd.DataFrame) -> str:
    """Return the command that trains enough seeds: the experiment as it is where it plans that many, else
    with more of them.
    """
    needed = _needed(test, measured, alpha)
    command = fill(test, experiment, parts)
    own = parts[parts["part"].isin(test.part)] if parts["part"].isin(test.part).any() else parts
    planned = min((len(json.loads(seeds)) for seeds in own["seeds"]), default=needed)
    return command if planned >= needed else f"{command} --seeds {needed}"


def _needed(test: Test, measured: Effect, alpha: float) -> int:
    """Return the seeds a data set that let the test reach ``alpha``; for sign flips, when it has as many
    pairs a seed as now.
    """
    if test.shape in ("agreement", "regret"):
        return resampling.FEWEST
    if test.expect == "equal":  # a spread needs two
        return 2
    pairs = 1 - np.log2(measured.smallest_p)
    seeds = measured.n_blocks / measured.n_datasets
    return int(np.ceil(resampling.blocks_needed(alpha) * seeds / pairs))
