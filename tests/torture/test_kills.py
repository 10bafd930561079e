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
losses = ["ce", "dice", "dice_ce", "tversky", "focal", "mine"]
datasets = [{ use = "scenes(foreground=0.05, noise=0.4, size=32, n_train=16, n_val=8, n_test=8)" }]
[recipe]
steps = 40
batch = 4
widths = [4, 8]
validations = 1
"""
OWN = """
from lossbench import loss

@loss("mine")
def mine(logits, target, *, ignore_index=None):
    return ((logits.softmax(1)[:, 1] - (target == 1).float()) ** 2).mean()
"""
CELLS = 48
# Who is killed, and how often; a loss of the user's trains in a process apart.
VICTIMS = {"all": 0.4, "driver": 0.2, "worker": 0.2, "apart": 0.2}
COMMANDS = {"worker": "spawn_main", "apart": "isolated.serve"}  # what stands in their command lines
LONGEST = 30.0  # seconds that a sweep of these takes undisturbed, at most


def members(results: Path) -> dict[int, str]:
    """Return the living processes of a sweep, each with its command; all inherit where its results go."""
    living, mark = {}, f"TORTURED={results}\0".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (place / "environ").read_bytes():
                living[int(place.name)] = (place / "cmdline").read_text()
    return living


def start(experiment: Path, results: Path, log: Path) -> subprocess.Popen:
    """Start ``lossbench sweep`` in a session of its own."""
    options = ["--results", results, "--no-report", "--json-lines", "--workers", "2"]
    options += ["--with", experiment.with_name("own.py")]
    command = [sys.executable, "-m", "lossbench", "sweep", experiment, *options]
    facts = {"env": {**os.environ, "TORTURED": str(results)}, "start_new_session": True}
    with open(log, "ab") as out:
        return subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, **facts)


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


def of_kind(victim: str, results: Path) -> list[int]:
    """Return the processes of a sweep that are such a victim."""
    return [pid for pid, command in members(results).items() if COMMANDS[victim] in command]


def kill(driver: int, results: Path, victim: str, draw: Random) -> bool:
    """Kill the victim; return whether there was one."""
    targets = {"all": list(members(results)), "driver": [driver]}.get(victim)
    if targets is None:
        targets = of_kind(victim, results)
        targets = targets and [draw.choice(targets)]
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(targets)


def wait(process: subprocess.Popen, results: Path, victim: str, had: int, draw: Random) -> None:
    """Wait for a random moment: a quarter of them from the start on, the others after a few more records; and
    for a victim of that kind.
    """
    until, deadline = had + draw.randint(1, 8), time.monotonic() + 4 * LONGEST
    if draw.random() < 0.25:
        until, deadline = CELLS + 1, time.monotonic() + draw.uniform(0.1, LONGEST / 3)
    while process.poll() is None and time.monotonic() < deadline and len(snapshot(results)) < until:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(draw.uniform(0.0, 1.0))
    while victim in COMMANDS and process.poll() is None and not of_kind(victim, results):
        time.sleep(0.1)


def gone(results: Path) -> bool:
    """Wait until no process of a sweep lives, 30 seconds at most."""
    begin = time.monotonic()
    while members(results) and time.monotonic() - begin < 30:
        time.sleep(0.02)
    return not members(results)


def test_kills_at_any_moment_lose_nothing_and_repeat_nothing(size, draw, seen, tmp_path):
    kills = size(few=5, full=100)
    experiment = tmp_path / "torture.toml"
    experiment.write_text(EXPERIMENT)
    (tmp_path / "own.py").write_text(OWN)
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
            wait(process, results, victim, len(before), draw)
            if process.poll() is None and kill(process.pid, results, victim, draw):
                seen[victim] += 1
        ended = process.wait() == 0
        assert gone(results), "processes were left behind"
        before = held(results, before)
        # The death of one worker, or of the process of one task, must not end a sweep.
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
