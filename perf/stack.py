"""Throughput of training over cells in a stack, of two workers over one, and of one with two threads.

    python perf/stack.py [--rounds 4] [--quick]     writes docs/speed_stack.md, about four minutes

Steps of `training.train` itself, in warm processes of one thread set up as the sweep's; validation is left
out. All arms take turns, forwards and backwards, in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise
from unittest import mock

from timing import REFERENCE, Worker, finish, spread, table, there_and_back, together

SIZES = (1, 2, 4, 6, 8)
LOSSES = ("ce", "dice", "dice_ce", "focal")
NETWORKS = {
    "8-16-32, batch 8 (reference cell)": {"widths": (8, 16, 32), "batch": 8},
    "16-32-64, batch 16": {"widths": (16, 32, 64), "batch": 16},
}
# These train one cell at a time.
ALONE = {
    "ResNet-18 U-Net of smp": {"network": "smp:Unet(encoder_name='resnet18')", "batch": 8},
    "LR-ASPP MobileNet of torchvision": {"network": "torchvision:lraspp_mobilenet_v3_large", "batch": 8},
}
GOAL = 1.8
_open: dict = {}  # a worker draws the data once


def rate(cells: int, steps: int, settings: dict, last: bool = False) -> dict:
    """Train for some steps; return cell-steps a second from the median step, and the mean over all of them
    (first left out).
    """
    from lossbench.catalogue.registry import get_dataset, get_loss
    from lossbench.engine import worker
    from lossbench.experiment.cells import Cell, Recipe
    from lossbench.networks import stack
    from lossbench.training import blocks, train

    worker.prepare()
    data = _open.get("data")
    if data is None:
        data = _open["data"] = get_dataset(f"{REFERENCE[:-1]}, n_val=8, n_test=8)", 0)
    recipe = Recipe(steps=steps, validations=1, stacked=cells > 1, **settings)
    members = [Cell.of(REFERENCE, LOSSES[n % len(LOSSES)], recipe=recipe) for n in range(cells)]
    jobs = [blocks.Job(cell, data, get_loss(cell.loss, check=False)) for cell in members]
    marks: list[float] = []
    with mock.patch.object(train, "Stack", channels_last(stack.Stack) if last else stack.Stack):
        train.train(jobs, on_step=lambda step, values: marks.append(time.perf_counter()))
    gaps = [b - a for a, b in pairwise(marks)][:-1]  # the last step validates
    return {"median": cells / statistics.median(gaps), "mean": cells * len(gaps) / sum(gaps)}


def channels_last(plain: type) -> type:
    """Return a stack whose weights and images lie channels last; for one cell only."""
    import torch

    layout = {"memory_format": torch.channels_last}

    class ChannelsLast(plain):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for name, own in self.module.named_parameters():
                if own.ndim == 4:
                    start, part = own.detach().clone(), self.parts[name]
                    first, second, *kernel = own.shape
                    own.data, own.grad = (
                        whole[part].view(first, *kernel, second).permute(0, 3, 1, 2)
                        for whole in (self.values, self.slopes)
                    )
                    own.data.copy_(start)

        def __call__(self, x, seed=0):
            return super().__call__(x.contiguous(**layout), seed)

    return ChannelsLast


def sizes(workers: list[Worker], rounds: int, steps: int, settings: dict) -> list[list[str]]:
    """Return the rows of the table over K for one network."""
    arms = [*SIZES, "channels_last"]
    seen: dict = {arm: [] for arm in arms}
    for _, arm in there_and_back(arms, rounds):
        k = 1 if arm == "channels_last" else arm
        _, (value,) = together([(workers[0], rate, k, steps, settings, arm == "channels_last")])
        seen[arm].append(value["median"])
    rows = []
    for arm in (1, "channels_last", *SIZES[1:]):
        gains = [own / one for own, one in zip(seen[arm], seen[1], strict=True)]
        label = "1, channels_last" if arm == "channels_last" else arm
        milliseconds = [1e3 / v for v in seen[arm]]
        rows.append([label, spread(seen[arm], 1), spread(milliseconds, 1), spread(gains)])
        print("K =", *rows[-1], flush=True)
    return rows


def two_against_one(
    workers: list[Worker], rounds: int, steps: int, settings: dict
) -> tuple[list[list[str]], float]:
    """Return the rows for stacks of 4 on one worker and on two at once, and the median gain."""
    seen: dict[int, list[float]] = {1: [], 2: []}
    for half, count in there_and_back((1, 2), rounds):
        chosen = workers if count == 2 else [workers[half % 2]]
        _, values = together([(w, rate, 4, steps, settings) for w in chosen])
        seen[count].append(sum(v["mean"] for v in values))
    gains = [b / a for a, b in zip(seen[1], seen[2], strict=True)]
    rows = [["one", spread(seen[1], 1), "1"], ["two", spread(seen[2], 1), spread(gains)]]
    return rows, statistics.median(gains)


def threads(workers: list[Worker], rounds: int, steps: int) -> list[list[str]]:
    """Return the rows of networks that cannot be stacked: two processes of one thread against one of two."""
    both = Worker(2)
    arms = {"two workers of one thread": workers, "one worker of two threads": [both]}
    rows = []
    for name, settings in ALONE.items():
        for worker in (*workers, both):
            worker.call(rate, 1, 3, settings)
        seen: dict[str, list[float]] = {arm: [] for arm in arms}
        for _, arm in there_and_back(arms, rounds):
            _, values = together([(worker, rate, 1, steps, settings) for worker in arms[arm]])
            seen[arm].append(sum(value["mean"] for value in values))
        first = next(iter(seen.values()))
        for arm, own in seen.items():
            gains = [b / a for a, b in zip(first, own, strict=True)]
            rows.append([name, arm, spread(own, 1), spread(gains)])
            print(*rows[-1], flush=True)
    both.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    rounds, steps = (1, 5) if chosen.quick else (chosen.rounds, 16)
    workers = [Worker(1), Worker(1)]
    for worker in workers:
        worker.call(rate, 2, 4, NETWORKS["8-16-32, batch 8 (reference cell)"])
    parts = []
    for name, settings in NETWORKS.items():
        print(name, flush=True)
        large = settings["batch"] > 8
        found = sizes(
            workers,
            max(1, rounds // 2) if large else rounds,
            max(5, steps // 3) if large else steps,
            settings,
        )
        columns = ["cells in the stack", "cell-steps a second", "ms a cell and step", "times single"]
        parts.append(f"## {name}\n\n{table(columns, found)}")
    rows, gain = two_against_one(workers, rounds, 2 * steps, NETWORKS["8-16-32, batch 8 (reference cell)"])
    alone = threads(workers, rounds, max(5, steps // 2))
    for worker in workers:
        worker.close()
    networks = "\n\n".join(parts)
    body = f"""
Training steps of `training.train` (batch with flips, forward, losses, backward, gradient norms, AdamW), one
thread a process, 64 x 64. *Times single*: over the single cell of the same half-round ({2 * rounds} of them,
half as many for the large network). One cell alone is a network of one group, which a stacked recipe never
uses.

{networks}

## Two workers

Reference cells in stacks of 4: one process at work, and two at once. Goal {GOAL}:
{"met" if gain >= GOAL else "missed"}, {gain:.2f}.

{table(["workers", "cell-steps a second", "times one"], rows)}

## Networks that train one cell at a time

The same two cores as two workers of one thread, each with a cell of its own, or as one worker of two threads.

{table(["network", "cores", "cell-steps a second", "times two workers"], alone)}
"""
    finish("stack.py", "speed_stack", "What stacking brings", body, ("torch", "numpy"), chosen.quick)


if __name__ == "__main__":
    main()
