"""What a thousand workers would do: the driver's cost per task and per event is measured, the rest is
simulated.

    python perf/scale.py --table docs/scale.md
    python perf/scale.py --records 100000          # how long a folder of so many records takes to say what it
    holds
    python perf/scale.py --cells 1000              # what a worker holds in memory while it trains so many
    python perf/scale.py --plan 100000             # how long a plan of so many takes

The driver (scheduler, client and our loop, one process) is the only shared part, so it bounds the size of a
sweep. Its cost is CPU time, which a busy machine does not change: measured with tasks that do nothing
on two workers. The simulation then runs a sweep of stacks on W workers: the driver serves one task at a time,
workers start within the first minute, stacks take a log-normal time, and nothing but the wait for the driver
and the end of the queue is lost."""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lossbench.engine.dask import STEPS
from lossbench.engine.run import run
from lossbench.engine.tasks import EngineOptions, Task
from lossbench.engine.worker import emit
from lossbench.store import pack
from lossbench.store.note import Note, NotedCell
from lossbench.store.record import encode
from lossbench.store.store import Store
from lossbench.tables import make
from lossbench.tables.files import load_table

CROWDED = "## A folder of a hundred thousand records"


def nothing(_: dict) -> None:
    """A task without work."""


def chatter(payload: dict) -> None:
    """A task that sends events and does nothing else."""
    for step in range(payload["events"]):
        emit("note", cell="c", step=step, steps=payload["events"], loss=0.5)


def cost(function, payload: dict, count: int) -> float:
    """CPU seconds of the driver from the first to the last of ``count`` tasks."""
    marks = []
    tasks = [Task(f"{n}", payload) for n in range(count)]
    run(tasks, function, EngineOptions(workers=2), on_result=lambda _: marks.append(time.process_time()))
    return marks[-1] - marks[0]


def simulate(
    workers: int, stacks: int, mean: float, per_task: float, load: float, spread: float = 0.25
) -> tuple[float, float]:
    """Return (hours, share of the workers' time spent training) of a sweep whose driver is ``load`` busy with
    events.
    """
    chance = random.Random(0)
    service = per_task / (1 - load)
    free = [(chance.uniform(5, 60), n) for n in range(workers)]  # when each worker is up
    heapq.heapify(free)
    driver = last = work = 0.0
    for _ in range(stacks):
        ready, n = heapq.heappop(free)
        driver = max(driver, ready) + service
        seconds = mean * chance.lognormvariate(-(spread**2) / 2, spread)
        heapq.heappush(free, (driver + seconds, n))
        last, work = max(last, driver + seconds), work + seconds
    return last / 3600, work / (workers * last)


