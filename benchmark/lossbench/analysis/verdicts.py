"""From claims and cells to verdicts: supported, contradicted, equivalent, inconclusive or not testable.

A directional test ("greater", "less") is

- equivalent if the effect is shown to lie within the margin: too small to matter, whatever its sign; never
  where the test has a null of its own, which already is the smallest effect that matters;
- supported if its two-sided p is below .05 and the effect lies on the claimed side of the null;
- contradicted if its two-sided p is below .05 and the effect lies on the other side;
- inconclusive otherwise. A large p is never "no difference".

An equality test is supported if the effect is shown to lie within the margin (shape "each": on every data set
variant), contradicted if it is shown to lie beyond it, else inconclusive. A test is not testable where cells
are missing, or where so few seeds could not bring its p below .05 whatever they show.

One p decides each test: of equality or of difference, whichever it shows. Holm adjusts these over the primary
tests of a family, also over those that could not be run; where equality does not stand the adjustment and a
difference with a smaller p is shown as well, that decides. On one set of real images both must also hold for
other test images. Tests that are not primary are exploratory: effect
and interval, no verdict. A claim is contradicted if one of its primary tests is, supported if all are; else
not testable, equivalent or inconclusive, in this order, if one of its tests is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lossbench.analysis import flips, lengths, selection
from lossbench.analysis.claims import Claim, Test
from lossbench.analysis.events import Events
from lossbench.analysis.evidence import Evidence, Measured, in_deviations, measure, seeds_needed
from lossbench.analysis.flips import ALPHA
from lossbench.analysis.pairs import CERTIFICATE, NotPaired
from lossbench.analysis.resampling import ByGroup
from lossbench.base import specs, words
from lossbench.base.columns import POINTS, form, spelled
from lossbench.base.errors import UserError, typed

VERDICTS = ("supported", "contradicted", "equivalent", "inconclusive", "not testable", "exploratory")

NO_PARTS = pd.DataFrame(columns=["experiment", "part", "losses", "seeds"])

NO_LOSSES = pd.DataFrame(columns=["loss", "weight", "name", "params"])

NAN = float("nan")


@dataclass(frozen=True)
class Result:
    """What the cells say about one test."""

    test: Test
    verdict: str
    why: str  # one sentence or two
    measured: Measured | None = None
    p: float = NAN  # of the deciding test, unadjusted
    p_adjusted: float = NAN  # nan for an exploratory test, which nothing is adjusted for
    mde: float = NAN  # minimum detectable effect with 80 % power, after Holm
    command: str = ""  # what fills the missing cells
    says: str = ""  # of what p is: "equal", "beyond", "differs"


@dataclass(frozen=True)
class Verdict:
    """What the records say about one claim."""

    claim: Claim
    verdict: str
    results: tuple[Result, ...] = ()


@dataclass(frozen=True)
class _Raw:
    """A test before it is adjusted: what it measured, or why it could not, and what it may say."""

    measured: Measured | None = None
    says: str = ""  # what it shows if its p holds: "equal", "beyond", "differs"
    p: float = NAN
    differs: float = NAN  # the p of a difference, where a directional test says "equal"
    smallest_p: float = 1.0
    problem: str = ""
    fills: bool = False  # more cells would solve the problem
    speed: str = ""  # what had not converged
    partly: str = ""  # which planned data sets are still missing
    beside: str = ""  # what a reader must know whatever the verdict: lengths, references, seeds to come


def evaluate(
    claims: Iterable[Claim],
    cells: pd.DataFrame,
    parts: pd.DataFrame = NO_PARTS,
    by_group: ByGroup | None = None,
    losses: pd.DataFrame = NO_LOSSES,
) -> tuple[Verdict, ...]:
    """Return the verdict on every claim.

    ``parts`` and ``losses`` are the tables of these names: what the experiment plans, for the commands that
    fill gaps; ``by_group`` is the table 'groups' by key, for what other test images would have shown."""
    claims = tuple(claims)
    # Once for all tests: to join the recipe of every cell into a text is slow.
    cells = cells.assign(trunk=lengths.trunks(cells)) if len(cells) else cells
    planned = {claim.id: parts[parts["experiment"] == claim.experiment] for claim in claims}
    raw = {
        test.id: _measured(test, _narrow(cells, test), planned[claim.id], by_group)
        for claim in claims
        for test in claim.tests
    }
    spellings = _spellings(cells, losses)
    results: dict[str, Result] = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        members = [claim for claim in claims if claim.family == family]
        primary = [test.id for claim in members for test in claim.tests if test.role == "primary"]
        adjusted = _adjusted(raw, primary)
        # What the family could reach at best decides whether it is testable, so that this never hangs on the
        # outcome.
        reach = dict(zip(primary, flips.holm([raw[name].smallest_p for name in primary]), strict=True))
        for claim in members:
            for test in claim.tests:
                commands = _Commands(test, claim.experiment, planned[claim.id], len(primary), spellings)
                results[test.id] = _judged(
                    test, raw[test.id], adjusted.get(test.id), reach.get(test.id), commands
                )
    return tuple(
        Verdict(
            claim,
            _combine([results[test.id].verdict for test in claim.tests if test.role == "primary"]),
            tuple(results[test.id] for test in claim.tests),
        )
        for claim in claims
    )


def _adjusted(raw: dict[str, _Raw], primary: list[str]) -> dict[str, float]:
    """Return Holm's adjusted p of each primary test; ``raw`` is changed where a test shows a difference after
    all.
    """
    found = dict(zip(primary, flips.holm([raw[name].p for name in primary]), strict=True))
    # Equality that is lost by the adjustment must not hide a difference that would stand it.
    back = [name for name in primary if found[name] >= ALPHA and raw[name].differs < raw[name].p]
    if not back:
        return found
    for name in back:
        raw[name] = replace(raw[name], says="differs", p=raw[name].differs)
    return dict(zip(primary, flips.holm([raw[name].p for name in primary]), strict=True))


def _spellings(cells: pd.DataFrame, losses: pd.DataFrame) -> dict[str, list[str]]:
    """Return loss -> its spec with every parameter written out, in one way or more."""
    # What was not trained yet the experiment's table knows; other names of a loss stand in the cells.
    written = {}
    for loss, terms in losses.groupby("loss", sort=False):
        rows = zip(terms["weight"], terms["name"], map(json.loads, terms["params"]), strict=True)
        written[loss] = [specs.render_sum(rows)]
    if "loss_spellings" in cells:
        known = cells.drop_duplicates("loss")
        for loss, texts in zip(known["loss"], known["loss_spellings"], strict=True):
            written[loss] = [*written.get(loss, []), *texts.split(" | ")]
    return written


def _narrow(cells: pd.DataFrame, test: Test) -> pd.DataFrame:
    """Return the columns that a test may ask for: a table of two hundred metrics is slow to choose from."""
    facts = ("key", "parts", "dataset", "dataset_name", "data_label", "recipe", "block", "seed", "trunk")
    facts += (selection.UNLEARNT, selection.UNMEASURED)
    facts += (
        "loss",
        "loss_label",
        "loss_spellings",
        *CERTIFICATE,
        "val_dice_all@0.5",
        "val_dice@0.5",
        "val_dice@val",
        "val_dice_best",
    )
    asked = [test.value] if isinstance(test.value, str) else list(test.value)
    asked += [*test.where, *(test.minus.where if test.minus else ()), *filter(None, (test.with_, test.dose))]
    asked = [spelled(name, cells) for name in asked]
    return cells[
        [name for name in cells if name in facts or name in asked or name.startswith(("data.", "recipe."))]
    ]


def _measured(test: Test, cells: pd.DataFrame, parts: pd.DataFrame, by_group: ByGroup | None) -> _Raw:
    try:
        found = measure(test, cells, by_group)
        partly = _partly(test, cells, parts)
        part = selection.select(cells, test)
        speed = lengths.sentence(lengths.unconverged(test, cells, part), test.against is not None)
        last = lengths.last_step_up(lengths.still_changing(test, cells, part))
        beside = _join(last, _unmeasured(test, part), _so_far(test, part, found, parts))
    # This is a UserError as well, but no further training mends it.
    except NotPaired as error:
        return _Raw(problem=str(error))
    except UserError as error:
        return _Raw(problem=str(error), fills=True)
    says, p = _deciding(test, found.evidence)
    smallest = _smallest_p(test, found.evidence)
    directional = says == "equal" and test.expect != "equal"
    differs = _p_of("differs", test, found.evidence) if directional else NAN
    return _Raw(found, says, p, differs, smallest, speed=speed, partly=partly, beside=beside)


def _partly(test: Test, cells: pd.DataFrame, parts: pd.DataFrame) -> str:
    """Return which of a test's data sets are planned and not trained yet, in a sentence."""
    absent, planned = selection.untrained(cells, test, parts)
    if not absent:
        return ""
    return f"{len(absent)} of {planned} planned data sets have no cells yet ({', '.join(absent)})"


