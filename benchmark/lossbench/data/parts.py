"""Whether a split can tell which loss is better: enough independent test images, each class in each part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lossbench.base.columns import FEWEST_GROUPS
from lossbench.data.container import SPLITS, Data
from lossbench.data.splitting import TEST, within

SHARES = (0.25, 0.3, 0.35, 0.4)  # of the groups for test, tried one by one; with more too few train

CALLED = {"train": "training part", "val": "validation part", "test": "test part"}


def independent(data: Data) -> int:
    """Return how many independent images or groups the scored part of test holds."""
    return len(np.unique(data.groups[within(data, "test", TEST)]))


def too_few(data: Data) -> str:
    """Return a sentence where test holds too few independent images to call any loss better; else nothing."""
    count = independent(data)
    if count >= FEWEST_GROUPS:
        return ""
    what = "image" if len(np.unique(data.groups)) == len(data) else "group"
    held = f"the test part holds {count} independent {what}{'s' * (count != 1)}"
    return f"{held}, {FEWEST_GROUPS} are needed before a loss can be called better, however many seeds"


def larger(opened: Callable[[float], Data]) -> float | None:
    """Return the smallest share for test that holds enough independent images, or None where none does.

    ``opened(share)`` opens the data set with that share.
    """
    return next((share for share in SHARES if independent(opened(share)) >= FEWEST_GROUPS), None)


def lacks(data: Data) -> list[str]:
    """Return a sentence for each part of the split and each class that none of its images holds."""
    holds = data.counts > 0
    missing = []
    for part in SPLITS:
        here = holds[data.split[part]].any(0)
        for kind, name in enumerate(data.classes):
            # A class that occurs nowhere is no matter of the split.
            if kind and holds[:, kind].any() and not here[kind]:
                held = f"{int(holds[:, kind].sum())} of {len(data)} images hold it"
                missing.append(f"the {CALLED[part]} holds no image with class '{name}' ({held})")
    return missing
