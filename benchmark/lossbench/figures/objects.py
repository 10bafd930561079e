"""Who finds the small objects, and who keeps silent where there is none."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lossbench.analysis.seeds import numbers
from lossbench.base import columns
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

ARMS = ("0.5", "val")

FIFTHS = range(1, 6)

LOSSES = 8

SIZES = ["dataset", "label", *points.LOSS, "arm", "fifth", *points.SUMMARY]


@figure("object_sizes", number=15, title="Dice by the size of the true object")
def object_sizes(tables: Mapping[str, pd.DataFrame]):
    """One row a data set, one column an arm: mean Dice in each fifth of the test images by true size."""
    cells = points.of_parts(tables["cells"], "sizes")
    arms = [a for a in ARMS if f"dice_q1@{a}" in cells and cells[f"dice_q1@{a}"].notna().any()]
    if not arms:
        raise NothingToDraw("needs cells whose test images differ in the size of their objects")
    cells = cells[cells[f"dice_q1@{arms[0]}"].notna()]
    differing = numbers(cells, "data.size_ratio") > 1  # sizes that were made to differ say most
    wanted = points.rarest_first(cells[differing] if differing.any() else cells)
    wanted = points.spread_evenly(wanted, 2)
    cells = points.of_variants(cells, wanted)
    losses, left = points.first_losses(cells, LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    # Where no test image falls into a fifth there is no column of it.
    fifths = [(q, arm) for arm in arms for q in FIFTHS if f"dice_q{q}@{arm}" in cells]
    means = [points.means(cells, f"dice_q{q}@{arm}").assign(fifth=q, arm=arm) for q, arm in fifths]
    data = pd.concat(means).merge(wanted[[*points.VARIANT, "label"]], on=points.VARIANT)
    data = data.merge(losses, on="loss")
    drawing, axes = style.canvas(len(wanted), len(arms), 0.8 + 2.7 * len(wanted), sharex=True, sharey="row")
    # One look a loss in all panels.
    looks = style.lines(losses)
    for row, variant in enumerate(wanted.itertuples()):
        own = points.of_variant(data, variant)
        for axis, arm in zip(axes[row], arms, strict=True):
            _fifths(axis, own[own["arm"] == arm], looks)
            axis.set_title(f"{style.fitting(variant.label, 28)}, {columns.ARMS[arm]}")
        # Rows are scaled apart: another data set has another range.
        low, high = own["mean"].min(), own["mean"].max()
        # A little below all means; intervals of few seeds may leave the axis.
        axes[row][0].set_ylim(max(low - 0.35 * max(high - low, 0.05), -0.02), None)
        axes[row][0].set_ylabel("Dice")
    style.loss_legend(drawing, losses, looks)
    says = (
        "Test images that hold an object, in fifths by its true size; means over images, then seeds; bars "
        "95 % t intervals over seeds, side by side so that each is seen. If Dice of each image weighs small "
        "and large objects alike, and cross-entropy lets the large ones dominate, Dice is ahead on the left "
        f"of the left panels; what is gone in the right panels was the threshold. {left}"
    ) + style.evidence(cells)
    rarest = points.of_variant(data[(data["arm"] == arms[0]) & (data["fifth"] == 1)], wanted.iloc[0])
    smallest = ", ".join(f"{row.loss_label} {row.mean:.2f}" for row in rarest.itertuples())
    alt = f"Mean Dice of the smallest fifth: {smallest}."
    return drawing, data[SIZES], says, alt, *_smallest_says(cells, wanted.iloc[0], arms)


def _smallest_says(cells: pd.DataFrame, variant, arms: list[str]) -> list[str]:
    """Return what Dice gains over CE on the smallest fifth in each arm; nothing where that is not shown."""
    gains = []
    for arm in arms:
        gaps = points.gaps(points.of_variant(cells, variant), "ce", f"dice_q1@{arm}")
        own = gaps[gaps["loss"] == "dice"]
        # Few seeds have no interval, and so no finding.
        if len(own) and (own["low"].iloc[0] > 0 or own["high"].iloc[0] < 0):
            gains.append(f"{style.signed(100 * own['mean'].iloc[0], 0)} points {columns.ARMS[arm]}")
    return [f"On the smallest fifth dice minus ce is {' and '.join(gains)}"] if gains else []


def _fifths(axis, own: pd.DataFrame, looks: dict) -> None:
    for place, (loss, look) in enumerate(looks.items()):
        part = own[own["loss"] == loss].sort_values("fifth")
        # Side by side, in the order of the legend.
        x = part["fifth"] + 0.07 * (place - (len(looks) - 1) / 2)
        axis.vlines(x, part["low"], part["high"], color=look["color"], linewidth=1.1, zorder=2)
        axis.plot(x, part["mean"], **look, markersize=5, zorder=3)
    axis.set_xticks(list(FIFTHS), ["smallest\nfifth", "2nd", "3rd", "4th", "largest\nfifth"])


EMPTY = "data.empty"

SHOWN = ("false_alarms@0.5", "false_alarms@val", "dice@0.5")


@figure("empty_images", number=17, title="False alarms on images without foreground")
def empty_images(tables: Mapping[str, pd.DataFrame]):
    """Rows are losses, columns the share of empty training images: false alarms, and Dice on the others."""
    cells = points.of_parts(tables["cells"], "empty")
    cells = cells.assign(**{EMPTY: numbers(cells, EMPTY)})
    shown = [columns.spelled(column, cells) for column in SHOWN]
    alarm = shown[0]
    if alarm in cells:
        cells = cells[cells[EMPTY].notna() & cells[alarm].notna()]
    if alarm not in cells or not len(cells):
        raise NothingToDraw("needs cells of scenes with empty test images (empty_test)")
    shown = [column for column in shown if column in cells]
    losses = style.ordered(cells)
    grouped = cells.groupby(["loss", EMPTY], observed=True)
    # Means are shown; the range over seeds stands in the numbers behind the figure.
    data = grouped[shown].agg(["mean", "min", "max"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    gone = grouped["outcome"].agg(lambda own: (own == "collapsed").sum())
    data = data.assign(n=grouped.size(), collapsed=gone).reset_index().rename(columns={EMPTY: "empty"})
    data = data.merge(losses, on="loss")
    drawing, axes = style.canvas(1, len(shown), 1.25 + 0.3 * len(losses))
    labels = list(losses["loss_label"])
    for place, column in enumerate(shown):
        axis = axes[0][place]
        wide = data.pivot(index="loss_label", columns="empty", values=f"{column} mean").sort_index(axis=1)
        values = wide.reindex(labels)
        # Small shares keep a digit: 0.4 % is not 0.
        texts = (100 * values).map(lambda v: f"{v:.0f} %" if abs(v) >= 9.95 or v == 0 else f"{v:.1f} %")
        # Orange where little is good, blue where much is.
        alarms = columns.lower_is_better(column)
        if not alarms:  # a mean over seeds that mark nothing at all is no typical score
            gone = data.pivot(index="loss_label", columns="empty", values="collapsed").reindex(labels)
            texts += gone[texts.columns].map(lambda n: f"\n{n:.0f} collapsed" if n > 0 else "")
        scale = ("Oranges", 0.0) if alarms else ("Blues", min(0.5, float(values.min(axis=None))))
        style.heat(axis, values, texts, *scale, 1.0)
        axis.set_xticklabels([f"{100 * share:g}" for share in values.columns])
        axis.set_yticklabels([style.fitting(label, 24) for label in labels] if place == 0 else [])
        axis.set_title(columns.title(column))
    drawing.supxlabel("empty images in training, %", fontsize=9)
    says = (
        "A false alarm is an empty test image in which at least one pixel is called foreground; Dice is that "
        "of the images that hold an object. Means over seeds. What a loss does with an empty image follows "
        "from its reduction and smoothing: one that skips absent classes learns nothing from it, and Dice of "
        "each image with almost no smoothing next to nothing, until it marks nothing anywhere. "
    ) + style.evidence(cells)
    # The most empty training set is the one where losses differ most.
    most = data["empty"].max()
    worst = data[data["empty"] == most]
    ordered = worst.sort_values(f"{alarm} mean", kind="stable")
    least, first = (ordered.iloc[end] for end in (0, -1))
    finding = (
        f"Trained with {100 * most:g} % empty images, {style.quoted(first['loss_label'])} raises a false "
        f"alarm on {100 * first[f'{alarm} mean']:.0f} % of the empty test images, "
        f"{style.quoted(least['loss_label'])} on "
        f"{100 * least[f'{alarm} mean']:.0f} %"
    )
    rates = zip(worst["loss_label"], worst[f"{alarm} mean"], strict=True)
    alarms = ", ".join(f"{style.quoted(label)} {100 * rate:.0f} %" for label, rate in rates)
    alt = f"False alarms with {100 * most:g} % empty training images: {alarms}."
    return drawing, data, says, alt, finding
