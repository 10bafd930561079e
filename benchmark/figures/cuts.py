"""Figure 13: how the Dice score depends on the threshold, and where theory puts the best one for cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.figures import NothingToDraw, figure, parts, style

PANELS, LOSSES = 4, 6


@figure("threshold_curves", number=13, title="Dice over the threshold, on the validation images")
def threshold_curves(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean validation Dice of each loss at the thresholds .01 to .99, with half the best Dice of CE."""
    cells, curves = parts.of_parts(tables["cells"], "ladder"), tables.get("thresholds")
    if curves is None or not len(cells) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with threshold curves")
    losses = style.ordered(cells).head(LOSSES)
    wanted = parts.spread_evenly(parts.rarest_first(cells), PANELS)
    left = cells["loss"].nunique() - len(losses)
    cells = cells[cells["loss"].isin(losses["loss"])].merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    joined = curves.merge(cells[["key", "dataset", "recipe", "data_label", "loss", "loss_label"]], on="key")
    if not joined["val_dice"].notna().any():
        raise NothingToDraw("needs cells with threshold curves")
    grouped = joined.groupby(["dataset", "recipe", "data_label", "loss", "loss_label", "threshold"], observed=True, sort=True)
    data = grouped["val_dice"].agg(["mean", "min", "max", "count"]).reset_index().rename(columns={"count": "n"})
    drawing, axes = style.canvas(1, len(wanted), 3.4, sharex=True)
    looks = style.lines(losses)
    told = []
    for axis, variant in zip(axes[0], wanted.itertuples(), strict=True):
        own = parts.of_variant(data, variant)
        half = _panel(axis, own, losses, looks)
        axis.set_title(style.fitting(variant.label))
        if half is not None:
            best = own[own["loss"] == "ce"].sort_values("mean").iloc[-1]
            told.append(f"{variant.label}: best threshold of ce {best['threshold']:.2f}, D*/2 {half:.2f}")
    axes[0][0].set_ylabel("validation Dice")
    drawing.supxlabel("threshold on the foreground probability", fontsize=9)
    _legend(drawing, losses, looks, bool(told))
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed; a mark stands at the best threshold of each mean. For a true "
        "posterior the threshold with the highest Dice is D*/2, half the Dice that it reaches: the vertical line is half the best Dice of "
        "cross-entropy. A flat line, as Dice itself gives, means that there is nothing left to choose. Every panel has its own scale. "
        + (f"{left} more losses are in the tables. " if left > 0 else "")
        + style.evidence(cells)
    )
    alt = "Dice over the threshold. " + ("; ".join(told) if told else f"{len(losses)} losses on {len(wanted)} data sets") + "."
    return drawing, data, says, alt


def _panel(axis, own: pd.DataFrame, losses: pd.DataFrame, looks: dict) -> float | None:
    """Draw one panel; returns D*/2, half the best mean Dice of CE, where CE is there."""
    half = None
    for row in losses.itertuples():
        part = own[own["loss"] == row.loss].sort_values("threshold")
        if not part["mean"].notna().any():
            continue
        look = looks[row.loss]
        axis.plot(part["threshold"], part["mean"], color=look["color"], linestyle=look["linestyle"], linewidth=1.5, zorder=3)
        axis.fill_between(part["threshold"], part["min"], part["max"], color=look["color"], alpha=0.08, linewidth=0)
        best = part.loc[part["mean"].idxmax()]
        axis.plot([best["threshold"]], [best["mean"]], marker=look["marker"], color=look["color"], markersize=5.5, zorder=4)
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


def _legend(drawing, losses: pd.DataFrame, looks: dict, half: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in losses.itertuples()]
    if half:
        handles.append(Line2D([], [], color=style.INK, linewidth=1, linestyle=style.DASHES[1], label="D*/2 of ce"))
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 7))