def _unmeasured(test: Test, part: pd.DataFrame) -> str:
    """Return which of a test's data sets no reference exists for, in a sentence: they count as learnt."""
    if selection.UNMEASURED not in part or not selection.asks_who_is_learnt(test):
        return ""
    own = part[part[selection.UNMEASURED].astype(bool)]
    named = _named(own, test)
    # A label says after its first word how a data set was trained.
    names = sorted({str(label).partition(",")[0] for cells in named for label in cells["data_label"]})
    if not names:
        return ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"No reference says how much of {listed} can be learnt; taken as learnt"


def _named(part: pd.DataFrame, test: Test) -> list[pd.DataFrame]:
    """Return the cells of each loss that a test names; an agreement ranks all of them and names none."""
    return [selection.select_loss(part, loss) for loss in test.losses] or [part]


def _so_far(test: Test, part: pd.DataFrame, found: Measured, parts: pd.DataFrame) -> str:
    """Return how many of the planned seeds a test rests on, in a sentence, while some are still to come.

    A verdict that is read after each seed is wrong more often than one that is read at the end."""
    own = parts[parts["part"].isin(test.part)]
    planned = min((len(json.loads(seeds)) for seeds in own["seeds"]), default=0)
    if found.n_seeds >= planned:
        return ""
    # Seeds that are all trained and hold no value will not come.
    held = [own.groupby(["dataset", "recipe"], observed=True)["seed"].nunique() for own in _named(part, test)]
    trained = min((int(seeds.min()) for seeds in held if len(seeds)), default=0)
    return f"So far {found.n_seeds} of {planned} planned seeds" if trained < planned else ""


