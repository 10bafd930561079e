"""Figures 14 and 17, the heat maps: weight and temperature of a size term, and false alarms on empty images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.selection import numbers
from lossbench.base.errors import UserError
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

TERMS = ("ce_l1", "ce_kl")

MOST = 4  # columns

REACH = 5.0  # points at which the colours of a gain end, so that a collapse does not bleach the rest

HARD = "log_size_ratio_hard@0.5"

ALARM, EMPTY = "fp_rate@0.5", "data.empty"


@figure(
    "size_term_grid",
    number=14,
    title="Dice and error in region size, by weight and temperature of the size term",
)
def size_term_grid(tables: Mapping[str, pd.DataFrame]):
    """One column a size term and data set; top: Dice minus that of CE, in points; below: |log size ratio|."""
    cells = points.of_parts(tables["cells"], "terms")
    if not len(cells) or "dice@0.5" not in cells or HARD not in cells:
        raise NothingToDraw(_LACKS)
    settings = pd.DataFrame(
        [{"loss": loss, **found} for loss in sorted(cells["loss"].unique()) if (found := setting(loss))]
    )
    if "ce" not in set(cells["loss"]) or not len(settings) or settings["term"].value_counts().max() < 2:
        raise NothingToDraw(_LACKS)
    cells = cells[cells["loss"].isin(["ce", *settings["loss"]])]
    keys = ["dataset", "recipe", "loss"]
    gains = points.gaps(cells, "ce", "dice@0.5").rename(
        columns={"mean": "gain", "low": "gain_low", "high": "gain_high"}
    )
    grouped = cells.assign(size=cells[HARD].abs()).groupby(keys, observed=True)
    found = grouped.agg(dice=("dice@0.5", "mean"), size=("size", "mean")).reset_index()
    plain = (
        found[found["loss"] == "ce"]
        .rename(columns={"dice": "dice_ce", "size": "size_ce"})
        .drop(columns="loss")
    )
    data = found.merge(settings, on="loss").merge(plain, on=["dataset", "recipe"]).merge(gains, on=keys)
    if not len(data):
        raise NothingToDraw(_LACKS)
    for column in ("gain", "gain_low", "gain_high"):
        data[column] = 100 * data[column]
    variants = points.rarest_first(cells).merge(
        data[["dataset", "recipe"]].drop_duplicates(), on=["dataset", "recipe"]
    )
    there = set(data[["term", "dataset", "recipe"]].itertuples(index=False, name=None))
    columns = [
        (term, v) for v in variants.itertuples() for term in TERMS if (term, v.dataset, v.recipe) in there
    ][:MOST]
    drawing, axes = style.canvas(2, len(columns), 4.9)
    for place, (term, variant) in enumerate(columns):
        own = points.of_variant(data[data["term"] == term], variant)
        for row, (column, scale) in enumerate(
            (("gain", ("PuOr", -REACH, REACH)), ("size", ("Greys", 0.0, np.log(4))))
        ):
            values = own.pivot(index="temperature", columns="weight", values=column).sort_index()
            texts = values.map(
                lambda v, c=column: _points(v) if c == "gain" else f"{v:.2f}".removeprefix("0")
            )
            style.heat(axes[row][place], values, texts, *scale)
            axes[row][place].set_yticklabels([f"T {t:g}" for t in values.index] if place == 0 else [])
        axes[0][place].set_title(
            f"{term.replace('_', ' + ')}, {style.fitting(variant.label, 14)}", fontsize=9
        )
        axes[0][place].set_xlabel(f"ce: {100 * own['dice_ce'].iloc[0]:.1f}", fontsize=8.5)
        axes[1][place].set_xlabel(f"ce: {own['size_ce'].iloc[0]:.2f}", fontsize=8.5)
    axes[0][0].set_ylabel("Dice minus that of ce, points")
    axes[1][0].set_ylabel("|log size ratio|, hard")
    drawing.supxlabel("weight of the size term", fontsize=9)
    says = (
        "T is the temperature of the softmax from which the size term takes the region size; weight "
        "1 and T 10 are the authors' released setting. "
        "Top: paired differences; both are means over seeds, of the masks at 0.5; under each field "
        "stands plain cross-entropy. Colours end at "
        f"±{REACH:g} points and at a factor of 4; a |log size ratio| of 0.05 is an error of 5 %, one "
        "beyond 5 a collapse. At T 1 theory says that "
        "both terms change nothing where cross-entropy has converged. "
    ) + style.evidence(cells)
    best = data.sort_values("gain").iloc[-1]
    alt = (
        f"Largest gain over ce: {best['gain']:+.1f} points with {best['term']} at weight "
        f"{best['weight']:g}, temperature {best['temperature']:g}."
    )
    return (
        drawing,
        data.drop(columns="recipe").merge(
            variants[["dataset", "label"]].drop_duplicates("dataset"), on="dataset"
        ),
        says,
        alt,
    )


_LACKS = "needs cells of ce and of ce_l1 or ce_kl at two or more weights or temperatures"


def setting(loss: str) -> dict | None:
    """Return term, weight and temperature of a loss that is a single size term beside CE, every default
    filled in; else None.
    """
    from lossbench.catalogue.registry import parse_loss

    if not loss.startswith(TERMS):
        return None
    try:
        terms = parse_loss(loss).terms
    except UserError:  # a loss of a version to come
        return None
    if len(terms) != 1 or terms[0].name not in TERMS or set(terms[0].given) - {"size_weight", "temperature"}:
        return None
    return {
        "term": terms[0].name,
        "weight": float(terms[0].params["size_weight"]),
        "temperature": float(terms[0].params["temperature"]),
    }


@figure("empty_images", number=17, title="False alarms on images without foreground")
def empty_images(tables: Mapping[str, pd.DataFrame]):
    """Rows are losses, columns the share of empty training images: false-positive rate, its area, and Dice on
    the others.
    """
    cells = points.of_parts(tables["cells"], "empty")
    cells = cells.assign(**{EMPTY: numbers(cells, EMPTY)})
    if ALARM in cells:
        cells = cells[cells[EMPTY].notna() & cells[ALARM].notna()]
    if ALARM not in cells or not len(cells):
        raise NothingToDraw("needs cells of scenes with empty test images (empty_test)")
    shown = [(c, t) for c, t in SHOWN if c in cells]
    losses = style.ordered(cells)
    grouped = cells.groupby(["loss", EMPTY], observed=True)
    data = grouped[[c for c, _ in shown]].agg(["mean", "min", "max"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    data = (
        data.assign(n=grouped.size()).reset_index().rename(columns={EMPTY: "empty"}).merge(losses, on="loss")
    )
    drawing, axes = style.canvas(1, len(shown), 1.25 + 0.3 * len(losses))
    labels = list(losses["loss_label"])
    for place, (column, title) in enumerate(shown):
        axis = axes[0][place]
        values = (
            data.pivot(index="loss_label", columns="empty", values=f"{column} mean")
            .reindex(labels)
            .sort_index(axis=1)
        )
        texts = (100 * values).map(lambda v: f"{v:.0f} %" if abs(v) >= 9.95 or v == 0 else f"{v:.1f} %")
        colours, low = (
            ("Oranges", 0.0) if column.startswith("fp") else ("Blues", min(0.5, float(values.min(axis=None))))
        )
        style.heat(axis, values, texts, colours, low, 1.0)
        axis.set_xticklabels([f"{100 * share:g}" for share in values.columns])
        axis.set_yticklabels([style.fitting(label, 24) for label in labels] if place == 0 else [])
        axis.set_title(title)
    drawing.supxlabel("empty images in training, %", fontsize=9)
    says = (
        "A false alarm is an empty test image in which at least one pixel is called foreground; the "
        "Dice is that of the images that hold an object. "
        "Means over seeds. What a loss does with an empty image follows from its reduction and "
        "smoothing: the gradient of Dice of each image with "
        "almost no smoothing vanishes there, so nothing teaches the network to keep silent. "
    ) + style.evidence(cells)
    most = data["empty"].max()
    told = data[data["empty"] == most]
    alt = f"False-positive rate with {100 * most:g} % empty training images: "
    return (
        drawing,
        data,
        says,
        alt
        + ", ".join(f"{r['loss_label']} {100 * r[f'{ALARM} mean']:.0f} %" for _, r in told.iterrows())
        + ".",
    )


SHOWN = (
    (ALARM, "False alarms at 0.5"),
    ("fp_rate@val", "At the validation threshold"),
    ("dice@0.5", "Dice of the others at 0.5"),
)


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
