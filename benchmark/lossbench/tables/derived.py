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
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.stats import rankdata

from lossbench.base.counts import per_image, soft_sizes

NAN = float("nan")

WINDOW = 21  # steps of the running median and mean; the curve is mirrored at its ends

FIRST, LAST = 5, 20  # steps between whose mean losses a training loss is said to fall

FEWEST = 5  # validated steps in the second half that a rank correlation needs

HALF = 0.5  # validation Dice that counts as having learnt

QUINTILES = 5

RECIPE = ("network", "head", "sampler", "learning_rate", "steps", "batch", "optimizer", "augment")

ARMS = ("0.5", "val")


def derived(record: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the derived columns of one record, always the same names in the same order.

    ``whole`` is its recipe with every field, also those that are younger than the record.
    """
    return {
        "collapsed": float(record.get("outcome") == "collapsed"),
        **training(record.get("steps") or {}, record.get("curves") or {}, record.get("steps_every") or 1),
        **by_size(record.get("images") or {}),
        **recipe(whole, record["cell"].get("learning_rate")),
    }


def training(steps: Mapping[str, list], curves: Mapping[str, list], every: int = 1) -> dict[str, float]:
    """Return what the course of one training says; ``steps`` holds the mean of every so many steps,
    ``curves`` a value a validated step. The noise is that of single steps: nan where these were averaged.

    - ``steps_to_half``: the first validated step with val_dice >= .5; where there is none, one more than the
      last;
    - ``loss_noise``: standard deviation of the training loss about its running median, over the second half,
      divided by its fall (mean of the first 5 minus mean of the last 20 losses);
    - ``loss_tracks_dice``: abs(Spearman) of the running mean of the training loss and val_dice, over the
      validated steps of the second half;
    - ``grad_noise``: standard deviation of the log gradient norm about its running median, over the second
      half;
    - ``log_loss_noise``, ``log_grad_noise``: natural logarithms of both noises.
    """
    # A cell without curves, or with values that are not finite, has nan in every column that needs them.
    loss, norm = _numbers(steps.get("train_loss")), _numbers(steps.get("grad_norm"))
    at, dice = _numbers(curves.get("step")), _numbers(curves.get("val_dice"))
    steps_to_half = _steps_to_half(at, dice, len(loss) * every)
    if every > 1:
        loss, norm = loss[:0], norm[:0]
    with np.errstate(divide="ignore", invalid="ignore"):
        grad_noise = _roughness(np.log(norm))
        fall = loss[:FIRST].mean() - loss[-LAST:].mean() if len(loss) >= FIRST + LAST else NAN
        loss_noise = _roughness(loss) / fall if fall > 0 else NAN
        logs = {"log_loss_noise": np.log(loss_noise), "log_grad_noise": np.log(grad_noise)}
    return {
        "steps_to_half": steps_to_half,
        "loss_noise": float(loss_noise),
        "loss_tracks_dice": _tracks(loss, at, dice),
        "grad_noise": grad_noise,
        **{name: float(value) if np.isfinite(value) else NAN for name, value in logs.items()},
    }


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


def _steps_to_half(at: np.ndarray, dice: np.ndarray, steps: int) -> float:
    if not len(at) or len(at) != len(dice):
        return NAN
    reached = at[dice >= HALF]
    return float(reached[0]) if len(reached) else float(max(steps, at[-1]) + 1)


def _roughness(values: np.ndarray) -> float:
    """Return the sd (ddof = 1) of a curve about its running median, over its second half."""
    if len(values) < 2 * WINDOW or not np.isfinite(values).all():
        return NAN
    # The median follows a fall and ignores single jumps, which are what is to be measured.
    rest = values - median_filter(values, WINDOW, mode="mirror")
    return float(rest[len(rest) // 2 :].std(ddof=1))


def _tracks(loss: np.ndarray, at: np.ndarray, dice: np.ndarray) -> float:
    if len(loss) < 2 * WINDOW or len(at) != len(dice) or not np.isfinite(loss).all():
        return NAN
    late = (at > len(loss) // 2) & (at <= len(loss)) & np.isfinite(dice)
    if late.sum() < FEWEST:
        return NAN
    smooth = uniform_filter1d(loss, WINDOW, mode="mirror")[at[late].astype(int) - 1]
    ranks = rankdata(smooth), rankdata(dice[late])
    if min(r.std() for r in ranks) == 0:  # a constant has no order to follow
        return NAN
    return float(abs(np.corrcoef(*ranks)[0, 1]))
