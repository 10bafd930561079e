"""Other test images: what the effect on one real data set would be with other patients or pictures.

Seeds say how trainings differ on this split. Which images the split holds is chance as well; so a second
interval stands beside the first. A generator has no such limit: it makes as many test images as one likes.

A claim has the interval from drawing test groups anew (``on_other_images``). A decision has a t test
(``NewData``), since with eight groups that interval covers 88 % in place of 95, and has no p to adjust. The
t test is of other images *and* other trainings: of two losses that are equal, the trainings at hand may
differ on all images and the images at hand in all trainings, both by chance, and a test of either alone takes
the sum of the two for an effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from lossbench.analysis import flips
from lossbench.analysis.flips import Flips, Sided
from lossbench.analysis.pairs import Value
from lossbench.base.columns import COLUMNS, FEWEST_GROUPS, SCORES, spelled

FEWEST = FEWEST_GROUPS

DRAWS = 2000

# What is scored on test images; how a training went is not.
ON_IMAGES = {column.name for column in SCORES} | {name for name in COLUMNS if name.startswith("dice_")}


@dataclass(frozen=True)
class Images:
    """The 95 % bootstrap interval over test groups of an effect, its variance, and how many groups there
    are.
    """

    low: float
    high: float
    variance: float
    n_groups: int

    def side(self, null: float) -> int:
        """Return +1 or -1 where the interval lies above or below ``null``, else 0."""
        return int(self.low > null) - int(self.high < null)

    def within(self, margin: float) -> bool:
        """Return whether the interval lies between -margin and margin."""
        return -margin < self.low and self.high < margin

    def beyond(self, margin: float) -> bool:
        """Return whether it lies outside of them."""
        return self.low > margin or self.high < -margin


@dataclass(frozen=True)
class NewData(Sided):
    """The t test of an effect on one real data set, for other test groups and other trainings at once.

    The variances are those of the mean over groups and of the mean over seeds; the noise of one training on
    one image is in both, which errs on the safe side. Degrees of freedom as Satterthwaite (1946) has them,
    where groups of unequal weight count as ``n_equal`` of equal weight (Kish 1965)."""

    estimate: float
    of_groups: float
    of_seeds: float
    n_groups: int
    n_equal: float
    n_seeds: int

    def above(self, null: float = 0.0) -> float:
        return self._tail(null - self.estimate)

    def below(self, null: float = 0.0) -> float:
        return self._tail(self.estimate - null)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the t interval; unbounded where one seed or one group is all there is."""
        if self.df <= 0:
            return -np.inf, np.inf
        half = float(stdtrit(self.df, 0.5 + level / 2)) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def se(self) -> float:
        """The standard error of the effect."""
        return float(np.sqrt(self.of_groups + self.of_seeds))

    @property
    def df(self) -> float:
        """The degrees of freedom, at least the smaller of groups - 1 and seeds - 1; 0 where nothing is known
        of one of them.
        """
        groups, seeds = self.n_equal - 1, self.n_seeds - 1
        total = self.of_groups + self.of_seeds
        if min(groups, seeds) <= 0 or not np.isfinite(total):
            return 0.0
        share = self.of_groups / total if total > 0 else 1.0
        return 1 / (share**2 / groups + (1 - share) ** 2 / seeds)

    @property
    def smallest_p(self) -> float:
        """A t test has no floor."""
        return 0.0

    def _tail(self, below: float) -> float:
        if self.df <= 0:
            return 1.0
        if self.se == 0:
            return 0.0 if below < 0 else 1.0
        return float(stdtr(self.df, below / self.se))


@dataclass(frozen=True)
class Both(flips.Both):
    """What must hold for other trainings on this split, and on other images as well: of two one-sided
    p-values the larger (intersection-union, Berger 1982). All nulls that one of both keeps are its interval.
    """

    first: Flips
    second: NewData

    @property
    def seeds(self) -> Flips:
        return self.first

    @property
    def images(self) -> NewData:
        return self.second

    def beyond(self, margin: float) -> float:
        # Both must show it at the same end.
        return Sided.beyond(self, margin)


