"""Clocks that jump, on this machine or on the file server, neither free the lease of a living owner nor keep
that of a dead one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossbench.store.store import Store

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.name != "posix", reason="kill -9")]
KEY, FP = "00112233445566ff", "9f8e7d6c5b4a3928"
YEAR = 366 * 86_400.0
HOLD = """
import sys, time
from lossbench.base import process
from lossbench.store import store
if sys.argv[2] == "far":
    process.host = lambda: "0badcafe"      # as a process of another host looks
with store.Store(sys.argv[1], beat=0.2).claim([(sys.argv[3], sys.argv[4])]) as mine:
    print(len(mine), flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["near", "far"])
def owner(request, tmp_path):
    """A real process that holds a lease and beats, here or as if on another host; yields it and its lease
    file.
    """
    Store(tmp_path).open_for_writing()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "benchmark")}
    words = [sys.executable, "-c", HOLD, str(tmp_path), request.param, KEY, FP]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "1\n"
    yield process, next((tmp_path / "leases").iterdir())
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("jump", [-YEAR, YEAR])
def test_a_living_owner_keeps_its_lease_whatever_the_clock_that_dates_files_does(owner, tmp_path, jump):
    process, lease = owner
    watcher = Store(tmp_path, patience=60)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        os.utime(lease, (time.time() + jump, time.time() + jump))  # each look sees a file of another year
        assert watcher.leases.live() == {(KEY, FP[:8])}
        with watcher.claim([(KEY, FP)]) as mine:
            assert mine == []
        Store(tmp_path).open_for_writing()  # which removes what dead writers left
        jump = -jump
        time.sleep(0.1)
    assert process.poll() is None and lease.exists()


def test_a_dead_owners_lease_falls_though_its_file_is_dated_in_the_future(owner, tmp_path):
    process, lease = owner
    process.kill()
    process.wait()
    os.utime(lease, (time.time() + YEAR, time.time() + YEAR))
    watcher, begin = Store(tmp_path, patience=0.5), time.monotonic()
    while watcher.leases.live() and time.monotonic() - begin < 20:
        time.sleep(0.05)
    with watcher.claim([(KEY, FP)]) as mine:
        assert mine == [(KEY, FP)]
    assert not lease.exists()


def test_a_draft_of_a_living_writer_stays_when_the_clock_jumps_back_and_forth(tmp_path):
    from lossbench.base import files

    store = Store(tmp_path)
    store.open_for_writing()
    draft = files.temporary(store.path(KEY, FP))
    draft.parent.mkdir(parents=True)
    draft.write_text("{")
    for jump in (YEAR, -YEAR):
        os.utime(draft, (time.time() + jump, time.time() + jump))
        store.open_for_writing()
        assert draft.exists()
