"""What the formulas say by themselves, before anything is trained."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lossbench.figures import style
from lossbench.figures.drawing import figure
from lossbench.theory import gradients, proportions

# Rare, usual and common, as on the ladder.
LEVELS = (0.01, 0.05, 0.2)  # foreground fractions

WIDE = {"linewidth": 1.7}

# Formulas look as the losses that they belong to; no point of a line has a mark.
_LINE = {"marker": ""}
_CE, _DICE, _BATCH, _L1 = (
    style.look(loss, family) | _LINE
    for loss, family in (
        ("ce", "distribution"),
        ("dice", "overlap"),
        ("batch dice", "overlap"),
        ("ce_l1", "size"),
    )
)
_SOLID, _DASHED, _DOTTED, _MIXED = ({"linestyle": dash} for dash in style.DASHES[:4])

PENALTIES = {
    "Dice, foreground": _DICE,
    "Dice, all classes": _DICE | _MIXED,
    "CE (KL)": _CE,
    "L1": _L1,
}


@figure("size_penalties", number=3, title="The region-size penalties by themselves", theory=True)
def size_penalties():
    """Top: penalty over relative size r, zero at the true size; bottom: its slope in log r."""
    data = pd.concat([_penalties(yh) for yh in LEVELS], ignore_index=True).dropna()
    drawing, axes = style.canvas(2, 3, 4.6, sharex=True, sharey="row")
    for column, yh in enumerate(LEVELS):
        for row, what in enumerate(("value", "slope")):
            axis = axes[row][column]
            axis.axhline(0, color=style.SOFT, linewidth=0.8, zorder=1)
            # The cross hairs mark the true size and no penalty.
            axis.axvline(1, color=style.SOFT, linewidth=0.8, zorder=1)
            for name, look in PENALTIES.items():
                part = data[(data["foreground"] == yh) & (data["penalty"] == name)]
                axis.plot(part["r"], part[what], **look, **WIDE)
            axis.set_xscale("log")
            axis.set_xticks([1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"])
            axis.minorticks_off()
        axes[0][column].set_title(f"{style.percent(yh)} foreground")
    axes[0][0].set(ylabel="penalty, 0 at the true size", ylim=(-0.9, 2.4))
    axes[1][0].set(ylabel="slope in log size", ylim=(-0.45, 1.45))
    drawing.supxlabel("predicted / true region size", fontsize=9)
    style.legend(drawing, [style.key(name, **look, **WIDE) for name, look in PENALTIES.items()], 4)
    says = (
        "The size term of log-Dice, log(ph + yh), falls towards an empty region, with the same force at "
        "any share of foreground; CE's own size term, KL(yh || ph), and the L1 term are least at the "
        "true size, but their pull fades with the foreground. No loss is these terms alone: the matching "
        "term pulls the other way."
    )
    alt = (
        "Penalties over relative region size at 1, 5 and 20 % foreground; only Dice's is least at a "
        "vanishing region."
    )
    least = data.loc[data.groupby(["penalty", "foreground"])["value"].idxmin()]
    # The true size is one of the points.
    apart = sorted(set(least.loc[~np.isclose(least["r"], 1), "penalty"]))
    finding = (
        f"Only the size terms of {' and '.join(map(style.quoted, apart))} are not least at the true size"
        if apart
        else None
    )
    return drawing, data, says, alt, *filter(None, [finding])


def _penalties(yh: float) -> pd.DataFrame:
    """Return every penalty and its slope at a true foreground fraction, over relative sizes 1/16 to 16."""
    r = np.geomspace(1 / 16, 16, 129)
    # More than all pixels cannot be predicted.
    r = np.where(r * yh < 0.999, r, np.nan)
    predicted, truth = proportions.binary(r * yh), proportions.binary(yh)
    values = {
        "Dice, foreground": np.log(r * yh + yh) - np.log(2 * yh),
        "Dice, all classes": proportions.dice_size(predicted, truth) - proportions.dice_size(truth, truth),
        "CE (KL)": np.where(np.isfinite(r), proportions.kl_size(predicted, truth), np.nan),
        "L1": proportions.l1_size(predicted, truth),
    }
    slopes = {name: np.gradient(value, np.log(r)) for name, value in values.items()}
    slopes["L1"] = proportions.l1_slope(r, yh)  # a corner at r = 1, which differences would round off
    tables = []
    for name, value in values.items():
        facts = {"foreground": yh, "penalty": name, "r": r, "value": value, "slope": slopes[name]}
        tables.append(pd.DataFrame(facts))
    return pd.concat(tables)


@figure("dice_simplex", number=4, title="Size penalties on the three-class simplex", theory=True)
def dice_simplex():
    """Every point is a triple of predicted proportions; the truth is .80, .15, .05."""
    yh = np.array([0.80, 0.15, 0.05])
    steps = 180  # fine enough that lines of equal penalty have no corners
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    # KL is infinite where a class is predicted nowhere; the corner is cut at one in a thousand.
    dice, ce = proportions.dice_size(grid, yh), proportions.kl_size(np.clip(grid, 1e-3, None), yh)
    # An equilateral triangle: every class is treated alike.
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    drawing, axes = style.canvas(1, 2, 4.0, width=8.2)
    names = ("Dice: sum of log(ph + yh)", "CE: KL(yh || ph)")
    for axis, name, value, look in zip(axes[0], names, (dice, ce), (_DICE, _CE), strict=True):
        # Quantiles, since equal steps would crowd at the steep corners.
        levels = np.unique(np.quantile(value, np.linspace(0, 1, 13)))[1:-1]
        lines = {"colors": look["color"], "linewidths": 1, "linestyles": "solid"}
        axis.tricontour(*(grid @ corners).T, value, levels=levels, **lines)
        axis.plot(*np.vstack([corners, corners[:1]]).T, color=style.SOFT, linewidth=1)
        axis.plot(*(yh @ corners), "o", color=style.INK, markersize=6, zorder=4)
        # The answer of the figure: where the penalty alone would lead.
        least = grid[value.argmin()] @ corners
        open_mark = {"color": style.INK, "markerfacecolor": style.PAPER, "markersize": 9, "clip_on": False}
        axis.plot(*least, "v", **open_mark, zorder=5)
        for k, ((x, y), above) in enumerate(zip(corners, (-0.07, -0.07, 0.03), strict=True)):
            axis.text(x, y + above, f"all class {k + 1}", ha="center", fontsize=8.5)
        axis.set_title(name, loc="center")
        axis.set_aspect("equal")
        axis.set_axis_off()
        axis.set(xlim=(-0.12, 1.12), ylim=(-0.12, 1.0))
    data = pd.DataFrame(grid, columns=["ph_1", "ph_2", "ph_3"]).assign(dice=dice, ce=ce)
    ends = {name: grid[value.argmin()] for name, value in (("Dice", dice), ("CE", ce))}
    finding = "; ".join(
        f"{name}'s size term is least at {', '.join(f'{100 * share:.0f}' for share in end)} %"
        for name, end in ends.items()
    )
    # The table holds every third line of the grid.
    data = data[(np.round(grid * steps).astype(int) % 3 == 0).all(axis=1)]
    says = (
        "Lines of equal penalty; between two lines lie equally many points. The dot is the truth (80, 15 and "
        "5 %), the triangle the least penalty: for Dice the corner where the largest class takes every "
        "pixel, for CE the truth."
    )
    alt = (
        "Two triangles of predicted proportions; Dice's size term is least at the corner of the largest "
        "class, CE's at the truth."
    )
    return drawing, data, says, alt, f"For a truth of 80, 15, 5 % {finding}"


# loss, probability on the object, probability on the background, look
PULLS = {
    "CE": ("ce", 0.2, 0.2, _CE),
    "Dice over the batch": ("batch", 0.2, 0.2, _BATCH),
    "Dice of the image, early": ("image", 0.2, 0.2, _DICE | _MIXED),
    "Dice of the image, late": ("image", 0.9, 0.0, _DICE),
}


@figure("gradient_mass", number=6, title="Who pulls how hard", theory=True)
def gradient_mass():
    """Left: gradient on an object by its size; right: foreground over background at a constant prediction."""
    drawing, axes = style.canvas(1, 2, 3.3)
    left, right = axes[0]
    rows = []
    sizes = np.unique(np.geomspace(8, 8192, 31).round().astype(int))
    for name, (over, front, back, look) in PULLS.items():
        # 16384 pixels: an image of 128 x 128.
        mass = np.array([gradients.object_mass(n, 16384, front, back, over) for n in sizes])
        left.plot(sizes, mass / mass[-1], **look, **WIDE, label=name)
        rows.append(pd.DataFrame({"panel": "object", "case": name, "x": sizes, "y": mass / mass[-1]}))
    shares = np.geomspace(1e-4, 0.5, 60)
    ratios = (("Dice", gradients.dice_mass_ratio, _DICE), ("CE", gradients.ce_mass_ratio, _CE))
    for loss, ratio, look in ratios:
        for p0, dash in ((0.5, _SOLID), (0.1, _DASHED)):
            name, value = f"{loss}, p = {p0:g}", np.array([ratio(p0, share) for share in shares])
            right.plot(shares, value, **look | dash, **WIDE, label=name)
            rows.append(pd.DataFrame({"panel": "balance", "case": name, "x": shares, "y": value}))
    for axis in axes[0]:
        axis.set(xscale="log", yscale="log")
        axis.minorticks_off()
        axis.legend(loc="best")
    left.set_title("Pull on an object, by its size")
    left.set(xlabel="object size, pixels of 16384", ylabel="foreground gradient, largest = 1")
    right.set_title("Foreground over background")
    right.set(xlabel="foreground fraction, %", ylabel="ratio of gradient masses")
    right.set_xticks([1e-4, 1e-3, 1e-2, 1e-1], ["0.01", "0.1", "1", "10"])
    says = (
        "Left: summed |gradient| on the logits of one object, relative to the largest; early: p = .2 "
        "everywhere; late: p = .9 inside and the background gone. Only Dice of each image treats all sizes "
        "alike, and only late. Right: at a constant prediction p Dice pulls on foreground and background "
        "with nearly the same force as long as the foreground is much smaller than p, however rare it is "
        f"({_dice_ratios(0.1, (0.001, 0.01, 0.09))} at p = .1), CE in proportion to the foreground: this is "
        "why Dice needs no class weights."
    )
    alt = "Log-log plots: CE's pull on an object grows with its size, late per-image Dice's does not."
    data = pd.concat(rows, ignore_index=True)
    pull = data[data["panel"] == "object"].groupby("case", sort=False)["y"].agg(lambda y: y.max() / y.min())
    finding = (
        f"Over object sizes of 8 to 8192 pixels the pull of CE changes {pull['CE']:,.0f}-fold, that of late "
        f"Dice of the image {pull['Dice of the image, late']:.1f}-fold"
    )
    return drawing, data, says, alt, finding


def _dice_ratios(p0: float, shares: tuple[float, ...]) -> str:
    """Return how much harder Dice pulls on the foreground than on the background at these shares of it."""
    return ", ".join(
        f"{gradients.dice_mass_ratio(p0, share):.2f}-fold at {style.percent(share)}" for share in shares
    )


# Losses that no figure of trainings shows have a mark and a dash of their own.
CONSTANTS = {
    "cross-entropy": style.look("ce", "distribution"),
    "Dice": style.look("dice", "overlap"),
    "Dice with background": _DICE | _MIXED | {"marker": "D"},
    "log-Dice with background": _DICE | _DOTTED | {"marker": "^"},
    "squared Dice (V-Net)": _DICE | _SOLID | {"marker": "v"},
    "generalised Dice": style.look("generalized_dice", "overlap") | _LINE,
}


DOT = {"markersize": 5}
# CE likes the same constant best as Dice with the background: both are seen.
RING = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.6}


@figure(
    "constant_prediction",
    number=10,
    title="What each loss makes of a prediction that knows nothing",
    theory=True,
)
def constant_prediction():
    """Loss of a constant p0, scaled to its own range; marks at the least."""
    p0 = np.concatenate([np.geomspace(1e-3, 0.1, 50), np.linspace(0.1, 0.999, 70)[1:]])
    drawing, axes = style.canvas(1, 3, 3.2, sharey=True)
    rows = []
    for axis, yh in zip(axes[0], LEVELS, strict=True):
        for name, loss in proportions.LOSSES.items():
            value = loss(p0, yh)
            span = value.max() - value.min()
            # Generalised Dice does not depend on p0: no least value to mark.
            flat = span < 1e-9
            scaled = np.zeros_like(value) if flat else (value - value.min()) / span
            axis.plot(p0, scaled, **CONSTANTS[name] | _LINE, **WIDE)
            facts = {"foreground": yh, "loss": name, "p0": p0, "value": value, "scaled": scaled}
            rows.append(pd.DataFrame(facts))
            if not flat:
                look = CONSTANTS[name] | (RING if name == "cross-entropy" else DOT) | {"linestyle": ""}
                best = min(proportions.BEST[name](yh), p0[-1])
                axis.plot([best], [0], **look, clip_on=False, zorder=4)
        axis.axvline(yh, color=style.SOFT, linewidth=0.8, zorder=1)
        axis.set_xscale("log")
        axis.set_xticks([0.001, 0.01, 0.1, 1], [".001", ".01", ".1", "1"])
        axis.minorticks_off()
        axis.set_title(f"{style.percent(yh)} foreground")
    axes[0][0].set_ylabel("loss, from its least to its largest")
    drawing.supxlabel("constant prediction p₀", fontsize=9)
    style.legend(drawing, [style.key(name, **look | DOT, **WIDE) for name, look in CONSTANTS.items()], 3)
    says = (
        "Marks (of cross-entropy a ring) stand at the constant that each loss likes best, the thin line at "
        "the true foreground: Dice of the foreground starts from all foreground, with the background in the "
        "mean from the true share, log-Dice near √(2 yh), squared Dice at √yh. Generalised Dice is flat: it "
        "pulls in no direction."
    )
    alt = (
        "Loss of a constant prediction for six losses at 1, 5 and 20 % foreground, with the best constant of "
        "each."
    )
    at = LEVELS[0]
    best = {
        name: min(float(proportions.BEST[name](at)), 1.0)
        for name in proportions.LOSSES
        if name in proportions.BEST
    }
    ends = ", ".join(f"{name} {style.percent(value)}" for name, value in best.items() if np.isfinite(value))
    finding = f"The constant that each loss likes best at {style.percent(at)} foreground: {ends}"
    return drawing, pd.concat(rows, ignore_index=True), says, alt, finding
