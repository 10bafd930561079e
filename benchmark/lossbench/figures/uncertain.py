"""May a prediction be believed: its volume where the boundary is uncertain, and its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

import numpy as np
import pandas as pd

from lossbench.analysis.seeds import numbers
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory import boundaries

SHIFT, RIM = "data.boundary_shift", "data.rim"

# kind, column, filled, shift along the x axis
SIZES = (("hard", "log_size_ratio_hard@0.5", True, -0.006), ("soft", "log_size_ratio_soft", False, 0.006))

# Which theory a loss has: the field of boundaries.Shifted for its mask, and for its summed probability.
THEORY = {"ce": ("ce", "soft"), "dice": ("image", "image"), "batch_dice": ("batch", "batch")}

LINEAR = 10.0  # percent: the axis is nearly linear up to here, logarithmic beyond

MOST = 300.0  # percent: the axis ends here at the latest

RING = ["rim", "rim_probability", "pixels"]


@figure("volume_bias", number=9, title="Bias of the predicted volume where the boundary is uncertain")
def volume_bias(tables: Mapping[str, pd.DataFrame]):
    """One panel a loss: bias in percent, hard and soft, over the spread of the boundary, beside theory."""
    cells, left_out = points.usual(points.of_parts(tables["cells"], "uncertain"))
    cells = cells.assign(**{SHIFT: numbers(cells, SHIFT)})
    if SIZES[0][1] not in cells or cells[SHIFT].nunique() < 2:
        raise NothingToDraw("needs cells of scenes at two or more boundary shifts")
    cells = cells[cells[SHIFT].notna()]
    losses = style.ordered(cells)
    # Losses with a theory, if any was trained; else the first three without one.
    known = losses[losses["loss"].isin(THEORY)].reset_index(drop=True)
    losses = known if len(known) else losses.head(3)
    cells = cells[cells["loss"].isin(losses["loss"])]
    data = measured(cells)
    data = pd.concat([data, theory(losses["loss"], data)], ignore_index=True)
    rims = bool((data["rim"] > 0).any())
    last = data["shift"].max()
    at = last + 0.1 if rims else np.nan  # a rim has no spread: it stands to the right
    data["x"] = np.where(data["rim"] > 0, at, data["shift"])
    # One scale for all panels; what lies beyond becomes an arrow head.
    reach = min(1.2 * max(data["mean"].abs().max(), LINEAR), MOST)
    # Ticks at the spreads that were trained, not at those of the theory lines.
    shifts = sorted(data.loc[(data["rim"] == 0) & (data["kind"] != "theory"), "shift"].unique())
    ticks = {x: f"{x:g}".removeprefix("0") or "0" for x in shifts} | ({at: "rim"} if rims else {})
    drawing, axes = style.canvas(1, len(losses), 3.6, sharex=True, sharey=True)
    for axis, loss in zip(axes[0], losses.itertuples(), strict=True):
        color = style.colour(loss.family)
        _panel(axis, data[data["loss"] == loss.loss], color, reach)
        axis.set_title(style.fitting(loss.loss_label), color=color)
        axis.set_xticks(list(ticks), list(ticks.values()))
        axis.set_xlim(-0.04, np.nanmax([last, at]) + 0.05)
    axes[0][0].set_ylabel("bias of the volume, %")
    drawing.supxlabel("spread of the boundary, standard deviation / radius", fontsize=9)
    style.sizes_legend(drawing, _theory_keys(rims))
    says = (
        "Bias: predicted over labelled volume, minus one, over the whole test split; geometric means over "
        "seeds, bars 95 % t intervals; the axis is nearly linear up to 10 %, logarithmic beyond. Lines and "
        "crosses are the optimum of each loss for a disc with a normally distributed radius: "
        "cross-entropy's summed probability has no bias and its mask is too small, Dice of each image is too "
        "small, Dice over the batch too large"
        + ("; 'rim': a ring whose pixels are labelled independently. " if rims else ". ")
    )
    says += left_out + style.evidence(cells)
    return (
        drawing,
        data.drop(columns="x"),
        says,
        _bias_alt(data, losses, last),
        *_bias_says(data, losses, last),
    )


def _percent(logs: pd.Series) -> pd.Series:
    return 100 * np.expm1(logs)


def measured(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each data set variant and loss, hard and soft, with what theory needs."""
    # Pixels expected to be foreground: what the theory of a ring is stated for.
    facts = cells.assign(
        shift=cells[SHIFT],
        rim=numbers(cells, RIM) if RIM in cells else 0.0,
        rim_probability=numbers(cells, "data.rim_probability"),
        pixels=numbers(cells, "data.foreground") * numbers(cells, "data.size") ** 2,
    ).drop_duplicates(points.VARIANT)[[*points.VARIANT, "data_label", "shift", *RING]]
    shown = [(kind, column) for kind, column, _, _ in SIZES if column in cells]
    logs = pd.concat([points.means(cells, column).assign(kind=kind) for kind, column in shown])
    labels = cells.drop_duplicates("loss")[["loss", "loss_label"]]
    return points.mapped(logs, _percent).merge(facts, on=points.VARIANT).merge(labels, on="loss")


