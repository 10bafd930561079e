"""The kernels of ``grouped``: 3 x 3 convolutions of many groups of few channels, and their gradient by the
weights.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 8192  # outputs (channels x pixels) that a program of 4 warps holds in registers


@triton.jit
def _convolve(
    x, weight, y, groups, height, width, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    image, block = tl.program_id(0).to(tl.int64), tl.program_id(1)  # image: of one group
    group = image % groups
    size = height * width
    at = block * BLOCK + tl.arange(0, BLOCK)
    row, column = at // width, at % width
    outs = tl.arange(0, ROOM)
    some = outs < OUTPUTS
    total = tl.zeros((ROOM, BLOCK), dtype=tl.float32)
    for i in range(INPUTS):
        for tap in tl.static_range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            inside = (
                (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
            )
            values = tl.load(
                x + (image * INPUTS + i) * size + at + down * width + right, mask=inside, other=0.0
            )
            taps = tl.load(weight + ((group * OUTPUTS + outs) * INPUTS + i) * 9 + tap, mask=some, other=0.0)
            total += taps[:, None] * values[None, :]
    place = y + (image * OUTPUTS + outs)[:, None] * size + at[None, :]
    tl.store(place, total, mask=some[:, None] & (at < size)[None, :])


@triton.jit
def _by_weight(
    x, slopes, parts, groups, height, width, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    image, i, down = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2) - 1
    size = height * width
    outs = tl.arange(0, ROOM)
    some = outs < OUTPUTS
    left = tl.zeros((ROOM, BLOCK), dtype=tl.float32)
    middle = tl.zeros((ROOM, BLOCK), dtype=tl.float32)
    right = tl.zeros((ROOM, BLOCK), dtype=tl.float32)
    for begin in range(0, size, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        row, column = at // width, at % width
        inside = (at < size) & (row + down >= 0) & (row + down < height)
        there = slopes + (image * OUTPUTS + outs)[:, None] * size + at[None, :]
        slope = tl.load(there, mask=some[:, None] & (at < size)[None, :], other=0.0)
        here = x + (image * INPUTS + i) * size + at + down * width
        left += slope * tl.load(here - 1, mask=inside & (column > 0), other=0.0)[None, :]
        middle += slope * tl.load(here, mask=inside, other=0.0)[None, :]
        right += slope * tl.load(here + 1, mask=inside & (column + 1 < width), other=0.0)[None, :]
    place = parts + ((image * OUTPUTS + outs) * INPUTS + i) * 9 + (down + 1) * 3
    tl.store(place, tl.sum(left, 1), mask=some)
    tl.store(place + 1, tl.sum(middle, 1), mask=some)
    tl.store(place + 2, tl.sum(right, 1), mask=some)


def convolve(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return what ``F.conv2d(x, weight, padding=1, groups=groups)`` returns: x (B, groups * in, H, W)
    contiguous, weight (groups * out, in, 3, 3), both float32 on a GPU.
    """
    batch, _, height, width = x.shape
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    room = triton.next_power_of_2(outputs)
    block = max(64, min(512, PIXELS // room))
    y = torch.empty(batch, groups * outputs, height, width, dtype=x.dtype, device=x.device)
    grid = batch * groups, triton.cdiv(height * width, block)
    _convolve[grid](x, weight.contiguous(), y, groups, height, width, inputs, outputs, room, block)
    return y


def by_weight(x: Tensor, slopes: Tensor, groups: int) -> Tensor:
    """Return the gradient by the weight, (groups * out, in, 3, 3), of such a convolution of ``x`` whose
    result has the gradient ``slopes`` (B, groups * out, H, W), contiguous.
    """
    batch, channels, height, width = x.shape
    inputs, outputs = channels // groups, slopes.shape[1] // groups
    room = triton.next_power_of_2(outputs)
    block = max(32, min(512, PIXELS // 2 // room))
    parts = torch.empty(batch, groups * outputs, inputs, 3, 3, dtype=x.dtype, device=x.device)
    _by_weight[batch * groups, inputs, 3](
        x, slopes, parts, groups, height, width, inputs, outputs, room, block
    )
    return parts.sum(0)  # image by image: a program for all would sum alone, and in an order of its own
