"""Leaderboards that mark ties: which losses may be the best of those compared, given how little a few seeds
can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lossbench.analysis import stats
from lossbench.analysis.pairs import CERTIFICATE, Effect, NotPaired, one_per_block
from lossbench.analysis.resampling import resample
from lossbench.analysis.selection import complete, select_loss
from lossbench.base.columns import lower_is_better
from lossbench.base.errors import UserError, nearest


def leaderboard(cells: pd.DataFrame, metric: str = "dice@0.5", level: float = 0.95) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss): mean over seeds with its t interval, place, and whether it
    may be the best.

    ``best`` marks the losses that are not shown to be worse than any other on the same blocks: each is
    compared with every other by a one-sided paired t test at (1 - level) / (losses - 1), so the true best is
    among the marked ones with probability >= level (subset selection, Gupta 1965; Hsu 1981). With few seeds
    nearly all are marked, which is what few seeds can tell. Being marked depends on the losses compared; the
    paired effects against CE do not. Cells whose certificate differs from the block's are never compared.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        wide = part.pivot(index="block", columns="loss", values=metric).astype(float)
        facts = part.drop_duplicates("loss").set_index("loss")
        collapsed = part[part["outcome"] == "collapsed"].groupby("loss", observed=True).size()
        marked = possibly_best(-wide if lower_is_better(metric) else wide, _same_start(part), level)
        board = []
        for loss in wide.columns:
            scores = wide[loss].dropna().to_numpy()
            if not len(scores):
                continue
            low, high = stats.estimate([scores], [1.0]).interval()
            board.append(
                {
                    "dataset": dataset,
                    "recipe": recipe,
                    "metric": metric,
                    "loss": loss,
                    "loss_label": facts.loc[loss, "loss_label"],
                    "family": facts.loc[loss, "family"],
                    "mean": scores.mean(),
                    "low": low,
                    "high": high,
                    "sd": scores.std(ddof=1) if len(scores) > 1 else np.nan,
                    "n": len(scores),
                    "collapsed": int(collapsed.get(loss, 0)),
                    "best": loss in marked,
                }
            )
        board.sort(key=lambda row: (row["mean"] if lower_is_better(metric) else -row["mean"], row["loss"]))
        rows += [{**row, "place": place} for place, row in enumerate(board, 1)]
    names = [
        "dataset",
        "recipe",
        "metric",
        "place",
        "loss",
        "loss_label",
        "family",
        "mean",
        "low",
        "high",
        "sd",
        "n",
        "collapsed",
        "best",
    ]
    return pd.DataFrame(rows).reindex(columns=names)


def possibly_best(scores: pd.DataFrame, comparable: pd.DataFrame | None = None, level: float = 0.95) -> set:
    """Return the columns (losses) of a block x loss table, larger is better, that no other column is shown to
    beat.

    ``comparable`` is a boolean table of the same shape: pairs are formed only where both cells hold True.
    """
    losses = list(scores.columns)
    if len(losses) < 2:
        return set(losses)
    held = scores if comparable is None else scores.where(comparable)
    values = held.to_numpy(float)
    alpha = (1 - level) / (len(losses) - 1)
    marked = set()
    for i, loss in enumerate(losses):
        behind = values - values[:, [i]]  # how far each other loss is ahead of this one, block by block
        beaten = False
        for j in range(len(losses)):
            ahead = behind[~np.isnan(behind[:, j]), j]
            if i == j or len(ahead) < 2:
                continue
            found = stats.estimate([ahead], [1.0])
            # Half of the two-sided p-value is the one-sided one when the other loss is ahead.
            beaten |= found.value > 0 and stats.t_test(found) / 2 < alpha
        if not beaten:
            marked.add(loss)
    return marked


def _same_start(part: pd.DataFrame) -> pd.DataFrame:
    """Return a block x loss table: does the cell hold the certificate that most cells of its block hold?"""
    proof = part[list(CERTIFICATE)].astype(str).agg("/".join, axis=1)
    usual = proof.groupby(part["block"]).transform(lambda p: p.mode().iloc[0])
    return (
        part.assign(same=proof == usual)
        .pivot(index="block", columns="loss", values="same")
        .fillna(False)
        .astype(bool)
    )


def collapses(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that collapsed at least once: how often, of how many, and in
    which way.
    """
    rows = []
    for (dataset, recipe, loss), part in cells.groupby(
        ["dataset", "recipe", "loss"], sort=True, observed=True
    ):
        bad = part[part["outcome"] == "collapsed"]
        if len(bad):
            kinds = bad["collapse"].value_counts()
            rows.append(
                {
                    "dataset": dataset,
                    "recipe": recipe,
                    "loss": loss,
                    "loss_label": part["loss_label"].iloc[0],
                    "family": part["family"].iloc[0],
                    "collapsed": len(bad),
                    "n": len(part),
                    "share": len(bad) / len(part),
                    **{kind: int(kinds.get(kind, 0)) for kind in ("background", "foreground", "not_finite")},
                    "seeds": ", ".join(str(s) for s in sorted(bad["seed"])),
                }
            )
    names = [
        "dataset",
        "recipe",
        "loss",
        "loss_label",
        "family",
        "collapsed",
        "n",
        "share",
        "background",
        "foreground",
        "not_finite",
        "seeds",
    ]
    return pd.DataFrame(rows).reindex(columns=names)


