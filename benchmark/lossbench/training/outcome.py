"""From the probabilities of a trained cell to what its record says: thresholds, metrics, collapse."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossbench import metrics
from lossbench.base import curves
from lossbench.base.counts import per_image, soft_sizes
from lossbench.data.container import VOID, Data
from lossbench.metrics import thresholds
from lossbench.metrics.arrays import mean_over_classes
from lossbench.training.blocks import Block, Job, Trained
from lossbench.training.signals import collapse_kind, joined, mean_dice, soft_dice_sums

# Columns of single images that no record keeps: what follows from counts of pixels, and distances whose means
# over all images (which are kept) say enough.
LEFT_OUT = {*per_image(*np.ones((3, 1))), *soft_sizes(*np.ones((2, 1))), "hd", "masd", "nsd_2"}

MOST_STEPS = 100  # values that a record keeps of the course of a training


class Scoring:
    """The scores of one cell: its validation images first, from which the threshold comes, then its test
    images. Some images at a time; none is kept.
    """

    def __init__(self, job: Job, block: Block):
        self.data, self.block = job.data, block
        self.search = metrics.ThresholdSearch(by="dice_all", ignore_index=block.ignore_index)
        self.sums: list[dict[str, Tensor]] = []
        self.tau: float | None = None
        self.test: metrics.Scoring | None = None
        self.close: list[float] = []  # of test images that several raters marked: Dice with each of them

    def add_validation(self, logits: Tensor, truth: metrics.Truth) -> None:
        """Take logits (n, classes, *S) and truth (n, *S) of validation images."""
        prob = _finite(logits.softmax(1))
        target = torch.from_numpy(truth.masks).to(prob.device)
        self.sums.append(soft_dice_sums(prob, target, self.block.ignore_index))
        self.search.add(prob.cpu().numpy(), truth.masks)

    def add_test(self, logits: Tensor, truth: metrics.Truth) -> None:
        """Take the same of test images."""
        if self.test is None:
            # Test images are scored at the argmax and at the threshold that validation chose.
            self.tau, self.curve = self.search.best()
            options = {"spacing": self.data.spacing, "classes": self.data.classes}
            arms = {"0.5": None, "val": self.tau}
            self.test = metrics.Scoring(ignore_index=self.block.ignore_index, thresholds=arms, **options)
        prob = _finite(logits.softmax(1)).cpu().numpy()
        self.test.add(prob, truth)
        if self.data.ratings is not None:
            begin = len(self.close)
            scored = self.block.test.index[begin : begin + len(prob)]
            for n, labels in zip(scored, thresholds.labels_at(prob, None), strict=True):
                said = {"classes": self.data.classes, "ignore_index": VOID}
                self.close.append(metrics.closeness(labels, self.data.ratings.of(int(n)), **said))

    def scores(self) -> dict[str, Any]:
        """Return summary, columns of images and reliability, threshold curve, collapse."""
        rows, summary, bins = self.test.result()
        columns, scored = _columns(rows), self.block.test.index
        if rows:
            # From places among the images that were scored to images of the data set.
            columns["group"] = [int(self.data.groups[scored[i]]) for i in columns["image"]]
            columns["image"] = [int(scored[i]) for i in columns["image"]]
            # A study has millions of rows: what follows from their counts is worked out by the tables.
            columns = {name: values for name, values in columns.items() if name.split("@")[0] not in LEFT_OUT}
        sums = joined(self.sums)
        summary = {
            **summary,
            "threshold_val": self.tau,
            "val_dice@0.5": mean_dice(sums),
            "val_dice_all@0.5": mean_dice(sums, empty=True),
            "val_dice@val": max((v for v in self.curve if v is not None), default=math.nan),
            "test_share": len(scored) / len(self.data.split["test"]),
        }
        if self.close:
            between = _between_raters(self.data, tuple(scored.tolist()))
            summary |= {"dice_raters": mean_over_classes(self.close), **between}
        return {
            "metrics": summary,
            "images": columns,
            "reliability": _columns(bins),
            "threshold_curve": self.curve,
            "collapse": collapse_kind(sums),
        }


def score(job: Job, trained: Trained) -> dict[str, Any]:
    """Return what a record says of a job, from what training left of it.

    Outcome, collapse, metrics, per-image columns, threshold curve, reliability and curves as plain Python
    values."""
    best_dice, best_step = trained.best
    collapse = "not_finite" if trained.not_finite_at is not None else trained.scores["collapse"]
    steps = {"train_loss": trained.train_loss, "grad_norm": trained.grad_norm}
    summary = {
        **trained.scores["metrics"],
        "train_loss_last": trained.train_loss[-1] if trained.train_loss else math.nan,
        "val_dice_best": best_dice if best_step else math.nan,
        "step_best": best_step,
        **curves.summary(steps, trained.curves),
        **(_bayes(job.data) if job.data.posterior is not None else {}),
    }
    every = math.ceil(len(trained.train_loss) / MOST_STEPS) or 1
    return {
        **trained.scores,
        "outcome": "collapsed" if collapse else "done",
        "collapse": collapse,
        "collapse_step": trained.not_finite_at or collapse_step(collapse, trained.curves),
        "metrics": summary,
        "curves": dict(trained.curves),
        "steps": {name: _means(values, every) for name, values in steps.items()},
        "steps_every": every,
    }


def _means(values: list[float], every: int) -> list[float]:
    """Return the means of every so many values; the last is of those that are left."""
    if every == 1:
        return list(values)
    return [float(np.mean(values[start : start + every])) for start in range(0, len(values), every)]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list]:
    """Return rows as columns, which take half the room in a record."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


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


def label_dice(predicted: np.ndarray, masks: np.ndarray, classes: int, ignore_index: int | None) -> float:
    """Return the mean Dice of predicted class ids (N, *S) over foreground classes and the images that hold
    them.
    """
    valid = np.ones_like(masks, bool) if ignore_index is None else masks != ignore_index
    axes = tuple(range(1, masks.ndim))
    means = []
    for kind in range(1, classes):  # images first, then classes, so that a rare class counts as much
        truth, guess = (masks == kind) & valid, (predicted == kind) & valid
        size = truth.sum(axes)
        present = size > 0
        if present.any():
            dice = 2 * (truth & guess).sum(axes)[present] / (size + guess.sum(axes))[present]
            means.append(dice.mean())
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


@lru_cache(maxsize=4)  # the same for every cell of a block
def _between_raters(data: Data, index: tuple[int, ...]) -> dict[str, float]:
    """Return how far the raters of some images agree, means over the images: Dice of two of them, kappa."""
    said = {"classes": data.classes, "ignore_index": VOID}
    each = [metrics.agreement(data.ratings.of(n), **said) for n in index]
    names = {"dice": "dice_between_raters", "kappa": "kappa_raters"}
    return {name: mean_over_classes([own[key] for own in each]) for key, name in names.items()}


def _finite(prob: Tensor) -> Tensor:
    """Return the probabilities; an image with any that is not finite is scored as predicted empty, with
    certainty.
    """
    bad = ~torch.isfinite(prob).all(1).flatten(1).all(1)
    if bool(bad.any()):
        prob = prob.clone()
        prob[bad] = 0.0
        prob[bad, 0] = 1.0
    return prob
