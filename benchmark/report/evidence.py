"""The decision aid and the sensitivity of results in ready words, taken from their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmark.analysis import advice
from benchmark.report import words
from benchmark.report.rows import METRIC_NAMES

if TYPE_CHECKING:
    import pandas as pd

QUESTIONS = {
    "foreground": ("Foreground, share of all pixels", (advice.ANY, *(name for name, _ in advice.FOREGROUND))),
    "boundaries": ("Boundaries", (advice.ANY, *advice.BOUNDARIES)),
    "empty": ("Images without foreground", (advice.ANY, *(name for name, _ in advice.EMPTY))),
}


def aid(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what the decision aid shows: its questions, what every triple of answers rests on, and the rows of each group and goal."""
    groups, rows = tables["advice_groups"], tables["advice"]
    found: dict[str, dict[str, list]] = {}
    sets: list[str] = []
    known: dict[str, int] = {}
    for row in rows.to_dict("records"):
        kind = words.kind_of(row["metric"])
        place = known.setdefault(row["datasets"], len(sets))
        sets += [row["datasets"]] if place == len(sets) else []
        interval = words.interval(row["low"], row["high"], kind)
        told = [row["loss_label"], row["family"], row["verdict"], f"{words.effect(row['estimate'], kind)} {words.unit(kind)}".strip(), interval]
        found.setdefault(str(row["group"]), {}).setdefault(row["goal"], []).append([*told, int(row["n_blocks"]), int(row["n_datasets"]), place])
    answers = {"|".join((g["foreground"], g["boundaries"], g["empty"])): [g["group"], g["datasets"]] for g in groups.to_dict("records")}
    goals = [{"name": goal.name, "lower": goal.good < 0} for goal in advice.GOALS]
    return {"questions": QUESTIONS, "goals": goals, "data": {"answers": answers, "rows": found, "sets": sets}, "there": bool(found)}


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
    """Return one entry an axis with its rows; a usual setting is a row of its own, since it is what the others are compared with."""
    found = []
    for axis, part in table.groupby("axis", sort=False):
        rows = [
            {
                "label": row["data_label"],
                "loss": row["loss_label"],
                "family": row["family"],
                "metric": METRIC_NAMES.get(row["metric"], row["metric"]),
                "setting": row["setting"],
                "usual": row["usual"] is True,
                "chosen": row["chosen"] is True,
                "mean": words.number(row["mean"]),
                "mean_raw": row["mean"],
                "n": "–" if words.missing(row["n"]) else f"{row['n']:.0f}",
                **_difference(row, ""),
                **_difference(row, "ce_"),
            }
            for row in part.astype(object).to_dict("records")
        ]
        found.append({"axis": axis, "rows": rows})
    return found


def _difference(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    estimate, low, high = (row[f"{prefix}{name}"] for name in ("estimate", "low", "high"))
    return {
        f"{prefix}effect": words.effect(estimate, words.POINTS),
        f"{prefix}raw": estimate,
        f"{prefix}interval": "" if words.missing(estimate) else words.interval(low, high, words.POINTS),
        f"{prefix}resolved": not words.missing(low) and (low > 0 or high < 0),
    }
