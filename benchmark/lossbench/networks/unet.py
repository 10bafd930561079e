"""The reference U-Net, for K cells at once: one grouped network in which no cell can touch another.

A stack of K cells is a network whose every convolution has K groups and whose every normalisation stays
inside a cell, so cell k sees input channels k*C..(k+1)*C and has its own weights. K = 1 is the ordinary
network. 2-D and 3-D alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import network

# With a plain ReLU the eight channels before the head can all be dead on the foreground: then only the head's
# bias can raise its logit, some 0.005 a step, and cross-entropy looks as if it could not learn (training loss
# .055 instead of .02 after 200 steps, 2 of 3 seeds).
SLOPE = 0.1


@network("unet", family="U-Net", cite="Ronneberger 2015")
def unet(in_channels, classes, dims, *, widths=(8, 16, 32), cells=1):
    """U-Net; ``widths`` are the channels of each level. Sides must be divisible by 2**(levels - 1)."""
    levels = widths if isinstance(widths, list | tuple) else []
    if not 2 <= len(levels) <= 6 or not all(type(n) is int and 2 <= n <= 1024 for n in levels):
        raise UserError(
            f"'widths' of network 'unet' must be 2 to 6 whole numbers from 2 to 1024, got {widths}"
        )
    return UNet(in_channels, classes, tuple(levels), dims, cells)


class UNet(nn.Module):
    """U-Net with two 3x3 convolutions, GroupNorm and leaky ReLU a stage, max-pooling down, transposed
    convolution up.

    Args: in_channels and classes of one cell; widths, the channels of each level; dims, 2 or 3; cells, K.
    Maps (B, K*in_channels, *S) to logits (B, K*classes, *S), cell after cell; every axis of S must be
    divisible by 2**(len(widths) - 1)."""

    def __init__(self, in_channels: int, classes: int, widths: Sequence[int], dims: int, cells: int = 1):
        super().__init__()
        self.cells = cells
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.pool = halve

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for channels in (inputs, outputs):
                layers += [
                    conv(cells * channels, cells * outputs, 3, padding=1, groups=cells, bias=False),
                    nn.GroupNorm(cells * norm_groups(outputs), cells * outputs),
                    nn.LeakyReLU(SLOPE, inplace=True),
                ]
            return nn.Sequential(*layers)

        below = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(stage(i, o) for i, o in zip(below, widths, strict=True))
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList(
            up(cells * deep, cells * flat, 2, stride=2, groups=cells) for flat, deep in pairs
        )
        self.merge = nn.ModuleList(stage(2 * flat, flat) for flat, _ in pairs)
        self.head = conv(cells * widths[0], cells * classes, 1, groups=cells)

    def forward(self, x: Tensor) -> Tensor:
        if self.cells == 1 and x.device.type == "cpu" and not torch.is_grad_enabled():
            x = channels_last(x)
        skips = []
        for level, stage in enumerate(self.down):
            x = stage(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(self._join(skips.pop(), up(x)))
        return self.head(x)

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        """Concatenate the channels of two maps within each cell."""
        if self.cells == 1:
            return torch.cat([a, b], 1)
        batch, space = a.shape[0], a.shape[2:]
        both = torch.cat([a.view(batch, self.cells, -1, *space), b.view(batch, self.cells, -1, *space)], 2)
        return both.view(batch, -1, *space)


def channels_last(x: Tensor) -> Tensor:
    """Return a copy whose channels lie side by side; inference of one cell takes .7 to .85 of the time then,
    and half of it in 3-D.
    """
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    # Not ``x.contiguous``: with one channel it leaves the strides, from which layers choose their kernels.
    return torch.empty_like(x, memory_format=layout).copy_(x)


def halve(x: Tensor) -> Tensor:
    """Return the maximum over each 2 x 2 (x 2) window of (B, C, *S), to the bit what ``F.max_pool2d`` and
    ``F.max_pool3d`` return.

    On a CPU those look at one number at a time, which took a tenth of a training step and a fifth of a
    forward pass."""
    if x.device.type == "cpu" and not (torch.is_grad_enabled() and x.requires_grad):
        for axis in range(2, x.ndim):
            x = torch.maximum(*_pairs(x, axis))
        return x
    if x.device.type == "cpu" and x.ndim == 4:
        return _Halve.apply(x)
    return max_pool(x)


def max_pool(x: Tensor) -> Tensor:
    """Return the same by PyTorch's own function."""
    return F.max_pool2d(x, 2) if x.ndim == 4 else F.max_pool3d(x, 2)


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the even and the odd places along an axis."""
    places = [slice(None)] * axis
    return x[(*places, slice(0, None, 2))], x[(*places, slice(1, None, 2))]


class _Halve(torch.autograd.Function):
    """The gradient goes to the window's first place, row by row, among those that hold the maximum."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        above, below = _pairs(x, 2)
        low = below > above
        left, right = _pairs(torch.maximum(above, below), 3)
        low_left, low_right = _pairs(low, 3)
        east = (right > left) | (
            (right == left) & (low_left > low_right)
        )  # of two equal ones the upper comes first
        south = (low_left & ~east) | (low_right & east)
        corners = torch.arange(0, height, 2, device=x.device)[:, None] * width + torch.arange(
            0, width, 2, device=x.device
        )
        ctx.save_for_backward(x, (corners + east.long()).add_(south.long(), alpha=width))
        return torch.maximum(left, right)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        x, places = ctx.saved_tensors
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )


def norm_groups(channels: int) -> int:
    """Return how many groups a normalisation has: eight channels in each where they divide, else one."""
    return channels // 8 if channels % 8 == 0 else 1