def _deciding(test: Test, evidence: Evidence) -> tuple[str, float]:
    """Return what a test shows if anything, and the p-value of that."""
    if test.expect == "equal":
        equal, beyond = evidence.equal(test.margin), evidence.beyond(test.margin)
        # At most one of them can be shown. Where neither is, the p of equality stands: it was asked for.
        return ("beyond", beyond) if beyond < ALPHA <= equal else ("equal", equal)
    if test.shape in ("mean", "slope", "trend") and not test.null:
        equal = evidence.equal(test.margin)
        if equal < ALPHA:
            return "equal", equal
    return "differs", _p_of("differs", test, evidence)


def _smallest_p(test: Test, evidence: Evidence) -> float:
    """Return the smallest p-value with which a test could show what it expects."""
    return evidence.smallest_equal(test.margin) if test.expect == "equal" else evidence.smallest_p


def _p_of(says: str, test: Test, evidence: Evidence) -> float:
    """Return the p-value of what a test says: that it is equal, beyond the margin, or that it differs."""
    if says == "differs":
        return evidence.p(null_of(test))
    return evidence.equal(test.margin) if says == "equal" else evidence.beyond(test.margin)


def null_of(test: Test) -> float:
    """Return the null of the numbers, one a seed, of a test."""
    # Those of an agreement are counted from its share of what noise allows.
    return 0.0 if test.shape == "agreement" else test.null


