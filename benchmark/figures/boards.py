"""The leaderboard as a picture: every data set, every loss, with its seeds, its interval and who may be the best."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmark.analysis.ranks import leaderboard
from benchmark.figures import NothingToDraw, figure, style

MOST = 12  # panels


@figure("leaderboard", number=19, title="Dice score by data set and loss")
def board(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean at 0.5 with interval and single seeds, and the mean at the validation threshold."""
    cells = tables["cells"]
    if "dice@0.5" not in cells or not len(cells):
        raise NothingToDraw("needs cells with a Dice score")
    data = leaderboard(cells, "dice@0.5")
    tuned = cells.groupby(["dataset", "recipe", "loss"], observed=True)["dice@val"].mean().rename("mean_val").reset_index()
    data = data.merge(tuned, on=["dataset", "recipe", "loss"])
    labels = cells.drop_duplicates(["dataset", "recipe"]).set_index(["dataset", "recipe"])["data_label"]
    wanted = _wanted(cells)
    several = len({recipe for _, recipe in wanted}) > 1
    rows, columns = style.shape(len(wanted), 3)
    most = max(len(data[(data["dataset"] == d) & (data["recipe"] == r)]) for d, r in wanted)
    drawing, axes = style.canvas(rows, columns, 0.6 + rows * (0.55 + 0.215 * most))
    for axis, (dataset, recipe) in zip(axes.flat, wanted, strict=False):
        part = data[(data["dataset"] == dataset) & (data["recipe"] == recipe)].sort_values("place", ascending=False).reset_index(drop=True)
        own = cells[(cells["dataset"] == dataset) & (cells["recipe"] == recipe)]
        for y, row in enumerate(part.itertuples()):
            color = style.colour(row.family)
            seeds = own.loc[own["loss"] == row.loss, "dice@0.5"]
            axis.plot(seeds, [y] * len(seeds), "|", color=color, alpha=0.55, markersize=7, zorder=2)
            axis.hlines(y, row.low, row.high, color=color, linewidth=1.3, zorder=2)
            axis.plot([row.mean], [y], "o", color=color, markersize=5.5, zorder=4)
            axis.plot([row.mean_val], [y], "D", color=color, markerfacecolor=style.PAPER, markersize=4.5, zorder=3)
        axis.set_yticks(range(len(part)), [f"{'• ' if row.best else ''}{style.fitting(row.loss_label, 24)}" for row in part.itertuples()])
        for text, row in zip(axis.get_yticklabels(), part.itertuples(), strict=True):
            text.set_fontweight("bold" if row.best else "normal")
        axis.set_title(style.fitting(f"{labels[dataset, recipe]}{f' · {recipe}' if several else ''}"))
        axis.grid(axis="y", visible=False)
        axis.set_ylim(-0.6, len(part) - 0.4)
        _scale(axis, part, own)
    for axis in list(axes.flat)[len(wanted) :]:
        axis.set_axis_off()
    _legend(drawing)
    drawing.supxlabel("Dice (mean over images, then classes)", fontsize=9)
    left = len(data.drop_duplicates(["dataset", "recipe"])) - len(wanted)
    says = (
        "Bold with a dot: may be the best, that is, no other loss is shown to beat it on the same blocks (one-sided paired t tests, the best is "
        "among them with 95 % confidence). Bars are 95 % t intervals over seeds; they show the spread of a single loss and must not be compared "
        "by eye, since the losses of a seed share start and batches. " + (f"{left} more data set variants stand in the tables. " if left else "")
    ) + style.evidence(cells)
    tops = data[data["place"] == 1]
    alt = "Highest mean Dice at 0.5: " + "; ".join(f"{labels[r.dataset, r.recipe]}: {r.loss_label} {r.mean:.3f}" for r in tops.itertuples()) + "."
    return drawing, data, says, alt


def _wanted(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the data sets shown, rarest foreground first; those with the most cells where there are too many."""
    facts = cells.groupby(["dataset", "recipe"], observed=True).agg(n=("key", "size"), x=("foreground_true", "mean")).reset_index()
    facts = facts.sort_values(["n", "x", "dataset"], ascending=[False, True, True]).head(MOST)
    return list(facts.sort_values(["x", "dataset"])[["dataset", "recipe"]].itertuples(index=False, name=None))


def _scale(axis, part: pd.DataFrame, own: pd.DataFrame) -> None:
    """Show all means; intervals and seeds may leave the panel, as those of a loss that collapsed in one seed do."""
    low = min(part["mean"].min(), part["mean_val"].min(), own["dice@0.5"].quantile(0.1))
    high = max(part["mean"].max(), part["mean_val"].max(), own["dice@0.5"].max())
    pad = max(0.08 * (high - low), 0.005)
    axis.set_xlim(max(low - pad, -0.01), min(high + pad, 1.01))


def _legend(drawing) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "linestyle": ""}
    handles = [
        Line2D([], [], **look, marker="o", markersize=5.5, label="mean at 0.5"),
        Line2D([], [], **look, marker="|", markersize=7, label="single seeds"),
        Line2D([], [], **look, marker="D", markersize=4.5, markerfacecolor=style.PAPER, label="mean at the validation threshold"),
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=3)
