"""The decision aid, and how sensitive results are to the setting, in ready words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossbench.analysis import decisions
from lossbench.analysis.goals import GOALS, Goal, amount, behind, unit
from lossbench.analysis.likeness import ANY, BOUNDARIES, EMPTY, FOREGROUND
from lossbench.base import columns, words

if TYPE_CHECKING:
    import pandas as pd

# What a person knows of their own data before they train; "any" stands for not knowing.
QUESTIONS = {
    "foreground": (
        "Foreground, share of all pixels",
        (ANY, *(name for name, _ in FOREGROUND)),
    ),
    "boundaries": ("Boundaries", (ANY, *BOUNDARIES)),
    "empty": ("Images without foreground", (ANY, *(name for name, _ in EMPTY))),
}

# In what the nearest data sets differ, where none is alike.
DIFFER = {
    "foreground": "the share of foreground",
    "boundaries": "their boundaries",
    "empty": "the share of empty images",
}


def aid(tables: Mapping[str, pd.DataFrame], there: bool = True) -> dict[str, Any]:
    """Return what the decision aid shows: its questions, what every triple of answers rests on, the rows of
    each group and goal, and the loss to start with. Where it is not ``there`` the page leaves it out.
    """
    groups, rows = tables["advice_groups"], tables["advice"]
    by_group: dict[str, dict[str, list]] = {}
    # Many rows rest on the same data sets, so these are listed once and named by their number.
    number = {sets: place for place, sets in enumerate(dict.fromkeys(rows["datasets"]))}
    for row in rows.to_dict("records"):
        kind = columns.form(row["metric"])
        shown = [
            row["loss_label"],
            row["family"],
            row["verdict"],
            f"{words.effect(row['estimate'], kind)} {words.unit(kind)}".strip(),
            words.interval(row["low"], row["high"], kind),
        ]
        alarms = "–" if words.missing(row["false_alarms"]) else words.percent(row["false_alarms"], 2)
        collapsed = f"{row['collapsed']} of {row['n_cells']}" if row["collapsed"] else "0"
        by_group.setdefault(str(row["group"]), {}).setdefault(row["goal"], []).append(
            [*shown, int(row["n_seeds"]), alarms, collapsed, int(row["n_datasets"]), number[row["datasets"]]]
        )
    # Every triple of answers leads to a group; several triples may share one.
    answers = {
        "|".join((group["foreground"], group["boundaries"], group["empty"])): [
            group["group"],
            group["datasets"],
            " and ".join(DIFFER[name] for name in group["given_up"].split(" and ") if name),
        ]
        for group in groups.to_dict("records")
    }
    return {
        "questions": QUESTIONS,
        "goals": [{"name": goal.name, "lower": goal.good < 0} for goal in GOALS],
        "data": {"answers": answers, "rows": by_group, "sets": list(number), "says": _says(tables)},
        "there": there and bool(by_group),
    }


def _says(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, list[str]]]:
    """Return group -> goal -> sentences: how far losses fall short on real data, what is shown on these, and
    what to take care of.
    """
    rows = tables["advice"]
    collapses = tables["advice_groups"].drop_duplicates("group").set_index("group")["collapses"]
    goals = {goal.name: goal for goal in GOALS}
    short = {goal: behind(tables, goals[goal]) for goal in goals}
    found: dict[str, dict[str, list[str]]] = {}
    for (group, goal), own in rows.groupby(["group", "goal"], sort=False):
        says = [short[goal], *_shown(own, goals[goal]), collapses.get(group, "")]
        # Tables have the quotes of a keyboard, the page has those of print.
        found.setdefault(str(group), {})[goal] = [re.sub('"([^"]*)"', r"“\1”", text) for text in says if text]
    return found


def _shown(rows: pd.DataFrame, goal: Goal) -> list[str]:
    """Return what is shown of all losses against cross-entropy, in a sentence for each verdict."""
    # Some labels hold commas.
    named = {
        verdict: ", ".join(f"“{label}”" for label in rows.loc[rows["verdict"] == verdict, "loss_label"])
        for verdict in ("better", "equal", "worse", "open")
    }
    says = {
        "better": f"Shown to be better than ce: {named['better']}.",
        "equal": f"As good as ce ({_small(goal)} counts as equal): {named['equal']}.",
        "worse": f"Shown to be worse than ce: {named['worse']}.",
        "open": f"Not decided against ce, for which more seeds or data sets are needed: {named['open']}.",
    }
    nothing = [] if named["better"] else ["No loss is shown to be better than ce."]
    return nothing + [text for verdict, text in says.items() if named[verdict]]


def _small(goal: Goal) -> str:
    """Return up to which difference two losses are called equal."""
    small = decisions.margin(goal.estimand)
    much = f"{small:.2g}" if columns.form(goal.column) == columns.PLAIN else amount(small, goal)
    return f"a difference below {much.removesuffix('.0')}{unit(goal)}".replace(" 1 points", " 1 point")


def shortfalls(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return how far each loss falls short of the best one on real data: one row a loss, one column a goal,
    its mean over the data sets and its worst; no rows where too few can be compared.
    """
    own = tables["advice_shortfalls"]
    found = _by_goal(own, "shortfall")
    for row in found["rows"]:
        for cell in row["cells"]:
            cell["text"] += f" ({cell['worst']})" if cell["worst"] else ""
    return found


