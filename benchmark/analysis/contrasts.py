"""Tables of paired effects: every loss against the reference, data set by data set, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pandas as pd

from benchmark.analysis import stats
from benchmark.analysis.effects import Effect, NotPaired, differences, effect, select_loss


def effects_table(cells: pd.DataFrame, against: str = "ce", columns: Iterable[str] = ("dice@0.5", "dice@val"), resamples: int = 2000) -> pd.DataFrame:
    """Return one row a (data set, recipe, metric, loss): its paired effect against ``against``.

    Holm adjusts over the losses of a data set, recipe and metric. Where a pair is refused the numbers are nan and
    ``note`` says why.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        rows += _rivals(part, against, columns, resamples, {"dataset": dataset, "recipe": recipe})
    return _frame(rows, ["dataset", "recipe"])


def pooled_effects(
    cells: pd.DataFrame, against: str = "ce", columns: Iterable[str] = ("dice@0.5", "dice@val"), resamples: int = 4000
) -> pd.DataFrame:
    """Return one row a (metric, loss): its paired effect over all data sets that hold it, on these and on new data
    sets.

    Where a data set was run with several recipes they are kept apart, since a mean over them would answer no one's
    question.
    """
    apart = len(cells) and cells.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    rows = []
    for recipe, part in cells.groupby("recipe", sort=True, observed=True) if apart else [("", cells)]:
        rows += _rivals(part, against, columns, resamples, {"recipe": recipe})
    return _frame(rows, ["recipe"])


def _rivals(part: pd.DataFrame, against: str, columns: Iterable[str], resamples: int, facts: dict) -> list[dict]:
    if not len(part) or not len(select_loss(part, against)):
        return []
    reference = select_loss(part, against)["loss"].iloc[0]
    rivals = part.loc[part["loss"] != reference, ["loss", "loss_label", "family"]].drop_duplicates("loss")
    rows = []
    for column in (c for c in columns if c in part):
        found = [
            {**facts, "metric": column, **rival, "against": reference, **_effect(part, rival["loss"], reference, column, resamples)}
            for rival in rivals.sort_values("loss_label").to_dict("records")
        ]
        adjusted = stats.holm([row.get("p", float("nan")) for row in found])
        rows += [row | {"p_holm": p} for row, p in zip(found, adjusted, strict=True)]
    return rows


def _effect(part: pd.DataFrame, loss: str, reference: str, column: str, resamples: int) -> dict:
    try:
        pairs, lost = differences(part, loss, reference, column)
    except NotPaired as error:
        return {"note": str(error)}
    note = f"{lost} block{'s' * (lost != 1)} incomplete" if lost else ""
    return {**(asdict(effect(pairs, resamples=resamples)) if len(pairs) else {}), "note": note}


def _frame(rows: list[dict], keys: list[str]) -> pd.DataFrame:
    names = ["metric", "loss", "loss_label", "family", "against", *Effect.__annotations__, "p_holm", "note"]
    return pd.DataFrame(rows).reindex(columns=[*keys, *names])
