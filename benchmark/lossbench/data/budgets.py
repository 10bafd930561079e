"""Which whole images are scored where there are more pixels than it is worth: drawn once per data set."""

from __future__ import annotations

import numpy as np

from lossbench.base.seeds import stream
from lossbench.data.container import Data

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
