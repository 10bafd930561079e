"""Augmentation of a batch: a function of a random stream alone, so that every loss of a block sees the same augmented images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def augment(images: Tensor, masks: Tensor, extra: Tensor | None, generator: Generator, kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the batch augmented: images (N, C, *S), masks (N, *S), extra (N, K, *S) or None, all by the same transform of each image.

    "none" changes nothing; "flips" flips each image along each spatial axis with probability one half, and swaps the first two axes of one size.
    The number of draws depends on the shapes alone.
    """
    import torch

    if kind == "none":
        return images, masks, extra
    dims = masks.ndim - 1
    draws = torch.rand(len(masks), dims + 1, generator=generator) < 0.5
    square = masks.shape[1] == masks.shape[2]

    def apply(batch: Tensor, lead: int) -> Tensor:
        parts = []
        for item, draw in zip(batch, draws.tolist(), strict=True):
            axes = [lead + axis for axis in range(dims) if draw[axis]]
            part = item.flip(axes) if axes else item
            parts.append(part.transpose(lead, lead + 1) if draw[dims] and square else part)
        return torch.stack(parts)

    return apply(images, 1), apply(masks, 0), None if extra is None else apply(extra, 1)
