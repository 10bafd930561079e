"""Kill a real sweep with signal 9 at many random moments, resume it each time, and count what was lost or
done twice.

    python perf/torture.py --kills 100 --table docs/torture.md

One sweep after the other is run in a folder of its own; at a random moment one process, or all of them, is
killed. After each kill the records are read: each must be whole, none may be missing that was there before,
and none may have been written again (its inode and time are those of before). When a sweep reaches its end,
its cells are counted and the next folder begins. Only Linux, since it looks into /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lossbench.store.store import Store

EXPERIMENT = """
name = "torture"
seeds = 8
losses = ["ce", "dice", "dice_ce", "tversky", "focal", "generalized_dice"]
datasets = [{ use = "scenes(foreground=0.05, noise=0.4, size=32, n_train=16, n_val=8, n_test=8)" }]
[recipe]
steps = 40
batch = 4
widths = [4, 8]
validations = 1
"""
CELLS = 48
VICTIMS = {"all": 0.5, "driver": 0.25, "worker": 0.25}  # who is killed, and how often


def members(session: int) -> dict[int, int]:
    """Living processes of a session: {pid: parent}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found[int(pid)] = int(fields[1])
    return found


def workers(session: int) -> list[int]:
    """The processes of a session whose work can be killed apart: spawned by the driver, and no helper of
    Python's.
    """
    found = []
    for pid, parent in members(session).items():
        with contextlib.suppress(OSError):
            if parent == session and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def start(experiment: Path, results: Path, log: Path) -> subprocess.Popen:
    """Start ``lossbench sweep`` in a session of its own."""
    words = [
        "sweep",
        str(experiment),
        "--results",
        str(results),
        "--no-report",
        "--json-lines",
        "--workers",
        "2",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "benchmark"),
    }
    with open(log, "ab") as out:
        command = [sys.executable, "-m", "lossbench", *words]
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)