def theory(losses, data: pd.DataFrame) -> pd.DataFrame:
    """Return the bias in percent of each loss's optimum: along the shift, and for each rim of the data."""
    last = max(data["shift"].max(), 0.02)
    # Twenty points make a smooth line; a spread of zero has no integral.
    spreads = {float(s): boundaries.shifted_boundary(float(s)) for s in np.linspace(0.02, last, 20)}
    rims = data.loc[(data["rim"] > 0) & data["pixels"].notna(), RING].drop_duplicates()
    rings = {rim.rim: _ring(rim) for rim in rims.itertuples()}
    rows = []
    for loss in losses:
        for size, field in zip(("hard", "soft"), THEORY.get(loss, ()), strict=False):
            rows += [(loss, size, spread, 0.0, getattr(v, field)) for spread, v in spreads.items()]
            rows += [(loss, size, 0.0, rim, _of_ring(ring, field)) for rim, ring in rings.items()]
    table = pd.DataFrame(rows, columns=["loss", "of", "shift", "rim", "mean"])
    return table.assign(kind="theory", mean=100 * table["mean"])


def _ring(rim) -> boundaries.Volumes:
    """Return the optima for a core and a ring of independent pixels with ``rim.pixels`` expected ones."""
    core, ring = rim.pixels * (1 - rim.rim), rim.pixels * rim.rim / rim.rim_probability
    return boundaries.uncertain_rim(round(core), round(ring), rim.rim_probability)


def _of_ring(ring: boundaries.Volumes, field: str) -> float:
    # Independent pixels average out, so that Dice has one optimum, of an image as of a batch.
    return {"ce": ring.ce, "soft": 0.0}.get(field, ring.dice)


def _panel(axis, part: pd.DataFrame, color: str, reach: float) -> None:
    axis.axhline(0, color=style.SOFT, linewidth=0.9, zorder=1)
    for kind, _, filled, aside in SIZES:
        expected = part[(part["kind"] == "theory") & (part["of"] == kind)]
        line = expected[expected["rim"] == 0].sort_values("shift")
        # Full and dashed as filled and open: hard and soft.
        dash = "-" if filled else style.DASHES[1]
        axis.plot(line["x"], line["mean"], color=style.SOFT, linestyle=dash, linewidth=1.2, zorder=2)
        ring = expected[expected["rim"] > 0]
        cross = {"color": style.SOFT, "markersize": 7, "markeredgewidth": 1.6, "clip_on": False}
        for x, y in zip(ring["x"] + aside, ring["mean"].clip(-reach, reach), strict=True):
            axis.plot([x], [y], "x", **cross, zorder=2)
        look = {"color": color, "markerfacecolor": color if filled else style.PAPER, "zorder": 4}
        for row in part[part["kind"] == kind].itertuples():
            x, y = row.x + aside, float(np.clip(row.mean, -reach, reach))
            axis.vlines(x, *np.clip([row.low, row.high], -reach, reach), color=color, linewidth=1.2)
            mark = "o" if y == row.mean else "^" if y > 0 else "v"
            axis.plot([x], [y], mark, markersize=5.5, clip_on=mark == "o", **look)
    axis.set_yscale("asinh", linear_width=LINEAR)
    ticks = [sign * t for t in (5, 10, 20, 50, 100, 200) for sign in (-1, 1) if t <= reach]
    axis.set_yticks([0, *ticks], ["0", *(style.signed(t, 0) for t in ticks)])
    axis.minorticks_off()
    axis.set_ylim(-reach, reach)


def _theory_keys(rims: bool) -> list:
    soft = {"color": style.SOFT, "linewidth": 1.2}
    cross = {"color": style.SOFT, "marker": "x", "markeredgewidth": 1.6, "linestyle": ""}
    keys = [
        style.key("theory, hard", **soft),
        style.key("theory, soft", **soft, linestyle=style.DASHES[1]),
        style.key("theory, rim", **cross),
    ]
    return keys if rims else keys[:2]


