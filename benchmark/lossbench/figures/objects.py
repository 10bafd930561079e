"""Figure 15: who finds the small objects: Dice by the size of the true object."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.selection import numbers
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

ARMS = (("0.5", "at 0.5"), ("val", "at the validation threshold"))

FIFTHS = range(1, 6)

LOSSES = 8


@figure("object_sizes", number=15, title="Dice by the size of the true object")
def object_sizes(tables: Mapping[str, pd.DataFrame]):
    """One row a data set, at 0.5 and at the validation threshold: mean Dice in each fifth of the test images
    by true size.
    """
    cells = points.of_parts(tables["cells"], "sizes")
    arms = [
        (arm, title)
        for arm, title in ARMS
        if f"dice_q1@{arm}" in cells and cells[f"dice_q1@{arm}"].notna().any()
    ]
    if not arms:
        raise NothingToDraw("needs cells whose test images differ in the size of their objects")
    cells = cells[cells[f"dice_q1@{arms[0][0]}"].notna()]
    wanted = points.rarest_first(cells)
    made = numbers(cells, "data.size_ratio") > 1
    if made.any():  # sizes were made to differ: show these
        wanted = points.rarest_first(cells[made])
    wanted = points.spread_evenly(wanted, 2)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    losses = style.ordered(cells).head(LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    found = [
        points.means(cells, f"dice_q{q}@{arm}").assign(fifth=q, arm=arm)
        for arm, _ in arms
        for q in FIFTHS
        if f"dice_q{q}@{arm}" in cells
    ]
    data = (
        pd.concat(found, ignore_index=True)
        .merge(wanted[["dataset", "recipe", "label"]], on=["dataset", "recipe"])
        .merge(losses, on="loss")
    )
    drawing, axes = style.canvas(len(wanted), len(arms), 0.8 + 2.7 * len(wanted), sharex=True, sharey="row")
    looks = style.lines(losses)
    for row, variant in enumerate(wanted.itertuples()):
        for axis, (arm, title) in zip(axes[row], arms, strict=True):
            own = points.of_variant(data[data["arm"] == arm], variant)
            for place, loss in enumerate(losses["loss"]):
                part = own[own["loss"] == loss].sort_values("fifth")
                x = part["fifth"] + 0.07 * (place - (len(losses) - 1) / 2)
                axis.vlines(x, part["low"], part["high"], color=looks[loss]["color"], linewidth=1.1, zorder=2)
                axis.plot(x, part["mean"], **looks[loss], markersize=5, zorder=3)
            axis.set_title(f"{style.fitting(variant.label, 28)}, {title}")
            axis.set_xticks(list(FIFTHS), ["smallest\nfifth", "2nd", "3rd", "4th", "largest\nfifth"])
            axis.set_ylim(_foot(points.of_variant(data, variant)), None)
        axes[row][0].set_ylabel("Dice")
    _legend(drawing, losses, looks)
    says = (
        "Test images (with an object) in fifths by true size; means over images, then seeds; bars 95 "
        "% t intervals over seeds, side by side so that "
        "they can be seen. If per-image Dice weighs small and large objects alike and cross-entropy "
        "lets the large ones dominate, Dice is ahead on "
        "the left of the left panels; what is gone in the right panels was the threshold. "
    ) + style.evidence(cells)
    own = points.of_variant(data[(data["arm"] == arms[0][0]) & (data["fifth"] == 1)], wanted.iloc[0])
    alt = (
        "Mean Dice of the smallest fifth: "
        + ", ".join(f"{r.loss_label} {r.mean:.2f}" for r in own.itertuples())
        + "."
    )
    return (
        drawing,
        data[
            ["dataset", "label", "loss", "loss_label", "family", "arm", "fifth", "mean", "low", "high", "n"]
        ],
        says,
        alt,
    )


def _foot(data: pd.DataFrame) -> float:
    """Return the foot of the axis: a little below all means; intervals of few seeds may leave it."""
    low, high = data["mean"].min(), data["mean"].max()
    return max(low - 0.35 * max(high - low, 0.05), -0.02)


def _legend(drawing, losses: pd.DataFrame, looks: dict) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in losses.itertuples()
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))


# --- Figure 11: how large the predicted region is, relative to the true one, as the foreground gets
# rarer.

HARD, SOFT = "log_size_ratio_hard@0.5", "log_size_ratio_soft"

BAND = 0.05  # 5 %: the margin of claims C2 and C3


@figure("size_ratio", number=11, title="Predicted over true region size, by loss and foreground fraction")
def size_ratio(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: size of the mask at 0.5 (hard) and summed probability (soft), geometric means over
    seeds.
    """
    cells = points.of_parts(tables["cells"], "ladder")
    if HARD not in cells or SOFT not in cells or not len(cells):
        raise NothingToDraw("needs cells with region sizes")
    place = points.real_marks(points.places(cells))
    losses = style.ordered(cells)
    data = []
    for name, column in (("hard", HARD), ("soft", SOFT)):
        rows = points.means(cells, column).merge(place, on=["dataset", "recipe"]).merge(losses, on="loss")
        data.append(rows.assign(size=name))
    data = pd.concat(data, ignore_index=True)
    for column in ("mean", "low", "high"):
        data[column] = np.exp(data[column])
    limits = _limits(data["mean"])
    rows, columns = style.shape(len(losses), 4)
    drawing, axes = style.canvas(rows, columns, 0.7 + 2.05 * rows, sharex=True, sharey=True)
    grey = data[(data["loss"] == losses["loss"].iloc[0]) & (data["size"] == "hard") & (data["ladder"] != "")]
    for axis, loss in zip(axes.flat, losses.itertuples(), strict=False):
        axis.axhspan(1 / (1 + BAND), 1 + BAND, color=style.RULE, alpha=0.6, linewidth=0, zorder=1)
        axis.axhline(1, color=style.SOFT, linewidth=0.9, zorder=1)
        if loss.Index:
            for _, part in grey.groupby("ladder"):
                part = part.sort_values("x")
                axis.plot(
                    part["x"], part["mean"].clip(*limits), color=style.SOFT, linewidth=1, alpha=0.55, zorder=1
                )
        color = style.colour(loss.family)
        for name, filled, shift in (("hard", True, 0.97), ("soft", False, 1.03)):
            part = data[(data["loss"] == loss.loss) & (data["size"] == name)]
            points.draw(axis, part, limits, color=color, filled=filled, shift=shift)
        axis.set_title(style.fitting(loss.loss_label), color=color)
        axis.set_yscale("log")
        _ratio_ticks(axis, limits)
        style.foreground_axis(
            axis,
            place["x"].tolist()
            if (place["ladder"] == "").all()
            else place.loc[place["ladder"] != "", "x"].tolist(),
        )
    style.hide_rest(axes, len(losses))
    _size_legend(drawing, place, losses["loss_label"].iloc[0], len(losses) > 1)
    drawing.supxlabel("foreground fraction, %", fontsize=9)
    drawing.supylabel("predicted / true region size", fontsize=9)
    says = (
        "Hard size: area of the mask at 0.5; soft size: summed probability; both over the whole test "
        "split. Points are geometric means over "
        "seeds, bars 95 % t intervals; the band is ±5 %, the thin line repeats the hard size of the "
        "first panel; "
        "arrow heads lie beyond the axis. " + style.evidence(cells)
    )
    alt = _alt(data, losses)
    kept = [
        "loss",
        "loss_label",
        "family",
        "dataset",
        "label",
        "recipe",
        "x",
        "size",
        "mean",
        "low",
        "high",
        "n",
    ]
    return drawing, data[kept].rename(columns={"x": "foreground"}), says, alt


