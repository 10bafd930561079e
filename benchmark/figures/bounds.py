"""Figure 5: how far the predicted proportions can be off at a given cross-entropy, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.analysis.selection import numbers
from benchmark.figures import NothingToDraw, figure, parts, style
from benchmark.theory.decomposition import size_error_bound

PANELS = 4
NEEDED = ("match_ce", "size_ce", "size_dice", "size_ratio_soft")
FLOOR = 1e-6  # proportions nearer than this are drawn there


@figure("size_bound", number=5, title="Cross-entropy bounds the error in region size")
def size_bound(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: total error of the predicted proportions against cross-entropy, on the validation images."""
    cells, curves = parts.of_parts(tables["cells"], "ladder"), tables.get("curves")
    two = cells[numbers(cells, "data.classes").fillna(2) == 2] if len(cells) else cells
    two = two[two["dataset_name"] == "scenes"] if len(two) else two
    if curves is None or not len(two) or not set(NEEDED) <= set(curves.columns):
        raise NothingToDraw("needs two-class cells of scenes whose curves hold the terms of the decomposition")
    wanted = parts.spread_evenly(parts.rarest_first(two), PANELS)
    data = curves.merge(two[["key", "dataset", "recipe", "data_label", "loss", "loss_label", "family", "seed"]], on="key")
    data = data.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    data = data.assign(ce=data["match_ce"].astype(float) + data["size_ce"].astype(float), error=proportion_error(data))
    data = data[np.isfinite(data["ce"]) & np.isfinite(data["error"])]
    if not len(data):
        raise NothingToDraw("needs two-class cells of scenes whose curves hold the terms of the decomposition")
    data["last"] = data["step"] == data.groupby("key")["step"].transform("max")
    data = data[data["last"] | (data["seed"] == data["seed"].min())]
    two = two[two["key"].isin(data["key"])]
    drawing, axes = style.canvas(1, len(wanted), 3.3, sharex=True, sharey=True)
    losses = style.ordered(two)
    span = np.array([data["ce"].min() / 1.5, data["ce"].max() * 1.5])
    bottom = max(FLOOR, data["error"].min() / 1.5)
    for axis, variant in zip(axes[0], wanted.itertuples(), strict=True):
        own = parts.of_variant(data, variant)
        axis.plot(span, [size_error_bound(ce) for ce in span], color=style.INK, linewidth=1.3, zorder=4)
        for family, part in own.groupby("family", observed=True, sort=False):
            color = style.colour(family)
            early, late = part[~part["last"]], part[part["last"]]
            axis.plot(early["ce"], early["error"].clip(lower=bottom), ".", color=color, alpha=0.3, markersize=3, markeredgewidth=0, zorder=2)
            axis.plot(late["ce"], late["error"].clip(lower=bottom), "o", color=color, markerfacecolor="none", markersize=4, zorder=3)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.set_title(style.fitting(variant.label))
        axis.set_ylim(bottom / 1.3, size_error_bound(span[1]) * 1.5)
    drawing.supxlabel("cross-entropy on the validation images, nats a pixel", fontsize=9)
    axes[0][0].set_ylabel("error of proportions, Σ|p̂ − ŷ|")
    style.family_legend(drawing, losses, _handles())
    held = float((data["error"] <= [size_error_bound(ce) * (1 + 1e-4) for ce in data["ce"].clip(lower=0)]).mean())
    share = data[data["last"]].groupby("loss_label", observed=True)["error"].median()
    says = (
        "One mark a training: circles at its last step; dots at the earlier validated steps of the first seed. The line is the bound √(2 CE) on the "
        "summed error of the two classes' predicted proportions (chain rule and Pinsker's inequality): whatever loss was trained, no network can "
        f"lie above it, and a low cross-entropy forces the size to be right ({100 * held:.4g} % of {len(data)} marks lie below). A high one leaves "
        "it open. "
    ) + style.evidence(two)
    alt = "Median error of the proportions at the last step: " + ", ".join(f"{k} {v:.2g}" for k, v in share.items()) + "; all below the bound."
    kept = ["key", "data_label", "loss_label", "family", "seed", "step", "ce", "size_ce", "error", "last"]
    return drawing, data[kept], says, alt


def proportion_error(curves: pd.DataFrame) -> pd.Series:
    """Return sum_k |ph_k - yh_k| of two classes, from what the curves hold of the foreground: r = ph / yh and log(ph + yh).

    |ph - yh| = (ph + yh) |r - 1| / (r + 1), and the background is off by the same amount.
    """
    r, both = curves["size_ratio_soft"].astype(float), np.exp(curves["size_dice"].astype(float))
    return 2 * both * (r - 1).abs() / (r + 1)


def _handles() -> list:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "linestyle": ""}
    return [
        Line2D([], [], **look, marker="o", markerfacecolor="none", markersize=4.5, label="last step"),
        Line2D([], [], **look, marker=".", markersize=4, label="earlier"),
        Line2D([], [], color=style.INK, linewidth=1.3, label="bound √(2 CE)"),
    ]
