"""The experiment that suits a user's data: every choice with the reason beside it, in a file that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.data.survey import Look

PATCHES = (64, 96, 128)  # sides that are suggested; larger ones take long without a GPU

MARGIN = 1.5  # by what factor a patch is longer than nine of ten objects, where images allow

RARE = 0.05  # share of the pixels of the rarest class, below which patches are centred on foreground

THIN = 12.0  # squared length of an object over its pixels, from which most objects count as lines

MANY_EMPTY = 0.1  # share of images without foreground, from which a loss for them is added

SEEDS, TESTS = 8, 4  # the fewest seeds whose smallest p (.0078) leaves room for so many comparisons

LENGTHS = (300, 1200)  # steps; both come from one training

# Both sides of the debate, each in the form that people use.
LOSSES = (
    ("ce", "the usual first choice; its head starts from the classes' frequencies"),
    ("batch_dice", "overlap of the whole batch: images without foreground do no harm"),
    ("dice", "overlap of each image by itself"),
    ("dice_ce", "their sum, as nnU-Net has it"),
)

FOR_THIN = ("cldice", "objects are long and thin: overlap of their centre lines, too")

FOR_EMPTY = ("dice_ce(over='batch')", "the sum over the batch, for images without foreground")


def patch_side(looks: Sequence[Look]) -> int:
    """Return the side of the patches: what nine of ten objects fit into with a margin, within the images."""
    longest = [side for look in looks for _, _, side in look.objects]
    wanted = MARGIN * float(np.percentile(longest, 90)) if longest else PATCHES[0]
    shortest = float(np.median([min(look.size[:2]) for look in looks]))
    fitting = [side for side in PATCHES if side <= shortest]
    if not fitting:
        return max(16, int(shortest) // 8 * 8)
    return next((side for side in fitting if side >= wanted), fitting[-1])


def rarest(rows: Sequence[dict[str, Any]]) -> float:
    """Return the share of the pixels of the rarest foreground class that occurs."""
    return min((row["fraction"] for row in rows[1:] if row["fraction"]), default=0.0)


def sampler(share: float) -> str:
    """Return how patches are drawn where the rarest class has that share of the pixels."""
    return "foreground(share=0.33)" if share < RARE else "uniform"


def losses(looks: Sequence[Look]) -> tuple[tuple[str, str], ...]:
    """Return the losses to compare, each with its reason."""
    shapes = [side**2 / pixels for look in looks for _, pixels, side in look.objects]
    empty = float(np.mean([not look.counts[1:].any() for look in looks]))
    if shapes and float(np.median(shapes)) >= THIN:
        return (*LOSSES, FOR_THIN)
    return (*LOSSES, FOR_EMPTY) if empty >= MANY_EMPTY else LOSSES


def experiment(path: Path, spec: str, looks: Sequence[Look], share: float) -> str:
    """Return a TOML text to start from: every choice with its reason."""
    # The folder's name, as far as an experiment may be called so.
    own = path.expanduser().absolute().name.removesuffix(".npz").removesuffix(".csv")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", own).strip("_-") or "mine"
    side, how = patch_side(looks), sampler(share)
    small = "as large as the images" if side < PATCHES[0] else "nine of ten objects fit in with a margin"
    centred = f"the rarest class has {share:.2%} of the pixels: a third of the patches shows some class"
    anywhere = f"each class has {share:.0%} of the pixels or more: patches lie anywhere"
    large = side >= PATCHES[1]
    widths = [8, 16, 32, 64] if large else [8, 16, 32]
    rows: list[tuple[str, Any, str]] = [
        ("patch", side, f"pixels; {small}"),
        ("sampler", how, anywhere if how == "uniform" else centred),
        (
            "batch",
            4 if large else 8,
            "patches a step: as many pixels as keep the first answer within minutes",
        ),
        (
            "widths",
            widths,
            f"U-Net of {len(widths)} levels, whose pixels depend on {_sees(len(widths))} px each",
        ),
        ("schedule", "wsd", "a constant rate until the last fifth: both lengths share their training"),
        ("learning_rate", 0.005, "where CE, Dice and their sum all learn; `lossbench tune` looks closer"),
    ]
    chosen = losses(looks)
    width = max(len(json.dumps(loss)) for loss, _ in chosen) + 2
    text = [f"  {json.dumps(loss) + ',':<{width}}# {why}" for loss, why in chosen]
    recipe = [f"{key} = {json.dumps(value)}  # {why}" for key, value, why in rows]
    longer = f"do losses still improve after {LENGTHS[0]} steps? then the answer says so; take more"
    lines = [
        f"name = {json.dumps(name)}",
        f"seeds = {SEEDS}  # paired starts, whose smallest p is {2 / 2**SEEDS:.4f}; 10 or more say more",
        'heads = ["prior"]  # the network starts from how frequent each class is, which no loss has to learn',
        f"lengths = {list(LENGTHS)}  # {longer}",
        f"datasets = [{json.dumps(spec)}]",
        "losses = [",
        *text,
        "]",
        "",
        "[recipe]",
        *recipe,
    ]
    return "\n".join(lines) + "\n"


def _sees(levels: int) -> int:
    """Return the side of what one output pixel of a U-Net depends on."""
    # Two convolutions of 3 px a stage add 4 of the level's pixels, a pooling one.
    down = sum(4 * 2**level for level in range(levels))
    up_and_pooling = sum(5 * 2**level for level in range(levels - 1))
    return 1 + down + up_and_pooling
