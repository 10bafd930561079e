"""How losses do over all their runs, and how firm their order is: interquartile means, performance profiles,
rank agreement, mean ranks; part by part.

Only seeds that hold every loss of a part on every data set count, so that all losses are judged on the same
runs. Rankings are of means over data sets, each of them counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import pairs, ranks, seeds
from lossbench.analysis.selection import in_parts
from lossbench.base import columns as known

# Rounded, since arange gives .15000000000000002, and these numbers are printed.
THRESHOLDS = tuple(np.round(np.arange(0, 1.0, 0.05), 2))

METRICS = ("dice@0.5", "dice@val", "iou@0.5", "nsd_1@0.5", "hd95@0.5", "nll", "ece")

PROFILES = ["part", "metric", "loss", "loss_label", "kind", "threshold", "value", "low", "high", "n_runs"]
PROFILES += ["n_datasets"]

STABILITY = ["part", "metric", "kind", "against", "tau", "ceiling", "same_first", "n_losses", "n_datasets"]
STABILITY += ["n_seeds"]


class Runs(NamedTuple):
    """The runs of one part that hold every loss."""

    part: str
    losses: list[str]
    labels: list[str]
    datasets: list[str]
    values: np.ndarray  # (seeds, data sets, losses, metrics)


def profiles(
    cells: pd.DataFrame,
    metric: str = "dice@0.5",
    thresholds: Iterable[float] = THRESHOLDS,
    draws: int = 1000,
) -> pd.DataFrame:
    """Return, for every part and loss, the interquartile mean of its runs (kind "iqm") and the share above
    each threshold (kind "share").

    A run is a data set and a seed (Agarwal et al. 2021). Intervals: 95 % percentiles when whole seeds are
    drawn anew, since the data sets of a seed are not independent."""
    rows = []
    for runs in _runs(cells, [metric]):
        # Each part is a full cross of its own; a mean over parts would mix questions.
        values = runs.values[..., 0]  # (seeds, data sets, losses)
        count, sets, losses = values.shape
        chosen = np.random.default_rng(0).integers(0, count, (draws, count))
        drawn = values[chosen].reshape(draws, count * sets, losses)
        # A run is a seed on a data set, as the authors of the profiles have it.
        together = values.reshape(-1, losses)
        kinds = [("iqm", np.nan, iqm)]
        kinds += [("share", t, lambda x, t=t: np.mean(x > t, axis=-2)) for t in thresholds]
        for kind, threshold, statistic in kinds:
            low, high = np.full((2, losses), np.nan)
            if count > 1:
                low, high = np.quantile(statistic(drawn), [0.025, 0.975], axis=0)
            for place, (loss, label) in enumerate(zip(runs.losses, runs.labels, strict=True)):
                own = (float(statistic(together)[place]), float(low[place]), float(high[place]))
                rows.append([runs.part, metric, loss, label, kind, threshold, *own, len(together), sets])
    return pd.DataFrame(rows, columns=PROFILES)


def iqm(runs: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the runs, a quarter cut off at each end.

    runs: (..., runs, losses) -> (..., losses)."""
    ordered = np.sort(runs, axis=-2)
    # Of fewer than four runs nothing is cut off.
    cut = ordered.shape[-2] // 4
    return ordered[..., cut : ordered.shape[-2] - cut, :].mean(axis=-2)


def stability(cells: pd.DataFrame, metrics: Iterable[str] = METRICS) -> pd.DataFrame:
    """Return how well a part's ranking of its losses by a metric agrees (Kendall's tau-b) with three others.

    - kind "seeds": that of the other half of the seeds, mean over splits, with the share of splits whose two
      halves have the same first loss;
    - kind "data sets": that of all data sets but the one named in ``against``;
    - kind "metric": that by the metric named in ``against`` on the other half of the seeds; ``ceiling`` is
      what noise leaves of an agreement (``ranks.split_halves``).
    """
    rows = []
    metrics = [metric for metric in metrics if metric in cells]
    # So that larger is better, whatever the metric.
    signs = np.array([-1.0 if known.lower_is_better(metric) else 1.0 for metric in metrics])
    for runs in _runs(cells, metrics):
        scores = runs.values * signs
        counts = [len(runs.losses), len(runs.datasets), len(scores)]
        means = scores.mean(axis=0)  # (data sets, losses, metrics)
        whole = means.mean(axis=0)
        for k, metric in enumerate(metrics):
            first = whole[:, k].argmax()
            if len(scores) > 1:
                own = _as_one(scores[..., [k, k]])
                same = [half.argmax() == other.argmax() for half, other in _both_halves(scores[..., k])]
                rows.append([runs.part, metric, "seeds", "", own.tau, np.nan, float(np.mean(same)), *counts])
            # Of two sets the one that is left is half of what it would be compared with.
            for left, name in enumerate(runs.datasets if len(runs.datasets) > 2 else []):
                rest = np.delete(means, left, axis=0).mean(axis=0)[:, k]
                tau = float(ranks.tau_b(rest, whole[:, k]))
                rows.append(
                    [
                        runs.part,
                        metric,
                        "data sets",
                        name,
                        tau,
                        np.nan,
                        float(rest.argmax() == first),
                        *counts,
                    ]
                )
            for j in range(k + 1, len(metrics)):
                if len(scores) > 1:
                    found = _as_one(scores[..., [k, j]])
                else:
                    found = ranks.Agreement(float(ranks.tau_b(whole[:, j], whole[:, k])), float("nan"))
                same = float(whole[:, j].argmax() == first)
                rows.append([runs.part, metric, "metric", metrics[j], *found, same, *counts])
    return pd.DataFrame(rows, columns=STABILITY)


