"""What whole images cost: a step on patches drawn from them against one on prepared crops, and tiles against
plain forward passes over the same pixels. Prints CPU seconds and their ratios.

    LOSSBENCH_DATA=... OMP_NUM_THREADS=1 python perf/patches.py [--rounds 12]

The reference U-Net, a stack of four losses, eight images of 64 x 64 a step; both arms take turns in
one process.
Goals: 1.05 for a step, 1.15 for tiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

LOSSES = ("ce", "dice", "dice_ce", "focal")


def turns(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each arm, which take turns, forwards and backwards."""
    seen: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name in list(arms) if turn % 2 else list(arms)[::-1]:
            started = time.process_time()
            arms[name]()
            if turn:  # the first prepares
                seen[name].append(time.process_time() - started)
    return seen


def training(spec: str, **settings: object):
    """Return a training of the reference recipe on a data set."""
    from lossbench import get_dataset
    from lossbench.catalogue.registry import get_loss
    from lossbench.experiment.cells import Cell, Recipe
    from lossbench.training.blocks import Job
    from lossbench.training.train import Training

    data, recipe = get_dataset(spec), Recipe(steps=2000, batch=8, **settings)
    cells = [Cell.of(spec, loss, recipe=recipe) for loss in LOSSES]
    return Training([Job(cell, data, get_loss(cell.loss, check=False)) for cell in cells])


def steps(of, count: int) -> Callable[[], None]:
    """Return a call that trains so many further steps."""
    done = iter(range(2000))

    def run() -> None:
        for _ in range(count):
            number = next(done)
            of.step.feed(number)
            of.step(number)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds

    import torch

    from lossbench.engine.worker import prepare
    from lossbench.training.predict import AT_ONCE, Tiles, predict

    prepare()
    torch.set_num_threads(1)
    whole = training("crackforest", patch=64, sampler="foreground")
    crops = training("crackforest(view='tiles', size=64)")
    tiles = whole.members[0].test
    few = Tiles(tiles.data, tiles.index[:2], (64, 64))
    at_once = AT_ONCE // 64**2
    batches = [few.images(n, min(n + at_once, len(few))) for n in range(0, len(few), at_once)]
    shown = [torch.from_numpy(batch).repeat(1, len(LOSSES), 1, 1) for batch in batches]

    def plain() -> None:
        for batch in shown:
            whole.stack.infer(batch)

    def joined() -> None:
        for _ in predict(whole.stack, [few] * len(LOSSES), 8):
            pass

    pairs = (
        ("a step on patches / on crops", {"patches": steps(whole, 4), "crops": steps(crops, 4)}, 4),
        (f"{len(few)} tiles, joined / plain", {"joined": joined, "plain": plain}, 1),
    )
    for what, arms, each in pairs:
        first, second = turns(arms, rounds).values()
        ratios = np.divide(first, second)
        low, high = np.quantile(ratios, [0.1, 0.9])
        times = [f"{1000 * statistics.median(times) / each:.1f} ms" for times in (first, second)]
        print(f"{what}: {' / '.join(times)}; ratio {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
