"""Figure 18: the order of the losses by each metric: does it depend on what is measured?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.analysis import mean_ranks
from benchmark.figures import NothingToDraw, figure, parts, style

METRICS = {
    "dice@0.5": "Dice at 0.5",
    "dice@val": "Dice, validation threshold",
    "nsd_1@0.5": "surface Dice, 1 px",
    "hd95@0.5": "Hausdorff distance, 95 %",
    "log_size_ratio_hard@0.5": "region size, hard",
    "log_size_ratio_soft": "region size, soft",
    "ece": "calibration error",
    "nll": "log-likelihood",
}


@figure("rankings", number=18, title="Mean rank of each loss, by metric")
def rankings(tables: Mapping[str, pd.DataFrame]):
    """One panel a metric: mean rank over data sets with interval, and the rank on each data set."""
    cells = parts.of_parts(tables["cells"], "ladder", "public")
    shown = {m: title for m, title in METRICS.items() if m in cells and cells[m].notna().any()}
    tables_of = {m: mean_ranks.rank_table(cells, m, absolute=m.startswith("log_size")) for m in shown} if len(cells) else {}
    tables_of = {m: ranks for m, ranks in tables_of.items() if ranks.shape[1] > 2 and len(ranks) > 1}
    if not tables_of:
        raise NothingToDraw("needs at least three losses that were all trained on the same two data sets or more")
    data = pd.concat([mean_ranks.bootstrap(ranks).assign(metric=m) for m, ranks in tables_of.items()], ignore_index=True)
    used = cells[cells["loss"].isin(data["loss"])]
    losses = style.ordered(used)
    data = data.merge(losses, on="loss")
    first = data[data["metric"] == data["metric"].iloc[0]].sort_values(["mean", "loss_label"])
    order = list(first["loss"]) + [loss for loss in losses["loss"] if loss not in set(first["loss"])]
    data["critical_difference"] = [mean_ranks.critical_difference(tables_of[m].shape[1], len(tables_of[m])) for m in data["metric"]]
    rows, columns = style.shape(len(tables_of), 4)
    drawing, axes = style.canvas(rows, columns, 0.5 + rows * (0.55 + 0.23 * len(order)), sharex=True, sharey=True)
    for axis, (metric, ranks) in zip(axes.flat, tables_of.items(), strict=False):
        _panel(axis, data[data["metric"] == metric], ranks, order)
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
        f"Ranks within each block, mean over seeds (ticks: one a data set) and then over {sets} data sets (dots); losses in the order of the first "
        "panel. Region size is ranked by its distance to the truth. "
        + (_bars(data) if data["critical_difference"].notna().any() else BOOTSTRAP)
        + "A rank depends on which losses take part; the paired differences elsewhere do not. "
    ) + style.evidence(used)
    tops = data.sort_values("mean").groupby("metric", sort=False).head(1).set_index("metric")
    alt = "Best mean rank: " + "; ".join(f"{shown[m]}: {tops.loc[m, 'loss_label']} {tops.loc[m, 'mean']:.1f}" for m in tables_of) + "."
    return drawing, data[["metric", "loss", "loss_label", "family", "mean", "low", "high", "n", "critical_difference"]], says, alt


BOOTSTRAP = (
    f"Bars are 95 % percentile intervals when data sets are drawn anew; with fewer than {mean_ranks.ENOUGH} data sets no critical difference is "
    "shown. "
)


def _bars(data: pd.DataFrame) -> str:
    return (
        f"Bars are half the critical difference of Nemenyi's test to either side (up to {data['critical_difference'].max():.2f} ranks): losses whose "
        "bars do not overlap differ at the 5 % level. "
    )


def _panel(axis, part: pd.DataFrame, ranks: pd.DataFrame, order: list[str]) -> None:
    for row in part.itertuples():
        y, color = order.index(row.loss), style.colour(row.family)
        half = row.critical_difference / 2
        low, high = (row.mean - half, row.mean + half) if np.isfinite(half) else (row.low, row.high)
        axis.plot(ranks[row.loss], np.full(len(ranks), y), "|", color=color, alpha=0.45, markersize=6, zorder=2)
        axis.hlines(y, low, high, color=color, linewidth=1.4, zorder=3)
        axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=4)
    axis.grid(axis="y", visible=False)
