"""Figure 9: what an uncertain boundary does to the predicted volume, beside what theory says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.selection import numbers
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory import boundaries

SHIFT, RIM = "data.boundary_shift", "data.rim"

SIZES = (("hard", "log_size_ratio_hard@0.5", True, -0.006), ("soft", "log_size_ratio_soft", False, 0.006))

# Which theory a loss has: the field of boundaries.Shifted for its mask, and for its summed probability.
THEORY = {"ce": ("ce", "soft"), "dice": ("image", "image"), "batch_dice": ("batch", "batch")}

LINEAR = 10.0  # percent: the axis is linear up to here, logarithmic beyond

MOST = 300.0


@figure("volume_bias", number=9, title="Bias of the predicted volume where the boundary is uncertain")
def volume_bias(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: bias in percent of mask and summed probability against the spread of the boundary,
    with theory lines.
    """
    cells = points.of_parts(tables["cells"], "uncertain")
    cells = cells.assign(**{SHIFT: numbers(cells, SHIFT)})
    if SIZES[0][1] not in cells or cells[SHIFT].nunique() < 2:
        raise NothingToDraw("needs cells of scenes at two or more boundary shifts")
    cells = cells[cells[SHIFT].notna()]
    losses = style.ordered(cells)
    losses = (
        losses[losses["loss"].isin(THEORY)].reset_index(drop=True)
        if losses["loss"].isin(THEORY).any()
        else losses.head(3)
    )
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
            [*ticks, *([at] if len(rims) else [])],
            [*(f"{t:g}".removeprefix("0") or "0" for t in ticks), *(["rim"] if len(rims) else [])],
        )
        axis.set_title(style.fitting(loss.loss_label), color=style.colour(loss.family))
        _scale(axis, reach)
        axis.set_xlim(-0.04, np.nanmax([last, at]) + 0.05)
    axes[0][0].set_ylabel("bias of the volume, %")
    drawing.supxlabel("spread of the boundary, standard deviation / radius", fontsize=9)
    _legend(drawing, bool(len(rims)))
    says = (
        "Bias: predicted over labelled volume, minus one, over the whole test split; geometric means "
        "over seeds, bars 95 % t intervals; the axis is "
        "linear up to 10 %, logarithmic beyond. Lines and crosses are the optimum of each loss for a "
        "disc with a normally distributed radius: "
        "cross-entropy's summed probability has no bias and its mask is too small, Dice of each "
        "image is too small, Dice over the batch too large"
        + ("; 'rim': a ring whose pixels are labelled independently. " if len(rims) else ". ")
    ) + style.evidence(cells)
    return drawing, data.drop(columns="x"), says, _alt(data, losses, last)


def measured(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each data set variant and loss, hard and soft, with what theory needs to
    know of the data.
    """
    where = cells.assign(
        shift=cells[SHIFT],
        rim=numbers(cells, RIM) if RIM in cells else 0.0,
        rim_probability=numbers(cells, "data.rim_probability"),
        pixels=numbers(cells, "data.foreground") * numbers(cells, "data.size") ** 2,
    )
    facts = where.drop_duplicates(["dataset", "recipe"])[
        ["dataset", "recipe", "data_label", "shift", "rim", "rim_probability", "pixels"]
    ]
    found = [points.means(cells, column).assign(kind=kind) for kind, column, _, _ in SIZES if column in cells]
    data = pd.concat(found, ignore_index=True).merge(facts, on=["dataset", "recipe"])
    for column in ("mean", "low", "high"):
        data[column] = 100 * np.expm1(data[column])
    return data.merge(cells.drop_duplicates("loss")[["loss", "loss_label"]], on="loss")


def theory(losses, data: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each loss's optimum: along the shift, and for each rim of the data."""
    shifted = {
        float(s): boundaries.shifted_boundary(float(s))
        for s in np.linspace(0.02, max(data["shift"].max(), 0.02), 20)
    }
    rims = data.loc[
        (data["rim"] > 0) & data["pixels"].notna(), ["rim", "rim_probability", "pixels"]
    ].drop_duplicates()
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
    """Return the optima for a core and a ring of independent pixels that together hold ``rim.pixels``
    expected ones.
    """
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
            axis.plot(
                [x], [y], "x", color=style.SOFT, markersize=7, markeredgewidth=1.6, zorder=2, clip_on=False
            )
        seen = part[part["kind"] == kind].sort_values("x")
        x = seen["x"].to_numpy() + aside
        y, outside = style.clipped(seen["mean"].to_numpy(), *limits)
        axis.vlines(
            x, seen["low"].clip(*limits), seen["high"].clip(*limits), color=color, linewidth=1.2, zorder=3
        )
        face = color if filled else style.PAPER
        axis.plot(x[~outside], y[~outside], "o", color=color, markerfacecolor=face, markersize=5.5, zorder=4)
        for a, b in zip(x[outside], y[outside], strict=True):
            axis.plot(
                [a],
                [b],
                "^" if b > 0 else "v",
                color=color,
                markerfacecolor=face,
                markersize=6,
                zorder=4,
                clip_on=False,
            )


def _legend(drawing, rims: bool) -> None:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "markersize": 5.5}
    handles = [
        Line2D([], [], **look, marker="o", linestyle="", label="mask at 0.5 (hard)"),
        Line2D(
            [],
            [],
            **look,
            marker="o",
            linestyle="",
            markerfacecolor=style.PAPER,
            label="summed probability (soft)",
        ),
        Line2D([], [], **look, linewidth=1.2, label="theory, hard"),
        Line2D([], [], **look, linewidth=1.2, linestyle=style.DASHES[1], label="theory, soft"),
    ]
    if rims:
        handles.append(
            Line2D([], [], **look, marker="x", markeredgewidth=1.6, linestyle="", label="theory, rim")
        )
    drawing.legend(handles=handles, loc="outside upper center", ncols=5)


