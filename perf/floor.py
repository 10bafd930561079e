"""How near training comes to what one core can do: share of the measured peak, single and stacked.

    python perf/floor.py [--rounds 12] [--quick]     writes docs/speed_floor.md, about three minutes

The peak is the fastest of a large matrix product and two large convolutions, measured in every round beside
the rest, so that a slow moment of the machine slows both. Work is that of the convolutions alone, counted
from their shapes: forward, gradient of the weights, gradient of the input (not of the image). A share of the
peak is that work / seconds / peak."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

from timing import REFERENCE, finish, one_thread, spread, table, there_and_back

STACKS = (2, 4, 8)
LOSSES = ("ce", "dice", "dice_ce", "focal")
GOAL = 0.35


def work_of_a_step(recipe, size: tuple[int, ...]) -> float:
    """Return the floating-point operations of one training step of one cell."""
    import torch
    from torch import nn

    from lossbench.networks.unet import UNet

    network, total = UNet(1, 2, recipe.widths, len(size)), 0.0

    def count(layer, inputs, output):
        nonlocal total
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d) else output
        forward = 2 * pixels.numel() // pixels.shape[1] * layer.weight.numel()
        total += forward * (2 if layer is network.down[0][0] else 3)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(recipe.batch, 1, *size))
    return total


def seconds_of(call: Callable, repeats: int) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peaks() -> dict[str, tuple[float, Callable]]:
    """Return kernels that should run at the peak: name -> (operations, call)."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1536, 1536, generator=generator), torch.randn(1536, 1536, generator=generator)
    out = torch.empty(1536, 1536)
    x, w = torch.randn(8, 64, 64, 64, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    y = x.to(memory_format=torch.channels_last)
    conv = 2 * x.numel() * 64 * 9
    return {
        "matrix product 1536": (2 * 1536**3, lambda: torch.mm(a, b, out=out)),
        "convolution 64 x 64 channels": (conv, lambda: functional.conv2d(x, w, padding=1)),
        "the same, channels_last": (conv, lambda: functional.conv2d(y, w, padding=1)),
    }


def passes(recipe, size: tuple[int, ...]) -> dict[str, tuple[int, Callable]]:
    """Return forward and backward passes of the network, and of its convolutions, without training: name ->
    (cells, call).
    """
    import torch

    from lossbench.catalogue.registry import parse_network
    from lossbench.networks.build import Network
    from lossbench.networks.stack import Stack

    network = Network(parse_network(f"unet(widths={list(recipe.widths)})"), 1, 2, size)

    def one(cells: int, layout=torch.contiguous_format) -> Callable:
        stack = Stack(network, [network.start(n) for n in range(cells)])
        x = torch.randn(recipe.batch, cells, *size).contiguous(memory_format=layout)
        stack.module.to(memory_format=layout)

        def call():
            stack(x).square().mean().backward()
            stack.module.zero_grad()

        return call

    return {
        "network alone, single": (1, one(1)),
        "network alone, single, channels_last": (1, one(1, torch.channels_last)),
        **{f"network alone, stack of {k}": (k, one(k)) for k in STACKS},
        **{f"convolutions alone, stack of {k}": (k, convolutions(k, recipe, size)) for k in STACKS},
    }


def convolutions(cells: int, recipe, size: tuple[int, ...]) -> Callable:
    """Return a call that runs each convolution of a stack forward and backward by itself, without anything in
    between.
    """
    import torch

    from lossbench.networks.unet import UNet

    network, layers, hooks = UNet(1, 2, recipe.widths, len(size), cells), [], []

    def keep(layer, inputs, output):
        first = layer is network.down[0][0]
        x = inputs[0].detach().clone().requires_grad_(not first)
        layers.append(
            (
                layer,
                x,
                [own for own in (x, *layer.parameters()) if own.requires_grad],
                torch.randn_like(output),
            )
        )

    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.conv._ConvNd):
            hooks.append(layer.register_forward_hook(keep))
    network(torch.randn(recipe.batch, cells, *size))
    for hook in hooks:
        hook.remove()

    def call():
        for layer, x, wanted, slope in layers:
            torch.autograd.grad(layer(x), wanted, slope)

    return call