def _as_one(scores: np.ndarray) -> ranks.Agreement:
    """Return the agreement of two rankings of means over data sets."""
    # A ranking of means over data sets is the ranking of one variant.
    return ranks.split_halves(scores.mean(axis=1, keepdims=True))


def _both_halves(scores: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the mean score of each loss on one half of the seeds and on the other."""
    for half in ranks.halves(len(scores)):
        yield scores[half].mean(axis=(0, 1)), scores[~half].mean(axis=(0, 1))


def parts_of(cells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield name and cells of every part; the whole, under an empty name, where there are no parts."""
    texts = [str(text) for text in cells["parts"].dropna().unique()] if "parts" in cells else []
    for name in sorted({name for text in texts for name in text.split(",") if name}) or [""]:
        yield name, cells[in_parts(cells, (name,))] if name else cells


def _runs(cells: pd.DataFrame, metrics: list[str]) -> Iterator[Runs]:
    for name, part in parts_of(cells):
        labels = dict(sorted(zip(part["loss"], part["loss_label"], strict=True)))
        if len(labels) < 2 or not metrics or not set(metrics) <= set(part):
            continue
        found = pairs.losses(part, metrics)
        whole = ~np.isnan(found.values).any(axis=(2, 3))
        kept = whole.any(axis=1)  # a data set where no seed holds all losses would leave none at all
        seeds = whole[kept].all(axis=0)
        if kept.any() and seeds.any():
            values = found.values[kept][:, seeds].swapaxes(0, 1)
            datasets = list(found.variants["data_label"][kept])
            yield Runs(name, list(found.arms), [labels[arm] for arm in found.arms], datasets, values)


# data sets below which the approximations of Friedman and Nemenyi are not to be trusted (Demšar 2006)
ENOUGH = 10

FEWEST_SETS = 5  # fewer are too few to draw anew


def rank_table(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean over seeds of each loss's rank (1 is best, ties share), one row a data set variant."""
    return _block_ranks(cells, metric).groupby(level=["dataset", "recipe"]).mean()


def mean_ranks(cells: pd.DataFrame, metric: str, level: float = 0.95, resamples: int = 4000) -> pd.DataFrame:
    """Return each loss's mean rank over data set variants with a percentile interval, one row a loss.

    ``drawn`` says what is drawn anew for it: "data sets", all levels of a generator together, where there are
    at least ``FEWEST_SETS`` of them (``n_sets``); else "seeds", of those that every variant holds, which says
    nothing of other data. ``n`` is how many were drawn from; of fewer than two there is no interval."""
    blocks = _block_ranks(cells, metric)
    table = blocks.groupby(level=["dataset", "recipe"]).mean()
    variants = cells.drop_duplicates(["dataset", "recipe"]).set_index(["dataset", "recipe"])
    unit = seeds.units(variants)[table.index]
    sums, counts = table.groupby(unit.to_numpy()).sum(), unit.value_counts(sort=False)
    drawn, values, weights = "data sets", sums.to_numpy(float), counts[sums.index].to_numpy(float)
    if len(sums) < FEWEST_SETS:
        by_seed = blocks.groupby(level="seed")
        whole = by_seed.size() == len(table)
        drawn, values = "seeds", by_seed.mean()[whole].to_numpy(float)
        weights = np.ones(len(values))
    low, high = np.full((2, table.shape[1]), np.nan)
    if len(values) > 1:
        chosen = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
        means = values[chosen].sum(axis=1) / weights[chosen].sum(axis=1)[:, None]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    facts = {"loss": table.columns, "mean": table.to_numpy(float).mean(axis=0), "low": low, "high": high}
    return pd.DataFrame({**facts, "n": len(values), "n_sets": len(sums), "drawn": drawn})


def _block_ranks(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rank of each loss in each block: over the losses that every data set variant has, so that no
    rank is out of fewer losses than another; blocks that miss one of them are left out. A metric with a
    target, such as 0 for the log of a size ratio, ranks by nearness to it.
    """
    # Within a block the losses share start and batches: ranks are paired, too.
    index = ["dataset", "recipe", "seed"]
    wide = cells.pivot_table(index=index, columns="loss", values=metric, observed=True)
    everywhere = wide.notna().groupby(level=["dataset", "recipe"]).any().all(axis=0)
    # First the losses, then the blocks: the other way round one loss that a set misses would cost all its
    # blocks.
    wide = wide.loc[:, everywhere].dropna()
    nearness = known.nearer_is_better(metric)
    values = wide.abs() if nearness else wide
    return values.rank(axis=1, ascending=nearness or known.lower_is_better(metric))


def critical_difference(losses: int, datasets: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of mean ranks; nan with fewer than ``ENOUGH`` data sets.

    q sqrt(k (k + 1) / (6 N)), where q is the quantile of the studentized range of k means with infinite
    degrees of freedom, over sqrt 2 (Demšar 2006)."""
    # Slow to import, and few pages ask for it.
    from scipy.stats import studentized_range

    if datasets < ENOUGH or losses < 2:
        return float("nan")
    q = studentized_range.ppf(level, losses, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(losses * (losses + 1) / (6 * datasets)))