def snapshot(results: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every record."""
    found = {}
    for path in (results / "cells").glob("*/*.json"):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            found[path.name] = (facts.st_ino, facts.st_mtime_ns)
    return found


def left(results: Path) -> list[Path]:
    """Temporary files and leases."""
    return [*results.rglob("*.tmp"), *(results / "leases").iterdir()]


def kill(process: subprocess.Popen, victim: str) -> bool:
    """Kill the victim; return whether there was one."""
    with contextlib.suppress(ProcessLookupError):
        if victim == "worker":
            there = workers(process.pid)
            if there:
                os.kill(random.choice(there), signal.SIGKILL)
            return bool(there)
        if victim == "all":
            for pid in members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def wait(process: subprocess.Popen, results: Path, had: int, chance: random.Random, longest: float) -> None:
    """Wait for a random moment: a quarter of them from the start on, the others once a few more records are
    written.
    """
    until, deadline = had + chance.randint(1, 8), time.monotonic() + 4 * longest
    if chance.random() < 0.25:
        until, deadline = CELLS + 1, time.monotonic() + chance.uniform(0.1, longest)
    while process.poll() is None and time.monotonic() < deadline and len(snapshot(results)) < until:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.0, 1.0))


def gone(session: int, seconds: float = 30) -> float | None:
    """Seconds until no process of a session lives; None when some still do after all that time."""
    begin = time.monotonic()
    while members(session):
        if time.monotonic() - begin > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - begin


def torture(kills: int, seed: int, folder: Path) -> dict:
    """Run sweeps and kill them ``kills`` times, at random moments; return the counts."""
    chance = random.Random(seed)
    random.seed(seed)
    experiment = folder / "torture.toml"
    experiment.write_text(EXPERIMENT)
    counts, orphans, finished = Counter(), [], 0
    begin, done = time.monotonic(), 0
    undisturbed = start(experiment, folder / "undisturbed", folder / "log")
    if undisturbed.wait():
        raise SystemExit((folder / "log").read_text())
    longest = time.monotonic() - begin
    print(f"undisturbed: {longest:.1f} s", flush=True)
    while done < kills:
        results, log = folder / f"results{finished}", folder / f"log{finished}"
        before: dict[str, tuple[int, int]] = {}
        starts = 0
        while True:
            process = start(experiment, results, log)
            starts += 1
            if done < kills:
                victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
                wait(process, results, len(before), chance, longest)
                if process.poll() is None and kill(process, victim):
                    done += 1
                    counts[victim] += 1
            if process.poll() is None:
                process.wait()
            quiet = gone(process.pid)
            orphans.append(quiet if quiet is not None else float("inf"))
            after = snapshot(results)
            store = Store(results)
            whole = {f"{r['key']}.{r['loss_fingerprint'][:8]}.json" for r in store.records()}
            counts["damaged"] += len(set(after) - whole) + len(store.notes)
            counts["lost"] += len(set(before) - set(after))
            counts["trained twice"] += sum(after[name] != before[name] for name in set(before) & set(after))
            counts["errors"] += len(list(results.rglob("*.error.json")))
            before = after
            if process.returncode == 0:
                break
            print(
                f"kill {done}: {victim}, {len(after)}/{CELLS} cells, {time.monotonic() - begin:.0f} s",
                flush=True,
            )
            if victim == "worker":  # that alone must not end a sweep
                counts["sweeps ended by a worker"] += 1
                print(log.read_text(errors="replace")[-2000:], flush=True)
        counts["cells"] += len(before)
        counts["missing at the end"] += CELLS - len(before)
        counts["unswept"] += len(left(results))
        Store(results).open_for_writing()  # as the next sweep does
        counts["leftovers"] += len(left(results))
        events = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
        told = Counter()
        for line in events:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                told[event.get("cell", "")] += event.get("kind") == "cell"
        counts["told twice"] += sum(number > 1 for cell, number in told.items() if cell)
        counts["tracebacks"] += log.read_text(errors="replace").count("Traceback")
        counts["starts"] += starts
        finished += 1
    slowest = max(orphans)
    return {**counts, "sweeps": finished, "seconds": time.monotonic() - begin, "slowest": slowest}


def table(found: dict) -> str:
    """The counts as a Markdown table."""
    rows = [
        ("kills with signal 9", found.get("all", 0) + found.get("driver", 0) + found.get("worker", 0)),
        (
            "of all processes at once / of the driver / of one worker",
            "{all} / {driver} / {worker}".format_map(found),
        ),
        ("sweeps carried to their end", found["sweeps"]),
        ("starts and resumptions", found["starts"]),
        ("cells in them", found["cells"]),
        ("records damaged", found["damaged"]),
        ("records lost", found["lost"]),
        ("cells trained twice", found["trained twice"] + found["told twice"]),
        ("cells missing at the end", found["missing at the end"]),
        ("cells reported as failed", found["errors"]),
        ("leases or temporary files of killed workers at the end of a sweep", found["unswept"]),
        ("of these left after the next start", found["leftovers"]),
        ("sweeps that a killed worker ended", found["sweeps ended by a worker"]),
        ("tracebacks printed", found["tracebacks"]),
        ("slowest end of the processes left behind", f"{found['slowest']:.1f} s"),
        ("time", f"{found['seconds'] / 60:.0f} min"),
    ]
    return (
        "\n".join(["| what | count |", "|---|---|", *(f"| {what} | {count} |" for what, count in rows)])
        + "\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="write the table to this Markdown file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        found = Counter(torture(chosen.kills, chosen.seed, Path(folder)))
    text = table(found)
    print(text)
    if chosen.table:
        head = (
            f"# A sweep that cannot be lost\n\n`python perf/torture.py --kills {chosen.kills} --seed "
            f"{chosen.seed}`"
        )
        chosen.table.write_text(f"{head} on {os.cpu_count()} cores:\n\n{text}")
    names = (
        "damaged",
        "lost",
        "trained twice",
        "told twice",
        "missing at the end",
        "errors",
        "leftovers",
        "tracebacks",
    )
    names += ("sweeps ended by a worker",)
    return int(any(found[name] for name in names))


if __name__ == "__main__":
    sys.exit(main())
