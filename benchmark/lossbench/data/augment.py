"""Augmentation of a batch: a function of a random stream alone, so that every loss of a block sees the same
augmented images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lossbench.base.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Generator, Tensor

KINDS = ("none", "flips", "full")

DEGREES = 15.0  # largest rotation of "full"

# Standard deviations of the intensity change of "full", in units of the image's own spread.
GAIN, OFFSET = 0.15, 0.15


@dataclass(frozen=True)
class Draws:
    """What chance decides of the batches of a training, on the device: a row a step, a column an image.

    ``flips`` int64: which axes are flipped, one bit each, and the highest bit whether the first two are
    swapped; ``angles`` in radians; ``lights`` (steps, batch, 2): gain and offset.
    """

    flips: Tensor | None = None
    angles: Tensor | None = None
    lights: Tensor | None = None

    def at(self, step: Tensor) -> Draws:
        """Return the draws of one step, a tensor of one index."""
        parts = (self.flips, self.angles, self.lights)
        return Draws(*(None if part is None else part.index_select(0, step)[0] for part in parts))


def draw(kind: str, steps: int, batch: int, dims: int, generator: Generator, device: str = "cpu") -> Draws:
    """Return the draws of a whole training; their number depends on the shapes alone.

    - "none" changes nothing;
    - "flips" flips each image along each spatial axis with probability one half and, with probability one
      half, swaps the first two axes if they have one size (together: all flips and quarter turns);
    - "full" adds a rotation of the last two axes by up to 15 degrees (mirrored at the border, masks by
      nearest neighbour) and a random gain and offset of the intensity.

    ``generator`` lives on the CPU.
    """
    import torch

    if kind == "none":
        return Draws()
    if kind not in KINDS:
        raise UserError(f"unknown augmentation '{kind}'{nearest(kind, KINDS)}")
    flips, angles, lights = [], [], []
    for _ in range(steps):
        flips.append(torch.rand(batch, dims + 1, generator=generator))
        if kind == "full":
            angles.append(torch.rand(batch, generator=generator))
            lights.append(torch.randn(batch, 2, generator=generator))
    # One bit an axis: a step then needs one look-up for each image, whatever is flipped.
    codes = ((torch.stack(flips) < 0.5) * 2 ** torch.arange(dims + 1)).sum(2).to(device)
    if kind == "flips":
        return Draws(codes)
    turns = (torch.stack(angles) * 2 - 1) * (DEGREES * torch.pi / 180)
    return Draws(codes, turns.to(device), (torch.stack(lights) * torch.tensor([GAIN, OFFSET])).to(device))


def augment(
    images: Tensor, masks: Tensor, extra: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images (N, C, *S), masks (N, *S) and extra (N, K, *S) or None, each image by one transform.

    Signed distances in ``extra`` are kept by these motions. Nothing here waits for the device.
    """
    if draws.flips is not None:
        moved = _sources(masks.shape[1:], draws.flips)

        def flip(batch: Tensor) -> Tensor:
            flat = batch.reshape(len(batch), -1, moved.shape[1])
            return flat.gather(2, moved[:, None].expand_as(flat)).reshape(batch.shape)

        images, masks, extra = flip(images), flip(masks), None if extra is None else flip(extra)
    return (images, masks, extra) if draws.angles is None else _turn_and_light(images, masks, extra, draws)


def _sources(shape: tuple[int, ...], flips: Tensor) -> Tensor:
    """Return where each pixel of each moved image comes from: flat indices (N, pixels)."""
    import torch

    dims, sources = len(shape), 0
    for axis, size in enumerate(shape):
        here = torch.arange(size, device=flips.device)
        there = torch.where((flips >> axis & 1).bool()[:, None], size - 1 - here, here)  # (N, size)
        sources = sources * size + there.reshape(-1, *[size if other == axis else 1 for other in range(dims)])
    if shape[0] == shape[1]:
        swapped = (flips >> dims).bool().reshape(-1, *[1] * dims)
        sources = torch.where(swapped, sources.transpose(1, 2), sources)
    return sources.reshape(len(flips), -1)


def _turn_and_light(
    images: Tensor, masks: Tensor, extra: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor, Tensor | None]:
    # One grid for the whole batch: torchvision's transforms turn one image at a time and cannot mirror at the
    # border of a mask.
    import torch
    from torch.nn import functional

    angles, lights = draws.angles, draws.lights
    height, width = masks.shape[-2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = torch.stack([cos, -sin * height / width, none, sin * width / height, cos, none], 1)
    matrix = rows.reshape(-1, 2, 3).to(images)
    grid = functional.affine_grid(matrix, [len(masks), 1, height, width], align_corners=False)

    def turn(batch: Tensor, mode: str) -> Tensor:
        flat = batch.reshape(len(batch), -1, height, width)  # the depth of a volume goes with the channels
        turned = functional.grid_sample(flat, grid, mode, "reflection", align_corners=False)
        return turned.reshape(batch.shape)

    gain, offset = (part.reshape(-1, *[1] * (images.ndim - 1)).to(images) for part in lights.unbind(1))
    labels = turn(masks.to(images.dtype), "nearest").round().to(masks.dtype)
    lit = turn(images, "bilinear") * (1 + gain) + offset
    return lit, labels, None if extra is None else turn(extra, "bilinear")
