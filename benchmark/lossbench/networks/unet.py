"""The reference U-Net, for K cells at once: one grouped network in which no cell can touch another.

A stack of K cells is a network whose every convolution has K groups and whose every normalisation stays
inside a cell, so cell k sees input channels k*C..(k+1)*C and has its own weights. K = 1 is the ordinary
network. 2-D and 3-D alike."""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# With a plain ReLU the eight channels before the head can all be dead on the foreground: then only the head's
# bias can raise its logit, some 0.005 a step, and cross-entropy looks as if it could not learn (training loss
# .055 instead of .02 after 200 steps, 2 of 3 seeds).
SLOPE = 0.1

ALIGN = 16  # numbers: a layer's weights begin at a multiple of 64 bytes, as memory of their own would


class UNet(nn.Module):
    """U-Net with two 3x3 convolutions, GroupNorm and leaky ReLU a stage, max-pooling down, transposed
    convolution up.

    Args: in_channels and classes of one cell; widths, the channels of each level; dims, 2 or 3; cells, K.
    Maps (B, K*in_channels, *S) to logits (B, K, classes, *S); every axis of S must be divisible by
    2**(len(widths) - 1)."""

    def __init__(self, in_channels: int, classes: int, widths: tuple[int, ...], dims: int, cells: int = 1):
        super().__init__()
        self.cells, self.classes, self.dims = cells, classes, dims
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
        skips = []
        for level, stage in enumerate(self.down):
            x = stage(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(self._join(skips.pop(), up(x)))
        x = self.head(x)
        return x.view(x.shape[0], self.cells, self.classes, *x.shape[2:])

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        """Concatenate the channels of two maps within each cell."""
        if self.cells == 1:
            return torch.cat([a, b], 1)
        batch, space = a.shape[0], a.shape[2:]
        both = torch.cat([a.view(batch, self.cells, -1, *space), b.view(batch, self.cells, -1, *space)], 2)
        return both.view(batch, -1, *space)


def halve(x: Tensor) -> Tensor:
    """Return the maximum over each 2 x 2 (x 2) window of (B, C, *S), to the bit what ``F.max_pool2d`` and
    ``F.max_pool3d`` return.

    On a processor those look at one number at a time, which took a tenth of a training step and a fifth of a
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
    """Return how many groups a normalisation has: eight channels in each where they divide, else one group."""
    return channels // 8 if channels % 8 == 0 else 1


def initial_weights(
    in_channels: int, classes: int, widths: tuple[int, ...], dims: int, seed: int
) -> dict[str, Tensor]:
    """Return the start of one cell, a function of its arguments alone (PyTorch's own initialisation)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            k: v.detach().clone() for k, v in UNet(in_channels, classes, widths, dims).state_dict().items()
        }


class Stack:
    """K cells in one network: each layer holds the weights of all cells, cell after cell along its first
    axis.

    All weights lie in one vector, ``values``, and all gradients in another, ``slopes``, layer after layer
    (``parts``); ``owner`` tells for each number which cell's it is. So an update with a learning rate a cell
    takes a few operations, however many cells and layers there are. Calling it maps (B, K*in_channels, *S) to
    logits (B, K, classes, *S).
    """

    def __init__(self, starts: list[dict[str, Tensor]], in_channels: int, classes: int, widths: tuple[int, ...], dims: int, device: str = "cpu",
                 precision: str = "float32"):  # fmt: skip
        self.autocast = (torch.device(device).type, torch.bfloat16) if precision == "bfloat16" else None
        self.count = len(starts)
        joined = {name: torch.cat([start[name] for start in starts]).to(device) for name in starts[0]}
        lengths = [-(-value.numel() // ALIGN) * ALIGN for value in joined.values()]
        self.values = torch.zeros(sum(lengths), dtype=next(iter(joined.values())).dtype, device=device)
        self.slopes = torch.zeros_like(self.values)
        self.owner = torch.zeros(len(self.values), dtype=torch.int64, device=device)
        with torch.device(
            "meta"
        ):  # only the shape of the network is needed: no memory, no draw from the global stream
            self.network = UNet(in_channels, classes, widths, dims, self.count)
        begins = itertools.accumulate(lengths, initial=0)
        self.parts = {
            name: slice(begin, begin + value.numel())
            for begin, (name, value) in zip(begins, joined.items(), strict=False)
        }
        for name, part in self.parts.items():
            self.values[part] = joined[name].flatten()
            self.owner[part] = torch.arange(self.count, device=device).repeat_interleave(
                joined[name].numel() // self.count
            )
        self.network.load_state_dict(
            {name: self.values[part].view(joined[name].shape) for name, part in self.parts.items()},
            assign=True,
        )
        for name, parameter in self.network.named_parameters():
            parameter.grad = self.slopes[self.parts[name]].view(parameter.shape)

    def __call__(self, x: Tensor) -> Tensor:
        if self.autocast is None:
            return self.network(x)
        with torch.autocast(*self.autocast):
            return self.network(x).float()

    def __len__(self) -> int:
        return self.count

    def weights(self, cell: int) -> dict[str, Tensor]:
        """Return a copy of one cell's weights."""
        return {
            name: value.detach().view(self.count, -1, *value.shape[1:])[cell].clone()
            for name, value in self.network.named_parameters()
        }

    def norms(self, vector: Tensor) -> Tensor:
        """Return the norm of each cell's part of a vector like ``slopes``, (K,): that of its layers' norms,
        as ``clip_grad_norm_`` computes it.
        """
        of_layers = [
            torch.linalg.vector_norm(vector[part].view(self.count, -1), dim=1) for part in self.parts.values()
        ]
        return torch.linalg.vector_norm(torch.stack(of_layers, 1), dim=1)

    def each(self, numbers: Tensor) -> Tensor:
        """Return one number a cell, (K,), for each number of the vectors."""
        return numbers.index_select(0, self.owner)

    @torch.no_grad()
    def load(self, weights: list[dict[str, Tensor]]) -> None:
        """Overwrite the weights of all cells."""
        for name, parameter in self.network.named_parameters():
            parameter.copy_(torch.cat([own[name] for own in weights]))


def weights_hash(weights: dict[str, Tensor]) -> str:
    """Return sixteen hex digits over names, shapes and bytes of a cell's weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name}{tuple(weights[name].shape)}".encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
