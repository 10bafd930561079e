"""How fast data come: drawing scenes, preparing public sets, opening prepared ones, drawing patches, and what
a set larger than memory takes. Prints a Markdown table of medians and ranges.

    LOSSBENCH_DATA=... OMP_NUM_THREADS=1 python perf/data.py [--repeats 7] [--large 1000]

Goals: 300 scenes of 64 x 64 in under 0.3 s on one core; a prepared set opens in under 50 ms, whatever its
size; with 1,000 RGB images of 2,000 x 2,000 (16 GB prepared) instead of 100 a process holds at most 50 MB
more, page cache apart. Preparation and opening use a fresh, temporary cache. Times of the table are CPU
seconds, which other work on the machine hardly moves; those of the large set are wall-clock.
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
WINDOWS = ("msd_hippocampus(subset=None)", "magnetic_tile", "crackforest", "camvid", "sirst")
WHOLE = (
    "msd_hippocampus(subset=None, view='whole_slices')",
    "magnetic_tile(view='whole')",
    "crackforest(view='whole')",
    "camvid(view='whole')",
    "sirst(view='whole')",
    "acdc",
    "lgg_mri",
    "fuseg",
    "chase_db1",
    "drosophila_vnc",
    "coffee_leaf(scale='half')",
    "neu_seg",
    "epfl_roads",
    "hyta_sky",
)

# A worker that has read the catalogue and imported the loaders, as all have, opens the set for the first
# time.
OPEN = """
import sys, time
from lossbench.catalogue import registry
import lossbench.data.medical, lossbench.data.photographs
spec = registry.parse_dataset(sys.argv[1])
started = time.process_time()
registry.get_dataset(spec, seed=0)
print(time.process_time() - started)
"""

# A worker that trains from a large set: what it holds itself, page cache apart, after 500 steps of 8 patches
# and ten whole images read.
LARGE = """
import re, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from perf.data import open_large
from lossbench.data import prepare
from lossbench.data.patches import Patches
started = time.perf_counter()
data = open_large(int(sys.argv[2]))
opened = time.perf_counter() - started
patches = Patches(data, 64, "foreground")
started = time.perf_counter()
for step in range(500):
    patches.draw(0, step, 8)
drawn = (time.perf_counter() - started) / 500
for n in range(10):
    data.images[n].mean()
held = int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
print(opened, drawn, held)
"""


def clock(action: Callable[[], object], repeats: int) -> list[float]:
    """Return CPU seconds of each repeat, after one that is not counted: other work hardly moves
    them.
    """
    action()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return times


def row(what: str, times: list[float], goal: str = "", note: str = "") -> None:
    middle = statistics.median(times)
    unit, scale = ("s", 1) if middle >= 1 else ("ms", 1000) if middle >= 1e-3 else ("us", 1e6)
    low, middle, high = (f"{scale * f(times):.3g}" for f in (min, statistics.median, max))
    print(f"| {what} | {middle} {unit} | {low} to {high} | {len(times)} | {goal} | {note} |", flush=True)


def in_process(code: str, *arguments: str) -> list[float]:
    """Return the numbers that a new process prints."""
    command = [sys.executable, "-c", code, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in answer.stdout.split()]


def open_large(count: int):
    """Return a set of 2,000 x 2,000 RGB images, prepared on the first call: noise with one square in each."""
    import numpy as np

    from lossbench.data.pairs import Item, Pairs
    from lossbench.data.prepare import open_prepared

    noise = np.random.default_rng(0).integers(0, 256, (3, 2000, 2000), np.uint8)

    def read(name: str):
        mask = np.zeros((2000, 2000), np.uint8)
        mask[int(name) : int(name) + 40, 500:540] = 1
        return np.roll(noise, int(name), axis=1), mask

    def build() -> Pairs:
        return Pairs([Item(str(n), n) for n in range(count)], read, pixels=4_000_000 * count)

    params = {"view": "whole", "count": count, "val_fraction": 0.2, "test_fraction": 0.2}
    return open_prepared("large", "large", params, 1, build, {})


def measure_sets(repeats: int) -> None:
    from lossbench import get_dataset
    from lossbench.data.patches import Patches

    for what, sets in (
        ("windows of the first five public sets", WINDOWS),
        ("whole images of all fourteen", WHOLE),
    ):
        times = []
        for _ in range(max(2, repeats // 3)):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["LOSSBENCH_CACHE"] = cache
                started = time.process_time()
                for spec in sets:
                    get_dataset(spec, seed=0)
                times.append(time.process_time() - started)
        row(f"preparing {what}, hashes included", times, "120 s")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LOSSBENCH_CACHE"] = cache
        for spec in (*WINDOWS, *WHOLE):
            get_dataset(spec, seed=0)
            size = sum(file.stat().st_size for file in Path(cache).rglob("*.bin"))
            size += sum(file.stat().st_size for file in Path(cache).rglob("*.npy"))
            times = [in_process(OPEN, spec)[0] for _ in range(repeats)]
            row(f"opening `{spec}` in a new process", times, "50 ms")
        print(f"\nAll these sets take {size / 1e6:.0f} MB prepared.\n")
        for spec in ("crackforest(view='whole')", "msd_hippocampus(subset=None, view='whole_slices')"):
            patches = Patches(get_dataset(spec), 48, "foreground")
            times = clock(lambda patches=patches: [patches.draw(0, step, 8) for step in range(100)], repeats)
            row(f"drawing 8 patches of 48 x 48 from `{spec}`", [t / 100 for t in times])


def measure_large(count: int) -> None:
    """Compare a tenth of a large set with all of it."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LOSSBENCH_CACHE"] = cache
        for number in (count // 10, count):
            started = time.perf_counter()
            open_large(number)
            prepared = time.perf_counter() - started
            opened, drawn, held = in_process(LARGE, str(Path(__file__).parents[1]), str(number))
            print(
                f"\n{number} images of 2,000 x 2,000 ({number * 16e6 / 1e9:.1f} GB): prepared in "
                f"{prepared / number:.3f} s each, opened in {1000 * opened:.0f} ms, "
                f"8 patches in {1000 * drawn:.2f} ms, {held:.0f} MB held"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--large", type=int, default=0, help="images of the large set, 16 MB each")
    options = parser.parse_args()
    from lossbench import get_dataset

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | median | range | n | goal | |\n|---|---|---|---|---|---|")
    for spec in SCENES:
        times = clock(lambda spec=spec: get_dataset(spec, seed=0), options.repeats)
        row(f"`{spec}`", times, "0.3 s" if spec == SCENES[0] else "")
    if os.environ.get("LOSSBENCH_DATA"):
        measure_sets(options.repeats)
    else:
        print("\nLOSSBENCH_DATA is not set: the public sets are left out")
    if options.large:
        measure_large(options.large)


if __name__ == "__main__":
    main()