def _bias_says(data: pd.DataFrame, losses: pd.DataFrame, last: float) -> list[str]:
    """Return how the masks of Dice and of Dice over the batch err where the boundary is least certain, if
    intervals leave out zero.
    """
    own = data[(data["shift"] == last) & (data["rim"] == 0) & (data["kind"] == "hard") & (data["n"] > 1)]
    own = own[(own["low"] > 0) | (own["high"] < 0)].set_index("loss")
    texts = []
    for row in losses[losses["loss"].isin(own.index)].itertuples():
        mean = own.loc[row.loss, "mean"]
        texts.append(
            f"{style.quoted(row.loss_label)} marks {abs(mean):.0f} % too {'much' if mean > 0 else 'little'}"
        )
    return [f"At the least certain boundary {', '.join(texts)}"] if texts else []


def _bias_alt(data: pd.DataFrame, losses: pd.DataFrame, last: float) -> str:
    seen = data[(data["shift"] == last) & (data["rim"] == 0) & data["kind"].isin(["hard", "soft"])]
    means = seen.groupby(["loss", "kind"])["mean"].mean()
    parts = []
    for row in losses[losses["loss"].isin(seen["loss"])].itertuples():
        sizes = ", ".join(f"{kind} {style.signed(mean, 1)} %" for kind, mean in means[row.loss].items())
        parts.append(f"{row.loss_label} {sizes}")
    return f"Bias of the volume at the largest spread of the boundary ({last:g}): {'; '.join(parts)}."


AGREE_SETS, AGREE_LOSSES = 3, 4  # rows and columns

CLOSEST, WORST = 1.25, 8.0  # factors at which the axis of volumes ends, at the least and at the most

AGREE = ["dataset", "label", "loss", "loss_label", "bias", "low", "high", "factor", "objects", "missed", "n"]


