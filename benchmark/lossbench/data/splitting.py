"""Which whole images train, validate and test: whole groups are dealt, so that nothing leaks, and where there
are more pixels than it is worth, some images are scored, drawn once per data set.
"""

from __future__ import annotations

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.seeds import stream
from lossbench.data.container import Data


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
        n_val, n_test = _numbers(len(members), fractions, rng)
        parts["val"] += members[:n_val].tolist()
        parts["test"] += members[n_val : n_val + n_test].tolist()
        parts["train"] += members[n_val + n_test :].tolist()
    for part in ("val", "test"):  # strata of one or two groups may have left a part empty
        if not parts[part]:
            parts[part].append(parts["train"].pop())
    return {part: np.flatnonzero(np.isin(groups, members)) for part, members in parts.items()}


def rarest_held(groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the stratum of each image: the rarest foreground class that its group holds, 0 without any.

    ``counts`` are pixels by image and class. Dealt by these, no class and no image without foreground is left
    out of val or test by chance, where three groups or more have it.
    """
    units, unit = np.unique(groups, return_inverse=True)
    held = np.zeros((len(units), counts.shape[1]), bool)
    np.logical_or.at(held, unit, counts > 0)
    # Of classes that as many groups hold, the first.
    by_rarity = 1 + np.argsort(held[:, 1:].sum(0), kind="stable")
    rarest = by_rarity[held[:, by_rarity].argmax(1)]
    return np.where(held[:, 1:].any(1), rarest, 0)[unit]


def _numbers(count: int, fractions: tuple[float, float], rng: np.random.Generator) -> tuple[int, int]:
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


# --- budgets of pixels that are scored


TEST = 20_000_000  # pixels of test images

VALIDATION = 5_000_000  # pixels of validation images after the last step

DURING = 2_000_000  # pixels of validation images during training


def within(data: Data, part: str, pixels: int, name: str = "") -> np.ndarray:
    """Return the images of one part of the split, or as many as hold ``pixels``: sorted int64 indices.

    They depend on the data set's name alone. Images with and without foreground keep their shares of the
    pixels; within both, groups take turns. A smaller budget takes some of what a larger one takes.
    """
    index = data.split[part]
    area = data.sizes.prod(1)
    if area[index].sum() <= pixels:
        return index
    empty = ~data.counts[index, 1:].any(1)
    taken: list[int] = []
    for stratum, members in (("empty", index[empty]), ("foreground", index[~empty])):
        rng = stream("budget", f"{name or data.name}/{part}/{stratum}", 0)
        # By pixels, not by images: empty images may be larger or smaller than the others.
        share = pixels * area[members].sum() / area[index].sum()
        order = _in_turns(members, data.groups, rng)
        fits = np.cumsum(area[order]) <= share
        taken += order[: max(int(fits.sum()), 1)].tolist()  # of each kind at least one
    return np.sort(np.array(taken, np.int64))


def shares(data: Data, name: str = "") -> dict[str, float]:
    """Return the share of the validation and of the test images that are scored."""
    limits = (("val", VALIDATION), ("test", TEST))
    return {part: len(within(data, part, most, name)) / len(data.split[part]) for part, most in limits}


def _in_turns(members: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the images in random order, so that each group gives one before any gives a second."""
    shuffled = rng.permutation(members)
    turn = np.empty(len(shuffled), np.int64)
    given: dict[int, int] = {}
    for at, group in enumerate(groups[shuffled].tolist()):
        turn[at] = given[group] = given.get(group, -1) + 1
    return shuffled[np.argsort(turn, kind="stable")]
