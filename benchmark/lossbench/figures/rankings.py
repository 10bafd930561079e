"""In which order losses stand, how firm that order is, and how they do over all their runs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pandas as pd

from lossbench.analysis import decisions
from lossbench.analysis import rankings as orders
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.selection import in_parts
from lossbench.base import columns
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

SCORE = "dice@0.5"

METRICS = (
    SCORE,
    "dice@val",
    "nsd_1@0.5",
    "hd95@0.5",
    "log_size_ratio_hard@0.5",
    "log_size_ratio_soft",
    "ece",
    "nll",
)

RANKS = ["metric", *points.LOSS, *points.SUMMARY, "drawn", "critical_difference"]


@figure("rankings", number=18, title="Mean rank of each loss, by metric")
def rankings(tables: Mapping[str, pd.DataFrame]):
    """One panel a metric: mean rank over data sets with interval, and the rank on each data set."""
    cells, left = ranked(tables, *points.LADDER, "public")
    ranks = _ranks(cells)
    if not ranks:
        raise NothingToDraw(
            "needs at least three losses that were all trained on the same two data sets or more"
        )
    rows = []
    for metric, table in ranks.items():
        # NaN below ten data sets, where its approximation is not to be trusted.
        means = orders.mean_ranks(cells, metric)
        difference = orders.critical_difference(table.shape[1], int(means["n_sets"].iloc[0]))
        rows.append(means.assign(metric=metric, critical_difference=difference))
    data = pd.concat(rows, ignore_index=True)
    # The evidence counts what is shown, not all that was trained.
    used = cells[cells["loss"].isin(data["loss"])]
    losses = style.ordered(used)
    data = data.merge(losses, on="loss")
    first = data[data["metric"] == data["metric"].iloc[0]].sort_values(["mean", "loss_label"])
    # The first panel orders all panels, so that a change of rank is seen as a shift.
    order = list(dict.fromkeys([*first["loss"], *losses["loss"]]))
    lines, wide = style.shape(len(ranks), 4)
    height = 0.5 + lines * (0.55 + 0.23 * len(order))
    drawing, axes = style.canvas(lines, wide, height, sharex=True, sharey=True)
    for axis, (metric, table) in zip(axes.flat, ranks.items(), strict=False):
        _rank_panel(axis, data[data["metric"] == metric], table, order)
        axis.set_title(columns.title(metric))
    labels = losses.set_index("loss")["loss_label"]
    style.names(axes[0][0], [labels[loss] for loss in order])
    axes[0][0].set_xlim(0.7, len(order) + 0.3)
    axes[0][0].set_xticks(range(1, len(order) + 1, max(1, len(order) // 6)))
    style.hide_rest(axes, len(ranks))
    drawing.supxlabel("rank among the losses, 1 is best", fontsize=9)
    sets = max(map(len, ranks.values()))
    says = (
        f"Ranks within each block, mean over seeds (ticks: one a data set) and then over {sets} data sets "
        "(dots); losses in the order of the first panel. Sizes are ranked by their distance to the truth. "
        f"{_bars(data)}A rank depends on which losses take part; the paired "
        f"differences elsewhere do not. {left}"
    ) + style.evidence(used)
    tops = data.sort_values("mean").drop_duplicates("metric").set_index("metric").loc[list(ranks)]
    best = "; ".join(f"{columns.title(r.Index)}: {r.loss_label} {r.mean:.1f}" for r in tops.itertuples())
    return drawing, data[RANKS], says, f"Best mean rank: {best}.", _order_says(data, ranks)


def ranked(tables: Mapping[str, pd.DataFrame], *parts: str) -> tuple[pd.DataFrame, str]:
    """Return the cells of these parts that take part in rankings: one recipe a data set, learnt; and what was
    left out, in a sentence.
    """
    cells, left = points.usual(points.of_parts(tables["cells"], *parts))
    if not len(cells) or SCORE not in cells:
        return cells, left
    there = points.ended(cells, tables)
    missed = cells.loc[~there, "data_label"].nunique()
    if missed:
        left += f"Not learnt, so left out: {', '.join(sorted(cells.loc[~there, 'data_label'].unique()))}. "
    return cells[there], left


def _order_says(data: pd.DataFrame, ranks: Mapping[str, pd.DataFrame]) -> str:
    """Return by how many of the metrics the loss that is first by the first of them is first, too."""
    first = data.loc[data.groupby("metric", sort=False)["mean"].idxmin()].set_index("metric")
    leader = first["loss_label"].iloc[0]
    count = int((first["loss_label"] == leader).sum())
    own = _bounded(data[data["metric"] == first.index[0]]).set_index("loss_label")
    rest = own.drop(index=leader)
    near = int((rest["low"] <= own.loc[leader, "high"]).sum())
    within = f", where the bars of {near} of {len(rest)} others overlap its own" if near else ""
    if count == len(ranks):
        return f"{leader} has the best mean rank by every one of {count} metrics{within}"
    others = " or ".join(dict.fromkeys(label for label in first["loss_label"] if label != leader))
    by = f"{leader} has the best mean rank by {count} of {len(ranks)} metrics{within}"
    return f"{by}; by the other metrics {others} comes first"


def _bounded(part: pd.DataFrame) -> pd.DataFrame:
    """Return the ranks with the ends of their bars: bars that do not overlap differ by the critical
    difference, where there is one.
    """
    half = part["critical_difference"] / 2
    low, high = (part["mean"] - half).fillna(part["low"]), (part["mean"] + half).fillna(part["high"])
    return part.assign(low=low, high=high)


MAP = ["loss", "loss_label", "against", "better_on", "data_sets", "mean_rank"]


@figure("significance_map", number=23, title="Which loss is shown to beat which, on how many data sets")
def significance_map(tables: Mapping[str, pd.DataFrame]):
    """A square of losses in the order of their rank: on how many data sets the row is shown to be better."""
    cells, left = ranked(tables, *points.LADDER, "public")
    table = orders.rank_table(cells, SCORE) if len(cells) and SCORE in cells else pd.DataFrame()
    if table.shape[1] < 3 or not len(table):
        raise NothingToDraw("needs at least three losses that were all trained on the same data sets")
    # The best mean rank first, so that a firm order fills the upper triangle.
    mean = table.mean()
    order = list(mean.sort_values(kind="stable").index)
    cells = cells[cells["loss"].isin(order)]
    wins, sets = _wins(cells, order, points.deciding(tables)), len(table)
    labels = style.ordered(cells).set_index("loss")["loss_label"]
    wide = min(style.WIDTH, 3.2 + 0.6 * len(order))
    drawing, axes = style.canvas(1, 1, 1.5 + 0.33 * len(order), width=wide)
    # A loss is not compared with itself: the diagonal stays blank.
    shown = wins.astype(float).mask(np.eye(len(order), dtype=bool))
    names = [style.fitting(labels[loss], 18) for loss in order]
    shown = shown.set_axis(names, axis=0).set_axis(names, axis=1)
    style.heat(axes[0][0], shown, shown.map("{:.0f}".format), "Blues", 0.0, float(sets))
    style.slanted(axes[0][0], names)
    axes[0][0].set(ylabel="is better", xlabel="than")
    says = (
        f"The number in a field: on how many of {sets} data sets the loss of the row is shown to have a "
        "higher Dice at 0.5 than the loss of the column (paired sign flips over seeds, Holm over the pairs "
        "of a data set; on real images other test images must agree). Losses stand by their mean rank. "
        f"Zeros on both sides of the diagonal do not show that two losses are alike. {left}"
    ) + style.evidence(cells)
    pairs = [(a, b) for a in order for b in order if a != b]
    rows = [(a, labels[a], labels[b], int(wins.loc[a, b]), sets, mean[a]) for a, b in pairs]
    beaten = ", ".join(f"{labels[loss]} {int((wins.loc[loss] > 0).sum())}" for loss in order)
    alt = f"How many other losses each loss is shown to beat on some data set: {beaten}."
    return drawing, pd.DataFrame(rows, columns=MAP), says, alt, _wins_say(wins, labels, sets)


def _wins(cells: pd.DataFrame, order: list[str], deciding: tuple[ByGroup | None, tuple]) -> pd.DataFrame:
    """Return on how many data sets the loss of the row is shown to be better than that of the column."""
    wins = pd.DataFrame(0, index=order, columns=order)
    for _, part in cells.groupby(points.VARIANT, sort=True, observed=True):
        contest = decisions.contest(part, SCORE, *deciding)
        for a, b in permutations(order, 2):
            found = contest.decide(a, b)
            wins.loc[a, b] += int(found is not None and found.verdict == decisions.BETTER)
    return wins


def _wins_say(wins: pd.DataFrame, labels: pd.Series, sets: int) -> str:
    first = wins.index[0]
    others = len(wins) - 1
    # With few seeds nothing can be shown, which is no sign that losses are alike.
    if not wins.to_numpy().any():
        return f"On none of {sets} data sets is one of {others + 1} losses shown to beat another"
    # Better on at least half of the data sets: what a ranking usually makes readers believe.
    often = int((wins.loc[first] * 2 >= sets).sum())
    return (
        f"{labels[first]} ranks first, and is shown to beat {often} of {others} losses on at least half of "
        f"{sets} data sets"
    )


THRESHOLDS = tuple(np.round(np.arange(0, 1.0, 0.02), 2))  # finer than a table needs: curves are steep

SIDES = {"scenes": points.LADDER, "real images": points.PUBLIC}  # told apart, since their runs differ in kind


@figure("profiles", number=24, title="Performance profiles and interquartile means")
def profiles(tables: Mapping[str, pd.DataFrame]):
    """Top: share of runs above each Dice score; below: mean of the middle half of the runs."""
    found, used, left, fewer = [], [], "", ""
    everything = tables["cells"]
    several = "parts" in everything and everything["parts"].fillna("").astype(str).any()
    for name, parts in SIDES.items():
        if several and not in_parts(everything, parts).any():
            continue
        cells, left = ranked(tables, *parts)
        several_sets = cells
        cells = _everywhere(cells)
        if not len(cells) or SCORE not in cells or cells["loss"].nunique() < 2:
            continue
        # An experiment without these parts answers with all its cells, once.
        if used and set(cells["key"]) <= set(used[0]["key"]):
            continue
        table = orders.profiles(cells.assign(parts=""), thresholds=THRESHOLDS)
        if len(table):
            found.append(table.assign(part=name))
            used.append(cells)
            others = several_sets[~several_sets["loss"].isin(cells["loss"])]
            names = ", ".join(style.quoted(label) for label in style.ordered(others)["loss_label"])
            fewer += f"Not trained on every data set of the {name}, so left out: {names}. " if names else ""
    if not found:
        raise NothingToDraw("needs at least two losses that were all trained on the same seeds")
    if len(found) == 1 and "parts" not in tables:
        found = [found[0].assign(part="all data sets")]
    data = pd.concat(found, ignore_index=True)
    cells = pd.concat(used).drop_duplicates("key")
    # One look a loss on both sides.
    losses = style.ordered(cells)
    looks = style.lines(losses)
    shown = list(dict.fromkeys(data["part"]))
    heights = [2.9, 0.5 + 0.2 * data.groupby("part")["loss"].nunique().max()]
    drawing, grid = style.grid(2, len(shown), 0.7 + sum(heights), height_ratios=heights)
    for place, name in enumerate(shown):
        own = data[data["part"] == name]
        upper = drawing.add_subplot(grid[0, place])
        _profile(upper, own[own["kind"] == "share"], looks)
        upper.set_title(f"{name}: {own['n_datasets'].iloc[0]} data sets, {own['n_runs'].iloc[0]} runs")
        upper.set(xlabel="Dice at 0.5 above", ylabel="share of runs" if place == 0 else "")
        _middle(drawing.add_subplot(grid[1, place]), own[own["kind"] == "iqm"], losses)
    style.loss_legend(drawing, losses, looks)
    says = (
        "A run is one seed on one data set; only seeds that hold every loss count. Top: the share of a "
        "loss's runs that score higher than the value below. Bottom: interquartile mean, the mean of the "
        "middle half of the runs, which single collapses do not move. Bands and bars: 95 % percentiles when "
        f"whole seeds are drawn anew (Agarwal et al. 2021). {fewer}{left}"
    ) + style.evidence(cells)
    means = data[data["kind"] == "iqm"]
    alt = "; ".join(f"{row.loss_label} on {row.part} {row.value:.2f}" for row in means.itertuples())
    return drawing, data, says, f"Interquartile mean of Dice: {alt}.", _middle_says(means)


def _everywhere(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the losses that were trained on every data set variant: others have other runs."""
    if not len(cells):
        return cells
    # A loss of two data sets cannot be compared by its runs with one of ten.
    count = cells.groupby("loss", observed=True)["dataset"].nunique()
    return cells[cells["loss"].isin(count.index[count == count.max()])]


