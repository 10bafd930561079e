"""The leaderboard as a picture: every data set, every loss, with its seeds, its interval and who may be the
best.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis import rankings as mean_ranks
from lossbench.analysis.rankings import leaderboard
from lossbench.base import columns
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

MOST = 12  # panels

WIDEST, COLUMNS = 3, 6  # panels in a row; a grid that one, two or three of them fill

ALIKE = 0.7  # panels whose numbers of losses differ less than this share rows


@figure("leaderboard", number=19, title="Dice score by data set and loss")
def board(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean at 0.5 with interval and single seeds, and the mean at the validation
    threshold.
    """
    # The usual recipe only: learning-rate arms and factorials answer questions of their own.
    cells = points.of_parts(tables["cells"], "ladder", "board", "public")
    if "dice@0.5" not in cells or not len(cells):
        raise NothingToDraw("needs cells with a Dice score")
    data = leaderboard(cells, "dice@0.5")
    keys = ["dataset", "recipe", "loss"]
    if "dice@val" in cells:
        tuned = cells.groupby(keys, observed=True)["dice@val"].mean().rename("mean_val").reset_index()
        data = data.merge(tuned, on=keys)
    else:
        data = data.assign(mean_val=np.nan)
    facts = points.rarest_first(cells)
    wanted = (
        facts.sort_values(["n", "foreground"], ascending=[False, True], kind="stable").head(MOST).sort_index()
    )
    several = wanted["recipe"].nunique() > 1 and wanted["label"].duplicated().any()
    drawing, panels = _panels(wanted, data.groupby(["dataset", "recipe"], observed=True)["loss"].nunique())
    for axis, variant in panels:
        own = points.of_variant(cells, variant)
        _panel(
            axis,
            points.of_variant(data, variant).sort_values("place", ascending=False).reset_index(drop=True),
            own,
        )
        axis.set_title(style.fitting(f"{variant.label}{f' · {variant.recipe}' if several else ''}"))
    _legend(drawing)
    drawing.supxlabel("Dice (mean over images, then classes)", fontsize=9)
    left = len(facts) - len(wanted)
    says = (
        "Bold with a dot: may be the best, that is, no other loss is shown to beat it on the same "
        "blocks (one-sided paired t tests, the best is "
        "among them with 95 % confidence). Bars are 95 % t intervals over seeds; they show the "
        "spread of a single loss and must not be compared "
        "by eye, since the losses of a seed share start and batches. Every panel has its own scale. "
        + (f"{left} more data set variants stand in the tables. " if left else "")
    ) + style.evidence(cells)
    tops = data[data["place"] == 1].merge(facts, on=["dataset", "recipe"])
    alt = (
        "Highest mean Dice at 0.5: "
        + "; ".join(f"{r.label}: {r.loss_label} {r.mean:.3f}" for r in tops.itertuples())
        + "."
    )
    return drawing, data, says, alt


def _panels(wanted: pd.DataFrame, losses: pd.Series) -> tuple:
    """Return a drawing and (axis, variant) pairs; panels with about as many losses share rows, so that all
    rows of text are equally high.
    """
    counts = [int(losses.loc[row.dataset, row.recipe]) for row in wanted.itertuples()]
    order = sorted(zip(counts, wanted.itertuples(), strict=True), key=lambda pair: -pair[0])
    groups: list[list] = []
    for count, variant in order:
        if not groups or count < ALIKE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((count, variant))
    rows = []
    for group in groups:
        group = sorted(group, key=lambda pair: pair[1].Index)
        lines = style.shape(len(group), WIDEST)[0]
        rows += [group[len(group) * i // lines : len(group) * (i + 1) // lines] for i in range(lines)]
    heights = [0.62 + 0.175 * max(count for count, _ in row) for row in rows]
    drawing, grid = style.grid(len(rows), COLUMNS, 0.6 + sum(heights), height_ratios=heights)
    panels = []
    for place, row in enumerate(rows):
        span = COLUMNS // len(row)
        panels += [
            (drawing.add_subplot(grid[place, span * i : span * (i + 1)]), variant)
            for i, (_, variant) in enumerate(row)
        ]
    return drawing, panels


def _panel(axis, part: pd.DataFrame, own: pd.DataFrame) -> None:
    for y, row in enumerate(part.itertuples()):
        color = style.colour(row.family)
        seeds = own.loc[own["loss"] == row.loss, "dice@0.5"]
        axis.plot(seeds, [y] * len(seeds), "|", color=color, alpha=0.55, markersize=6, zorder=2)
        axis.hlines(y, row.low, row.high, color=color, linewidth=1.3, zorder=2)
        axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=4)
        axis.plot([row.mean_val], [y], "D", color=color, markerfacecolor=style.PAPER, markersize=4, zorder=3)
    axis.set_yticks(
        range(len(part)),
        [f"{'• ' if row.best else ''}{style.fitting(row.loss_label, 22)}" for row in part.itertuples()],
    )
    for text, row in zip(axis.get_yticklabels(), part.itertuples(), strict=True):
        text.set_fontweight("bold" if row.best else "normal")
    axis.grid(axis="y", visible=False)
    axis.set_ylim(-0.6, len(part) - 0.4)
    _scale(axis, part, own)


def _scale(axis, part: pd.DataFrame, own: pd.DataFrame) -> None:
    """Show all means; intervals and seeds may leave the panel, as those of a loss that collapsed in one seed
    do.
    """
    low = min(part["mean"].min(), part["mean_val"].min(), own["dice@0.5"].quantile(0.1))
    high = max(part["mean"].max(), part["mean_val"].max(), own["dice@0.5"].max())
    pad = max(0.08 * (high - low), 0.005)
    axis.xaxis.get_major_locator().set_params(
        nbins=min(8, 2 * len(axis.get_subplotspec().colspan))
    )  # four numbers fit a third of the page
    axis.set_xlim(max(low - pad, -0.01), min(high + pad, 1.01))


def _legend(drawing) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "linestyle": ""}
    handles = [
        Line2D([], [], **look, marker="o", markersize=5.5, label="mean at 0.5"),
        Line2D([], [], **look, marker="|", markersize=7, label="single seeds"),
        Line2D(
            [],
            [],
            **look,
            marker="D",
            markersize=4.5,
            markerfacecolor=style.PAPER,
            label="mean at the validation threshold",
        ),
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=3)