def _judged(
    test: Test, raw: _Raw, adjusted: float | None, reach: float | None, commands: _Commands
) -> Result:
    # Without numbers the reader gets the command that leads to them.
    if raw.problem:
        command = commands.fill() if raw.fills else ""
        why = raw.problem[0].upper() + raw.problem[1:] + (f"; `{command}` trains them" if command else "")
        return Result(test, "not testable" if test.role == "primary" else "exploratory", why, command=command)
    found = raw.measured
    if test.role != "primary":
        why = _join(raw.partly, _levels_say(test, found, raw.says, raw.p < ALPHA), raw.speed, raw.beside)
        return Result(test, "exploratory", why, found, raw.p, mde=_mde(test, found, 1), says=raw.says)
    mde = _mde(test, found, commands.family)
    # Which sets happen to be trained first must not decide about all of them.
    if raw.partly:
        command = commands.fill()
        why = _join(f"{raw.partly}; `{command}` trains them", raw.beside)
        return Result(test, "not testable", why, found, raw.p, adjusted, mde, command, raw.says)
    # "Inconclusive" would sound like evidence where none was possible.
    if reach >= ALPHA:
        command = commands.more_seeds()
        why = f"Exploratory: no outcome of {found.n_seeds} seeds could bring p below {ALPHA:g}"
        why += f" after adjustment for {commands.family} tests; `{command}` trains enough of them"
        why = _join(why, raw.beside)
        return Result(test, "not testable", why, found, raw.p, adjusted, mde, command, raw.says)
    verdict, why = _decided(test, raw, adjusted)
    return Result(test, verdict, _join(why, raw.beside), found, raw.p, adjusted, mde, says=raw.says)


def _decided(test: Test, raw: _Raw, adjusted: float) -> tuple[str, str]:
    """Return the verdict on a primary test that can be decided, and why."""
    found = raw.measured
    if adjusted >= ALPHA:
        if raw.p < ALPHA:
            return (
                "inconclusive",
                "Significant by itself, not after adjustment for the other tests of the family",
            )
        what = (
            "equality nor a difference beyond the margin"
            if test.expect == "equal"
            else "a difference nor its absence"
        )
        more = f"; furthest in {found.where}" if found.where else ""
        return "inconclusive", _join(f"Neither {what} is shown{more}", _taus_say(found))
    # What is shown holds for other trainings: on real data it must hold for other images too.
    unlike = _other_images(test, found, raw.says)
    if unlike:
        return "inconclusive", f"Holds for other trainings on this split, but {unlike}"
    hangs = _levels_say(test, found, raw.says, True)
    where = " in every data set" if found.where and raw.says == "equal" else ""
    if raw.says == "equal":
        verdict = "supported" if test.expect == "equal" else "equivalent"
        return verdict, _join(f"Shown to lie within the smallest effect of interest{where}", hangs)
    if raw.says == "beyond":
        where = f" in {found.where}" if found.where else ""
        return "contradicted", _join(f"Shown to lie beyond the margin{where}", hangs, raw.speed)
    null = null_of(test)
    side = 1 if found.evidence.estimate > null else -1
    claimed = (side > 0) == (test.expect == "greater")
    says = "claimed" if claimed else "opposite"
    why = f"The difference has the {says} direction"
    if test.null:
        bound = _effect(test, test.null) if form(test.estimand) == POINTS else f"{test.null:g}"
        why = f"On the {'claimed' if claimed else 'other'} side of {bound}"
    if found.agreement:
        why = f"{_taus_say(found)}: {'' if claimed else 'not '}as claimed"
    return "supported" if claimed else "contradicted", _join(why, hangs, raw.speed)


def _other_images(test: Test, found: Measured, says: str) -> str:
    """Return why what is shown for other trainings is not shown for other test images, or nothing."""
    if found.unseen:
        return f"nothing is known of other test images: {found.unseen}"
    if not found.images:
        return ""
    null = null_of(test)
    shown = {
        "equal": found.images.within(test.margin),
        "beyond": found.images.beyond(test.margin),
        "differs": found.images.side(null) == (1 if found.evidence.estimate > null else -1),
    }
    reach = _interval(test, found.images.low, found.images.high)
    return "" if shown[says] else f"not for other test images ({reach})"


