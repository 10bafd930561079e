"""The fixed parts of an experiment: what each asks, and the effects within it, losses x data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossbench.base import columns
from lossbench.report import words
from lossbench.report.words import Labels

if TYPE_CHECKING:
    import pandas as pd


def sections(
    parts: pd.DataFrame, effects: pd.DataFrame, labels: Labels, ids: dict[str, dict]
) -> list[dict[str, Any]]:
    """Return the fixed parts that hold effects: per metric a table losses x data sets of paired effects
    against the part's reference.
    """
    entries = []
    for part in parts.to_dict("records"):
        own = effects[effects["part"] == part["part"]]
        if not len(own):  # open parts are compared in the leaderboards
            continue
        # A data set that two recipes share is told apart by its label, in the order of the labels' first row.
        variants = list(dict.fromkeys(zip(own["dataset"], own["recipe"], strict=True)))
        # As in the list of single cells, to which these links lead.
        variants.sort(key=lambda variant: ids["variants"].get(variant, 0))
        tables = [_table(metric, own, variants) for metric in dict.fromkeys(own["metric"])]
        entries.append(
            {
                "name": part["part"],
                "about": part["title"],
                "against": own["against"].iloc[0],
                "columns": [labels[variant] for variant in variants],
                "metrics": tables,
            }
        )
    return entries


def _table(metric: str, effects: pd.DataFrame, variants: list[tuple[str, str]]) -> dict[str, Any]:
    kind = columns.form(metric)
    losses = effects.drop_duplicates("loss")[["loss", "loss_label", "family"]].to_dict("records")
    own = effects[effects["metric"] == metric].to_dict("records")
    # The table is dense, the effects are a list; a gap stays a dash.
    at = {(row["loss"], row["dataset"], row["recipe"]): row for row in own}
    rows = [
        {**loss, "cells": [_cell(at.get((loss["loss"], *variant)), kind) for variant in variants]}
        for loss in losses
    ]
    return {"name": columns.title(metric), "unit": words.unit(kind) or "factor", "rows": rows}


def _cell(row: dict[str, Any] | None, kind: str) -> dict[str, Any] | None:
    # Not every loss of a part is trained on each of its data sets at once: a sweep may have been cut short.
    if row is None or words.missing(row["estimate"]):
        return None
    return {
        "effect": words.effect(row["estimate"], kind),
        "raw": row["estimate"],
        "interval": "" if words.missing(row["low"]) else f"{words.interval(row['low'], row['high'], kind)}, ",
        "resolved": words.resolved(row["low"], row["high"]),
        "seeds": f"{row['n_seeds']:.0f}",
        "dataset": row["dataset"],
        "recipe": row["recipe"],
    }