def _limits(means: pd.Series) -> tuple[float, float]:
    """Return symmetric limits on the log axis: at least a factor 2, at most 16, wide enough for nearly all
    points.
    """
    size = np.abs(np.log(means.replace([0, np.inf], np.nan).dropna()))
    wide = np.clip(np.quantile(size, 0.97) * 1.1 if len(size) else 1.0, np.log(2), np.log(16))
    return float(np.exp(-wide)), float(np.exp(wide))


def _ratio_ticks(axis, limits: tuple[float, float]) -> None:
    ticks = [t for t in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16) if limits[0] <= t <= limits[1]]
    axis.set_yticks(ticks, [f"1/{round(1 / t)}" if t < 1 else f"{t:g}" for t in ticks])
    axis.set_ylim(limits[0] / 1.06, limits[1] * 1.06)
    axis.minorticks_off()


def _size_legend(drawing, place: pd.DataFrame, first: str, reference: bool) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "marker": "o", "markersize": 5}
    handles = [
        Line2D([], [], **look, label="mask at 0.5 (hard)"),
        Line2D(
            [],
            [],
            **look,
            linestyle=(0, (4, 1.6)),
            markerfacecolor=style.PAPER,
            label="summed probability (soft)",
        ),
    ]
    if reference:
        handles.append(Line2D([], [], color=style.SOFT, linewidth=1, alpha=0.55, label=f"{first}, hard"))
    handles += points.real_legend(place)
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def _alt(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    rarest = data["x"].min()
    hard = data[(data["x"] == rarest) & (data["size"] == "hard")].groupby("loss")["mean"].mean()
    parts = [
        f"{row.loss_label} {hard[row.loss]:.2f}" for row in losses.itertuples() if row.loss in hard.index
    ]
    return (
        (
            f"Small panels, one a loss. At {style.percent(rarest)} foreground the mask at 0.5 is this "
            "fraction of the true size: "
        )
        + ", ".join(parts)
        + "."
    )
