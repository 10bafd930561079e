"""The rows of the report's tables in ready words: leaderboards, paired effects, collapses, cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossbench.analysis.answers import BOARD
from lossbench.base import columns
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd

Labels = Mapping[tuple[str, str], str]  # (data set, recipe) -> how it is called

EFFECTS_UP_TO = 8_000  # rows; one takes some 420 bytes

KINDS = {"background": "all background", "foreground": "all foreground", "not_finite": "not finite"}


def boards(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one leaderboard a data set and recipe, in the order of the table; a recipe is named where one
    data set has several.
    """
    found = []
    several = len(table) > 0 and table.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    present = [c for c in BOARD if c in table and c != "dice@0.5"]
    for (dataset, recipe), part in table.groupby(["dataset", "recipe"], sort=False, observed=True):
        rows = part.sort_values("place").to_dict("records")
        found.append(
            {
                "dataset": dataset,
                "recipe": recipe if several else "",
                "label": rows[0]["data_label"],
                "foreground": words.percent(rows[0]["foreground"], 2),
                "columns": [columns.title(c) for c in present],
                "lower": [columns.lower_is_better(c) for c in present],
                "best": [row["loss_label"] for row in rows if row["best"]],
                "dataset_key": (dataset, recipe),
                "rows": [_board_row(row, present) for row in rows],
            }
        )
    return found


