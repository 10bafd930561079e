"""Figure 9: what an uncertain boundary does to the predicted volume, beside what theory says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.analysis.selection import numbers
from benchmark.figures import NothingToDraw, figure, parts, points, style
from benchmark.theory import boundaries

SHIFT, RIM = "data.boundary_shift", "data.rim"
SIZES = (("hard", "log_size_ratio_hard@0.5", True, -0.006), ("soft", "log_size_ratio_soft", False, 0.006))
# Which theory a loss has: the field of boundaries.Shifted for its mask, and for its summed probability.
THEORY = {"ce": ("ce", "soft"), "dice": ("image", "image"), "batch_dice": ("batch", "batch")}
LINEAR = 10.0  # percent: the axis is linear up to here, logarithmic beyond
MOST = 300.0


@figure("volume_bias", number=9, title="Bias of the predicted volume where the boundary is uncertain")
def volume_bias(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: bias in percent of mask and summed probability against the spread of the boundary, with theory lines."""
    cells = parts.of_parts(tables["cells"], "uncertain")
    cells = cells.assign(**{SHIFT: numbers(cells, SHIFT)})
    if SIZES[0][1] not in cells or cells[SHIFT].nunique() < 2:
        raise NothingToDraw("needs cells of scenes at two or more boundary shifts")
    cells = cells[cells[SHIFT].notna()]
    losses = style.ordered(cells)
    losses = losses[losses["loss"].isin(THEORY)].reset_index(drop=True) if losses["loss"].isin(THEORY).any() else losses.head(3)
    cells = cells[cells["loss"].isin(losses["loss"])]
    data = measured(cells)
    rims = data.loc[data["rim"] > 0, ["rim", "rim_probability", "pixels"]].drop_duplicates()
    data = pd.concat([data, theory(losses["loss"], data)], ignore_index=True)
    last = data["shift"].max()
    at = last + 0.1 if len(rims) else np.nan
    data["x"] = np.where(data["rim"] > 0, at, data["shift"])
    reach = min(1.2 * max(data["mean"].abs().max(), LINEAR), MOST)
    drawing, axes = style.canvas(1, len(losses), 3.6, sharex=True, sharey=True)
    for axis, loss in zip(axes[0], losses.itertuples(), strict=True):
        _panel(axis, data[data["loss"] == loss.loss], style.colour(loss.family), reach)
        ticks = sorted(data.loc[(data["rim"] == 0) & (data["kind"] != "theory"), "shift"].unique())
        axis.set_xticks(
            [*ticks, *([at] if len(rims) else [])], [*(f"{t:g}".removeprefix("0") or "0" for t in ticks), *(["rim"] if len(rims) else [])]
        )
        axis.set_title(style.fitting(loss.loss_label), color=style.colour(loss.family))
        _scale(axis, reach)
        axis.set_xlim(-0.04, np.nanmax([last, at]) + 0.05)
    axes[0][0].set_ylabel("bias of the volume, %")
    drawing.supxlabel("spread of the boundary, standard deviation / radius", fontsize=9)
    _legend(drawing, bool(len(rims)))
    says = (
        "Bias: predicted over labelled volume, minus one, over the whole test split; geometric means over seeds, bars 95 % t intervals; the axis is "
        "linear up to 10 %, logarithmic beyond. Lines and crosses are the optimum of each loss for a disc with a normally distributed radius: "
        "cross-entropy's summed probability has no bias and its mask is too small, Dice of each image is too small, Dice over the batch too large"
        + ("; 'rim': a ring whose pixels are labelled independently. " if len(rims) else ". ")
    ) + style.evidence(cells)
    return drawing, data.drop(columns="x"), says, _alt(data, losses, last)


