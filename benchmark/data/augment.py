"""Augmentation of a batch: a function of a random stream alone, so that every loss of a block sees the same augmented images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Generator, Tensor

KINDS = ("none", "flips", "full")
DEGREES = 15.0  # largest rotation of "full"
GAIN, OFFSET = 0.15, 0.15  # standard deviations of the intensity change of "full", in units of the image's own spread


def augment(images: Tensor, masks: Tensor, extra: Tensor | None, generator: Generator, kind: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the batch augmented: images (N, C, *S), masks (N, *S), extra (N, K, *S) or None, all by the same transform of each image.

    "none" changes nothing; "flips" flips each image along each spatial axis with probability one half and, with probability one half, swaps
    the first two axes if they have one size (together: all flips and quarter turns); "full" adds a rotation of the last two axes by up to 15
    degrees (mirrored at the border, masks by nearest neighbour) and a random gain and offset of the intensity. Signed distances in ``extra`` are
    kept by these motions. The number of draws depends on the shapes alone; ``generator`` lives on the CPU.
    """
    import torch

    if kind == "none":
        return images, masks, extra
    if kind not in KINDS:
        raise UserError(f"unknown augmentation '{kind}'{nearest(kind, KINDS)}")
    dims = masks.ndim - 1
    draws = torch.rand(len(masks), dims + 1, generator=generator) < 0.5
    square = masks.shape[1] == masks.shape[2]

    def flip(batch: Tensor, lead: int) -> Tensor:
        parts = []
        for item, draw in zip(batch, draws.tolist(), strict=True):
            axes = [lead + axis for axis in range(dims) if draw[axis]]
            part = item.flip(axes) if axes else item
            parts.append(part.transpose(lead, lead + 1) if draw[dims] and square else part)
        return torch.stack(parts)

    images, masks, extra = flip(images, 1), flip(masks, 0), None if extra is None else flip(extra, 1)
    return _turn_and_light(images, masks, extra, generator) if kind == "full" else (images, masks, extra)


def _turn_and_light(images: Tensor, masks: Tensor, extra: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    # One grid for the whole batch: torchvision's transforms turn one image at a time and cannot mirror at the border of a mask.
    import torch
    from torch.nn import functional

    angles = (torch.rand(len(masks), generator=generator) * 2 - 1) * (DEGREES * torch.pi / 180)
    lights = torch.randn(len(masks), 2, generator=generator) * torch.tensor([GAIN, OFFSET])
    height, width = masks.shape[-2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrix = torch.stack([cos, -sin * height / width, none, sin * width / height, cos, none], 1).reshape(-1, 2, 3).to(images)
    grid = functional.affine_grid(matrix, [len(masks), 1, height, width], align_corners=False)

    def turn(batch: Tensor, mode: str) -> Tensor:
        flat = batch.reshape(len(batch), -1, height, width)  # the depth of a volume goes with the channels
        return functional.grid_sample(flat, grid, mode, "reflection", align_corners=False).reshape(batch.shape)

    gain, offset = (part.reshape(-1, *[1] * (images.ndim - 1)).to(images) for part in lights.unbind(1))
    labels = turn(masks.to(images.dtype), "nearest").round().to(masks.dtype)
    return turn(images, "bilinear") * (1 + gain) + offset, labels, None if extra is None else turn(extra, "bilinear")