def board_filters(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the choices of the filters above the leaderboards."""
    if not len(table):
        return {"data set": [], "family": [], "loss": [], "metric": []}
    return {
        "data set": list(dict.fromkeys(table["data_label"])),
        "family": sorted(dict.fromkeys(table["family"])),
        "loss": sorted(dict.fromkeys(table["loss_label"])),
        "metric": [columns.title(c) for c in BOARD if c == "dice@0.5" or c in table],
    }


def _board_row(row: dict[str, Any], present: list[str]) -> dict[str, Any]:
    return {
        "place": row["place"],
        "loss": row["loss"],
        "label": row["loss_label"],
        "family": row["family"],
        "best": bool(row["best"]),
        "mean": words.number(row["mean"]),
        "mean_raw": row["mean"],
        "interval": "one seed"
        if words.missing(row["low"])
        else f"[{words.number(row['low'])}, {words.number(row['high'])}]",
        "n": row["n"],
        "collapsed": row["collapsed"],
        "others": [
            (
                words.value(row[c], c),
                row[c],
                c == "dice@val" and row["best_val"],
            )
            for c in present
        ],
    }


def effects(table: pd.DataFrame, labels: Labels) -> list[dict[str, Any]]:
    """Return one row a (data set, metric, loss)."""
    rows = []
    for row in table.to_dict("records"):
        kind = columns.form(row["metric"])
        rows.append(
            {
                "label": labels[row["dataset"], row["recipe"]],
                "metric": columns.title(row["metric"]),
                "loss": row["loss_label"],
                "spec": row["loss"],
                "key": (row["dataset"], row["recipe"]),
                "family": row["family"],
                **_numbers(row, kind),
            }
        )
    return rows


def fitting(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the effects that a page below 10 MB can hold, and the sentence that says what was left out of a
    large study.
    """
    if len(table) <= EFFECTS_UP_TO:
        return table, ""
    kept = table[table["metric"].isin(BOARD[:2])].head(EFFECTS_UP_TO)
    return kept, f"{len(kept)} of {len(table)} rows are shown, Dice only; all stand in tables/effects.csv."


def by_foreground(effects: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """Return the effects from the rarest foreground to the commonest, metrics and losses in their own
    order.
    """
    place = {
        key: i for i, key in enumerate(dict.fromkeys(zip(board["dataset"], board["recipe"], strict=True)))
    }
    rank = [place.get(key, len(place)) for key in zip(effects["dataset"], effects["recipe"], strict=True)]
    return effects.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank")


def unreachable(effects: pd.DataFrame) -> str:
    """Return the sentence that says where so few blocks cannot reach .05, whatever they show."""
    few = effects[effects["smallest_p"] >= 0.05]
    if not len(few):
        return ""
    blocks, reach = few["n_blocks"].max(), few["smallest_p"].min()
    return (
        f"With {blocks:.0f} blocks or fewer a data set the smallest possible p is "
        f"{words.p_value(reach)}: here p cannot fall below .05, whatever "
        "the cells show; read the intervals, or train more seeds."
    )


def pooled(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a (metric, loss), with the interval for new data sets where there are several
    independent ones.
    """
    rows = []
    for row in table.to_dict("records"):
        kind = columns.form(row["metric"])
        new = "one independent data set" if row["n_units"] == 1 else "–"
        if row["n_units"] > 1:
            new = (
                f"{words.effect(row['new_estimate'], kind)} "
                f"{words.interval(row['new_low'], row['new_high'], kind)}"
            )
        rows.append(
            {
                "metric": columns.title(row["metric"]),
                "loss": row["loss_label"],
                "family": row["family"],
                "recipe": row["recipe"],
                **_numbers(row, kind),
                "datasets": "–" if words.missing(row["n_datasets"]) else f"{row['n_datasets']:.0f}",
                "units": "–" if words.missing(row["n_units"]) else f"{row['n_units']:.0f}",
                "new": new,
                "new_boot": words.interval(row["new_boot_low"], row["new_boot_high"], kind)
                if row["n_units"] > 1
                else "–",
            }
        )
    return rows


def _numbers(row: dict[str, Any], kind: str) -> dict[str, Any]:
    resolved = not words.missing(row["low"]) and (row["low"] > 0 or row["high"] < 0)
    return {
        "effect": words.effect(row["estimate"], kind),
        "effect_raw": row["estimate"],
        "interval": "–" if words.missing(row["estimate"]) else words.interval(row["low"], row["high"], kind),
        "boot": words.interval(row["boot_low"], row["boot_high"], kind)
        if not words.missing(row["boot_low"])
        else "–",
        "unit": words.unit(kind),
        "resolved": resolved,
        "p": words.p_value(row["p"]),
        "p_raw": row["p"],
        "p_holm": words.p_value(row["p_holm"]),
        "p_holm_raw": row["p_holm"],
        "ahead": words.number(row["superiority"], 2),
        "ahead_raw": row["superiority"],
        "blocks": "–" if words.missing(row["n_blocks"]) else f"{row['n_blocks']:.0f}",
        "mde": "–" if words.missing(row["mde"]) else words.effect(row["mde"], kind).lstrip("+"),
        "mde_raw": row["mde"],
        "note": row["note"] if isinstance(row["note"], str) else "",
    }


def filters(table: pd.DataFrame, labels: Labels) -> list[tuple[str, list[str]]]:
    """Return the choices of each filter above the effects, in the order of its columns."""
    datasets = list(
        dict.fromkeys(labels[d, r] for d, r in zip(table["dataset"], table["recipe"], strict=True))
    )
    metrics = [columns.title(m) for m in dict.fromkeys(table["metric"])]
    return [("data set", datasets), ("metric", metrics), ("loss", sorted(dict.fromkeys(table["loss_label"])))]


def collapses(table: pd.DataFrame, labels: Labels) -> list[dict[str, Any]]:
    """Return one group a part of the experiment, the leaderboards first, with one row a (data set, loss) that
    collapsed.
    """
    groups = []
    for part, own in table.groupby("part", sort=False):
        rows = [
            {
                "label": labels[row["dataset"], row["recipe"]],
                "loss": row["loss_label"],
                "spec": row["loss"],
                "key": (row["dataset"], row["recipe"]),
                "family": row["family"],
                "collapsed": f"{row['collapsed']} of {row['n']}",
                "share": row["share"],
                "kinds": ", ".join(f"{row[kind]} {word}" for kind, word in KINDS.items() if row[kind]),
                "seeds": row["seeds"],
            }
            for row in own.to_dict("records")
        ]
        groups.append(
            {"part": part, "rows": rows, "losses": list(dict.fromkeys(row["loss"] for row in rows))}
        )
    return groups


def cost(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a (data set, recipe)."""
    return [
        {
            "label": row["data_label"],
            "recipe": row["recipe"],
            "cells": row["cells"],
            "median": words.duration(row["seconds_median"]),
            "median_raw": row["seconds_median"],
            "total": words.duration(row["seconds_total"]),
            "total_raw": row["seconds_total"],
        }
        for row in table.to_dict("records")
    ]
