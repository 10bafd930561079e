"""How far the answer of eight seeds can be relied on: three kinds of pictures, few and many of each, three
losses, 24 seeds, of which every eight answer by themselves.

    python perf/answers.py [--keep FOLDER]     writes docs/answers.md; 864 short trainings, some minutes

Two answers contradict each other where one calls a loss better than another that the other calls better."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from timing import finish, table

from lossbench.analysis import decisions, learnt, recommendation
from lossbench.analysis.resampling import ByGroup
from lossbench.tables.files import stored

SEEDS, GROUP = 24, 8
GROUPS = SEEDS // GROUP
IMAGES = (60, 240)  # few and many: a fifth of them is tested on
SIDE = 32
POINT = 0.01

WORDS = {"use": "use", "same": "no difference", "open": "cannot tell"}

ABOUT = f"""Three kinds of generated pictures of {SIDE} x {SIDE} pixels, folders of {IMAGES[0]} and of
{IMAGES[1]} of them, a fifth of which is tested on. Three losses, two lengths of a tiny network,
{SEEDS} seeds. Every {GROUP} seeds answer by themselves, as a sweep's last lines do; an answer must
hold for other images, too."""

# Share of the pixels of a disc, share of images without one, how far it is from the noise.
KINDS = {
    "rare, faint discs": (0.01, 0.0, 1.2),
    "discs on half of the images": (0.04, 0.5, 2.0),
    "large, clear discs": (0.2, 0.0, 4.0),
}

FOLDERS = {f"{kind}, {count} images": (count, *facts) for count in IMAGES for kind, facts in KINDS.items()}

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


def draw(
    folder: Path, count: int, share: float, empty: float, contrast: float, rng: np.random.Generator
) -> None:
    """Write pictures of a disc in noise, and their masks."""
    from PIL import Image

    rows, columns = np.mgrid[:SIDE, :SIDE]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for n in range(count):
        radius = np.sqrt(share * rng.uniform(0.5, 1.5) / np.pi) * SIDE
        y, x = rng.uniform(radius, SIDE - radius, 2)
        mask = ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (n >= empty * count)
        image = 110 + 20 * (contrast * mask + rng.normal(0, 1, mask.shape))
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / "images" / f"{n:02}.png")
        Image.fromarray(mask.astype("uint8") * 255).save(folder / "masks" / f"{n:02}.png")


def train(folder: Path) -> None:
    """Draw the folders and train what is missing of the experiment."""
    rng = np.random.default_rng(0)
    paths = [folder / _plain(name) for name in FOLDERS]
    for path, facts in zip(paths, FOLDERS.values(), strict=True):
        if not path.exists():
            draw(path, *facts, rng)
    specs = ", ".join(f"\"folder(path='{path}')\"" for path in paths)
    (folder / "answers.toml").write_text(EXPERIMENT.format(seeds=SEEDS, folders=specs))
    subprocess.run([sys.executable, "-m", "lossbench", "sweep", "answers.toml"], cwd=folder, check=True)


def _plain(name: str) -> str:
    return name.replace(" ", "_").replace(",", "")


class Row(NamedTuple):
    """What is said of one folder: a line of the table, pairs of losses on which groups of seeds contradict
    each other, and those with all seeds among them, groups that cannot tell, whether a point is shown.
    """

    line: list[str]
    among: int
    with_all: int
    unsure: int
    matters: bool


def row(name: str, cells: pd.DataFrame, by_group: ByGroup) -> Row:
    """Return what each group of seeds says of a folder, and all seeds together."""
    parts = [*(cells[cells["seed"] // GROUP == n] for n in range(GROUPS)), cells]
    answers = [_answer(part, by_group) for part in parts]
    shown = [_shown(part, by_group) for part in parts]
    means = [each["mean"] for each in answers[-1].rows]
    spread = max(means) - min(means)
    says = [WORDS[each.kind] + f" {each.loss_label}" * (each.kind == "use") for each in answers]
    return Row(
        [name, *says, f"{100 * spread:.1f}"],
        _contradicted(answers[:-1], shown[:-1]),
        _contradicted(answers, shown),
        sum(each.kind == "open" for each in answers[:-1]),
        answers[-1].kind == "use" and spread >= POINT,
    )


def _contradicted(answers: list, shown: list[set[tuple[str, str]]]) -> int:
    """Return on how many pairs one answer shows, or recommends, what another shows to be worse."""
    pairs = {pair for each in shown for pair in each}
    found = {frozenset(pair) for pair in pairs if pair[::-1] in pairs}
    used = {each.loss for each in answers if each.kind == "use"}
    return len(found | {frozenset(pair) for pair in pairs if pair[1] in used})


def _answer(cells: pd.DataFrame, by_group: ByGroup) -> recommendation.Recommendation:
    (found,) = recommendation.recommend(cells, by_group, learnt.learnt(cells, learnt.NO_REFERENCES))
    return found


def _shown(cells: pd.DataFrame, by_group: ByGroup) -> set[tuple[str, str]]:
    """Return the pairs (better, worse) of losses that these seeds show at the longer training."""
    longest = cells[cells["recipe.steps"] == cells["recipe.steps"].max()]
    contest = decisions.contest(longest, "dice_all@0.5", by_group)
    decided = {pair: contest.decide(*pair) for pair in itertools.permutations(contest.blocks.arms, 2)}
    return {pair for pair, own in decided.items() if own and own.verdict == decisions.BETTER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder of the pictures and records, to go on from")
    given = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        train(folder)
        tables = stored(folder / "results", ("cells", "groups"))
    by_group = ByGroup(tables["groups"])
    cells = tables["cells"]
    found = [row(name, cells[cells["dataset"].str.contains(_plain(name))], by_group) for name in FOLDERS]
    told = [each.unsure for each in found if each.matters]
    groups = GROUPS * len(told)
    heads = ["pictures", *(f"seeds {GROUP * n} to {GROUP * n + GROUP - 1}" for n in range(GROUPS))]
    lines = [table([*heads, f"all {SEEDS}", "best to worst, points"], [each.line for each in found]), ""]
    among, with_all = (sum(each[at] for each in found) for at in (1, 2))
    lines.append(
        f"Pairs of losses on which two groups contradict each other: {among} (goal: none); a group and all "
        f"{SEEDS} seeds: {with_all - among}."
    )
    lines.append(
        f"Where all seeds together show a point or more ({len(told)} of {len(found)} folders), "
        f"{sum(told)} of {groups} groups cannot tell (goal: at most {groups // 3})."
    )
    body = f"{ABOUT}\n\n" + "\n".join(lines)
    finish(
        "answers.py", "answers", "Whether eight seeds contradict each other", body, ("torch", "numpy"), False
    )


if __name__ == "__main__":
    main()