class ByGroup:
    """The table 'groups' by cell: for each (cell, group, class) the mean of every score over the images of
    the group that count for it, and how many do.
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table
        # The rows of a cell must lie together, as they are written: of two stretches only the last would be
        # found.
        starts = np.flatnonzero(np.r_[True, table["key"].to_numpy()[1:] != table["key"].to_numpy()[:-1]])
        ends = np.r_[starts[1:], len(table)]
        keys = table["key"].to_numpy()[starts]
        self.rows = {key: range(*ends_of) for key, *ends_of in zip(keys, starts, ends, strict=True)}
        self.group, _ = pd.factorize(table["group"])
        self.kind, _ = pd.factorize(table["class"])
        self._found: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    def means(self, keys: pd.Series, columns: dict[str, float]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return value and number of images by (group, class), mean over these cells; None if one is
        missing.
        """
        columns = {spelled(name, self.table): weight for name, weight in columns.items()}
        if not len(keys) or not set(keys) <= self.rows.keys() or not set(columns) <= set(self.table):
            return None
        # Each loss is compared with all others.
        asked = (tuple(keys), tuple(columns.items()))
        if asked not in self._found:
            self._found[asked] = self._means(keys, columns)
        return self._found[asked]

    def _means(self, keys: pd.Series, columns: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        at = np.concatenate([self.rows[key] for key in keys])
        shape = (self.group.max() + 1, self.kind.max() + 1)
        place = self.group[at] * shape[1] + self.kind[at]
        value = sum(w * self.table[column].to_numpy(float)[at] for column, w in columns.items())
        # A weighted sum of scores holds for the images that count for all of them.
        count = np.min([self.table[f"n {column}"].to_numpy(float)[at] for column in columns], axis=0)
        there = ~np.isnan(value)
        cells = np.bincount(place[there], minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore"):
            means = [np.bincount(place[there], w[there], len(cells)) / cells for w in (value, count)]
        value, count = (own.reshape(shape) for own in means)
        return value, count

    def count(self, keys: pd.Series, column: str) -> int:
        """Return how many groups hold a value of a score in these cells; 0 for generated data, and for
        scores that are no means over images.
        """
        found = self.means(keys, {column: 1.0})
        return 0 if found is None else int((~np.isnan(found[0])).any(axis=1).sum())


def on_other_images(
    of: pd.DataFrame, against: pd.DataFrame | None, by_group: ByGroup | None, value: Value, absolute: bool
) -> Images | None:
    """Return the interval over test groups of the seed-mean difference of the cells of one data set.

    None for generated data, where a score is no mean over images, or with fewer than ``FEWEST`` groups."""
    # The absolute value of a mean is no mean over images, so drawing images says nothing of it.
    found = None if absolute else by_groups(of, against, by_group, value)
    if found is None or len(found[0]) < FEWEST:
        return None
    drawn = redrawn(*found)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Images(float(low), float(high), float(drawn.var(ddof=1)), len(found[0]))


def by_groups(
    of: pd.DataFrame, against: pd.DataFrame | None, by_group: ByGroup | None, value: Value
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the seed-mean difference of every test group and the number of its images, both (groups,
    classes); None for generated data, and where a score is no mean over images.
    """
    if by_group is None:
        return None
    columns = {value: 1.0} if isinstance(value, str) else dict(value)
    # Only seeds of both, so that the groups are of the same pairs as the effect.
    seeds = set(of["seed"]) if against is None else set(of["seed"]) & set(against["seed"])
    ours = by_group.means(of.loc[of["seed"].isin(seeds), "key"], columns)
    if ours is None:
        return None
    total, weight = ours
    if against is not None:
        theirs = by_group.means(against.loc[against["seed"].isin(seeds), "key"], columns)
        if theirs is None:
            return None
        total = total - theirs[0]
    # A group without the class says nothing of it.
    there = ~np.isnan(total).all(axis=1)
    return total[there], weight[there]


def left_out(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the variance of the mean difference of a data set, from leaving out one test group at a time
    (jackknife).

    values, weights: as in ``redrawn``. With groups of one size it is the squared standard error of a t test;
    a group of many images, without which the mean would be another one, makes it larger."""
    groups = len(values)
    weights = np.where(np.isnan(values), 0.0, np.nan_to_num(weights))
    sums = np.nan_to_num(values) * weights
    rest = weights.sum(axis=0) - weights
    # A class of which one group holds all images is left out with it.
    held = rest > 1e-9 * np.maximum(weights.sum(axis=0), 1e-300)
    by_class = np.where(held, sums.sum(axis=0) - sums, np.nan) / np.where(held, rest, 1.0)
    means = np.nanmean(by_class[held.any(axis=1)], axis=1)
    return float((groups - 1) * means.var()) if len(means) == groups else np.inf


def equal_groups(values: np.ndarray, weights: np.ndarray) -> float:
    """Return how many groups of equal weight a mean over these rests on: 1 / sum of squared shares."""
    weights = np.where(np.isnan(values), 0.0, np.nan_to_num(weights))
    weights = weights[:, weights.any(axis=0)]
    shares = (weights / weights.sum(axis=0)).mean(axis=1)
    return float(1 / (shares**2).sum())


def with_images(
    evidence: Flips,
    of: pd.DataFrame,
    against: pd.DataFrame | None,
    by_group: ByGroup | None,
    value: Value,
) -> tuple[Flips | Both, bool]:
    """Return the evidence of seeds with that of other images, where it is of real images, and whether there
    are too few groups of these for any.
    """
    found = by_groups(of, against, by_group, value)
    if found is None or not len(found[0]):
        return evidence, False
    groups = len(found[0])
    if groups < FEWEST:
        return evidence, True
    of_seeds = evidence.sd**2 / evidence.n if evidence.n > 1 else np.inf
    sizes = groups, equal_groups(*found), evidence.n
    return Both(evidence, NewData(evidence.estimate, left_out(*found), of_seeds, *sizes)), False


def unseen(of: pd.DataFrame, by_group: ByGroup | None, value: Value, absolute: bool) -> str:
    """Return why nothing is known of other test images where ``on_other_images`` gives nothing; "" where
    nothing need be: for generated data, where no groups were kept, and for what is no score of test images.
    """
    columns = [value] if isinstance(value, str) else list(value)
    of_images = any(name.partition("@")[0] in ON_IMAGES for name in columns)
    if by_group is None or not of_images or not set(of["key"]) <= by_group.rows.keys():
        return ""
    if absolute:
        return "the absolute value of a mean is no mean over images"
    if by_group.means(of["key"], dict.fromkeys(columns, 1.0)) is None:
        return "this score is not kept image by image"
    return f"fewer than {FEWEST} test groups"


def redrawn(values: np.ndarray, weights: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """Return the mean difference of a data set when its test groups are drawn anew, shape (draws,).

    values, weights: (groups, classes), the mean difference over the images of a group that hold the class,
    and how many there are. The mean is over images, then over classes, as scores are; a class that no drawn
    group holds is left out of its draw."""
    # A fixed seed: the same tables give the same page.
    groups = len(values)
    rng = np.random.default_rng(0)
    # For a mean it is enough how often each group is drawn; one product then gives all draws.
    counts = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    weights = np.where(np.isnan(values), 0.0, np.nan_to_num(weights))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A mean over images first, then over classes, as the score itself is.
        by_class = (counts @ (np.nan_to_num(values) * weights)) / (counts @ weights)
    # A class that no group holds is nan in each draw, and nanmean would warn of it.
    used = ~np.isnan(by_class).all(axis=0)
    return np.nanmean(by_class[:, used], axis=1)
