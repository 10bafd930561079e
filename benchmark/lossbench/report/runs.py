"""How trainings went, in ready words: which collapsed, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossbench.base import words
from lossbench.base.words import Labels

if TYPE_CHECKING:
    import pandas as pd

# All of the prediction was that; a collapse is a result and stays in every mean.
KINDS = {"background": "all background", "foreground": "all foreground", "not_finite": "not finite"}


def collapses(table: pd.DataFrame, labels: Labels) -> list[dict[str, Any]]:
    """Return one group a part of the experiment, the leaderboards first, with one row a (data set, loss) that
    collapsed.
    """
    groups = []
    for part, own in table.groupby("part", sort=False):
        rows = [_collapsed(row, labels) for row in own.to_dict("records")]
        # For the line that is seen while the table is folded.
        losses = [f"“{name}”" for name in dict.fromkeys(row["loss"] for row in rows)]
        groups.append({"part": part, "rows": rows, "losses": losses})
    return groups


def _collapsed(row: dict[str, Any], labels: Labels) -> dict[str, Any]:
    variant = row["dataset"], row["recipe"]
    return {
        "label": labels[variant],
        "loss": row["loss_label"],
        "spec": row["loss"],
        "key": variant,
        "family": row["family"],
        "collapsed": f"{row['collapsed']} of {row['n']}",
        "share": row["share"],
        "kinds": ", ".join(f"{row[kind]} {word}" for kind, word in KINDS.items() if row[kind]),
        "seeds": row["seeds"],
    }


def learnt(table: pd.DataFrame, lengths: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a (data set, recipe): how near its best loss came to what is possible, and how many of
    its losses a longer training still changed.
    """
    rows = []
    for number, row in enumerate(words.plainest_first(table.to_dict("records")), 1):
        here = (lengths["dataset"] == row["dataset"]) & (lengths["recipe"] == row["recipe"])
        moving = list(lengths.loc[here & (lengths["converged"] == 0), "loss_label"])
        unsure = lengths.loc[here & lengths["converged"].isna(), "loss_label"]
        moving += [f"not known: {', '.join(unsure)}"] if len(unsure) else []
        known = not words.missing(row["learnt"])
        unknown = f"{row['data_label']}: whether it was learnt is not known"
        rows.append(
            {
                "id": f"learnt-{number}",
                "says": row["says"] if known else f"{unknown}, since there is nothing to compare with",
                "label": row["data_label"],
                "loss": row["loss_label"],
                "best": words.value(row["best"], "dice"),
                "reference": words.value(row["reference"], "dice") if known else "–",
                "reference_is": row["reference_is"]
                if known
                else "no published figure to compare with, and no reference network",
                "share": words.percent(row["share"]) if known else "–",
                "learnt": ("yes" if row["learnt"] else "not yet") if known else "unknown",
                "moving": "; ".join(moving) if here.any() else "not trained longer",
            }
        )
    return rows


def cost(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a (data set, recipe)."""
    # Wall time here, CPU time at the head of the page: what a reader will wait, and what it took.
    return [
        {
            "label": row["data_label"],
            "recipe": row["recipe"],
            "cells": row["cells"],
            "copied": row["copied"] or "",
            "median": "copied" if row["copied"] == row["cells"] else words.duration(row["seconds_median"]),
            "median_raw": row["seconds_median"],
            "total": "copied" if row["copied"] == row["cells"] else words.duration(row["seconds_total"]),
            "total_raw": row["seconds_total"],
        }
        for row in words.plainest_first(table.to_dict("records"))
    ]
