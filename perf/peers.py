"""Cells an hour of lossbench against a MONAI loop (and a Lightning loop) on the same cells, alternating in
one run.

    python perf/peers.py                 writes docs/speed_peers.md, about five minutes on a quiet machine
    python perf/peers.py --lightning     the Lightning loop as well
    python perf/peers.py --quick         a tiny check that writes nothing

Same network, losses, start, batches, learning rates, steps, validation schedule and metrics; that losses and
batches are the same is checked before anything is timed. Every half-round times all arms, in the order A B C
D and then D C B A, in processes that stay warm; start-up is reported apart. Needs the extra 'peers'.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from timing import REFERENCE, Worker, finish, spread, table, there_and_back, together

from lossbench.engine.tasks import STACK
from lossbench.experiment.reading import read_experiment
from lossbench.store import provenance
from lossbench.sweep import train_stack

LOSSES = ("ce", "dice", "dice_ce", "focal")
SEEDS = (0, 1)
GOALS = {"best": 4, "default": 8}


@dataclass(frozen=True)
class Arm:
    """One way to train cells: ``processes`` of ``threads``, ``loaders`` worker processes of a DataLoader in
    each.
    """

    name: str
    processes: int
    threads: int
    loop: str = ""
    loaders: int = 0


OURS = Arm("lossbench, stacks of 4", 2, 1)
MONAI = (
    Arm("MONAI", 2, 1, "monai"),
    Arm("MONAI (default)", 1, 2, "monai"),
    Arm("MONAI, two loader workers", 1, 2, "monai", 2),
)
LIGHTNING = (Arm("Lightning", 2, 1, "lightning"), Arm("Lightning (default)", 1, 2, "lightning"))


def run_stack(payload: dict) -> None:
    """Train one stack exactly as a worker of a sweep does."""
    from lossbench.engine import worker

    out = worker.call("lossbench.sweep.train_stack:run_stack", payload, lambda event: None)
    if out["kind"] != "ok" or "failed" in out["value"]["outcomes"].values():
        raise RuntimeError(out.get("error") or out["value"])


def run_loop(loop: str, *arguments) -> dict:
    import peer_loops

    return getattr(peer_loops, f"{loop}_cell")(*arguments)


def set_up_loop(*arguments) -> dict:
    import peer_loops

    return peer_loops.set_up(*arguments)


class Ours:
    """Our side: an experiment of four losses and two seeds; each process trains the stack of one seed."""

    def __init__(self, folder: Path, data: str, settings: dict):
        self.folder, self.count = folder, 0
        file = folder / "peers.toml"
        values = "\n".join(
            f"{key} = {list(v) if isinstance(v, tuple) else v!r}" for key, v in settings.items()
        )
        file.write_text(
            f'name = "peers"\nseeds = {list(SEEDS)}\nlosses = {list(LOSSES)}\ndatasets = '
            f'["{data}"]\n[recipe]\n{values}\n'
        )
        self.cells = read_experiment(file).cells()
        self.data = self.cells[0].data.text  # with every default filled in: it names the random streams
        self.facts = provenance.collect(results=folder)

    def payloads(self) -> list[dict]:
        """Return a payload a seed, into a fresh results folder, so that nothing counts as trained already."""
        self.count += 1
        self.results = self.folder / f"results{self.count}"
        return [
            train_stack.payload(
                [c for c in self.cells if c.seed == s], self.results, (), self.facts, size=STACK
            )
            for s in SEEDS
        ]

    def records(self) -> dict[tuple[str, int], dict]:
        from lossbench.store.store import Store

        store = Store(self.results)
        found = [(cell, store.read(cell.key, cell.loss.fingerprint)) for cell in self.cells]
        return {(cell.loss.text, cell.seed): record for cell, record in found}


def measure(arms: tuple[Arm, ...], data: str, settings: dict, rounds: int, channels_last: bool) -> dict:
    """Return start-up times, machine-seconds a cell of each arm and half-round, and final scores of every
    cell.
    """
    with tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
        ours = Ours(Path(scrap), data, settings)
        data = ours.data
        (Path(scrap) / "warm").mkdir()
        warm_settings = {**settings, "steps": 4, "validations": 1}
        warm = Ours(Path(scrap) / "warm", data, warm_settings).payloads()
        workers: dict[str, list[Worker]] = {"ours": [], "1": [], "2": []}
        startup: dict[str, list[float]] = {"lossbench worker": [], "MONAI process": []}
        facts: dict = {}
        for payload in warm:
            began = time.perf_counter()
            workers["ours"].append(Worker(1))
            workers["ours"][-1].call(run_stack, payload)
            startup["lossbench worker"].append(time.perf_counter() - began)
        for threads in (1, 1, 2):
            began = time.perf_counter()
            worker = Worker(threads)
            workers[str(threads)].append(worker)
            facts = worker.call(set_up_loop, data, SEEDS, settings)
            for loop in dict.fromkeys(arm.loop for arm in arms if arm.loop):
                worker.call(run_loop, loop, data, LOSSES[0], SEEDS[0], warm_settings, 0, channels_last)
            startup["MONAI process"].append(time.perf_counter() - began)
        cost: dict[str, list[float]] = {arm.name: [] for arm in arms}
        evaluating: dict[str, list[float]] = {arm.name: [] for arm in arms}
        scores: dict[str, dict] = {arm.name: {} for arm in arms}
        starts: dict[tuple[str, int], set] = {}
        for half, arm in there_and_back(arms, rounds):
            if arm is OURS:
                calls = [(w, run_stack, p) for w, p in zip(workers["ours"], ours.payloads(), strict=True)]
                seconds, _ = together(calls)
                done = len(ours.cells)
                for cell, record in ours.records().items():
                    scores[arm.name][cell] = record["metrics"]["dice@0.5"]
                    starts.setdefault(cell, set()).add(record["certificate"]["init"])
            else:
                name = LOSSES[half % len(LOSSES)]
                seeds = SEEDS if arm.processes == 2 else (SEEDS[(half // len(LOSSES) + half) % 2],)
                pool = workers[str(arm.threads)]
                calls = [
                    (w, run_loop, arm.loop, data, name, s, settings, arm.loaders, channels_last)
                    for w, s in zip(pool, seeds, strict=True)
                ]
                seconds, values = together(calls)
                done = len(seeds)
                for seed, value in zip(seeds, values, strict=True):
                    scores[arm.name][name, seed] = value["dice"]
                    starts.setdefault((name, seed), set()).add(value["init"])
                evaluating[arm.name].append(statistics.mean(v["evaluating"] for v in values) / seconds)
            cost[arm.name].append(seconds / done)
            print(
                f"{half:2d}  {arm.name:26s} {seconds:6.1f} s for {done} cells: {seconds / done:6.2f} "
                "s a cell",
                flush=True,
            )
        for pool in workers.values():
            for worker in pool:
                worker.close()
    return {
        "cost": cost,
        "evaluating": evaluating,
        "scores": scores,
        "startup": startup,
        "facts": facts,
        "starts": starts,
    }


def page(
    found: dict, arms: tuple[Arm, ...], data: str, settings: dict, rounds: int, channels_last: bool
) -> str:
    cost, scores, mine = found["cost"], found["scores"], found["cost"][OURS.name]
    ratios = {a.name: [theirs / own for theirs, own in zip(cost[a.name], mine, strict=True)] for a in arms}
    best = min(
        (a for a in arms if a.loop == "monai" and not a.loaders),
        key=lambda a: statistics.median(cost[a.name]),
    )
    default = MONAI[1]
    rows = []
    for arm in arms:
        share = f"{statistics.median(found['evaluating'][arm.name]):.0%}" if arm.loop else "not told apart"
        layout = f"{arm.processes} x {arm.threads}" + (f" + {arm.loaders}" if arm.loaders else "")
        hours = [3600 / c for c in cost[arm.name]]
        rows.append(
            [
                arm.name,
                layout,
                spread(cost[arm.name]),
                spread(hours, 0),
                share,
                spread(ratios[arm.name], 1) if arm.loop else "1",
            ]
        )
    goals = []
    for what, arm in (("best", best), ("default", default)):
        ratio = statistics.median(ratios[arm.name])
        goals.append(
            f"{ratio:.1f} times the MONAI loop at its {what} layout (goal {GOALS[what]}: "
            f"{'met' if ratio >= GOALS[what] else 'missed'})"
        )
    cells = [(name, seed) for seed in SEEDS for name in LOSSES]
    final = [
        [
            f"`{n}`, seed {s}",
            *(f"{scores[a.name][n, s]:.3f}" if (n, s) in scores[a.name] else "not run" for a in arms),
        ]
        for n, s in cells
    ]
    gaps = []
    for arm in arms:
        both = [scores[arm.name][c] - scores[OURS.name][c] for c in cells if c in scores[arm.name]]
        gaps.append(
            f"{statistics.mean(both):+.3f} ({min(both):+.3f} to {max(both):+.3f})" if arm.loop else "0"
        )
    final.append(["minus lossbench, mean", *gaps])
    same = all(len(hashes) == 1 for hashes in found["starts"].values())
    widths = "-".join(map(str, settings["widths"]))
    losses = ", ".join(f"`{name}` {gap:.0e}" for name, gap in found["facts"]["gaps"].items())
    return f"""
