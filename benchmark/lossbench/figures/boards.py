"""Who is ahead: every loss on every data set, with its seeds and beside cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis import boards as scores
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

MOST = 12  # panels

WIDEST = 3  # panels in a row

ALIKE = 0.7  # panels whose numbers of losses differ less than this share rows

HALF, TUNED = "dice@0.5", "dice@val"


@figure("leaderboard", number=19, title="Dice score by data set and loss")
def leaderboard(tables: Mapping[str, pd.DataFrame]):
    """One panel a data set: mean at 0.5 with interval and seeds, and the mean at the validation threshold."""
    # The usual recipe only: learning-rate arms and factorials answer questions of their own.
    cells, chosen = points.usual(points.of_parts(tables["cells"], *points.BOARD))
    if HALF not in cells or not len(cells):
        raise NothingToDraw("needs cells with a Dice score")
    data = scores.leaderboard(cells, HALF, *points.deciding(tables))
    keys = [*points.VARIANT, "loss"]
    tuned = cells.assign(mean_val=cells.get(TUNED, np.nan))
    data = data.merge(tuned.groupby(keys, observed=True)["mean_val"].mean().reset_index(), on=keys)
    facts = points.rarest_first(cells)
    # The data sets with most cells, in the order of their foreground.
    wanted = facts.sort_values(["n", "foreground"], ascending=[False, True], kind="stable").head(MOST)
    wanted = wanted.sort_index()
    # A recipe is named only where it is needed to tell two panels apart.
    several = wanted["recipe"].nunique() > 1 and wanted["label"].duplicated().any()
    missed = set(cells.loc[~points.ended(cells, tables), "dataset"])
    drawing, panels = _panels(wanted, data.groupby(points.VARIANT, observed=True)["loss"].nunique())
    labels = list(wanted["label"])
    short = dict(zip(labels, points.set_names(labels), strict=True))
    for axis, variant in panels:
        own = points.of_variant(data, variant).sort_values("place", ascending=False)
        _panel(axis, own.reset_index(drop=True), points.of_variant(cells, variant))
        name = f"{variant.label} · {variant.recipe}" if several else short[variant.label]
        axis.set_title(style.fitting(name) + (" (not learnt)" if variant.dataset in missed else ""))
    # Marks in grey: colours say the family.
    soft = {"color": style.SOFT, "linestyle": ""}
    tuned_mark = {**soft, "marker": "D", "markersize": 4.5, "markerfacecolor": style.PAPER}
    marks = [
        style.key("mean at 0.5", **soft, marker="o", markersize=5.5),
        style.key("single seeds", **soft, marker="|", markersize=7),
        style.key("mean at the validation threshold", **tuned_mark),
    ]
    style.legend(drawing, marks, 3)
    drawing.supxlabel("Dice (mean over images, then classes)", fontsize=9)
    left = len(facts) - len(wanted)
    contests = points.contests(cells, HALF, tables)
    says = (
        "Bold with a dot: may be the best, that is, no other loss is shown to beat it on the same blocks "
        "(sign flips, Holm; where that leaves all losses none is bold). Bars are 95 % t intervals over seeds "
        "of one loss and must not be compared by eye, since the losses of a seed share start and batches; an "
        "arrow: the bar goes on beyond the panel. Every panel has its own scale. "
        f"{points.silent(contests)}{_fewer(data)}{chosen}"
        + style.more(left, "data set variant", "the tables")
    ) + style.evidence(cells)
    # Place 1 is the highest mean; it need not be the only one that may be best.
    tops = data[data["place"] == 1].merge(facts, on=points.VARIANT)
    leaders = "; ".join(f"{row.label}: {row.loss_label} {row.mean:.3f}" for row in tops.itertuples())
    ended = data[~data["dataset"].isin(missed)]
    best = ended.groupby("dataset", observed=True)["best"].sum()
    finding = _best_says(best, [points.can_tell(contests[dataset]) for dataset in best.index])
    return drawing, data, says, f"Highest mean Dice at 0.5: {leaders}.", finding


def _best_says(best: pd.Series, tell: list[bool]) -> str:
    """Return on how many data sets one loss is the best, of those that could show it; best: how many losses
    may be.
    """
    known = best[tell]
    if not len(known):
        return f"On none of {len(best)} data sets could one loss be shown to be the best"
    sets = f"the {len(known)} data sets" if len(known) > 1 else "the one data set"
    return f"On {int((known == 1).sum())} of {sets} where it could be shown, one loss is the best"


def _fewer(data: pd.DataFrame) -> str:
    most = data.groupby(points.VARIANT, observed=True)["n"].transform("max")
    fewer = "In brackets: the seeds of a loss that has fewer than others, so that less can be shown of it. "
    return fewer if (data["n"] < most).any() else ""


def _panels(wanted: pd.DataFrame, losses: pd.Series) -> tuple:
    """Return a drawing and (axis, variant) pairs.

    Panels with about as many losses share rows, so that all rows of text are equally high.
    """
    counted = [(int(losses.loc[row.dataset, row.recipe]), row) for row in wanted.itertuples()]
    groups: list[list] = []
    for count, variant in sorted(counted, key=lambda pair: -pair[0]):
        # A panel of five losses beside one of thirty would be mostly empty.
        if not groups or count < ALIKE * groups[-1][0][0]:
            groups.append([])
        groups[-1].append((count, variant))
    rows = []
    for group in groups:
        # Within a row by foreground again.
        group.sort(key=lambda pair: pair[1].Index)
        lines = style.shape(len(group), WIDEST)[0]
        rows += [group[len(group) * i // lines : len(group) * (i + 1) // lines] for i in range(lines)]
    heights = [0.62 + 0.175 * max(count for count, _ in row) for row in rows]
    # Rows are laid out one by one: names of losses beside every panel leave no grid that suits all of them.
    drawing, lines = style.rows(heights, 0.6 + sum(heights))
    panels = []
    for line, row in zip(lines, rows, strict=True):
        axes = line.subplots(1, len(row), squeeze=False)[0]
        panels += [(axis, variant) for axis, (_, variant) in zip(axes, row, strict=True)]
    return drawing, panels


def _panel(axis, part: pd.DataFrame, own: pd.DataFrame) -> None:
    low, high = _reach(part, own)
    for y, row in enumerate(part.itertuples()):
        color = style.colour(row.family)
        style.arrows(axis, y, row.low, row.high, (low, high), color)
        # Every seed is shown, since intervals of few seeds hide an outlier.
        seeds = own.loc[own["loss"] == row.loss, HALF]
        axis.plot(seeds, [y] * len(seeds), "|", color=color, alpha=0.55, markersize=6, zorder=2)
        style.whiskers(axis, y, row, color)
        axis.plot([row.mean_val], [y], "D", color=color, markerfacecolor=style.PAPER, markersize=4, zorder=3)
    # Where no loss is excluded, bold would say nothing.
    said = part["best"] & (not part["best"].all())
    labels = [f"{'• ' if best else ''}{label}" for best, label in zip(said, part["loss_label"], strict=True)]
    # A loss with fewer seeds than others is hard to beat, and its mean is of other trainings.
    counts = [f" ({n})" if n < part["n"].max() else "" for n in part["n"]]
    labels = [style.fitting(label, 24) + count for label, count in zip(labels, counts, strict=True)]
    style.names(axis, labels, 30)
    axis.set_ylim(-0.6, len(part) - 0.4)  # the first of the part is the last of the board
    for text, best in zip(axis.get_yticklabels(), said, strict=True):
        text.set_fontweight("bold" if best else "normal")
    ticks = {1: 8, 2: 6}.get(axis.get_gridspec().ncols, 4)  # four numbers fit a third of the page
    axis.xaxis.get_major_locator().set_params(nbins=ticks)
    axis.set_xlim(low, high)


def _reach(part: pd.DataFrame, own: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of a panel: all means are shown; intervals and seeds may leave it, as those of a loss
    that collapsed do.
    """
    low = min(part["mean"].min(), part["mean_val"].min(), own[HALF].quantile(0.1))
    high = max(part["mean"].max(), part["mean_val"].max(), own[HALF].max())
    pad = max(0.08 * (high - low), 0.005)
    return float(max(low - pad, -0.01)), float(min(high + pad, 1.01))


