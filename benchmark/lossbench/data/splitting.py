"""Splits that do not leak: whole groups are dealt to train, validation and test."""

from __future__ import annotations

import numpy as np

from lossbench.base.errors import UserError


def deal(
    groups: np.ndarray, fractions: tuple[float, float], rng: np.random.Generator, strata=None, name: str = ""
) -> dict[str, np.ndarray]:
    """Return train, val and test indices with no group in two parts.

    ``fractions`` are those of val and test, counted in groups; ``strata`` (one value per group member) are
    dealt one by one, each with at least one group in val and test where it has three or more.
    """
    val, test = fractions
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        given = f"the fractions of val ({val:g}) and test ({test:g})"
        raise UserError(f"data set '{name}': {given} must be above 0 and sum to less than 1")
    groups = np.asarray(groups)
    strata = np.zeros(len(groups), int) if strata is None else np.asarray(strata)
    # The stratum of a group is that of its first member.
    unique, first = np.unique(groups, return_index=True)
    check_units(len(unique), name)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for stratum in np.unique(strata):
        members = rng.permutation(unique[strata[first] == stratum])
        n_val, n_test = _shares(len(members), fractions, rng)
        parts["val"] += members[:n_val].tolist()
        parts["test"] += members[n_val : n_val + n_test].tolist()
        parts["train"] += members[n_val + n_test :].tolist()
    for part in ("val", "test"):  # strata of one or two groups may have left a part empty
        if not parts[part]:
            parts[part].append(parts["train"].pop())
    return {part: np.flatnonzero(np.isin(groups, members)) for part, members in parts.items()}


def _shares(count: int, fractions: tuple[float, float], rng: np.random.Generator) -> tuple[int, int]:
    """Return how many of ``count`` groups go to val and test; what is left of a group is drawn."""
    # Rounding by chance keeps the fractions right on average, over strata of any size.
    least = 1 if count >= 3 else 0
    n_val, n_test = (max(least, int(np.floor(f * count + rng.random()))) for f in fractions)
    n_val = min(n_val, count - 1 - least) if count > 1 else 0
    return n_val, min(n_test, count - 1 - n_val) if count > 1 else 0


def check_units(count: int, name: str) -> None:
    """Raise UserError where there are fewer independent units than parts."""
    if count < 3:
        units = f"{count} independent units cannot be split into train, val and test"
        raise UserError(f"data set '{name}': {units}; it needs three")


def validation_from_train(groups: np.ndarray, parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the parts of an official split without validation, a fifth of the training groups being it."""
    train = rng.permutation(np.unique(groups[parts == "train"]))
    chosen = np.isin(groups, train[: max(1, round(len(train) / 5))]) & (parts == "train")
    return np.where(chosen, "val", parts)
