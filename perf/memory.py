"""What a worker holds in memory when the images are many times as large: a folder of RGB images of
2,000 x 2,000, prepared, trained on and scored by `lossbench sweep`, as a user would; then again with ten
times as many.

    python perf/memory.py [--images 1000] [--steps 24] [--folder FOLDER]

Prints what the prepared set takes on the disk, how long each sweep took, and the largest resident memory of
the driver (which prepares) and of the worker (which trains and scores): their own, page cache apart, and with
the pages of files. Needs 17 MB of disk an image below FOLDER, which it removes in the end.
Goals: 2 GB a worker; 50 MB more with 1,000 images than with 100.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE = 2000

EXPERIMENT = """
name = "large"
seeds = [2000000]
losses = ["ce", "dice"]
[recipe]
patch = 64
batch = 8
steps = {steps}
validations = 2
[[part]]
name = "own"
datasets = [{{ use = "{data}", label = "large" }}]
"""


DRAWN = 50  # further files are links to these, which are decoded and stored like any other


def draw(folder: Path, count: int) -> None:
    """Write smooth colours with a bright disc in each, as JPEG, and the disc as a mask."""
    from PIL import Image

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for number in range(count):
        image_file, mask_file = (
            folder / part for part in (f"images/{number:04d}.jpg", f"masks/{number:04d}.png")
        )
        if number >= DRAWN:
            for file in (image_file, mask_file):
                os.link(file.with_stem(f"{number % DRAWN:04d}"), file)
            continue
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 160, (20, 20, 3), np.uint8))
        image = np.array(coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        row, column = rng.integers(200, SIDE - 200, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < rng.integers(40, 120) ** 2
        image[disc] += 90
        Image.fromarray(image).save(image_file, quality=85)
        Image.fromarray(disc.astype(np.uint8) * 255).save(mask_file, compress_level=1)


def resident(process: int) -> tuple[float, float]:
    """Return MB that a process holds: its own, and with the pages of files that it has mapped."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0, 0.0
    sizes = [int(size) / 1000 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status)]
    total = re.search(r"VmRSS:\s+(\d+)", status)
    return sum(sizes), int(total[1]) / 1000 if total else 0.0


def below(process: int) -> list[int]:
    """Return the processes that a process began, and theirs."""
    own: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own += map(int, children.read_text().split())
        except OSError:
            continue
    return own + [further for child in own for further in below(child)]


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, tuple[float, float]]]:
    """Run a command; return its seconds and the largest (own, with files) MB of driver and worker."""
    started = time.perf_counter()
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    most = {"driver": (0.0, 0.0), "worker": (0.0, 0.0)}
    while running.poll() is None:
        for name, processes in (("driver", [running.pid]), ("worker", below(running.pid))):
            for process in processes:
                most[name] = tuple(map(max, most[name], resident(process)))
        time.sleep(0.05)
    if running.returncode:
        sys.exit(f"{' '.join(command)} ended with {running.returncode}")
    return time.perf_counter() - started, most


def measure(folder: Path, count: int, steps: int) -> dict[str, tuple[float, float]]:
    """Sweep over ``count`` images and print what that took."""
    own = folder / f"own-{count}"
    draw(own, count)
    file = folder / "large.toml"
    file.write_text(EXPERIMENT.format(steps=steps, data=f"folder(path='{own}')"))
    environment = {**os.environ, "LOSSBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lossbench", "sweep", str(file), "--workers", "1", "--no-report"]
    seconds, most = watched([*command, "--results", str(folder / f"results-{count}")], environment)
    prepared = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    held = "; ".join(f"{name} {a:.0f} MB, with files {b:.0f} MB" for name, (a, b) in most.items())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = f"{used.ru_utime + used.ru_stime:.0f} CPU seconds so far"
    print(f"{count} images, {prepared / 1e9:.1f} GB prepared, {seconds:.0f} s ({used}): {held}", flush=True)
    shutil.rmtree(folder / "cache")
    return most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--folder", type=Path, help="where there is room; default: a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        few, many = (
            measure(Path(folder), count, chosen.steps)["worker"][0]
            for count in (chosen.images // 10, chosen.images)
        )
    print(f"a worker holds {many - few:.0f} MB more with ten times as many images")


if __name__ == "__main__":
    main()