# --- Figure 18: the order of the losses by each metric: does it depend on what is measured?

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


@figure("rankings", number=18, title="Mean rank of each loss, by metric")
def rankings(tables: Mapping[str, pd.DataFrame]):
    """One panel a metric: mean rank over data sets with interval, and the rank on each data set."""
    cells = points.of_parts(tables["cells"], "ladder", "public")
    shown = {m: columns.title(m) for m in METRICS if m in cells and cells[m].notna().any()}
    tables_of = (
        {m: mean_ranks.rank_table(cells, m, absolute=columns.nearer_is_better(m)) for m in shown}
        if len(cells)
        else {}
    )
    tables_of = {m: ranks for m, ranks in tables_of.items() if ranks.shape[1] > 2 and len(ranks) > 1}
    if not tables_of:
        raise NothingToDraw(
            "needs at least three losses that were all trained on the same two data sets or more"
        )
    data = pd.concat(
        [mean_ranks.bootstrap(ranks).assign(metric=m) for m, ranks in tables_of.items()], ignore_index=True
    )
    used = cells[cells["loss"].isin(data["loss"])]
    losses = style.ordered(used)
    data = data.merge(losses, on="loss")
    first = data[data["metric"] == data["metric"].iloc[0]].sort_values(["mean", "loss_label"])
    order = list(first["loss"]) + [loss for loss in losses["loss"] if loss not in set(first["loss"])]
    data["critical_difference"] = [
        mean_ranks.critical_difference(tables_of[m].shape[1], len(tables_of[m])) for m in data["metric"]
    ]
    rows, wide = style.shape(len(tables_of), 4)
    drawing, axes = style.canvas(
        rows, wide, 0.5 + rows * (0.55 + 0.23 * len(order)), sharex=True, sharey=True
    )
    for axis, (metric, ranks) in zip(axes.flat, tables_of.items(), strict=False):
        _agreement_panel(axis, data[data["metric"] == metric], ranks, order)
        axis.set_title(shown[metric])
    labels = losses.set_index("loss")["loss_label"]
    axes[0][0].set_yticks(range(len(order)), [style.fitting(labels[loss], 20) for loss in order])
    axes[0][0].set_ylim(len(order) - 0.4, -0.6)
    axes[0][0].set_xlim(0.7, len(order) + 0.3)
    axes[0][0].set_xticks(range(1, len(order) + 1, max(1, len(order) // 6)))
    style.hide_rest(axes, len(tables_of))
    drawing.supxlabel("rank among the losses, 1 is best", fontsize=9)
    sets = max(map(len, tables_of.values()))
    says = (
        f"Ranks within each block, mean over seeds (ticks: one a data set) and then over {sets} data "
        "sets (dots); losses in the order of the first "
        "panel. Region size is ranked by its distance to the truth. "
        + (_bars(data) if data["critical_difference"].notna().any() else BOOTSTRAP)
        + "A rank depends on which losses take part; the paired differences elsewhere do not. "
    ) + style.evidence(used)
    tops = data.sort_values("mean").groupby("metric", sort=False).head(1).set_index("metric")
    alt = (
        "Best mean rank: "
        + "; ".join(f"{shown[m]}: {tops.loc[m, 'loss_label']} {tops.loc[m, 'mean']:.1f}" for m in tables_of)
        + "."
    )
    return (
        drawing,
        data[["metric", "loss", "loss_label", "family", "mean", "low", "high", "n", "critical_difference"]],
        says,
        alt,
    )


BOOTSTRAP = (
    "Bars are 95 % percentile intervals when data sets are drawn anew; with fewer than "
    f"{mean_ranks.ENOUGH} data sets no critical difference is "
    "shown. "
)


def _bars(data: pd.DataFrame) -> str:
    return (
        "Bars are half the critical difference of Nemenyi's test to either side (up to "
        f"{data['critical_difference'].max():.2f} ranks): losses whose "
        "bars do not overlap differ at the 5 % level. "
    )


def _agreement_panel(axis, part: pd.DataFrame, ranks: pd.DataFrame, order: list[str]) -> None:
    for row in part.itertuples():
        y, color = order.index(row.loss), style.colour(row.family)
        half = row.critical_difference / 2
        low, high = (row.mean - half, row.mean + half) if np.isfinite(half) else (row.low, row.high)
        axis.plot(
            ranks[row.loss], np.full(len(ranks), y), "|", color=color, alpha=0.45, markersize=6, zorder=2
        )
        axis.hlines(y, low, high, color=color, linewidth=1.4, zorder=3)
        axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=4)
    axis.grid(axis="y", visible=False)