One cell: `{data}`,
{settings["steps"]} steps of {settings["batch"]} images, {settings["validations"]} validations (loss, Dice),
then all test images by Dice, HD95, ASSD and surface Dice.
Both sides train lossbench's U-Net {widths}{" (the peers in channels_last)" if channels_last else ""} with
AdamW.
{2 * rounds} pairs in alternating order. lossbench is run as its sweep runs it, records on disk included: two
processes of one thread, a stack of
{len(LOSSES)} losses in each. It also computes what the loops do not: thresholds, calibration, objects, the
signals of every validation. The loops have their data in memory and keep their best weights there.

**{"; ".join(goals)}.**

## Cells an hour

*Layout*: processes x threads + loader workers. *Seconds* are those of the whole machine.
*Times ours*: seconds over ours in the same half-round.

{table(["", "layout", "seconds a cell", "cells an hour", "of it evaluation", "times ours"], rows)}

## The same result

Starts identical: {"yes" if same else "NO"}. Batches: identical, bit for bit.
Gradients of the losses on the same logits, largest relative difference: {losses}.
Test Dice of the last weights; a single network and a stack differ in rounding, which training amplifies.

{table(["cell", *(a.name + (f" {a.processes} x {a.threads}" if a.loop else "") for a in arms)], final)}

