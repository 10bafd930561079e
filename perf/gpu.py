"""What a card brings: lossbench beside a plain PyTorch loop on the same GPU, over K, step by step and
replayed, grouped and by vmap.

    python perf/gpu.py [--rounds 3] [--shares 1,4,16] [--seeds 64] [--quick]   writes docs/speed_gpu.md; with
    --quick a tiny check, on the CPU where there is no GPU

The plain loop has lossbench's own network, batches and schedule, with the data on the card already; it reads
its loss after every step, validates by Dice after the same steps, and scores test images by Dice alone.
lossbench does all that a sweep does, in processes that are started for it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from timing import REFERENCE, ROOT, finish, one_thread, spread, table, there_and_back

LOSSES = ("ce", "dice", "dice_ce", "focal")
GOALS = {"times the plain loop": 50, "minutes for 2,500 cells": 10}


def timed(call: Callable[[], None], device: str, repeats: int = 5) -> float:
    """Return the median seconds of a call, waiting for the device."""
    import torch

    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def plain_cell(job, device: str) -> tuple[float, float]:
    """Train, validate and score one cell as a script would; return seconds of a step and of all."""
    import torch

    from lossbench.networks.unet import UNet, max_pool
    from lossbench.training.blocks import blocks_of
    from lossbench.training.optim import learning_rate
    from lossbench.training.train import validation_steps

    data, recipe = job.data, job.cell.recipe
    (block,) = blocks_of([job], device).values()
    began, stepping = time.perf_counter(), 0.0
    network = UNet(data.images.shape[1], len(data.classes), recipe.widths, data.masks.ndim - 1)
    network.load_state_dict(block.start)
    network.pool = max_pool
    network.to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(recipe, min(step, recipe.steps - 1), 1.0)
    )

    @torch.no_grad()
    def dice(images, masks) -> float:
        found = []
        for begin in range(0, len(images), recipe.batch):
            hit, true = (
                network(images[begin : begin + recipe.batch]).argmax(1) > 0,
                masks[begin : begin + recipe.batch] > 0,
            )
            found.append(
                (
                    2
                    * (hit & true).flatten(1).sum(1)
                    / (hit.flatten(1).sum(1) + true.flatten(1).sum(1)).clamp_min(1)
                )
                .mean()
                .item()
            )
        return statistics.mean(found)

    def held_out(part: str) -> tuple:
        rows = torch.from_numpy(data.split[part]).to(device)
        return block.batches.images[rows], block.batches.masks[rows]

    for step in range(recipe.steps):
        started = time.perf_counter()
        images, masks, _ = block.batch(torch.tensor([step], device=device))
        optimizer.zero_grad()
        loss = job.loss(network(images), masks)
        loss.backward()
        optimizer.step()
        schedule.step()
        loss.item()
        stepping += time.perf_counter() - started
        if step + 1 in validation_steps(recipe):
            dice(*held_out("val"))
    dice(*held_out("test"))
    return stepping / recipe.steps, time.perf_counter() - began


def grouped(count: int, recipe, device: str) -> Callable[[], None]:
    """Return a forward and backward pass of K cells as one grouped network."""
    import torch

    from lossbench.catalogue.registry import parse_network
    from lossbench.networks.build import Network
    from lossbench.networks.stack import Stack

    network = Network(parse_network(f"unet(widths={list(recipe.widths)})"), 1, 2, (64, 64))
    stack = Stack(network, [network.start(n) for n in range(count)], device)
    x = torch.randn(recipe.batch, count, 64, 64, device=device)

    def call() -> None:
        stack(x).square().mean().backward()
        stack.module.zero_grad(set_to_none=False)

    return call


def vmapped(count: int, recipe, device: str) -> Callable[[], None]:
    """Return the same by torch.func.vmap over K ordinary networks."""
    import torch

    from lossbench.networks.unet import UNet, max_pool

    networks = [UNet(1, 2, recipe.widths, 2).to(device) for _ in range(count)]
    for network in (
        networks
    ):  # vmap knows no functions of our own, and cannot write in place into what it has not stacked
        network.pool = max_pool
        for layer in network.modules():
            if isinstance(layer, torch.nn.LeakyReLU):
                layer.inplace = False
    values, _ = torch.func.stack_module_state(networks)
    x = torch.randn(count, recipe.batch, 1, 64, 64, device=device)

    def one(own, images):
        return torch.func.functional_call(networks[0], own, (images,))

    def call() -> None:
        torch.func.vmap(one)(values, x).square().mean().backward()
        for value in values.values():
            value.grad = None

    return call


def steps(counts: tuple[int, ...], rounds: int, recipe, data, device: str) -> tuple[list[list], float]:
    """Return rows of cell-steps a second, and the median seconds of a plain loop's whole cell."""
    from lossbench.catalogue.registry import get_loss
    from lossbench.experiment.cells import Cell
    from lossbench.sweep import train_stack
    from lossbench.training import graphs
    from lossbench.training.blocks import Job

    cells = [Cell.of(REFERENCE, name, recipe=recipe) for name in LOSSES]
    jobs = [Job(cell, data, get_loss(cell.loss, check=False)) for cell in cells]
    replay = graphs.replay
    arms: list[tuple] = [
        ("plain loop", 1),
        *((kind, k) for k in counts for kind in ("step by step", "replayed")),
    ]
    seen: dict[tuple, list[float | None]] = {arm: [] for arm in arms}
    whole = []
    for half, arm in there_and_back(arms, rounds):
        kind, count = arm
        if kind == "plain loop":
            taken, cell = plain_cell(jobs[half % len(jobs)], device)
            whole.append(cell)
        else:
            with mock.patch.object(graphs, "replay", replay if kind == "replayed" else lambda step: None):
                taken = train_stack.step_seconds(jobs, device, count)
        seen[arm].append(None if taken is None else count / taken)  # None: it did not fit
    rows = []
    for (kind, count), rates in seen.items():
        pairs = [
            (rate, plain)
            for rate, plain in zip(rates, seen["plain loop", 1], strict=True)
            if rate is not None
        ]
        told = (
            [spread([rate for rate, _ in pairs], 0), spread([rate / plain for rate, plain in pairs], 1)]
            if pairs
            else ["does not fit", ""]
        )
        rows.append([kind, count, *told])
        print(*rows[-1], flush=True)
    return rows, statistics.median(whole)


