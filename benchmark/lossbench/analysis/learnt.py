"""Was training long enough? A data set variant is *learnt* where its best loss comes near to what is
possible; a loss is *converged* on it where a longer training is shown to change its score by less than
anybody cares about.

Learnt: (best loss - best constant prediction) / (reference - best constant prediction) is at least .8, on
`dice` at 0.5, mean over seeds; .9 where the reference is the Bayes Dice of the scenes, which no network can
beat. Else the reference is a published score or one of the experiment's file, else that of the part
"reference". What was not learnt says who learns sooner, and takes no part in rankings, pooled effects and
advice.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lossbench.analysis import flips, selection
from lossbench.analysis.lengths import INTEREST, one_of_twins, trunks
from lossbench.analysis.seeds import numbers
from lossbench.analysis.selection import STEPS

SCORE, BAYES, CONSTANT = "dice@0.5", "dice_bayes_dice", "dice_constant"

NEEDED, NEEDED_OF_BAYES = 0.8, 0.9

REFERENCE_PART = "reference"  # trainings of another network, four times as long, that others are measured by

LEARNT = (
    "dataset",
    "recipe",
    "data_label",
    "steps",
    "loss",
    "loss_label",
    "best",
    "constant",
    "reference",
    "reference_is",
    "share",
    "needed",
    "learnt",
    "says",
)
LENGTHS = (
    "dataset",
    "recipe",
    "data_label",
    "loss",
    "loss_label",
    "steps",
    "longer",
    "recipe_longer",
    "seeds",
    "change",
    "converged",
)

SPEEDS = ("dataset", "data_label", "lead", "lead_longest", "says")

STEPS_CLAUSE = re.compile(r", steps \d+")  # which tells the lengths of a data set apart in its label

NO_REFERENCES = pd.DataFrame(columns=["dataset", "reference", "source"])


def learnt(cells: pd.DataFrame, references: pd.DataFrame = NO_REFERENCES) -> pd.DataFrame:
    """Return one row a (data set, recipe): its best loss, what it is measured by, and whether that was
    reached; ``learnt`` is 1, 0, or nan where there is nothing to measure by.
    """
    if not len(cells) or SCORE not in cells:
        return pd.DataFrame(columns=list(LEARNT))
    # Trained four times as long by another network, these would win every comparison.
    apart = selection.in_parts(cells, (REFERENCE_PART,))
    given = references.set_index("dataset")[["reference", "source"]].to_dict("index")
    # The best loss of the other network counts: a reference says what is possible.
    others = _means(cells[apart]).groupby("dataset", observed=True)["score"].max().to_dict()
    rows = []
    # Reference trainings are not judged: measured by themselves they would always be learnt.
    means = _means(cells[~apart])
    for (dataset, recipe), own in means.groupby(["dataset", "recipe"], sort=True, observed=True):
        # Without any score the variant keeps a row, which says that nothing is known of it.
        best = own.loc[own["score"].idxmax()] if own["score"].notna().any() else own.iloc[0]
        # The surest reference first: what is possible, then what was published, then what we tried.
        if np.isfinite(best["bayes"]):
            reference, is_ = best["bayes"], "the best possible"
        elif dataset in given:
            reference, is_ = given[dataset]["reference"], given[dataset]["source"]
        else:
            reference, is_ = others.get(dataset, np.nan), "another network, trained four times as long"
        rows.append({**_judged(best, float(reference), is_), "dataset": dataset, "recipe": recipe})
    return pd.DataFrame(rows, columns=list(LEARNT))


def _means(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss): means over seeds."""
    known = cells.assign(
        score=numbers(cells, SCORE),
        bayes=numbers(cells, BAYES),
        constant=numbers(cells, CONSTANT).fillna(0.0),
        steps=numbers(cells, STEPS),
    )
    facts = {name: (name, "first") for name in ("data_label", "loss_label", "steps")}
    means = {name: (name, "mean") for name in ("score", "bayes", "constant")}
    keys = ["dataset", "recipe", "loss"]
    return known.groupby(keys, observed=True, sort=True).agg(**facts, **means).reset_index()


def _judged(best: pd.Series, reference: float, is_: str) -> dict:
    needed = NEEDED_OF_BAYES if is_ == "the best possible" else NEEDED
    # From the best constant mask on, since at 20 % foreground that alone has a Dice of a third.
    room = reference - best["constant"]
    # A reference that a constant prediction reaches cannot tell who learnt.
    share = (best["score"] - best["constant"]) / room if room > 0 else np.nan
    row = {name: best[name] for name in ("data_label", "steps", "loss", "loss_label", "constant")}
    row |= {"best": best["score"], "reference": reference, "reference_is": is_, "share": share}
    # Without a reference nobody can say; the column is nan then, not 0.
    known = bool(np.isfinite(share))
    row |= {"needed": needed, "learnt": float(share >= needed) if known else np.nan}
    return {**row, "says": _says(row) if known else ""}


def _says(row: dict) -> str:
    what = "learnt" if row["learnt"] else "not yet learnt"
    best, reference = (f"{row[name]:.2f}".removeprefix("0") for name in ("best", "reference"))
    return f"{row['data_label']}: {what}: {best} of {reference}, which is {row['reference_is']}"


def unlearnt(table: pd.DataFrame, cells: pd.DataFrame) -> pd.Series:
    """Return which cells belong to a data set variant that was not learnt. Records of protocol 1 were judged
    before this was asked, and stay as they were.
    """
    return _of_variants(cells, table[table["learnt"] == 0])


