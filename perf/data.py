"""How fast data come: drawing scenes, preparing the public sets, opening prepared ones. Prints a Markdown
table of medians and ranges.

    LOSSBENCH_DATA=... OMP_NUM_THREADS=1 python perf/data.py [--repeats 7]

Claimed (issue 4): 300 scenes of 64 x 64 in under 0.3 s on one core; a prepared set opens in under 50 ms,
whatever its size; preparing all five public sets from local files takes under two minutes on two cores.
Preparation and opening use a fresh, temporary cache. Drawing and preparing are given in processor seconds,
opening in wall-clock seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SCENES = (
    "scenes(n_train=200, n_val=50, n_test=50)",
    "scenes(n_train=200, n_val=50, n_test=50, foreground=0.001)",
    "scenes(n_train=200, n_val=50, n_test=50, foreground=0.5)",
    "scenes(n_train=200, n_val=50, n_test=50, objects=4)",
    "scenes(n_train=200, n_val=50, n_test=50, shape='vessel')",
    "scenes(n_train=200, n_val=50, n_test=50, shape='field')",
    "scenes(n_train=200, n_val=50, n_test=50, size_ratio=100.0)",
    "scenes(n_train=200, n_val=50, n_test=50, classes=5, foreground=0.1)",
    "scenes(n_train=30, n_val=10, n_test=10, dims=3, size=32, foreground=0.03)",
)
SETS = ("msd_hippocampus(subset=None)", "magnetic_tile", "crackforest", "camvid", "sirst")
WHOLE = (
    "msd_hippocampus(subset=None, view='volumes')",
    "crackforest(view='whole')",
    "camvid(view='whole')",
    "sirst(view='whole')",
)
# A worker that has read the catalogue and imported the loaders, as all have, and then opens the set for the
# first time.
OPEN = "import time, sys; from lossbench.catalogue import registry; import lossbench.data.public\n"
OPEN += "spec = registry.parse_dataset(sys.argv[1])\n"
OPEN += (
    "t = time.perf_counter(); d = registry.get_dataset(spec, seed=0); print(time.perf_counter() - t, "
    "d.images.nbytes)"
)


def clock(action: Callable[[], object], repeats: int) -> list[float]:
    """Return processor seconds of each repeat, after one that is not counted: other work on the machine
    hardly moves them.
    """
    action()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return times


def row(what: str, times: list[float], goal: str = "", note: str = "") -> str:
    unit, scale = ("s", 1) if statistics.median(times) >= 1 else ("ms", 1000)
    low, middle, high = (f"{scale * f(times):.3g}" for f in (min, statistics.median, max))
    return f"| {what} | {middle} {unit} | {low} to {high} | {len(times)} | {goal} | {note} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    from lossbench import get_dataset

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | median | range | n | goal | |\n|---|---|---|---|---|---|")
    for spec in SCENES:
        print(
            row(
                f"`{spec}`",
                clock(lambda spec=spec: get_dataset(spec, seed=0), repeats),
                "0.3 s" if spec == SCENES[0] else "",
            ),
            flush=True,
        )
    if not os.environ.get("LOSSBENCH_DATA"):
        print("\nLOSSBENCH_DATA is not set: the public sets are left out")
        return
    totals = []
    for _ in range(max(2, repeats // 3)):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["LOSSBENCH_CACHE"] = cache
            started = time.process_time()
            for spec in SETS:
                get_dataset(spec, seed=0)
            totals.append(time.process_time() - started)
    print(row("preparing all five sets, hashes included", totals, "120 s", "one core"), flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LOSSBENCH_CACHE"] = cache
        for spec in (*SETS, *WHOLE):
            get_dataset(spec, seed=0)
            answers = [subprocess.run([sys.executable, "-c", OPEN, spec], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
                       for _ in range(repeats)]  # fmt: skip
            parts = [answer.stdout.split() for answer in answers]
            print(
                row(
                    f"opening `{spec}` in a new process",
                    [float(p[0]) for p in parts],
                    "50 ms",
                    f"{int(parts[0][1]) / 1e6:.0f} MB",
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
