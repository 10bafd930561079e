"""What the evaluation of a cell costs beside its training: a stack of four, CPU seconds of one thread.

    LOSSBENCH_DATA=... python perf/evaluation.py [--rounds 2] [--most 1] [SPEC ...]

Trains some steps on patches, then repeats in turns a step, a validation as during training, and the scoring
after the last step. The latter two take at most so many Mpx of images of each kind (``--most``), and are
extrapolated by pixels to what the budgets allow. CPU time, on which other work on the machine weighs less.
Prints a Markdown table: milliseconds a cell, medians and ranges, and the share that evaluation has of 2,400
steps with six validations. Goal: a third on every public set.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import REFERENCE, one_thread, spread, table, there_and_back

SETS = (
    "neu_seg",
    "msd_hippocampus(view='whole_slices', subset=None)",
    "crackforest(view='whole')",
    "sirst(view='whole')",
    "magnetic_tile(view='whole')",
    "lgg_mri",
    "acdc",
    "fuseg",
    "chase_db1",
    "epfl_roads",
    "hyta_sky",
    "camvid(view='whole')",
    "drosophila_vnc",
    "coffee_leaf",
    REFERENCE,
)
CELLS, STEPS, VALIDATIONS = 4, 2400, 6


def training_of(spec: str, steps: int):
    """Return a stack of four cells after its last step but one."""
    from lossbench.experiment.reading import read_experiment
    from lossbench.sweep.train_stack import jobs_of
    from lossbench.training.train import Training

    patch = "" if spec == REFERENCE else "patch = 48" if "hippocampus" in spec else "patch = 64"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cells.toml"
        file.write_text(
            f'name = "cells"\nseeds = [2000000]\nlosses = ["ce", "dice", "dice_ce", "focal"]\n'
            f'datasets = ["{spec}"]\n[recipe]\nsteps = {steps}\nvalidations = 1\n{patch}\n'
        )
        training = Training(jobs_of(read_experiment(file).cells()))
    for done in range(steps):
        training.step.feed(done)
        training.step(done)
    training.done = steps
    for results in training.results[steps]:
        results.train_loss, results.grad_norm = [0.0], [0.0]
    return training


def pixels(tiles) -> float:
    """Return the Mpx of the images that some tiles cover."""
    return float(sum(np.prod(tiling.extent) for tiling in tiles.tilings)) / 1e6


def less(tiles, most: float):
    """Return tiles of as many images as hold ``most`` Mpx, spread evenly over all; at least one."""
    every = max(1, round(pixels(tiles) / most))
    if every == 1:
        return tiles
    return type(tiles)(tiles.data, tiles.index[::every], tiles.tilings[0].side, tiles.mapped)


def measure(spec: str, rounds: int, steps: int, most: float) -> list[str]:
    """Return the row of a data set."""
    training = training_of(spec, steps)
    whole = training.members[0]
    block = dataclasses.replace(
        whole, during=less(whole.during, most), later=less(whole.later, most), test=less(whole.test, most)
    )
    training.members = [block] * len(training.members)
    # From what is measured to what the budgets of pixels allow.
    looked = pixels(whole.during) / pixels(block.during)
    scored = [sum(map(pixels, (own.during, own.later, own.test))) for own in (whole, block)]
    times = {"step": 1 / 4, "look": looked, "end": scored[0] / scored[1]}
    results = {steps: training.results[steps]}
    last = steps - 1

    def step() -> None:
        for _ in range(4):
            training.step.counter.fill_(last)
            training.step(last)

    arms = {
        "step": step,
        "look": lambda: training._validate(results),
        "end": lambda: training._finished(steps),
    }
    arms["step"]()
    arms["look"]()
    seen = {name: [] for name in arms}
    for _, name in there_and_back(arms, rounds):
        began = time.process_time()
        arms[name]()
        seen[name].append((time.process_time() - began) * 1e3 / CELLS * times[name])
    middle = {name: statistics.median(values) for name, values in seen.items()}
    evaluation = middle["end"] + (VALIDATIONS - 1) * middle["look"]
    sizes = ", ".join(f"{pixels(own):.2f}" for own in (whole.during, whole.test))
    row = [f"`{spec}`", sizes, *(spread(seen[name], 1) for name in arms)]
    row.append(f"{evaluation / (STEPS * middle['step']):.0%}")
    print(*row, sep=" | ", flush=True)  # it takes a while: each row as it comes
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", default=SETS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="steps of training before")
    parser.add_argument("--most", type=float, default=1.0, help="Mpx that are measured of each kind")
    chosen = parser.parse_args()
    one_thread()
    head = [
        "data",
        "Mpx looked at, Mpx of test",
        "step",
        "validation",
        "scores at the end",
        "share of 2,400 steps",
    ]
    rows = [measure(spec, chosen.rounds, chosen.steps, chosen.most) for spec in chosen.specs]
    print(table(head, rows))


if __name__ == "__main__":
    main()
