"""How losses do over all their runs, and how firm their order is: interquartile means, performance profiles, rank stability; part by part.

Only blocks that hold every loss of a part count, so that all losses are judged on the same runs. Rankings are of means over data sets, each of
them counted once; whether a loss is ahead of another one therefore does not depend on which others are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from benchmark.analysis.effects import one_per_block
from benchmark.analysis.rankings import agreement
from benchmark.analysis.ranks import lower_is_better
from benchmark.analysis.selection import complete

THRESHOLDS = tuple(np.round(np.arange(0, 1.0, 0.05), 2))
METRICS = ("dice@0.5", "dice@val", "iou@0.5", "nsd_1@0.5", "hd95@0.5", "nll", "ece")
PROFILES = ["part", "metric", "loss", "loss_label", "kind", "threshold", "value", "low", "high", "n_runs", "n_datasets"]
STABILITY = ["part", "metric", "kind", "against", "tau", "low", "high", "same_first", "n_losses", "n_datasets", "n_blocks"]


def profiles(
    cells: pd.DataFrame, metric: str = "dice@0.5", thresholds: Iterable[float] = THRESHOLDS, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return, for every part and loss, the interquartile mean of its runs (kind "iqm") and the share above each threshold (kind "share").

    A run is a data set and a seed (Agarwal et al. 2021). Intervals: 95 % percentile bootstrap, blocks drawn within their data set.
    """
    rows = []
    for part, labels, groups, _ in _parts(cells, [metric]):
        rng = np.random.default_rng(seed)
        runs = np.concatenate([values[..., 0] for values in groups])
        drawn = np.concatenate([values[rng.integers(0, len(values), (draws, len(values))), :, 0] for values in groups], axis=1)
        kinds = [("iqm", np.nan, iqm)]
        kinds += [("share", t, lambda x, t=t: np.mean(x > t, axis=-2)) for t in thresholds]
        for kind, threshold, statistic in kinds:
            low, high = np.quantile(statistic(drawn), [0.025, 0.975], axis=0) if len(runs) > len(groups) else np.full((2, runs.shape[1]), np.nan)
            for place, (loss, label) in enumerate(labels.items()):
                found = (float(statistic(runs)[place]), float(low[place]), float(high[place]))
                rows.append([part, metric, loss, label, kind, threshold, *found, len(runs), len(groups)])
    return pd.DataFrame(rows, columns=PROFILES)


def iqm(runs: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the runs, a quarter cut off at each end. runs: (..., runs, losses) -> (..., losses)."""
    ordered = np.sort(runs, axis=-2)
    cut = ordered.shape[-2] // 4
    return ordered[..., cut : ordered.shape[-2] - cut, :].mean(axis=-2)


def stability(cells: pd.DataFrame, metrics: Iterable[str] = METRICS, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return how well a part's ranking of its losses by a metric agrees (Kendall's tau-b) with three others.

    kind "seeds"      with that of other seeds: mean over draws of blocks within data sets, their 95 % range, share of draws with the same first loss
    kind "data sets"  with that of all data sets but the one named in ``against``
    kind "metric"     with that by the metric named in ``against``
    """
    rows = []
    metrics = [metric for metric in metrics if metric in cells]
    signs = np.array([-1.0 if lower_is_better(metric) else 1.0 for metric in metrics])
    for part, labels, groups, names in _parts(cells, metrics):
        groups = [values * signs for values in groups]
        means = np.stack([values.mean(axis=0) for values in groups])  # data set, loss, metric
        whole = means.mean(axis=0)
        counts = [len(labels), len(groups), sum(map(len, groups))]
        rng = np.random.default_rng(seed)
        drawn = np.mean([values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1) for values in groups], axis=0)
        for k, metric in enumerate(metrics):
            if counts[2] > counts[1]:
                taus = _tau(drawn[..., k], whole[:, k])
                first = float(np.mean(drawn[..., k].argmax(axis=1) == whole[:, k].argmax()))
                rows.append([part, metric, "seeds", "", np.nanmean(taus), *np.nanquantile(taus, [0.025, 0.975]), first, *counts])
            for left, name in enumerate(names if len(names) > 2 else []):
                rest = np.delete(means, left, axis=0).mean(axis=0)[:, k]
                same = float(rest.argmax() == whole[:, k].argmax())
                rows.append([part, metric, "data sets", name, float(_tau(rest[None], whole[:, k])[0]), np.nan, np.nan, same, *counts])
            for j, other in enumerate(metrics):
                if j > k:
                    same = float(whole[:, j].argmax() == whole[:, k].argmax())
                    rows.append([part, metric, "metric", other, float(_tau(whole[None, :, j], whole[:, k])[0]), np.nan, np.nan, same, *counts])
    return pd.DataFrame(rows, columns=STABILITY)


def _tau(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return tau-b of each row of scores (draws, losses) with the reference (losses)."""
    return agreement([np.stack([scores, np.broadcast_to(reference, scores.shape)], axis=-1)])


def parts_of(cells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the cells of every part; the whole, under an empty name, where there are no parts."""
    texts = [str(text) for text in cells["parts"].dropna().unique()] if "parts" in cells else []
    for name in sorted({name for text in texts for name in text.split(",") if name}) or [""]:
        yield name, cells[cells["parts"].map(lambda text, name=name: name in str(text).split(","))] if name else cells


def _parts(cells: pd.DataFrame, metrics: list[str]) -> Iterator[tuple[str, dict[str, str], list[np.ndarray], list[str]]]:
    """Yield (name, spec -> label of its losses, values (blocks, losses, metrics) of each data set, labels of the data sets)."""
    for name, part in parts_of(cells):
        labels = dict(sorted(zip(part["loss"], part["loss_label"], strict=True)))
        if len(labels) < 2 or not set(metrics) <= set(part) or not metrics:
            continue
        one_per_block(part)
        found, _ = complete(part, list(labels), list(metrics))
        if found:
            yield name, labels, [values for _, values in found], [facts["data_label"].iloc[0] for facts, _ in found]
