"""Columns of ``cells`` that follow from one record alone: collapse, noise of the training curves, Dice by
size and of the rarest class, the recipe. Everything is nan where a record cannot say: no curve, too short
a curve, values that are not finite, no object of that class.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from lossbench.base import course
from lossbench.base.counts import per_image, soft_sizes

NAN = float("nan")

QUINTILES = 5

RECIPE = ("network", "head", "sampler", "learning_rate", "steps", "batch", "optimizer", "augment")

ARMS = ("0.5", "val")


def derived(record: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived columns of one record, always the same names in the same order.

    ``whole`` is its recipe with every field, also those that are younger than the record.
    """
    return {
        "collapsed": float(record.get("outcome") == "collapsed"),
        **_course(record),
        **by_size(record.get("images") or {}),
        **recipe(whole, record["cell"].get("learning_rate")),
    }


def _course(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what the course of a training says: as the record has it, or, where it is older than that, from
    its single steps; nan where these were averaged.
    """
    known = record.get("metrics") or {}
    if course.NAMES[0] in known:
        return {name: NAN if known[name] is None else known[name] for name in course.NAMES}
    single = (record.get("steps_every") or 1) == 1
    return course.summary((record.get("steps") or {}) if single else {}, record.get("curves") or {})


def images_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a record's images, with those that follow from counts of pixels and that newer
    records leave out.
    """
    images = dict(record.get("images") or {})
    size = images.get("size")
    if size is None or "dice@0.5" in images:  # an older record holds them all
        return images
    for arm in ARMS:
        shared, predicted = images.get(f"shared@{arm}"), images.get(f"predicted@{arm}")
        if shared is not None and predicted is not None:
            made = per_image(shared, predicted, size)
            images = {f"{name}@{arm}": values for name, values in made.items()} | images
    if "soft_size" in images:
        images = soft_sizes(_numbers(images["soft_size"]), _numbers(size)) | images
    return images


def by_size(images: Mapping[str, list]) -> dict[str, float]:
    """Return mean Dice by fifth of true size, over the (image, class) pairs whose class is present, and that
    of the rarest foreground class: the one with the fewest test pixels (but some).

    A pair's fifth follows from its place among all pairs of the cell, equal sizes in the same fifth; fewer
    than five pairs have none.
    """
    fifths = [f"dice_q{q}@{arm}" for arm in ARMS for q in range(1, QUINTILES + 1)]
    columns = dict.fromkeys([*fifths, *(f"dice_rarest@{arm}" for arm in ARMS)], NAN)
    size = _numbers(images.get("size"))
    present = size > 0
    if not present.any():
        return columns
    # Fifths of the objects, not of the range of sizes, which one large object would stretch.
    place = rankdata(size[present])
    fifth = np.floor(QUINTILES * (place - 0.5) / len(place)).astype(int)
    kinds = np.asarray(images.get("class") or [0] * len(size))[present]
    pixels = {kind: size[present][kinds == kind].sum() for kind in dict.fromkeys(kinds.tolist())}
    rarest = kinds == min(pixels, key=pixels.get)
    for arm in ARMS:
        if f"dice@{arm}" not in images:
            continue
        dice = _numbers(images[f"dice@{arm}"])[present]
        columns[f"dice_rarest@{arm}"] = float(dice[rarest].mean())
        for q in range(QUINTILES if len(place) >= QUINTILES else 0):
            own = dice[fifth == q]
            columns[f"dice_q{q + 1}@{arm}"] = float(own.mean()) if len(own) else NAN
    return columns


def recipe(whole: Mapping[str, Any], rate: float | None = None) -> dict[str, Any]:
    """Return the parts of a recipe that studies vary, and ``recipe.family``: eight hex digits over all of
    it but the learning rate. ``rate`` is what the cell was given where the recipe says "own".
    """
    columns = {f"recipe.{name}": whole.get(name) for name in RECIPE}
    if columns["recipe.network"] is None and "widths" in whole:  # our U-Net, by the spec that names it
        columns["recipe.network"] = f"unet(widths={list(whole['widths'])})"
    if isinstance(columns["recipe.learning_rate"], str):
        columns["recipe.learning_rate"] = rate
    # Cells that differ in nothing but the rate are one loss at several rates.
    rest = {name: value for name, value in whole.items() if name != "learning_rate"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
    return {**columns, "recipe.family": digest}


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values if values is not None else [], dtype=float)
