"""How large the predicted region is, what a size term changes about it, and what cross-entropy says of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.seeds import numbers
from lossbench.base import specs
from lossbench.base.errors import UserError
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory.proportions import size_error_bound

SIZES = {"hard": "log_size_ratio_hard@0.5", "soft": "log_size_ratio_soft"}

NAMES = {"hard": "mask at 0.5 (hard)", "soft": "summed probability (soft)"}

RATIO = [*points.LOSS, "dataset", "label", "recipe", "foreground", "size", *points.SUMMARY]

BAND = 0.05  # 5 %: the smallest difference in region size of interest


@figure("size_ratio", number=11, title="Predicted over true region size, by loss and foreground fraction")
def size_ratio(tables: Mapping[str, pd.DataFrame]):
    """Columns are families, rows hard and soft size: geometric means over seeds over the foreground."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER))
    if not len(cells) or not set(SIZES.values()) <= set(cells):
        raise NothingToDraw("needs cells with region sizes")
    place = points.places(cells)
    losses = style.ordered(cells)
    # Means of logarithms: half and double are equally wrong.
    logs = pd.concat([points.means(cells, column).assign(size=size) for size, column in SIZES.items()])
    data = points.mapped(logs, np.exp).merge(place, on=points.VARIANT).merge(losses, on="loss")
    # A loss that collapsed would stretch the axis until nothing else is seen.
    limits = _limits(data["mean"])

    def prepare(axis) -> None:
        # Within the band a size is as good as right.
        axis.axhspan(1 / (1 + BAND), 1 + BAND, color=style.RULE, alpha=0.6, linewidth=0, zorder=1)
        axis.axhline(1, color=style.SOFT, linewidth=0.9, zorder=1)
        style.ratio_axis(axis, limits[0] / 1.06, limits[1] * 1.06, 4 if limits[1] > 6 else 2)
        style.foreground_axis(axis, points.levels(place))

    drawing, axes = points.families(data, losses, list(SIZES), "size", limits, prepare)
    for row, size in zip(axes, SIZES, strict=True):
        row[0].set_ylabel(NAMES[size])
    if real := points.real_legend(place):
        style.legend(drawing, real, 4)
    drawing.supxlabel("foreground fraction, %", fontsize=9)
    drawing.supylabel("predicted / true region size", fontsize=9)
    says = (
        "Hard size: area of the mask at 0.5; soft size: summed probability; both over the whole test split; "
        "one column a family of losses. Geometric means over seeds, bars 95 % t intervals; the band is "
        f"±5 %; arrow heads lie beyond the axis. {left}"
    ) + style.evidence(cells)
    numbers = data.rename(columns={"x": "foreground"})[RATIO]
    return drawing, numbers, says, _ratio_alt(data, losses), *_ratio_says(data)


def _ratio_says(data: pd.DataFrame) -> list[str]:
    """Return, where foreground is rarest, which loss marks too little and which too much, if intervals say
    so.
    """
    own = data[(data["x"] == data["x"].min()) & (data["size"] == "hard") & (data["n"] > 1)]
    # Beyond the band even at the near end of the interval.
    small, large = own[own["high"] < 1 / (1 + BAND)], own[own["low"] > 1 + BAND]
    texts = []
    for side, end in ((small, "idxmin"), (large, "idxmax")):
        if len(side):
            row = side.loc[side["mean"].agg(end)]
            texts.append(
                f"{style.quoted(row['loss_label'])} marks {style.percent(row['mean'])} of the true size"
            )
    if not texts:
        return []
    near = len(own) - len(small) - len(large)
    where = style.percent(own["x"].iloc[0])
    return [
        f"At {where} foreground {' and '.join(texts)}; for {near} of {len(own)} losses the interval holds "
        f"sizes within {style.percent(BAND)} of the true one"
    ]


def _limits(means: pd.Series) -> tuple[float, float]:
    """Return symmetric limits: at least three bands, at most a factor 16, with nearly all points."""
    size = np.abs(np.log(means.replace([0, np.inf], np.nan).dropna()))
    wide = np.clip(np.quantile(size, 0.97) * 1.1 if len(size) else 1.0, np.log(1 + 3 * BAND), np.log(16))
    return float(np.exp(-wide)), float(np.exp(wide))


