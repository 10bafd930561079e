"""What follows from one record alone. Columns of ``cells``: collapse, noise of the training curves, Dice by
size and of the rarest class, the recipe. Everything is nan where a record cannot say: no curve, too short
a curve, values that are not finite, no object of that class. And rows of ``groups``: scores by test group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from lossbench.base import curves
from lossbench.base.columns import spelled
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
    if curves.NAMES[0] in known:
        return {name: NAN if known[name] is None else known[name] for name in curves.NAMES}
    single = (record.get("steps_every") or 1) == 1
    return curves.summary((record.get("steps") or {}) if single else {}, record.get("curves") or {})


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
    # A digest of the whole recipe, so that a field that is added later separates cells without a change here.
    rest = {name: value for name, value in whole.items() if name != "learning_rate"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
    return {**columns, "recipe.family": digest}


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values if values is not None else [], dtype=float)


# --- scores by test group (patient, picture): small enough to keep, and all that a bootstrap needs


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
            # Half the size: a table of all groups of a study is passed on with it.
            found[score] = (total / count).astype(np.float32)
        found[f"n {score}"] = count.astype(np.int32)
    return found


# --- volumes of single images: what a plot of agreement needs

MOST_VOLUMES = 24  # images a cell


def volumes(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return true, predicted (mask at 0.5) and soft pixels of some (image, class) pairs that hold the class:
    as many as ``MOST_VOLUMES``, evenly spread from the smallest to the largest.
    """
    images = record.get("images") or {}
    size, predicted = _numbers(images.get("size")), _numbers(images.get("predicted@0.5"))
    there = np.flatnonzero(size > 0)
    if not len(there) or len(predicted) != len(size):
        return {}
    by_truth = there[np.argsort(size[there], kind="stable")]
    count = min(MOST_VOLUMES, len(by_truth))
    # Both ends are kept: a bias that grows with the object is seen there.
    at = by_truth[np.linspace(0, len(by_truth) - 1, count).round().astype(int)]
    return {"size": size[at].astype(np.int32), "predicted": predicted[at].astype(np.int32)}