def clock(function) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def crowd(count: int) -> list[str]:
    """Lines of a table: states, tables and pack of ``count`` synthetic records, loose and packed."""
    golden = json.loads(
        (Path(__file__).resolve().parent.parent / "tests" / "golden" / "record_v1.json").read_text()
    )
    steps = {"train_loss": [1 / (n + 1) + 1e-9 * n for n in range(300)]}
    keys = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in range(count)]
    pairs = [(key, golden["loss_fingerprint"]) for key in keys]
    losses = [f"loss {n}" for n in range(20)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        results = Path(folder)
        store = Store(results)
        store.open_for_writing()
        for n, (key, fp) in enumerate(pairs):
            cell = {
                **golden["cell"],
                "seed": n // len(losses),
                "loss": losses[n % len(losses)],
                "data_params": {},
                "block": str(n // len(losses)),
            }
            record = {
                **golden,
                "key": key,
                "loss_fingerprint": fp,
                "cell": cell,
                "loss_label": losses[n % len(losses)],
                "steps": steps,
            }
            path = store.path(key, fp)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(record))  # without the flush that a sweep waits for
        cells = [
            NotedCell(key, fp, losses[n % len(losses)], "scenes", str(n // len(losses)))
            for n, (key, fp) in enumerate(pairs)
        ]
        note = Note(name="scale", cells=cells)
        loose = sum(path.stat().st_size for path in store.cells.glob("*/*.json"))

        def measure(what: str, function) -> None:
            rows.append((what, *clock(function)))
            print(f"{rows[-1][0]}: {rows[-1][1]:.1f} s", flush=True)

        measure(f"states of all, loose files ({loose / 1e6:.0f} MB)", lambda: Store(results).state(pairs))
        measure("check of every loose file, as a sweep starts", lambda: Store(results).open_for_writing())
        measure("pack: write, read back, remove the loose files", lambda: pack.pack(Store(results)))
        size = (results / pack.NAME).stat().st_size
        measure(f"states of all, packed ({size / 1e6:.0f} MB)", lambda: Store(results).state(pairs))
        measure("tables made from the pack", lambda: make.write_tables(results, note))
        measure("tables again, nothing changed", lambda: make.write_tables(results, note))
        measure("load_table('cells')", lambda: load_table(results, "cells"))
        measure("load_table('curves')", lambda: load_table(results, "curves"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines = [
        f"{count} synthetic records; most memory in use: {memory:.1f} GB",
        "",
        "| what | seconds | of the CPU |",
        "|---|---|---|",
    ]
    return [*lines, *(f"| {what} | {wall:.1f} | {processor:.1f} |" for what, wall, processor in rows)]


TINY = """
name = "memory"
seeds = {seeds}
losses = ["ce", "dice", "dice_ce", "focal"]
datasets = ["scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=6)"]
[recipe]
steps = 4
batch = 4
widths = [4, 8]
validations = 1
"""


def steady(count: int) -> list[str]:
    """Lines of a table: what this process holds after it has trained so many cells as a worker does."""
    from lossbench.experiment.reading import read_experiment
    from lossbench.store import provenance
    from lossbench.sweep import train_stack

    lines = ["| cells | MB |", "|---|---|"]
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        file, results = Path(folder) / "memory.toml", Path(folder) / "results"
        file.write_text(TINY.format(seeds=count // 4))
        cells, facts = read_experiment(file).cells(), provenance.collect(results=results)
        for first in range(0, len(cells), 4):
            train_stack.run_stack(train_stack.payload(cells[first : first + 4], results, (), facts, size=4))
            done = first + 4
            if done == 4 or done % max(count // 10, 4) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                lines.append(f"| {done} | {pages * resource.getpagesize() / 1e6:.0f} |")
                print(lines[-1], flush=True)
        assert Store(results).count() == len(cells)
    return lines


WIDE = """
name = "wide"
seeds = {seeds}
heads = ["default", "prior"]
lengths = [60, 240]
losses = ["ce", "wce", "focal", "dice", "dice(over='batch')", "log_dice", "generalized_dice", "tversky",
  "dice_ce", "jaccard"]
datasets = [{datasets}]
[recipe]
schedule = "wsd"
warmup = 20
"""


def planned(count: int) -> list[str]:
    """Lines of a table: a plan of so many cells, none of them trained, and what it is made of."""
    from lossbench.experiment.reading import read_experiment
    from lossbench.sweep import plan as plans

    levels = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    datasets = ", ".join(f'"scenes(foreground={level})"' for level in levels)
    rows = []
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        file, results = Path(folder) / "wide.toml", Path(folder) / "results"
        file.write_text(WIDE.format(seeds=count // 400, datasets=datasets))
        command = [sys.executable, "-m", "lossbench", "plan", str(file), "--results", str(results)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall, _ = clock(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows.append(("`lossbench plan`, the whole command", wall, spent))
        found: dict = {}
        experiment = read_experiment(file)
        rows.append(("cells and their keys", *clock(lambda: found.update(cells=experiment.cells()))))
        cells = found["cells"]
        rows.append(
            ("states, twins", *clock(lambda: found.update(plan=plans.plan(experiment, results, cells))))
        )
        rows.append(("what they cost", *clock(lambda: found["plan"].cost())))
    lines = [f"{len(cells)} cells", "", "| what | seconds | of the CPU |", "|---|---|---|"]
    return [*lines, *(f"| {what} | {wall:.1f} | {processor:.1f} |" for what, wall, processor in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1500)
    parser.add_argument(
        "--cell", type=float, default=13.0, help="seconds of a cell (the reference cell on a 2.5 GHz core)"
    )
    parser.add_argument("--stack", type=int, default=4)
    parser.add_argument("--records", type=int, help="measure a folder of so many records instead")
    parser.add_argument("--cells", type=int, help="measure the memory of a worker over so many instead")
    parser.add_argument("--plan", type=int, help="measure a plan of so many cells instead")
    parser.add_argument("--table", type=Path, help="write the tables to this Markdown file")
    chosen = parser.parse_args()
    for measure, count in ((crowd, chosen.records), (steady, chosen.cells), (planned, chosen.plan)):
        if count:
            print("\n".join(measure(count)))
            return
    per_task = cost(nothing, {}, chosen.tasks) / (chosen.tasks - 1)
    few, many = cost(chatter, {"events": 10}, 200), cost(chatter, {"events": 60}, 200)
    per_event = max(0.0, (many - few) / (50 * 199))
    load = STEPS * per_event
    rate = (1 - load) / per_task
    lines = [
        "| measured in the driver | |",
        "|---|---|",
        f"| CPU time a task, submission to result | {per_task * 1e3:.1f} ms |",
        f"| CPU time an event | {per_event * 1e3:.2f} ms |",
        f"| so at most, beside the {STEPS} step events a second that all workers keep to | {rate:.0f} "
        "tasks a second |",
        "",
        f"Stacks of {chosen.stack} cells of {chosen.cell:g} s, twenty stacks a worker:",
        "",
        "| workers | cells | hours | time spent training | cells a second |",
        "|---|---|---|---|---|",
    ]
    for workers in (2, 16, 100, 1000, 4000):
        stacks = 20 * workers
        hours, share = simulate(workers, stacks, chosen.cell * chosen.stack, per_task, load)
        cells = stacks * chosen.stack
        lines.append(f"| {workers} | {cells} | {hours:.2f} | {share:.0%} | {cells / hours / 3600:.1f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.table:
        head = "# How far one driver reaches\n\nWritten by `python perf/scale.py --table docs/scale.md`: "
        told = (
            "the costs are measured, the sweeps simulated.\nWhat is lost is the first minute, in which "
            "workers come up, and "
        )
        told += (
            "the end of the queue. Left out: the workers' heartbeats, and the file system that they "
            "share.\n\n"
        )
        old = chosen.table.read_text() if chosen.table.is_file() else ""
        crowded = old[old.index(CROWDED) :] if CROWDED in old else ""  # measured by --records, kept as it is
        chosen.table.write_text(head + told + text + ("\n" + crowded if crowded else ""))


if __name__ == "__main__":
    import scale  # by its name, so that workers find the tasks

    scale.main()
