"""What is paid before and beside training: imports, the command line's start, and the fixed cost of a cell.

    python perf/startup.py [--rounds 3] [--quick]     writes docs/speed_startup.md, about three minutes

Whole processes, from a warm file cache, in turns. The fixed cost is what a cell of one step takes beyond
that step, in a warm process of one thread: it is what `train_stack.run_stack` does for a stack of four, cut
into its parts."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import pkgutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from timing import REFERENCE, ROOT, finish, one_thread, spread, table, there_and_back

from lossbench.engine.tasks import STACK
from lossbench.experiment.reading import read_experiment
from lossbench.store import provenance
from lossbench.sweep import train_stack

IMPORTS = (
    "numpy",
    "scipy.ndimage",
    "pandas",
    "torch",
    "torchvision",
    "seaborn",
    "distributed",
    "monai",
    "lossbench.cli.main",
    "lossbench.training.train",
)
LOSSES = '["ce", "dice", "dice_ce", "focal"]'
GOAL_MS, GOAL_SCORED_MS = 50, 80  # of a cell beside its steps: without evaluation, and with it
EVALUATION = ("validation and test images predicted and scored", "facts of a record")
PARTS = {  # what is timed inside a stack: label -> (module, function)
    "data opened or drawn": ("lossbench.sweep.train_stack", "_open"),
    "start, order, hashes": ("lossbench.training.blocks", "blocks_of"),
    "validation and test images predicted and scored": ("lossbench.training.train.Training", "_finished"),
    "facts of a record": ("lossbench.training.outcome", "score"),
    "record written": ("lossbench.store.store.Store", "write"),
}

# What no scoring can do without, which is part of what stands above.
PASSES = {"of these, the passes through the network": ("lossbench.networks.stack.Stack", "infer")}


def whole(command: list[str]) -> float:
    """Return the seconds of a process; its output is swallowed, its failure is not."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[1:])} failed: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began


def experiment(
    folder: Path, name: str, steps: int, seeds: int, data: tuple[str, ...], more: str = ""
) -> Path:
    file = folder / f"{name}.toml"
    sets = ", ".join(f'"{text}"' for text in data)
    file.write_text(
        f'name = "{name}"\nseeds = {seeds}\nlosses = {LOSSES}\ndatasets = [{sets}]\n[recipe]\nsteps = '
        f"{steps}\nvalidations = 1\n{more}"
    )
    return file


def processes(folder: Path, rounds: int, quick: bool) -> list[list[str]]:
    """Return the rows for imports and commands, each in a process of its own."""
    python, cli = sys.executable, [sys.executable, "-m", "lossbench"]
    tiny = "scenes(foreground=0.05, noise={}, size=32, n_train=24, n_val=8, n_test=12)"
    file = experiment(
        folder,
        "startup",
        3,
        2 if quick else 3,
        tuple(tiny.format(noise) for noise in (0.4, 0.8)),
        "widths = [4, 8]\n",
    )
    results = str(folder / "results")
    whole([*cli, "sweep", str(file), "--results", results, "--serial", "--no-report"])
    commands = {"python, nothing imported": [python, "-c", "pass"]}
    for name in IMPORTS[3:4] if quick else IMPORTS:
        if importlib.util.find_spec(name.partition(".")[0]):
            commands[f"`import {name}`"] = [python, "-c", f"import {name}"]
    commands |= {
        "`lossbench --help`": [*cli, "--help"],
        "`lossbench plan quick`": [*cli, "plan", "quick", "--results", str(folder / "none")],
    }
    slow = {"`lossbench report`": [*cli, "report", "--results", results]}
    for command in commands.values():
        whole(command)
    seen: dict[str, list[float]] = {name: [] for name in commands | slow}
    for _, name in there_and_back(commands, rounds):
        seen[name].append(whole(commands[name]))
    for name, command in slow.items():
        for _ in range(1 if quick else 2):
            seen[name].append(whole(command))
    rows = [[name, spread(values), len(values)] for name, values in seen.items()]
    for row in rows:
        print(*row, flush=True)
    return rows


