"""The one rule by which a loss is called better than another: effects, leaderboards and advice all ask here.

Of two losses on one data set variant and score, the paired differences of their seeds are

- *equal* where the difference is shown to be smaller than anybody cares about (two one-sided tests, each
  below .05; the smallest effects of interest stand in ``lengths.INTEREST``);
- *better* or *worse* where the two-sided p is below .05 after Holm's adjustment, and more than that;
- *open* else: nothing is shown.

p is adjusted over all pairs of losses of the variant: so a pair has one p, whichever loss is asked about, and
a table of effects can never disagree with a leaderboard. Among equal losses any is called better in 5 % of
all experiments, however many there are. No outcome of five seeds reaches .05, so five seeds exclude nobody.

Seeds speak of other trainings on this split. On real images p is the larger one of theirs and of a t test
over test groups (``resampling``), which speaks of other images too, and so is that of equality; whatever is
adjusted is that p. With fewer than 8 test groups nothing can be said of other images: all pairs are open.

Sequential seeds: where an experiment has looks, at 10, 14 and 20 seeds say, a pair is decided at the first
look that can tell, and is not asked again. Every look has the same share of the 5 % (Bonferroni): p-values,
of differences as of equality, are multiplied by the number of looks, after Holm's adjustment over all pairs.
A pair that is rejected at one look leaves its room to the others at the next: by then every rejection was
right, or an error has been made already. Before the first look nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import flips, pairs, resampling
from lossbench.analysis.flips import ALPHA, Flips, Sided
from lossbench.analysis.lengths import INTEREST
from lossbench.analysis.pairs import Blocks
from lossbench.analysis.resampling import Both, ByGroup, NewData
from lossbench.analysis.selection import meeting
from lossbench.base import columns as known

BETTER, WORSE, EQUAL, OPEN = "better", "worse", "equal", "open"

FEW_GROUPS = f"fewer than {resampling.FEWEST} test groups"

OTHER_IMAGES = "other test images might say otherwise"


class Decision(NamedTuple):
    """What is shown of one loss against another."""

    verdict: str
    p_holm: float
    evidence: Flips | Both
    why: str = ""  # what keeps the pair open: test images
    on_these: str = OPEN  # what the seeds show of these test images, where ``why`` says something
    seeds: int = 0  # of the look at which it was decided, or of the last one
    looks: float = 1

    @property
    def over_seeds(self) -> Flips:
        """What the seeds alone show: of other trainings, on these test images."""
        return self.evidence.seeds if isinstance(self.evidence, Both) else self.evidence

    @property
    def images(self) -> NewData | None:
        """What other images and trainings would show; None for generated data, and of few test groups."""
        return self.evidence.images if isinstance(self.evidence, Both) else None

    @property
    def level(self) -> float:
        """The level of intervals that hold in 95 % of all studies at every look."""
        return 1 - ALPHA / self.looks

    def interval(self) -> tuple[float, float]:
        """Return the interval at that level; on real images the wider of seeds' and images' at either end."""
        return self.evidence.interval(self.level)


def margin(column: str) -> float:
    """Return the smallest difference of a score that matters; nan where nobody has named one."""
    return INTEREST.get(column.partition("@")[0].strip("|"), float("nan"))


def decide(
    evidence: Sided,
    estimate: float,
    p_holm: float,
    column: str,
    good: int,
    p_equal: float | None = None,
) -> str:
    """Return the verdict on a difference; ``good``: +1 where a larger value is better, -1, or 0 for neither.

    ``p_equal``: of two one-sided tests, where it is adjusted."""
    p_equal = evidence.equal(margin(column)) if p_equal is None else p_equal
    if p_equal < ALPHA:  # never true of nan
        return EQUAL
    if not p_holm < ALPHA or not good:
        return OPEN
    return BETTER if good * estimate > 0 else WORSE


# The seeds of each look: ((0, ..., 9), (0, ..., 13), (0, ..., 19)).
Looks = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Contest:
    """All losses of one data set variant, compared by one score.

    Of a sequential experiment it is one look, at ``seeds``; ``looks`` says how many share the 5 %,
    ``earlier`` is the look before."""

    blocks: Blocks
    column: str
    cells: pd.DataFrame | None = None  # needed with ``by_group``
    by_group: ByGroup | None = None
    seeds: Sequence[int] = ()  # () for all
    looks: float = 1
    earlier: Contest | None = None

    @cached_property
    def adjusted(self) -> np.ndarray:
        """Return the p-value of every pair, shape (losses, losses); nan where it is refused or has no
        seed.
        """
        return self._over_looks(self._square(self._p_values), "adjusted")

    @cached_property
    def equality(self) -> np.ndarray:
        """Return the p-value of every pair's equality in a sequential experiment."""
        small = margin(self.column)

        def equal(compared: Sequence[tuple[int, int]], differences: np.ndarray) -> list[float]:
            there = ~np.isnan(differences).all(axis=1)
            return [
                self.evidence(*pair)[0].equal(small) if held else math.nan
                for pair, held in zip(compared, there, strict=True)
            ]

        return self._over_looks(self._square(equal), "equality")

    def _p_values(self, compared: Sequence[tuple[int, int]], differences: np.ndarray) -> np.ndarray:
        p = flips.two_sided(differences)
        # Of seeds all pairs at once, and images only where there are any: a board compares hundreds.
        if self.by_group is not None:
            for n, pair in enumerate(compared):
                if not np.isnan(p[n]):
                    evidence, _ = self.evidence(*pair)
                    p[n] = max(p[n], evidence.images.p()) if isinstance(evidence, Both) else p[n]
        return p

    def _over_looks(self, p: np.ndarray, which: str) -> np.ndarray:
        """Return p-values adjusted over all pairs and looks; of a pair that was rejected, that of then."""
        before = getattr(self.earlier, which) if self.earlier else np.ones_like(p)
        rejected = before < ALPHA
        # Those come first in Holm's order, so that each makes the factor of the others smaller by one.
        now = self.looks * holm_over_pairs(np.where(rejected, 0.0, p))
        return np.where(rejected, before, np.minimum(1.0, now))

    def decide(self, of: str, against: str) -> Decision | None:
        """Return what is shown of one loss against another; None where they have no seed in common."""
        # A look at more seeds must not take back what an earlier one has decided, and spent its share of 5 %
        # on.
        before = self.earlier.decide(of, against) if self.earlier else None
        if before and before.verdict != OPEN:
            return before
        return self.look(of, against) or before

    def look(self, of: str, against: str) -> Decision | None:
        """Return what this look alone shows; None where one of the losses does not hold all of its seeds."""
        if (of, against) not in self._seen:
            self._seen[of, against] = self._look(of, against)
        return self._seen[of, against]

    def _look(self, of: str, against: str) -> Decision | None:
        a, b = self.blocks.arms.index(of), self.blocks.arms.index(against)
        p_holm = float(self.adjusted[a, b])
        # Without a difference it was decided at an earlier look, and not trained since.
        if np.isnan(p_holm) or np.isnan(self._difference(a, b)).all():
            return None
        evidence, few = self.evidence(a, b)
        # Elsewhere each pair's equality has its own 5 %, and not all of them need be computed.
        p_equal = self.equality[a, b] if self.looks > 1 else None
        verdict = decide(evidence, evidence.estimate, p_holm, self.column, self.good, p_equal)
        found = Decision(verdict, p_holm, evidence, seeds=len(self.seeds) or evidence.n, looks=self.looks)
        # The verdict of the seeds alone, with Bonferroni's adjustment, which is on the safe side.
        p_seeds = found.over_seeds.p() * self.looks * self.pairs
        on_these = decide(found.over_seeds, evidence.estimate, p_seeds, self.column, self.good)
        if few:
            return found._replace(verdict=OPEN, why=FEW_GROUPS, on_these=on_these)
        if verdict == OPEN and found.images and on_these != OPEN:
            return found._replace(why=OTHER_IMAGES, on_these=on_these)
        return found

    def evidence(self, a: int, b: int) -> tuple[Flips | Both, bool]:
        """Return what is known of a pair that has a seed, and whether there are too few test groups."""
        if (a, b) not in self._known:
            d = self._difference(a, b)
            # Only the seeds that are compared, so that the groups are of the same trainings.
            there = self.blocks.seeds[~np.isnan(d)]
            own, few = flips.flips(d[~np.isnan(d)]), False
            if self.by_group is not None:
                both = (self._cells_of[self.blocks.arms[place]] for place in (a, b))
                both = (cells[cells["seed"].isin(there)] for cells in both)
                own, few = resampling.with_images(own, *both, self.by_group, self.column)
            self._known[a, b] = own, few
        return self._known[a, b]

    @cached_property
    def _cells_of(self) -> dict[str, pd.DataFrame]:
        return dict(list(self.cells.groupby("loss", observed=True)))

    @cached_property
    def _known(self) -> dict[tuple[int, int], tuple[Flips | Both, bool]]:
        return {}

    @property
    def pairs(self) -> int:
        """The number of pairs of losses, over which p is adjusted."""
        return math.comb(len(self.blocks.arms), 2)

    @cached_property
    def _seen(self) -> dict[tuple[str, str], Decision | None]:
        return {}

    def best(self) -> set[str]:
        """Return the losses that no other is shown to beat (subset selection, Gupta 1965)."""
        return {loss for loss in self.blocks.arms if not self._beaten_by(loss)}

    def _beaten_by(self, loss: str) -> list[str]:
        own = self.adjusted[self.blocks.arms.index(loss)]
        # By p first: to decide takes longer.
        rivals = [other for other, p in zip(self.blocks.arms, own, strict=True) if p < ALPHA]
        return [other for other in rivals if self.decide(loss, other).verdict == WORSE]

    def dropped(self) -> set[str]:
        """Return the losses that a look showed to be worse than another by more than the smallest difference
        that matters, adjusted for looks and pairs (Bonferroni).
        """
        small, tests = margin(self.column), self.looks * self.pairs
        out = self.earlier.dropped() if self.earlier else set()
        for loss in self.blocks.arms:
            shown = [self.look(loss, other) for other in self._beaten_by(loss)]
            if any(own and own.evidence.beyond(small) * tests < ALPHA for own in shown):
                out.add(loss)
        return out

    def unsettled(self, choice: bool) -> set[str]:
        """Return the losses that are in a pair which is still open; ``choice`` counts no pair of a loss that
        is dropped.
        """
        dropped = self.dropped() if choice else set()
        left = [loss for loss in self.blocks.arms if loss not in dropped]
        found = {pair: self.decide(*pair) for pair in combinations(left, 2)}
        return {loss for pair, own in found.items() if own is None or own.verdict == OPEN for loss in pair}

    @property
    def good(self) -> int:
        """+1 where a larger value is better, -1 where a smaller one is, 0 where the best is in between."""
        if known.nearer_is_better(self.column):
            return 0
        return -1 if known.lower_is_better(self.column) else 1

    def _square(self, test: Callable[[Sequence[tuple[int, int]], np.ndarray], Sequence[float]]) -> np.ndarray:
        """Return a p-value for every pair of losses that are paired, from the pairs and their differences."""
        p = np.full((len(self.blocks.arms),) * 2, np.nan)
        compared = [(a, b) for a in range(len(p)) for b in range(a) if self._paired(a, b)]
        if compared:
            d = np.stack([self._difference(a, b) for a, b in compared])
            for (a, b), value in zip(compared, test(compared, d), strict=True):
                p[a, b] = p[b, a] = value
        return p

    def _difference(self, a: int, b: int) -> np.ndarray:
        """Return the differences of a pair over the seeds of this look; nan for others, and for all where one
        of these is missing.
        """
        blocks = self.blocks
        d = blocks.difference(blocks.arms[a], blocks.arms[b])[0]
        if not self.seeds:
            return d
        held = blocks.held[0][:, [a, b]].all(axis=1) & np.isin(blocks.seeds, self.seeds)
        return np.where(held & (held.sum() == len(self.seeds)), d, np.nan)

    def _paired(self, a: int, b: int) -> bool:
        return not self.blocks.refusal(self.blocks.arms[a], self.blocks.arms[b])


