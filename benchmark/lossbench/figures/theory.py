"""Figures 3, 4, 6 and 10: what the formulas say by themselves, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.selection import numbers
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure
from lossbench.theory import constants, gradients, penalties
from lossbench.theory.penalties import size_error_bound

ONE = {"linewidth": 1.7}

LOOKS = {
    "Dice, foreground": {"color": style.FAMILIES["overlap"][0], "linestyle": "-"},
    "Dice, all classes": {"color": style.FAMILIES["overlap"][0], "linestyle": style.DASHES[1]},
    "CE (KL)": {"color": style.FAMILIES["distribution"][0], "linestyle": "-"},
    "L1": {"color": style.FAMILIES["size"][0], "linestyle": style.DASHES[2]},
}


@figure("size_penalties", number=3, title="The region-size penalties by themselves", theory=True)
def size_penalties():
    """Top: penalty against relative size r, zero at the true size; bottom: its slope in log r."""
    r = np.geomspace(1 / 16, 16, 129)
    levels = (0.01, 0.05, 0.2)
    rows = []
    for yh in levels:
        inside = r * yh < 0.999
        ph = np.where(inside, r * yh, np.nan)
        truth = penalties.binary(yh)
        values = {
            "Dice, foreground": np.log(ph + yh) - np.log(2 * yh),
            "Dice, all classes": penalties.dice_size(penalties.binary(ph), truth)
            - penalties.dice_size(truth, truth),
            "CE (KL)": np.where(inside, penalties.kl_size(penalties.binary(ph), truth), np.nan),
            "L1": penalties.l1_size(penalties.binary(ph), truth),
        }
        slopes = {name: np.gradient(value, np.log(r)) for name, value in values.items()}
        slopes["L1"] = penalties.l1_slope(np.where(inside, r, np.nan), yh)
        for name, value in values.items():
            rows.append(
                pd.DataFrame(
                    {"foreground": yh, "penalty": name, "r": r, "value": value, "slope": slopes[name]}
                )
            )
    data = pd.concat(rows, ignore_index=True).dropna()
    drawing, axes = style.canvas(2, 3, 4.6, sharex=True, sharey="row")
    for column, yh in enumerate(levels):
        for row, what in enumerate(("value", "slope")):
            axis = axes[row][column]
            axis.axhline(0, color=style.SOFT, linewidth=0.8, zorder=1)
            axis.axvline(1, color=style.SOFT, linewidth=0.8, zorder=1)
            for name, look in LOOKS.items():
                part = data[(data["foreground"] == yh) & (data["penalty"] == name)]
                axis.plot(part["r"], part[what], **look, **ONE, label=name if row == column == 0 else None)
            axis.set_xscale("log")
            axis.set_xticks([1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"])
            axis.minorticks_off()
        axes[0][column].set_title(f"{style.percent(yh)} foreground")
    axes[0][0].set_ylabel("penalty, 0 at the true size")
    axes[1][0].set_ylabel("slope in log size")
    axes[0][0].set_ylim(-0.9, 2.4)
    axes[1][0].set_ylim(-0.45, 1.45)
    drawing.supxlabel("predicted / true region size", fontsize=9)
    drawing.legend(loc="outside upper center", ncols=4)
    says = (
        "The size term of log-Dice, log(ph + yh), falls towards nothing and pulls with the same "
        "force however small the region is; CE's own size "
        "term, KL(yh || ph), and the L1 term are least at the true size, but their pull fades with "
        "the foreground. "
        "No loss is these terms alone: the matching term pulls the other way."
    )
    return (
        drawing,
        data,
        says,
        "Penalties against relative region size at 1, 5 and 20 % foreground; only Dice's is least at "
        "a vanishing region.",
    )


@figure("dice_simplex", number=4, title="Size penalties on the three-class simplex", theory=True)
def dice_simplex():
    """Every point is a triple of predicted proportions; the truth is .80, .15, .05."""
    yh = np.array([0.80, 0.15, 0.05])
    steps = 60
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    values = {
        "Dice: sum of log(ph + yh)": penalties.dice_size(grid, yh),
        "CE: KL(yh || ph)": penalties.kl_size(np.clip(grid, 1e-3, None), yh),
    }
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    x, y = (grid @ corners).T
    drawing, axes = style.canvas(1, 2, 4.0, width=8.2)
    for axis, (name, value) in zip(axes[0], values.items(), strict=True):
        levels = np.quantile(value, np.linspace(0, 1, 13))
        axis.tricontour(
            x,
            y,
            value,
            levels=np.unique(levels)[1:-1],
            colors=style.FAMILIES["overlap" if "Dice" in name else "distribution"][0],
            linewidths=1,
            linestyles="solid",
        )
        axis.plot(*np.vstack([corners, corners[:1]]).T, color=style.SOFT, linewidth=1)
        axis.plot(*(yh @ corners), "o", color=style.INK, markersize=6, zorder=4)
        least = grid[value.argmin()] @ corners
        axis.plot(
            *least, "v", color=style.INK, markersize=9, markerfacecolor=style.PAPER, zorder=5, clip_on=False
        )
        for k, (dx, dy, align) in enumerate(
            ((0, -0.07, "center"), (0, -0.07, "center"), (0, 0.03, "center"))
        ):
            axis.text(corners[k, 0] + dx, corners[k, 1] + dy, f"all class {k + 1}", ha=align, fontsize=8.5)
        axis.set_title(name, loc="center")
        axis.set_aspect("equal")
        axis.set_axis_off()
        axis.set_xlim(-0.12, 1.12)
        axis.set_ylim(-0.12, 1.0)
    data = pd.DataFrame(
        {
            "ph_1": grid[:, 0],
            "ph_2": grid[:, 1],
            "ph_3": grid[:, 2],
            "dice": values["Dice: sum of log(ph + yh)"],
            "ce": values["CE: KL(yh || ph)"],
        }
    )
    says = (
        "Lines of equal penalty; each line holds as many of the points as the next. The dot is the "
        "truth (80, "
        "15 and 5 %), the triangle the least penalty: "
        "for Dice the corner where the largest class takes every pixel, for CE the truth."
    )
    return (
        drawing,
        data,
        says,
        "Two triangles of predicted proportions; Dice's size term is least at the corner of the "
        "largest class, CE's at the truth.",
    )


@figure("gradient_mass", number=6, title="Who pulls how hard", theory=True)
def gradient_mass():
    """Left: gradient on an object by its size; right: foreground over background at a constant prediction."""
    sizes = np.unique(np.geomspace(8, 8192, 31).round().astype(int))
    cases = {
        "CE": ("ce", 0.2, 0.2, {"color": style.FAMILIES["distribution"][0], "linestyle": "-"}),
        "Dice over the batch": (
            "batch",
            0.2,
            0.2,
            {"color": style.FAMILIES["size"][0], "linestyle": style.DASHES[1]},
        ),
        "Dice of the image, early": (
            "image",
            0.2,
            0.2,
            {"color": style.FAMILIES["overlap"][0], "linestyle": style.DASHES[2]},
        ),
        "Dice of the image, late": (
            "image",
            0.9,
            0.0,
            {"color": style.FAMILIES["overlap"][0], "linestyle": "-"},
        ),
    }
    drawing, axes = style.canvas(1, 2, 3.3)
    rows = []
    for name, (over, front, back, look) in cases.items():
        mass = np.array([gradients.object_mass(n, 16384, front, back, over) for n in sizes])
        mass = mass / mass[-1]
        axes[0][0].plot(sizes, mass, **look, **ONE, label=name)
        rows.append(pd.DataFrame({"panel": "object", "case": name, "x": sizes, "y": mass}))
    yh = np.geomspace(1e-4, 0.5, 60)
    for name, ratio, look in (
        ("Dice", gradients.dice_mass_ratio, {"color": style.FAMILIES["overlap"][0]}),
        ("CE", gradients.ce_mass_ratio, {"color": style.FAMILIES["distribution"][0]}),
    ):
        for p0, dash in ((0.5, "-"), (0.1, style.DASHES[1])):
            value = np.array([ratio(p0, share) for share in yh])
            axes[0][1].plot(yh, value, linestyle=dash, **look, **ONE, label=f"{name}, p = {p0:g}")
            rows.append(
                pd.DataFrame({"panel": "balance", "case": f"{name}, p = {p0:g}", "x": yh, "y": value})
            )
    for axis in axes[0]:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.legend(loc="best")
    axes[0][0].set_title("Pull on an object, by its size")
    axes[0][0].set_xlabel("object size, pixels of 16384")
    axes[0][0].set_ylabel("foreground gradient, largest = 1")
    axes[0][1].set_title("Foreground over background")
    axes[0][1].set_xlabel("foreground fraction, %")
    axes[0][1].set_ylabel("ratio of gradient masses")
    axes[0][1].set_xticks([1e-4, 1e-3, 1e-2, 1e-1], ["0.01", "0.1", "1", "10"])
    says = (
        "Left: summed |gradient| on the logits of one object, relative to the largest; early: p = .2 "
        "everywhere, "
        "late: p = .9 inside and the background gone. "
        "Only Dice of each image treats all sizes alike, "
        "and only late. Right: at a constant prediction p Dice pulls on foreground and background with "
        "the same force at any imbalance, CE in proportion to the foreground: this is why Dice needs "
        "no class weights."
    )
    return (
        drawing,
        pd.concat(rows, ignore_index=True),
        says,
        "Log-log plots: CE's pull on an object grows with its size, late per-image Dice's does not.",
    )


@figure(
    "constant_prediction",
    number=10,
    title="What each loss makes of a prediction that knows nothing",
    theory=True,
)
def constant_prediction():
    """Loss of a constant p0, scaled to its own range; marks at the least."""
    p0 = np.concatenate([np.geomspace(1e-3, 0.1, 50), np.linspace(0.1, 0.999, 70)[1:]])
    looks = dict(
        zip(
            constants.LOSSES,
            [
                {"color": style.FAMILIES["distribution"][0], "linestyle": "-"},
                {"color": style.FAMILIES["overlap"][0], "linestyle": "-"},
                {"color": style.FAMILIES["overlap"][0], "linestyle": style.DASHES[1]},
                {"color": style.FAMILIES["compound"][0], "linestyle": style.DASHES[2]},
                {"color": style.FAMILIES["size"][0], "linestyle": style.DASHES[3]},
                {"color": style.OTHER[0], "linestyle": "-"},
            ],
            strict=True,
        )
    )
    levels = (0.01, 0.05, 0.2)
    drawing, axes = style.canvas(1, 3, 3.2, sharey=True)
    rows = []
    for axis, yh in zip(axes[0], levels, strict=True):
        for name, loss in constants.LOSSES.items():
            value = loss(p0, yh)
            span = value.max() - value.min()
            scaled = (value - value.min()) / span if span > 1e-9 else np.zeros_like(value)
            axis.plot(p0, scaled, **looks[name], **ONE, label=name if yh == levels[0] else None)
            rows.append(
                pd.DataFrame({"foreground": yh, "loss": name, "p0": p0, "value": value, "scaled": scaled})
            )
            if span > 1e-9:
                axis.plot(
                    [min(constants.BEST[name](yh), p0[-1])],
                    [0],
                    "o",
                    color=looks[name]["color"],
                    markersize=5,
                    clip_on=False,
                    zorder=4,
                )
        axis.axvline(yh, color=style.SOFT, linewidth=0.8, zorder=1)
        axis.set_xscale("log")
        axis.set_xticks([0.001, 0.01, 0.1, 1], [".001", ".01", ".1", "1"])
        axis.minorticks_off()
        axis.set_title(f"{style.percent(yh)} foreground")
    axes[0][0].set_ylabel("loss, from its least to its largest")
    drawing.supxlabel("constant prediction p₀", fontsize=9)
    drawing.legend(loc="outside upper center", ncols=3)
    says = (
        "Dots mark the constant each loss likes best, "
        "the thin line the true foreground: Dice of the foreground starts from all foreground, with "
        "the background "
        "in the mean from the true share, log-Dice near √(2 yh), squared Dice at √yh. Generalised "
        "Dice is flat: it pulls in no direction."
    )
    return (
        drawing,
        pd.concat(rows, ignore_index=True),
        says,
        "Loss of a constant prediction for six losses at 1, 5 and 20 % foreground, with the best "
        "constant of each.",
    )


# --- Figure 5: how far the predicted proportions can be off at a given cross-entropy, and how far they
# are.

PANELS = 4

NEEDED = ("match_ce", "size_ce", "size_dice", "size_ratio_soft")

FLOOR = 1e-6  # proportions nearer than this are drawn there


@figure("size_bound", number=5, title="Cross-entropy bounds the error in region size")
def size_bound(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: total error of the predicted proportions against cross-entropy, on the validation
    images.
    """
    cells, curves = points.of_parts(tables["cells"], "ladder"), tables.get("curves")
    two = cells[numbers(cells, "data.classes").fillna(2) == 2] if len(cells) else cells
    two = two[two["dataset_name"] == "scenes"] if len(two) else two
    if curves is None or not len(two) or not set(NEEDED) <= set(curves.columns):
        raise NothingToDraw(
            "needs two-class cells of scenes whose curves hold the terms of the decomposition"
        )
    wanted = points.spread_evenly(points.rarest_first(two), PANELS)
    data = curves.merge(
        two[["key", "dataset", "recipe", "data_label", "loss", "loss_label", "family", "seed"]], on="key"
    )
    data = data.merge(wanted[["dataset", "recipe"]], on=["dataset", "recipe"])
    data = data.assign(
        ce=data["match_ce"].astype(float) + data["size_ce"].astype(float), error=proportion_error(data)
    )
    data = data[np.isfinite(data["ce"]) & np.isfinite(data["error"])]
    if not len(data):
        raise NothingToDraw(
            "needs two-class cells of scenes whose curves hold the terms of the decomposition"
        )
    data["last"] = data["step"] == data.groupby("key")["step"].transform("max")
    data = data[data["last"] | (data["seed"] == data["seed"].min())]
    two = two[two["key"].isin(data["key"])]
    drawing, axes = style.canvas(1, len(wanted), 3.3, sharex=True, sharey=True)
    losses = style.ordered(two)
    span = np.array([data["ce"].min() / 1.5, data["ce"].max() * 1.5])
    bottom = max(FLOOR, data["error"].min() / 1.5)
    for axis, variant in zip(axes[0], wanted.itertuples(), strict=True):
        own = points.of_variant(data, variant)
        axis.plot(span, [size_error_bound(ce) for ce in span], color=style.INK, linewidth=1.3, zorder=4)
        for family, part in own.groupby("family", observed=True, sort=False):
            color = style.colour(family)
            early, late = part[~part["last"]], part[part["last"]]
            axis.plot(
                early["ce"],
                early["error"].clip(lower=bottom),
                ".",
                color=color,
                alpha=0.3,
                markersize=3,
                markeredgewidth=0,
                zorder=2,
            )
            axis.plot(
                late["ce"],
                late["error"].clip(lower=bottom),
                "o",
                color=color,
                markerfacecolor="none",
                markersize=4,
                zorder=3,
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.set_title(style.fitting(variant.label))
        axis.set_ylim(bottom / 1.3, size_error_bound(span[1]) * 1.5)
    drawing.supxlabel("cross-entropy on the validation images, nats a pixel", fontsize=9)
    axes[0][0].set_ylabel("error of proportions, Σ|p̂ − ŷ|")
    style.family_legend(drawing, losses, _handles())
    held = float(
        (data["error"] <= [size_error_bound(ce) * (1 + 1e-4) for ce in data["ce"].clip(lower=0)]).mean()
    )
    share = data[data["last"]].groupby("loss_label", observed=True)["error"].median()
    says = (
        "One mark a training: circles at its last step; dots at the earlier validated steps of the "
        "first seed. The line is the bound √(2 CE) on the "
        "summed error of the two classes' predicted proportions (chain rule and Pinsker's "
        "inequality): whatever loss was trained, no network can "
        f"lie above it, and a low cross-entropy forces the size to be right ({100 * held:.4g} % of "
        f"{len(data)} marks lie below). A high one leaves "
        "it open. "
    ) + style.evidence(two)
    alt = (
        "Median error of the proportions at the last step: "
        + ", ".join(f"{k} {v:.2g}" for k, v in share.items())
        + "; all below the bound."
    )
    kept = ["key", "data_label", "loss_label", "family", "seed", "step", "ce", "size_ce", "error", "last"]
    return drawing, data[kept], says, alt


def proportion_error(curves: pd.DataFrame) -> pd.Series:
    """Return sum_k |ph_k - yh_k| of two classes, from what the curves hold of the foreground: r = ph / yh and
    log(ph + yh).

    |ph - yh| = (ph + yh) |r - 1| / (r + 1), and the background is off by the same amount.
    """
    r, both = curves["size_ratio_soft"].astype(float), np.exp(curves["size_dice"].astype(float))
    return 2 * both * (r - 1).abs() / (r + 1)


def _handles() -> list:
    from matplotlib.lines import Line2D

    look = {"color": style.SOFT, "linestyle": ""}
    return [
        Line2D([], [], **look, marker="o", markerfacecolor="none", markersize=4.5, label="last step"),
        Line2D([], [], **look, marker=".", markersize=4, label="earlier"),
        Line2D([], [], color=style.INK, linewidth=1.3, label="bound √(2 CE)"),
    ]
