"""Who is ahead: every loss on every data set with its seeds, and the order of the losses by each metric."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis import boards as scores
from lossbench.analysis import rankings as orders
from lossbench.base import columns
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

MOST = 12  # panels

WIDEST, COLUMNS = 3, 6  # panels in a row; a grid that one, two or three of them fill

ALIKE = 0.7  # panels whose numbers of losses differ less than this share rows

HALF, TUNED = "dice@0.5", "dice@val"


@figure("leaderboard", number=19, title="Dice score by data set and loss")
def leaderboard(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean at 0.5 with interval and seeds, and the mean at the validation threshold."""
    # The usual recipe only: learning-rate arms and factorials answer questions of their own.
    cells = points.of_parts(tables["cells"], "ladder", "board", "public")
    if HALF not in cells or not len(cells):
        raise NothingToDraw("needs cells with a Dice score")
    data = scores.leaderboard(cells, HALF)
    keys = [*points.VARIANT, "loss"]
    tuned = cells.assign(mean_val=cells.get(TUNED, np.nan))
    data = data.merge(tuned.groupby(keys, observed=True)["mean_val"].mean().reset_index(), on=keys)
    facts = points.rarest_first(cells)
    # The data sets with most cells, in the order of their foreground.
    wanted = facts.sort_values(["n", "foreground"], ascending=[False, True], kind="stable").head(MOST)
    wanted = wanted.sort_index()
    # A recipe is named only where it is needed to tell two panels apart.
    several = wanted["recipe"].nunique() > 1 and wanted["label"].duplicated().any()
    drawing, panels = _panels(wanted, data.groupby(points.VARIANT, observed=True)["loss"].nunique())
    for axis, variant in panels:
        own = points.of_variant(data, variant).sort_values("place", ascending=False)
        _panel(axis, own.reset_index(drop=True), points.of_variant(cells, variant))
        name = f"{variant.label} · {variant.recipe}" if several else variant.label
        axis.set_title(style.fitting(name))
    # Marks in grey: colours say the family.
    soft = {"color": style.SOFT, "linestyle": ""}
    tuned_mark = {**soft, "marker": "D", "markersize": 4.5, "markerfacecolor": style.PAPER}
    marks = [
        style.key("mean at 0.5", **soft, marker="o", markersize=5.5),
        style.key("single seeds", **soft, marker="|", markersize=7),
        style.key("mean at the validation threshold", **tuned_mark),
    ]
    style.legend(drawing, marks, 3)
    drawing.supxlabel("Dice (mean over images, then classes)", fontsize=9)
    left = len(facts) - len(wanted)
    says = (
        "Bold with a dot: may be the best, that is, no other loss is shown to beat it on the same blocks "
        "(one-sided sign flips; the best is among them with 95 % confidence). Bars are 95 % t intervals "
        "over seeds of one loss and must not be compared by eye, since the losses of a seed share start and "
        "batches. Every panel has its own scale. "
        + (f"{left} more data set variants stand in the tables. " if left else "")
    ) + style.evidence(cells)
    # Place 1 is the highest mean; it need not be the only one that may be best.
    tops = data[data["place"] == 1].merge(facts, on=points.VARIANT)
    leaders = "; ".join(f"{row.label}: {row.loss_label} {row.mean:.3f}" for row in tops.itertuples())
    several_best = data.groupby(points.VARIANT, observed=True)["best"].sum() > 1
    finding = (
        f"More than one loss may be the best on {int(several_best.sum())} of {len(several_best)} data set "
        "variants"
    )
    return drawing, data, says, f"Highest mean Dice at 0.5: {leaders}.", finding


