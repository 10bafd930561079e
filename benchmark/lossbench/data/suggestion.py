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

SEEDS = 8  # the fewest whose smallest p (.0078) leaves room for several comparisons

LOSSES = (
    ("ce", "the usual first choice"),
    ("dice", "overlap of each image by itself"),
    ("batch_dice", "overlap of the whole batch: images without foreground do no harm"),
    ("dice_ce", "both sides of the debate, as nnU-Net has it"),
    ("focal", "cross-entropy with less weight on what is easy"),
)


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


def experiment(path: Path, spec: str, looks: Sequence[Look], share: float) -> str:
    """Return a TOML text to start from."""
    # The folder's name, as far as an experiment may be called so.
    own = path.expanduser().absolute().name.removesuffix(".npz").removesuffix(".csv")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", own).strip("_-") or "mine"
    side, how = patch_side(looks), sampler(share)
    small = "as large as the images" if side < PATCHES[0] else "nine of ten objects fit in with a margin"
    centred = f"the rarest class has {share:.2%} of the pixels: a third of the patches shows some class"
    anywhere = f"each class has {share:.0%} of the pixels or more: patches lie anywhere"
    rows: list[tuple[str, Any, str]] = [
        ("patch", side, f"pixels; {small}"),
        ("sampler", how, anywhere if how == "uniform" else centred),
        ("steps", 400, "too few where the curves of the report still rise at the end"),
        ("batch", 8 if side < PATCHES[-1] else 4, "patches a step"),
    ]
    losses = [f"  {json.dumps(loss) + ',':<15}# {why}" for loss, why in LOSSES]
    recipe = [f"{key} = {json.dumps(value)}  # {why}" for key, value, why in rows]
    lines = [
        f"name = {json.dumps(name)}",
        f"seeds = {SEEDS}  # paired starts, whose smallest p is {2 / 2**SEEDS:.4f}; more say more",
        f"datasets = [{json.dumps(spec)}]",
        "losses = [",
        *losses,
        "]",
        "",
        "[recipe]",
        *recipe,
    ]
    return "\n".join(lines) + "\n"