def holm_over_pairs(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values of a square of pairs, over all of them; nan where it cannot
    be compared, which counts as 1.
    """
    square, below = np.full_like(p, np.nan), np.tril_indices(len(p), -1)
    square[below] = square.T[below] = flips.holm(p[below])
    return square


def contest(
    part: pd.DataFrame,
    column: str,
    by_group: ByGroup | None = None,
    looks: Looks = (),
    taken: int | None = None,
) -> Contest:
    """Return the contest of the losses of one data set variant; of a sequential experiment that of its last
    look, or of as many looks as are ``taken``.
    """
    blocks = pairs.losses(part, [column])
    # Of two hundred columns these alone, since each pair of losses cuts them again.
    cells = part[["loss", "seed", "key"]] if by_group is not None else None
    if not looks:
        return Contest(blocks, column, cells, by_group)
    return over_looks(blocks, column, looks, taken, cells=cells, by_group=by_group)


def over_looks(blocks: Blocks, column: str, looks: Looks, taken: int | None = None, **rest: Any) -> Contest:
    """Return the last of some looks, with those before it."""
    # Before the first look no p-value is small enough.
    found = Contest(blocks, column, looks=math.inf, **rest)
    for seeds in looks[:taken]:
        found = Contest(blocks, column, seeds=tuple(seeds), looks=len(looks), earlier=found, **rest)
    return found


# What a sequential experiment has decided

SCORES = ("dice_all@0.5", "dice@0.5")  # the first that the cells hold decides

PAIR = ("dataset", "recipe", "data_label", "loss", "against", "verdict", "estimate", "seeds", "says")


def deciding(part: pd.DataFrame) -> str:
    """Return the score that decides on a data set variant: Dice over all images, empty ones included."""
    held = [name for name in SCORES if name in part and part[name].notna().any()]
    return held[0] if held else SCORES[-1]


def judged(cells: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the cells on which a sequential experiment decides: of each data set and recipe those of its
    longest training.
    """
    longest = meeting(cells, {}, "longest")
    for _, part in longest.groupby(["dataset", "recipe"], sort=False, observed=True):
        yield part


def unsettled(
    cells: pd.DataFrame, by_group: ByGroup | None, looks: Looks, choice: bool, taken: int
) -> dict[tuple[str, str], set[str]]:
    """Return the losses that need more seeds after so many looks, by data set and recipe."""
    found = {}
    for part in judged(cells):
        own = contest(part, deciding(part), by_group, looks, taken)
        found[part["dataset"].iloc[0], part["recipe"].iloc[0]] = own.unsettled(choice)
    return found


def decided(cells: pd.DataFrame, by_group: ByGroup | None, looks: Looks, choice: bool) -> pd.DataFrame:
    """Return one row a pair of losses: what is shown at the longest training, at how many seeds, in words."""
    rows = []
    for part in judged(cells):
        rows += _decided(part, contest(part, deciding(part), by_group, looks), len(looks[-1]), choice)
    return pd.DataFrame(rows, columns=list(PAIR))


def _decided(part: pd.DataFrame, found: Contest, most: int, choice: bool) -> list[dict]:
    labels = part.drop_duplicates("loss").set_index("loss")["loss_label"]
    facts = {name: part[name].iloc[0] for name in ("dataset", "recipe", "data_label")}
    dropped, rows = found.dropped() if choice else set(), []
    for pair in combinations(found.blocks.arms, 2):
        own = found.decide(*pair)
        if own is None:
            continue
        if own.verdict == WORSE or (own.verdict != BETTER and own.evidence.estimate < 0):
            pair = pair[::-1]  # the one with the higher score first
            own = found.decide(*pair)
        points, first, second = 100 * own.evidence.estimate, *(labels[loss] for loss in pair)
        at = f"at {own.seeds} of {most} seeds"
        without = next((labels[loss] for loss in pair if loss in dropped), "")
        says = {
            BETTER: f"decided {at}: {first} is {points:.1f} points above {second}",
            EQUAL: f"decided {at}: {first} and {second} are equal within a point",
            OPEN: f"open {at}: {first} and {second}" + (f"; {without} is out" if without else ""),
        }[own.verdict]
        numbers = {"verdict": own.verdict, "estimate": own.evidence.estimate, "seeds": own.seeds}
        rows.append({**facts, "loss": pair[0], "against": pair[1], **numbers, "says": says})
    return rows
