"""A sweep is killed with signal 9 at random moments and resumed each time: nothing is lost or done twice.

One sweep after the other runs in a folder of its own; at a random moment one process, or all, are killed.
After each kill every record must be whole, none may be missing that was there before, and none may have been
written again: its inode and time are those of before.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from lossbench.store.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

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
LONGEST = 30.0  # seconds that a sweep of these takes undisturbed, at most


def members(session: int) -> dict[int, int]:
    """Return the living processes of a session, each with its parent."""
    living = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                living[int(pid)] = int(fields[1])
    return living


def workers(session: int) -> list[int]:
    """Return the processes of a session that the driver spawned to work; Python's own helpers are none."""
    spawned = []
    for pid, parent in members(session).items():
        with contextlib.suppress(OSError):
            if parent == session and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                spawned.append(pid)
    return spawned


def start(experiment: Path, results: Path, log: Path) -> subprocess.Popen:
    """Start ``lossbench sweep`` in a session of its own."""
    options = ["--results", results, "--no-report", "--json-lines", "--workers", "2"]
    command = [sys.executable, "-m", "lossbench", "sweep", experiment, *options]
    with open(log, "ab") as out:
        return subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, start_new_session=True)


def snapshot(results: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every record."""
    records = {}
    for path in (results / "cells").glob("*/*.json"):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            records[path.name] = (facts.st_ino, facts.st_mtime_ns)
    return records


def left(results: Path) -> list[Path]:
    """Return the temporary files and leases of a folder."""
    return [*results.rglob("*.tmp"), *(results / "leases").iterdir()]


def kill(process: subprocess.Popen, victim: str, draw: Random) -> bool:
    """Kill the victim; return whether there was one."""
    if victim == "all":
        targets = list(members(process.pid))
    elif victim == "driver":
        targets = [process.pid]
    else:
        there = workers(process.pid)
        targets = [draw.choice(there)] if there else []
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(targets)


def wait(process: subprocess.Popen, results: Path, had: int, draw: Random) -> None:
    """Wait for a random moment: a quarter of them from the start on, the others after a few more records."""
    until, deadline = had + draw.randint(1, 8), time.monotonic() + 4 * LONGEST
    if draw.random() < 0.25:
        until, deadline = CELLS + 1, time.monotonic() + draw.uniform(0.1, LONGEST / 3)
    while process.poll() is None and time.monotonic() < deadline and len(snapshot(results)) < until:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(draw.uniform(0.0, 1.0))


def gone(session: int) -> bool:
    """Wait until no process of a session lives, 30 seconds at most."""
    begin = time.monotonic()
    while members(session) and time.monotonic() - begin < 30:
        time.sleep(0.02)
    return not members(session)


def test_kills_at_any_moment_lose_nothing_and_repeat_nothing(size, draw, seen, tmp_path):
    kills = size(few=5, full=100)
    experiment = tmp_path / "torture.toml"
    experiment.write_text(EXPERIMENT)
    while sum(seen[victim] for victim in VICTIMS) < kills:
        results, log = tmp_path / f"results{seen['sweeps']}", tmp_path / f"log{seen['sweeps']}"
        sweep(experiment, results, log, kills, draw, seen)
        seen["sweeps"] += 1


def sweep(experiment: Path, results: Path, log: Path, kills: int, draw: Random, seen: Counter) -> None:
    """Carry one sweep to its end, disturbed as long as there are kills left, and hold what it left."""
    before: dict[str, tuple[int, int]] = {}
    ended = False
    while not ended:
        process = start(experiment, results, log)
        seen["starts"] += 1
        victim = ""
        if sum(seen[name] for name in VICTIMS) < kills:
            victim = draw.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            wait(process, results, len(before), draw)
            if process.poll() is None and kill(process, victim, draw):
                seen[victim] += 1
        ended = process.wait() == 0
        assert gone(process.pid), "processes were left behind"
        before = held(results, before)
        # The death of one worker alone must not end a sweep.
        assert ended or victim in ("all", "driver"), log.read_text(errors="replace")[-2000:]
    assert len(before) == CELLS
    Store(results).open_for_writing()  # as the next sweep does
    assert left(results) == []
    text = log.read_text(errors="replace")
    assert "Traceback" not in text and max(announced(text).values()) == 1


def held(results: Path, before: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return the records of now, after holding them against those of before the kill."""
    after = snapshot(results)
    store = Store(results)
    whole = {f"{record['key']}.{record['loss_fingerprint'][:8]}.json" for record in store.records()}
    assert set(after) <= whole and not store.notes, "damaged records"
    assert {name: after.get(name) for name in before} == before, "records lost or written again"
    assert not list(results.rglob("*.error.json"))
    return after


def announced(log: str) -> Counter:
    """Count how often each cell was said to be finished."""
    counts = Counter()
    for line in log.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("kind") == "cell":
                counts[event.get("cell")] += 1
    return counts