class Clock:
    """Seconds spent inside some functions, by label; a function called inside another counts in both."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def watch(self, stack: contextlib.ExitStack, label: str, where: str, name: str) -> None:
        owner = pkgutil.resolve_name(where)
        function = getattr(owner, name)

        def timed(*arguments, **named):
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - began

        holders = [
            m
            for key, m in list(sys.modules.items())
            if key.startswith("lossbench.") and getattr(m, name, None) is function
        ]
        for holder in {id(place): place for place in (owner, *holders)}.values():
            stack.enter_context(mock.patch.object(holder, name, timed))


def fixed_cost(folder: Path, rounds: int) -> tuple[list[list[str]], float, float]:
    """Return the rows for a stack of four one-step cells, and the median milliseconds a cell beyond step and
    evaluation, and beyond the step.
    """
    one_thread()
    import lossbench.training.train  # noqa: F401  (its modules are looked through for what is to be timed)
    from lossbench.sweep import guard
    from lossbench.sweep.train_stack import run_stack

    facts, seen, long = provenance.collect(results=folder), [], []
    short = read_experiment(experiment(folder, "one", 1, 1, (REFERENCE,))).cells()
    many = read_experiment(experiment(folder, "eleven", 11, 1, (REFERENCE,))).cells()
    for number in range(rounds + 1):
        for cells, kept in ((short, seen), (many, long)):
            payload = train_stack.payload(
                cells, folder / f"cost{number}{len(kept)}{cells is short}", (), facts, size=STACK
            )
            clock = Clock()
            with contextlib.ExitStack() as stack, contextlib.redirect_stdout(io.StringIO()):
                for label, (where, name) in (PARTS | PASSES).items():
                    clock.watch(stack, label, where, name)
                guard.fresh.cache_clear()  # or it would refuse the stack for what is watched
                began = time.perf_counter()
                if "failed" in run_stack(payload)["outcomes"].values():
                    sys.exit("a one-step cell failed")
                clock.seconds["all"] = time.perf_counter() - began
            if number:  # the first warms up, and opens the data
                kept.append({label: 1e3 * value / len(cells) for label, value in clock.seconds.items()})
            elif cells is short:
                first = 1e3 * clock.seconds["data opened or drawn"]
    steps = [(b["all"] - a["all"]) / 10 for a, b in zip(seen, long, strict=True)]
    fixed = [a["all"] - step for a, step in zip(seen, steps, strict=True)]
    looks = [sum(run.get(label, 0.0) for label in EVALUATION) for run in seen]
    bare = [a - b for a, b in zip(fixed, looks, strict=True)]
    rows = [
        ["one step", spread(steps, 1)],
        ["**all but the step**", spread(fixed, 1)],
        ["**neither step nor evaluation**", spread(bare, 1)],
    ]
    rows += [
        [
            f"{label}{' (evaluation)' * (label in EVALUATION)}",
            spread([run.get(label, 0.0) for run in seen], 1),
        ]
        for label in (*PARTS, *PASSES)
    ]
    rest = [
        total - sum(run.get(label, 0.0) for label in PARTS) for total, run in zip(fixed, seen, strict=True)
    ]
    rows.append(["the rest (claims, specs, optimiser)", spread(rest, 1)])
    rows.append(["drawing the data of a block, once a worker", f"{first:.0f} (not divided by cells)"])
    return rows, statistics.median(bare), statistics.median(fixed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
        rows = processes(Path(scrap), 1 if chosen.quick else chosen.rounds, chosen.quick)
        costs, bare, fixed = fixed_cost(Path(scrap), 2 if chosen.quick else 12)
    body = f"""
## Whole processes

Seconds from start to exit, from a warm file cache with compiled bytecode. `report` is run on 24 tiny cells
(four losses, two data sets, three seeds) and writes tables, figures and the page.

{table(["", "seconds", "runs"], rows)}

## Fixed cost of a cell

The reference cell in a stack of four on a warm worker of one thread, milliseconds a cell; 50 validation and
100 test images. Beyond steps and evaluation {bare:.0f} ms, goal {GOAL_MS}:
{"met" if bare < GOAL_MS else "missed"}. With evaluation (one validation, predictions, scores) {fixed:.0f} ms,
goal {GOAL_SCORED_MS}: {"met" if fixed < GOAL_SCORED_MS else "missed"}.

{table(["", "ms a cell"], costs)}
"""
    finish(
        "startup.py",
        "speed_startup",
        "What is paid before and beside training",
        body,
        ("torch", "numpy", "pandas"),
        chosen.quick,
    )


if __name__ == "__main__":
    main()
