"""Real kills of real processes: whatever dies, no record is lost or damaged and no cell is trained twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from toy_sweep import FP, cells, key

from lossbench.store import leases
from lossbench.store.store import Store

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
HERE = Path(__file__).parent


def sweep(folder, *words):
    """Start a toy sweep in a session of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1] / "benchmark")]),
    }
    command = [sys.executable, str(HERE / "toy_sweep.py"), str(folder), *map(str, words)]
    with open(folder / "stderr", "a") as errors:
        options = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "start_new_session": True}
        return subprocess.Popen(command, env=environment, **options)


def finish(process, timeout=60):
    out, _ = process.communicate(timeout=timeout)
    return out


def members(session):
    """Processes of a session that still run: {pid: command}."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return found


def all_gone(session, seconds=10):
    deadline = time.monotonic() + seconds
    while (left := members(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def log(folder):
    path = folder / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(folder, what, count, seconds=40):
    """Wait until the log holds that many lines of a kind; return their process ids."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = [line for line in log(folder) if line[0] == what]
        if len(lines) >= count:
            return [int(line[2]) for line in lines]
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {count} x {what}: {(folder / 'stderr').read_text()}")


def check(folder, count, but=()):
    """Every cell has an intact record and was recorded once; nothing is left lying about."""
    done = Counter(line[1] for line in log(folder) if line[0] == "done")
    wanted = set(cells(count)) - set(but)
    store = Store(folder / "results")
    assert {record["key"] for record in store.records()} == wanted
    assert not store.notes
    assert set(done) <= wanted and max(done.values()) == 1  # a kill may fall between the record and its line
    assert len(done) >= len(wanted) - 3
    assert not list((folder / "results").rglob("*.tmp")) and not list(
        (folder / "results" / "leases").iterdir()
    )


def test_a_sweep_without_trouble_trains_each_cell_once(tmp_path):
    process = sweep(tmp_path, "--cells", 12, "--seconds", 0.05)
    assert finish(process).endswith("finished\n") and process.returncode == 0
    check(tmp_path, 12)
    assert not all_gone(process.pid) and (tmp_path / "stderr").read_text() == ""


def test_killed_workers_cost_only_what_they_were_running(tmp_path):
    process = sweep(tmp_path, "--cells", 30, "--seconds", 0.25)
    for count in (4, 12):
        os.kill(wait_for(tmp_path, "start", count)[-1], signal.SIGKILL)
    out = finish(process)
    assert process.returncode == 0 and out.count('"lost"') == 2
    check(tmp_path, 30)
    starts = Counter(line[1] for line in log(tmp_path) if line[0] == "start")
    assert sum(starts.values()) <= 30 + 2
    assert not all_gone(process.pid) and (tmp_path / "stderr").read_text() == ""


def test_the_leases_of_a_worker_that_died_on_another_host_do_not_hold_up_the_sweep(tmp_path):
    process = sweep(tmp_path, "--cells", 16, "--seconds", 0.3, "--far")
    os.kill(
        wait_for(tmp_path, "start", 7)[-1], signal.SIGKILL
    )  # not in its first task: the toy moves house in it
    start = time.monotonic()
    out = finish(process)
    assert process.returncode == 0 and out.count('"engine"') == 1  # in the same run of the engine
    assert time.monotonic() - start < leases.PATIENCE / 2
    check(tmp_path, 16)


def test_a_poison_cell_fails_alone_and_with_the_reason(tmp_path):
    process = sweep(tmp_path, "--cells", 16, "--seconds", 0.1, "--poison", 5, "--stack", 1)
    finish(process)
    assert process.returncode == 1
    check(tmp_path, 16, but=[key(5)])
    error = Store(tmp_path / "results").read_error(key(5), FP)
    assert error["kind"] == "killed" and "SIGKILL" in error["error"] and "3 times" in error["error"]
    assert sum(line[:2] == ["start", key(5)] for line in log(tmp_path)) == 3
    again = sweep(
        tmp_path, "--cells", 16, "--seconds", 0.1, "--workers", 1
    )  # the poison is gone: only that cell runs
    finish(again)
    assert again.returncode == 0
    check(tmp_path, 16)
    assert Store(tmp_path / "results").read_error(key(5), FP) is None


def test_a_killed_driver_leaves_no_process_and_the_next_run_repeats_nothing(tmp_path):
    moments = random.Random(7)
    for attempt in range(4):
        process = sweep(tmp_path, "--cells", 24, "--seconds", 0.2)
        wait_for(tmp_path, "done", 1 + 4 * attempt)
        time.sleep(moments.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not all_gone(process.pid), members(process.pid)
    process = sweep(tmp_path, "--cells", 24, "--seconds", 0.2)
    assert finish(process).endswith("finished\n")
    check(tmp_path, 24)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_at_once_and_silently_and_leaves_no_process(tmp_path, number):
    process = sweep(tmp_path, "--cells", 12, "--seconds", 12)
    wait_for(tmp_path, "start", 2)
    start = time.monotonic()
    # The terminal sends Ctrl-C to the whole group; a batch system sends SIGTERM to its first process.
    os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
    assert finish(process).endswith("interrupted\n") and process.returncode == 130
    assert time.monotonic() - start < 11  # it did not wait for the tasks' twelve seconds
    assert not all_gone(process.pid, 1)
    assert (tmp_path / "stderr").read_text() == ""
    assert not [line for line in log(tmp_path) if line[0] == "done"]


def test_an_interrupt_while_the_workers_start_is_heard(tmp_path):
    process = sweep(tmp_path, "--cells", 12, "--seconds", 3)
    deadline = time.monotonic() + 20
    while len(members(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process, 15).endswith("interrupted\n") and process.returncode == 130
    assert not all_gone(process.pid, 1)
    assert (tmp_path / "stderr").read_text() == ""


def test_two_sweeps_at_once_on_one_folder_share_the_cells(tmp_path):
    processes = [sweep(tmp_path, "--cells", 24, "--seconds", 0.15, "--serial") for _ in range(2)]
    assert all(finish(process).endswith("finished\n") for process in processes)
    check(tmp_path, 24)
    starts = [line for line in log(tmp_path) if line[0] == "start"]
    assert len(starts) == 24 and len({line[2] for line in starts}) == 2


def test_a_sweep_takes_over_from_one_that_was_killed_beside_it(tmp_path):
    first = sweep(tmp_path, "--cells", 8, "--seconds", 1, "--serial", "--stack", 8)
    wait_for(tmp_path, "start", 2)
    second = sweep(
        tmp_path, "--cells", 8, "--seconds", 0.05, "--serial", "--stack", 8
    )  # finds all cells leased
    time.sleep(0.7)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert finish(second).endswith("finished\n")
    check(tmp_path, 8)
