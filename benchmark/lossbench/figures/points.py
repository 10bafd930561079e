"""What several figures share: which cells they show, means with intervals, and how a ladder is drawn.

A ladder is a generated data set at several foreground fractions; a real set stands at the one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lossbench.analysis import boards, decisions, learnt, pairs
from lossbench.analysis.answers import sequential
from lossbench.analysis.decisions import Contest
from lossbench.analysis.flips import ALPHA, flips
from lossbench.analysis.lengths import trunks
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.seeds import FOREGROUND as DOSE
from lossbench.analysis.seeds import ladder_parameters, numbers
from lossbench.analysis.selection import in_parts
from lossbench.figures import style

# What makes a data set variant, what says which loss it was, and what a mean over seeds consists of.
VARIANT = ["dataset", "recipe"]
LOSS = ["loss", "loss_label", "family"]
SUMMARY = ["mean", "low", "high", "n"]

# The parts of the two studies that vary the foreground alone, those of real images, and those that rank.
LADDER = ("ladder", "rare", "common")
PUBLIC = ("public", "public_l1")
BOARD = (*LADDER, "board", *PUBLIC)

ORDER = ["recipe.batch", "recipe.learning_rate", "recipe.steps"]  # of the variants of one data set

# Real sets are told apart by their markers, since colour says the family of the loss.
REAL_MARKERS = ("D", "s", "^", "v", "P", "X", "*")

FEWEST = 0.8  # of the cells of a data set's fullest variant: a variant with fewer is only begun


# Which cells a figure shows.


def of_parts(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells of these parts of the experiment; all cells where it has none of them.

    An experiment without parts is a single cross of losses and data sets, so all of it may answer.
    """
    if "parts" not in cells:
        return cells
    wanted = in_parts(cells, names)
    return cells[wanted] if wanted.any() else cells