@figure("volume_agreement", number=26, title="Agreement of predicted and true volumes, image by image")
def volume_agreement(tables: Mapping[str, pd.DataFrame]):
    """Bland and Altman's plot on logarithms: rows are data sets, columns losses; one dot an object."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER, *points.PUBLIC))
    sizes = tables.get("volumes")
    if sizes is None or not {"size", "predicted"} <= set(sizes) or not sizes["key"].isin(cells["key"]).any():
        raise NothingToDraw("needs cells whose records hold the sizes of single images")
    cells = cells[cells["key"].isin(sizes["key"])]
    wanted = points.spread_evenly(points.rarest_first(cells), AGREE_SETS)
    cells = points.of_variants(cells, wanted)
    losses, more = points.first_losses(cells, AGREE_LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    both = sizes.merge(cells[["key", "seed", *points.VARIANT, "data_label", "loss", "loss_label"]], on="key")
    both = both.assign(
        ratio=both["predicted"] / both["size"], middle=np.sqrt(both["predicted"].astype(float) * both["size"])
    )
    data = limits_of_agreement(both)
    drawing, axes = style.canvas(len(wanted), len(losses), 0.7 + 2.0 * len(wanted), sharey="row")
    names = points.set_names(list(wanted["label"]))
    for row, name, variant in zip(axes, names, wanted.itertuples(), strict=True):
        own, said = points.of_variant(both, variant), points.of_variant(data, variant)
        reach = _factor(own, said)
        for axis, loss in zip(row, losses.itertuples(), strict=True):
            here = (own[own["loss"] == loss.loss], said[said["loss"] == loss.loss])
            _agreement(axis, *here, style.colour(loss.family), reach)
            style.log_axis(axis, own[["size", "middle"]].to_numpy().ravel(), "x")
        # A label taller than its row would leave the row no height.
        row[0].set_ylabel("\n".join(wrap(name, 18)[:2]), fontsize=8.5)
    for axis, loss in zip(axes[0], losses.itertuples(), strict=True):
        # Above the line that holds the numbers of the first panel.
        axis.set_title(f"{style.fitting(loss.loss_label, 22)}\n", color=style.colour(loss.family))
    drawing.supxlabel("√(predicted × true volume), pixels", fontsize=9)
    drawing.supylabel("predicted / true volume", fontsize=9)
    lines = [
        style.key("mean", color=style.INK, linewidth=1.3),
        style.key("95 % limits of agreement", color=style.INK, linewidth=1, linestyle=style.BROKEN),
        style.key("missed: nothing predicted", color=style.SOFT, marker="v", linestyle="", markersize=5),
    ]
    style.legend(drawing, lines, 3)
    says = (
        "Bland and Altman's plot on a logarithmic scale, masks at 0.5: one dot an object of a test image, of "
        "up to 24 images a cell, evenly spread from the smallest to the largest. Lines, and numbers above "
        "each panel: geometric mean of predicted over true, and within which factors 95 % of the objects "
        "that were found lie (mean ± 1.96 standard deviations of the logarithm). Every row has its own "
        "scale; dots beyond it lie at its end, lines beyond it are not drawn. "
        f"{_untrained(cells, wanted, losses)}{more}{left}"
    ) + style.evidence(cells)
    data = data.rename(columns={"data_label": "label"})
    return drawing, data[AGREE], says, *_agreement_says(data)


def _untrained(cells: pd.DataFrame, wanted: pd.DataFrame, losses: pd.DataFrame) -> str:
    """Return the sentence on empty panels, where there are some."""
    there = len(cells[[*points.VARIANT, "loss"]].drop_duplicates())
    return "No panel: that loss was not trained there. " if there < len(wanted) * len(losses) else ""


def _significant(factor: float) -> str:
    """Return a factor with two digits, whole beyond ten; of one that is tiny only that it is so."""
    if not factor < 10:
        return f"{factor:,.0f}"
    return f"{factor:.2g}" if factor >= 1e-3 else "<.001"


def limits_of_agreement(both: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss): bias and 95 % limits of predicted over true volume.

    Of logarithms, since volumes differ by factors (Bland and Altman 1999), over objects of which something
    was predicted: exp(mean), exp(mean +- 1.96 sd). ``factor`` is the limit farther from 1; ``missed`` the
    share of objects without a predicted pixel.
    """
    rows = []
    keys = [*points.VARIANT, "data_label", "loss", "loss_label"]
    for names, own in both.groupby(keys, sort=True, observed=True):
        logs = np.log(own.loc[own["ratio"] > 0, "ratio"].to_numpy(float))
        # Of one object there is no spread.
        spread = 1.96 * logs.std(ddof=1) if len(logs) > 1 else np.nan
        mean = logs.mean() if len(logs) else np.nan
        ends = np.exp([mean, mean - spread, mean + spread])
        facts = dict(zip(("bias", "low", "high"), ends, strict=True))
        facts["factor"] = np.exp(abs(mean) + spread)
        facts |= {"objects": len(own), "missed": 1 - len(logs) / len(own), "n": own["seed"].nunique()}
        rows.append(dict(zip(keys, names, strict=True)) | facts)
    return pd.DataFrame(rows)


def _factor(own: pd.DataFrame, said: pd.DataFrame) -> float:
    """Return the factor either way that a row of panels shows: all limits, and nearly all dots."""
    logs = np.abs(np.log(own.loc[own["ratio"] > 0, "ratio"].to_numpy(float)))
    dots = float(np.exp(np.quantile(logs, 0.995))) if len(logs) else CLOSEST
    limits = said["factor"].max() if said["factor"].notna().any() else CLOSEST
    return float(np.clip(1.1 * max(dots, limits), CLOSEST, WORST))


def _agreement(axis, own: pd.DataFrame, said: pd.DataFrame, color: str, reach: float) -> None:
    if not len(own):  # a loss that was not trained on this set
        axis.set_axis_off()  # the title of its column stays
        return
    axis.axhline(1, color=style.SOFT, linewidth=0.8, zorder=1)
    there = own[own["ratio"] > 0]
    # A thousand dots are faint, so that one sees where they crowd; a dozen are not.
    faint = float(np.clip(40 / max(len(there), 1), 0.15, 0.8))
    dot = {"color": color, "markersize": 5, "markeredgewidth": 0, "alpha": faint}
    axis.plot(there["middle"], there["ratio"].clip(1 / reach, reach), ".", **dot, zorder=2)
    # What was missed has no logarithm: it stands at the foot, at its true size.
    missed = own[own["ratio"] == 0]
    foot = {"color": color, "markersize": 4, "alpha": 0.5, "clip_on": False}
    if len(missed):  # marks that are not clipped and not there have no place, which no layout can be made for
        axis.plot(missed["size"], np.full(len(missed), 1 / reach), "v", **foot, zorder=2)
    for row in said.itertuples():
        for y, dash in ((row.bias, "-"), (row.low, style.BROKEN), (row.high, style.BROKEN)):
            if 1 / reach < y < reach:
                axis.axhline(y, color=style.INK, linestyle=dash, linewidth=1.2, zorder=3)
        missing = f", missed {style.percent(row.missed)}" if row.missed else ""
        mean, low, high = map(_significant, (row.bias, row.low, row.high))
        # Above the panel, where it hides no dot.
        text = f"× {mean} ({low} to {high}){missing}"
        axis.set_title(text, loc="right", fontsize=7.5, fontweight="normal", pad=4)
    style.ratio_axis(axis, 1 / reach, reach)