def _panels(wanted: pd.DataFrame, losses: pd.Series) -> tuple:
    """Return a drawing and (axis, variant) pairs.

    Panels with about as many losses share rows, so that all rows of text are equally high.
    """
    counted = [(int(losses.loc[row.dataset, row.recipe]), row) for row in wanted.itertuples()]
    groups: list[list] = []
    for count, variant in sorted(counted, key=lambda pair: -pair[0]):
        # A panel of five losses beside one of thirty would be mostly empty.
        if not groups or count < ALIKE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((count, variant))
    rows = []
    for group in groups:
        # Within a row by foreground again.
        group.sort(key=lambda pair: pair[1].Index)
        lines = style.shape(len(group), WIDEST)[0]
        rows += [group[len(group) * i // lines : len(group) * (i + 1) // lines] for i in range(lines)]
    heights = [0.62 + 0.175 * max(count for count, _ in row) for row in rows]
    drawing, grid = style.grid(len(rows), COLUMNS, 0.6 + sum(heights), height_ratios=heights)
    panels = []
    for place, row in enumerate(rows):
        # One, two or three panels fill the grid of six.
        span = COLUMNS // len(row)
        for i, (_, variant) in enumerate(row):
            panels.append((drawing.add_subplot(grid[place, span * i : span * (i + 1)]), variant))
    return drawing, panels


def _panel(axis, part: pd.DataFrame, own: pd.DataFrame) -> None:
    for y, row in enumerate(part.itertuples()):
        color = style.colour(row.family)
        # Every seed is shown, since intervals of few seeds hide an outlier.
        seeds = own.loc[own["loss"] == row.loss, HALF]
        axis.plot(seeds, [y] * len(seeds), "|", color=color, alpha=0.55, markersize=6, zorder=2)
        style.whiskers(axis, y, row, color)
        axis.plot([row.mean_val], [y], "D", color=color, markerfacecolor=style.PAPER, markersize=4, zorder=3)
    style.names(axis, [f"{'• ' if row.best else ''}{row.loss_label}" for row in part.itertuples()], 24)
    axis.set_ylim(-0.6, len(part) - 0.4)  # the first of the part is the last of the board
    for text, best in zip(axis.get_yticklabels(), part["best"], strict=True):
        text.set_fontweight("bold" if best else "normal")
    # All means are shown; intervals and seeds may leave the panel, as those of a loss that collapsed do.
    low = min(part["mean"].min(), part["mean_val"].min(), own[HALF].quantile(0.1))
    high = max(part["mean"].max(), part["mean_val"].max(), own[HALF].max())
    pad = max(0.08 * (high - low), 0.005)
    ticks = min(8, 2 * len(axis.get_subplotspec().colspan))  # four numbers fit a third of the page
    axis.xaxis.get_major_locator().set_params(nbins=ticks)
    axis.set_xlim(max(low - pad, -0.01), min(high + pad, 1.01))


METRICS = (
    "dice@0.5",
    "dice@val",
    "nsd_1@0.5",
    "hd95@0.5",
    "log_size_ratio_hard@0.5",
    "log_size_ratio_soft",
    "ece",
    "nll",
)

RANKS = ["metric", *points.LOSS, *points.SUMMARY, "critical_difference"]


@figure("rankings", number=18, title="Mean rank of each loss, by metric")
def rankings(tables: Mapping[str, pd.DataFrame]):
    """One panel a metric: mean rank over data sets with interval, and the rank on each data set."""
    cells = points.of_parts(tables["cells"], "ladder", "public")
    ranks = _ranks(cells)
    if not ranks:
        raise NothingToDraw(
            "needs at least three losses that were all trained on the same two data sets or more"
        )
    rows = []
    for metric, table in ranks.items():
        # NaN below ten data sets, where its approximation is not to be trusted.
        difference = orders.critical_difference(table.shape[1], len(table))
        rows.append(orders.bootstrap(table).assign(metric=metric, critical_difference=difference))
    data = pd.concat(rows, ignore_index=True)
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
        f"{_bars(data['critical_difference'])}A rank depends on which losses take part; the paired "
        "differences elsewhere do not. "
    ) + style.evidence(used)
    tops = data.sort_values("mean").drop_duplicates("metric").set_index("metric").loc[list(ranks)]
    best = "; ".join(f"{columns.title(r.Index)}: {r.loss_label} {r.mean:.1f}" for r in tops.itertuples())
    return drawing, data[RANKS], says, f"Best mean rank: {best}."


def _ranks(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return metric -> mean rank of each loss (columns) on each data set; at least three losses, two sets."""
    # A ranking of two losses, or on one data set, says nothing that the leaderboard does not.
    shown = [metric for metric in METRICS if len(cells) and metric in cells and cells[metric].notna().any()]
    tables = {m: orders.rank_table(cells, m) for m in shown}
    return {metric: table for metric, table in tables.items() if table.shape[1] > 2 and len(table) > 1}


def _bars(differences: pd.Series) -> str:
    if differences.notna().any():
        return (
            "Bars are half the critical difference of Nemenyi's test to either side (up to "
            f"{differences.max():.2f} ranks): losses whose bars do not overlap differ at the 5 % level. "
        )
    return (
        "Bars are 95 % percentile intervals when data sets are drawn anew; with fewer than "
        f"{orders.ENOUGH} data sets no critical difference is shown. "
    )


def _rank_panel(axis, part: pd.DataFrame, ranks: pd.DataFrame, order: list[str]) -> None:
    # Half to either side: bars that do not overlap differ by the critical difference.
    half = part["critical_difference"] / 2
    low, high = (part["mean"] - half).fillna(part["low"]), (part["mean"] + half).fillna(part["high"])
    for row in part.assign(low=low, high=high).itertuples():
        y, color = order.index(row.loss), style.colour(row.family)
        own = ranks[row.loss]
        axis.plot(own, np.full(len(own), y), "|", color=color, alpha=0.45, markersize=6, zorder=2)
        style.whiskers(axis, y, row, color)
    axis.grid(axis="y", visible=False)