def first_of(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells of the first of these parts that the experiment has; all cells where it has none."""
    for name in names:
        own = of_parts(cells, name)
        # Fewer cells than all: the part is there.
        if len(own) < len(cells):
            return own
    return cells


def usual(cells: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the cells of one recipe a data set, and the sentence that says what was left out.

    It is the experiment's own recipe, which a label needs no words for, at the longest training that is not
    only begun.
    """
    if not len(cells):
        return cells, ""
    facts = cells.groupby(VARIANT, observed=True, sort=True).agg(
        label=("data_label", "first"), n=("key", "size")
    )
    known = cells.assign(steps=numbers(cells, "recipe.steps"), rate=numbers(cells, "recipe.learning_rate"))
    facts = facts.join(known.groupby(VARIANT, observed=True)[["steps", "rate"]].first())
    facts["words"] = facts["label"].str.replace(learnt.STEPS_CLAUSE, "", regex=True).str.count(",")
    chosen = []
    for _, own in facts.reset_index().groupby("dataset", observed=True, sort=True):
        own = own[own["n"] >= FEWEST * own["n"].max()]
        for column, best in (("words", "min"), ("steps", "max"), ("n", "max")):
            # Where steps are unknown nothing is longest.
            own = own[own[column].fillna(0) == own[column].fillna(0).agg(best)]
        # Of a grid of rates the middle one: an end is there to be worse.
        chosen.append(own.sort_values(["rate", "recipe"]).iloc[[(len(own) - 1) // 2]])
    kept = of_variants(cells, pd.concat(chosen))
    if len(chosen) == len(facts):
        return kept, ""
    return kept, (
        "Of each data set its usual recipe at the longest training that is complete; other lengths and heads "
        "stand in the tables. "
    )


def ended(cells: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Return which cells belong to a data set variant that was learnt, as far as anybody can say.

    What was not learnt says who learns sooner, not who ends where, and takes no part in rankings."""
    reached = learnt.learnt(cells, tables.get("references", learnt.NO_REFERENCES))
    return ~learnt.unlearnt(reached, cells)


def deciding(tables: Mapping[str, pd.DataFrame]) -> tuple[ByGroup | None, tuple]:
    """Return what decides beside the seeds, as on every other page: scores by test group where a table has
    them, and the looks of a sequential experiment.
    """
    table = tables.get("groups")
    by_group = ByGroup(table) if table is not None and len(table) else None
    return by_group, sequential(tables.get("looks"))[0]


def contests(cells: pd.DataFrame, column: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, Contest]:
    """Return the contest of the losses on each data set; cells of one recipe a data set."""
    known = deciding(tables)
    return {
        part["dataset"].iloc[0]: decisions.contest(part, column, *known)
        for _, part in cells.groupby(VARIANT, sort=True, observed=True)
    }


def shown(found: Mapping[str, Contest], against: str = "ce") -> pd.DataFrame:
    """Return (data set, loss) with whether the loss is shown to be better or worse than another there."""
    rows = []
    for dataset, contest in found.items():
        arms = contest.blocks.arms
        for loss in arms if against in arms else ():
            own = contest.decide(loss, against) if loss != against else None
            sure = own is not None and own.verdict in (decisions.BETTER, decisions.WORSE)
            rows.append((dataset, loss, int(sure)))
    return pd.DataFrame(rows, columns=["dataset", "loss", "shown"])


def can_tell(contest: Contest) -> bool:
    """Return whether any scores could show a difference: of seeds enough for so many pairs of losses, and of
    test groups enough.
    """
    looks = (contest.look(*pair) for pair in combinations(contest.blocks.arms, 2))
    return any(
        own.why != decisions.FEW_GROUPS and own.evidence.smallest_p * contest.pairs * own.looks < ALPHA
        for own in looks
        if own is not None
    )


def silent(found: Mapping[str, Contest]) -> str:
    """Return the sentence that says on how many data sets no difference can be shown; empty for none."""
    count = sum(not can_tell(contest) for contest in found.values())
    why = "too few seeds for so many losses, or too few test groups"
    return f"On {count} of {len(found)} data sets no scores could show a difference: {why}. " if count else ""


def of_variant(table: pd.DataFrame, variant) -> pd.DataFrame:
    """Return the rows of one data set variant (anything with ``dataset`` and ``recipe``)."""
    return table[(table["dataset"] == variant.dataset) & (table["recipe"] == variant.recipe)]


def of_variants(table: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of these data set variants."""
    return table.merge(variants[VARIANT], on=VARIANT)


def rarest_first(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant (dataset, recipe, label, foreground, n), by foreground fraction."""
    # Seeds draw other test images; the order of the panels should not depend on them.
    true = numbers(cells, "foreground_true").groupby(cells["dataset"], observed=True).transform("mean")
    table = cells.assign(foreground=true)
    for column in ORDER:
        table[column] = table.get(column, np.nan)
    facts = table.groupby(VARIANT, observed=True, sort=True).agg(
        label=("data_label", "first"),
        foreground=("foreground", "mean"),
        n=("key", "size"),
        **{column: (column, "first") for column in ORDER},
    )
    ordered = facts.reset_index().sort_values(["foreground", "dataset", *ORDER, "recipe"], ignore_index=True)
    return ordered.drop(columns=ORDER)


def spread_evenly(facts: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most so many rows, evenly spread from the first to the last."""
    # Both ends are kept: they are what a ladder is about.
    picks = np.unique(np.linspace(0, len(facts) - 1, min(most, len(facts))).round().astype(int))
    return facts.iloc[picks].reset_index(drop=True)


def first_losses(cells: pd.DataFrame, most: int) -> tuple[pd.DataFrame, str]:
    """Return the first losses in their usual order, and the sentence that says how many are left out."""
    losses = style.ordered(cells)
    return losses.head(most), style.more(len(losses) - most, "loss", "the tables")


def set_names(labels: list[str]) -> list[str]:
    """Return labels of variants without their recipes, where each is the usual one of its data set: first
    clauses, if these tell them apart.
    """
    first = [label.split(", ")[0] for label in labels]
    return first if 1 < len(labels) == len(set(first)) else short_names(labels)


def short_names(labels: list[str]) -> list[str]:
    """Return labels without the clauses that all of them share: ("a, long", "b, long") become ("a", "b")."""
    # One label has nothing to share with.
    if len(labels) < 2:
        return labels
    clauses = [label.split(", ") for label in labels]
    common = set(clauses[0]).intersection(*clauses[1:])
    kept = [", ".join(c for c in own if c not in common) for own in clauses]
    return [short or label for short, label in zip(kept, labels, strict=True)]


# Means over seeds with 95 % intervals: t of the scores of a loss, sign flips of paired differences.


def means(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return mean, low, high and n of a column for each data set variant and loss."""
    keys = [*VARIANT, "loss"]
    rows = []
    for values, part in cells.groupby(keys, sort=True, observed=True):
        rows.append({**dict(zip(keys, values, strict=True)), **_summary(part[column], column)})
    return pd.DataFrame(rows)


def gaps(cells: pd.DataFrame, against: str, column: str) -> pd.DataFrame:
    """Return mean, low, high and n of each loss's paired difference to ``against``, for each variant."""
    rows = []
    for (dataset, recipe), part in cells.groupby(VARIANT, sort=True, observed=True):
        if against not in set(part["loss"]):
            continue
        # Only analysis pairs cells; a figure takes what it gives.
        found = pairs.losses(part, [column])
        for loss in found.arms:
            # A refused pair has no place among paired differences; the report names it.
            if loss != against and not found.refusal(loss, against):
                facts = {"dataset": dataset, "recipe": recipe, "loss": loss}
                rows.append({**facts, **_paired(found.difference(loss, against)[0])})
    return pd.DataFrame(rows, columns=[*VARIANT, "loss", *SUMMARY])


def mapped(summary: pd.DataFrame, function: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """Return means and intervals with a monotone function applied, such as the exponential of logarithms."""
    return summary.assign(**{name: function(summary[name]) for name in ("mean", "low", "high")})


def _summary(values: pd.Series, column: str) -> dict:
    kept = values.dropna().to_numpy(float)
    if not len(kept):
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    score = boards.score(kept, column)
    return {name: score[name] for name in SUMMARY}


def _paired(differences: np.ndarray) -> dict:
    """Return the mean of paired differences; with five seeds or fewer they have no interval to draw."""
    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    own = flips(kept)
    low, high = (end if np.isfinite(end) else np.nan for end in own.interval())
    return {"mean": own.estimate, "low": low, "high": high, "n": own.n}


def is_sure(differences: pd.Series | np.ndarray) -> bool:
    """Return whether the 95 % interval of a mean of paired differences leaves out zero: what a title may say
    without a doubt.
    """
    kept = np.asarray(differences, dtype=float)
    low, high = flips(kept[~np.isnan(kept)]).interval() if (~np.isnan(kept)).any() else (-1.0, 1.0)
    return low > 0 or high < 0


# Ladders and real sets over the foreground fraction.


def places(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant: x, its foreground fraction; ladder, empty for one that has no other.

    Ladders of one generator are told apart by its remaining parameters. A scene at a single fraction is no
    ladder and stands for itself, as a real set does; so does a real set, at the fraction measured.
    """
    dose = numbers(cells, DOSE)
    measured = numbers(cells, "foreground_true") if "foreground_true" in cells else dose
    others = ladder_parameters(cells)
    # A ladder may be trained longer where foreground is rare.
    way = trunks(cells, ["dataset_name", *others])
    rows = []
    for (dataset, recipe), part in cells.assign(dose=dose, measured=measured, way=way).groupby(
        VARIANT, sort=True, observed=True
    ):
        first = part.iloc[0]
        # A fraction that was set is exact; one that was measured differs a little from seed to seed.
        is_set = bool(np.isfinite(first["dose"])) and first["dose"] > 0
        ladder = first["way"] if is_set else ""
        x = first["dose"] if is_set else part["measured"].mean()
        rows.append((dataset, recipe, first["data_label"], x, ladder))
    table = pd.DataFrame(rows, columns=[*VARIANT, "label", "x", "ladder"])
    # A ladder needs two rungs.
    levels = table.groupby("ladder")["x"].transform("nunique")
    return real_marks(table.assign(ladder=table["ladder"].where(levels > 1, "")))


def real_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Add the marker of each real data set, one a label, in alphabetical order."""
    labels = sorted(table.loc[table["ladder"] == "", "label"].unique())
    # More sets than markers: they repeat, and the labels still tell.
    mark = {name: REAL_MARKERS[i % len(REAL_MARKERS)] for i, name in enumerate(labels)}
    return table.assign(mark=[mark.get(label, "o") for label in table["label"]])


def real_legend(table: pd.DataFrame) -> list:
    """Return one entry of a legend for each real data set, with its foreground."""
    entries = []
    for row in table[table["ladder"] == ""].drop_duplicates("label").sort_values("label").itertuples():
        name = f"{style.fitting(row.label, 24)} ({style.percent(row.x)})"
        entries.append(style.key(name, color=style.SOFT, marker=row.mark, linestyle="", markersize=5.5))
    return entries


def levels(table: pd.DataFrame) -> list[float]:
    """Return the fractions at which the foreground axis is ticked: those of the ladders, if there are any."""
    return table.loc[table["ladder"] != "", "x"].tolist() or table["x"].tolist()


def families(
    rows: pd.DataFrame,
    losses: pd.DataFrame,
    kinds: Sequence[str],
    kind: str,
    limits: tuple[float, float],
    prepare: Callable,
):
    """Return a drawing with one column a family of losses and one row a kind (a value of the column
    ``kind``): ladders as lines with intervals, real sets as single marks.

    Losses of one family mostly do alike: in a panel of each they would fill a page with the same line.
    ``prepare`` is called with every axis once it is drawn.
    """
    everywhere = style.lines(losses)
    groups = [own for _, own in losses.groupby("family", sort=False, observed=True)]
    drawing, axes = style.canvas(len(kinds), len(groups), 1.1 + 2.4 * len(kinds), sharex=True, sharey=True)
    most = max(map(len, groups))
    for own, column in zip(groups, axes.T, strict=True):
        looks = {loss: everywhere[loss] for loss in own["loss"]}
        for axis, name in zip(column, kinds, strict=True):
            for shift, (loss, look) in zip(_shifts(len(looks)), looks.items(), strict=True):
                draw(axis, rows[(rows["loss"] == loss) & (rows[kind] == name)], limits, look, shift)
            prepare(axis)
        handles = [
            style.key(style.fitting(row.loss_label, 20), **looks[row.loss], markersize=4.5)
            for row in own.itertuples()
        ]
        # Over the lines that it speaks of; an empty title keeps the room, so that columns stay equally wide.
        column[0].set_title("\n" * most, fontsize=8)
        place = {"loc": "lower left", "bbox_to_anchor": (-0.04, 1.0), "fontsize": 8, "labelspacing": 0.25}
        column[0].legend(handles=handles, **place).set_in_layout(False)
    return drawing, axes


def _shifts(count: int) -> list[float]:
    """Return factors that move the marks of so many losses apart, so that no bar hides another."""
    return [1.06 ** (place - (count - 1) / 2) for place in range(count)]


def draw(
    axis, rows: pd.DataFrame, limits: tuple[float, float], look: Mapping[str, object], shift: float = 1.0
) -> None:
    """Draw ladders as lines with intervals and real sets as single marks, in the look of a loss.

    Values outside the limits become arrow heads at the edge. ``shift`` moves marks aside by a factor.
    """
    color = look["color"]
    for _, part in rows[rows["ladder"] != ""].groupby("ladder", sort=True):
        part = part.sort_values("x")
        # The line is drawn through the clipped values, so that it leads to the arrow heads.
        y, _ = style.clipped(part["mean"].to_numpy(), *limits)
        axis.plot(part["x"] * shift, y, color=color, linestyle=look["linestyle"], zorder=3)
    for row in rows.itertuples():
        x, y = row.x * shift, float(np.clip(row.mean, *limits))
        # An interval is cut where the axis ends; the arrow head says that it goes on.
        axis.vlines(x, *np.clip([row.low, row.high], *limits), color=color, linewidth=1.1, zorder=2)
        if y == row.mean:
            mark = row.mark if row.ladder == "" else look["marker"]
            axis.plot([x], [y], mark, color=color, markersize=4.5, zorder=4)
        elif y == y:
            mark = "v" if y == limits[0] else "^"
            axis.plot([x], [y], mark, color=color, markersize=6, clip_on=False, zorder=4)