def _profile(axis, own: pd.DataFrame, looks: dict) -> None:
    for loss, look in looks.items():
        part = own[own["loss"] == loss]
        if len(part):
            axis.plot(part["threshold"], part["value"], **look | {"marker": ""}, zorder=3)
            axis.fill_between(
                part["threshold"], part["low"], part["high"], color=look["color"], alpha=0.1, lw=0
            )
    # From where the first run is lost: left of it all lines lie on each other.
    lost = own.loc[own["value"] < 1, "threshold"]
    axis.set_xlim(max(0.0, (lost.min() if len(lost) else 0.0) - 0.05), 1)
    axis.set_ylim(-0.02, 1.02)
    style.unit_ticks(axis, "y")


def _middle(axis, own: pd.DataFrame, losses: pd.DataFrame) -> None:
    ordered = own.merge(losses[["loss", "family"]], on="loss").sort_values("value", ascending=False)
    for y, row in enumerate(ordered.rename(columns={"value": "mean"}).itertuples()):
        style.whiskers(axis, y, row, style.colour(row.family))
    style.names(axis, list(ordered["loss_label"]), 18)
    axis.set_xlabel("interquartile mean of Dice")


def _middle_says(means: pd.DataFrame) -> str:
    """Return who has the highest interquartile mean on each side, and whose intervals reach its own."""
    parts = []
    for name, own in means.groupby("part", sort=False):
        own = own.sort_values("value", ascending=False)
        top, rest = own.iloc[0], own.iloc[1:]
        # Intervals of one resampling of seeds: where they overlap nothing is said of an order.
        near = int((rest["high"] >= top["low"]).sum()) if np.isfinite(top["low"]) else len(rest)
        reached = f"intervals of {near} of {len(rest)} others reach it" if near else "no other reaches it"
        mean = f"the highest interquartile mean, {top['value']:.2f}"
        parts.append(f"{name}: {top['loss_label']} has {mean}, and {reached}")
    return "; ".join(parts)


