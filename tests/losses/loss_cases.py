"""Inputs that the loss tests share."""

from __future__ import annotations

import torch

from lossbench.catalogue.registry import get_loss, losses
from lossbench.metrics.surface import signed_distances

VOID = 255
PRESETS = sorted(losses())
SLOW = {"cldice", "clce", "hausdorff_dt", "log_hausdorff_dt", "skeleton_recall", "blob", "cc_dice_ce"}
# These look at the mask on the processor, one at a time.
ON_PROCESSOR = {"hausdorff_dt", "log_hausdorff_dt", "skeleton_recall", "blob", "cc_dice_ce"}


def case(classes=2, size=(8, 8), images=2, seed=0, dtype=torch.float64, scale=1.0):
    """Random logits and a target in which every image has every class."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, *size, generator=generator, dtype=torch.float64) * scale
    labels = max(classes, 2)
    target = torch.randint(0, labels, (images, *size), generator=generator)
    target.reshape(images, -1)[:, :labels] = torch.arange(labels)
    return logits.to(dtype), target


def needs(target, classes, progress=0.5, frequency=None):
    """Distance maps, class frequencies and progress as a trainer supplies them."""
    spacing = (1.0,) * (target.ndim - 1)
    classes = max(classes, 2)
    if frequency is None:
        counts = torch.bincount(target[target != VOID].reshape(-1), minlength=classes)[:classes].double() + 1
        frequency = counts / counts.sum()
    maps = torch.from_numpy(signed_distances(target.numpy(), classes, spacing, VOID))
    return {"distance_map": maps, "class_frequency": frequency, "progress": progress}


def evaluate(spec, logits, target, ignore_index=None, progress=0.5, supplied=None):
    """Return value and gradient of a spec."""
    z = logits.detach().clone().requires_grad_()
    supplied = supplied or needs(target, logits.shape[1], progress)
    value = get_loss(spec)(z, target, ignore_index=ignore_index, **supplied)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def value(spec, logits, target, **more):
    return float(evaluate(spec, logits, target, **more)[0])


def constant(probability, target, dtype=torch.float64):
    """Two-class logits of one probability everywhere."""
    margin = torch.logit(torch.tensor(probability, dtype=dtype))
    return torch.stack([torch.zeros(target.shape, dtype=dtype), margin.expand(target.shape)], 1)
