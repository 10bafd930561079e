"""Paired effects in ready words: data set by data set, over all of them, and within parts of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossbench.analysis.answers import BOARD
from lossbench.base import columns, words
from lossbench.base.words import Labels

if TYPE_CHECKING:
    import pandas as pd

EFFECTS_UP_TO = 8_000  # rows; one takes some 420 bytes


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
    # Dice, at both thresholds, is what the page is sorted and read by.
    kept = table[table["metric"].isin(BOARD[:2])].head(EFFECTS_UP_TO)
    return kept, f"{len(kept)} of {len(table)} rows are shown, Dice only; all stand in tables/effects.csv."


def unreachable(effects: pd.DataFrame) -> str:
    """Return the sentence that says where so few seeds cannot reach .05, whatever they show."""
    # So that an absent star is not read as an absent effect.
    few = effects[effects["smallest_p"] >= 0.05]
    if not len(few):
        return ""
    seeds, reach = few["n_seeds"].max(), few["smallest_p"].min()
    return (
        f"With {seeds:.0f} seeds or fewer a data set the smallest possible p is "
        f"{words.p_value(reach)}: here p cannot fall below .05, whatever "
        "the cells show; read the intervals, or train more seeds."
    )


def recipe_names(cells: pd.DataFrame) -> dict[str, str]:
    """Return what each recipe changes, in the words of the labels of data set variants: "head default".

    Its eight digits, which nobody can read, follow where two recipes would share a name."""
    facts = cells.drop_duplicates(["dataset", "recipe"])
    changes: dict[str, list[str]] = {}
    for _, own in facts.groupby("dataset", sort=False):
        clauses = [label.split(", ") for label in own["data_label"]]
        # What all labels of a data set share is its name; the rest tells its recipes apart.
        shared = set.intersection(*map(set, clauses))
        for recipe, label in zip(own["recipe"], clauses, strict=True):
            rest = ", ".join(clause for clause in label if clause not in shared)
            changes.setdefault(recipe, []).extend([rest] if rest else [])
    names = {recipe: max(own, key=own.count) if own else "usual" for recipe, own in changes.items()}
    all_names = list(names.values())
    return {
        recipe: f"{name} · {recipe}" if all_names.count(name) > 1 else name for recipe, name in names.items()
    }


def pooled(table: pd.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row a (metric, loss), with the interval for new data sets where there are several
    independent ones; ``names`` of recipes.
    """
    rows = []
    for row in table.to_dict("records"):
        kind = columns.form(row["metric"])
        # A study of one data set, or of one ladder, says nothing about others.
        new = "one independent data set" if row["n_sets"] == 1 else "–"
        if row["n_sets"] > 1:
            new = words.interval(row["predict_low"], row["predict_high"], kind)
        rows.append(
            {
                "metric": columns.title(row["metric"]),
                "loss": row["loss_label"],
                "family": row["family"],
                "recipe": names.get(row["recipe"], row["recipe"]),
                **_numbers(row, kind),
                "datasets": _count(row["n_variants"]),
                "units": _count(row["n_sets"]),
                "new": new,
            }
        )
    return rows


def _numbers(row: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "effect": words.effect(row["estimate"], kind),
        "effect_raw": row["estimate"],
        "interval": "–" if words.missing(row["estimate"]) else words.interval(row["low"], row["high"], kind),
        "images": "–" if words.missing(row.get("images_low")) else _other_images(row, kind),
        "unit": words.unit(kind),
        "resolved": words.resolved(row["low"], row["high"]),
        "p": words.p_value(row["p"]),
        "p_raw": row["p"],
        "p_holm": words.p_value(row["p_holm"]),
        "p_holm_raw": row["p_holm"],
        "seeds": _count(row["n_seeds"]),
        "mde": "–" if words.missing(row["mde"]) else words.effect(row["mde"], kind).lstrip("+"),
        "mde_raw": row["mde"],
        "note": row["note"] if isinstance(row["note"], str) else "",
    }


def _other_images(row: dict[str, Any], kind: str) -> str:
    return f"{words.interval(row['images_low'], row['images_high'], kind)}, {row['n_groups']:.0f} groups"


def _count(value: float) -> str:
    return "–" if words.missing(value) else f"{value:.0f}"


def filters(table: pd.DataFrame, labels: Labels) -> list[tuple[str, list[str]]]:
    """Return the choices of each filter above the effects, in the order of its columns."""
    variants = zip(table["dataset"], table["recipe"], strict=True)
    datasets = list(dict.fromkeys(labels[variant] for variant in variants))
    metrics = [columns.title(m) for m in dict.fromkeys(table["metric"])]
    # Data sets and metrics keep the order of the rows; a loss is looked up by its name.
    return [("data set", datasets), ("metric", metrics), ("loss", sorted(dict.fromkeys(table["loss_label"])))]


# Parts that answer a question of their own: what each asks, and the effects within it.


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
