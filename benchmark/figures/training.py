"""Figure 8: how each loss gets there: validation Dice and soft region size while training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.figures import NothingToDraw, figure, style

PANELS, LOSSES = 4, 8


@figure("training_curves", number=8, title="Validation Dice and soft region size during training")
def training_curves(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; lines are means over seeds, bands their range."""
    cells, curves = tables["cells"], tables.get("curves")
    if curves is None or not len(curves) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with training curves")
    losses = style.ordered(cells).head(LOSSES)
    wanted = _wanted(cells)
    joined = curves.merge(cells[["key", "dataset", "recipe", "data_label", "loss", "loss_label", "family"]], on="key")
    joined = joined[joined["loss"].isin(losses["loss"])]
    shown = [c for c in ("val_dice", "size_ratio_soft") if c in joined and joined[c].notna().any()]
    data = joined.groupby(["dataset", "recipe", "data_label", "loss", "loss_label", "step"], observed=True, sort=True)[shown]
    data = data.agg(["mean", "min", "max", "count"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    data = data.reset_index()
    drawing, axes = style.canvas(len(shown), len(wanted), 0.75 + 2.1 * len(shown), sharex="col", sharey="row")
    looks = style.lines(losses)
    for column, (dataset, recipe) in enumerate(wanted):
        own = data[(data["dataset"] == dataset) & (data["recipe"] == recipe)]
        for row, name in enumerate(shown):
            axis = axes[row][column]
            for loss in losses["loss"]:
                part = own[own["loss"] == loss]
                look = looks[loss] | {"markersize": 3.5, "linewidth": 1.4}
                axis.plot(part["step"], part[f"{name} mean"], **look)
                axis.fill_between(part["step"], part[f"{name} min"], part[f"{name} max"], color=look["color"], alpha=0.1, linewidth=0)
            if name == "size_ratio_soft":
                axis.axhline(1, color=style.SOFT, linewidth=0.9, zorder=1)
                _size_axis(axis, data[f"{name} mean"])
            if row == 0:
                axis.set_title(style.fitting(own["data_label"].iloc[0], 26))
    axes[0][0].set_ylabel("validation Dice at 0.5")
    if len(shown) > 1:
        axes[1][0].set_ylabel("soft size, predicted / true")
    drawing.supxlabel("optimiser step", fontsize=9)
    _legend(drawing, losses, looks)
    left = cells["loss"].nunique() - len(losses)
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed. A soft size still far from 1 at the last step means that the "
        "network had not finished learning how much foreground there is. "
        + (f"{left} more losses are in the tables. " if left > 0 else "")
        + style.evidence(cells)
    )
    last = data.sort_values("step").groupby(["dataset", "loss_label"], observed=True).last()["val_dice mean"]
    first = wanted[0][0]
    alt = f"At the last step on {first} validation Dice is " + ", ".join(f"{k} {v:.2f}" for k, v in last.loc[first].items()) + "."
    return drawing, data, says, alt


def _wanted(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Return up to four data sets spread evenly from the rarest to the commonest foreground."""
    facts = cells.groupby(["dataset", "recipe"], observed=True)["foreground_true"].mean().sort_values(kind="stable")
    picks = np.unique(np.linspace(0, len(facts) - 1, min(PANELS, len(facts))).round().astype(int))
    return [facts.index[i] for i in picks]


def _size_axis(axis, values: pd.Series) -> None:
    """Show at least half to double, and at most a factor 64 either way."""
    axis.set_yscale("log")
    logs = np.log(values.where(values > 0)).dropna()
    low = float(np.clip(logs.min() - 0.15 if len(logs) else 0, -np.log(64), -np.log(2)))
    high = float(np.clip(logs.max() + 0.15 if len(logs) else 0, np.log(2), np.log(64)))
    axis.set_ylim(np.exp(low), np.exp(high))
    ticks = [t for t in (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16, 64) if np.exp(low) <= t <= np.exp(high)]
    axis.set_yticks(ticks, [f"1/{round(1 / t)}" if t < 1 else f"{t:g}" for t in ticks])
    axis.minorticks_off()


def _legend(drawing, losses: pd.DataFrame, looks: dict) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row.loss], markersize=4, label=row.loss_label) for row in losses.itertuples()]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))