def _taus_say(found: Measured) -> str:
    """Return the agreement of two rankings beside what it could be, or nothing."""
    if not found.agreement:
        return ""
    tau, ceiling = found.agreement
    single, alike = found.evidence.tau, found.evidence.tau_alike
    return (
        f"Tau is {tau:.2f} where noise allows {ceiling:.2f}; between single seeds it is {single:.2f}, and"
        f" {alike:.2f} if every pair of losses had the same order by both"
    )


def _levels_say(test: Test, found: Measured, says: str, decided: bool) -> str:
    """Return the sentence that names the level or data set on which sign, significance or equality hangs, or
    nothing.
    """
    if not decided:
        return ""
    null = null_of(test) if says == "differs" else 0.0
    side = np.sign(found.evidence.estimate - null)
    alone = []
    # A mean over levels can be the work of one: the rest must still show what the whole shows.
    for level in found.levels:
        rest = level.without
        if rest is None:
            continue
        p = _p_of(says, test, rest)
        # What is within the margin has no side that it must keep.
        if p >= ALPHA or (says != "equal" and np.sign(rest.estimate - null) != side):
            alone.append(f"{level.label} (without it {_effect(test, rest.estimate)}, p {words.p_value(p)})")
    it = "Equality within the margin" if says == "equal" else "It"
    on = f"each of {', '.join(alone)}" if len(alone) > 1 else "".join(alone)
    return _join(f"{it} hangs on {on}" if alone else "", _outside(test, found) if says == "equal" else "")


def _outside(test: Test, found: Measured) -> str:
    """Return the levels of a mean within the margin whose own interval is not, in a sentence, or nothing."""
    # A level of a slope is no slope, and where each data set is tested all of them are within.
    if test.shape not in ("mean", "trend") or len(found.levels) < 2:
        return ""
    beyond = []
    for level in found.levels:
        low, high = level.effect.interval()
        if not (-test.margin < low and high < test.margin):
            reach = f" {_interval(test, low, high)}" if np.isfinite(high - low) else ", too few seeds"
            beyond.append(f"{level.label} ({_effect(test, level.effect.estimate)}{reach})")
    return f"Not shown on its own: {'; '.join(beyond)}" if beyond else ""


def _effect(test: Test, value: float) -> str:
    """Return an effect as the row of the test writes it."""
    kind = form(test.estimand)
    return f"{words.level(words.effect(value, kind), test.null)} {words.unit(kind)}".strip()


def _interval(test: Test, low: float, high: float) -> str:
    return words.level(words.interval(low, high, form(test.estimand)), test.null)


def _join(*sentences: str) -> str:
    return ". ".join(text[0].upper() + text[1:] for text in sentences if text)


def _mde(test: Test, found: Measured, tests: int) -> float:
    """Return the smallest true effect that would be found with 80 % power, after Holm, or of a test of
    equality the smallest margin within which it would be; nan where unknown.
    """
    # The simulation of power is of sign flips over seeds, of numbers that scatter.
    if found.over_sets or isinstance(found.evidence, Events) or not np.isfinite(found.sd):
        return NAN
    effect = in_deviations(test, found, tests) * found.sd
    return effect if np.isfinite(effect) else NAN


def _combine(verdicts: list[str]) -> str:
    if "contradicted" in verdicts:
        return "contradicted"
    if all(verdict == "supported" for verdict in verdicts):
        return "supported"
    return next(name for name in ("not testable", "equivalent", "inconclusive") if name in verdicts)


