"""Mean ranks of losses over data sets, with a bootstrap interval, and the critical difference where there are data sets enough for it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.analysis.ranks import lower_is_better

ENOUGH = 10  # data sets, below which the chi-square and range approximations of Friedman and Nemenyi are not to be trusted (Demšar 2006)


def rank_table(cells: pd.DataFrame, metric: str, absolute: bool = False) -> pd.DataFrame:
    """Return the mean over seeds of the rank (1 is best, ties share) of each loss, one row a data set variant, one column a loss.

    Ranks are taken within a block, over the losses that every data set variant has, so that no rank is out of fewer losses than another; blocks
    that lack one of them are left out. ``absolute`` ranks by nearness to zero.
    """
    wide = cells.pivot_table(index=["dataset", "recipe", "seed"], columns="loss", values=metric, observed=True)
    everywhere = wide.notna().groupby(level=["dataset", "recipe"]).any().all(axis=0)
    wide = wide.loc[:, everywhere].dropna()
    values = wide.abs() if absolute else wide
    ranks = values.rank(axis=1, ascending=absolute or lower_is_better(metric))
    return ranks.groupby(level=["dataset", "recipe"]).mean()


def bootstrap(ranks: pd.DataFrame, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Return mean, low and high of each loss's rank: the percentile interval when data sets are drawn anew."""
    values = ranks.to_numpy(float)
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0) if len(values) > 1 else np.full((2, values.shape[1]), np.nan)
    return pd.DataFrame({"loss": ranks.columns, "mean": values.mean(axis=0), "low": low, "high": high, "n": len(values)})


def critical_difference(losses: int, datasets: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of mean ranks, q sqrt(k (k + 1) / (6 N)); nan with fewer than ``ENOUGH`` data sets.

    q is the quantile of the studentized range of k means with infinite degrees of freedom, over sqrt 2 (Demšar 2006).
    """
    from scipy.stats import studentized_range

    if datasets < ENOUGH or losses < 2:
        return float("nan")
    q = studentized_range.ppf(level, losses, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(losses * (losses + 1) / (6 * datasets)))