def _agreement_says(data: pd.DataFrame) -> tuple[str, ...]:
    """Return the limits of every loss on the rarest data set, and, as a title, whose are narrowest there."""
    first = data[data["label"] == data["label"].iloc[0]]
    ends = [(row.loss_label, *map(_significant, (row.low, row.high))) for row in first.itertuples()]
    limits = "; ".join(f"{label} {low} to {high}" for label, low, high in ends)
    alt = (
        f"95 % of found objects on {first['label'].iloc[0]} lie between these factors of the truth: {limits}."
    )
    known = data.dropna(subset=["factor"])
    if known["loss"].nunique() < 2:
        return (alt.replace("nan", "?"),)
    # The data set on which the losses differ most says most.
    spread = known.groupby("label", sort=False)["factor"].agg(lambda f: np.log(f.max() / f.min()))
    own = known[known["label"] == spread.idxmax()].sort_values("factor")
    best, worst = own.iloc[0], own.iloc[-1]
    missed = f", and misses {100 * worst['missed']:.0f} %" if worst["missed"] >= 0.005 else ""
    return (
        alt.replace("nan", "?"),
        f"On {style.quoted(best['label'])} {best['loss_label']} finds volumes within a factor of "
        f"{style.times(best['factor'])}, {worst['loss_label']} within {style.times(worst['factor'])}{missed}",
    )


PANELS, LOSSES = 4, 6  # rows and columns of diagrams

FEWEST = 100  # pixels that a bin must hold to be drawn

ERROR = "ece"


