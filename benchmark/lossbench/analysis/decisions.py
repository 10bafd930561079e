"""The one rule by which a loss is called better than another: effects, leaderboards and advice all ask here.

Of two losses on one data set variant and score, the paired differences of their seeds are

- *equal* where the difference is shown to be smaller than anybody cares about (two one-sided tests, each
  below .05; the smallest effects of interest stand in ``lengths.INTEREST``);
- *better* or *worse* where the two-sided p is below .05 after Holm's adjustment, and more than that;
- *open* else: nothing is shown.

p is adjusted over the comparisons of either loss with all others, and the larger of both counts: so a pair
has one p, whichever loss is asked about, and a table of effects can never disagree with a leaderboard. No
outcome of five seeds reaches .05, so five seeds exclude nobody.

Seeds speak of other trainings on this split. On real images a second interval must agree, that of other test
images (``groups``); with fewer than 8 test groups there is none, and nothing is better or worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import flips, pairs, resampling
from lossbench.analysis.flips import ALPHA, Flips, Sided
from lossbench.analysis.lengths import INTEREST
from lossbench.analysis.pairs import Blocks
from lossbench.analysis.resampling import ByGroup, Images
from lossbench.base import columns as known

BETTER, WORSE, EQUAL, OPEN = "better", "worse", "equal", "open"

FEW_GROUPS = f"fewer than {resampling.FEWEST} test groups"

OTHER_IMAGES = "other test images might say otherwise"


class Decision(NamedTuple):
    """What is shown of one loss against another."""

    verdict: str
    p_holm: float
    evidence: Flips
    images: Images | None = None
    why: str = ""  # what keeps the pair open although p is small


def margin(column: str) -> float:
    """Return the smallest difference of a score that matters; nan where nobody has named one."""
    return INTEREST.get(column.partition("@")[0].strip("|"), float("nan"))


def decide(
    evidence: Sided,
    estimate: float,
    p_holm: float,
    column: str,
    good: int,
    images: Images | None = None,
) -> str:
    """Return the verdict on a difference; ``good``: +1 where a larger value is better, -1, or 0 for neither.

    ``images`` is asked as well where it is given: both must lie on one side, or within the margin."""
    small = margin(column)
    within = images is None or (-small < images.low and images.high < small)
    if evidence.equal(small) < ALPHA and within:  # never true of nan
        return EQUAL
    agrees = images is None or images.side(0.0) == np.sign(estimate)
    if not p_holm < ALPHA or not agrees or not good:
        return OPEN
    return BETTER if good * estimate > 0 else WORSE


@dataclass(frozen=True)
class Contest:
    """All losses of one data set variant, compared by one score."""

    blocks: Blocks
    column: str
    cells: pd.DataFrame
    by_group: ByGroup | None = None

    @cached_property
    def adjusted(self) -> np.ndarray:
        """Return the p-value of every pair, shape (losses, losses); nan where it is refused or has no
        seed.
        """
        losses = self.blocks.arms
        p = np.full((len(losses), len(losses)), np.nan)
        compared = [(a, b) for a in range(len(losses)) for b in range(a) if self._paired(a, b)]
        if compared:
            d = np.stack([self.blocks.difference(losses[a], losses[b])[0] for a, b in compared])
            for (a, b), value in zip(compared, flips.two_sided(d), strict=True):
                p[a, b] = p[b, a] = value
        own = np.array([flips.holm(np.delete(row, place)) for place, row in enumerate(p)])
        # Back to a square: the diagonal compares nothing.
        square = np.full_like(p, np.nan)
        square[~np.eye(len(losses), dtype=bool)] = own.ravel()
        return np.fmax(square, square.T)

    def decide(self, of: str, against: str) -> Decision | None:
        """Return what is shown of one loss against another; None where they have no seed in common."""
        a, b = self.blocks.arms.index(of), self.blocks.arms.index(against)
        p_holm = float(self.adjusted[a, b])
        if np.isnan(p_holm):
            return None
        d = self.blocks.difference(of, against)[0]
        evidence = flips.flips(d[~np.isnan(d)])
        images, few = self._images(of, against)
        verdict = decide(evidence, evidence.estimate, p_holm, self.column, self.good, images)
        if few and verdict in (BETTER, WORSE):
            return Decision(OPEN, p_holm, evidence, images, FEW_GROUPS)
        why = OTHER_IMAGES if verdict == OPEN and p_holm < ALPHA and images is not None else ""
        return Decision(verdict, p_holm, evidence, images, why)

    def best(self) -> set[str]:
        """Return the losses that no other is shown to beat (subset selection, Gupta 1965)."""
        losses, kept = self.blocks.arms, set()
        for b, loss in enumerate(losses):
            rivals = [other for a, other in enumerate(losses) if self.adjusted[a, b] < ALPHA]
            if not any(self.decide(loss, other).verdict == WORSE for other in rivals):
                kept.add(loss)
        return kept

    @property
    def good(self) -> int:
        """+1 where a larger value is better, -1 where a smaller one is, 0 where the best is in between."""
        if known.nearer_is_better(self.column):
            return 0
        return -1 if known.lower_is_better(self.column) else 1

    def _paired(self, a: int, b: int) -> bool:
        return not self.blocks.refusal(self.blocks.arms[a], self.blocks.arms[b])

    def _images(self, of: str, against: str) -> tuple[Images | None, bool]:
        """Return the interval over test images, and whether there are too few of them for one."""
        if self.by_group is None:
            return None, False
        ours, theirs = (self.cells[self.cells["loss"] == loss] for loss in (of, against))
        images = resampling.on_other_images(ours, theirs, self.by_group, self.column, absolute=False)
        count = self.by_group.count(ours["key"], self.column)
        return images, 0 < count < resampling.FEWEST


def contest(part: pd.DataFrame, column: str, by_group: ByGroup | None = None) -> Contest:
    """Return the contest of the losses of one data set variant."""
    return Contest(pairs.losses(part, [column]), column, part, by_group)
