"""How far losses fall short of the best one: on each data set, on average over real data, and at worst."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from lossbench.analysis import likeness, seeds
from lossbench.analysis.goals import GOALS, Goal

ALARMS = "false_alarms@0.5"

QUIET = 0.2  # mean share of empty images that a loss may mark where such images are said to occur

FEWEST = 5  # data sets: of fewer a mean over them says little, and nothing of how it varies

START = ["group", "goal", "loss", "loss_label", "regret", "where", "n_datasets", "n_losses", "false_alarms"]

SHORTFALLS = ["goal", "loss", "loss_label", "shortfall", "worst", "where", "n_datasets"]


def shortfalls(cells: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Return how far each loss falls short of the best one on each data set: a row for each loss that all of
    them hold, a column for each data set.
    """
    scores = cells.assign(score=seeds.numbers(cells, goal.column)).dropna(subset="score")
    if goal.absolute:
        scores = scores.assign(score=scores["score"].abs())
    means = scores.pivot_table(index="loss", columns="dataset", values="score", observed=True).dropna()
    return means.max() - means if goal.good > 0 else means - means.min()


def over_real(cells: pd.DataFrame, facts: pd.DataFrame, real: Collection[str]) -> pd.DataFrame:
    """Return the table ``advice_shortfalls``: for each goal one row a loss that all ``real`` data sets hold,
    with its mean shortfall over them, smallest first, and its worst.

    facts: the table ``advice_data``. A goal for which fewer than ``FEWEST`` data sets, or two losses, can be
    compared has no rows."""
    usual = cells[likeness.usual_cells(cells, facts)]
    own = usual[usual["dataset"].isin(real)]
    rows = []
    for goal in (goal for goal in GOALS if goal.column in own):
        short = shortfalls(own, goal)
        if len(short) > 1 and short.shape[1] >= FEWEST:
            means = short.mean(axis=1).sort_values(kind="stable")
            rows += [
                {**_worst(short, own, loss), "goal": goal.name, "shortfall": mean}
                for loss, mean in means.items()
            ]
    return pd.DataFrame(rows).reindex(columns=SHORTFALLS)


def regrets(cells: pd.DataFrame, goal: Goal) -> list[dict]:
    """Return one row a loss that all these data sets hold, lowest maximal regret first (Savage 1951): how far
    its mean falls short of the best one's where it does so most.
    """
    short = shortfalls(cells, goal)
    # A loss without a rival has no regret.
    if len(short) < 2:
        return []
    rows = []
    # Stable: of equal regrets the first by name, on every machine.
    for loss in short.max(axis=1).sort_values(kind="stable").index:
        row = _worst(short, cells, loss)
        marked = seeds.numbers(cells[cells["loss"] == loss], ALARMS).mean()
        rows.append({**row, "goal": goal.name, "regret": row["worst"], "n_losses": len(short)})
        rows[-1] |= {"false_alarms": marked}
    return rows


def safest(cells: pd.DataFrame, goal: Goal, empty: bool) -> str | None:
    """Return the loss of the smallest maximal regret of those that never collapsed and, with ``empty``, are
    known to mark at most ``QUIET`` of the empty images; None where there is none.
    """
    for row in regrets(cells, goal):
        collapsed = (cells.loc[cells["loss"] == row["loss"], "outcome"] == "collapsed").any()
        # Unknown is no better than high.
        if not collapsed and (not empty or row["false_alarms"] <= QUIET):
            return row["loss"]
    return None


def nearest(cells: pd.DataFrame, goal: Goal) -> str | None:
    """Return the loss of the smallest mean shortfall; None of one loss or none."""
    short = shortfalls(cells, goal)
    return short.mean(axis=1).idxmin() if len(short) > 1 else None


def _worst(short: pd.DataFrame, cells: pd.DataFrame, loss: str) -> dict:
    """Return a loss with the data set on which it falls short most."""
    own, where = short.loc[loss], short.loc[loss].idxmax()
    label = cells.loc[cells["loss"] == loss, "loss_label"].iloc[0]
    place = cells.loc[cells["dataset"] == where, "data_label"].iloc[0]
    row = {"loss": loss, "loss_label": label, "worst": float(own.max()), "where": place}
    return {**row, "n_datasets": short.shape[1]}
