"""Figure 8: how each loss gets there: validation Dice and soft region size while training, and how noisy the
training loss is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory import gradients

PANELS, LOSSES = 4, 8

NOISE = "log_loss_noise"


@figure(
    "training_curves",
    number=8,
    title="Validation Dice, soft region size and noise of the loss during training",
)
def training_curves(tables: Mapping[str, pd.DataFrame]):
    """Columns are data sets; lines are means over seeds, bands their range; below, the noise of the training
    loss.
    """
    cells, curves = points.first_of(tables["cells"], "curves", "ladder"), tables.get("curves")
    if curves is None or not len(cells) or "val_dice" not in curves:
        raise NothingToDraw("needs cells with training curves")
    losses = style.ordered(cells).head(LOSSES)
    wanted = points.spread_evenly(points.rarest_first(cells), PANELS)
    cells = cells.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    left = cells["loss"].nunique() - len(losses)
    cells = cells[cells["loss"].isin(losses["loss"])]
    joined = curves.merge(
        cells[["key", "dataset", "recipe", "data_label", "loss", "loss_label", "family"]], on="key"
    )
    shown = [c for c in ("val_dice", "size_ratio_soft") if c in joined and joined[c].notna().any()]
    if not shown:
        raise NothingToDraw("needs cells with training curves")
    data = joined.groupby(
        ["dataset", "recipe", "data_label", "loss", "loss_label", "step"], observed=True, sort=True
    )[shown]
    data = data.agg(["mean", "min", "max", "count"])
    data.columns = [f"{column} {what}" for column, what in data.columns]
    data = data.reset_index()
    noise = _noise(cells)
    rows = len(shown) + (noise is not None)
    drawing, axes = style.canvas(rows, len(wanted), 0.75 + 2.1 * rows, sharey="row")
    looks = style.lines(losses)
    titles = points.without_common(list(wanted["label"]))
    for column, variant in enumerate(wanted.itertuples()):
        own = points.of_variant(data, variant)
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
            _noise_panel(axes[-1][column], points.of_variant(noise, variant), losses)
    axes[0][0].set_ylabel("validation Dice at 0.5")
    if len(shown) > 1:
        axes[1][0].set_ylabel("soft size, predicted / true")
    _legend(drawing, losses, looks)
    says = (
        "Lines are means over seeds, bands run from the lowest to the highest seed. A soft size "
        "still far from 1 at the last step means that the "
        "network had not finished learning how much foreground there is. "
        + (NOISE_SAYS if noise is not None else "")
        + (f"{left} more losses are in the tables. " if left > 0 else "")
        + style.evidence(cells)
    )
    if noise is not None:
        data = pd.concat(
            [data, noise.rename(columns={c: f"loss_noise {c}" for c in ("mean", "low", "high", "n")})],
            ignore_index=True,
        )
    first = wanted.iloc[0]
    last = (
        points.of_variant(data, first)
        .dropna(subset="step")
        .sort_values("step")
        .groupby("loss_label", observed=True)["val_dice mean"]
        .last()
    )
    alt = (
        f"At the last step on {first['label']} validation Dice is "
        + ", ".join(f"{k} {v:.2f}" for k, v in last.items())
        + "."
    )
    return drawing, data, says, alt


NOISE_SAYS = (
    "Bottom: standard deviation of the training loss about its running median in the second half of "
    "training, as a share of its fall "
    "over the whole training; geometric means and 95 % t intervals over seeds. "
)


def _lines(axis, own: pd.DataFrame, name: str, losses: pd.DataFrame, looks: dict) -> None:
    many = own["step"].nunique() > 8
    for loss in losses["loss"]:
        part = own[own["loss"] == loss]
        look = looks[loss] | {"markersize": 3.5, "linewidth": 1.4, "markevery": 4 if many else 1}
        axis.plot(part["step"], part[f"{name} mean"], **look)
        axis.fill_between(
            part["step"],
            part[f"{name} min"],
            part[f"{name} max"],
            color=look["color"],
            alpha=0.1,
            linewidth=0,
        )


def _noise(cells: pd.DataFrame) -> pd.DataFrame | None:
    """Return the noise of the training loss by data set and loss (geometric mean, interval), or None where it
    was not measured.
    """
    if NOISE not in cells or not cells[NOISE].notna().any():
        return None
    found = points.means(cells, NOISE)
    for column in ("mean", "low", "high"):
        found[column] = np.exp(found[column])
    labels = cells.drop_duplicates("loss")[["loss", "loss_label"]]
    return found.merge(labels, on="loss").merge(
        points.rarest_first(cells)[["dataset", "recipe", "label"]].rename(columns={"label": "data_label"})
    )


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

    handles = [
        Line2D([], [], **looks[row.loss], markersize=4, label=row.loss_label) for row in losses.itertuples()
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))


# --- Figure 7: how noisy Dice and cross-entropy are when objects are small, and how that depends on what
# the noise is measured against.

PIXELS = 128 * 128

SHARE = 0.1  # chance that a pixel of the uncertain area is wrong

DRAWS = 4000

RATIO = 100  # largest over smallest object of the right panel

LOOKS = {
    "Dice, errors over the area": {"color": style.FAMILIES["overlap"][0], "marker": "s", "linestyle": "-"},
    "Dice, errors at the rim": {
        "color": style.FAMILIES["overlap"][0],
        "marker": "^",
        "linestyle": style.DASHES[1],
    },
    "CE, errors at the rim": {"color": style.FAMILIES["distribution"][0], "marker": "o", "linestyle": "-"},
}

BATCH_LOOKS = {
    "CE": LOOKS["CE, errors at the rim"],
    "Dice of each image": LOOKS["Dice, errors at the rim"],
    "Dice over the batch": {"color": style.FAMILIES["size"][0], "marker": "D", "linestyle": style.DASHES[2]},
}


@figure("loss_noise", number=7, title="Noise of the loss by object size, and by batch size", theory=True)
def loss_noise():
    """Left: standard deviation of the loss of one image; right: that of a batch of mixed sizes, relative to
    its mean.
    """
    sizes = np.unique(np.geomspace(16, 4096, 9).round().astype(int))
    drawn, formula = by_size(sizes), by_formula(np.geomspace(16, 4096, 41))
    batches = by_batch(np.array([1, 2, 4, 8, 16, 32]))
    drawing, axes = style.canvas(1, 2, 3.5)
    left, right = axes[0]
    for case, look in LOOKS.items():
        line, marks = formula[formula["case"] == case], drawn[drawn["case"] == case]
        left.plot(
            line["x"], line["y"], color=look["color"], linestyle=look["linestyle"], linewidth=1.7, zorder=2
        )
        left.plot(
            marks["x"],
            marks["y"],
            color=look["color"],
            marker=look["marker"],
            linestyle="",
            markersize=5,
            zorder=3,
        )
    for case, look in BATCH_LOOKS.items():
        part = batches[batches["case"] == case]
        right.plot(part["x"], part["y"], **look, markersize=5)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xticks([16, 64, 256, 1024, 4096], ["16", "64", "256", "1024", "4096"])
    left.minorticks_off()
    left.set_xlabel(f"object size, pixels of {PIXELS}")
    left.set_ylabel("standard deviation of the loss")
    left.set_title("One image, by the size of its object")
    _handles(left, LOOKS)
    right.set_xscale("log")
    right.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    right.minorticks_off()
    right.set_ylim(0, None)
    right.set_xlabel("images in the batch")
    right.set_ylabel("standard deviation / mean of the loss")
    right.set_title(f"A batch of mixed sizes (1 : {RATIO})")
    _handles(right, BATCH_LOOKS)
    data = pd.concat(
        [formula.assign(panel="size", kind="formula"), drawn.assign(panel="size", kind="simulated")],
        ignore_index=True,
    )
    data = pd.concat([data, batches.assign(panel="batch", kind="simulated")], ignore_index=True)
    slopes = {case: slope(drawn[drawn["case"] == case]) for case in LOOKS}
    four = batches[batches["x"] == 4].set_index("case")["y"]
    told = ", ".join(f"{case} {four[case]:.2f}" for case in BATCH_LOOKS)
    says = (
        "Masks in which uncertain pixels are wrong independently with chance .1. Left: lines are the "
        f"formulas, marks {DRAWS} simulated images each; "
        "the noise of Dice falls with object size as "
        f"n^{_signed(slopes['Dice, errors over the area'])} where errors fall on the whole area "
        "(theory "
        f"−1/2) and n^{_signed(slopes['Dice, errors at the rim'])} at the rim (−3/4), that of CE grows as "
        f"n^{_signed(slopes['CE, errors at the rim'])} (+1/4). Right: errors at the rim, log-uniform "
        "sizes; relative to its mean the noise is much "
        f"the same (at four images {told}), so 'Dice is noisier' depends on what the noise is "
        "compared with. A simulation with a fixed seed, not a "
        "trained network."
    )
    return (
        drawing,
        data[["panel", "kind", "case", "x", "y"]],
        says,
        "Log-log plot: the noise of Dice falls with the size of the object, that of CE grows; and "
        "the relative noise of a batch by its images.",
    )


def by_formula(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss of one image, from the formulas of ``theory.gradients``."""
    values = {
        "Dice, errors over the area": gradients.dice_loss_sd(sizes, SHARE, "area"),
        "Dice, errors at the rim": gradients.dice_loss_sd(sizes, SHARE, "perimeter"),
        "CE, errors at the rim": gradients.ce_loss_sd(sizes, SHARE, PIXELS),
    }
    return pd.concat(
        [pd.DataFrame({"case": case, "x": sizes, "y": y}) for case, y in values.items()], ignore_index=True
    )


