"""The answer to "which loss?": for each data set one loss, the reason, and the doubts, in sentences.

Everything that is said of two losses is a decision of ``decisions``; nothing else calls one better. The
score is Dice over all images, empty ones included, so that false alarms count; where no image is empty it is
Dice. A loss that collapsed at 0.5 but is sound at another threshold, or still rose, is undertrained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lossbench.analysis import decisions, flips, learnt, prior, resampling, selection
from lossbench.analysis.boards import score
from lossbench.analysis.decisions import BETTER, EQUAL, OPEN, WORSE, Contest, Decision, Looks
from lossbench.analysis.flips import ALPHA
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.seeds import numbers, rarest_first
from lossbench.analysis.selection import STEPS
from lossbench.base import words
from lossbench.base.errors import UserError

ALARMS = "false_alarms@0.5"

BOARD = ("dice@0.5", "dice_all@0.5", "dice_pooled@0.5", ALARMS, "hd95@0.5")

FEW_SETS = 2  # of so few data sets whole answers stand first, of more what holds over all of them

SOUND = 0.8  # share of the best loss's score, above which a collapsed loss only needs another threshold

MANY_ALARMS = 0.2  # share of empty images, from which false alarms are mentioned

# Of what cannot be told apart the simplest is as good as any.
PLAIN = ("ce", "dice_ce", "batch_dice", "dice")

SAME = "no difference that matters"

SPOKEN = {"dice_all@0.5": "Dice over all images", "dice@0.5": "Dice"}  # the scores that decide

LIBRARIES = {"monai": "MONAI", "smp": "SMP", "nnunet": "nnU-Net"}


@dataclass(frozen=True)
class Recommendation:
    """What to use on one data set variant.

    ``kind``: "use" (some loss is shown to be worse), "same" (all lie within a point), "open" (nothing is
    shown). ``says``: the recommendation with its reason; ``doubts``: sentences that limit it. ``rows``: one
    a loss, best first, with its means, what is shown of it, and whether it is undertrained.
    """

    dataset: str
    recipe: str
    label: str
    steps: float
    score: str
    loss: str
    loss_label: str
    kind: str
    says: str
    doubts: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    spelled: Mapping[str, str] = field(default_factory=dict)
    prior: str = ""  # what the study says of real data


def recommend(
    cells: pd.DataFrame,
    by_group: ByGroup | None = None,
    reached: pd.DataFrame | None = None,
    spellings: pd.DataFrame | None = None,
    looks: Looks = (),
) -> list[Recommendation]:
    """Return one recommendation a data set, the rarest foreground first, at its longest training; of several
    recipes the one that is best on validation. Needs two losses.

    reached: the table ``learnt``; spellings: rows (loss, library, code)."""
    if not len(cells) or STEPS not in cells:
        return []
    longest, lengths = selection.meeting(cells, {}, "longest"), learnt.converged(cells)
    found = []
    places = rarest_first(longest)
    for _, own in sorted(longest.groupby("dataset", observed=True), key=lambda item: places[item[0]]):
        several = [part for _, part in own.groupby("recipe", sort=True, observed=True)]
        variants = [
            _Variant(part, by_group, lengths, looks) for part in several if part["loss"].nunique() > 1
        ]
        variants = [variant for variant in variants if variant.order]
        if variants:
            # Who asks what to use on a data set wants one answer, with the recipe that gets furthest.
            found.append(_furthest(variants).recommendation(reached, spellings))
    return found


def _furthest(variants: list[_Variant]) -> _Variant:
    """Return the recipe whose best loss has the best mean on validation: the best of several test scores
    would promise more than it keeps.
    """
    cells = pd.concat([variant.part for variant in variants])
    try:
        score = selection.validation_score(cells, variants[0].column)
    except UserError:  # records without validation scores leave no choice
        return variants[0]
    # A mean over other seeds than its rivals' would let chance choose.
    shared = set.intersection(*(set(variant.part["seed"]) for variant in variants))
    own = cells[cells["seed"].isin(shared)] if shared else cells
    means = own.assign(value=numbers(own, score)).groupby(["recipe", "loss"], observed=True)["value"].mean()
    best = means.groupby("recipe").max().fillna(-math.inf)
    return max(variants, key=lambda variant: best.get(variant.recipe, -math.inf))


class _Variant:
    """The losses of one data set and recipe, with all that is shown of them."""

    def __init__(
        self, part: pd.DataFrame, by_group: ByGroup | None, lengths: pd.DataFrame, looks: Looks = ()
    ):
        self.part, self.by_group, self.looks = part, by_group, looks
        first = part.iloc[0]
        self.dataset, self.recipe = first["dataset"], first["recipe"]
        self.steps = float(first[STEPS])
        self.column = decisions.deciding(part)
        self.score = self.column.removesuffix("@0.5")
        values = part.assign(value=numbers(part, self.column)).groupby("loss", observed=True)["value"]
        self.means = values.mean().dropna().to_dict()
        self.order = sorted(self.means, key=lambda loss: (-self.means[loss], loss))
        self.labels = part.drop_duplicates("loss").set_index("loss")["loss_label"].to_dict()
        collapsed = part["outcome"] == "collapsed"
        self.collapsed = part[collapsed].groupby("loss", observed=True).size().to_dict()
        self.contest = self._contest(self.column) if self.order else None
        # How much each loss gained by the last step up in length, and from how many steps.
        own = lengths[(lengths["dataset"] == self.dataset) & (lengths["recipe_longer"] == self.recipe)]
        self.gains = own.set_index("loss")["change"].to_dict()
        self.shorter = float(own["steps"].max()) if len(own) else math.nan

    def _contest(self, column: str) -> Contest:
        return decisions.contest(self.part, column, self.by_group, self.looks)

    def chosen(self) -> str:
        """Return the loss to use: of those that no other beats the best mean, and of equals the plainest."""
        best = self.contest.best()
        kept = [loss for loss in self.order if loss in best and not self.collapsed.get(loss)]
        # Where each of them collapsed somewhere, one must still be named.
        kept = kept or [loss for loss in self.order if loss in best]
        # False alarms weigh among losses that the score cannot tell apart, never against the score.
        quiet = self._quiet(kept)
        first = quiet[0]
        # What is shown to lie within a point of the first may as well be the loss that everybody has.
        alike = [loss for loss in quiet[1:] if self._shown(first, loss) == EQUAL]
        plain = [name for name in PLAIN if name in (first, *alike)]
        return plain[0] if plain and len(alike) == len(self.order) - 1 else first

    def _quiet(self, losses: list[str]) -> list[str]:
        """Return the losses without those that are shown to mark more empty images than another of them."""
        if not numbers(self.part, ALARMS).notna().any():
            return losses
        alarms = self._contest(ALARMS)
        own = [loss for loss in losses if not any(_is(alarms, loss, other, WORSE) for other in losses)]
        return own or losses

    def _shown(self, of: str, against: str) -> str:
        found = self.contest.decide(of, against)
        return found.verdict if found else OPEN

    def undertrained(self, loss: str) -> str:
        """Return why a loss may not be judged yet: it rises still, or only its threshold is off; else
        nothing.
        """
        if self.gains.get(loss, 0.0) >= decisions.margin(self.column):
            return "still improving"
        tuned = f"{self.score}@val"
        if not self.collapsed.get(loss) or tuned not in self.part:
            return ""
        means = self.part.groupby("loss", observed=True)[tuned].mean()
        return "sound at another threshold" if means[loss] >= SOUND * means.max() else ""

    def recommendation(self, reached: pd.DataFrame | None, spellings: pd.DataFrame | None) -> Recommendation:
        """Return the loss to use with all sentences."""
        use = self.chosen()
        others = [loss for loss in self.order if loss != use]
        found = {loss: self.contest.decide(use, loss) for loss in others}
        found = {loss: own for loss, own in found.items() if own}
        kind = self._kind(found)
        code = {}
        if spellings is not None and len(spellings):
            own = spellings[spellings["loss"] == use]
            code = dict(zip(own["library"], own["code"], strict=True))
        return Recommendation(
            dataset=self.dataset,
            recipe=self.recipe,
            label=self.part["data_label"].iloc[0],
            steps=self.steps,
            score=self.column,
            loss=use,
            loss_label=self.labels[use],
            kind=kind,
            says=self._says(use, kind, found),
            doubts=tuple(self._doubts(use, found, reached)),
            rows=tuple(self._row(loss, use, found) for loss in self.order),
            spelled=code,
            prior=prior.prior(self.column),
        )

    def _kind(self, found: Mapping[str, Decision]) -> str:
        if any(own.verdict == BETTER for own in found.values()):
            return "use"
        # All of them, not only each with the first: a chain of equals may span more than a point.
        pairs = [(a, b) for n, a in enumerate(self.order) for b in self.order[:n]]
        return "same" if all(self._shown(a, b) == EQUAL for a, b in pairs) else "open"

    def _says(self, use: str, kind: str, found: Mapping[str, Decision]) -> str:
        """Return the recommendation with its reason."""
        name, score = self.labels[use], SPOKEN[self.column]
        if kind == "same":
            within = f"all {len(self.order)} losses lie within a point"
            return f"By {score} there is {SAME}: {within}. {name} will do."
        lower = [f"{self.labels[loss]} is {_lower(own)}" for loss, own in found.items()
                 if own.verdict == BETTER]  # fmt: skip
        equal = [self.labels[loss] for loss, own in found.items() if own.verdict == EQUAL]
        unsure = [self.labels[loss] for loss, own in found.items() if own.verdict in (OPEN, WORSE)]
        clauses = [*lower]
        clauses += [f"{_and(equal)} {_be(equal)} equal within a point"] if equal else []
        clauses += [f"{_and(unsure)} cannot be told apart"] if unsure else []
        if kind == "use":
            return f"By {score} use {name}: {'; '.join(clauses)}."
        loss = max(found, key=lambda loss: abs(found[loss].evidence.estimate))
        gap = f"{_signed(found[loss].evidence.estimate)} points {_interval(found[loss])}"
        widest = f"the largest difference is {name} minus {self.labels[loss]}, {gap}{_unless(found[loss])}"
        unknown = f"By {score} one cannot tell: no loss is shown to be better; {widest}."
        return f"{unknown} For now use {name}, which has the best mean so far."

    def _doubts(self, use: str, found: Mapping[str, Decision], reached: pd.DataFrame | None) -> Iterable[str]:
        """Yield what limits the recommendation, what weighs most first."""
        yield from self._about_length(found, reached)
        yield from self._about_seeds()
        yield from self._about_images(found)
        yield from self._about_threshold(use, found)
        yield from self._about_alarms(use)
        for loss, count in sorted(self.collapsed.items()):
            runs = int((self.part["loss"] == loss).sum())
            why = self.undertrained(loss)
            rest = f": undertrained ({why}), not ruled out" if why else ""
            yield f"{self.labels[loss]} collapsed in {count} of {runs} trainings{rest}."

    def _about_length(self, found: Mapping[str, Decision], reached: pd.DataFrame | None) -> Iterable[str]:
        rising = [loss for loss in self.order if self.undertrained(loss) == "still improving"]
        at = f"{self.steps:,.0f} steps"
        if rising:
            names = _and([self.labels[loss] for loss in rising])
            gains = _and([_signed(self.gains[loss]) for loss in rising])
            since = f"{gains} points since {self.shorter:,.0f}"
            more = "train longer before you conclude"
            yield f"{names} {_was(rising)} still improving at {at} ({since}): {more}."
        elif not self.gains:
            yield f"Only {at} were trained: whether the order holds when trained longer is not known."
        if reached is not None and len(reached):
            own = reached[(reached["dataset"] == self.dataset) & (reached["recipe"] == self.recipe)]
            yield from (f"{row.says}." for row in own.itertuples() if row.learnt == 0)

    def _about_seeds(self) -> Iterable[str]:
        seeds, tests = self.part["seed"].nunique(), self.contest.pairs * max(1, len(self.looks))
        if self.looks and seeds < len(self.looks[0]):
            yield f"{seeds} seeds are trained; the first look is at {len(self.looks[0])}."
        # Holm's first step, which the smallest p of all must pass.
        smallest = flips.smallest_p(seeds) * tests
        if smallest >= ALPHA:
            needed = flips.seeds_needed(tests)
            reach = f"the smallest p is {min(smallest, 1):.2g} after adjustment"
            own = "one seed" if seeds == 1 else f"{seeds} seeds"
            yield f"With {own} nothing can be shown ({reach}): train {needed} or more."

    def _about_images(self, found: Mapping[str, Decision]) -> Iterable[str]:
        def shown(why: str, verdict: str) -> list[str]:
            own = {loss: each for loss, each in found.items() if each.why == why and each.on_these == verdict}
            return [self.labels[loss] for loss in own]

        if any(own.why == decisions.FEW_GROUPS for own in found.values()):
            count = self.by_group.count(self.part["key"].iloc[:1], self.column)
            groups = f"{count} group{'s' * (count != 1)} of images"
            rest = f"with fewer than {resampling.FEWEST} nothing can be said of other images"
            here = shown(decisions.FEW_GROUPS, BETTER)
            on_these = f" (on these {_and(here)} {_be(here)} lower)" if here else ""
            yield f"The test part has {groups}; {rest}{on_these}."
        unsure = shown(decisions.OTHER_IMAGES, BETTER)
        if unsure:
            yield f"{_and(unsure)} {_be(unsure)} lower on these test images; others may say otherwise."
        near = shown(decisions.OTHER_IMAGES, EQUAL)
        if near:
            yield f"{_and(near)} {_be(near)} within a point on these test images; others may say otherwise."

    def _about_threshold(self, use: str, found: Mapping[str, Decision]) -> Iterable[str]:
        tuned = f"{self.score}@val"
        beaten = [loss for loss, own in found.items() if own.verdict == BETTER]
        if not beaten or not numbers(self.part, tuned).notna().any():
            return
        contest = self._contest(tuned)
        # A loss that loses at 0.5 alone may be as good a loss with another threshold.
        for loss in beaten:
            there = contest.decide(use, loss)
            if there and there.verdict != BETTER:
                gap = f"{_signed(-there.evidence.estimate)} points {_interval(there, -1)}"
                yield _at_own_threshold(self.labels[loss], there.verdict, gap)

    def _about_alarms(self, use: str) -> Iterable[str]:
        alarms = self.part.assign(value=numbers(self.part, ALARMS)).groupby("loss")["value"].mean().dropna()
        if use in alarms and alarms[use] >= MANY_ALARMS:
            least = alarms.idxmin()
            rest = f"; {self.labels[least]} on {words.share(alarms[least])}" if least != use else ""
            marked = f"{words.share(alarms[use])} of the images without foreground"
            yield f"{self.labels[use]} marks something on {marked}{rest}."

    def _row(self, loss: str, use: str, found: Mapping[str, Decision]) -> dict[str, Any]:
        """Return a row of the leaderboard, best first."""
        own = self.part[self.part["loss"] == loss]
        values = numbers(own, self.column).dropna().to_numpy()
        row = {"loss": loss, "label": self.labels[loss], **score(values, self.column)}
        row |= {name: float(numbers(own, name).mean()) for name in BOARD if name in own}
        decided = found.get(loss)
        shown = "use" if loss == use else decided.verdict if decided else OPEN
        # What is shown is shown of the loss to use; here it is said of the other.
        row["shown"] = {BETTER: "lower", EQUAL: "equal", OPEN: "cannot tell", WORSE: "cannot tell"}.get(
            shown, shown
        )
        row["undertrained"] = self.undertrained(loss)
        row["collapsed"] = int(self.collapsed.get(loss, 0))
        return row


TABLE = ("dataset", "recipe", "data_label", "loss", "loss_label", "kind", "score", "says", "doubts")


def as_table(found: Iterable[Recommendation]) -> pd.DataFrame:
    """Return one row a data set: what was recommended, in the words that were printed."""
    rows = [
        {
            **{name: getattr(own, name, None) for name in TABLE},
            "data_label": own.label,
            "doubts": " ".join(own.doubts),
        }
        for own in found
    ]
    return pd.DataFrame(rows, columns=list(TABLE))


def as_text(own: Recommendation) -> list[str]:
    """Return the lines that a sweep ends with: leaderboard, recommendation, doubts, spelling."""
    # A loss that failed on some seeds does not make the board smaller.
    seeds = max(row["n"] for row in own.rows)
    title = f"{own.label}, {own.steps:,.0f} steps, {seeds} seeds; points, with the 95 % interval over seeds"
    heads = ["loss", "Dice", "all images", "pooled", "false alarms", "HD95", "", ""]
    table = [heads, *(_cells(row, own.score) for row in own.rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(heads))]
    lines = [title]
    for row in table:
        first, *rest = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(["", first, *rest]).rstrip())
    lines += ["", own.says, *(f"  But: {text}" for text in own.doubts)]
    lines += [f"  {own.prior}"] if own.prior else []
    lines += [f"  In {LIBRARIES[name]}: {code}" for name, code in own.spelled.items() if name in LIBRARIES]
    return [*lines, ""]


def _cells(row: Mapping[str, Any], column: str) -> list[str]:
    def points(name: str) -> str:
        value = row.get(name, math.nan)
        # The score that decides carries its interval.
        if name == column and not math.isnan(row["low"]):
            return f"{_points(value)} [{_points(row['low'])}, {_points(row['high'])}]"
        return "-" if math.isnan(value) else _points(value)

    alarms, distance = row.get(ALARMS, math.nan), row.get("hd95@0.5", math.nan)
    return [
        row["label"],
        *(points(name) for name in BOARD[:3]),
        "-" if math.isnan(alarms) else words.share(alarms),
        "-" if math.isnan(distance) else f"{distance:.1f}",
        row["shown"],
        "undertrained" if row["undertrained"] else "",
    ]


def _is(contest: Contest, of: str, against: str, verdict: str) -> bool:
    found = contest.decide(of, against) if of != against else None
    return found is not None and found.verdict == verdict


def _at_own_threshold(name: str, verdict: str, gap: str) -> str:
    if verdict == EQUAL:
        return f"At its own threshold {name} is as good ({gap}): the threshold differs."
    if verdict == WORSE:
        return f"At its own threshold {name} is better ({gap})."
    return f"{name} cannot be told apart at the threshold from validation ({gap})."


def _lower(own: Decision) -> str:
    low, high = own.interval()
    return f"{_points(own.evidence.estimate)} points lower [{_points(low)}, {_points(high)}]"


def _unless(own: Decision) -> str:
    """Return why a difference is not shown although its interval leaves out zero, or nothing."""
    low, high = own.interval()
    if own.verdict != OPEN or low <= 0 <= high:
        return ""
    if own.why == decisions.FEW_GROUPS:
        return f", but with {own.why} nothing can be said of other images"
    return ", but it is not shown once p is adjusted over all pairs of losses"


def _interval(own: Decision, sign: int = 1) -> str:
    low, high = sorted(sign * end for end in own.interval())
    return "[too few seeds for an interval]" if math.isinf(low) else f"[{_signed(low)}, {_signed(high)}]"


def _points(value: float) -> str:
    return _signed(value).removeprefix("+")


def _signed(value: float) -> str:
    return words.signed(100 * value, 1)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _be(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