def sweeps(shares: tuple[int, ...], seeds: int, settings: dict, device: str) -> list[tuple[int, int, float]]:
    """Sweep a fresh experiment with so many workers on the card; return workers, cells and seconds, start-up
    of all processes included.
    """
    found = []
    for share in shares:
        with tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
            file = Path(scrap) / "gpu.toml"
            values = "\n".join(f"{key} = {value!r}" for key, value in settings.items())
            names = ", ".join(f'"{name}"' for name in LOSSES)
            file.write_text(
                f'name = "gpu"\nseeds = {seeds}\nlosses = [{names}]\ndatasets = '
                f'["{REFERENCE}"]\n[recipe]\n{values}\n'
            )
            where = ["--gpus", "1", "--per-gpu", str(share)] if device == "cuda" else ["--serial"]
            command = [
                sys.executable,
                "-m",
                "lossbench",
                "sweep",
                str(file),
                "--results",
                f"{scrap}/results",
                "--no-report",
                *where,
            ]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command[2:])} failed: {done.stderr.strip()[-500:]}")
            found.append((share, len(LOSSES) * seeds, time.perf_counter() - began))
            print(*found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shares", default="1,4,16", help="numbers of workers that share the card")
    parser.add_argument("--seeds", type=int, default=64, help="seeds of the sweeps, of four cells each")
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    one_thread()
    import torch

    from lossbench.catalogue.registry import get_dataset
    from lossbench.experiment.cells import Recipe

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not chosen.quick:
        sys.exit("there is no usable GPU here: --quick checks the script on the CPU")
    quick = chosen.quick
    counts, shares, seeds, rounds = (
        ((2,), (1,), 1, 1)
        if quick
        else ((8, 32, 64), tuple(map(int, chosen.shares.split(","))), chosen.seeds, chosen.rounds)
    )
    settings = {"steps": 8, "validations": 1} if quick else {"steps": 300, "validations": 6}
    recipe, data = (
        Recipe(**settings),
        get_dataset(f"{REFERENCE[:-1]}, n_val=8, n_test=8)" if quick else REFERENCE, 0),
    )
    rows, cell = steps(counts, rounds, recipe, data, device)
    alone = []
    for count in counts:
        pair = [timed(make(count, recipe, device), device) for make in (grouped, vmapped)]
        alone.append(
            [count, *(f"{1e3 * seconds / count:.2f}" for seconds in pair), f"{pair[1] / pair[0]:.2f}"]
        )
    runs = sweeps(shares, seeds, settings, device)
    best = max(cells / seconds for _, cells, seconds in runs)
    told = {"times the plain loop": best * cell, "minutes for 2,500 cells": 2500 / best / 60}
    met = {
        name: told[name] >= goal if name.startswith("times") else told[name] <= goal
        for name, goal in GOALS.items()
    }
    goals = "; ".join(
        f"{told[name]:.1f} {name} (goal {goal}: {'met' if met[name] else 'missed'})"
        for name, goal in GOALS.items()
    )
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    body = f"""
{name}; the reference cell (U-Net 8-16-32, batch 8, 64 x 64), {recipe.steps} steps, {
        recipe.validations
    } validations.

**{goals}.**

## Training steps

One process. *Replayed*: as a CUDA graph, where the losses allow it.

{table(["", "cells", "cell-steps a second", "times the plain loop"], rows)}

## Forward and backward alone

Milliseconds a cell: one grouped network, and torch.func.vmap over ordinary ones.

{table(["cells", "grouped", "vmap", "vmap / grouped"], alone)}

## Cells an hour

`lossbench sweep --gpus 1 --per-gpu N` of fresh cells, start-up and data included; a plain loop takes {
        cell:.2f} s a cell.

{
        table(
            ["workers", "cells", "seconds", "cells an hour", "times the plain loop"],
            [
                [
                    share,
                    cells,
                    f"{seconds:.1f}",
                    f"{3600 * cells / seconds:,.0f}",
                    f"{cell * cells / seconds:.1f}",
                ]
                for share, cells, seconds in runs
            ],
        )
    }
"""
    finish("gpu.py", "speed_gpu", "What a graphics card brings", body, ("torch", "numpy"), quick)


if __name__ == "__main__":
    main()