def unmeasured(table: pd.DataFrame, cells: pd.DataFrame) -> pd.Series:
    """Return which cells belong to a data set variant of which nobody can say whether it was learnt. They
    take part in everything, and verdicts say so.
    """
    return _of_variants(cells, table[table["learnt"].isna()])


def _of_variants(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    named = set(zip(rows["dataset"], rows["recipe"], strict=True))
    own = [pair in named for pair in zip(cells["dataset"], cells["recipe"], strict=True)]
    return pd.Series(own, index=cells.index, dtype=bool) & (numbers(cells, "protocol") >= 2)


def converged(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that was also trained longer: the change of its Dice up to
    the next length, paired over seeds, and whether that is less than a point.

    ``converged`` is 1 where two one-sided tests over seeds show it, which takes five seeds or more, 0 where
    the mean change is a point or more, nan where neither is so."""
    if STEPS not in cells or SCORE not in cells:
        return pd.DataFrame(columns=list(LENGTHS))
    rows = []
    for _, own in _by_length(cells).groupby(["way", "loss"], sort=False, observed=True):
        by_steps = own.pivot_table(index="seed", columns="steps", values="score")
        # Each length is compared with the next one only: a step up is what a reader could afford.
        for short, long in zip(by_steps.columns, by_steps.columns[1:], strict=False):
            change = (by_steps[long] - by_steps[short]).dropna()
            if len(change):
                first = own[own["steps"] == short].iloc[0]
                facts = {name: first[name] for name in LENGTHS[:6]}
                facts |= {"longer": long, "seeds": len(change), "change": change.mean()}
                facts["recipe_longer"] = own.loc[own["steps"] == long, "recipe"].iloc[0]
                rows.append({**facts, "converged": _converged(change)})
    table = pd.DataFrame(rows, columns=list(LENGTHS))
    return table.sort_values(["dataset", "recipe", "loss"], ignore_index=True)


def _converged(change: pd.Series) -> float:
    # To fall with a longer training is as much a change as to rise.
    if abs(change.mean()) >= INTEREST["dice"]:
        return 0.0
    return 1.0 if flips.flips(change).equal(INTEREST["dice"]) < flips.ALPHA else np.nan


def _by_length(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with score and steps as numbers, and the ``way`` that a recipe's lengths share."""
    way = trunks(cells, ["dataset"])
    return cells.assign(score=numbers(cells, SCORE), steps=numbers(cells, STEPS), way=way)


def speeds(cells: pd.DataFrame, of: str = "dice", against: str = "ce") -> pd.DataFrame:
    """Return one row for each data set at two lengths or more: the lead of one loss over another at the
    shortest and at the longest, and the sentence that says what is left of it. Leads are means over seeds,
    estimates that decide nothing.
    """
    if STEPS not in cells or SCORE not in cells:
        return pd.DataFrame(columns=list(SPEEDS))
    known = one_of_twins(_by_length(cells[cells["loss"].isin([of, against])]))
    rows = []
    for _, own in known.groupby("way", sort=False, observed=True):
        paired = own.pivot_table(index=["steps", "seed"], columns="loss", values="score").dropna()
        if set(paired) < {of, against} or paired.empty:
            continue
        by_steps = (paired[of] - paired[against]).groupby("steps")
        leads, seeds = by_steps.mean(), by_steps.size()
        # One length has no course.
        if len(leads) > 1:
            names = own.drop_duplicates("loss").set_index("loss")["loss_label"]
            # The sentence names both lengths itself.
            label = STEPS_CLAUSE.sub("", own["data_label"].iloc[0])
            text = f"{label}: {_lead(leads, names[of], names[against])}"
            few = f" ({seeds.iloc[-1]} of {seeds.iloc[0]} seeds)" if seeds.iloc[-1] < seeds.iloc[0] else ""
            # A gap to a loss that has marked nothing yet is the other one's whole score.
            first = paired.loc[leads.index[0]].mean()
            blank = [names[loss] for loss in (of, against) if first[loss] == 0]
            text += few + (f"; at first {blank[0]} marks nothing" if blank else "")
            rows.append((own["dataset"].iloc[0], label, leads.iloc[0], leads.iloc[-1], text))
    return pd.DataFrame(rows, columns=list(SPEEDS))


def _lead(leads: pd.Series, of: str, against: str) -> str:
    """Return what is left of a lead, in words; leads: by steps, ascending."""
    first, last = leads.iloc[0], leads.iloc[-1]
    short, long = f"{leads.index[0]:,.0f}", f"{leads.index[-1]:,.0f}"
    # Below the smallest effect of interest the sign of a lead is noise, and is not put into words.
    matters = abs(first) >= INTEREST["dice"], abs(last) >= INTEREST["dice"]
    near = f"the means of {of} and {against} are less than a point apart"
    if matters == (False, False):
        return f"{near} after {short} steps and after {long}"
    if matters == (False, True):
        return f"{near} after {short} steps; after {long} {_ahead(last, of, against)}"
    begin = f"{_ahead(first, of, against)} after {short} steps"
    if matters == (True, False):
        return f"{begin}; after {long} less than one is left"
    if (first > 0) == (last > 0):
        return f"{begin}, by {100 * abs(last):.1f} after {long}"
    return f"{begin}; after {long} {_ahead(last, of, against)}"


def _ahead(lead: float, of: str, against: str) -> str:
    return f"{of if lead > 0 else against} is ahead by {100 * abs(lead):.1f} points"
