"""Figure 8: how each loss gets there: validation Dice and soft region size while training, and how noisy the training loss is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.figures import NothingToDraw, figure, parts, points, style

PANELS, LOSSES = 4, 8
NOISE = "log_loss_noise"


@figure("training_curves", number=8, title="Validation Dice, soft region size and noise of the loss during training")
def training_curves(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; lines are means over seeds, bands their range; below, the noise of the training loss."""
    cells, curves = parts.first_of(tables["cells"], "curves", "ladder"), tables.get("curves")
    if curves is None or not len(cells) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with training curves")
    losses = style.ordered(cells).head(LOSSES)
    wanted = parts.spread_evenly(parts.rarest_first(cells), PANELS)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    left = cells["loss"].nunique() - len(losses)
    cells = cells[cells["loss"].isin(losses["loss"])]
    joined = curves.merge(cells[["key", "dataset", "recipe", "data_label", "loss", "loss_label", "family"]], on="key")
    shown = [c for c in ("val_dice", "size_ratio_soft") if c in joined and joined[c].notna().any()]
    if not shown:
        raise NothingToDraw("needs cells with training curves")
    data = joined.groupby(["dataset", "recipe", "data_label", "loss", "loss_label", "step"], observed=True, sort=True)[shown]
    data = data.agg(["mean", "min", "max", "count"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    data = data.reset_index()
    noise = _noise(cells)
    rows = len(shown) + (noise is not None)
    drawing, axes = style.canvas(rows, len(wanted), 0.75 + 2.1 * rows, sharey="row")
    looks = style.lines(losses)
    titles = parts.without_common(list(wanted["label"]))
    for column, variant in enumerate(wanted.itertuples()):
        own = parts.of_variant(data, variant)
        for row, name in enumerate(shown):
            axis = axes[row][column]
            _lines(axis, own, name, losses, looks)
            if name == "size_ratio_soft":
                axis.axhline(1, color=style.SOFT, linewidth=0.9, zorder=1)
                _size_axis(axis, data[f"{name} mean"])
            if row == 0:
                axis.set_title(style.fitting(titles[column], 27))
        axes[len(shown) - 1][column].set_xlabel("optimiser step")
        if noise is not None:
            _noise_panel(axes[-1][column], parts.of_variant(noise, variant), losses)
    axes[0][0].set_ylabel("validation Dice at 0.5")
    if len(shown) > 1:
        axes[1][0].set_ylabel("soft size, predicted / true")
    _legend(drawing, losses, looks)
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed. A soft size still far from 1 at the last step means that the "
        "network had not finished learning how much foreground there is. "
        + (NOISE_SAYS if noise is not None else "")
        + (f"{left} more losses are in the tables. " if left > 0 else "")
        + style.evidence(cells)
    )
    if noise is not None:
        data = pd.concat([data, noise.rename(columns={c: f"loss_noise {c}" for c in ("mean", "low", "high", "n")})], ignore_index=True)
    first = wanted.iloc[0]
    last = parts.of_variant(data, first).dropna(subset="step").sort_values("step").groupby("loss_label", observed=True)["val_dice mean"].last()
    alt = f"At the last step on {first['label']} validation Dice is " + ", ".join(f"{k} {v:.2f}" for k, v in last.items()) + "."
    return drawing, data, says, alt


NOISE_SAYS = (
    "Bottom: standard deviation of the training loss about its running median in the second half of training, as a share of its fall "
    "over the whole training; geometric means and 95 % t intervals over seeds. "
)


def _lines(axis, own: pd.DataFrame, name: str, losses: pd.DataFrame, looks: dict) -> None:
    many = own["step"].nunique() > 8
    for loss in losses["loss"]:
        part = own[own["loss"] == loss]
        look = looks[loss] | {"markersize": 3.5, "linewidth": 1.4, "markevery": 4 if many else 1}
        axis.plot(part["step"], part[f"{name} mean"], **look)
        axis.fill_between(part["step"], part[f"{name} min"], part[f"{name} max"], color=look["color"], alpha=0.1, linewidth=0)


def _noise(cells: pd.DataFrame) -> pd.DataFrame | None:
    """Return the noise of the training loss by data set and loss (geometric mean, interval), or None where it was not measured."""
    if NOISE not in cells or not cells[NOISE].notna().any():
        return None
    found = points.means(cells, NOISE)
    for column in ("mean", "low", "high"):
        found[column] = np.exp(found[column])
    labels = cells.drop_duplicates("loss")[["loss", "loss_label"]]
    return found.merge(labels, on="loss").merge(parts.rarest_first(cells)[["dataset", "recipe", "label"]].rename(columns={"label": "data_label"}))


def _noise_panel(axis, part: pd.DataFrame, losses: pd.DataFrame) -> None:
    for y, loss in enumerate(losses.itertuples()):
        for row in part[part["loss"] == loss.loss].itertuples():
            color = style.colour(loss.family)
            axis.hlines(y, row.low, row.high, color=color, linewidth=1.3, zorder=2)
            axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=3)
    axis.set_yticks(range(len(losses)), [style.fitting(label, 18) for label in losses["loss_label"]])
    axis.set_ylim(len(losses) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    style.log_axis(axis, part[["mean"]].to_numpy().ravel(), "x")
    axis.set_xlabel("noise of the loss / its fall")


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
