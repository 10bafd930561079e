"""What it costs to trust a sweep: the guard around each stack, and every record read against its check sum.

    python perf/trust.py [--records 100000] [--quick]     writes docs/speed_trust.md, some minutes

The records are those of the committed study, over and over under other keys, as loose files and in a pack.
Seconds of the processor do not depend on what else the machine does; those on the clock do."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from timing import ROOT, finish, one_thread, spread, table

from lossbench.store import integrity, record
from lossbench.store.pack import pack
from lossbench.store.store import Store

STACKS, AT_ONCE = 20, 50  # so many times is the guard called that often
GOAL_MS, GOAL_SECONDS = 1.0, 20.0


def timed(work: Callable) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def guard_ms() -> list[float]:
    """Return milliseconds of the processor that the guard takes around a stack of built-in losses."""
    one_thread()
    from lossbench.sweep import guard

    def around_stacks() -> None:
        for _ in range(AT_ONCE):
            guard.begin()
            guard.restore()
            guard.refuse("nobody")

    around_stacks()
    return [1e3 * timed(around_stacks)[1] / AT_ONCE for _ in range(STACKS)]


def fill(store: Store, count: int) -> float:
    """Write so many records, each under a key of its own; return the bytes of one."""
    facts = itertools.islice(itertools.cycle(list(Store(ROOT / "results" / "paper").records())), count)
    size = 0
    for number, one in enumerate(facts):
        key = f"{number % 256:02x}{number:014x}"
        path = store.path(key, one["loss_fingerprint"])
        path.parent.mkdir(parents=True, exist_ok=True)
        size += path.write_bytes(record.encode(one | {"key": key}))
    return size / count


def checked(store: Store, count: int) -> tuple[float, float]:
    """Return what reading every record takes; all must be as they were written."""
    found = integrity.Found()

    def read() -> None:
        nonlocal found
        found = integrity.check_records(Store(store.folder))

    took = timed(read)
    assert (found.records, found.damaged, found.unmarked) == (count, [], []), found
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    count = 1000 if chosen.quick else chosen.records
    guard = guard_ms()
    with tempfile.TemporaryDirectory(prefix="lossbench-trust-") as folder:
        store = Store(Path(folder) / "results")
        store.open_for_writing()
        size = fill(store, count)
        loose = checked(store, count)
        pack(store)
        packed = checked(store, count)
    met = max(loose[0], packed[0]) < GOAL_SECONDS
    rows = [
        [name, f"{processor:.1f}", f"{clock:.1f}"]
        for name, (clock, processor) in (("loose files", loose), ("packed", packed))
    ]
    body = f"""
## The guard of a stack

{spread(guard, 2)} ms of the processor around a stack of built-in losses, on one thread. The goal is
{GOAL_MS:g} ms.

## Every record by its check sum

`lossbench verify --all-records` on {count:,} records of {size / 1e3:.1f} kB, from a warm file cache. Goal:
{GOAL_SECONDS:g} s on the clock for 100,000; {"met" if met else "missed"}.

{table(["", "processor, s", "clock, s"], rows)}
"""
    finish("trust.py", "speed_trust", "What trust costs", body, ("torch", "numpy"), chosen.quick)


if __name__ == "__main__":
    main()
