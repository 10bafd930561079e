"""What a data set is like: how much foreground it has, how certain its boundaries are, how many of its images
are empty; and which data sets are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.sensitivity import usual_recipes

ANY = "any"

UNKNOWN = "not known"

# Upper ends; what lies on an end belongs below it.
FOREGROUND = (
    ("0.5 % or less", 0.005),
    ("0.5 to 2.5 %", 0.025),
    ("2.5 to 10 %", 0.1),
    ("more than 10 %", 1.0),
)

BOUNDARIES = ("as sharp as the image", "uncertain")

EMPTY = (("10 % or less", 0.1), ("10 to 40 %", 0.4), ("more than 40 %", 1.0))

# How many images are empty decides which losses are fit, so this likeness is given up last.
GIVE_UP = ("boundaries", "foreground", "empty")

FACTS = [
    "dataset",
    "recipe",
    "data_label",
    "foreground_true",
    "empty_share",
    "foreground",
    "boundaries",
    "empty",
]


def describe(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row a data set at its usual recipe: foreground, share of images without it, and the class of
    each.
    """
    rows = []
    usual = usual_recipes(cells, recipes)
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        if usual[dataset] != recipe:
            continue
        first = part.iloc[0]
        share = float(part["foreground_true"].astype(float).mean()) if "foreground_true" in part else np.nan
        empty = _empty(part, first)
        row = {"dataset": dataset, "recipe": recipe, "data_label": first["data_label"]}
        row |= {"foreground_true": share, "empty_share": empty}
        row |= {"foreground": class_of(share, FOREGROUND), "empty": class_of(empty, EMPTY)}
        rows.append({**row, "boundaries": _boundaries(first)})
    table = pd.DataFrame(rows).reindex(columns=FACTS)
    return table.sort_values(["foreground_true", "dataset"], ignore_index=True)


def _empty(part: pd.DataFrame, first: pd.Series) -> float:
    """Return the share of training images without foreground where it is set, else of test images (of a
    class, where there are several).
    """
    # Set for scenes: what was asked for is exact, what a test split shows is a draw from it.
    known = _number(first, "data.empty")
    if not np.isnan(known):
        return known
    if not {"n_empty", "n_present"} <= set(part):
        return float("nan")
    empty, present = part["n_empty"].astype(float).mean(), part["n_present"].astype(float).mean()
    return float(empty / (empty + present)) if empty + present > 0 else float("nan")


def _boundaries(first: pd.Series) -> str:
    """Return how certain the boundaries are, where that is known: of generated scenes."""
    shift, rim, chance = (
        _number(first, f"data.{name}") for name in ("boundary_shift", "rim", "rim_probability")
    )
    if np.isnan(shift):
        return UNKNOWN
    # A rim that is labelled always, or never, is certain however wide it is.
    return BOUNDARIES[int(shift > 0 or (rim > 0 and 0 < chance < 1))]


def _number(row: Mapping, column: str) -> float:
    value = row.get(column)
    return float(value) if value is not None and not isinstance(value, str) else float("nan")


def class_of(value: float, bins: tuple[tuple[str, float], ...]) -> str:
    return next((name for name, end in bins if value <= end), UNKNOWN)


def usual_cells(cells: pd.DataFrame, facts: pd.DataFrame) -> pd.Series:
    pairs_of = set(zip(facts["dataset"], facts["recipe"], strict=True))
    own = [pair in pairs_of for pair in zip(cells["dataset"], cells["recipe"], strict=True)]
    return pd.Series(own, index=cells.index, dtype=bool)


def groups(facts: pd.DataFrame) -> tuple[list[dict], list[tuple[str, ...]]]:
    """Return what each triple of answers means, and the data sets of each group.

    ``given_up`` names the answers in which the data sets of the group differ from what was asked: where none
    is alike in all three, the nearest speak."""
    numbers: dict[tuple, int] = {}
    rows = []
    choices = {
        "foreground": (ANY, *(name for name, _ in FOREGROUND)),
        "boundaries": (ANY, *BOUNDARIES),
        "empty": (ANY, *(name for name, _ in EMPTY)),
    }
    for given in itertools.product(*choices.values()) if len(facts) else ():
        answers = dict(zip(choices, given, strict=True))
        alike, given_up = _nearest(facts, {name: value for name, value in answers.items() if value != ANY})
        sets = tuple(alike["dataset"])
        # Many triples mean the same data sets, whose effects are stored once; which loss is fit may differ.
        number = numbers.setdefault((sets, some_empty(answers)), len(numbers))
        labels = "; ".join(alike["data_label"])
        rows.append({**answers, "group": number, "given_up": given_up})
        rows[-1] |= {"n_datasets": len(sets), "datasets": labels}
    return rows, [sets for sets, _ in numbers]


def _nearest(facts: pd.DataFrame, answers: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """Return the data sets that are alike in all of the answers, else in as many as can be, and in what they
    are not.
    """
    asked = [name for name in GIVE_UP if name in answers]
    # By the weight of what is given up: both of the first before the last.
    for given_up in sorted(
        (names for k in range(len(asked) + 1) for names in itertools.combinations(asked, k)),
        key=lambda names: sum(2 ** GIVE_UP.index(name) for name in names),
    ):
        alike = facts
        for name in set(asked) - set(given_up):
            alike = alike[alike[name] == answers[name]]
        if len(alike):
            break
    return alike, " and ".join(given_up)


def some_empty(answers: Mapping[str, str]) -> bool:
    """Return whether empty images are said to be more than few: then a loss must be known to stay quiet."""
    return answers["empty"] not in (ANY, EMPTY[0][0])


def nearest_to(others: pd.DataFrame, own: dict) -> pd.DataFrame:
    # How many images are empty decides which losses are fit, so this likeness is given up last.
    quiet = others[others["empty"] == own["empty"]]
    same = quiet[quiet["foreground"] == own["foreground"]]
    return next((found for found in (same, quiet) if len(found)), others)