def regrets(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the table of largest regrets over all data sets of the study: one row a loss that all of them
    hold, one column a goal, the smallest of each marked; no rows where no loss is on all of them.
    """
    groups, start = tables["advice_groups"], tables["advice_start"]
    every = groups.loc[(groups[list(QUESTIONS)] == ANY).all(axis=1), "group"]
    return _by_goal(start[start["group"].isin(every)], "regret")


def _by_goal(table: pd.DataFrame, value: str) -> dict[str, Any]:
    """Return one row a loss and one column a goal, the smallest of each marked."""
    goals = [goal for goal in GOALS if goal.name in set(table["goal"])]
    least = table.groupby("goal")[value].min()
    at = {(row["goal"], row["loss"]): row for row in table.to_dict("records")}

    def cell(goal: Goal, loss: str) -> dict[str, Any]:
        row = at.get((goal.name, loss))
        if row is None:
            return {"text": "–", "raw": None, "where": "", "least": False, "worst": ""}
        shown = {"text": amount(row[value], goal), "raw": row[value], "where": row["where"]}
        worst = amount(row["worst"], goal) if "worst" in row else ""
        return {**shown, "least": row[value] == least[goal.name], "worst": worst}

    losses = table.drop_duplicates("loss")[["loss", "loss_label"]].itertuples(index=False, name=None)
    rows = [{"label": label, "cells": [cell(goal, loss) for goal in goals]} for loss, label in losses]
    heads = [f"{goal.name}{',' * bool(unit(goal))}{unit(goal)}" for goal in goals]
    sets = int(table["n_datasets"].max()) if len(table) else 0
    return {"goals": heads, "rows": rows, "sets": sets}


def likeness(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a data set: what it is like, which says to whose data its results speak."""
    return [
        {
            "label": row["data_label"],
            "foreground": words.percent(row["foreground_true"], 2),
            "foreground_raw": row["foreground_true"],
            "empty": words.percent(row["empty_share"], 2),
            "empty_raw": row["empty_share"],
            "boundaries": row["boundaries"],
        }
        for row in table.to_dict("records")
    ]


def sensitivity(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry an axis with its rows; a usual setting is a row of its own, since it is what the
    others are compared with.
    """
    # As objects: a column of truths with gaps would turn them into numbers.
    return [
        {"axis": axis, "rows": [_setting(row) for row in own.astype(object).to_dict("records")]}
        for axis, own in table.groupby("axis", sort=False)
    ]


def _setting(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": row["data_label"],
        "loss": row["loss_label"],
        "family": row["family"],
        "metric": columns.title(row["metric"]),
        "setting": row["setting"],
        "usual": row["usual"] is True,
        "chosen": row["chosen"] is True,
        "mean": words.number(row["mean"]),
        "mean_raw": row["mean"],
        "n": words.count(row["n"]),
        **_difference(row, ""),
        **_difference(row, "ce_"),
    }


def _difference(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    # Of the change against the usual setting, and of the effect against cross-entropy at this one.
    estimate, low, high = (row[f"{prefix}{name}"] for name in ("estimate", "low", "high"))
    return {
        f"{prefix}effect": words.effect(estimate, words.POINTS),
        f"{prefix}raw": estimate,
        f"{prefix}interval": "" if words.missing(estimate) else words.interval(low, high, words.POINTS),
        f"{prefix}resolved": words.resolved(low, high),
    }
