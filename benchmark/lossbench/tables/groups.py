"""Scores by test group (patient, picture): small enough to keep, and all that a bootstrap over groups
needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossbench.base.columns import spelled

# Scores that are means over images, then classes, so that a mean over the images of a group says something.
SCORES = [f"{name}@{arm}" for name in ("dice", "dice_all", "false_alarms") for arm in ("0.5", "val")]


def by_group(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a record's scores by test group and class, as columns: the mean over the images of a group that
    count for a score, and in "n SCORE" how many do. Empty for generated data, whose images are as many as one
    likes, and for a record that does not know its groups.
    """
    images = record.get("images") or {}
    if "nll_bayes" in record.get("metrics", {}) or "group" not in images:
        return {}
    names = np.array(["" if name is None else str(name) for name in images.get("class", [])])
    names = names if len(names) else np.full(len(images["group"]), "")
    places, at = np.unique(
        np.stack([np.asarray(images["group"], dtype=str), names]), axis=1, return_inverse=True
    )
    found: dict[str, np.ndarray] = {"group": places[0], "class": places[1]}
    for score in SCORES:
        column = spelled(score, images)
        if column not in images:
            continue
        values = np.asarray(images[column], dtype=float)
        there = ~np.isnan(values)
        count = np.bincount(at[there], minlength=places.shape[1])
        total = np.bincount(at[there], weights=values[there], minlength=places.shape[1])
        with np.errstate(invalid="ignore"):
            found[score] = (total / count).astype(np.float32)
        found[f"n {score}"] = count.astype(np.int32)
    return found
