"""Other test images: what the effect on one real data set would be with other patients or pictures.

Seeds say how trainings differ on this split. Which images the split holds is chance as well; so a second
interval stands beside the first, from drawing test groups anew. A generator has no such limit: it makes as
many test images as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.analysis.pairs import Value
from lossbench.base.columns import COLUMNS, SCORES, spelled

FEWEST = 8  # test groups below which nothing is said about other images

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

    def means(self, keys: pd.Series, columns: dict[str, float]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return value and number of images by (group, class), mean over these cells; None if one is
        missing.
        """
        columns = {spelled(name, self.table): weight for name, weight in columns.items()}
        if not len(keys) or not set(keys) <= self.rows.keys() or not set(columns) <= set(self.table):
            return None
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
        return tuple(own.reshape(shape) for own in means)

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
    if by_group is None or absolute:
        return None
    columns = {value: 1.0} if isinstance(value, str) else dict(value)
    # Only seeds of both, so that the interval is of the same pairs as the effect.
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
    if there.sum() < FEWEST:
        return None
    drawn = redrawn(total[there], weight[there])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Images(float(low), float(high), float(drawn.var(ddof=1)), int(there.sum()))


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
