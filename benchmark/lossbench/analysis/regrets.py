"""The loss to start with: the one that falls least short of the best, wherever it does worst."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from lossbench.analysis import seeds
from lossbench.analysis.goals import Goal, amount, unit

ALARMS = "false_alarms@0.5"

QUIET = 0.2  # mean share of empty images that a loss may mark where such images are said to occur

START = ["group", "goal", "loss", "loss_label", "regret", "where", "n_datasets", "n_losses", "first"]
START += ["false_alarms", "says", "alarms"]

PLAIN = ("ce", "dice_ce")  # of losses that are equally safe one of these is named


def regrets(cells: pd.DataFrame, goal: Goal, empty: bool) -> list[dict]:
    """Return one row a loss that all these data sets hold, lowest maximal regret first (Savage 1951).

    The regret of a loss on a data set is how far its mean falls short of the best one's. The first row that
    never collapsed, and with ``empty`` is known to mark at most ``QUIET`` of the empty images, is the one to
    use: no loss is kept from that place by a difference that few seeds cannot show. Its ``says`` is the
    recommendation with its reason, its ``alarms`` (with ``empty``) how often it and the quietest other loss
    mark an empty image."""
    short = shortfalls(cells, goal)
    # A loss without a rival has no regret and would always be advised.
    if len(short) < 2:
        return []
    # Stable: of equal regrets the first by name, on every machine.
    worst = short.max(axis=1).sort_values(kind="stable")
    labels = cells.drop_duplicates("loss").set_index("loss")["loss_label"]
    places = cells.drop_duplicates("dataset").set_index("dataset")["data_label"]
    trained = {loss: cells[cells["loss"] == loss] for loss in worst.index}
    unfit = {loss: _unfit(own, empty) for loss, own in trained.items()}
    first = next((loss for loss in worst.index if not unfit[loss]), None)
    n_all = cells.loc[seeds.numbers(cells, goal.column).notna(), "loss"].nunique()
    rows = []
    for loss, regret in worst.items():
        row = {"goal": goal.name, "loss": loss, "loss_label": labels[loss], "regret": float(regret)}
        row |= {"where": places[short.loc[loss].idxmax()], "n_datasets": short.shape[1]}
        row |= {"n_losses": len(short), "n_all": n_all}
        row |= {"first": loss == first, "tie": not worst.iloc[-1], "says": "", "alarms": ""}
        rows.append(row | {"false_alarms": seeds.numbers(trained[loss], ALARMS).mean()})
    for place, row in enumerate(rows):
        if row["first"]:
            passed = [f'"{other["loss_label"]}" {unfit[other["loss"]]}' for other in rows[:place]]
            row |= {"says": _use(row, goal, passed), "alarms": _alarms(row, rows) if empty else ""}
    return rows


def shortfalls(cells: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Return how far each loss falls short of the best one on each data set: a row for each loss that all of
    them hold, a column for each data set.
    """
    scores = cells.assign(score=seeds.numbers(cells, goal.column)).dropna(subset="score")
    if goal.absolute:
        scores = scores.assign(score=scores["score"].abs())
    means = scores.pivot_table(index="loss", columns="dataset", values="score", observed=True).dropna()
    return means.max() - means if goal.good > 0 else means - means.min()


def _unfit(own: pd.DataFrame, empty: bool) -> str:
    """Return why a loss cannot be advised, as the rest of a sentence about it; nothing where it can."""
    collapsed = int((own["outcome"] == "collapsed").sum())
    if collapsed:
        return f"collapsed in {collapsed} of {len(own)} trainings"
    marked = seeds.numbers(own, ALARMS).mean()
    if not empty or marked <= QUIET:
        return ""
    # Unknown is no better than high.
    return "is not known to leave empty images empty" if np.isnan(marked) else f"marks {_on_empty(marked)}"


def _on_empty(share: float) -> str:
    return f"something on {100 * share:.3g} % of the images without foreground"


def _use(row: dict, goal: Goal, passed: Collection[str]) -> str:
    """Return the recommendation with its reason; ``passed``: why losses with a smaller regret are not it."""
    says = f"Use {row['loss_label']}."
    where, losses = f'"{row["where"]}"', f"{row['n_losses']} losses"
    much = amount(row["regret"], goal)
    # A zero would say that it loses nothing.
    behind = much if much.strip("0.") else f"less than {'0.1' if '.' in much else '1'}"
    if row["tie"]:
        says = f"{says} All {losses} score the same."
    elif row["regret"]:
        where = f"Where it does worst, on {where}, its" if row["n_datasets"] > 1 else f"On {where} its"
        says = f"{says} {where} mean is {behind}{unit(goal)} behind the best of {losses}."
    else:
        where = f"each of {row['n_datasets']} data sets" if row["n_datasets"] > 1 else where
        says = f"{says} It has the best mean of {losses} on {where}."
    if passed:
        says = f"{says} Not advised, although nearer to the best: {'; '.join(passed)}."
    # Often only two losses were trained on all of the data sets, which the reader must know.
    if row["n_losses"] < row["n_all"]:
        sets = f"all {row['n_datasets']} data sets"
        says = f"{says} Only these {row['n_losses']} of {row['n_all']} losses were trained on {sets}."
    return says


def _alarms(first: dict, rows: list[dict]) -> str:
    """Return how often the advised loss and the quietest other one mark an image without foreground."""
    # Equal but for the last digit is equal, and then the plainest loss is named.
    share = {row["loss"]: round(row["false_alarms"], 6) for row in rows}
    others = [row for row in rows if row is not first and not np.isnan(share[row["loss"]])]
    own = f"False alarms: {first['loss_label']} marks {_on_empty(share[first['loss']])}"
    if not others:
        return f"{own}."
    least = min(others, key=lambda row: (share[row["loss"]], row["loss"] not in PLAIN, row["loss"]))
    more = share[least["loss"]] - share[first["loss"]]
    kind = "the safest loss here is" if more < 0 else "the next safest is" if more else "as safe is"
    return f"{own}; {kind} {least['loss_label']}, on {100 * share[least['loss']]:.3g} %."
