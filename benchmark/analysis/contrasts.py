"""Tables of paired effects: every loss against the reference, data set by data set, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd

from benchmark.analysis import stats
from benchmark.analysis.effects import (
    UNPROVEN,
    Effect,
    NotPaired,
    certificates,
    differences,
    effect,
    mean_effect,
    one_per_block,
)
from benchmark.analysis.selection import select_loss


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
    one_group = part["dataset"].nunique() == 1 and part["recipe"].nunique() == 1
    rows = []
    for column in (c for c in columns if c in part):
        numbers = _quickly(part, reference, column, resamples) if one_group else None
        found = []
        for rival in rivals.sort_values("loss_label").to_dict("records"):
            told = numbers[rival["loss"]] if one_group else _effect(part, rival["loss"], reference, column, resamples)
            found.append({**facts, "metric": column, **rival, "against": reference, **told})
        adjusted = stats.holm([row.get("p", float("nan")) for row in found])
        rows += [row | {"p_holm": p} for row, p in zip(found, adjusted, strict=True)]
    return rows


def _effect(part: pd.DataFrame, loss: str, reference: str, column: str, resamples: int) -> dict:
    try:
        pairs, lost = differences(part, loss, reference, column)
    except NotPaired as error:
        return {"note": str(error)}
    return {**(asdict(effect(pairs, resamples=resamples)) if len(pairs) else {}), "note": _note(lost)}


def by_loss(part: pd.DataFrame, reference: str, column: str) -> dict[str, tuple[np.ndarray | None, int]]:
    """Return for every loss of one data set and recipe its paired differences to ``reference`` and how many blocks lack
    one of the two.

    The differences are those of ``effects.differences``, from one block x loss array instead of many joins; None where
    pairing is refused.
    """
    one_per_block(part)
    blocks, losses = pd.factorize(part["block"])[0], pd.Index(part["loss"].unique())
    shape = (blocks.max() + 1, len(losses))
    at = blocks, losses.get_indexer(part["loss"])
    values, proofs = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    values[at] = part[column].astype(float)
    proofs[at] = certificates(part)
    own = losses.get_loc(reference)
    found = {}
    for place, loss in enumerate(losses):
        both = (proofs[:, own] != "") & (proofs[:, place] != "")
        if (proofs[both, own] != proofs[both, place]).any() or np.any(proofs[both, place] == UNPROVEN):
            found[loss] = None, 0
            continue
        d = values[both, place] - values[both, own]
        d = d[~np.isnan(d)]
        found[loss] = d, int(np.sum((proofs[:, own] != "") | (proofs[:, place] != ""))) - len(d)
    return found


def _quickly(part: pd.DataFrame, reference: str, column: str, resamples: int) -> dict[str, dict]:
    told = {}
    for loss, (d, lost) in by_loss(part, reference, column).items():
        if d is None:
            told[loss] = _effect(part, loss, reference, column, resamples)  # which names the block
        else:
            told[loss] = {**(asdict(mean_effect([d], [[d]], resamples=resamples)) if len(d) else {}), "note": _note(lost)}
    return told


def _note(lost: int) -> str:
    return f"{lost} block{'s' * (lost != 1)} incomplete" if lost else ""


def _frame(rows: list[dict], keys: list[str]) -> pd.DataFrame:
    names = ["metric", "loss", "loss_label", "family", "against", *Effect.__annotations__, "p_holm", "note"]
    return pd.DataFrame(rows).reindex(columns=[*keys, *names])
