"""Which losses the evidence supports for data like the reader's: effects against cross-entropy, pooled over the data sets that are alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmark.analysis import stats
from benchmark.analysis.contrasts import by_loss
from benchmark.analysis.effects import select_loss
from benchmark.analysis.sensitivity import usual_recipes

ANY = "any"
UNKNOWN = "not known"
# Upper ends; what lies on an end belongs below it.
FOREGROUND = (("up to 0.5 %", 0.005), ("0.5 to 2.5 %", 0.025), ("2.5 to 10 %", 0.1), ("above 10 %", 1.0))
BOUNDARIES = ("as sharp as the image", "uncertain")
EMPTY = (("up to 10 %", 0.1), ("10 to 40 %", 0.4), ("above 40 %", 1.0))
ALPHA = 0.05


@dataclass(frozen=True)
class Goal:
    """What one optimises: a column, whether |.| of it is taken, which sign is good, the smallest effect of interest."""

    name: str
    column: str
    absolute: bool
    good: int
    margin: float

    @property
    def estimand(self) -> str:
        """Return the column, between bars where its size alone counts."""
        return f"|{self.column}|" if self.absolute else self.column


GOALS = (
    Goal("Dice at 0.5", "dice@0.5", False, 1, 0.005),
    Goal("Dice at a tuned threshold", "dice@val", False, 1, 0.005),
    Goal("calibrated volume", "log_size_ratio_soft", True, -1, 0.0488),
)
ROWS = (
    "group", "goal", "metric", "place", "loss", "loss_label", "family", "verdict", "estimate", "low", "high", "p", "p_holm", "n_blocks",
    "n_datasets", "datasets",
)  # fmt: skip
GROUPS = ("foreground", "boundaries", "empty", "group", "n_datasets", "datasets")
FACTS = ("dataset", "recipe", "data_label", "foreground_true", "empty_share", "foreground", "boundaries", "empty")


def advise(cells: pd.DataFrame, recipes: pd.DataFrame | None = None, against: str = "ce") -> dict[str, pd.DataFrame]:
    """Return the tables ``advice_data`` (what each data set is like), ``advice_groups`` (which answers to the three questions mean which
    group of data sets) and ``advice`` (one row a group, goal and loss: its effect against ``against``, each data set counted once).

    ``verdict``: better or worse (Holm-adjusted t test over the losses of the group below .05), equal (TOST within the margin), open.
    Each data set speaks through its usual recipe only.
    """
    facts = describe(cells, recipes)
    groups, members = _groups(facts)
    rows = []
    for goal in GOALS:
        if goal.column in cells:
            found = _differences(cells, facts, goal, against)
            for number, sets in enumerate(members):
                rows += _rows(number, sets, goal, found, facts)
    return {
        "advice_data": facts.reindex(columns=list(FACTS)),
        "advice_groups": pd.DataFrame(groups, columns=list(GROUPS)),
        "advice": pd.DataFrame(rows).reindex(columns=list(ROWS)),
    }


def describe(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row a data set at its usual recipe: foreground, share of images without it, and the class of each."""
    rows = []
    usual = usual_recipes(cells, recipes)
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        if usual[dataset] != recipe:
            continue
        first = part.iloc[0]
        share = float(part["foreground_true"].astype(float).mean()) if "foreground_true" in part else float("nan")
        empty = _empty(part, first)
        rows.append(
            {
                "dataset": dataset, "recipe": recipe, "data_label": first["data_label"], "foreground_true": share, "empty_share": empty,
                "foreground": _bin(share, FOREGROUND), "boundaries": _boundaries(first), "empty": _bin(empty, EMPTY),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=list(FACTS))
    return table.sort_values(["foreground_true", "dataset"], ignore_index=True)


def _empty(part: pd.DataFrame, first: pd.Series) -> float:
    """Return the share of training images without foreground where it is set, else of test images (of a class, where there are several)."""
    known = _number(first, "data.empty")
    if not np.isnan(known):
        return known
    if not {"n_empty", "n_present"} <= set(part):
        return float("nan")
    empty, present = part["n_empty"].astype(float).mean(), part["n_present"].astype(float).mean()
    return float(empty / (empty + present)) if empty + present > 0 else float("nan")


def _boundaries(first: pd.Series) -> str:
    """Return how certain the boundaries are, where that is known: of generated scenes."""
    shift, rim, chance = (_number(first, f"data.{name}") for name in ("boundary_shift", "rim", "rim_probability"))
    if np.isnan(shift):
        return UNKNOWN
    return BOUNDARIES[int(shift > 0 or (rim > 0 and 0 < chance < 1))]


def _number(row: Mapping, column: str) -> float:
    value = row.get(column)
    return float(value) if value is not None and not isinstance(value, str) else float("nan")


def _bin(value: float, bins: tuple[tuple[str, float], ...]) -> str:
    return next((name for name, end in bins if value <= end), UNKNOWN)


def _groups(facts: pd.DataFrame) -> tuple[list[dict], list[tuple[str, ...]]]:
    """Return what each triple of answers means, and the data sets of each group; triples without any data set are left out."""
    numbers: dict[tuple[str, ...], int] = {}
    rows = []
    choices = [(ANY, *(name for name, _ in FOREGROUND)), (ANY, *BOUNDARIES), (ANY, *(name for name, _ in EMPTY))]
    for answers in itertools.product(*choices):
        told = dict(zip(("foreground", "boundaries", "empty"), answers, strict=True))
        alike = facts
        for question, given in told.items():
            alike = alike if given == ANY else alike[alike[question] == given]
        if len(alike):
            sets = tuple(alike["dataset"])
            number = numbers.setdefault(sets, len(numbers))
            rows.append({**told, "group": number, "n_datasets": len(sets), "datasets": "; ".join(alike["data_label"])})
    return rows, list(numbers)


def _differences(cells: pd.DataFrame, facts: pd.DataFrame, goal: Goal, against: str) -> dict[str, dict]:
    """Return, by data set, the paired differences of every loss to ``against``: good ones as they are measured, not turned."""
    found = {}
    indexed = dict(list(cells.groupby(["dataset", "recipe"], observed=True)))
    for dataset, recipe in zip(facts["dataset"], facts["recipe"], strict=True):
        part = indexed[dataset, recipe]
        reference = select_loss(part, against)
        if len(reference):
            values = part[goal.column].astype(float)
            part = part.assign(**{goal.column: values.abs() if goal.absolute else values})
            reference = reference["loss"].iloc[0]
            names = part.drop_duplicates("loss").set_index("loss")[["loss_label", "family"]].to_dict("index")
            pairs = by_loss(part, reference, goal.column)
            found[dataset] = {loss: (d, names[loss]) for loss, (d, _) in pairs.items() if loss != reference and d is not None and len(d)}
    return found


def _rows(number: int, sets: tuple[str, ...], goal: Goal, found: dict[str, dict], facts: pd.DataFrame) -> list[dict]:
    labels = dict(zip(facts["dataset"], facts["data_label"], strict=True))
    rows = []
    for loss in sorted({loss for dataset in sets for loss in found.get(dataset, ())}):
        here = {dataset: found[dataset][loss] for dataset in sets if loss in found.get(dataset, ())}
        groups = [d for d, _ in here.values()]
        told = stats.estimate(groups, stats.mean_weights(groups))
        low, high = told.interval()
        rows.append(
            {
                "group": number, "goal": goal.name, "metric": goal.estimand, "loss": loss, **next(iter(here.values()))[1],
                "estimate": told.value, "low": low, "high": high, "p": stats.t_test(told), "p_equal": stats.tost(told, goal.margin),
                "n_blocks": sum(map(len, groups)), "n_datasets": len(here), "datasets": "; ".join(labels[dataset] for dataset in here),
            }
        )  # fmt: skip
    for row, adjusted in zip(rows, stats.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"], row["verdict"] = adjusted, _verdict(row, adjusted, goal)
    order = {"better": 0, "open": 1, "equal": 2, "worse": 3}
    rows.sort(key=lambda row: (order[row["verdict"]], -goal.good * row["estimate"], row["loss"]))
    return [{**row, "place": place} for place, row in enumerate(rows, 1)]


def _verdict(row: dict, adjusted: float, goal: Goal) -> str:
    if row["p_equal"] < ALPHA:
        return "equal"
    if adjusted < ALPHA:
        return "better" if goal.good * row["estimate"] > 0 else "worse"
    return "open"