def _ratio_alt(data: pd.DataFrame, losses: pd.DataFrame) -> str:
    rarest = data["x"].min()
    hard = data[(data["x"] == rarest) & (data["size"] == "hard")].groupby("loss")["mean"].mean()
    known = losses[losses["loss"].isin(hard.index)]
    sizes = ", ".join(f"{row.loss_label} {hard[row.loss]:.2f}" for row in known.itertuples())
    start = f"One column a family. At {style.percent(rarest)} foreground the mask at 0.5 is this fraction"
    return f"{start} of the true size: {sizes}."


TERMS = ("ce_l1", "ce_kl")
SETTING = {"size_weight", "temperature"}

COLUMNS = 4  # of the grid

GRID_NEEDS = "needs cells of ce and of ce_l1 or ce_kl at two or more weights or temperatures"


def setting(loss: str, spellings: str) -> dict | None:
    """Return term, weight and temperature of a loss that is one size term beside CE; None for any other.

    ``spellings`` writes the loss out with every parameter, as the table of cells has it.
    """
    try:
        terms, whole = specs.parse(loss), specs.parse(spellings.split(" | ")[0])[0].arguments
    except UserError:  # a name of another kind
        return None
    if (
        # A sum of losses, or any further parameter, has no place on the grid.
        len(terms) > 1
        or terms[0].name not in TERMS
        or set(terms[0].arguments) - SETTING
        or SETTING - set(whole)
    ):
        return None
    return {
        "term": terms[0].name,
        "weight": float(whole["size_weight"]),
        "temperature": float(whole["temperature"]),
    }


@figure(
    "size_term_grid",
    number=14,
    title="Dice and error in region size, by weight and temperature of the size term",
)
def size_term_grid(tables: Mapping[str, pd.DataFrame]):
    """One column a size term and data set; top: Dice minus that of CE, in points; below: |log size ratio|."""
    cells = points.of_parts(tables["cells"], "terms")
    data = _grid(cells)
    # Only variants on which a size term was trained, the rarest first.
    variants = points.of_variants(points.rarest_first(cells), data.drop_duplicates(points.VARIANT))
    columns = [(term, v) for v in variants.itertuples() for term in TERMS]
    shown = [
        (v, part) for term, v in columns if len(part := points.of_variant(data[data["term"] == term], v))
    ]
    shown = shown[:COLUMNS]
    drawing, axes = style.canvas(2, len(shown), 4.9)
    # To the largest value of all: a loss of seven points and one of eighty differ in colour, too.
    gain, size = (style.folded(max(data[name].abs().max(), 1.0)) for name in ("gain", "size"))
    for place, (variant, own) in enumerate(shown):
        _field(axes[0][place], own, "gain", ("PuOr", -gain, gain), place == 0)
        _field(axes[1][place], own, "size", ("Greys", 0.0, size), place == 0)
        term = own["term"].iloc[0].replace("_", " + ")
        # Of few columns each is wide.
        room = 112 // len(shown) - len(term) - 2
        name = style.fitting(style.in_words(variant.label), room)
        axes[0][place].set_title(f"{term}, {name}", fontsize=9)
        axes[0][place].set_xlabel(f"ce: {100 * own['dice_ce'].iloc[0]:.1f}", fontsize=8.5)
        axes[1][place].set_xlabel(f"ce: {own['size_ce'].iloc[0]:.2f}", fontsize=8.5)
    axes[0][0].set_ylabel("Dice minus that of ce, points")
    axes[1][0].set_ylabel("|log size ratio|, hard")
    drawing.supxlabel("weight of the size term", fontsize=9)
    says = (
        "T is the temperature of the softmax from which the size term takes the region size; weight 1 and "
        "T 10 are the authors' released setting. Top: paired differences; both are means over seeds, of the "
        "masks at 0.5; under each field stands plain cross-entropy. Colours "
        "grow with the logarithm; a |log size ratio| of 0.05 is an error of 5 %, one beyond "
        "5 a collapse. At T 1 theory says that both terms change nothing where cross-entropy has converged. "
    ) + style.evidence(cells[cells["loss"].isin(["ce", *data["loss"]])])
    best = data.loc[data["gain"].idxmax()]
    alt = (
        f"Largest gain over ce: {style.signed(best['gain'], 1)} points with {best['term']} at weight "
        f"{best['weight']:g}, temperature {best['temperature']:g}."
    )
    labels = variants[["dataset", "label"]].drop_duplicates("dataset")
    table = data.drop(columns="recipe").merge(labels, on="dataset")
    return drawing, table, says, alt, _settings_say(data)


