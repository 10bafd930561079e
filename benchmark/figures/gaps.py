"""Figure 12: what a loss gains over cross-entropy, at 0.5 and at the threshold chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmark.figures import NothingToDraw, figure, parts, points, style

LINEAR = 1.0  # points
ARMS = (("0.5", "dice@0.5", True, 0.97), ("val", "dice@val", False, 1.03))


@figure("dice_gap", number=12, title="Dice score minus that of cross-entropy, at 0.5 and at the validation threshold")
def dice_gap(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: paired difference of the Dice score to CE, in points (hundredths), against the foreground
    fraction.
    """
    cells = parts.of_parts(tables["cells"], "ladder")
    if "dice@0.5" not in cells or "dice@val" not in cells or "ce" not in set(cells.get("loss", ())):
        raise NothingToDraw("needs cells of ce and of another loss")
    place = points.real_marks(points.places(cells))
    losses = style.ordered(cells[cells["loss"] != "ce"])
    data = []
    for arm, column, _, _ in ARMS:
        data.append(points.gaps(cells, "ce", column).assign(arm=arm))
    data = pd.concat(data, ignore_index=True).merge(place, on=["dataset", "recipe"]).merge(losses, on="loss")
    if not len(data):
        raise NothingToDraw("needs blocks that hold ce and another loss")
    for column in ("mean", "low", "high"):
        data[column] = 100 * data[column]
    limits = _limits(data)
    rows, columns = style.shape(len(losses), 5)
    drawing, axes = style.canvas(rows, columns, 0.7 + 2.05 * rows, sharex=True, sharey=True)
    ladder = place.loc[place["ladder"] != "", "x"].tolist() or place["x"].tolist()
    for axis, loss in zip(axes.flat, losses.itertuples(), strict=False):
        axis.axhline(0, color=style.SOFT, linewidth=0.9, zorder=1)
        color = style.colour(loss.family)
        for arm, _, filled, shift in ARMS:
            part = data[(data["loss"] == loss.loss) & (data["arm"] == arm)]
            points.draw(axis, part, limits, color=color, filled=filled, shift=shift)
        axis.set_title(style.fitting(loss.loss_label, 24), color=color)
        _scale(axis, limits)
        style.foreground_axis(axis, ladder)
    style.hide_rest(axes, len(losses))
    _legend(drawing, place)
    drawing.supxlabel("foreground fraction, %", fontsize=9)
    drawing.supylabel("Dice minus that of ce, points", fontsize=9)
    says = (
        "Above zero the loss scores higher than cross-entropy on the same blocks. Filled: masks at 0.5; open: threshold chosen on the "
        "validation split, for both losses. What the open marks lose against the filled ones was the threshold (C10). Points are means of "
        "paired differences over seeds, bars 95 % t intervals, cut at the axis. The axis is linear within one point of zero, logarithmic beyond. "
        + style.evidence(cells)
    )
    kept = ["loss", "loss_label", "family", "dataset", "label", "recipe", "x", "arm", "mean", "low", "high", "n"]
    return drawing, data[kept].rename(columns={"x": "foreground"}), says, _alt(data, losses)


def _limits(data: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold zero and every mean."""
    means = data["mean"].dropna()
    return float(1.35 * min(means.min(), -LINEAR)), float(1.35 * max(means.max(), LINEAR))


def _scale(axis, limits: tuple[float, float]) -> None:
    """Linear within a point of zero and logarithmic beyond, since gaps of half a point and of fifty stand side by side."""
    axis.set_yscale("symlog", linthresh=LINEAR, linscale=0.6)
    ticks = [sign * t for sign in (-1, 1) for t in (1, 3, 10, 30, 100) if limits[0] <= sign * t <= limits[1]]
    axis.set_yticks([0, *ticks], ["0", *(f"{t:+g}".replace("-", "−") for t in ticks)])
    axis.minorticks_off()
    axis.set_ylim(*limits)


def _legend(drawing, place: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "marker": "o", "markersize": 5}
    handles = [
        Line2D([], [], **look, label="at 0.5"),
        Line2D([], [], **look, linestyle=(0, (4, 1.6)), markerfacecolor=style.PAPER, label="at the validation threshold"),
        *points.real_legend(place),
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def _alt(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    rarest = data["x"].min()
    at = data[data["x"] == rarest].pivot_table(index="loss", columns="arm", values="mean")
    parts = [
        f"{row.loss_label} {at.loc[row.loss, '0.5']:+.1f} at 0.5 and {at.loc[row.loss, 'val']:+.1f} at the validation threshold"
        for row in losses.itertuples()
        if row.loss in at.index
    ]
    return f"Small panels, one a loss. At {style.percent(rarest)} foreground the difference to cross-entropy in points is: " + "; ".join(parts) + "."