@dataclass(frozen=True)
class _Commands:
    """The commands that train what a test misses: its experiment, losses that no part holds, more seeds."""

    test: Test
    experiment: str
    parts: pd.DataFrame  # those of the experiment; of another one than was swept here nothing is known
    family: int  # how many primary tests Holm adjusts over
    spellings: Mapping[str, list[str]]  # of losses with every parameter written out

    def fill(self) -> str:
        """Return the command that trains the missing cells."""
        planned = {loss for losses in self.parts["losses"] for loss in json.loads(losses)}
        # With no plan at hand the experiment is taken to hold them.
        added = [name for name in self.test.losses if planned and not self._holds(planned, name)]
        return typed("sweep", self.experiment, *(word for name in added for word in ("--loss", name)))

    def _holds(self, planned: set[str], name: str) -> bool:
        """Return whether a loss is planned, be it under another spelling."""
        return name in planned or any(
            specs.means(name, loss, self.spellings.get(loss, ())) for loss in planned
        )

    def more_seeds(self) -> str:
        """Return the command that trains enough seeds: the experiment itself where it plans that many."""
        needed = seeds_needed(self.test, self.family)
        own = self.parts[self.parts["part"].isin(self.test.part)]
        own = own if len(own) else self.parts
        planned = min((len(json.loads(seeds)) for seeds in own["seeds"]), default=0)
        return self.fill() if planned >= needed else f"{self.fill()} --seeds {needed}"


EFFECT = ("estimate", "low", "high", "smallest_p", "n_seeds", "n_variants", "n_sets")

BESIDE = (
    "tau",
    "predict_low",
    "predict_high",
    "images_low",
    "images_high",
    "n_groups",
    "agreement",
    "ceiling",
)


def verdict_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return one row a test, with the claim's own verdict in every row: the report's first table."""
    rows: list[dict[str, Any]] = []
    for verdict in verdicts:
        for result in verdict.results:
            test, found = result.test, result.measured
            rows.append(
                {
                    "claim": verdict.claim.id,
                    "title": verdict.claim.title,
                    "claim_verdict": verdict.verdict,
                    "test": test.id,
                    "role": test.role,
                    "says": test.says,
                    "estimand": test.estimand,
                    "verdict": result.verdict,
                    **numbers_of(found),
                    "mde": result.mde,
                    "p": result.p,
                    "p_adjusted": result.p_adjusted,
                    "margin": test.margin,
                    "null": test.null,
                    "incomplete": found.lost if found else 0,
                    "where": found.where if found else "",
                    "why": result.why,
                    "command": result.command,
                }
            )
    return pd.DataFrame(rows)


def numbers_of(found: Measured | None) -> Mapping[str, float]:
    """Return the numbers of a measured test as columns, nan where there are none."""
    row = dict.fromkeys((*EFFECT, *BESIDE), NAN)
    if found is None:
        return row
    evidence = found.evidence
    row["low"], row["high"] = evidence.interval()
    row |= {"estimate": evidence.estimate, "smallest_p": evidence.smallest_p}
    row |= {name: getattr(found, name) for name in ("n_seeds", "n_variants", "n_sets")}
    if found.over_sets:
        row["tau"] = found.over_sets.tau
        row["predict_low"], row["predict_high"] = found.over_sets.prediction()
    if found.images:
        row |= {
            "images_low": found.images.low,
            "images_high": found.images.high,
            "n_groups": found.images.n_groups,
        }
    if found.agreement:
        row |= {"agreement": found.agreement.tau, "ceiling": found.agreement.ceiling}
    return row


def level_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return one row a (test, data set variant): the effect of each level that a mean or slope is made of,
    and what is left without it; ``p_without`` answers the same question as the test's own p.
    """
    rows = []
    for verdict in verdicts:
        for result in verdict.results:
            for level in result.measured.levels if result.measured else ():
                low, high = level.effect.interval()
                own = {"claim": verdict.claim.id, "test": result.test.id, "level": level.label}
                own |= {
                    "estimate": level.effect.estimate,
                    "low": low,
                    "high": high,
                    "n_seeds": level.effect.n,
                }
                rest = level.without
                own |= {
                    "without": rest.estimate if rest else NAN,
                    "p_without": _p_of(result.says, result.test, rest) if rest else NAN,
                }
                rows.append(own)
    names = ["claim", "test", "level", "estimate", "low", "high", "n_seeds", "without", "p_without"]
    return pd.DataFrame(rows, columns=names)