def by_size(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss over simulated images of one object size (pixels) each."""
    rng = np.random.default_rng(0)
    rows = []
    for n in sizes:
        area = _errors(rng, np.full(DRAWS, n), np.full(DRAWS, n))
        rim = _errors(rng, np.full(DRAWS, n), _rim(np.full(DRAWS, n)))
        rows += [
            ("Dice, errors over the area", n, _dice(n, *area).std(ddof=1)),
            ("Dice, errors at the rim", n, _dice(n, *rim).std(ddof=1)),
        ]
        rows.append(("CE, errors at the rim", n, (sum(rim) / PIXELS).std(ddof=1)))
    return pd.DataFrame(rows, columns=["case", "x", "y"])


def by_batch(batches: np.ndarray) -> pd.DataFrame:
    """Return standard deviation over mean of the loss of simulated batches of log-uniform object sizes,
    errors at the rim.
    """
    rng = np.random.default_rng(1)
    rows = []
    for images in batches:
        n = np.exp(rng.uniform(np.log(32), np.log(32 * RATIO), (DRAWS, images))).round().astype(int)
        missed, added = _errors(rng, n, _rim(n))
        losses = {
            "CE": (missed + added).mean(axis=1) / PIXELS,
            "Dice of each image": _dice(n, missed, added).mean(axis=1),
            "Dice over the batch": _dice(n.sum(axis=1), missed.sum(axis=1), added.sum(axis=1)),
        }
        rows += [(case, images, loss.std(ddof=1) / loss.mean()) for case, loss in losses.items()]
    return pd.DataFrame(rows, columns=["case", "x", "y"])


def slope(points: pd.DataFrame) -> float:
    """Return the least-squares slope of log y on log x."""
    return float(np.polyfit(np.log(points["x"].astype(float)), np.log(points["y"]), 1)[0])


def _rim(n: np.ndarray) -> np.ndarray:
    """Return how many pixels lie just inside the outline of a disc of n pixels, and as many just outside."""
    return np.sqrt(np.pi * n).round().astype(int)


def _errors(rng: np.random.Generator, n: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return missed and added pixels; no more can be missed than there are."""
    return rng.binomial(np.minimum(places, n), SHARE), rng.binomial(places, SHARE)


def _dice(n: np.ndarray, missed: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Return the Dice loss of masks of n true pixels: (m + a) / (2 n - m + a)."""
    return (missed + added) / (2 * n - missed + added)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _handles(axis, looks: dict) -> None:
    from matplotlib.lines import Line2D

    axis.legend(
        handles=[Line2D([], [], **look, markersize=5, label=case) for case, look in looks.items()], loc="best"
    )
