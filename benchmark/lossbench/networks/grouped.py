"""Convolutions of many groups on a GPU, all groups in one kernel.

In float32 cuDNN starts several kernels for each group of a convolution, so that a stack of 50 cells needs
thousands of them a step, each far too small for the card. Here a group's few channels are registers of one
program (Triton, which comes with PyTorch for NVIDIA's cards). Sums are float32 throughout; no TF32."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def regroup(module: nn.Module) -> None:
    """Let the grouped convolutions of a network on a GPU, as far as these kernels know them, run all groups
    at once; its weights stay where they are."""
    if kernels() is None:
        return
    for layer in module.modules():
        kind, groups = type(layer), getattr(layer, "groups", 1)
        if kind is nn.Conv2d and groups > 1 and (_is(layer, 3, padding=1) or _is(layer, 1)):
            layer.__class__ = Conv
        elif kind is nn.ConvTranspose2d and groups > 1 and _is(layer, 2, stride=2):
            layer.__class__ = Double


def _is(layer: nn.Module, window: int, stride: int = 1, padding: int = 0) -> bool:
    """Return whether a layer has this square window, and nothing else that is not the default."""
    asked = [(side, side) for side in (window, stride, padding, 1)]
    found = [layer.kernel_size, layer.stride, layer.padding, layer.dilation]
    return (
        found == asked
        and layer.padding_mode == "zeros"
        and getattr(layer, "output_padding", 0) in (0, (0, 0))
    )


@cache
def kernels() -> ModuleType | None:
    """Return the module of kernels, or None where Triton is not installed."""
    try:
        from lossbench.networks import kernels
    except ImportError:
        return None
    return kernels


class Conv(nn.Conv2d):
    """``nn.Conv2d`` of 3 x 3 or 1 x 1 windows that keep an image's size."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            y = _mix(x, self.weight.view(self.groups, -1, self.in_channels // self.groups))
        else:
            y = _Conv.apply(x.contiguous(), self.weight, self.groups)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


class Double(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` of 2 x 2 windows that do not overlap."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        batch, _, height, width = x.shape
        groups, outputs = self.groups, self.out_channels // self.groups
        weight = self.weight.view(groups, -1, outputs * 4).transpose(1, 2)
        y = _mix(x, weight).view(batch, groups * outputs, 2, 2, height, width)
        y = y.permute(0, 1, 4, 2, 5, 3).reshape(batch, groups * outputs, 2 * height, 2 * width)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def _mix(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, groups * out, *S): each pixel's channels (B, groups * in, *S) times (groups, out, in)."""
    batch, groups = len(x), len(weight)
    y = torch.matmul(weight, x.reshape(batch, groups, weight.shape[2], -1))
    return y.reshape(batch, groups * weight.shape[1], *x.shape[2:])


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return kernels().convolve(x, weight, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        slopes, own = slopes.contiguous(), None
        if ctx.needs_input_grad[0]:
            # The gradient is a convolution, too: with the window turned, and inputs and outputs exchanged.
            each = weight.view(ctx.groups, -1, *weight.shape[1:]).transpose(1, 2).flip(3, 4)
            own = kernels().convolve(slopes, each.reshape(-1, each.shape[2], 3, 3), ctx.groups)
        return own, kernels().by_weight(x, slopes, ctx.groups), None
