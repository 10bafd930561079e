"""What is looked at while cells train, at a fixed schedule: losses, Dice and region sizes on validation
images, gradient shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossbench.metrics import Truth
from lossbench.networks.stack import Stack
from lossbench.training.blocks import Block, Job, Trained
from lossbench.training.predict import predict

# The columns of a cell's curves, one row a validation.
CURVES = (
    "step",
    "train_loss",
    "val_loss",
    "val_dice",
    "val_dice_all",
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


def labels(scores: Tensor) -> Tensor:
    """Return the argmax over classes of (N, C, *S): the first of the largest.

    On a CPU ``argmax`` takes 5 to 8 times as long as ``max``, and of two classes a comparison the least."""
    return (scores[:, 1] > scores[:, 0]).long() if scores.shape[1] == 2 else scores.max(1).indices


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


def mean_dice(sums: dict[str, Tensor], empty: bool = False) -> float:
    """Return the mean hard Dice over the (image, foreground class) pairs whose class is present; nan when
    there are none.

    ``empty``: over all pairs; where the class is absent, 1 if nothing is marked and 0 if anything is."""
    true, hard, both = (sums[k][:, 1:] for k in ("true", "hard", "both"))
    present = true > 0
    dice = 2 * both / (hard + true).clamp_min(1)
    if empty:
        seen = sums["true"].sum(1, keepdim=True) > 0  # an image that is void everywhere is none
        dice, present = torch.where(present, dice, (hard == 0).double()), seen.expand_as(present)
    return float(dice[present].mean()) if bool(present.any()) else math.nan


def collapse_kind(sums: dict[str, Tensor]) -> str:
    """Return "background" or "foreground" when more than 95 % of the images that hold both are predicted as
    only that, else "".

    Images without foreground, or with nothing else, cannot tell and are left out."""
    true, hard = sums["true"], sums["hard"]
    mixed = (true[:, 1:].sum(1) > 0) & (true[:, 0] > 0)
    if not bool(mixed.any()):
        return ""
    # Not all: one image that is hit by chance does not make a network that has learnt.
    if float((hard[mixed, 1:].sum(1) == 0).double().mean()) > 0.95:
        return "background"
    return "foreground" if float((hard[mixed, 0] == 0).double().mean()) > 0.95 else ""


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


def gradient_share(grad: Tensor, target: Tensor, ignore_index: int | None) -> float:
    """Return the share of the absolute gradient on the logits that falls on true foreground pixels. grad (N,
    C, *S).
    """
    mass = grad.abs().sum(1)
    front = (target > 0) if ignore_index is None else (target > 0) & (target != ignore_index)
    total = float(mass.sum())
    return float(mass[front].sum()) / total if total > 0 else math.nan


def call_loss(
    job: Job, block: Block, logits: Tensor, target: Tensor, distances: Tensor | None, progress: float
) -> Tensor:
    """Return the scalar loss of one cell; raises when it is not a scalar. The loss may write into what it is
    given: it gets copies. ``target``: masks, or codes of several raters, as a batch holds them.
    """
    target = block.target(target, job.cell.loss.soft)
    # Contiguous, as a single network would give them: kernels, and with them the last bits, may depend on it.
    logits = logits.clone(memory_format=torch.contiguous_format)
    supplied = {
        "distance_map": None if distances is None else distances.clone(),
        "class_frequency": block.frequency.clone(),
        "progress": progress,
    }
    value = job.loss(logits, target.clone(), ignore_index=block.ignore_index, **supplied)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"the loss must return a scalar tensor, it returned {shape}")
    return value.reshape(())


class Look:
    """One look at the validation images of a cell: tiles for its loss, whole images for all else."""

    def __init__(self, job: Job, block: Block, step: int):
        self.job, self.block, self.step = job, block, step
        self.progress = step / job.cell.recipe.steps
        self.losses: list[float] = []
        self.parts: list[dict[str, Tensor]] = []
        self.nats = 0.0  # summed cross-entropy
        self.finite = True

    @torch.no_grad()
    def tiles(self, begin: int, logits: Tensor) -> None:
        """Take the logits (n, classes, *side) of a batch of tiles."""
        tiles, end = self.block.during, begin + len(logits)
        target = torch.from_numpy(tiles.masks(begin, end)).to(logits.device).long()
        maps = tiles.distances(begin, end)
        near = None if maps is None else torch.from_numpy(maps).to(logits.device)
        try:
            value = float(call_loss(self.job, self.block, logits, target, near, self.progress))
        except Exception:  # a loss that cannot be evaluated outside training still trains
            value = math.nan
        self.losses.append(value)

    def images(self, scores: Tensor, target: Tensor) -> None:
        """Take the logits (n, classes, *S) and masks (n, *S) of whole images."""
        ignored = self.block.ignore_index
        self.finite = self.finite and bool(torch.isfinite(scores).all())
        self.parts.append(soft_dice_sums(scores.softmax(1), target, ignored))
        # In nats; -100 is PyTorch's own default.
        ignored = -100 if ignored is None else ignored
        nats = torch.nn.functional.cross_entropy(scores, target, ignore_index=ignored, reduction="sum")
        self.nats += float(nats)

    def row(self) -> dict[str, Any]:
        """Return what the images say of the cell; only the step where logits are not finite."""
        if not self.finite:
            return {"step": self.step}
        sums = joined(self.parts)
        sizes = size_terms(sums)
        true = sums["true"][:, 1:].sum().clamp_min(0.5)  # half a pixel, where no foreground is
        return {
            "step": self.step,
            "val_loss": float(np.mean(self.losses)),
            "val_dice": mean_dice(sums),
            "val_dice_all": mean_dice(sums, empty=True),
            "size_ratio_hard": float(sums["hard"][:, 1:].sum() / true),
            "size_ratio_soft": float(sums["soft"][:, 1:].sum() / true),
            **sizes,
            # Cross-entropy less its size term is its matching term.
            "match_ce": self.nats / max(float(sums["true"].sum()), 1) - sizes["size_ce"],
            "collapsed": collapse_kind(sums),
        }


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sums of all images, from those of some at a time."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def look(
    stack: Stack,
    jobs: list[Job],
    members: list[Block],
    step: int,
    also: Callable[[int, Tensor, Truth], None] | None = None,
) -> list[dict[str, Any]]:
    """Return what the validation images say of each job, the first cells of the stack, after a step.

    ``also`` gets each job's place, and the logits and truth of some images."""
    looks = [Look(job, block, step) for job, block in zip(jobs, members, strict=False)]

    def on_tiles(cell: int, begin: int, logits: Tensor) -> None:
        if cell < len(looks):
            looks[cell].tiles(begin, logits)

    sets = [block.during for block in members]
    for cell, group, logits in predict(stack, sets, jobs[0].cell.recipe.batch, on_tiles):
        if cell < len(looks):
            truth = sets[cell].truth(group)
            looks[cell].images(logits, torch.from_numpy(truth.masks).to(logits.device).long())
            if also:
                also(cell, logits, truth)
    return [own.row() for own in looks]


def note(row: dict[str, Any], results: list[Trained]) -> None:
    """Append one row of every signal to a cell's curves, for each length that is looked at in this step."""
    first = results[0]  # up to here all lengths are one training
    if first.error:  # its curves end where its loss raised
        return
    row = {**row, "train_loss": first.train_loss[-1], "grad_norm": first.grad_norm[-1]}
    row["grad_fg_share"] = first.grad_fg_share
    for result in results:
        if row.get("val_dice", -math.inf) > result.best[0]:
            result.best = row["val_dice"], row["step"]
        for name in CURVES:
            result.curves.setdefault(name, []).append(row.get(name, MISSING.get(name, math.nan)))