FIELDS = 14  # data sets of the map; more would leave no room for a number

REACH = 50.0  # points at which the colours of the map end

POINT = 1.0  # of Dice, the smallest difference that anybody would care about

MAP = ["dataset", "label", "foreground", *points.LOSS, *points.SUMMARY, "shown", "learnt"]


@figure("loss_by_data", number=22, title="Each loss against cross-entropy on each data set")
def loss_by_data(tables: Mapping[str, pd.DataFrame]):
    """Rows are losses, columns data sets from rare to common: Dice minus that of CE, in points."""
    cells, left = points.usual(points.of_parts(tables["cells"], *points.BOARD))
    if HALF not in cells or not len(cells) or "ce" not in set(cells["loss"]):
        raise NothingToDraw("needs cells of ce and of another loss")
    facts = points.rarest_first(cells).drop(columns="n")
    gaps = points.mapped(points.gaps(cells, "ce", HALF), lambda values: 100 * values)
    data = gaps.merge(facts, on=points.VARIANT).merge(style.ordered(cells), on="loss")
    if not len(data):
        raise NothingToDraw("needs blocks that hold ce and another loss")
    contests = points.contests(cells, HALF, tables)
    data = data.merge(points.shown(contests), on=["dataset", "loss"])
    there = set(cells.loc[points.ended(cells, tables), "dataset"])
    data["learnt"] = data["dataset"].isin(there).astype(int)
    # The loss that gains most on the middle one of the data sets stands on top.
    middle = data.assign(gain=data["mean"].where(data["learnt"] == 1)).groupby("loss")["gain"].median()
    order = list(middle.sort_values(ascending=False, kind="stable").index)
    labels = data.drop_duplicates("loss").set_index("loss")["loss_label"]
    wanted = points.spread_evenly(facts, FIELDS)
    drawing, axes = style.canvas(1, 1, 1.5 + 0.27 * len(order))
    _map(axes[0][0], data, order, list(wanted["dataset"]))
    axes[0][0].set_yticklabels([style.fitting(labels[loss], 22) for loss in order])
    names = points.set_names(list(wanted["label"]))
    ends = ["" if name in there else " (not learnt)" for name in wanted["dataset"]]
    names = [style.fitting(name, 24) + end for name, end in zip(names, ends, strict=True)]
    style.slanted(axes[0][0], names)
    more = len(facts) - len(wanted)
    there_are = data["dataset"].isin(wanted["dataset"]).sum()
    blank = "Blank: not trained there. " if there_are < len(order) * len(wanted) else ""
    says = (
        "Dice at 0.5 minus that of cross-entropy on the same blocks, in points, mean over seeds; violet is "
        "higher, orange lower, and colours grow with the logarithm. Bold: shown to be better or worse "
        f"(paired sign flips over seeds, Holm within the data set). {points.silent(contests)}Data sets from "
        "rare to common foreground, losses by their median, each over its own data sets without those that "
        f"were not learnt. {blank}{left}" + style.more(more, "data set", "the numbers behind the figure")
    ) + style.evidence(cells)
    medians = "; ".join(f"{labels[loss]} {style.signed(middle[loss], 1)}" for loss in order)
    alt = f"Median difference to cross-entropy over data sets, in points: {medians}."
    # The loss of which most is shown; of several, the one that gains most.
    known = data[data["learnt"] == 1]
    first = known.groupby("loss")["shown"].sum().reindex(order).fillna(0).idxmax()
    finding = _map_says(known[known["loss"] == first], labels[first])
    return drawing, data[MAP], says, alt.replace("nan", "not learnt"), *finding


def _map(axis, data: pd.DataFrame, order: list[str], datasets: list[str]) -> None:
    square = data.pivot(index="loss", columns="dataset", values=["mean", "shown"]).reindex(order)
    values, shown = (square[what].reindex(columns=datasets) for what in ("mean", "shown"))
    # Differences of half a point and of fifty stand side by side.
    reach = style.folded(REACH)
    texts = values.map(lambda value: style.signed(value, 1))
    style.heat(axis, values.map(style.folded), texts, "PuOr", -reach, reach, bold=shown == 1)


def _map_says(own: pd.DataFrame, label: str) -> list[str]:
    """Return on how many data sets a loss is ahead, and behind; nothing where none was learnt."""
    if not len(own):
        return []
    ahead, behind = int((own["mean"] > POINT).sum()), int((own["mean"] < -POINT).sum())
    shown = int(own["shown"].sum())
    sets = f"{len(own)} data set{'s' * int(len(own) > 1)}"
    return [
        f"{label} is ahead of cross-entropy by more than a point on {ahead} of {sets}, behind on {behind}; "
        f"a difference is shown on {shown}"
    ]
