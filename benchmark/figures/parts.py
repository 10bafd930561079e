"""Which cells a figure shows: those of the parts of the experiment that were made for its question."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.analysis.selection import numbers

ORDER = ("recipe.batch", "recipe.learning_rate", "recipe.steps")  # of the variants of one data set


def of_parts(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells that belong to one of these parts; all cells where the experiment has none of them.

    An experiment without parts is a single cross of losses and data sets, so all of it may answer the question.
    """
    if "parts" not in cells:
        return cells
    wanted = cells["parts"].fillna("").astype(str).map(lambda text: not set(names).isdisjoint(text.split(","))).to_numpy(bool)
    return cells[wanted] if wanted.any() else cells


def first_of(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells of the first of these parts that the experiment has; all cells where it has none of them."""
    for name in names:
        found = of_parts(cells, name)
        if len(found) < len(cells):
            return found
    return cells


def rarest_first(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant (dataset, recipe, label, foreground, n): by foreground fraction, then by batch and rate."""
    table = cells.assign(foreground=numbers(cells, "foreground_true").groupby(cells["dataset"], observed=True).transform("mean"))
    for column in ORDER:
        table[column] = table.get(column, np.nan)
    first = {column: (column, "first") for column in ORDER}
    grouped = table.groupby(["dataset", "recipe"], observed=True, sort=True)
    facts = grouped.agg(label=("data_label", "first"), foreground=("foreground", "mean"), n=("key", "size"), **first).reset_index()
    return facts.sort_values(["foreground", "dataset", *ORDER, "recipe"], ignore_index=True).drop(columns=list(ORDER))


def spread_evenly(facts: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most so many rows, evenly spread from the first to the last."""
    picks = np.unique(np.linspace(0, len(facts) - 1, min(most, len(facts))).round().astype(int))
    return facts.iloc[picks].reset_index(drop=True)


def of_variant(table: pd.DataFrame, variant) -> pd.DataFrame:
    """Return the rows of one data set variant (anything with ``dataset`` and ``recipe``)."""
    return table[(table["dataset"] == variant.dataset) & (table["recipe"] == variant.recipe)]


def without_common(labels: list[str]) -> list[str]:
    """Return labels without the clauses that all of them share ("batch 1, validations 20" and "batch 4, validations 20": the second)."""
    clauses = [label.split(", ") for label in labels]
    common = set(clauses[0]).intersection(*clauses[1:]) if len(labels) > 1 else set()
    return [", ".join(c for c in own if c not in common) or label for own, label in zip(clauses, labels, strict=True)]
