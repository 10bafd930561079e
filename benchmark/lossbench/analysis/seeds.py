"""One number a seed: what a test estimates is computed within each seed, which leaves n independent numbers.

Levels of one ladder, and variants of one study, share their start and more; trainings of different seeds
share nothing. So the mean over variants, the slope along a ladder, the difference of two differences are
taken within a seed, and every statement rests on the spread between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.base.errors import UserError, nearest

FOREGROUND = "data.foreground"

NOISE = "data.noise"

FAMILY = "recipe.family"


@dataclass(frozen=True)
class Seeds:
    """The numbers of the seeds that hold every variant, shape (n,), and how many seeds do not."""

    numbers: np.ndarray
    lost: int


def within(differences: np.ndarray, weights: np.ndarray) -> Seeds:
    """Return the weighted sum over variants within each seed; differences: (variants, seeds)."""
    # A variant without weight, such as one outside every ladder, costs no seed.
    whole = ~np.isnan(differences[weights != 0]).any(axis=0)
    # A seed of which nothing is there was meant for other data, and is not lost here.
    lost = int((~whole & ~np.isnan(differences).all(axis=0)).sum())
    # nan times a weight of zero would be nan.
    return Seeds(weights @ np.where(np.isnan(differences), 0.0, differences)[:, whole], lost)


def mean_weights(variants: pd.DataFrame) -> np.ndarray:
    """Return the weights of a mean over variants."""
    return np.full(len(variants), 1 / len(variants))


def slope_weights(variants: pd.DataFrame, dose: str | None = None) -> np.ndarray:
    """Return the weights of a least-squares slope on a dose, mean over ladders.

    A ladder is all variants that differ in nothing but the dose; ``dose`` is a column, log10 of the
    foreground fraction where it is None. Variants outside any ladder have no weight."""
    x = doses(variants, dose)
    ladder = ladders(variants, dose)
    weights = np.zeros(len(variants))
    found = 0
    for name in ladder[np.isfinite(x)].unique():
        own = ((ladder == name) & np.isfinite(x)).to_numpy()
        centred = x[own] - x[own].mean()
        spread = float(centred @ centred)
        if spread > 0:
            # The slope sum (x - mean) y / sum (x - mean)^2 is a weighted sum of y; these are its weights.
            weights[own] = centred / spread
            found += 1
    if not found:
        raise UserError("a slope needs a data set at two or more foreground fractions or doses")
    # A ladder counts once, however many levels it has.
    return weights / found


def doses(variants: pd.DataFrame, dose: str | None = None) -> np.ndarray:
    """Return the dose of each variant, nan where it has none."""
    if dose is None:
        foreground = numbers(variants, FOREGROUND)
        # Scenes without any foreground have no place on a logarithmic axis.
        return np.log10(foreground.where(foreground > 0)).to_numpy()
    if dose not in variants:
        known = [column for column in variants if "." in column]
        raise UserError(f"the table 'cells' has no column '{dose}' to take a slope on{nearest(dose, known)}")
    return numbers(variants, dose).to_numpy()


def ladders(variants: pd.DataFrame, dose: str | None = None) -> pd.Series:
    """Return the name of each variant's ladder: everything but the dose."""
    if dose and dose.startswith("recipe."):  # then the recipes differ, but only in the dose
        # The family is a hash that changes with the dose: with it each variant would be a ladder of its own.
        others = [c for c in variants if c.startswith("recipe.") and c not in (dose, FAMILY)]
        return joined(variants, ["dataset", *others])
    return joined(variants, ["recipe", "dataset_name", *ladder_parameters(variants, dose or FOREGROUND)])


def ladder_parameters(variants: pd.DataFrame, dose: str = FOREGROUND) -> list[str]:
    """Return the columns of data parameters that tell one ladder of doses from another: all but the dose.

    On a ladder of foreground fractions the noise is one of them only where one fraction comes at several
    noises, all else equal, since a ladder of equal difficulty has another noise at each of its levels."""
    others = [c for c in variants if c.startswith("data.") and c != dose]
    if dose != FOREGROUND or NOISE not in others:
        return others
    others.remove(NOISE)
    if FOREGROUND in variants:
        keys = [*others, FOREGROUND, *(c for c in ("dataset_name", "recipe") if c in variants)]
        if (variants.groupby(keys, dropna=False, observed=True)[NOISE].nunique() > 1).any():
            others.append(NOISE)
    return others


def units(variants: pd.DataFrame) -> pd.Series:
    """Return the independent data set that each variant is of; all levels of one generator are one.

    A user's folders and the sets of one library are different data under one builder."""
    return joined(variants, ["dataset_name", *(c for c in ("data.path", "data.name") if c in variants)])


def numbers(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as numbers, nan where it holds words or is not there.

    Data sets may mean different things by one parameter."""
    values = table.get(column, pd.Series(np.nan, index=table.index))
    return pd.to_numeric(values, errors="coerce").astype(float)


def rarest_first(cells: pd.DataFrame) -> dict[str, int]:
    """Return data set -> its place from the rarest foreground of the test images to the commonest."""
    measured = numbers(cells, "foreground_true").groupby(cells["dataset"], observed=True).mean()
    return {name: place for place, name in enumerate(measured.sort_values(kind="stable").index)}


def joined(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return one text a row, of some columns: what equal rows share."""
    rows = table[list(columns)].itertuples(index=False, name=None)
    return pd.Series(["/".join(map(str, row)) for row in rows], index=table.index, dtype=object)
