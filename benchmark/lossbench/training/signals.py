"""What is looked at while cells train, at a fixed schedule: losses, Dice and region sizes on validation
images, gradient shares.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossbench.experiment.cells import Recipe
from lossbench.networks.stack import Stack
from lossbench.training.outcome import collapse_kind


@torch.no_grad()
def predict(stack: Stack, images: list[Tensor], batch: int) -> list[Tensor]:
    """Return each cell's logits (N, classes, *S) on its own images (N, C, *S); the batch size is the
    recipe's, never the stack's.
    """
    same = all(part is images[0] for part in images)
    longest = max(part.shape[0] for part in images)
    outputs = []
    for begin in range(0, longest, batch):
        end = min(begin + batch, longest)
        if same:
            part = images[0][begin:end]
            x = part.repeat(1, len(stack), *[1] * (part.ndim - 2))
        else:  # a cell with fewer images repeats its last one, and the surplus is cut off below
            x = torch.cat(
                [
                    part[torch.arange(begin, end, device=part.device).clamp_max(part.shape[0] - 1)]
                    for part in images
                ],
                1,
            )
        outputs.append(stack.infer(x).transpose(0, 1))
    return [whole[: part.shape[0]] for whole, part in zip(torch.cat(outputs, 1), images, strict=True)]


def labels(scores: Tensor) -> Tensor:
    """Return the argmax over classes of (N, C, *S); two classes are compared, which is many times as fast on
    a CPU.
    """
    return (scores[:, 1] > scores[:, 0]).long() if scores.shape[1] == 2 else scores.argmax(1)


def soft_dice_sums(prob: Tensor, target: Tensor, ignore_index: int | None) -> dict[str, Tensor]:
    """Return per image and class: overlap and sizes of the argmax and of the probabilities. prob (N, C, *S),
    target (N, *S); sums (N, C).
    """
    classes = prob.shape[1]
    valid = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    kinds = torch.arange(classes, device=target.device).view(1, -1, *[1] * (target.ndim - 1))
    truth = (target.unsqueeze(1) == kinds) & valid.unsqueeze(1)
    hard = (labels(prob).unsqueeze(1) == kinds) & valid.unsqueeze(1)
    axes = tuple(range(2, prob.ndim))
    soft = prob * valid.unsqueeze(1)
    return {
        "true": truth.sum(axes).double(),
        "hard": hard.sum(axes).double(),
        "both": (truth & hard).sum(axes).double(),
        "soft": soft.double().sum(axes),
        "soft_both": (soft * truth).double().sum(axes),
    }


def mean_dice(sums: dict[str, Tensor]) -> float:
    """Return the mean hard Dice over the (image, foreground class) pairs whose class is present; nan when
    there are none.
    """
    true, hard, both = (sums[k][:, 1:] for k in ("true", "hard", "both"))
    present = true > 0
    return float((2 * both / (hard + true).clamp_min(1))[present].mean()) if bool(present.any()) else math.nan


def size_terms(sums: dict[str, Tensor]) -> dict[str, float]:
    """Return the region-size and matching terms of CE's and Dice's decomposition, pooled over the images.

    With yh, ph the true and predicted proportions and t the soft recall of a class: ``size_ce`` = KL(yh ||
    ph), ``size_dice`` = sum log(ph + yh) over the foreground, ``match_dice`` = -sum log t over the foreground
    present."""
    true, soft, soft_both = (sums[k].sum(0) for k in ("true", "soft", "soft_both"))
    total = true.sum().clamp_min(1)
    yh, ph, recall = true / total, soft / total, soft_both / true.clamp_min(1)
    tiny = 1e-12
    seen = yh > 0
    front = torch.zeros_like(seen)
    front[1:] = True
    return {
        "size_ce": float((yh * ((yh + tiny) / (ph + tiny)).log())[seen].sum()),
        "size_dice": float((ph + yh + tiny).log()[front].sum()),
        "match_dice": float(-(recall + tiny).log()[seen & front].sum()),
    }


def cross_entropy(scores: Tensor, target: Tensor, ignore_index: int | None) -> float:
    """Return the mean cross-entropy over all valid pixels, in nats; less ``size_ce`` it is CE's matching
    term.
    """
    return float(
        torch.nn.functional.cross_entropy(
            scores, target, ignore_index=-100 if ignore_index is None else ignore_index
        )
    )


def gradient_shares(grad: Tensor, target: Tensor, ignore_index: int | None) -> float:
    """Return the share of the absolute gradient on the logits that falls on true foreground pixels. grad (N,
    C, *S).
    """
    mass = grad.abs().sum(1)
    front = (target > 0) if ignore_index is None else (target > 0) & (target != ignore_index)
    total = float(mass.sum())
    return float(mass[front].sum()) / total if total > 0 else math.nan


def call_loss(
    job: Any, logits: Tensor, target: Tensor, distances: Tensor | None, frequency: Tensor, progress: float
) -> Tensor:
    """Return the scalar loss of one cell; raises when it is not a scalar. The loss may write into what it is
    given: it gets copies.
    """
    logits = logits.clone(memory_format=torch.contiguous_format)
    supplied = {
        "distance_map": None if distances is None else distances.clone(),
        "class_frequency": frequency.clone(),
        "progress": progress,
    }
    value = job.loss(logits, target.clone(), ignore_index=job.data.ignore_index, **supplied)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"the loss must return a scalar tensor, it returned {shape}")
    return value.reshape(())


def validate(
    stack: Stack,
    jobs,
    members,
    results,
    recipe: Recipe,
    step: int,
    targets: list[Tensor],
    gradients: list[Tensor],
) -> None:
    """Append one row of every signal to each cell's curves, and keep the weights that are best on validation.

    ``targets`` and ``gradients``: each cell's masks, and its loss's gradient by the logits, of the batch just
    trained on."""
    outputs = predict(stack, [block.held_out["val"] for block in members], recipe.batch)
    for cell, (job, block, result) in enumerate(zip(jobs, members, results, strict=True)):
        if result.error:
            continue
        target, scores = block.truth, outputs[cell].float()
        finite = bool(torch.isfinite(scores).all())
        prob = scores.softmax(1)
        if step == recipe.steps:
            result.predictions["val"] = prob.cpu().numpy()
        row: dict[str, Any] = {
            "step": step,
            "train_loss": result.train_loss[-1],
            "grad_norm": result.grad_norm[-1],
        }
        row["grad_fg_share"] = gradient_shares(gradients[cell], targets[cell], job.data.ignore_index)
        if finite:
            sums = soft_dice_sums(prob, target, job.data.ignore_index)
            row["val_dice"] = mean_dice(sums)
            true = sums["true"][:, 1:].sum().clamp_min(0.5)
            row["size_ratio_hard"] = float(sums["hard"][:, 1:].sum() / true)
            row["size_ratio_soft"] = float(sums["soft"][:, 1:].sum() / true)
            row.update(size_terms(sums))
            row["match_ce"] = cross_entropy(scores, target, job.data.ignore_index) - row["size_ce"]
            row["collapsed"] = collapse_kind(
                labels(scores).cpu().numpy(), target.cpu().numpy(), job.data.ignore_index
            )
            distances = (
                None if block.distances is None else block.distances.index_select(0, block.splits["val"])
            )
            row["val_loss"] = _validation_loss(
                job, scores, target, distances, block.frequency, recipe.batch, step / recipe.steps
            )
            if row["val_dice"] > result.best[0]:
                result.best = (row["val_dice"], step)
                result.best_weights = stack.weights(cell)
        for name in CURVES:
            result.curves.setdefault(name, []).append(
                row.get(name, "not_finite" if name == "collapsed" else math.nan)
            )


CURVES = (
    "step", "train_loss", "val_loss", "val_dice", "size_ratio_soft", "size_ratio_hard", "grad_norm", "grad_fg_share",
    "size_ce", "match_ce", "size_dice", "match_dice", "collapsed",
)  # fmt: skip


@torch.no_grad()
def _validation_loss(
    job, scores: Tensor, target: Tensor, distances, frequency: Tensor, batch: int, progress: float
) -> float:
    """Return the mean of the cell's own loss over fixed validation batches of the training batch size."""
    values = []
    for begin in range(0, scores.shape[0], batch):
        part = slice(begin, begin + batch)
        try:
            near = None if distances is None else distances[part]
            values.append(float(call_loss(job, scores[part], target[part], near, frequency, progress)))
        except Exception:  # a loss that cannot be evaluated outside training still trains
            return math.nan
    return float(np.mean(values))
