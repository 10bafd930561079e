"""Figure 15: who finds the small objects: Dice by the size of the true object."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmark.analysis.selection import numbers
from benchmark.figures import NothingToDraw, figure, parts, points, style

ARMS = (("0.5", "at 0.5"), ("val", "at the validation threshold"))
FIFTHS = range(1, 6)
LOSSES = 8


@figure("object_sizes", number=15, title="Dice by the size of the true object")
def object_sizes(tables: Mapping[str, pd.DataFrame]):
    """One row a data set, at 0.5 and at the validation threshold: mean Dice in each fifth of the test images by true size."""
    cells = parts.of_parts(tables["cells"], "sizes")
    arms = [(arm, title) for arm, title in ARMS if f"dice_q1@{arm}" in cells and cells[f"dice_q1@{arm}"].notna().any()]
    if not arms:
        raise NothingToDraw("needs cells whose test images differ in the size of their objects")
    cells = cells[cells[f"dice_q1@{arms[0][0]}"].notna()]
    wanted = parts.rarest_first(cells)
    made = numbers(cells, "data.size_ratio") > 1
    if made.any():  # sizes were made to differ: show these
        wanted = parts.rarest_first(cells[made])
    wanted = parts.spread_evenly(wanted, 2)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    losses = style.ordered(cells).head(LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    found = [points.means(cells, f"dice_q{q}@{arm}").assign(fifth=q, arm=arm) for arm, _ in arms for q in FIFTHS if f"dice_q{q}@{arm}" in cells]
    data = pd.concat(found, ignore_index=True).merge(wanted[["dataset", "recipe", "label"]], on=["dataset", "recipe"]).merge(losses, on="loss")
    drawing, axes = style.canvas(len(wanted), len(arms), 0.8 + 2.7 * len(wanted), sharex=True, sharey="row")
    looks = style.lines(losses)
    for row, variant in enumerate(wanted.itertuples()):
        for axis, (arm, title) in zip(axes[row], arms, strict=True):
            own = parts.of_variant(data[data["arm"] == arm], variant)
            for place, loss in enumerate(losses["loss"]):
                part = own[own["loss"] == loss].sort_values("fifth")
                x = part["fifth"] + 0.07 * (place - (len(losses) - 1) / 2)
                axis.vlines(x, part["low"], part["high"], color=looks[loss]["color"], linewidth=1.1, zorder=2)
                axis.plot(x, part["mean"], **looks[loss], markersize=5, zorder=3)
            axis.set_title(f"{style.fitting(variant.label, 28)}, {title}")
            axis.set_xticks(list(FIFTHS), ["smallest\nfifth", "2nd", "3rd", "4th", "largest\nfifth"])
            axis.set_ylim(_foot(parts.of_variant(data, variant)), None)
        axes[row][0].set_ylabel("Dice")
    _legend(drawing, losses, looks)
    says = (
        "Test images (with an object) in fifths by true size; means over images, then seeds; bars 95 % t intervals over seeds, side by side so that "
        "they can be seen. If per-image Dice weighs small and large objects alike and cross-entropy lets the large ones dominate, Dice is ahead on "
        "the left of the left panels; what is gone in the right panels was the threshold. "
    ) + style.evidence(cells)
    own = parts.of_variant(data[(data["arm"] == arms[0][0]) & (data["fifth"] == 1)], wanted.iloc[0])
    alt = "Mean Dice of the smallest fifth: " + ", ".join(f"{r.loss_label} {r.mean:.2f}" for r in own.itertuples()) + "."
    return drawing, data[["dataset", "label", "loss", "loss_label", "family", "arm", "fifth", "mean", "low", "high", "n"]], says, alt


def _foot(data: pd.DataFrame) -> float:
    """Return the foot of the axis: a little below all means; intervals of few seeds may leave it."""
    low, high = data["mean"].min(), data["mean"].max()
    return max(low - 0.35 * max(high - low, 0.05), -0.02)


def _legend(drawing, losses: pd.DataFrame, looks: dict) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in losses.itertuples()]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))