def missing_blocks(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that lacks blocks which another loss of the same data set and
    recipe has.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        blocks = part.drop_duplicates("block").set_index("block")["seed"]
        for loss, own in part.groupby("loss", observed=True):
            lacking = blocks.drop(own["block"].unique())
            if len(lacking):
                rows.append(
                    {
                        "dataset": dataset,
                        "recipe": recipe,
                        "loss": loss,
                        "loss_label": own["loss_label"].iloc[0],
                        "missing": len(lacking),
                        "of": len(blocks),
                        "seeds": ", ".join(str(s) for s in sorted(lacking)),
                    }
                )
    return pd.DataFrame(rows).reindex(
        columns=["dataset", "recipe", "loss", "loss_label", "missing", "of", "seeds"]
    )


# --- Two questions about all losses at once: do two metrics rank them alike, and how far below the best
# does a loss fall at worst?

NAN = float("nan")


@dataclass(frozen=True)
class Ranked:
    """What the blocks say about a test of all losses at once."""

    effect: Effect
    p_equal: float  # of equality to zero within the margin; nan where the test has a null of its own
    incomplete: int


def ranked(cells: pd.DataFrame, test: Any) -> Ranked:
    """Return the answer to a test of shape 'agreement' or 'regret'.

    The losses are those of ``among``, else all that are there; only blocks that hold every one of them count,
    each of them whole. Raises UserError where a loss or a complete block lacks, NotPaired where the cells of
    a block did not start alike."""
    names = _specs(cells, test)
    cells = cells[cells["loss"].isin(names)]
    one_per_block(cells)
    _check_start(cells)
    columns = [test.value, test.with_] if test.shape == "agreement" else [test.value]
    for column in columns:
        if column not in cells:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
    rows, lost = complete(cells, names, columns)
    if not rows:
        raise UserError(f"no block holds all {len(names)} losses that are compared")
    signs = np.array([-1.0 if lower_is_better(column) else 1.0 for column in columns])
    groups = [values * signs for _, values in rows]
    told = _agreement(groups, test.null) if test.shape == "agreement" else _regret(groups, test, cells, names)
    independent = pd.concat([row for row, _ in rows])["dataset_name"].nunique()
    effect = Effect(
        told.value,
        NAN,
        NAN,
        *told.interval,
        *told.percentiles,
        told.p,
        told.smallest_p,
        NAN,
        NAN,
        sum(map(len, groups)),
        len(groups),
        NAN,
        NAN,
        NAN,
        NAN,
        NAN,
        independent,
    )
    return Ranked(effect, told.p_equal, lost)


@dataclass(frozen=True)
class _Told:
    value: float
    interval: tuple[float, float]
    percentiles: tuple[float, float]
    p: float
    smallest_p: float
    p_equal: float = NAN


def _agreement(groups: list[np.ndarray], null: float) -> _Told:
    """Below the null by the pairs that are shown to be discordant, above it by resampling, which errs towards
    disagreement.
    """
    drawn = resample(groups, agreement)
    if np.isnan(drawn.value):
        raise UserError("all losses are tied by one of the metrics, so there is no ranking to compare")
    if not len(drawn.drawn):
        return _Told(drawn.value, (NAN, NAN), (NAN, NAN), NAN, 1.0)
    shown = stats.discordant(groups)
    p = min(1.0, 2 * min(drawn.above(null), stats.agreement_below(shown, null)))
    high = max(drawn.value, stats.agreement_at_most(shown, 0.025))
    return _Told(
        drawn.value, (max(-1.0, drawn.interval()[0]), high), drawn.percentiles(), p, drawn.smallest_p
    )


def _regret(groups: list[np.ndarray], test: Any, cells: pd.DataFrame, names: list[str]) -> _Told:
    """A difference of two regrets by resampling, since the bias of a maximum cancels; a regret by itself by
    paired tests.
    """
    losses = range(len(names)) if test.of == "any" else [names.index(_spec(cells, test.of))]
    if test.against:
        against = names.index(_spec(cells, test.against))
        drawn = resample(groups, lambda means: regrets(means)[:, losses[0]] - regrets(means)[:, against])
        p_equal = NAN if test.null else drawn.p_equal(test.margin)
        return _Told(
            drawn.value, drawn.interval(), drawn.percentiles(), drawn.p(test.null), drawn.smallest_p, p_equal
        )
    drawn = resample(groups, lambda means: regrets(means)[:, losses].min(axis=1))
    if not len(drawn.drawn):
        return _Told(drawn.value, (NAN, NAN), (NAN, NAN), NAN, 1.0)
    p = min(
        1.0,
        2 * min(stats.regret_above(groups, losses, test.null), stats.regret_below(groups, losses, test.null)),
    )
    return _Told(drawn.value, stats.regret_interval(groups, losses), drawn.percentiles(), p, drawn.smallest_p)


def agreement(means: Sequence[np.ndarray]) -> np.ndarray:
    """Return Kendall's tau-b between the two rankings, averaged over data sets. means[g]: (draws, losses, 2)
    -> (draws,).

    tau-b = sum sign(a_i - a_j) sign(b_i - b_j) / sqrt(untied pairs of a x untied pairs of b) (Kendall 1945);
    nan where one metric ties all."""
    taus = []
    for m in means:
        i, j = np.triu_indices(m.shape[1], 1)
        order = np.sign(m[:, i] - m[:, j])
        untied = np.abs(order).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            taus.append(order.prod(axis=2).sum(axis=1) / np.sqrt(untied.prod(axis=1)))
    return np.mean(taus, axis=0)


def regrets(means: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far each loss falls below the best of all, at worst over the data sets. means[g]: (draws,
    losses, 1) -> (draws, losses).
    """
    return np.max([m[..., 0].max(axis=1, keepdims=True) - m[..., 0] for m in means], axis=0)


def _specs(cells: pd.DataFrame, test: Any) -> list[str]:
    names = list(test.among) or sorted(cells["loss"].unique())
    absent = [name for name in names if not len(select_loss(cells, name))]
    if absent:
        raise UserError(f"there are no cells of {' and '.join(absent)}")
    if len(names) < 2:
        raise UserError("there are no two losses to rank")
    return [_spec(cells, name) for name in names]


def _spec(cells: pd.DataFrame, name: str) -> str:
    return select_loss(cells, name)["loss"].iloc[0]


def _check_start(cells: pd.DataFrame) -> None:
    for column in CERTIFICATE:
        proof = cells[column].fillna("").astype(str)
        wrong = (proof.groupby(cells["block"], observed=True).transform("nunique") > 1) | (proof == "")
        if wrong.any():
            raise NotPaired(
                "the losses are not paired: the certificates of block "
                f"{cells.loc[wrong, 'block'].iloc[0]} differ in '{column}'"
            )


# --- Mean ranks of losses over data sets, with a bootstrap interval, and the critical difference where
# there are data sets enough for it.

# data sets, below which the chi-square and range approximations of Friedman and Nemenyi are not to be trusted
# (Demšar 2006)
ENOUGH = 10


def rank_table(cells: pd.DataFrame, metric: str, absolute: bool = False) -> pd.DataFrame:
    """Return the mean over seeds of the rank (1 is best, ties share) of each loss, one row a data set
    variant, one column a loss.

    Ranks are taken within a block, over the losses that every data set variant has, so that no rank is out of
    fewer losses than another; blocks that lack one of them are left out. ``absolute`` ranks by nearness to
    zero.
    """
    wide = cells.pivot_table(
        index=["dataset", "recipe", "seed"], columns="loss", values=metric, observed=True
    )
    everywhere = wide.notna().groupby(level=["dataset", "recipe"]).any().all(axis=0)
    wide = wide.loc[:, everywhere].dropna()
    values = wide.abs() if absolute else wide
    ranks = values.rank(axis=1, ascending=absolute or lower_is_better(metric))
    return ranks.groupby(level=["dataset", "recipe"]).mean()


def bootstrap(ranks: pd.DataFrame, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Return mean, low and high of each loss's rank: the percentile interval over redrawn data sets."""
    values = ranks.to_numpy(float)
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = (
        np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        if len(values) > 1
        else np.full((2, values.shape[1]), np.nan)
    )
    return pd.DataFrame(
        {"loss": ranks.columns, "mean": values.mean(axis=0), "low": low, "high": high, "n": len(values)}
    )


def critical_difference(losses: int, datasets: int, level: float = 0.95) -> float:
    """Return Nemenyi's critical difference of mean ranks, q sqrt(k (k + 1) / (6 N)); nan with fewer than
    ``ENOUGH`` data sets.

    q is the quantile of the studentized range of k means with infinite degrees of freedom, over sqrt 2
    (Demšar 2006)."""
    from scipy.stats import studentized_range

    if datasets < ENOUGH or losses < 2:
        return float("nan")
    q = studentized_range.ppf(level, losses, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(losses * (losses + 1) / (6 * datasets)))


# --- How losses do over all their runs, and how firm their order is: interquartile means, performance
# profiles, rank stability; part by part. Only blocks that hold every loss of a part count, so that all
# losses are judged on the same runs. Rankings are of means over data sets, each of them counted once;
# whether a loss is ahead of another one therefore does not depend on which others are there.

THRESHOLDS = tuple(np.round(np.arange(0, 1.0, 0.05), 2))

METRICS = ("dice@0.5", "dice@val", "iou@0.5", "nsd_1@0.5", "hd95@0.5", "nll", "ece")

PROFILES = [
    "part",
    "metric",
    "loss",
    "loss_label",
    "kind",
    "threshold",
    "value",
    "low",
    "high",
    "n_runs",
    "n_datasets",
]

STABILITY = [
    "part",
    "metric",
    "kind",
    "against",
    "tau",
    "low",
    "high",
    "same_first",
    "n_losses",
    "n_datasets",
    "n_blocks",
]


def profiles(
    cells: pd.DataFrame,
    metric: str = "dice@0.5",
    thresholds: Iterable[float] = THRESHOLDS,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return, for every part and loss, the interquartile mean of its runs (kind "iqm") and the share above
    each threshold (kind "share").

    A run is a data set and a seed (Agarwal et al. 2021). Intervals: 95 % percentile bootstrap, blocks drawn
    within their data set."""
    rows = []
    for part, labels, groups, _ in _parts(cells, [metric]):
        rng = np.random.default_rng(seed)
        runs = np.concatenate([values[..., 0] for values in groups])
        drawn = np.concatenate(
            [values[rng.integers(0, len(values), (draws, len(values))), :, 0] for values in groups], axis=1
        )
        kinds = [("iqm", np.nan, iqm)]
        kinds += [("share", t, lambda x, t=t: np.mean(x > t, axis=-2)) for t in thresholds]
        for kind, threshold, statistic in kinds:
            low, high = (
                np.quantile(statistic(drawn), [0.025, 0.975], axis=0)
                if len(runs) > len(groups)
                else np.full((2, runs.shape[1]), np.nan)
            )
            for place, (loss, label) in enumerate(labels.items()):
                found = (float(statistic(runs)[place]), float(low[place]), float(high[place]))
                rows.append([part, metric, loss, label, kind, threshold, *found, len(runs), len(groups)])
    return pd.DataFrame(rows, columns=PROFILES)


def iqm(runs: np.ndarray) -> np.ndarray:
    """Return the mean of the middle half of the runs, a quarter cut off at each end. runs: (..., runs,
    losses) -> (..., losses).
    """
    ordered = np.sort(runs, axis=-2)
    cut = ordered.shape[-2] // 4
    return ordered[..., cut : ordered.shape[-2] - cut, :].mean(axis=-2)


def stability(
    cells: pd.DataFrame, metrics: Iterable[str] = METRICS, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return how well a part's ranking of its losses by a metric agrees (Kendall's tau-b) with three others.

    kind "seeds"      with that of other seeds: mean over draws of blocks within data sets, their 95 % range,
    share of draws with the same first loss kind "data sets"  with that of all data sets but the one named in
    ``against``
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
        drawn = np.mean(
            [values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1) for values in groups],
            axis=0,
        )
        for k, metric in enumerate(metrics):
            if counts[2] > counts[1]:
                taus = _tau(drawn[..., k], whole[:, k])
                first = float(np.mean(drawn[..., k].argmax(axis=1) == whole[:, k].argmax()))
                rows.append(
                    [
                        part,
                        metric,
                        "seeds",
                        "",
                        np.nanmean(taus),
                        *np.nanquantile(taus, [0.025, 0.975]),
                        first,
                        *counts,
                    ]
                )
            for left, name in enumerate(names if len(names) > 2 else []):
                rest = np.delete(means, left, axis=0).mean(axis=0)[:, k]
                same = float(rest.argmax() == whole[:, k].argmax())
                rows.append(
                    [
                        part,
                        metric,
                        "data sets",
                        name,
                        float(_tau(rest[None], whole[:, k])[0]),
                        np.nan,
                        np.nan,
                        same,
                        *counts,
                    ]
                )
            for j, other in enumerate(metrics):
                if j > k:
                    same = float(whole[:, j].argmax() == whole[:, k].argmax())
                    rows.append(
                        [
                            part,
                            metric,
                            "metric",
                            other,
                            float(_tau(whole[None, :, j], whole[:, k])[0]),
                            np.nan,
                            np.nan,
                            same,
                            *counts,
                        ]
                    )
    return pd.DataFrame(rows, columns=STABILITY)


def _tau(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return tau-b of each row of scores (draws, losses) with the reference (losses)."""
    return agreement([np.stack([scores, np.broadcast_to(reference, scores.shape)], axis=-1)])


def parts_of(cells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield name and cells of every part; the whole, under an empty name, where there are no parts."""
    texts = [str(text) for text in cells["parts"].dropna().unique()] if "parts" in cells else []
    for name in sorted({name for text in texts for name in text.split(",") if name}) or [""]:
        yield (
            name,
            cells[cells["parts"].map(lambda text, name=name: name in str(text).split(","))]
            if name
            else cells,
        )


def _parts(
    cells: pd.DataFrame, metrics: list[str]
) -> Iterator[tuple[str, dict[str, str], list[np.ndarray], list[str]]]:
    """Yield (name, spec -> label of its losses, values (blocks, losses, metrics) of each data set, labels of
    the data sets).
    """
    for name, part in parts_of(cells):
        labels = dict(sorted(zip(part["loss"], part["loss_label"], strict=True)))
        if len(labels) < 2 or not set(metrics) <= set(part) or not metrics:
            continue
        one_per_block(part)
        found, _ = complete(part, list(labels), list(metrics))
        if found:
            yield (
                name,
                labels,
                [values for _, values in found],
                [facts["data_label"].iloc[0] for facts, _ in found],
            )
