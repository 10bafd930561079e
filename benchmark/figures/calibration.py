"""Figure 16: may a predicted probability be believed: reliability diagrams and calibration errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.figures import NothingToDraw, figure, parts, points, style

PANELS, LOSSES = 4, 6
FEWEST = 100  # pixels that a bin must hold to be drawn
ERROR = "ece"


@figure("reliability", number=16, title="Reliability of the predicted probabilities, and calibration error")
def reliability(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; top: frequency of the foreground by predicted probability; below: calibration error of every loss."""
    cells, bins = parts.of_parts(tables["cells"], "ladder"), tables.get("reliability")
    if bins is None or not len(cells) or ERROR not in cells or "frequency" not in bins or not bins["key"].isin(cells["key"]).any():
        raise NothingToDraw("needs cells with reliability diagrams")
    losses = style.ordered(cells)
    wanted = parts.spread_evenly(parts.rarest_first(cells), PANELS)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    first = losses.head(LOSSES)
    data = pooled(bins[bins["region"] == "all"], cells[cells["loss"].isin(first["loss"])])
    errors = points.means(cells.assign(log_error=np.log(cells[ERROR].where(cells[ERROR] > 0))), "log_error")
    for column in ("mean", "low", "high"):
        errors[column] = np.exp(errors[column])
    drawing, grid = style.grid(2, len(wanted), 3.1 + 0.55 + 0.19 * len(losses), height_ratios=[2.6, 0.45 + 0.19 * len(losses)])
    looks = style.lines(first)
    upper = [drawing.add_subplot(grid[0, i]) for i in range(len(wanted))]
    lower = [drawing.add_subplot(grid[1, i]) for i in range(len(wanted))]
    for place, variant in enumerate(wanted.itertuples()):
        _diagram(upper[place], parts.of_variant(data, variant), looks)
        upper[place].set_title(style.fitting(variant.label))
        _errors(lower[place], parts.of_variant(errors, variant), losses, errors["mean"], named=place == 0)
        if place:
            upper[place].set_yticklabels([])
    upper[0].set_ylabel("frequency of foreground")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in first.itertuples()]
    drawing.legend(handles=handles, loc="outside upper center", ncols=6)
    left = len(losses) - len(first)
    says = (
        f"Top: pixels of all test images and seeds in 15 equal bins of predicted probability (bins with fewer than {FEWEST} pixels are left out); on "
        "the diagonal the probability can be taken at its word, below it the network claims too much. Bottom: class-wise expected calibration error "
        "over all pixels, geometric means and 95 % t intervals over seeds, lower is better; it shrinks with "
        "the foreground, so compare within a panel. " + (f"{left} more losses are in the lower row only. " if left > 0 else "")
    ) + style.evidence(cells)
    rarest = wanted.iloc[0]
    told = parts.of_variant(errors, rarest).merge(losses, on="loss")
    alt = f"Calibration error on {rarest['label']}: " + ", ".join(f"{r.loss_label} {r.mean:.2g}" for r in told.itertuples()) + "."
    errors = errors.merge(wanted[["dataset", "recipe", "label"]], on=["dataset", "recipe"]).rename(columns={"mean": ERROR, "n": "seeds"})
    return drawing, pd.concat([data, errors], ignore_index=True).drop(columns="recipe"), says, alt


def pooled(bins: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return probability and frequency of each bin, pixels pooled over the seeds and foreground classes of a data set and loss."""
    joined = bins.merge(cells[["key", "dataset", "recipe", "data_label", "loss"]], on="key")
    held = joined[joined["n"] > 0]
    n = held["n"].astype(float)
    held = held.assign(pixels=n, summed=n * held["probability"].astype(float), true=n * held["frequency"].astype(float))
    grouped = (
        held.groupby(["dataset", "recipe", "data_label", "loss", "bin"], observed=True, sort=True)[["pixels", "summed", "true"]].sum().reset_index()
    )
    grouped = grouped[grouped["pixels"] >= FEWEST]
    grouped = grouped.assign(probability=grouped["summed"] / grouped["pixels"], frequency=grouped["true"] / grouped["pixels"])
    return grouped.rename(columns={"data_label": "label"}).drop(columns=["summed", "true"])


def _diagram(axis, own: pd.DataFrame, looks: dict) -> None:
    axis.plot([0, 1], [0, 1], color=style.SOFT, linewidth=0.9, zorder=1)
    for loss, look in looks.items():
        part = own[own["loss"] == loss].sort_values("bin")
        axis.plot(part["probability"], part["frequency"], **(look | {"linewidth": 1.3, "markersize": 3.5}), zorder=3)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axis.set_xlabel("predicted probability")


def _errors(axis, own: pd.DataFrame, losses: pd.DataFrame, everywhere: pd.Series, named: bool) -> None:
    for y, loss in enumerate(losses.itertuples()):
        for row in own[own["loss"] == loss.loss].itertuples():
            color = style.colour(loss.family)
            axis.hlines(y, row.low, row.high, color=color, linewidth=1.2, zorder=2)
            axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=3)
    axis.set_yticks(range(len(losses)), [style.fitting(label, 20) for label in losses["loss_label"]] if named else [])
    axis.set_ylim(len(losses) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    style.log_axis(axis, everywhere, "x")
    axis.set_xlabel("calibration error (ECE)")