## Start-up, in none of the above

Seconds until the first cell can start (process, imports, data drawn, a cell of four steps), once a sweep:
lossbench worker
{spread(found["startup"]["lossbench worker"], 1)}; MONAI process
{spread(found["startup"]["MONAI process"], 1)}, of it importing MONAI {found["facts"]["import"]:.1f} and
drawing the data of two seeds
{found["facts"]["data"]:.1f} (the last process). Files were in the cache, code was compiled. The scheduler's
cost a task is in [scale.md](scale.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of two half-rounds each")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument(
        "--lightning", action="store_true", help="also a Lightning loop, where it is installed"
    )
    parser.add_argument(
        "--channels-last", action="store_true", help="give the peers the faster layout of a single network"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    if importlib.util.find_spec("monai") is None:
        sys.exit("MONAI is not installed: it comes with the extra 'peers'")
    arms: tuple[Arm, ...] = (OURS, *MONAI)
    if chosen.lightning and importlib.util.find_spec("pytorch_lightning") is None:
        print("Lightning is not installed ('pip install pytorch-lightning' brings it); its loop is left out")
    elif chosen.lightning:
        arms += LIGHTNING
    steps, rounds = (6, 1) if chosen.quick else (chosen.steps, chosen.rounds)
    data = f"{REFERENCE[:-1]}, n_test={8 if chosen.quick else 60})"
    # One validation in 40 steps, as in the quick study; the test set is smaller in proportion, so that shares
    # stay what they are.
    settings = {
        "widths": (8, 16, 32),
        "steps": steps,
        "batch": 8,
        "validations": max(1, steps // 40),
        "learning_rate": 0.005,
    }
    found = measure(arms, data, settings, rounds, chosen.channels_last)
    body = page(found, arms, data, settings, rounds, chosen.channels_last)
    packages = ("torch", "numpy", "scipy", "monai", *(("pytorch-lightning",) if LIGHTNING[0] in arms else ()))
    finish("peers.py", "speed_peers", "lossbench beside a MONAI loop", body, packages, chosen.quick)


if __name__ == "__main__":
    main()
