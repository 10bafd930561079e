"""The decision aid, and how sensitive results are to the setting, in ready words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossbench.analysis import advice
from lossbench.base import columns
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd

# What a person knows of their own data before they train; "any" stands for not knowing.
QUESTIONS = {
    "foreground": ("Foreground, share of all pixels", (advice.ANY, *(name for name, _ in advice.FOREGROUND))),
    "boundaries": ("Boundaries", (advice.ANY, *advice.BOUNDARIES)),
    "empty": ("Images without foreground", (advice.ANY, *(name for name, _ in advice.EMPTY))),
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
        by_group.setdefault(str(row["group"]), {}).setdefault(row["goal"], []).append(
            [*shown, int(row["n_seeds"]), int(row["n_datasets"]), number[row["datasets"]]]
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
    start: dict[str, dict[str, str]] = {}
    for row in tables["advice_start"].dropna(subset=["says"]).to_dict("records"):
        if row["says"]:
            start.setdefault(str(row["group"]), {})[row["goal"]] = row["says"]
    return {
        "questions": QUESTIONS,
        "goals": [{"name": goal.name, "lower": goal.good < 0} for goal in advice.GOALS],
        "data": {"answers": answers, "rows": by_group, "sets": list(number), "start": start},
        "there": there and bool(by_group),
    }


def regrets(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the table of largest regrets over all data sets of the study: one row a loss that all of them
    hold, one column a goal, the smallest of each marked; no rows where no loss is on all of them.
    """
    groups, start = tables["advice_groups"], tables["advice_start"]
    every = groups.loc[(groups[list(QUESTIONS)] == advice.ANY).all(axis=1), "group"]
    own = start[start["group"].isin(every)]
    goals = [goal for goal in advice.GOALS if goal.name in set(own["goal"])]
    least = own.groupby("goal")["regret"].min()
    at = {(row.goal, row.loss): row for row in own.itertuples()}
    losses = own.drop_duplicates("loss")[["loss", "loss_label"]].itertuples(index=False, name=None)

    def cell(goal: advice.Goal, loss: str) -> dict[str, Any]:
        row = at.get((goal.name, loss))
        if row is None:
            return {"text": "–", "raw": None, "where": "", "least": False}
        smallest = row.regret == least[goal.name]
        text = advice.amount(row.regret, goal)
        return {"text": text, "raw": row.regret, "where": row.where, "least": smallest}

    rows = [{"label": label, "cells": [cell(goal, loss) for goal in goals]} for loss, label in losses]
    heads = [f"{goal.name}{',' * bool(advice.unit(goal))}{advice.unit(goal)}" for goal in goals]
    sets = int(own["n_datasets"].max()) if len(own) else 0
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
