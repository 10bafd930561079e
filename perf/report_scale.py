"""Time, memory and size of the report over made-up tables of 5,000 and 100,000 cells, as a table that goes to
docs/speed_report.md.

    python perf/report_scale.py [--cells 5000 100000] [--write]

Every study is a full cross of losses, data sets at several foreground fractions and recipes, and seeds; its
numbers follow from a seeded generator. Each size runs in a process of its own, so that the largest memory is
its own. Nothing is trained."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE / "docs" / "speed_report.md"
LIMITS = {5_000: (60, 4, 10), 100_000: (300, 4, 10)}  # seconds, GB, MB
FAMILIES = ("distribution", "overlap", "compound", "size")
FOREGROUND = (0.002, 0.01, 0.05, 0.2)
STEPS = 5


def study(count: int):
    """Return the tables of a study of about ``count`` cells: 25 losses (ce first), data sets x 10 to 40
    seeds.
    """
    import hashlib

    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    losses, seeds = 25, 10 if count < 20_000 else 40
    sets = max(4, round(count / (losses * seeds)))
    fixed = {"steps": 200, "batch": 8, "optimizer": "adamw"}
    recipes = pd.DataFrame(
        [{"recipe": f"{0xA000 + i:08x}", **fixed, "learning_rate": 0.005 * 3**i} for i in range(2)]
    )
    names = ["ce", "dice", *(f"loss_{i}" for i in range(2, losses))]
    rows = []
    for number in range(sets):
        fraction, noise, recipe = (
            FOREGROUND[number % 4],
            round(0.4 + 0.1 * (number // 4), 2),
            recipes["recipe"][int(number % 10 == 9)],
        )
        dataset = f"scenes(foreground={fraction}, noise={noise})"
        part = "ladder" if number < 12 else ("terms", "weights", "mix", "rates")[number % 4]
        for seed in range(seeds):
            block = hashlib.sha256(f"{dataset}{recipe}{seed}".encode()).hexdigest()
            start = rng.normal(0, 0.02)
            for place, loss in enumerate(names):
                rows.append((dataset, noise, fraction, recipe, part, seed, block, loss, place, start))
    cells = pd.DataFrame(
        rows,
        columns=[
            "dataset",
            "data.noise",
            "data.foreground",
            "recipe",
            "parts",
            "seed",
            "hash",
            "loss",
            "place",
            "start",
        ],
    )
    n = len(cells)
    dice = np.clip(0.8 + cells["start"] + 0.004 * (cells["place"] % 7) + rng.normal(0, 0.01, n), 0, 1)
    cells = cells.assign(
        key=[hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in range(n)],
        experiment="paper",
        dataset_name="scenes",
        data_label=cells["dataset"],
        loss_label=cells["loss"],
        family=[FAMILIES[p % 4] for p in cells["place"]],
        block=cells["hash"].str[:8],
        outcome="done",
        collapse="",
        init_hash=cells["hash"].str[:16],
        order_hash=cells["hash"].str[16:32],
        split_hash=cells["hash"].str[32:48],
        seconds=3.0,
        cpu_seconds=3.0,
        device="cpu",
        n_test=100,
        foreground_true=cells["data.foreground"],
        commit="0" * 40,
        dirty=False,
        loss_fingerprint="00000000",
        data_identity="0",
        protocol=1,
        n_present=100,
        n_empty=0,
    )
    cells["data.boundary_shift"], cells["data.empty"] = 0.0, 0.0
    for name in (
        "dice@0.5",
        "dice@val",
        "val_dice@0.5",
        "nsd_1@0.5",
        "iou@0.5",
        "recall@0.5",
        "precision@0.5",
    ):
        cells[name] = np.clip(dice + rng.normal(0, 0.005, n), 0, 1)
    for name in ("log_size_ratio_hard@0.5", "log_size_ratio_soft", "log_size_ratio_hard@val"):
        cells[name] = rng.normal(0, 0.1, n)
    cells["size_ratio_hard@0.5"], cells["size_ratio_soft"] = (
        np.exp(cells["log_size_ratio_hard@0.5"]),
        np.exp(cells["log_size_ratio_soft"]),
    )
    for name in ("hd95@0.5", "nll", "ece"):
        cells[name] = rng.gamma(2.0, 1.0, n)
    cells["threshold_val"], cells["collapsed"] = 0.5, 0.0
    bad = rng.random(n) < 0.01
    cells.loc[bad, ["outcome", "collapse", "collapsed"]] = ["collapsed", "background", 1.0]
    cells = cells.drop(columns=["hash", "place", "start"])
    steps = np.tile(np.arange(1, STEPS + 1) * 40, n)
    rise = np.tile(np.linspace(0.3, 1.0, STEPS), n)
    score = np.repeat(dice.to_numpy(), STEPS) * rise
    curves = pd.DataFrame(
        {
            "key": np.repeat(cells["key"].to_numpy(), STEPS),
            "step": steps,
            "train_loss": 1 - score,
            "val_dice": score,
            "size_ratio_soft": 1.0,
            "size_ratio_hard": 1.0,
            "grad_norm": 1.0,
        }
    )
    grid = np.arange(1, 100, dtype=np.float32) / 100
    thresholds = pd.DataFrame(
        {
            "key": np.repeat(cells["key"].to_numpy(), len(grid)),
            "threshold": np.tile(grid, n),
            "val_dice": np.repeat(dice.to_numpy(np.float32), len(grid)) * np.tile(1 - (grid - 0.5) ** 2, n),
        }
    )
    bins = 15
    edge = np.linspace(0, 1, bins + 1, dtype=np.float32)
    reliability = pd.DataFrame(
        {
            "key": np.repeat(cells["key"].to_numpy(), bins),
            "class": "foreground",
            "region": "all",
            "bin": np.tile(np.arange(bins), n),
            "low": np.tile(edge[:-1], n),
            "high": np.tile(edge[1:], n),
            "n": 1000,
            "probability": np.tile((edge[1:] + edge[:-1]) / 2, n),
            "frequency": np.tile(((edge[1:] + edge[:-1]) / 2) ** 1.2, n),
        }
    )
    origins = pd.DataFrame([{"commit": "0" * 40, "dirty": False, "device": "cpu", "cells": n}])
    long = {
        "images": pd.DataFrame({"key": [], "image": []}),
        "curves": curves,
        "thresholds": thresholds,
        "reliability": reliability,
    }
    return {"cells": cells, **long, "recipes": recipes, "origins": origins}


def measure(count: int) -> dict:
    """Write the tables, make the report, and return seconds, peak memory and size; figures are timed apart,
    since they are most of it.
    """
    from lossbench.report import make
    from lossbench.store import note
    from lossbench.tables.files import write_tables

    with tempfile.TemporaryDirectory(prefix="lossbench-report-") as folder:
        tables = study(count)
        write_tables(tables, Path(folder) / "tables")
        cells, sets = len(tables["cells"]), tables["cells"]["dataset"].nunique()
        del tables
        cell = ["0" * 16, "0" * 8, "", "", ""]
        note.write(folder, {"name": "paper", "title": "A made-up study", "cells": [cell] * cells})
        started, cpu = time.perf_counter(), time.process_time()
        made = make.make(folder)
        took = time.perf_counter() - started, time.process_time() - cpu
        size = made.report.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024**2 if sys.platform != "darwin" else 1024**3
    )
    return {
        "cells": cells,
        "data sets": sets,
        "wall s": took[0],
        "cpu s": took[1],
        "peak GB": peak,
        "page MB": size / 1e6,
    }


def page(rows: list[dict]) -> str:
    """Return docs/speed_report.md."""
    lines = [
        "# Speed of the report",
        "",
        "`python perf/report_scale.py --write`: tables of made-up studies, on one core, nothing "
        "trained. Written are the derived tables, every",
        "figure and `report.html`. Other processes ran on the machine, so wall-clock times are upper "
        "bounds; CPU seconds are what the",
        "report itself took.",
        "",
        "| cells | data sets | CPU, s | wall, s | peak memory, GB | page, MB | limit |",
        "|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        limit = min(LIMITS, key=lambda n: abs(n - row["cells"]))
        told = "{} s, {} GB, {} MB".format(*LIMITS[limit])
        told = f"{row['peak GB']:.2f} | {row['page MB']:.1f} | {told} |"
        lines.append(
            f"| {row['cells']:,} | {row['data sets']} | {row['cpu s']:.0f} | {row['wall s']:.0f} | {told}"
        )
    lines += [
        "",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores.",
        "Beyond 6,000 cells the page leaves out the curve of each cell, beyond 30,000 the list of "
        "cells, and says so; both stand in `tables/`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=list(LIMITS))
    parser.add_argument("--write", action="store_true", help="write docs/speed_report.md")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    rows = []
    for count in given.cells:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(count)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=HERE,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    text = page(rows)
    print(text)
    if given.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