def _settings_say(data: pd.DataFrame) -> str:
    """Return how much settings of a size term gain, and how many intervals lie above zero and below."""
    more, less = int((data["gain_low"] > 0).sum()), int((data["gain_high"] < 0).sum())
    low, high = (style.signed(end, 1) for end in (data["gain"].min(), data["gain"].max()))
    says = f"In {len(data)} settings of a size term gains in Dice over ce run from {low} to {high} points"
    if data["gain_low"].isna().all():
        return f"{says}, on few seeds"
    return f"{says}; intervals above zero: {more}, below: {less}, not adjusted for their number"


def _grid(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant and setting of a size term, with the values of CE beside it."""
    hard = SIZES["hard"]
    if not len(cells) or not {"dice@0.5", hard} <= set(cells):
        raise NothingToDraw(GRID_NEEDS)
    losses = cells.drop_duplicates("loss").sort_values("loss")[["loss", "loss_spellings"]]
    terms = [(loss, setting(loss, full)) for loss, full in losses.itertuples(index=False, name=None)]
    terms = [{"loss": loss, **known} for loss, known in terms if known]
    settings = pd.DataFrame(terms, columns=["loss", "term", "weight", "temperature"])
    several = len(settings) and settings["term"].value_counts().max() > 1
    if "ce" not in set(cells["loss"]) or not several:
        raise NothingToDraw(GRID_NEEDS)
    # |log ratio|: too small is as wrong as too large.
    cells = cells[cells["loss"].isin(["ce", *settings["loss"]])].assign(size=cells[hard].abs())
    keys = [*points.VARIANT, "loss"]
    grouped = cells.groupby(keys, observed=True)
    data = grouped.agg(dice=("dice@0.5", "mean"), size=("size", "mean")).reset_index()
    ce = data[data["loss"] == "ce"].rename(columns={"dice": "dice_ce", "size": "size_ce"})
    # The gain is paired, block by block; the means beside it are not.
    gains = points.mapped(points.gaps(cells, "ce", "dice@0.5"), lambda values: 100 * values)
    gains = gains.rename(columns={"mean": "gain", "low": "gain_low", "high": "gain_high"})
    data = data.merge(settings, on="loss").merge(ce.drop(columns="loss"), on=points.VARIANT)
    data = data.merge(gains, on=keys)
    if not len(data):
        raise NothingToDraw(GRID_NEEDS)
    return data


def _field(axis, own: pd.DataFrame, column: str, scale: tuple[str, float, float], named: bool) -> None:
    values = own.pivot(index="temperature", columns="weight", values=column).sort_index()
    # A leading zero would only take room.
    texts = values.map(lambda v: style.signed(v, 1) if column == "gain" else f"{v:.2f}".removeprefix("0"))
    style.heat(axis, values.map(style.folded), texts, *scale)
    axis.set_yticklabels([f"T {t:g}" for t in values.index] if named else [])


PANELS = 4  # of the bound

TERM_CURVES = {"match_ce", "size_ce", "size_dice", "size_ratio_soft"}

FLOOR = 1e-6  # proportions nearer than this are drawn there

BOUND = ["key", "data_label", "loss_label", "family", "seed", "step", "ce", "size_ce", "error", "last"]

BOUND_NEEDS = "needs two-class cells of scenes whose curves hold the terms of the decomposition"


@figure("size_bound", number=5, title="Cross-entropy bounds the error in region size")
def size_bound(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: error of the predicted proportions over cross-entropy, on validation images."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.LADDER))
    curves = tables.get("curves")
    # The bound is drawn for two classes; records of other sets do not say how many they have.
    two = cells[numbers(cells, "data.classes").fillna(2) == 2] if len(cells) else cells
    two = two[two["dataset_name"] == "scenes"] if len(two) else two
    if curves is None or not len(two) or not set(curves.columns) >= TERM_CURVES:
        raise NothingToDraw(BOUND_NEEDS)
    wanted = points.spread_evenly(points.rarest_first(two), PANELS)
    data = _proportions(curves, points.of_variants(two, wanted))
    two = two[two["key"].isin(data["key"])]
    drawing, axes = style.canvas(1, len(wanted), 3.3, sharex=True, sharey=True)
    # The line reaches a little beyond the marks on both sides.
    span = np.array([data["ce"].min() / 1.5, data["ce"].max() * 1.5])
    bottom = max(FLOOR, data["error"].min() / 1.5)
    data = data.assign(shown=data["error"].clip(lower=bottom))
    for axis, variant in zip(axes[0], wanted.itertuples(), strict=True):
        axis.plot(span, [size_error_bound(ce) for ce in span], color=style.INK, linewidth=1.3, zorder=4)
        for family, part in points.of_variant(data, variant).groupby("family", observed=True, sort=False):
            color = style.colour(family)
            early, late = part[~part["last"]], part[part["last"]]
            # Many steps of one seed: faint, so that the last steps stand out.
            dot = {"alpha": 0.3, "markersize": 3, "markeredgewidth": 0}
            axis.plot(early["ce"], early["shown"], ".", color=color, **dot, zorder=2)
            ring = {"markerfacecolor": "none", "markersize": 4}
            axis.plot(late["ce"], late["shown"], "o", color=color, **ring, zorder=3)
        axis.set(xscale="log", yscale="log")
        axis.minorticks_off()
        axis.set_title(style.fitting(variant.label))
        axis.set_ylim(bottom / 1.3, size_error_bound(span[1]) * 1.5)
    drawing.supxlabel("cross-entropy on the validation images, nats a pixel", fontsize=9)
    axes[0][0].set_ylabel("error of proportions, Σ|p̂ − ŷ|")
    soft = {"color": style.SOFT, "linestyle": ""}
    marks = [
        style.key("last step", **soft, marker="o", markerfacecolor="none", markersize=4.5),
        style.key("earlier", **soft, marker=".", markersize=4),
        style.key("bound √(2 CE)", color=style.INK, linewidth=1.3),
    ]
    style.family_legend(drawing, style.ordered(two), marks)
    # Records hold six digits; the last of them is no violation.
    bounds = np.array([size_error_bound(ce) for ce in data["ce"].clip(lower=0)])
    below = 100 * float((data["error"] <= bounds * (1 + 1e-4)).mean())
    says = (
        "One mark a training: circles at its last step; dots at the earlier validated steps of the first "
        "seed. The line is the bound √(2 CE) on the summed error of the two classes' predicted proportions "
        "(chain rule and Pinsker's inequality): no network can lie above it, whatever loss it was trained "
        f"with ({below:.4g} % of {len(data)} marks lie below). So a low cross-entropy forces the size to be "
        f"right; a high one leaves it open. {left}"
    ) + style.evidence(two)
    errors = data[data["last"]].groupby("loss_label", observed=True)["error"].median()
    medians = ", ".join(f"{label} {error:.2g}" for label, error in errors.items())
    alt = f"Median error of the proportions at the last step: {medians}; {below:.4g} % below the bound."
    # How far below: the nearest mark, in factors.
    near = float((bounds / data["error"].clip(lower=FLOOR)).min())
    finding = (
        f"Cross-entropy bounds the error in region size; trainings stay {near:.1f} times below it or more"
    )
    return drawing, data[BOUND], says, alt, *([finding] if near >= 1 else [])


def _proportions(curves: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return cross-entropy and error of the proportions: last steps of all cells, all steps of one seed."""
    facts = ["key", *points.VARIANT, "data_label", "loss", "loss_label", "family", "seed"]
    data = curves.merge(cells[facts], on="key")
    ce = data["match_ce"].astype(float) + data["size_ce"].astype(float)
    data = data.assign(ce=ce, error=proportion_error(data))
    data = data[np.isfinite(data["ce"]) & np.isfinite(data["error"])]
    if not len(data):
        raise NothingToDraw(BOUND_NEEDS)
    data["last"] = data["step"] == data.groupby("key")["step"].transform("max")
    return data[data["last"] | (data["seed"] == data["seed"].min())]


def proportion_error(curves: pd.DataFrame) -> pd.Series:
    """Return sum_k |ph_k - yh_k| of two classes, from r = ph / yh and log(ph + yh) of the foreground.

    |ph - yh| = (ph + yh) |r - 1| / (r + 1), and the background is off by the same amount.
    """
    r, both = curves["size_ratio_soft"].astype(float), np.exp(curves["size_dice"].astype(float))
    return 2 * both * (r - 1).abs() / (r + 1)
