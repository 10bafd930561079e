"""Figure 12: what a loss gains over cross-entropy, at 0.5 and at the threshold chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

LINEAR = 1.0  # points

ARMS = (("0.5", "dice@0.5", True, 0.97), ("val", "dice@val", False, 1.03))


@figure(
    "dice_gap",
    number=12,
    title="Dice score minus that of cross-entropy, at 0.5 and at the validation threshold",
)
def dice_gap(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: paired difference of the Dice score to CE, in points (hundredths), against the
    foreground fraction.
    """
    cells = points.of_parts(tables["cells"], "ladder")
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
        "Above zero the loss scores higher than cross-entropy on the same blocks. Filled: masks at "
        "0.5; open: threshold chosen on the "
        "validation split, for both losses. What the open marks lose against the filled ones was the "
        "threshold (C10). Points are means of "
        "paired differences over seeds, bars 95 % t intervals, cut at the axis. The axis is linear "
        "within one point of zero, logarithmic beyond. " + style.evidence(cells)
    )
    kept = [
        "loss",
        "loss_label",
        "family",
        "dataset",
        "label",
        "recipe",
        "x",
        "arm",
        "mean",
        "low",
        "high",
        "n",
    ]
    return drawing, data[kept].rename(columns={"x": "foreground"}), says, _alt(data, losses)


def _limits(data: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold zero and every mean."""
    means = data["mean"].dropna()
    return float(1.35 * min(means.min(), -LINEAR)), float(1.35 * max(means.max(), LINEAR))


def _scale(axis, limits: tuple[float, float]) -> None:
    """Linear within a point of zero and logarithmic beyond, since gaps of half a point and of fifty stand
    side by side.
    """
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
        Line2D(
            [],
            [],
            **look,
            linestyle=(0, (4, 1.6)),
            markerfacecolor=style.PAPER,
            label="at the validation threshold",
        ),
        *points.real_legend(place),
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5))


def _alt(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    rarest = data["x"].min()
    at = data[data["x"] == rarest].pivot_table(index="loss", columns="arm", values="mean")
    parts = [
        (
            f"{row.loss_label} {at.loc[row.loss, '0.5']:+.1f} at 0.5 and {at.loc[row.loss, 'val']:+.1f} "
            "at the validation threshold"
        )
        for row in losses.itertuples()
        if row.loss in at.index
    ]
    return (
        (
            f"Small panels, one a loss. At {style.percent(rarest)} foreground the difference to "
            "cross-entropy in points is: "
        )
        + "; ".join(parts)
        + "."
    )


# --- Figure 13: how the Dice score depends on the threshold, and where theory puts the best one for
# cross-entropy.

PANELS, LOSSES = 4, 6


@figure("threshold_curves", number=13, title="Dice over the threshold, on the validation images")
def threshold_curves(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean validation Dice of each loss at the thresholds .01 to .99, with half the
    best Dice of CE.
    """
    cells, curves = points.of_parts(tables["cells"], "ladder"), tables.get("thresholds")
    if curves is None or not len(cells) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with threshold curves")
    losses = style.ordered(cells).head(LOSSES)
    wanted = points.spread_evenly(points.rarest_first(cells), PANELS)
    left = cells["loss"].nunique() - len(losses)
    cells = cells[cells["loss"].isin(losses["loss"])].merge(
        wanted[["dataset", "recipe"]], on=["dataset", "recipe"]
    )
    joined = curves.merge(cells[["key", "dataset", "recipe", "data_label", "loss", "loss_label"]], on="key")
    if not joined["val_dice"].notna().any():
        raise NothingToDraw("needs cells with threshold curves")
    grouped = joined.groupby(
        ["dataset", "recipe", "data_label", "loss", "loss_label", "threshold"], observed=True, sort=True
    )
    data = (
        grouped["val_dice"].agg(["mean", "min", "max", "count"]).reset_index().rename(columns={"count": "n"})
    )
    drawing, axes = style.canvas(1, len(wanted), 3.4, sharex=True)
    looks = style.lines(losses)
    told = []
    for axis, variant in zip(axes[0], wanted.itertuples(), strict=True):
        own = points.of_variant(data, variant)
        half = _panel(axis, own, losses, looks)
        axis.set_title(style.fitting(variant.label))
        if half is not None:
            best = own[own["loss"] == "ce"].sort_values("mean").iloc[-1]
            told.append(f"{variant.label}: best threshold of ce {best['threshold']:.2f}, D*/2 {half:.2f}")
    axes[0][0].set_ylabel("validation Dice")
    drawing.supxlabel("threshold on the foreground probability", fontsize=9)
    _cut_legend(drawing, losses, looks, bool(told))
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed; a mark stands at "
        "the best threshold of each mean. For a true "
        "posterior the threshold with the highest Dice is D*/2, half the Dice that it reaches: the "
        "vertical line is half the best Dice of "
        "cross-entropy. A flat line, as Dice itself gives, means that there is nothing left to "
        "choose. Every panel has its own scale. "
        + (f"{left} more losses are in the tables. " if left > 0 else "")
        + style.evidence(cells)
    )
    alt = (
        "Dice over the threshold. "
        + ("; ".join(told) if told else f"{len(losses)} losses on {len(wanted)} data sets")
        + "."
    )
    return drawing, data, says, alt


def _panel(axis, own: pd.DataFrame, losses: pd.DataFrame, looks: dict) -> float | None:
    """Draw one panel; returns D*/2, half the best mean Dice of CE, where CE is there."""
    half = None
    for row in losses.itertuples():
        part = own[own["loss"] == row.loss].sort_values("threshold")
        if not part["mean"].notna().any():
            continue
        look = looks[row.loss]
        axis.plot(
            part["threshold"],
            part["mean"],
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=1.5,
            zorder=3,
        )
        axis.fill_between(
            part["threshold"], part["min"], part["max"], color=look["color"], alpha=0.08, linewidth=0
        )
        best = part.loc[part["mean"].idxmax()]
        axis.plot(
            [best["threshold"]],
            [best["mean"]],
            marker=look["marker"],
            color=look["color"],
            markersize=5.5,
            zorder=4,
        )
        if row.loss == "ce":
            half = float(best["mean"]) / 2
    if half is not None:
        axis.axvline(half, color=style.INK, linewidth=1, linestyle=style.DASHES[1], zorder=2)
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    top = float(own["max"].max())
    shown = own.groupby("loss", observed=True)["mean"].max().min()
    # The foot of the panel: well below the worst loss's best, but never so low that all tops look alike.
    low = np.clip(float(shown) - 0.35 * top, 0, 0.75 * top) if np.isfinite(shown) else 0.0
    axis.set_ylim(low, top + 0.04 * (top - low) + 1e-3)
    return half


def _cut_legend(drawing, losses: pd.DataFrame, looks: dict, half: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in losses.itertuples()
    ]
    if half:
        handles.append(
            Line2D([], [], color=style.INK, linewidth=1, linestyle=style.DASHES[1], label="D*/2 of ce")
        )
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7))