def _alt(data: pd.DataFrame, losses: pd.DataFrame, last: float) -> str:
    seen = data[(data["shift"] == last) & (data["rim"] == 0) & data["kind"].isin(["hard", "soft"])]
    told = [
        f"{row.loss_label} "
        + ", ".join(
            f"{kind} {mean:+.1f} %"
            for kind, mean in seen[seen["loss"] == row.loss].groupby("kind")["mean"].mean().items()
        )
        for row in losses.itertuples()
    ]
    return f"Bias of the volume at the largest spread of the boundary ({last:g}): " + "; ".join(told) + "."


# --- Figure 16: may a predicted probability be believed: reliability diagrams and calibration errors.

PANELS, LOSSES = 4, 6

FEWEST = 100  # pixels that a bin must hold to be drawn

ERROR = "ece"


@figure("reliability", number=16, title="Reliability of the predicted probabilities, and calibration error")
def reliability(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; top: frequency of the foreground by predicted probability; below: calibration
    error of every loss.
    """
    cells, bins = points.of_parts(tables["cells"], "ladder"), tables.get("reliability")
    if (
        bins is None
        or not len(cells)
        or ERROR not in cells
        or "frequency" not in bins
        or not bins["key"].isin(cells["key"]).any()
    ):
        raise NothingToDraw("needs cells with reliability diagrams")
    losses = style.ordered(cells)
    wanted = points.spread_evenly(points.rarest_first(cells), PANELS)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    first = losses.head(LOSSES)
    data = pooled(bins[bins["region"] == "all"], cells[cells["loss"].isin(first["loss"])])
    errors = points.means(cells.assign(log_error=np.log(cells[ERROR].where(cells[ERROR] > 0))), "log_error")
    for column in ("mean", "low", "high"):
        errors[column] = np.exp(errors[column])
    drawing, grid = style.grid(
        2, len(wanted), 3.1 + 0.55 + 0.19 * len(losses), height_ratios=[2.6, 0.45 + 0.19 * len(losses)]
    )
    looks = style.lines(first)
    upper = [drawing.add_subplot(grid[0, i]) for i in range(len(wanted))]
    lower = [drawing.add_subplot(grid[1, i]) for i in range(len(wanted))]
    for place, variant in enumerate(wanted.itertuples()):
        _diagram(upper[place], points.of_variant(data, variant), looks)
        upper[place].set_title(style.fitting(variant.label))
        _errors(lower[place], points.of_variant(errors, variant), losses, errors["mean"], named=place == 0)
        if place:
            upper[place].set_yticklabels([])
    upper[0].set_ylabel("frequency of foreground")
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], **looks[row.loss], markersize=5, label=row.loss_label) for row in first.itertuples()
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=6)
    left = len(losses) - len(first)
    says = (
        "Top: pixels of all test images and seeds in 15 equal bins of predicted probability (bins "
        f"with fewer than {FEWEST} pixels are left out); on "
        "the diagonal the probability can be taken at its word, below it the network claims too "
        "much. Bottom: class-wise expected calibration error "
        "over all pixels, geometric means and 95 % t intervals over seeds, lower is better; it shrinks with "
        "the foreground, so compare within a panel. "
        + (f"{left} more losses are in the lower row only. " if left > 0 else "")
    ) + style.evidence(cells)
    rarest = wanted.iloc[0]
    told = points.of_variant(errors, rarest).merge(losses, on="loss")
    alt = (
        f"Calibration error on {rarest['label']}: "
        + ", ".join(f"{r.loss_label} {r.mean:.2g}" for r in told.itertuples())
        + "."
    )
    errors = errors.merge(wanted[["dataset", "recipe", "label"]], on=["dataset", "recipe"]).rename(
        columns={"mean": ERROR, "n": "seeds"}
    )
    return drawing, pd.concat([data, errors], ignore_index=True).drop(columns="recipe"), says, alt


def pooled(bins: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return probability and frequency of each bin, pixels pooled over the seeds and foreground classes of a
    data set and loss.
    """
    joined = bins.merge(cells[["key", "dataset", "recipe", "data_label", "loss"]], on="key")
    held = joined[joined["n"] > 0]
    n = held["n"].astype(float)
    held = held.assign(
        pixels=n, summed=n * held["probability"].astype(float), true=n * held["frequency"].astype(float)
    )
    grouped = (
        held.groupby(["dataset", "recipe", "data_label", "loss", "bin"], observed=True, sort=True)[
            ["pixels", "summed", "true"]
        ]
        .sum()
        .reset_index()
    )
    grouped = grouped[grouped["pixels"] >= FEWEST]
    grouped = grouped.assign(
        probability=grouped["summed"] / grouped["pixels"], frequency=grouped["true"] / grouped["pixels"]
    )
    return grouped.rename(columns={"data_label": "label"}).drop(columns=["summed", "true"])


def _diagram(axis, own: pd.DataFrame, looks: dict) -> None:
    axis.plot([0, 1], [0, 1], color=style.SOFT, linewidth=0.9, zorder=1)
    for loss, look in looks.items():
        part = own[own["loss"] == loss].sort_values("bin")
        axis.plot(
            part["probability"], part["frequency"], **(look | {"linewidth": 1.3, "markersize": 3.5}), zorder=3
        )
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
    axis.set_yticks(
        range(len(losses)), [style.fitting(label, 20) for label in losses["loss_label"]] if named else []
    )
    axis.set_ylim(len(losses) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    style.log_axis(axis, everywhere, "x")
    axis.set_xlabel("calibration error (ECE)")
