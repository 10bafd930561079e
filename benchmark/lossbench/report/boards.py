"""Leaderboards in ready words: one a data set and recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossbench.analysis.answers import BOARD
from lossbench.base import columns
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd


FIRST = "dice@0.5"  # what the leaderboards are sorted by


def boards(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one leaderboard a data set and recipe, in the order of the table; a recipe is named where one
    data set has several.
    """
    several = len(table) > 0 and table.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    # Older records know fewer scores.
    present = [column for column in BOARD if column in table and column != FIRST]
    return [
        _board(own.sort_values("place").to_dict("records"), present, several)
        for _, own in table.groupby(["dataset", "recipe"], sort=False, observed=True)
    ]


def _board(rows: list[dict[str, Any]], present: list[str], several: bool) -> dict[str, Any]:
    first = rows[0]
    return {
        "dataset": first["dataset"],
        "recipe": first["recipe"] if several else "",
        "label": first["data_label"],
        "foreground": words.percent(first["foreground"], 2),
        "columns": [columns.title(column) for column in present],
        "lower": [columns.lower_is_better(column) for column in present],
        "best": [row["loss_label"] for row in rows if row["best"]],
        "dataset_key": (first["dataset"], first["recipe"]),
        "rows": [_row(row, present) for row in rows],
    }


def _row(row: dict[str, Any], present: list[str]) -> dict[str, Any]:
    # Each value with its number for sorting, and whether it may be the best at the validation threshold.
    others = [(words.value(row[c], c), row[c], c == "dice@val" and row["best_val"]) for c in present]
    return {
        "place": row["place"],
        "loss": row["loss"],
        "label": row["loss_label"],
        "family": row["family"],
        "best": bool(row["best"]),
        "mean": words.number(row["mean"]),
        "mean_raw": row["mean"],
        "interval": words.bounds(row["low"], row["high"]),
        "n": row["n"],
        "collapsed": row["collapsed"],
        "others": others,
    }


def filters(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the choices of the filters above the leaderboards."""
    if not len(table):
        return {"data set": [], "family": [], "loss": [], "metric": []}
    return {
        "data set": list(dict.fromkeys(table["data_label"])),
        "family": sorted(dict.fromkeys(table["family"])),
        "loss": sorted(dict.fromkeys(table["loss_label"])),
        "metric": [columns.title(column) for column in BOARD if column == FIRST or column in table],
    }
