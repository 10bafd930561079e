"""What a debate is made of: one contrast of losses under every combination of the choices that a study makes.

Sorted, the contrasts under all combinations are the specification curve (Simonsohn, Simmons and Nelson 2020).
Where choices are fully crossed, the variance among the contrasts is divided among them; a choice that is not
crossed with all others is shown by what it shifts, all else equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.analysis import pairs
from lossbench.analysis.effects import over_sets
from lossbench.analysis.flips import flips
from lossbench.analysis.seeds import units
from lossbench.analysis.selection import select_loss
from lossbench.analysis.sensitivity import differing, usual_recipes

# Each contrast with the losses that stand for it, by how they sum over images and classes.
CONTRASTS = {
    "Dice - CE": {"dice": "per image", "batch_dice(classes='all')": "batch, all classes"},
    "Dice + CE - CE": {"dice_ce": "per image"},
}

SCORES, THRESHOLDS = ("dice", "dice_all", "dice_pooled"), ("0.5", "val")

CROSSED = ("head", "length", "score", "threshold", "reduction", "data")

FACTS = ("network", "sampler", "optimizer", "batch", "augment", "learning_rate")

SPECIFICATIONS = [
    "contrast",
    *CROSSED,
    "unit",
    "steps",
    *FACTS,
    "aside",
    "estimate",
    "low",
    "high",
    "n_seeds",
]

SHARES = ["contrast", "choice", "share", "low", "high", "n_sets"]

SHIFTS = ["contrast", "reduction", "aside", "estimate", "low", "high", "n_sets", "n_seeds"]

DRAWS = 500


@dataclass(frozen=True)
class _Specification:
    """One combination of choices, and the contrast of each seed under it."""

    choices: dict[str, object]
    by_seed: pd.Series


def specify(
    cells: pd.DataFrame, recipes: pd.DataFrame | None, against: str = "ce"
) -> dict[str, pd.DataFrame]:
    """Return the tables ``specifications`` (one row a combination of choices), ``shares`` (how much of the
    variance among those that are fully crossed each choice and pair of choices explains) and ``shifts`` (what
    every other choice changes against the usual recipe, all else equal).
    """
    found = list(_specifications(cells, recipes, against))
    rows = []
    for own in found:
        test = flips(own.by_seed)
        low, high = test.interval()
        rows.append({**own.choices, "estimate": test.estimate, "low": low, "high": high, "n_seeds": test.n})
    table = pd.DataFrame(rows).reindex(columns=SPECIFICATIONS)
    table = table.sort_values(["contrast", "estimate"], ignore_index=True, kind="stable")
    return {"specifications": table, "shares": shares(table), "shifts": _shifts(found)}


def _specifications(
    cells: pd.DataFrame, recipes: pd.DataFrame | None, against: str
) -> Iterator[_Specification]:
    columns = [f"{score}@{at}" for score in SCORES for at in THRESHOLDS]
    columns = [column for column in columns if column in cells]
    reference = select_loss(cells, against) if len(cells) else cells
    if recipes is None or not len(recipes) or not len(reference) or not columns:
        return
    named = {loss: select_loss(cells, loss) for kinds in CONTRASTS.values() for loss in kinds}
    arms = {against: reference, **{loss: own for loss, own in named.items() if len(own)}}
    held = pairs.blocks(arms, columns)
    facts = _facts(cells, recipes, held.variants)
    for contrast, kinds in CONTRASTS.items():
        for loss, reduction in kinds.items():
            # A pair that did not start alike is named by the report; here it has no place.
            if loss not in arms or held.refusal(loss, against):
                continue
            for (at, column), (place, fact) in itertools.product(enumerate(columns), enumerate(facts)):
                score, _, threshold = column.partition("@")
                d = pd.Series(held.difference(loss, against, at)[place], index=held.seeds).dropna()
                own = {"contrast": contrast, "reduction": reduction, "score": score, "threshold": threshold}
                if len(d):
                    yield _Specification({**own, **fact}, d)


def _facts(cells: pd.DataFrame, recipes: pd.DataFrame, variants: pd.DataFrame) -> list[dict[str, object]]:
    """Return the choices that each data set variant stands for.

    ``aside`` names what its recipe changes of the usual one of its data set, but for head and length."""
    known = recipes.set_index("recipe").to_dict("index")
    usual = usual_recipes(cells, recipes)
    # The label of a variant carries its recipe; the shortest is that of the data set.
    labels = cells.groupby("dataset", observed=True)["data_label"].agg(lambda own: min(own.unique(), key=len))
    aside = {}
    for row in variants.itertuples():
        keys = differing(known[usual[row.dataset]], known[row.recipe])
        changed = [f"{key} {known[row.recipe][key]}" for key in keys if key not in ("head", "steps")]
        aside[row.dataset, row.recipe] = ", ".join(changed)
    ends: dict[str, list[float]] = {}
    for (dataset, recipe), changed in aside.items():
        if not changed:
            ends.setdefault(dataset, []).append(known[recipe]["steps"])
    facts = []
    for row, unit in zip(variants.itertuples(), units(variants), strict=True):
        own = known[row.recipe]
        steps = ends.get(row.dataset, [])
        at = {max(steps, default=0): "longest", min(steps, default=0): "shortest"}
        # Data sets differ in their lengths, so a cross of them knows only which end of its own ladder one is.
        length = at.get(own["steps"], "between") if len(set(steps)) > 1 else "the only"
        fact = {
            "data": labels[row.dataset],
            "unit": unit,
            "head": own.get("head") or "default",
            "length": length,
        }
        fact |= {name: own.get(name) for name in FACTS}
        facts.append({**fact, "steps": own["steps"], "aside": aside[row.dataset, row.recipe]})
    return facts


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the variance that each choice, and each pair of choices, explains: sums of squares
    over the data sets that hold every combination of the others.

    Intervals: 95 % percentiles when independent data sets are drawn anew; none with fewer than five."""
    rows = []
    usual = table[table["aside"] == ""]
    for contrast, own in usual.groupby("contrast", sort=True):
        ends = own["length"].isin(["shortest", "longest"])
        # Several lengths may lie between the ends; under one name their mean would be no level of a cross.
        own = own[ends] if ends.any() else own
        # A choice that was never varied explains nothing.
        choices = [name for name in CROSSED[:-1] if own[name].nunique() > 1]
        wide = own.pivot_table(index="data", columns=choices, values="estimate") if choices else own.iloc[:0]
        full = int(np.prod([own[name].nunique() for name in choices]))
        # Sums of squares add up only on a full cross, so sets that miss a combination are left out.
        wide = wide.dropna() if wide.shape[1] == full else wide.iloc[:0]
        if not len(wide):
            continue
        levels = [len(wide), *(own[name].nunique() for name in choices)]
        # Reshape takes the columns in the order of the product of the levels; unsorted it would mix up
        # choices.
        y = wide.sort_index(axis=1).to_numpy().reshape(levels)
        names = ["data", *choices]
        explained = _explained(y, names)
        unit = own.drop_duplicates("data").set_index("data")["unit"].reindex(wide.index).to_numpy()
        low, high = _redrawn(y, names, unit)
        for choice, share in explained.items():
            own_ends = (low.get(choice, np.nan), high.get(choice, np.nan))
            rows.append([contrast, choice, share, *own_ends, len(wide)])
    return pd.DataFrame(rows, columns=SHARES)


