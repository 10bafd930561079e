"""From the probabilities of a trained cell to what its record says: thresholds, metrics, collapse."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lossbench import metrics
from lossbench.data.container import Data
from lossbench.metrics import thresholds
from lossbench.training.job import Job, Trained


def score(job: Job, trained: Trained) -> dict[str, Any]:
    """Score a job from what training left of it.

    Returns outcome, collapse, metrics, per-image columns, threshold curve, reliability and curves as plain
    Python values."""
    data = job.data
    options = {"spacing": data.spacing, "classes": data.classes, "ignore_index": data.ignore_index}
    masks = np.asarray(data.masks)
    val, test = data.split["val"], data.split["test"]
    prob_val, prob_test, prob_best = (
        _finite(trained.predictions[name]) for name in ("val", "test", "test_best")
    )
    # The threshold comes from validation images alone; test images are scored at it and at the argmax.
    tau, threshold_curve = metrics.choose_threshold(prob_val, masks[val], ignore_index=data.ignore_index)
    rows, summary, bins = metrics.score_images(
        prob_test, masks[test], thresholds={"0.5": None, "val": tau}, **options
    )
    on_val = thresholds.labels_at(prob_val, None)
    collapse = collapse_kind(on_val, masks[val], data.ignore_index)
    if trained.not_finite_at is not None:
        collapse = "not_finite"
    columns = _columns(rows)
    if rows:
        # From places within the test split to images of the data set, which records of other splits share.
        columns["group"] = [int(data.groups[test[i]]) for i in columns["image"]]
        columns["image"] = [int(test[i]) for i in columns["image"]]
    best_dice, best_step = trained.best
    on_validation = trained.curves.get("val_dice")
    summary = {
        **summary,
        "threshold_val": tau,
        "dice_best@0.5": hard_dice(prob_best, masks[test], data.ignore_index),
        "train_loss_last": trained.train_loss[-1] if trained.train_loss else math.nan,
        "val_dice@0.5": on_validation[-1] if on_validation else math.nan,
        "val_dice_all@0.5": label_dice(on_val, masks[val], len(data.classes), data.ignore_index, empty=True),
        "val_dice@val": max((v for v in threshold_curve if v is not None), default=math.nan),
        "val_dice_best": best_dice if best_step else math.nan,
        "step_best": best_step,
        "n_test": len(test),
        **(_bayes(data) if data.posterior is not None else {}),
    }
    return {
        "outcome": "collapsed" if collapse else "done",
        "collapse": collapse,
        "collapse_step": trained.not_finite_at or collapse_step(collapse, trained.curves),
        "metrics": summary,
        "images": columns,
        "curves": dict(trained.curves),
        "steps": {"train_loss": trained.train_loss, "grad_norm": trained.grad_norm},
        "threshold_curve": threshold_curve,
        "reliability": _columns(bins),
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list]:
    """Return rows as columns, which take half the room in a record."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def collapse_kind(predicted: np.ndarray, masks: np.ndarray, ignore_index: int | None) -> str:
    """Return "background" or "foreground" when more than 95 % of the images that hold both are predicted as
    only that, else "".

    predicted, masks: class ids (N, *S). Images without foreground, or with nothing else, cannot tell and are
    left out."""
    axes = tuple(range(1, masks.ndim))
    valid = np.ones_like(masks, bool) if ignore_index is None else masks != ignore_index
    front = (predicted > 0) & valid
    mixed = ((masks > 0) & valid).any(axes) & ((masks == 0) & valid).any(axes)
    if not mixed.any():
        return ""
    # Not all: one image that is hit by chance does not make a network that has learnt.
    if np.mean(~front.any(axes)[mixed]) > 0.95:
        return "background"
    if np.mean((front | ~valid).all(axes)[mixed]) > 0.95:
        return "foreground"
    return ""


def collapse_step(collapse: str, curves: dict[str, list]) -> int | None:
    """Return the first validated step from which on the cell stayed collapsed as it ended; None for a cell
    that did not.
    """
    if not collapse or not curves.get("step"):
        return None
    first = None
    for step, kind in zip(reversed(curves["step"]), reversed(curves["collapsed"]), strict=True):
        if kind != collapse:
            break
        first = int(step)
    return first


def hard_dice(prob: np.ndarray, masks: np.ndarray, ignore_index: int | None) -> float:
    """Return the mean Dice of the argmax over foreground classes and the images that hold them (first images,
    then classes).
    """
    return label_dice(thresholds.labels_at(prob, None), masks, prob.shape[1], ignore_index)


def label_dice(
    predicted: np.ndarray, masks: np.ndarray, classes: int, ignore_index: int | None, empty: bool = False
) -> float:
    """Return the mean Dice of predicted class ids (N, *S) over foreground classes and the images that hold
    them; with ``empty`` over all images: one without the class counts 1 where nothing is marked, else 0.
    """
    valid = np.ones_like(masks, bool) if ignore_index is None else masks != ignore_index
    axes = tuple(range(1, masks.ndim))
    means = []
    for kind in range(1, classes):  # images first, then classes, so that a rare class counts as much
        truth, guess = (masks == kind) & valid, (predicted == kind) & valid
        size = truth.sum(axes)
        marked = guess.sum(axes)
        dice = np.where(size > 0, 2 * (truth & guess).sum(axes) / (size + marked).clip(1), marked == 0)
        counted = (size > 0) | (empty & valid.any(axes))
        if counted.any():
            means.append(dice[counted].mean())
    return float(np.mean(means)) if means else math.nan


@lru_cache(maxsize=4)  # the same for every cell of a block
def _bayes(data: Data) -> dict[str, float]:
    """Return what no network can beat on the test images: Dice of the exact posterior's argmax and of its
    Dice-optimal mask, and its NLL.
    """
    test = data.split["test"]
    posterior, masks = data.posterior[test], np.asarray(data.masks)[test]
    classes = len(data.classes)
    best, _, _ = thresholds.bayes_dice(posterior)
    truth = np.take_along_axis(posterior, masks[:, None].astype(np.int64), 1)
    return {
        "dice_bayes_ce": label_dice(thresholds.bayes_ce(posterior), masks, classes, data.ignore_index),
        "dice_bayes_dice": label_dice(best, masks, classes, data.ignore_index),
        "nll_bayes": float(-np.log(truth.clip(1e-12)).mean()),
    }


def _finite(prob: np.ndarray) -> np.ndarray:
    """Return the probabilities; an image with any that is not finite is scored as predicted empty, with
    certainty.
    """
    bad = ~np.isfinite(prob).all(axis=tuple(range(1, prob.ndim)))
    if not bad.any():
        return prob
    prob = prob.copy()
    prob[bad] = 0.0
    prob[bad, 0] = 1.0
    return prob
