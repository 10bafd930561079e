"""How far the answer of eight seeds can be relied on: three folders of pictures, three losses, 24 seeds, of
which every eight answer by themselves.

    python perf/answers.py [--keep FOLDER]     writes docs/answers.md; 432 short trainings, some minutes

Two answers contradict each other where one calls a loss better than another that the other calls better."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from timing import DOCS, ROOT, finish, table

from lossbench.analysis import decisions, learnt, recommendation
from lossbench.analysis.resampling import ByGroup
from lossbench.tables.files import stored

SEEDS, GROUP = 24, 8
IMAGES, SIDE = 60, 32
POINT = 0.01

# Share of the pixels of a disc, share of images without one, how far it is from the noise.
FOLDERS = {
    "rare, faint discs": (0.01, 0.0, 1.2),
    "discs on half of the images": (0.04, 0.5, 2.0),
    "large, clear discs": (0.2, 0.0, 4.0),
}

EXPERIMENT = """
name = "answers"
seeds = {seeds}
lengths = [25, 100]
heads = ["prior"]
losses = ["ce", "dice", "dice_ce"]
datasets = [{folders}]
[recipe]
widths = [4, 8]
batch = 4
schedule = "wsd"
warmup = 5
validations = 1
"""


def draw(folder: Path, share: float, empty: float, contrast: float, rng: np.random.Generator) -> None:
    """Write pictures of a disc in noise, and their masks."""
    from PIL import Image

    rows, columns = np.mgrid[:SIDE, :SIDE]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for n in range(IMAGES):
        radius = np.sqrt(share * rng.uniform(0.5, 1.5) / np.pi) * SIDE
        y, x = rng.uniform(radius, SIDE - radius, 2)
        mask = ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (n >= empty * IMAGES)
        image = 110 + 20 * (contrast * mask + rng.normal(0, 1, mask.shape))
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / "images" / f"{n:02}.png")
        Image.fromarray(mask.astype("uint8") * 255).save(folder / "masks" / f"{n:02}.png")


def train(folder: Path) -> None:
    """Draw the folders and train what is missing of the experiment."""
    rng = np.random.default_rng(0)
    paths = [folder / name.replace(" ", "_").replace(",", "") for name in FOLDERS]
    for path, facts in zip(paths, FOLDERS.values(), strict=True):
        if not path.exists():
            draw(path, *facts, rng)
    specs = ", ".join(f"\"folder(path='{path}')\"" for path in paths)
    (folder / "answers.toml").write_text(EXPERIMENT.format(seeds=SEEDS, folders=specs))
    command = [sys.executable, "-m", "lossbench", "sweep", "answers.toml"]
    subprocess.run(command, cwd=folder, check=True)


def answers(folder: Path) -> list[list[str]]:
    """Return one row a folder: what each group of seeds says, and what all say together."""
    tables = stored(folder / "results", ("cells", "groups"))
    cells, by_group = tables["cells"], ByGroup(tables["groups"])
    rows = []
    for label, own in cells.groupby("data_label", sort=False, observed=True):
        groups = [own[own["seed"] // GROUP == n] for n in range(SEEDS // GROUP)]
        if "steps" in label:  # the longer of two lengths has it in its label
            continue
        same = cells[cells["dataset"] == own["dataset"].iloc[0]]
        groups = [same[same["seed"] // GROUP == n] for n in range(SEEDS // GROUP)]
        found = [_answer(part, by_group) for part in (*groups, same)]
        shown = [_shown(part, by_group) for part in (*groups, same)]
        turned = [(a, b) for each in shown for a, b in each if any((b, a) in other for other in shown)]
        spread = max(row["mean"] for row in found[-1].rows) - min(row["mean"] for row in found[-1].rows)
        names = [f"{each.kind} {each.loss_label}" for each in found]
        rows.append([label, *names, f"{100 * spread:.1f}", str(len(set(map(frozenset, turned))))])
    return rows


def _answer(cells: pd.DataFrame, by_group: ByGroup) -> recommendation.Recommendation:
    (found,) = recommendation.recommend(cells, by_group, learnt.learnt(cells, learnt.NO_REFERENCES))
    return found


def _shown(cells: pd.DataFrame, by_group: ByGroup) -> set[tuple[str, str]]:
    """Return the pairs (better, worse) of losses that these seeds show, at the longer training."""
    longest = cells[cells["recipe.steps"] == cells["recipe.steps"].max()]
    score = "dice_all@0.5" if "dice_all@0.5" in longest else "dice@0.5"
    contest = decisions.contest(longest, score, by_group)
    pairs = itertools.permutations(contest.blocks.arms, 2)
    decided = {pair: contest.decide(*pair) for pair in pairs}
    return {pair for pair, own in decided.items() if own and own.verdict == decisions.BETTER}