def _redrawn(y: np.ndarray, names: list[str], unit: np.ndarray) -> tuple[Mapping, Mapping]:
    """Return both ends of the interval of each share; levels of one generator are drawn together."""
    members = [np.flatnonzero(unit == name) for name in dict.fromkeys(unit)]
    # Of four sets a bootstrap draws 35 different samples, whose percentiles say next to nothing.
    if len(members) < 5:
        return {}, {}
    chosen = np.random.default_rng(0).integers(0, len(members), (DRAWS, len(members)))
    drawn = [_explained(y[np.concatenate([members[k] for k in own])], names) for own in chosen]
    low, high = (pd.DataFrame(drawn).quantile(q) for q in (0.025, 0.975))
    return low, high


def _explained(y: np.ndarray, names: list[str]) -> dict[str, float]:
    """Return the share of the sum of squares of each axis, of each pair of axes beyond both, and of the rest.

    y: one axis a choice, fully crossed."""
    y = y - y.mean()
    total = float((y**2).sum())
    means = {}
    for k in range(len(names)):
        means[k] = y.mean(axis=tuple(a for a in range(y.ndim) if a != k), keepdims=True)
    found = {}
    for k, name in enumerate(names):
        found[name] = float((means[k] ** 2).mean() * y.size)
    for j, k in itertools.combinations(range(len(names)), 2):
        both = y.mean(axis=tuple(a for a in range(y.ndim) if a not in (j, k)), keepdims=True)
        found[f"{names[j]} x {names[k]}"] = float(((both - means[j] - means[k]) ** 2).mean() * y.size)
    found = {name: value / total if total else 0.0 for name, value in found.items()}
    # Rounding can take the sum just above 1.
    return {**found, "rest": max(0.0, 1 - sum(found.values()))}


def _shifts(found: list[_Specification]) -> pd.DataFrame:
    """Return what a choice that is not crossed with all others changes, by Dice at 0.5."""
    keys = ("contrast", "reduction", "data", "head", "steps")
    base, others, unit = {}, {}, {}
    for own in found:
        unit[own.choices["data"]] = own.choices["unit"]
        if (own.choices["score"], own.choices["threshold"]) == ("dice", "0.5"):
            place = base if own.choices["aside"] == "" else others.setdefault(own.choices["aside"], {})
            place[tuple(own.choices[key] for key in keys)] = own.by_seed
    rows = []
    for aside, here in sorted(others.items()):
        for contrast, reduction in sorted({key[:2] for key in here}):
            shifts: dict[str, list[pd.Series]] = {}
            for key, d in here.items():
                # All else equal: the same data set, head and length, and seed by seed.
                both = (d - base[key]).dropna() if key[:2] == (contrast, reduction) and key in base else []
                if len(both):
                    shifts.setdefault(key[2], []).append(both)
            row = _shift(shifts, unit)
            if row:
                rows.append({"contrast": contrast, "reduction": reduction, "aside": aside, **row})
    return pd.DataFrame(rows).reindex(columns=SHIFTS)


def _shift(by_set: Mapping[str, list[pd.Series]], unit: Mapping[str, str]) -> dict[str, float]:
    """Return the mean shift over data sets; within each it is the mean over heads and lengths, by seed."""
    numbers = {name: pd.concat(own, axis=1).dropna().mean(axis=1) for name, own in by_set.items()}
    numbers = {name: own for name, own in numbers.items() if len(own)}
    if not numbers:
        return {}
    d = pd.concat(numbers, axis=1).to_numpy().T
    evidence, sets = over_sets(d, np.array([unit[name] for name in numbers]))
    if not sets:
        return {}
    low, high = evidence.interval()
    seeds = min(len(own) for own in sets)
    return {"estimate": evidence.estimate, "low": low, "high": high, "n_sets": len(sets), "n_seeds": seeds}
