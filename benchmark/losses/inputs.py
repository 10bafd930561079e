"""Small targets and logits that losses are tested and timed on."""

from __future__ import annotations

import torch
from torch import Tensor


def disc(size: int = 16, images: int = 2, axes: int = 2) -> Tensor:
    """Class ids (images, size, ...): one disc of class 1, of another radius in each image."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(size) - size / 2 + 0.5] * axes, indexing="ij"))
    radius = torch.linspace(0.2, 0.35, images) * size
    return (grid.square().sum(0).sqrt() < radius.view(-1, *[1] * axes)).long()


def three_classes(size: int = 16, images: int = 2) -> Tensor:
    """As :func:`disc`, with class 2 in the lower half of the disc of the first image only."""
    target = disc(size, images)
    target[0, size // 2 :] *= 2
    return target


def noise(target: Tensor, classes: int = 2, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random logits (N, classes, *S) for a target (N, *S)."""
    return (torch.randn(target.shape[0], classes, *target.shape[1:], dtype=torch.float64) * scale).to(dtype)


def certain(target: Tensor, classes: int = 2, scale: float = 50.0) -> Tensor:
    """Logits of ``scale`` for the class that the target names and 0 for the others; void counts as class 0."""
    target = torch.where(target < classes, target, 0)
    return torch.zeros(target.shape[0], classes, *target.shape[1:]).scatter_(1, target.unsqueeze(1), scale)
