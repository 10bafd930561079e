"""What is looked at while cells train, at a fixed schedule: losses, Dice and region sizes on validation
images, gradient shares.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossbench.networks.stack import Stack
from lossbench.training.blocks import Block
from lossbench.training.job import Job, Trained
from lossbench.training.outcome import collapse_kind

# The columns of a cell's curves, one row a validation.
CURVES = (
    "step",
    "train_loss",
    "val_loss",
    "val_dice",
    "size_ratio_soft",
    "size_ratio_hard",
    "grad_norm",
    "grad_fg_share",
    "size_ce",
    "match_ce",
    "size_dice",
    "match_dice",
    "collapsed",
)
MISSING = {"collapsed": "not_finite"}  # what a curve holds where logits are not finite; else nan


@torch.no_grad()
def predict(stack: Stack, images: list[Tensor], batch: int) -> list[Tensor]:
    """Return each cell's logits (N, classes, *S) on its own images (N, C, *S); the batch size is the
    recipe's, never the stack's.
    """
    # Cells of one block share their images: they are repeated along the channels, not gathered.
    same = all(own is images[0] for own in images)
    longest = max(len(own) for own in images)
    outputs = []
    for begin in range(0, longest, batch):
        end = min(begin + batch, longest)
        if same:
            x = images[0][begin:end]
            x = x.repeat(1, len(stack), *[1] * (x.ndim - 2))
        else:
            # A cell with fewer images repeats its last one; the surplus is cut off below.
            rows = torch.arange(begin, end, device=images[0].device)
            x = torch.cat([own[rows.clamp_max(len(own) - 1)] for own in images], 1)
        outputs.append(stack.infer(x).transpose(0, 1))
    return [logits[: len(own)] for logits, own in zip(torch.cat(outputs, 1), images, strict=True)]


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
    tiny = 1e-12  # keeps a logarithm finite where nothing is predicted
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
    ignored = -100 if ignore_index is None else ignore_index  # PyTorch's own default
    return float(torch.nn.functional.cross_entropy(scores, target, ignore_index=ignored))


def gradient_share(grad: Tensor, target: Tensor, ignore_index: int | None) -> float:
    """Return the share of the absolute gradient on the logits that falls on true foreground pixels. grad (N,
    C, *S).
    """
    mass = grad.abs().sum(1)
    front = (target > 0) if ignore_index is None else (target > 0) & (target != ignore_index)
    total = float(mass.sum())
    return float(mass[front].sum()) / total if total > 0 else math.nan


def call_loss(
    job: Job, logits: Tensor, target: Tensor, distances: Tensor | None, frequency: Tensor, progress: float
) -> Tensor:
    """Return the scalar loss of one cell; raises when it is not a scalar. The loss may write into what it is
    given: it gets copies.
    """
    # Contiguous, as a single network would give them: kernels, and with them the last bits, may depend on it.
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
    jobs: list[Job],
    members: list[Block],
    lengths: dict[int, list[Trained]],
    step: int,
    targets: list[Tensor],
    gradients: list[Tensor],
) -> None:
    """Append one row of every signal to each cell's curves, and keep the weights that are best on validation.

    ``lengths``: steps of a length -> its results, one a cell, for all lengths that are validated at this
    step. ``targets`` and ``gradients``: each cell's masks, and its loss's gradient by the logits, of the
    batch just trained on."""
    outputs = predict(stack, [block.held_out["val"] for block in members], jobs[0].cell.recipe.batch)
    for cell, (job, block) in enumerate(zip(jobs, members, strict=True)):
        results = {steps: row[cell] for steps, row in lengths.items()}
        first = next(iter(results.values()))  # up to here all lengths are one training
        if first.error:  # its curves end where its loss raised
            continue
        scores = outputs[cell].float()
        if step in results:  # its last step: scored at the end as well
            results[step].predictions["val"] = scores.softmax(1).cpu().numpy()
        row: dict[str, Any] = {"step": step}
        row["train_loss"], row["grad_norm"] = first.train_loss[-1], first.grad_norm[-1]
        row["grad_fg_share"] = gradient_share(gradients[cell], targets[cell], job.data.ignore_index)
        if bool(torch.isfinite(scores).all()):
            row |= _on_validation(job, block, scores, step)
        weights = None
        for result in results.values():
            if row.get("val_dice", -math.inf) > result.best[0]:
                weights = weights or stack.weights(cell)
                result.best, result.best_weights = (row["val_dice"], step), weights
            for name in CURVES:
                result.curves.setdefault(name, []).append(row.get(name, MISSING.get(name, math.nan)))


def _on_validation(job: Job, block: Block, scores: Tensor, step: int) -> dict[str, Any]:
    """Return what the logits (N, classes, *S) of all validation images say of a cell."""
    recipe, ignore_index, target = job.cell.recipe, job.data.ignore_index, block.truth
    sums = soft_dice_sums(scores.softmax(1), target, ignore_index)
    sizes = size_terms(sums)
    true = sums["true"][:, 1:].sum().clamp_min(0.5)  # half a pixel, where no foreground is
    near = None if block.distances is None else block.distances.index_select(0, block.splits["val"])
    progress = step / recipe.steps
    return {
        "val_loss": _validation_loss(job, scores, target, near, block.frequency, progress),
        "val_dice": mean_dice(sums),
        "size_ratio_hard": float(sums["hard"][:, 1:].sum() / true),
        "size_ratio_soft": float(sums["soft"][:, 1:].sum() / true),
        **sizes,
        "match_ce": cross_entropy(scores, target, ignore_index) - sizes["size_ce"],
        "collapsed": collapse_kind(labels(scores).cpu().numpy(), target.cpu().numpy(), ignore_index),
    }


@torch.no_grad()
def _validation_loss(
    job: Job, scores: Tensor, target: Tensor, distances: Tensor | None, frequency: Tensor, progress: float
) -> float:
    """Return the mean of the cell's own loss over fixed validation batches of the training batch size."""
    values, batch = [], job.cell.recipe.batch
    for begin in range(0, scores.shape[0], batch):
        rows = slice(begin, begin + batch)
        near = None if distances is None else distances[rows]
        try:
            values.append(float(call_loss(job, scores[rows], target[rows], near, frequency, progress)))
        except Exception:  # a loss that cannot be evaluated outside training still trains
            return math.nan
    return float(np.mean(values))
