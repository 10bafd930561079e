"""How each loss gets there: the course of training, and how noisy a loss is when objects are small."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis import learnt
from lossbench.analysis.lengths import one_of_twins, trunks
from lossbench.analysis.seeds import numbers
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory import gradients

PANELS, LOSSES = 4, 8

DICE, SIZE, NOISE = "val_dice", "size_ratio_soft", "log_loss_noise"

REACH = 64  # factor at which the axis of sizes ends


@figure(
    "training_curves",
    number=8,
    title="Validation Dice, soft region size and noise of the loss during training",
)
def training_curves(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; means over seeds and their range; below, the noise of the training loss."""
    cells, curves = points.first_of(tables["cells"], "curves", "ladder"), tables.get("curves")
    if curves is None or not len(cells) or DICE not in curves:
        raise NothingToDraw("needs cells with training curves")
    # More lines could not be told apart.
    losses, left = points.first_losses(cells, LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    wanted, alike = _distinct(
        points.rarest_first(cells), curves.merge(cells[["key", *points.VARIANT, "loss"]])
    )
    wanted = points.spread_evenly(wanted, PANELS)
    cells = points.of_variants(cells, wanted)
    keys = [*points.VARIANT, "data_label", "loss", "loss_label"]
    joined = curves.merge(cells[["key", *keys]], on="key")
    shown = [name for name in (DICE, SIZE) if name in joined and joined[name].notna().any()]
    if not shown:
        raise NothingToDraw("needs cells with training curves")
    # The range says how far seeds differ, which a mean hides.
    data = joined.groupby([*keys, "step"], observed=True, sort=True)[shown]
    data = data.agg(["mean", "min", "max", "count"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    data = data.reset_index()
    noise = _noise(cells)
    rows = len(shown) + (noise is not None)
    drawing, axes = style.canvas(rows, len(wanted), 0.75 + 2.1 * rows, sharey="row")
    looks = style.lines(losses)
    # "batch 4, 20 validations" and "batch 16, 20 validations" become "batch 4" and "batch 16".
    titles = points.short_names(list(wanted["label"]))
    for column, variant in enumerate(wanted.itertuples()):
        own = points.of_variant(data, variant)
        for axis, name in zip(axes[:, column], shown, strict=False):
            _lines(axis, own, name, looks)
        # Of few columns each is wide.
        axes[0][column].set_title(style.fitting(titles[column], max(27, 92 // len(wanted))))
        axes[len(shown) - 1][column].set_xlabel("optimiser step")
        if noise is not None:
            _noise_panel(axes[-1][column], points.of_variant(noise, variant), losses)
    axes[0][0].set_ylabel("validation Dice at 0.5")
    if len(shown) > 1:
        axes[1][0].set_ylabel("soft size, predicted / true")
        _size_axis(axes[1], data[f"{SIZE} mean"])
    style.loss_legend(drawing, losses, looks)
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed, and may go on beyond the "
        "axis of sizes. A soft size still far "
        "from 1 at the last step means that the network has not yet learnt how much foreground there is. "
        f"{'' if noise is None else NOISE_SAYS}{left}{alike}"
    ) + style.evidence(cells)
    alt = _last(points.of_variant(data, wanted.iloc[0]), wanted["label"].iloc[0])
    finding = _sooner(joined, wanted)
    if noise is not None:
        named = {name: f"loss_noise {name}" for name in points.SUMMARY}
        data = pd.concat([data, noise.rename(columns=named)], ignore_index=True)
    return drawing, data, says, alt, *finding


ALIKE = 0.03  # of Dice: the mean distance below which two columns of curves are one


def _distinct(facts: pd.DataFrame, curves: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the variants whose curves of Dice differ from those that stand before them, and the sentence
    that names the others.
    """
    mean = curves.groupby([*points.VARIANT, "loss", "step"], observed=True)[DICE].mean()
    kept, same = [], []
    for place, row in enumerate(facts.itertuples()):
        own = mean.loc[row.dataset, row.recipe] if (row.dataset, row.recipe) in mean.index else None
        near = [name for name, other in kept if own is not None and _near(own, other)]
        if near:
            same.append(f"{row.label} as {near[0]}")
        else:
            kept.append((row.label, own))
            facts.loc[facts.index[place], "kept"] = True
    texts = f"Much the same, so not drawn: {'; '.join(same)}. " if same else ""
    return facts[facts["kept"].notna()].drop(columns="kept"), texts


def _near(own: pd.Series, other: pd.Series | None) -> bool:
    if other is None or not own.index.equals(other.index):
        return False
    return bool((own - other).abs().mean() < ALIKE)


HALF_WAY = 0.5  # of the last Dice of the best loss


def _sooner(joined: pd.DataFrame, wanted: pd.DataFrame) -> list[str]:
    """Return after how many steps Dice and CE reach half of the best last Dice, where they differ most."""
    found = []
    for variant in wanted.itertuples():
        own = points.of_variant(joined, variant)
        mean = own.pivot_table(index="step", columns="loss", values=DICE, observed=True)
        # One seed each would make a chance a title.
        if not {"dice", "ce"} <= set(mean) or own.groupby("loss", observed=True)["key"].nunique().min() < 2:
            continue
        # By the same height for both: that of the better of them.
        reached = mean >= HALF_WAY * mean.iloc[-1].max()
        if reached["dice"].any() and reached["ce"].any():
            places = [int(reached[loss].to_numpy().argmax()) for loss in ("dice", "ce")]
            if abs(places[0] - places[1]) < 2:  # one look apart is within what a look can tell
                continue
            dice, ce = (int(mean.index[place]) for place in places)
            found.append((abs(np.log(dice / ce)), variant.label, dice, ce))
    if not found:
        return []
    _, label, dice, ce = max(found)
    return [f"On {style.quoted(label)} dice is half way after {dice} steps, ce after {ce}"]


NOISE_SAYS = (
    "Bottom: standard deviation of the training loss about its running median in the second half of "
    "training, as a share of its fall over the whole training; geometric means and 95 % t intervals over "
    "seeds. "
)


def _lines(axis, own: pd.DataFrame, name: str, looks: dict) -> None:
    # Markers on every step would hide the lines.
    every = 4 if own["step"].nunique() > 8 else 1
    for loss, look in looks.items():
        part = own[own["loss"] == loss]
        thin = {"markersize": 3.5, "linewidth": 1.4, "markevery": every}
        axis.plot(part["step"], part[f"{name} mean"], **look, **thin)
        low, high = part[f"{name} min"], part[f"{name} max"]
        axis.fill_between(part["step"], low, high, color=look["color"], alpha=0.1, linewidth=0)


def _size_axis(axes: np.ndarray, values: pd.Series) -> None:
    """Show at least half to double, and at most a factor 64 either way."""
    # Zero is a collapse: it has no place on a logarithmic axis.
    logs = np.log(values.where(values > 0).dropna())
    low = np.clip(logs.min() - 0.15 if len(logs) else 0, -np.log(REACH), -np.log(2))
    high = np.clip(logs.max() + 0.15 if len(logs) else 0, np.log(2), np.log(REACH))
    for axis in axes:
        axis.axhline(1, color=style.SOFT, linewidth=0.9, zorder=1)
        style.ratio_axis(axis, float(np.exp(low)), float(np.exp(high)), 4 if high - low > 3 else 2)


def _noise(cells: pd.DataFrame) -> pd.DataFrame | None:
    """Return the noise of the training loss by variant and loss (geometric mean, interval), if measured."""
    if NOISE not in cells or not cells[NOISE].notna().any():
        return None
    variants = points.rarest_first(cells)[[*points.VARIANT, "label"]].rename(columns={"label": "data_label"})
    labels = cells.drop_duplicates("loss")[["loss", "loss_label"]]
    return points.mapped(points.means(cells, NOISE), np.exp).merge(labels, on="loss").merge(variants)


def _noise_panel(axis, part: pd.DataFrame, losses: pd.DataFrame) -> None:
    for y, loss in enumerate(losses.itertuples()):
        for row in part[part["loss"] == loss.loss].itertuples():
            style.whiskers(axis, y, row, style.colour(loss.family))
    style.names(axis, list(losses["loss_label"]), 18)
    style.log_axis(axis, part["mean"].to_numpy(), "x")
    axis.set_xlabel("noise of the loss / its fall")


def _last(own: pd.DataFrame, label: str) -> str:
    last = own.sort_values("step").groupby("loss_label", observed=True)[f"{DICE} mean"].last()
    values = ", ".join(f"{loss} {value:.2f}" for loss, value in last.items())
    return f"At the last step on {label} validation Dice is {values}."


SCORE, STEPS = "dice@0.5", "recipe.steps"

MOST_LENGTHS = 20  # panels


@figure("score_by_length", number=21, title="Dice by the length of training, loss by loss")
def score_by_length(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set and head: Dice at each length of training, and what is left of the first lead."""
    cells = tables["cells"]
    cells = cells.assign(steps=numbers(cells, STEPS), way=trunks(cells, ["dataset"])) if len(cells) else cells
    if not len(cells) or SCORE not in cells:
        raise NothingToDraw("needs cells that were trained at two lengths or more")
    cells = one_of_twins(cells)
    # Cells that differ in nothing but their steps are one training, stopped sooner or later.
    cells = cells[cells.groupby(["way", "loss"], observed=True)["steps"].transform("nunique") > 1]
    if not len(cells):
        raise NothingToDraw("needs cells that were trained at two lengths or more")
    # More lines could not be told apart.
    losses, left = points.first_losses(cells, LOSSES)
    cells = cells[cells["loss"].isin(losses["loss"])]
    ways = _ways(cells)
    shown = ways.head(MOST_LENGTHS)
    data = points.means(cells, SCORE).merge(
        cells[[*points.VARIANT, "way", "steps"]].drop_duplicates(), on=points.VARIANT
    )
    data = data.merge(losses, on="loss").merge(ways, on="way")
    rows, wide = style.shape(len(shown), 4)
    drawing, axes = style.canvas(rows, wide, 0.7 + 2.1 * rows)
    looks = style.lines(losses)
    for axis, way in zip(axes.flat, shown.itertuples(), strict=False):
        own = data[data["way"] == way.way]
        _length_panel(axis, own, looks)
        _length_axis(axis, sorted(own["steps"].unique()), data.loc[data["way"].isin(shown["way"]), "steps"])
        axis.set_title(_titled(style.in_words(way.label), 22 if wide > 2 else 50))
    style.hide_rest(axes, len(shown))
    drawing.supxlabel("optimiser steps", fontsize=9)
    drawing.supylabel("Dice at 0.5", fontsize=9)
    style.loss_legend(drawing, losses, looks)
    says = (
        "Each length is a training of its own schedule from the same start and the same batches. Means over "
        "seeds, bars 95 % t intervals over seeds of one loss; the losses of a seed are paired, so their "
        "difference may be sure where bars overlap. Where lines still rise, a difference says who learns "
        f"sooner. Every panel has its own scale. {left}"
        + style.more(len(ways) - len(shown), "training", "the tables (data set and recipe)")
    ) + style.evidence(cells)
    table = data[["label", *points.LOSS, "steps", *points.SUMMARY]]
    finding = _lead(cells, ways)
    alt = "; ".join(finding) if finding else _ends(table)
    return drawing, table, says, f"Lines of Dice over steps. {alt}.", *finding[:1]


def _titled(label: str, room: int) -> str:
    """Return a label in a line or two: two heads of a network must not read alike."""
    data, _, clauses = label.partition(", ")
    if len(label) <= room or not clauses:
        return style.fitting(label, room)
    *others, last = clauses.split(", ") if clauses.endswith("head default") else (clauses,)
    second = last if not others else f"{style.fitting(', '.join(others), room - len(last) - 2)}, {last}"
    return f"{style.fitting(data, room)}\n{style.fitting(second, room)}"


def _ways(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set and recipe but for its length: way, label; those that differ from the
    plainest of their data set in no more than the head first, by foreground, then label.
    """
    facts = points.rarest_first(cells)
    named = facts["label"].str.replace(learnt.STEPS_CLAUSE, "", regex=True)
    by_variant = cells[[*points.VARIANT, "way"]].drop_duplicates()
    ways = facts.assign(label=named).merge(by_variant, on=points.VARIANT)
    ways = ways.groupby("way", sort=False, observed=True).agg(
        label=("label", "first"), dataset=("dataset", "first"), foreground=("foreground", "mean")
    )
    others = ways["label"].str.replace(", head default", "", regex=False).str.count(", ")
    # A clause that all recipes of a data set have, as the size of its patches, makes none of them unusual.
    others -= others.groupby(ways["dataset"]).transform("min")
    order = ["others", "foreground", "label"]
    ordered = ways.assign(others=others).reset_index().sort_values(order, kind="stable", ignore_index=True)
    return ordered[["way", "label"]]


def _length_panel(axis, own: pd.DataFrame, looks: dict) -> None:
    count = len(looks)
    for place, (loss, look) in enumerate(looks.items()):
        part = own[own["loss"] == loss].sort_values("steps")
        # A little aside, so that bars of one length do not hide each other.
        x = part["steps"] * (1 + 0.035 * (place - (count - 1) / 2))
        axis.vlines(x, part["low"], part["high"], color=look["color"], linewidth=1.1, zorder=2)
        axis.plot(x, part["mean"], **look, markersize=4.5, zorder=3)
    style.span(axis, own, 0.05)


def _length_axis(axis, lengths: list[float], everywhere: pd.Series) -> None:
    """Tick the lengths of one panel, on an axis that has room for those of all."""
    axis.set_xscale("log")
    axis.set_xticks(lengths, [f"{steps:,.0f}" for steps in lengths])
    axis.minorticks_off()
    axis.set_xlim(everywhere.min() / 1.35, everywhere.max() * 1.35)


def _lead(cells: pd.DataFrame, ways: pd.DataFrame) -> list[str]:
    """Return what is left of the lead of Dice over CE in each panel where there was one at first, the widest
    first.
    """
    found = []
    for way in ways.itertuples():
        own = cells[cells["way"] == way.way]
        wide = own.pivot_table(index=["steps", "seed"], columns="loss", values=SCORE, observed=True)
        if not {"dice", "ce"} <= set(wide):
            continue
        lead = (wide["dice"] - wide["ce"]).dropna().unstack("steps")
        # Of few seeds nothing is said: their sign flips bound no difference.
        if lead.shape[1] > 1 and points.is_sure(lead.iloc[:, 0]):
            found.append((-abs(lead.iloc[:, 0].mean()), learnt.speeds(own)["says"].iloc[0]))
    return [text for _, text in sorted(found)]


def _ends(table: pd.DataFrame) -> str:
    last = table.sort_values("steps").groupby(["label", "loss_label"], observed=True).last().reset_index()
    return "; ".join(f"{row.loss_label} ends at {row.mean:.2f} on {row.label}" for row in last.itertuples())


PIXELS = 128 * 128

SHARE = 0.1  # chance that a pixel of the uncertain area is wrong

DRAWS = 4000

RATIO = 100  # largest over smallest object of the right panel

# Losses look as everywhere; the second case of Dice has a mark and a dash of its own.
_DICE = style.look("dice", "overlap")

LOOKS = {
    "Dice, errors over the area": _DICE | {"marker": "D", "linestyle": style.DASHES[3]},
    "Dice, errors at the rim": _DICE,
    "CE, errors at the rim": style.look("ce", "distribution"),
}

BATCH_LOOKS = {
    "CE": LOOKS["CE, errors at the rim"],
    "Dice of each image": _DICE,
    "Dice over the batch": style.look("batch dice", "overlap"),
}


@figure("loss_noise", number=7, title="Noise of the loss by object size, and by batch size", theory=True)
def loss_noise():
    """Left: standard deviation of the loss of one image; right: that of a batch, relative to its mean."""
    sizes = np.unique(np.geomspace(16, 4096, 9).round().astype(int))
    drawn, formula = by_size(sizes), by_formula(np.geomspace(16, 4096, 41))
    batches = by_batch(np.array([1, 2, 4, 8, 16, 32]))
    drawing, axes = style.canvas(1, 2, 3.5)
    left, right = axes[0]
    for case, look in LOOKS.items():
        line, marks = formula[formula["case"] == case], drawn[drawn["case"] == case]
        # Lines for formulas, marks for simulations: where they agree the marks sit on the lines.
        left.plot(line["x"], line["y"], **look | {"marker": ""}, linewidth=1.7, zorder=2)
        left.plot(marks["x"], marks["y"], **look | {"linestyle": ""}, markersize=5, zorder=3)
    for case, look in BATCH_LOOKS.items():
        part = batches[batches["case"] == case]
        right.plot(part["x"], part["y"], **look, markersize=5)
    left.set(xscale="log", yscale="log", xlabel=f"object size, pixels of {PIXELS}")
    left.set_xticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1024", "4096"])
    left.set_ylabel("standard deviation of the loss")
    left.set_title("One image, by the size of its object")
    right.set(xscale="log", xlabel="images in the batch", ylim=(0, None))
    right.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    right.set_ylabel("standard deviation / mean of the loss")
    right.set_title(f"A batch of mixed sizes (1 : {RATIO})")
    for axis, looks in ((left, LOOKS), (right, BATCH_LOOKS)):
        axis.minorticks_off()
        handles = [style.key(case, **look, markersize=5) for case, look in looks.items()]
        axis.legend(handles=handles, loc="best")
    tables = [
        formula.assign(panel="size", kind="formula"),
        drawn.assign(panel="size", kind="simulated"),
        batches.assign(panel="batch", kind="simulated"),
    ]
    # The exponents in the caption are measured on the marks, not copied from theory.
    area, rim, ce = (style.signed(slope(drawn[drawn["case"] == case]), 2) for case in LOOKS)
    four = batches[batches["x"] == 4].set_index("case")["y"]
    relative = ", ".join(f"{case} {four[case]:.2f}" for case in BATCH_LOOKS)
    says = (
        "Masks in which uncertain pixels are wrong independently with chance .1. Left: lines are formulas, "
        f"marks {DRAWS} simulated images each; the noise of Dice falls with object size as n^{area} where "
        f"errors fall on the whole area (theory −1/2) and n^{rim} at the rim (−3/4), that of CE grows as "
        f"n^{ce} (+1/4). Right: errors at the rim, log-uniform sizes; relative to its mean the noise is much "
        f"the same (at four images {relative}), so 'Dice is noisier' depends on what the noise is compared "
        "with. A simulation with a fixed seed, not a trained network."
    )
    alt = (
        "Log-log plot: the noise of Dice falls with the size of the object, that of CE grows; and the "
        "relative noise of a batch by its images."
    )
    data = pd.concat(tables, ignore_index=True)[["panel", "kind", "case", "x", "y"]]
    finding = (
        f"With the size n of an object the noise of Dice changes as n^{rim} (errors at the rim), that of "
        f"CE as n^{ce}"
    )
    return drawing, data, says, alt, finding


def by_formula(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss of one image, from the formulas of ``theory.gradients``."""
    values = (
        gradients.dice_loss_sd(sizes, SHARE, "area"),
        gradients.dice_loss_sd(sizes, SHARE, "perimeter"),
        gradients.ce_loss_sd(sizes, SHARE, PIXELS),
    )
    tables = [pd.DataFrame({"case": case, "x": sizes, "y": y}) for case, y in zip(LOOKS, values, strict=True)]
    return pd.concat(tables, ignore_index=True)


def by_size(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss over simulated images of one object size (pixels) each."""
    # A fixed seed: the figure is the same every time.
    rng = np.random.default_rng(0)
    rows = []
    for size in sizes:
        n = np.full(DRAWS, size)
        # Errors anywhere in the object, or in a ring around its outline.
        area, rim = _errors(rng, n, n), _errors(rng, n, _rim(n))
        values = (_dice(n, *area), _dice(n, *rim), sum(rim) / PIXELS)
        rows += [(case, size, loss.std(ddof=1)) for case, loss in zip(LOOKS, values, strict=True)]
    return pd.DataFrame(rows, columns=["case", "x", "y"])


def by_batch(batches: np.ndarray) -> pd.DataFrame:
    """Return standard deviation over mean of the loss of simulated batches of log-uniform object sizes."""
    rng = np.random.default_rng(1)
    rows = []
    for images in batches:
        # Log-uniform: as many small objects as large ones.
        n = np.exp(rng.uniform(np.log(32), np.log(32 * RATIO), (DRAWS, images))).round().astype(int)
        missed, added = _errors(rng, n, _rim(n))
        values = (
            (missed + added).mean(axis=1) / PIXELS,
            _dice(n, missed, added).mean(axis=1),
            _dice(n.sum(axis=1), missed.sum(axis=1), added.sum(axis=1)),
        )
        for case, loss in zip(BATCH_LOOKS, values, strict=True):
            rows.append((case, images, loss.std(ddof=1) / loss.mean()))
    return pd.DataFrame(rows, columns=["case", "x", "y"])


def slope(table: pd.DataFrame) -> float:
    """Return the least-squares slope of log y on log x."""
    return float(np.polyfit(np.log(table["x"].astype(float)), np.log(table["y"]), 1)[0])


def _rim(n: np.ndarray) -> np.ndarray:
    """Return how many pixels lie just inside the outline of a disc of n pixels, and as many just outside."""
    return np.sqrt(np.pi * n).round().astype(int)


def _errors(rng: np.random.Generator, n: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return missed and added pixels; no more can be missed than there are."""
    return rng.binomial(np.minimum(places, n), SHARE), rng.binomial(places, SHARE)


def _dice(n: np.ndarray, missed: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Return the Dice loss of masks of n true pixels: (m + a) / (2 n - m + a)."""
    return (missed + added) / (2 * n - missed + added)
