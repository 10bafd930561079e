"""What the debate is made of: Dice against cross-entropy under every combination of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lossbench.analysis.specification_curve import specify
from lossbench.base.specs import network_named
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
    "rate": "learning rate",
}

# Levels as a reader would say them; "the only" length of a data set is no choice that was made.
LEVELS = {
    "dice": "images with the class",
    "dice_all": "all images",
    "dice_pooled": "all pixels pooled",
    "val": "from validation",
    "prior": "class frequencies",
}
NO_CHOICE = ("the only", "between")

# How Dice is summed -> what the panel of shifts calls it, the fill of its dot, and its place in a row.
SUMMED = {
    "per image": ("Dice per image", True, -0.15),
    "batch, all classes": ("over the batch", False, 0.15),
}

REST = "three choices or more"  # what the table of shares calls "rest"

POINT = 0.01  # of Dice: the smallest difference that anybody would care about

BINS = 50  # stretches of the curve: a mark for each of some thousand combinations could not be told apart

MOST = 12  # bars of a panel

LEAST = 0.005  # share of a bar: a smaller one could not be told from the axis


@figure(
    "specification_curve", number=20, title="Dice against cross-entropy under every combination of choices"
)
def specification_curve(tables: Mapping[str, pd.DataFrame]):
    """The sorted contrasts and their choices, the variance that each choice explains, and shifts."""
    cells = tables["cells"]
    found = specify(cells, tables.get("recipes"))
    curve = found["specifications"]
    main = curve[curve["contrast"] == MAIN]
    # A rate that the recipe names is one for all losses, whatever it is.
    own = (main["learning_rate"] == "own").map({True: "each loss's own", False: "one for all"})
    main = main.assign(rate=own)
    # A curve of a few combinations would look like a finding about all of them.
    if len(main) < 8:
        raise NothingToDraw("needs cells of dice and ce, scored in at least eight combinations of choices")
    rows = _marked(main)
    drawing, grid = style.grid(2, 2, 6.4, width_ratios=[2.1, 1], height_ratios=[1.2, 1])
    top = drawing.add_subplot(grid[0, 0])
    _curves(top, curve)
    _marks(drawing.add_subplot(grid[1, 0], sharex=top), main, rows)
    shares = _most(found["shares"])
    _shares(drawing.add_subplot(grid[0, 1]), shares)
    _shifts(drawing.add_subplot(grid[1, 1]), found["shifts"])
    says = (
        f"Left: {len(main)} specifications of Dice minus cross-entropy, sorted, with 95 % intervals by sign "
        "flips over seeds (of six seeds or more); below, how often each choice was made along the curve, "
        f"darker is more often (the data set, one of {main['data'].nunique()}, is not marked). "
        f"{_others_say(curve)}Right: {_shares_say(shares)}what choices that are not crossed shift, all else "
        "equal (lines: 95 %, of six seeds or more). "
        f"{style.evidence(cells)}"
    )
    positive = float((main["estimate"] > 0).mean())
    ahead, behind = (main["estimate"] > POINT).mean(), (main["estimate"] < -POINT).mean()
    above = ((main["estimate"] > POINT) & (main["low"] > 0)).mean()
    below = ((main["estimate"] < -POINT) & (main["high"] < 0)).mean()
    finding = (
        f"Dice is ahead of cross-entropy by more than a point in {100 * ahead:.0f} % of {len(main)} "
        f"combinations of choices, and behind in {100 * behind:.0f} %; the interval leaves out zero in "
        f"{100 * above:.0f} and {100 * below:.0f} %"
    )
    low, high = (style.signed(100 * end, 1) for end in (main["estimate"].min(), main["estimate"].max()))
    alt = (
        f"A rising curve of {len(main)} contrasts from {low} to {high} points; {100 * positive:.0f} % of "
        "them lie above zero."
    )
    return drawing, curve, says, alt, finding


def _others_say(curve: pd.DataFrame) -> str:
    """Return the sentence on the other curves; empty where there is none."""
    counts = curve.loc[curve["contrast"] != MAIN, "contrast"].value_counts()
    texts = [f"{count} of {name.replace(' - CE', ' minus cross-entropy')}" for name, count in counts.items()]
    return f"The other curve, sorted by itself: {', '.join(texts)}. " if texts else ""


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
    edges = np.linspace(0, 100, BINS + 1), np.arange(len(rows) + 1)
    axis.pcolormesh(*edges, share, cmap="Greys", vmin=style.LIGHTEST, vmax=1)
    axis.set_yticks(np.arange(len(rows)) + 0.5, [label for *_, label in rows], fontsize=7)
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.set(xlabel="share of the specifications, %", xlim=(0, 100))


def _most(shares: pd.DataFrame) -> pd.DataFrame:
    """Return the choices that explain most, of those that can be seen."""
    own = shares[(shares["contrast"] == MAIN) & (shares["share"] >= LEAST)]
    return own.sort_values("share", ascending=False, kind="stable").head(MOST)


def _shares_say(own: pd.DataFrame) -> str:
    """Return what the panel of shares shows, as the begin of a sentence; nothing where it is empty."""
    if not len(own):
        return ""
    count = own["n_sets"].iloc[0]
    sets = f"{count} data set{'s' if count != 1 else ''}"
    notes = [f"{100 * LEAST:g} % or more"]
    notes += ["bars: 95 % when data sets are drawn anew"] if own["low"].notna().any() else []
    if "rest" in set(own["choice"]):
        notes.append(f'"{REST}": what no choice and no pair of them explains')
    return (
        f"the share of the variance among fully crossed specifications ({sets}) that each choice explains"
        f" ({'; '.join(notes)}), and "
    )


def _shares(axis, own: pd.DataFrame) -> None:
    axis.set_title("What explains the variance")
    if not len(own):
        axis.text(0.5, 0.5, "no fully crossed choices", ha="center", transform=axis.transAxes, fontsize=8)
        return
    # Few data sets cannot be drawn anew: they have a share, but no interval.
    low, high = (own[end].fillna(own["share"]) for end in ("low", "high"))
    reach = 100 * np.stack([(own["share"] - low).clip(lower=0), (high - own["share"]).clip(lower=0)])
    reach = reach if own["low"].notna().any() else None
    place = np.arange(len(own))
    axis.barh(place, 100 * own["share"], xerr=reach, color=style.colour("overlap"), alpha=0.75)
    labels = own["choice"].str.replace(" x ", " × ").replace("rest", REST)
    axis.set_yticks(place, labels, fontsize=7.5)
    axis.invert_yaxis()
    axis.set_xlabel("share, %")


def _shifts(axis, shifts: pd.DataFrame) -> None:
    own = shifts[(shifts["contrast"] == MAIN) & shifts["estimate"].notna()]
    asides = list(dict.fromkeys(own["aside"]))[:MOST]
    axis.set_title("What other choices shift")
    if not asides:
        axis.text(
            0.5, 0.5, "every recipe is the usual one", ha="center", transform=axis.transAxes, fontsize=8
        )
        return
    color = style.colour("overlap")
    for reduction, (label, filled, beside) in SUMMED.items():
        here = own[(own["reduction"] == reduction) & own["aside"].isin(asides)]
        if not len(here):
            continue
        # Few seeds have no bounded interval; the dot stands alone then.
        ends = 100 * here[["low", "high"]].where(np.isfinite(here[["low", "high"]]))
        place = here["aside"].map(asides.index) + beside
        axis.hlines(place, ends["low"], ends["high"], color=style.SOFT, linewidth=1.2, zorder=1)
        face = color if filled else style.PAPER
        axis.plot(100 * here["estimate"], place, "o", color=color, mfc=face, markersize=4.5, label=label)
    axis.axvline(0, color=style.SOFT, linewidth=0.8)
    axis.set_yticks(np.arange(len(asides)), _told_apart([_in_words(aside) for aside in asides]), fontsize=7)
    axis.set_xscale("symlog", linthresh=1.0)
    axis.set_xticks(*_ticks(), fontsize=7)
    # A row is left free for the legend, which would else lie among dots like its own.
    axis.set_ylim(len(asides) + 0.1, -0.5)
    tight = {"handletextpad": 0.1, "columnspacing": 0.6, "handlelength": 1.2, "borderaxespad": 0.1}
    axis.legend(fontsize=6.5, loc="lower center", ncols=2, **tight)
    axis.set_xlabel("change of the difference, points")


def _in_words(aside: str) -> str:
    """Return what a recipe changes of the usual one, as a reader would say it."""
    return style.in_words(network_named(f", {aside}").removeprefix(", "))


def _told_apart(labels: Sequence[str], letters: int = 26) -> list[str]:
    """Return labels, all cut to as few letters as tell them apart."""
    longest = max(map(len, labels))
    for most in range(letters, longest):
        cut = [style.fitting(label, most) for label in labels]
        if len(set(cut)) == len(set(labels)):
            return cut
    return list(labels)
