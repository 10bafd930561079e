"""Figure 7: how noisy Dice and cross-entropy are when objects are small, and how that depends on what the noise is measured against."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.figures import figure, style
from benchmark.theory import gradients

PIXELS = 128 * 128
SHARE = 0.1  # chance that a pixel of the uncertain area is wrong
DRAWS = 4000
RATIO = 100  # largest over smallest object of the right panel
LOOKS = {
    "Dice, errors over the area": {"color": style.FAMILIES["overlap"][0], "marker": "s", "linestyle": "-"},
    "Dice, errors at the rim": {"color": style.FAMILIES["overlap"][0], "marker": "^", "linestyle": style.DASHES[1]},
    "CE, errors at the rim": {"color": style.FAMILIES["distribution"][0], "marker": "o", "linestyle": "-"},
}
BATCH_LOOKS = {
    "CE": LOOKS["CE, errors at the rim"],
    "Dice of each image": LOOKS["Dice, errors at the rim"],
    "Dice over the batch": {"color": style.FAMILIES["size"][0], "marker": "D", "linestyle": style.DASHES[2]},
}


@figure("loss_noise", number=7, title="Noise of the loss by object size, and by batch size", theory=True)
def loss_noise():
    """Left: standard deviation of the loss of one image; right: that of a batch of mixed sizes, relative to its mean."""
    sizes = np.unique(np.geomspace(16, 4096, 9).round().astype(int))
    drawn, formula = by_size(sizes), by_formula(np.geomspace(16, 4096, 41))
    batches = by_batch(np.array([1, 2, 4, 8, 16, 32]))
    drawing, axes = style.canvas(1, 2, 3.5)
    left, right = axes[0]
    for case, look in LOOKS.items():
        line, marks = formula[formula["case"] == case], drawn[drawn["case"] == case]
        left.plot(line["x"], line["y"], color=look["color"], linestyle=look["linestyle"], linewidth=1.7, zorder=2)
        left.plot(marks["x"], marks["y"], color=look["color"], marker=look["marker"], linestyle="", markersize=5, zorder=3)
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
    data = pd.concat([formula.assign(panel="size", kind="formula"), drawn.assign(panel="size", kind="simulated")], ignore_index=True)
    data = pd.concat([data, batches.assign(panel="batch", kind="simulated")], ignore_index=True)
    slopes = {case: slope(drawn[drawn["case"] == case]) for case in LOOKS}
    four = batches[batches["x"] == 4].set_index("case")["y"]
    told = ", ".join(f"{case} {four[case]:.2f}" for case in BATCH_LOOKS)
    says = (
        f"Masks in which uncertain pixels are wrong independently with chance .1. Left: lines are the formulas, marks {DRAWS} simulated images each; "
        f"the noise of Dice falls with object size as n^{_signed(slopes['Dice, errors over the area'])} where errors fall on the whole area (theory "
        f"−1/2) and n^{_signed(slopes['Dice, errors at the rim'])} at the rim (−3/4), that of CE grows as "
        f"n^{_signed(slopes['CE, errors at the rim'])} (+1/4). Right: errors at the rim, log-uniform sizes; relative to its mean the noise is much "
        f"the same (at four images {told}), so 'Dice is noisier' depends on what the noise is compared with. A simulation with a fixed seed, not a "
        "trained network."
    )
    return (
        drawing,
        data[["panel", "kind", "case", "x", "y"]],
        says,
        "Log-log plot: the noise of Dice falls with the size of the object, that of CE grows; and the relative noise of a batch by its images.",
    )


def by_formula(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss of one image, from the formulas of ``theory.gradients``."""
    values = {
        "Dice, errors over the area": gradients.dice_loss_sd(sizes, SHARE, "area"),
        "Dice, errors at the rim": gradients.dice_loss_sd(sizes, SHARE, "perimeter"),
        "CE, errors at the rim": gradients.ce_loss_sd(sizes, SHARE, PIXELS),
    }
    return pd.concat([pd.DataFrame({"case": case, "x": sizes, "y": y}) for case, y in values.items()], ignore_index=True)


def by_size(sizes: np.ndarray) -> pd.DataFrame:
    """Return the standard deviation of the loss over simulated images of one object size (pixels) each."""
    rng = np.random.default_rng(0)
    rows = []
    for n in sizes:
        area = _errors(rng, np.full(DRAWS, n), np.full(DRAWS, n))
        rim = _errors(rng, np.full(DRAWS, n), _rim(np.full(DRAWS, n)))
        rows += [("Dice, errors over the area", n, _dice(n, *area).std(ddof=1)), ("Dice, errors at the rim", n, _dice(n, *rim).std(ddof=1))]
        rows.append(("CE, errors at the rim", n, (sum(rim) / PIXELS).std(ddof=1)))
    return pd.DataFrame(rows, columns=["case", "x", "y"])


def by_batch(batches: np.ndarray) -> pd.DataFrame:
    """Return standard deviation over mean of the loss of simulated batches of log-uniform object sizes, errors at the rim."""
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

    axis.legend(handles=[Line2D([], [], **look, markersize=5, label=case) for case, look in looks.items()], loc="best")