def measured(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each data set variant and loss, hard and soft, with what theory needs to know of the data."""
    where = cells.assign(
        shift=cells[SHIFT],
        rim=numbers(cells, RIM) if RIM in cells else 0.0,
        rim_probability=numbers(cells, "data.rim_probability"),
        pixels=numbers(cells, "data.foreground") * numbers(cells, "data.size") ** 2,
    )
    facts = where.drop_duplicates(["dataset", "recipe"])[["dataset", "recipe", "data_label", "shift", "rim", "rim_probability", "pixels"]]
    found = [points.means(cells, column).assign(kind=kind) for kind, column, _, _ in SIZES if column in cells]
    data = pd.concat(found, ignore_index=True).merge(facts, on=["dataset", "recipe"])
    for column in ("mean", "low", "high"):
        data[column] = 100 * np.expm1(data[column])
    return data.merge(cells.drop_duplicates("loss")[["loss", "loss_label"]], on="loss")


def theory(losses, data: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each loss's optimum: along the shift, and for each rim of the data."""
    shifted = {float(s): boundaries.shifted_boundary(float(s)) for s in np.linspace(0.02, max(data["shift"].max(), 0.02), 20)}
    rims = data.loc[(data["rim"] > 0) & data["pixels"].notna(), ["rim", "rim_probability", "pixels"]].drop_duplicates()
    rings = [(rim.rim, _ring(rim)) for rim in rims.itertuples()]
    rows = []
    for loss in losses:
        for size, field in zip(("hard", "soft"), THEORY.get(loss, ()), strict=False):
            rows += [(loss, size, spread, 0.0, getattr(found, field)) for spread, found in shifted.items()]
            bias = {"ce": lambda ring: ring.ce, "soft": lambda ring: 0.0}.get(field, lambda ring: ring.dice)
            rows += [(loss, size, 0.0, rim, bias(ring)) for rim, ring in rings]
    found = pd.DataFrame(rows, columns=["loss", "of", "shift", "rim", "mean"])
    return found.assign(kind="theory", mean=100 * found["mean"])


def _ring(rim) -> boundaries.Volumes:
    """Return the optima for a core and a ring of independent pixels that together hold ``rim.pixels`` expected ones."""
    core, ring = rim.pixels * (1 - rim.rim), rim.pixels * rim.rim / rim.rim_probability
    return boundaries.uncertain_rim(round(core), round(ring), rim.rim_probability)


def _scale(axis, reach: float) -> None:
    axis.set_yscale("symlog", linthresh=LINEAR, linscale=1)
    ticks = [sign * t for t in (5, 10, 20, 50, 100, 200) for sign in (-1, 1) if t <= reach]
    axis.set_yticks([0, *ticks], ["0", *(f"{t:+d}".replace("-", "−") for t in ticks)])
    axis.minorticks_off()
    axis.set_ylim(-reach, reach)


def _panel(axis, part: pd.DataFrame, color: str, reach: float) -> None:
    axis.axhline(0, color=style.SOFT, linewidth=0.9, zorder=1)
    limits = (-reach, reach)
    for kind, _, filled, aside in SIZES:
        dash = "-" if filled else style.DASHES[1]
        expected = part[(part["kind"] == "theory") & (part["of"] == kind)]
        line = expected[expected["rim"] == 0].sort_values("shift")
        axis.plot(line["x"], line["mean"], color=style.SOFT, linestyle=dash, linewidth=1.2, zorder=2)
        ring = expected[expected["rim"] > 0]
        for x, y in zip(ring["x"] + aside, ring["mean"].clip(*limits), strict=True):
            axis.plot([x], [y], "x", color=style.SOFT, markersize=7, markeredgewidth=1.6, zorder=2, clip_on=False)
        seen = part[part["kind"] == kind].sort_values("x")
        x = seen["x"].to_numpy() + aside
        y, outside = style.clipped(seen["mean"].to_numpy(), *limits)
        axis.vlines(x, seen["low"].clip(*limits), seen["high"].clip(*limits), color=color, linewidth=1.2, zorder=3)
        face = color if filled else style.PAPER
        axis.plot(x[~outside], y[~outside], "o", color=color, markerfacecolor=face, markersize=5.5, zorder=4)
        for a, b in zip(x[outside], y[outside], strict=True):
            axis.plot([a], [b], "^" if b > 0 else "v", color=color, markerfacecolor=face, markersize=6, zorder=4, clip_on=False)


def _legend(drawing, rims: bool) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "markersize": 5.5}
    handles = [
        Line2D([], [], **look, marker="o", linestyle="", label="mask at 0.5 (hard)"),
        Line2D([], [], **look, marker="o", linestyle="", markerfacecolor=style.PAPER, label="summed probability (soft)"),
        Line2D([], [], **look, linewidth=1.2, label="theory, hard"),
        Line2D([], [], **look, linewidth=1.2, linestyle=style.DASHES[1], label="theory, soft"),
    ]
    if rims:
        handles.append(Line2D([], [], **look, marker="x", markeredgewidth=1.6, linestyle="", label="theory, rim"))
    drawing.legend(handles=handles, loc="outside upper center", ncols=5)


def _alt(data: pd.DataFrame, losses: pd.DataFrame, last: float) -> str:
    seen = data[(data["shift"] == last) & (data["rim"] == 0) & data["kind"].isin(["hard", "soft"])]
    told = [
        f"{row.loss_label} "
        + ", ".join(f"{kind} {mean:+.1f} %" for kind, mean in seen[seen["loss"] == row.loss].groupby("kind")["mean"].mean().items())
        for row in losses.itertuples()
    ]
    return f"Bias of the volume at the largest spread of the boundary ({last:g}): " + "; ".join(told) + "."
