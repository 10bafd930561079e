"""What a loss gains over cross-entropy, and how much of it is the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

import numpy as np
import pandas as pd

from lossbench.analysis import effects, seeds
from lossbench.analysis.seeds import numbers
from lossbench.base import columns
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

LINEAR = 1.0  # points within which the axis of gaps is linear

ARMS = {"0.5": "dice@0.5", "val": "dice@val"}

GAP = [*points.LOSS, "dataset", "label", "recipe", "foreground", "arm", *points.SUMMARY]

HALF = "dice@0.5"

PANELS, LOSSES = 4, 6  # rows and columns of the threshold curves


@figure(
    "dice_gap",
    number=12,
    title="Dice score minus that of cross-entropy, at 0.5 and at the validation threshold",
)
def dice_gap(tables: Mapping[str, pd.DataFrame]):
    """Columns are families, rows the threshold: paired difference of Dice to CE over the foreground."""
    # The ladder alone: other parts vary something else than the foreground.
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER))
    if "dice@0.5" not in cells or "dice@val" not in cells or "ce" not in set(cells.get("loss", ())):
        raise NothingToDraw("needs cells of ce and of another loss")
    # Where each variant stands on the foreground axis.
    place = points.places(cells)
    losses = style.ordered(cells[cells["loss"] != "ce"])
    gaps = pd.concat([points.gaps(cells, "ce", column).assign(arm=arm) for arm, column in ARMS.items()])
    data = gaps.merge(place, on=points.VARIANT).merge(losses, on="loss")
    if not len(data):
        raise NothingToDraw("needs blocks that hold ce and another loss")
    data = points.mapped(data, lambda values: 100 * values)
    limits = _limits(data)

    def prepare(axis) -> None:
        # Zero is the point of the figure: no difference to CE.
        axis.axhline(0, color=style.SOFT, linewidth=0.9, zorder=1)
        _scale(axis, limits)
        style.foreground_axis(axis, points.levels(place))

    drawing, axes = points.families(data, losses, list(ARMS), "arm", limits, prepare)
    for row, arm in zip(axes, ARMS, strict=True):
        row[0].set_ylabel(columns.ARMS[arm])
    if real := points.real_legend(place):
        style.legend(drawing, real, 4)
    drawing.supxlabel("foreground fraction, %", fontsize=9)
    drawing.supylabel("Dice minus that of ce, points", fontsize=9)
    says = (
        "Above zero a loss scores higher than cross-entropy on the same blocks; one column a family of "
        "losses. Top: masks at 0.5; bottom: each loss at the threshold that validation chose for it. What "
        "is gone in the lower row was the threshold (C10). Means of paired differences over seeds, bars "
        "95 % intervals by sign flips (of six seeds or more). The axis is linear within one point of zero "
        f"and logarithmic beyond. {left}"
    ) + style.evidence(cells)
    numbers = data.rename(columns={"x": "foreground"})[GAP]
    return drawing, numbers, says, _gap_alt(data, losses), _gap_says(data, losses)


def _limits(data: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold zero, every mean and every bounded interval: no bar is cut at the axis."""
    ends = data[["mean", "low", "high"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    return float(1.2 * min(ends.min(initial=0), -LINEAR)), float(1.2 * max(ends.max(initial=0), LINEAR))


def _gap_says(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    """Return the widest gap at the rare end, and how little is left of it at the common end."""
    labels = losses.set_index("loss")["loss_label"]
    at = data[data["arm"] == "0.5"].pivot_table(index="x", columns="loss", values="mean").sort_index()
    if at.empty:  # of real images nobody may know the share of foreground
        return "Dice score of each loss minus that of cross-entropy"
    first = at.iloc[0].idxmax()
    widest = f"At {style.percent(at.index[0])} foreground {labels[first]} gains {at.iloc[0].max():.1f} points"
    if len(at) == 1:
        return f"{widest} over cross-entropy"
    return (
        f"{widest} over cross-entropy, at {style.percent(at.index[-1])} no loss gains more than "
        f"{max(at.iloc[-1].max(), 0):.1f}"
    )


def _scale(axis, limits: tuple[float, float]) -> None:
    # Gaps of half a point and of fifty stand side by side.
    axis.set_yscale("symlog", linthresh=LINEAR, linscale=0.6)
    ticks = [sign * t for sign in (-1, 1) for t in (1, 3, 10, 30, 100) if limits[0] <= sign * t <= limits[1]]
    axis.set_yticks([0, *ticks], ["0", *(style.signed(t, 0) for t in ticks)])
    axis.minorticks_off()
    axis.set_ylim(*limits)


def _gap_alt(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    # The text says what the left end of each panel shows, where the gaps are largest.
    rarest = data["x"].min()
    at = data[data["x"] == rarest].pivot_table(index="loss", columns="arm", values="mean")
    parts = []
    for row in losses[losses["loss"].isin(at.index)].itertuples():
        half, tuned = at.loc[row.loss, "0.5"], at.loc[row.loss, "val"]
        half, tuned = style.signed(half, 1), style.signed(tuned, 1)
        parts.append(f"{row.loss_label} {half} at 0.5 and {tuned} at the validation threshold")
    start = f"One column a family. At {style.percent(rarest)} foreground the difference to cross-entropy"
    return f"{start} in points is: {'; '.join(parts)}."


# Contrasts of the forest: loss, against.
CONTRASTS = (("dice", "ce"), ("dice_ce", "ce"), ("batch_dice(classes='all')", "ce"), ("batch_dice", "ce"))

PANELS_OF_FOREST = 3


@figure(
    "forest",
    number=25,
    title="Differences to cross-entropy, data set by data set, and what a new one would show",
)
def forest(tables: Mapping[str, pd.DataFrame]):
    """One panel a contrast: each data set with its interval, the random-effects mean, a new data set."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER, *points.PUBLIC))
    if not len(cells) or HALF not in cells:
        raise NothingToDraw("needs cells of ce and dice on two independent data sets or more")
    # What was not learnt is drawn, but does not enter the mean.
    take = points.ended(cells, tables)
    found = []
    for of, against in CONTRASTS:
        table = effects.forest(cells, of, against, HALF, take)
        # One data set has no mean over data sets.
        if effects.NEW in set(table["label"]):
            found.append(table.assign(of=of, against=against))
    if not found:
        raise NothingToDraw("needs cells of ce and dice on two independent data sets or more")
    found = found[:PANELS_OF_FOREST]
    data = pd.concat(found, ignore_index=True).merge(style.ordered(cells), left_on="of", right_on="loss")
    for name in ("estimate", "low", "high"):
        data[name] = 100 * data[name]
    last = [effects.MEAN, effects.NEW]
    # From rare to common, as everywhere; then what they say together.
    rare = numbers(cells, "foreground_true").groupby(seeds.units(cells)).mean()
    sets = data[~data["label"].isin(last)].drop_duplicates("label").set_index("label")["unit"]
    units = [*sets.map(rare).sort_values(kind="stable").index, *last]
    drawing, axes = style.canvas(1, len(found), 0.9 + 0.27 * len(units), sharey=True)
    # By the data sets: the prediction of few of them may be wider than any page.
    reach = np.nanmax(np.abs(data.loc[data["label"] != effects.NEW, ["estimate", "low", "high"]]).to_numpy())
    limit = 1.15 * max(reach, LINEAR)
    for axis, own in zip(axes[0], found, strict=True):
        _forest_panel(axis, data[data["of"] == own["of"].iloc[0]], units, limit)
    style.names(axes[0][0], points.set_names(units[: -len(last)]) + last, 26)
    drawing.supxlabel("difference of Dice at 0.5, points", fontsize=9)
    empty = "An empty row: not trained on both losses there. " if min(map(len, found)) < len(units) else ""
    says = (
        "Dots: mean paired difference over seeds, bars 95 % intervals by sign flips (of six seeds or more); "
        "levels of one generator are one data set. Diamond: random-effects mean over data sets with the "
        "interval of Hartung, Knapp, Sidik and Jonkman. Thick line: where the effect on a new data set lies, "
        "with 95 %; an arrow where it goes on beyond the axis. Open dots were not learnt and take no part. "
        f"{empty}The axis is linear within one point of zero and logarithmic beyond. {left}"
    ) + style.evidence(cells[cells["loss"].isin({*data["of"], "ce"})])
    table = data[["of", "loss_label", "against", *effects.FOREST]]
    texts = [_forest_says(own) for _, own in data.groupby("of", sort=False)]
    return drawing, table, says, f"{'; '.join(texts)}.", texts[0]


def _forest_panel(axis, own: pd.DataFrame, units: list[str], limit: float) -> None:
    color = style.colour(own["family"].iloc[0])
    axis.axvline(0, color=style.SOFT, linewidth=0.9, zorder=1)
    for row in own.itertuples():
        y = units.index(row.label)
        low, high = np.clip([row.low, row.high], -limit, limit)
        if row.label == effects.NEW:
            axis.hlines(y, low, high, color=color, linewidth=4, alpha=0.55)
            style.arrows(axis, y, row.low, row.high, (-limit, limit), color)
            continue
        axis.hlines(y, low, high, color=color, linewidth=1.3)
        together = row.label == effects.MEAN
        fill = color if together or row.pooled else style.PAPER
        mark = "D" if together else "o"
        axis.plot(
            [row.estimate], [y], mark, color=color, markerfacecolor=fill, markersize=6 if together else 5
        )
    # The two last rows are of another kind.
    axis.axhline(len(units) - 2.5, color=style.RULE, linewidth=1)
    axis.set_title(f"{style.fitting(own['loss_label'].iloc[0], 20)} minus ce", color=color)
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    ticks = [sign * t for sign in (-1, 1) for t in (1, 10, 100) if t <= limit]
    axis.set_xticks([0, *ticks], ["0", *(style.signed(t, 0) for t in ticks)])
    axis.minorticks_off()
    axis.set_xlim(-limit, limit)


def _forest_says(own: pd.DataFrame) -> str:
    """Return what the mean over data sets shows, and what a new data set may."""
    label = own["loss_label"].iloc[0]
    mean, new = (own[own["label"] == name].iloc[0] for name in (effects.MEAN, effects.NEW))
    sets = f"{int(mean['n_variants'])} data sets"
    # A title says what is shown, and says so where nothing is.
    if not (mean["low"] > 0 or mean["high"] < 0):
        return f"Over {sets} no mean difference between {label} and ce is shown"
    says = f"Over {sets} {label} {'gains' if mean['estimate'] > 0 else 'loses'} "
    says += f"{abs(mean['estimate']):.1f} points on ce"
    if new["low"] > 0 or new["high"] < 0:
        return f"{says}, and a new one should show the same sign"
    return f"{says}, but a new one may show the opposite"


@figure("threshold_curves", number=13, title="Dice over the threshold, on the validation images")
def threshold_curves(tables: Mapping[str, pd.DataFrame]):
    """Rows are data sets, columns losses: validation Dice over the threshold, beside that of CE."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER))
    curves = tables.get("thresholds")
    if curves is None or not len(cells) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with threshold curves")
    losses, more = points.first_losses(cells, LOSSES)
    wanted = points.spread_evenly(points.rarest_first(cells), PANELS)
    cells = points.of_variants(cells[cells["loss"].isin(losses["loss"])], wanted)
    keys = [*points.VARIANT, "data_label", "loss", "loss_label"]
    joined = curves.merge(cells[["key", *keys]], on="key")
    if not joined["val_dice"].notna().any():
        raise NothingToDraw("needs cells with threshold curves")
    grouped = joined.groupby([*keys, "threshold"], observed=True, sort=True)["val_dice"]
    data = grouped.agg(["mean", "min", "max", "count"]).reset_index().rename(columns={"count": "n"})
    tops = _tops(data)
    drawing, axes = style.canvas(
        len(wanted), len(losses), 0.8 + 1.35 * len(wanted), sharex=True, sharey="row"
    )
    names = points.set_names(list(wanted["label"]))
    for row, name, variant in zip(axes, names, wanted.itertuples(), strict=True):
        own, best = points.of_variant(data, variant), points.of_variant(tops, variant).set_index("loss")
        for axis, loss in zip(row, losses.itertuples(), strict=True):
            _curve(axis, own, best, loss)
        _foot(row[0], own)
        row[0].set_ylabel("\n".join(wrap(name, 16)[:2]), fontsize=8.5)
    for axis, loss in zip(axes[0], losses.itertuples(), strict=True):
        axis.set_title(style.fitting(loss.loss_label, 16), color=style.colour(loss.family))
    drawing.supxlabel("threshold on the foreground probability", fontsize=9)
    drawing.supylabel("validation Dice", fontsize=9)
    marks = [
        style.key("best threshold of the mean", color=style.SOFT, marker="o", linestyle="", markersize=5),
        style.key("ce", color=style.SOFT, linewidth=1),
        style.key("half of the best Dice", color=style.SOFT, linewidth=1, linestyle=style.DASHES[1]),
    ]
    style.legend(drawing, marks, 3)
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed; the thin line repeats "
        "that of cross-entropy. For a true posterior the best threshold is D*/2, half of the Dice that it "
        "reaches: the dashed line. Where a line is flat, as that of Dice, the threshold does not matter. "
        f"Every row has its own scale. {more}{left}"
    ) + style.evidence(cells)
    alt = "; ".join(_best_says(tops, wanted)) or f"{len(losses)} losses on {len(wanted)} data sets"
    return drawing, data, says, f"Dice over the threshold. {alt}.", *_flat_says(data, tops, wanted)


def _tops(data: pd.DataFrame) -> pd.DataFrame:
    """Return the best threshold of each mean curve, its Dice, and the Dice at 0.5."""
    # A loss that collapsed in every seed has no curve.
    known = data.dropna(subset=["mean"])
    keys = [*points.VARIANT, "loss"]
    tops = known.loc[known.groupby(keys, observed=True)["mean"].idxmax()]
    half = known[np.isclose(known["threshold"], 0.5)]
    return tops.merge(half[[*keys, "mean"]].rename(columns={"mean": "at_half"}), on=keys, how="left")


def _curve(axis, own: pd.DataFrame, best: pd.DataFrame, loss) -> None:
    color = style.colour(loss.family)
    part, ce = (own[own["loss"] == name].sort_values("threshold") for name in (loss.loss, "ce"))
    # CE in every panel: what is to be compared stands side by side.
    axis.plot(ce["threshold"], ce["mean"], color=style.SOFT, linewidth=1, zorder=2)
    axis.plot(part["threshold"], part["mean"], color=color, linewidth=1.6, zorder=3)
    axis.fill_between(part["threshold"], part["min"], part["max"], color=color, alpha=0.2, linewidth=0)
    if loss.loss in best.index:
        top = best.loc[loss.loss]
        axis.plot([top["threshold"]], [top["mean"]], "o", color=color, markersize=5, zorder=4)
        axis.axvline(top["mean"] / 2, color=style.SOFT, linewidth=1, linestyle=style.DASHES[1], zorder=1)
    axis.set_xlim(0, 1)
    style.unit_ticks(axis, "x")


def _foot(axis, own: pd.DataFrame) -> None:
    top = float(own["max"].max())
    worst = float(own.groupby("loss", observed=True)["mean"].max().min())
    # The foot of the row: well below the worst loss's best, but never so low that all tops look alike.
    low = np.clip(worst - 0.35 * top, 0, 0.75 * top) if np.isfinite(worst) else 0.0
    axis.set_ylim(low, top + 0.04 * (top - low) + 1e-3)


def _best_says(tops: pd.DataFrame, wanted: pd.DataFrame) -> list[str]:
    texts = []
    for variant in wanted.itertuples():
        own = points.of_variant(tops, variant).set_index("loss")
        if "ce" in own.index:
            threshold, half = own.loc["ce", "threshold"], own.loc["ce", "mean"] / 2
            texts.append(f"{variant.label}: best threshold of ce {threshold:.2f}, D*/2 {half:.2f}")
    return texts


def _flat_says(data: pd.DataFrame, tops: pd.DataFrame, wanted: pd.DataFrame) -> list[str]:
    """Return on which data set CE loses most at 0.5, if that is more than a point, and what Dice loses."""
    cost = tops.assign(cost=100 * (tops["mean"] - tops["at_half"])).merge(wanted[[*points.VARIANT, "label"]])
    ce = cost[cost["loss"] == "ce"].dropna(subset=["cost"])
    # One seed is no finding.
    if not len(ce) or data["n"].max() < 2 or ce["cost"].max() < LINEAR:
        return []
    worst = ce.loc[ce["cost"].idxmax()]
    dice = cost[(cost["loss"] == "dice") & (cost["label"] == worst["label"])]["cost"]
    beside = f", dice {dice.iloc[0]:.1f}" if len(dice) else ""
    return [
        f"On {style.quoted(worst['label'])} the threshold of 0.5 costs ce {worst['cost']:.1f} points{beside}"
    ]