def step_seconds(cells: int, data, recipe, steps: int) -> float:
    """Return the median seconds of a step of `training.train` itself, for one cell or a stack."""
    from lossbench.catalogue.registry import get_loss
    from lossbench.experiment.cells import Cell
    from lossbench.training.blocks import Job
    from lossbench.training.train import train

    settings = recipe.model_copy(update={"steps": steps, "validations": 1, "stacked": cells > 1})
    members = [Cell.of(REFERENCE, LOSSES[n % len(LOSSES)], recipe=settings) for n in range(cells)]
    jobs = [Job(cell, data, get_loss(cell.loss, check=False)) for cell in members]
    marks: list[float] = []
    train(jobs, on_step=lambda step, values: marks.append(time.perf_counter()))
    gaps = [b - a for a, b in pairwise(marks)]
    return statistics.median(gaps[1:-1])  # the first warms up, the last validates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    rounds, repeats, steps = (1, 1, 5) if chosen.quick else (chosen.rounds, 5, 10)
    one_thread()
    from lossbench.catalogue.registry import get_dataset
    from lossbench.experiment.cells import Recipe

    recipe, data = Recipe(), get_dataset(f"{REFERENCE[:-1]}, n_val=8, n_test=8)", 0)
    size = data.masks.shape[1:]
    flops, kernels, alone = work_of_a_step(recipe, size), peaks(), passes(recipe, size)
    for _, call in (*kernels.values(), *alone.values()):
        call()
    arms = (
        [("peak", name) for name in kernels]
        + [("pass", name) for name in alone]
        + [("step", k) for k in (1, *STACKS)]
    )
    seen: dict[tuple, list[float]] = {arm: [] for arm in arms}
    for _, arm in there_and_back(arms, rounds):
        kind, name = arm
        if kind == "peak":
            work, call = kernels[name]
            seen[arm].append(work / seconds_of(call, repeats))
        elif kind == "pass":
            cells, call = alone[name]
            seen[arm].append(cells * flops / seconds_of(call, repeats))
        else:
            seen[arm].append(name * flops / step_seconds(name, data, recipe, steps))
    tops = [max(values) for values in zip(*(seen["peak", name] for name in kernels), strict=True)]
    rows = [[name, spread(seen["peak", name], 0, 1e-9), "", ""] for name in kernels]
    rows.append(["**peak** (fastest in each half-round)", spread(tops, 0, 1e-9), "", "100 %"])
    shares = {}
    for kind, name in arms[len(kernels) :]:
        rates = seen[kind, name]
        cells = alone[name][0] if kind == "pass" else name
        label = name if kind == "pass" else f"training step, {'single' if name == 1 else f'stack of {name}'}"
        shares[label] = [rate / top for rate, top in zip(rates, tops, strict=True)]
        each = [flops / rate for rate in rates]
        rows.append(
            [label, spread(rates, 0, 1e-9), spread(each, 1, 1e3), spread(shares[label], 0, 100) + " %"]
        )
        print(label, rows[-1][1:], f"{cells} cells", flush=True)
    best = max(
        (label for label in shares if "stack" in label and "training" in label),
        key=lambda label: statistics.median(shares[label]),
    )
    share = statistics.median(shares[best])
    shape = f"U-Net {'-'.join(map(str, recipe.widths))}, batch {recipe.batch}, {'x'.join(map(str, size))}"
    said = (
        f"goal {GOAL:.0%} of the peak: {'met' if share >= GOAL else 'missed'}, {share:.0%} in the best "
        f"stack ({best})"
    )
    body = f"""
The reference cell ({shape}) needs {flops / 1e9:.2f} GFLOP a step in its
convolutions; on one core at its peak a step would take {1e3 * flops / statistics.median(tops):.1f} ms. One
thread;
{2 * rounds} half-rounds, peak and cells in turn.

**Stacked training: {said}.**

*Network alone*: forward and backward with a trivial loss. *Convolutions alone*: each of its convolutions
forward and backward, one after the other: what a training step would take if all else took no time.
*Training step*: all of `training.train` between two steps: batch with flips, forward, four different losses
in turn, backward, gradient norms, AdamW. Milliseconds are those of one cell.

{table(["", "GFLOP/s", "ms a cell and step", "share of the peak"], rows)}
"""
    finish(
        "floor.py",
        "speed_floor",
        "How near training comes to the machine's peak",
        body,
        ("torch", "numpy"),
        chosen.quick,
    )


if __name__ == "__main__":
    main()