def _ranks(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return metric -> mean rank of each loss (columns) on each data set; at least three losses, two sets."""
    # A ranking of two losses, or on one data set, says nothing that the leaderboard does not.
    shown = [metric for metric in METRICS if len(cells) and metric in cells and cells[metric].notna().any()]
    tables = {m: orders.rank_table(cells, m) for m in shown}
    return {metric: table for metric, table in tables.items() if table.shape[1] > 2 and len(table) > 1}


def _bars(data: pd.DataFrame) -> str:
    if data["critical_difference"].notna().any():
        return (
            "Bars are half the critical difference of Nemenyi's test to either side (up to "
            f"{data['critical_difference'].max():.2f} ranks): losses whose bars do not overlap differ at the "
            "5 % level. "
        )
    if (data["drawn"] == "seeds").all():
        kind = "seeds are drawn anew: on so few sources of data they say nothing of other data"
    else:
        kind = "data sets are drawn anew, all levels of one generator together"
    return f"Bars are 95 % percentile intervals when {kind}. "


def _rank_panel(axis, part: pd.DataFrame, ranks: pd.DataFrame, order: list[str]) -> None:
    for row in _bounded(part).itertuples():
        y, color = order.index(row.loss), style.colour(row.family)
        own = ranks[row.loss]
        axis.plot(own, np.full(len(own), y), "|", color=color, alpha=0.45, markersize=6, zorder=2)
        style.whiskers(axis, y, row, color)
    axis.grid(axis="y", visible=False)
