"""What the evaluation of a cell costs beside its training: a stack of four, CPU seconds of one thread.

    LOSSBENCH_DATA=... python perf/evaluation.py [--rounds 5] [SPEC ...]

Trains some steps, then repeats in turns a step, a validation as during training, and the scoring after the
last step. CPU time, since other work on the machine then weighs less. Prints a Markdown table: milliseconds a
cell, medians and ranges, and the share that evaluation has of 2,400 steps with six validations.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from timing import REFERENCE, one_thread, spread, table, there_and_back

SETS = (REFERENCE, "crackforest(view='whole')", "sirst(view='whole')", "msd_hippocampus(view='whole_slices')")
CELLS, STEPS, VALIDATIONS = 4, 2400, 6


def training_of(spec: str, steps: int):
    """Return a stack of four cells after its last step but one."""
    from lossbench.experiment.reading import read_experiment
    from lossbench.sweep.train_stack import jobs_of
    from lossbench.training.train import Training

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cells.toml"
        file.write_text(
            f'name = "cells"\nseeds = [2000000]\nlosses = ["ce", "dice", "dice_ce", "focal"]\n'
            f'datasets = ["{spec}"]\n[recipe]\nsteps = {steps}\nvalidations = 1\n'
        )
        training = Training(jobs_of(read_experiment(file).cells()))
    for done in range(steps):
        training.step.feed(done)
        training.step(done)
    training.done = steps
    for results in training.results[steps]:
        results.train_loss, results.grad_norm = [0.0], [0.0]
    return training


def measure(spec: str, rounds: int, steps: int) -> list[str]:
    """Return the row of a data set."""
    training = training_of(spec, steps)
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
    for arm in arms.values():
        arm()
    seen = {name: [] for name in arms}
    for _, name in there_and_back(arms, rounds):
        began = time.process_time()
        arms[name]()
        seen[name].append((time.process_time() - began) * 1e3 / CELLS / (4 if name == "step" else 1))
    middle = {name: statistics.median(values) for name, values in seen.items()}
    evaluation = middle["end"] + (VALIDATIONS - 1) * middle["look"]
    block = training.members[0]
    pixels = [sum(t.extent[0] * t.extent[1] for t in own.tilings) / 1e6 for own in (block.during, block.test)]
    row = [f"`{spec}`", f"{pixels[0]:.2f}, {pixels[1]:.2f}", *(spread(seen[name], 1) for name in arms)]
    return [*row, f"{evaluation / (STEPS * middle['step']):.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", default=SETS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="steps of training before")
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
    rows = [measure(spec, chosen.rounds, chosen.steps) for spec in chosen.specs]
    print(table(head, rows))


if __name__ == "__main__":
    main()