@figure("reliability", number=16, title="Reliability of the predicted probabilities, and calibration error")
def reliability(tables: Mapping[str, pd.DataFrame]):
    """Rows are data sets, columns losses: frequency by predicted probability; below, calibration error."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER))
    bins = tables.get("reliability")
    # Records of failed or early cells have no diagram.
    there = bins is not None and len(cells) and ERROR in cells and "frequency" in bins
    if not there or not bins["key"].isin(cells["key"]).any():
        raise NothingToDraw("needs cells with reliability diagrams")
    losses = style.ordered(cells)
    first = losses.head(LOSSES)
    wanted = points.spread_evenly(points.rarest_first(cells), PANELS)
    cells = points.of_variants(cells, wanted)
    data = pooled(bins[bins["region"] == "all"], cells[cells["loss"].isin(first["loss"])])
    # Errors differ by factors, so means and intervals are taken of logarithms.
    logs = np.log(cells[ERROR].where(cells[ERROR] > 0))
    errors = points.mapped(points.means(cells.assign(log=logs), "log"), np.exp)
    drawing = _reliability(data, errors, wanted, losses)
    more = len(losses) - len(first)
    says = (
        f"Top: pixels of all test images in 15 equal bins of predicted probability (with {FEWEST} pixels or "
        "more); line and marks pool the seeds, the band runs from the lowest to the highest seed; on the "
        "diagonal the probability is what it says, below it the network is too sure. Bottom: class-wise "
        "expected calibration error over all pixels, geometric means and 95 % t intervals over seeds, lower "
        "is better; it shrinks with the foreground, so compare within a panel. "
        + style.more(more, "loss", "the lowest row only")
        + left
    ) + style.evidence(cells)
    rarest = points.of_variant(errors, wanted.iloc[0]).merge(losses, on="loss")
    values = ", ".join(f"{row.loss_label} {row.mean:.2g}" for row in rarest.itertuples())
    alt = f"Calibration error on {wanted['label'].iloc[0]}: {values}."
    finding = _error_says(rarest, wanted["label"].iloc[0])
    errors = errors.merge(wanted[[*points.VARIANT, "label"]], on=points.VARIANT)
    errors = errors.rename(columns={"mean": ERROR, "n": "seeds"})
    table = pd.concat([data, errors], ignore_index=True).drop(columns="recipe")
    return drawing, table, says, alt, *finding


def _reliability(data: pd.DataFrame, errors: pd.DataFrame, wanted: pd.DataFrame, losses: pd.DataFrame):
    first, rows = losses.head(LOSSES), len(wanted)
    heights = [1.35] * rows + [0.55 + 0.19 * len(losses)]
    # Six diagrams in a row, and below them one panel a data set: both fill a grid of so many columns.
    wide = len(first) * rows
    drawing, grid = style.grid(rows + 1, wide, 0.6 + sum(heights), height_ratios=heights)
    names = points.set_names(list(wanted["label"]))
    for place, (name, variant) in enumerate(zip(names, wanted.itertuples(), strict=True)):
        own = points.of_variant(data, variant)
        for column, loss in enumerate(first.itertuples()):
            axis = drawing.add_subplot(grid[place, column * rows : (column + 1) * rows])
            _diagram(axis, own[own["loss"] == loss.loss], style.colour(loss.family))
            if place == 0:
                axis.set_title(style.fitting(loss.loss_label, 16), color=style.colour(loss.family))
            axis.tick_params(labelbottom=place == rows - 1, labelleft=column == 0)
            if column == 0:
                axis.set_ylabel("\n".join(wrap(name, 16)[:2]), fontsize=8.5)
        lower = drawing.add_subplot(grid[rows, place * len(first) : (place + 1) * len(first)])
        _errors(lower, points.of_variant(errors, variant), losses, errors["mean"])
        lower.set_title(style.fitting(name, 26), fontsize=8.5)
        lower.tick_params(labelleft=place == 0)
    return drawing


def _error_says(rarest: pd.DataFrame, label: str) -> list[str]:
    """Return which losses have the smallest and the largest calibration error, if their intervals part."""
    own = rarest[(rarest["n"] > 1) & (rarest["mean"] > 0)].sort_values("mean")
    if len(own) < 2 or not own["high"].iloc[0] < own["low"].iloc[-1]:
        return []
    best, worst = own.iloc[0], own.iloc[-1]
    times = style.times(worst["mean"] / best["mean"])
    one, other = (style.quoted(row["loss_label"]) for row in (worst, best))
    return [f"On {style.quoted(label)} {one} is {times} times as badly calibrated as {other}"]


def pooled(bins: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return probability and frequency of each bin, pixels pooled over seeds and foreground classes, and the
    lowest and the highest frequency of a seed.
    """
    keys = [*points.VARIANT, "data_label", "loss", "bin"]
    held = bins[bins["n"] > 0].merge(cells[["key", "seed", *keys[:-1]]], on="key")
    n = held["n"].astype(float)
    # Weighted by pixels: the mean of a pooled bin, not a mean of means.
    sums = {"pixels": n, "probability": n * held["probability"], "frequency": n * held["frequency"]}
    by_seed = held.assign(**sums).groupby([*keys, "seed"], observed=True, sort=True)[list(sums)].sum()
    grouped = by_seed.groupby(keys, observed=True, sort=True).sum().reset_index()
    # A seed with a handful of pixels in a bin says nothing of it.
    enough = by_seed[by_seed["pixels"] >= FEWEST / 4]
    ends = (
        (enough["frequency"] / enough["pixels"]).groupby(keys, observed=True).agg(lowest="min", highest="max")
    )
    grouped = grouped[grouped["pixels"] >= FEWEST].merge(ends.reset_index(), on=keys, how="left")
    means = {name: grouped[name] / grouped["pixels"] for name in ("probability", "frequency")}
    return grouped.assign(**means).rename(columns={"data_label": "label"})


def _diagram(axis, own: pd.DataFrame, color: str) -> None:
    # The diagonal: a probability that is what it says.
    axis.plot([0, 1], [0, 1], color=style.SOFT, linewidth=0.9, zorder=1)
    part = own.sort_values("bin")
    axis.plot(
        part["probability"], part["frequency"], "-o", color=color, linewidth=1.3, markersize=3, zorder=3
    )
    axis.fill_between(
        part["probability"], part["lowest"], part["highest"], color=color, alpha=0.2, linewidth=0
    )
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])


def _errors(axis, own: pd.DataFrame, losses: pd.DataFrame, everywhere: pd.Series) -> None:
    for y, loss in enumerate(losses.itertuples()):
        for row in own[own["loss"] == loss.loss].itertuples():
            style.whiskers(axis, y, row, style.colour(loss.family))
    style.names(axis, list(losses["loss_label"]))
    style.log_axis(axis, everywhere, "x")
    axis.set_xlabel("calibration error (ECE)")
