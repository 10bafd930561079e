"""What the debate is made of: Dice against cross-entropy under every combination of choices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.specification_curve import specify
from lossbench.figures import style
from lossbench.figures.drawing import NothingToDraw, figure

MAIN = "Dice - CE"

COLOURS = {MAIN: "overlap", "Dice + CE - CE": "compound"}

# The choices that are marked below the curve, as readers know them.
MARKED = {
    "head": "head",
    "length": "length",
    "score": "score",
    "threshold": "threshold",
    "reduction": "Dice summed",
    "sampler": "sampler",
}

# Levels as a reader would say them; "the only" length of a data set is no choice that was made.
LEVELS = {
    "dice": "images that hold the class",
    "dice_all": "all images",
    "dice_pooled": "all pixels pooled",
    "val": "from validation",
    "prior": "class frequencies",
}
NO_CHOICE = ("the only", "between")

POINT = 0.01  # of Dice: the smallest difference that anybody would care about

BINS = 50  # stretches of the curve: a mark for each of some thousand combinations could not be told apart

MOST = 12  # bars of a panel


@figure(
    "specification_curve", number=20, title="Dice against cross-entropy under every combination of choices"
)
def specification_curve(tables: Mapping[str, pd.DataFrame]):
    """The sorted contrasts and their choices, the variance that each choice explains, and shifts."""
    cells = tables["cells"]
    found = specify(cells, tables.get("recipes"))
    curve = found["specifications"]
    main = curve[curve["contrast"] == MAIN]
    # A curve of a few combinations would look like a finding about all of them.
    if len(main) < 8:
        raise NothingToDraw("needs cells of dice and ce, scored in at least eight combinations of choices")
    rows = _marked(main)
    drawing, grid = style.grid(2, 2, 6.4, width_ratios=[2.1, 1], height_ratios=[1.2, 1])
    top = drawing.add_subplot(grid[0, 0])
    _curves(top, curve)
    _marks(drawing.add_subplot(grid[1, 0], sharex=top), main, rows)
    _shares(drawing.add_subplot(grid[0, 1]), found["shares"])
    _shifts(drawing.add_subplot(grid[1, 1]), found["shifts"])
    says = (
        f"Left: {len(main)} specifications of Dice minus cross-entropy, sorted, with 95 % intervals by sign "
        "flips over seeds (of six seeds or more); below, how often each choice was made along the curve, "
        "darker is more often. Right: the share of the variance among fully crossed specifications that each "
        "choice explains (bars: 95 % when data sets are drawn anew), and what choices that are not crossed "
        f"shift, all else equal. {style.evidence(cells)}"
    )
    positive = float((main["estimate"] > 0).mean())
    ahead, behind = (main["estimate"] > POINT).mean(), (main["estimate"] < -POINT).mean()
    above = ((main["estimate"] > POINT) & (main["low"] > 0)).mean()
    below = ((main["estimate"] < -POINT) & (main["high"] < 0)).mean()
    finding = (
        f"Dice is ahead of cross-entropy by more than a point in {100 * ahead:.0f} % of {len(main)} "
        f"combinations of choices, and behind in {100 * behind:.0f} %; shown in {100 * above:.0f} and "
        f"{100 * below:.0f} %"
    )
    alt = (
        f"A rising curve of {len(main)} contrasts from {100 * main['estimate'].min():.1f} to "
        f"{100 * main['estimate'].max():.1f} points; {100 * positive:.0f} % of them lie above zero."
    )
    return drawing, curve, says, alt, finding


def _curves(axis, curve: pd.DataFrame) -> None:
    for contrast, own in sorted(curve.groupby("contrast"), key=lambda item: item[0] != MAIN):
        color = style.colour(COLOURS.get(contrast, ""))
        x = _along(len(own))
        points = 100 * own[["estimate", "low", "high"]].where(np.isfinite(own[["estimate", "low", "high"]]))
        if contrast == MAIN:
            axis.fill_between(x, points["low"], points["high"], color=color, alpha=0.2, linewidth=0)
        axis.plot(x, points["estimate"], color=color, label=contrast.replace("-", "\N{MINUS SIGN}"))
    axis.axhline(0, color=style.SOFT, linewidth=0.8)
    # Most contrasts are a point or less, some are fifty.
    axis.set_yscale("symlog", linthresh=1.0)
    axis.set_yticks(*_ticks())
    axis.set(ylabel="difference in points", title="Every combination of choices, sorted")
    axis.tick_params(labelbottom=False)
    axis.legend(loc="upper left")


def _ticks() -> tuple[list[int], list[str]]:
    places = [-50, -10, -1, 0, 1, 10, 50]
    return places, [f"{at:+d}".replace("-", "\N{MINUS SIGN}") if at else "0" for at in places]


def _along(count: int) -> np.ndarray:
    """Return the places of so many specifications along the axis, in percent."""
    return 100 * (np.arange(count) + 0.5) / count


def _marked(main: pd.DataFrame) -> list[tuple[str, object, str]]:
    """Return (choice, level, label) of each row of marks: of the choices that were made in several ways."""
    rows = []
    for choice, word in MARKED.items():
        levels = [level for level in sorted(main[choice].dropna().unique()) if level not in NO_CHOICE]
        if len(levels) > 1:
            rows += [(choice, level, f"{word}: {LEVELS.get(level, level)}") for level in levels]
    return rows


def _marks(axis, main: pd.DataFrame, rows: list[tuple[str, object, str]]) -> None:
    place = np.minimum((_along(len(main)) / 100 * BINS).astype(int), BINS - 1)
    # A bin without a specification stays white, not undefined.
    per_bin = np.maximum(np.bincount(place, minlength=BINS), 1)
    share = np.zeros((len(rows), BINS))
    for row, (choice, level, _) in enumerate(rows):
        share[row] = np.bincount(place[(main[choice] == level).to_numpy()], minlength=BINS) / per_bin
    axis.pcolormesh(
        np.linspace(0, 100, BINS + 1), np.arange(len(rows) + 1), share, cmap="Greys", vmin=0, vmax=1
    )
    axis.set_yticks(np.arange(len(rows)) + 0.5, [label for *_, label in rows], fontsize=7)
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.set(xlabel="share of the specifications, %", xlim=(0, 100))


def _shares(axis, shares: pd.DataFrame) -> None:
    # Bars of half a percent could not be told from the axis.
    own = shares[(shares["contrast"] == MAIN) & (shares["share"] >= 0.005)]
    own = own.sort_values("share", ascending=False, kind="stable").head(MOST)
    axis.set_title("What explains the variance")
    if not len(own):
        axis.text(0.5, 0.5, "no fully crossed choices", ha="center", transform=axis.transAxes, fontsize=8)
        return
    # One data set cannot be drawn anew: it has a share, but no interval.
    low, high = (own[end].fillna(own["share"]) for end in ("low", "high"))
    reach = 100 * np.stack([(own["share"] - low).clip(lower=0), (high - own["share"]).clip(lower=0)])
    place = np.arange(len(own))
    axis.barh(place, 100 * own["share"], xerr=reach, color=style.colour("overlap"), alpha=0.75)
    axis.set_yticks(place, own["choice"].str.replace(" x ", " × "), fontsize=7.5)
    axis.invert_yaxis()
    axis.set_xlabel("share, %")


def _shifts(axis, shifts: pd.DataFrame) -> None:
    own = shifts[(shifts["contrast"] == MAIN) & shifts["estimate"].notna()].head(MOST)
    axis.set_title("What other choices shift")
    if not len(own):
        axis.text(
            0.5, 0.5, "every recipe is the usual one", ha="center", transform=axis.transAxes, fontsize=8
        )
        return
    # Few seeds have no bounded interval; the dot stands alone then.
    ends = 100 * own[["low", "high"]].where(np.isfinite(own[["low", "high"]]))
    place = np.arange(len(own))
    axis.hlines(place, ends["low"], ends["high"], color=style.SOFT, linewidth=1.2)
    axis.plot(100 * own["estimate"], place, "o", color=style.colour("overlap"))
    axis.axvline(0, color=style.SOFT, linewidth=0.8)
    labels = own["aside"] + own["reduction"].map(lambda text: "" if text == "per image" else " (batch)")
    axis.set_yticks(place, [style.fitting(label, 26) for label in labels], fontsize=7)
    axis.set_xscale("symlog", linthresh=1.0)
    axis.set_xticks(*_ticks(), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("change of the difference, points")
