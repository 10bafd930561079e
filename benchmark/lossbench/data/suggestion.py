"""The experiment that suits a user's data: every choice with the reason beside it, in a file that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.data.reading import Look
from lossbench.data.splitting import DURING, TEST, VALIDATION

PATCHES = (64, 96)  # sides that are suggested; larger ones take long without a GPU

SMALLEST = 8  # pixels of a side that three levels of pooling want to divide

MARGIN = 1.5  # by what factor a patch is longer than nine of ten objects, where images allow

RARE = 0.05  # share of the pixels of the rarest class, below which patches are centred on foreground

THIN = 12.0  # squared length of an object over its pixels, from which most objects count as lines

MANY_EMPTY = 0.1  # share of images without foreground, from which a loss for them is added
MANY_BARE = 0.5  # share of patches without foreground, from which Dice of each of them is warned of

# Numbers of seeds at which it is looked whether more are needed, of up to so many losses: at the first one
# the smallest p, adjusted over all pairs and looks, is below .05.
SEEDS = {4: (10, 14, 20), 5: (11, 14, 20)}

STEPS = (400, 600, 800, 1200)  # of the longer training; the shorter one is the first quarter of it

MINUTES, CORES = 15, 2  # that the first answer may take; what is left of 20 goes into reading and the report

# Seconds that a free core takes for a million pixels and each level of the network, which cost alike: to
# train on them (docs/speed_stack.md: .0193 for 8 x 64^2 pixels and three levels), and to score them.
TRAINED, SCORED = 0.2, 0.12

LOOKS = 2  # at the validation images while training: whole images, which take as long as many steps

LONGEST = 60  # characters of the name of an experiment and of the label of a data set

SPLIT = 0.2  # share of the images that are for validation, and for test

# Both sides of the debate, each in the form that people use.
LOSSES = (
    ("ce", "the usual first choice; its head starts from the classes' frequencies"),
    ("batch_dice", "overlap of the whole batch: images without foreground do no harm"),
    ("dice", "overlap of each image by itself"),
    ("dice_ce", "their sum, as nnU-Net has it"),
)

FOR_THIN = ("cldice", "objects are long and thin: overlap of their centre lines, too")

FOR_EMPTY = ("dice_ce(over='batch')", "the sum over the batch, for images without foreground")

# What ten public sets showed (docs/study.md).
WARNED = "overlap of each image by itself; where many {} are empty, to mark nothing may cost less"


def patch_side(looks: Sequence[Look]) -> int:
    """Return the side of the patches: what nine of ten objects fit into with a margin, within the images."""
    shortest = float(np.median([min(look.size[:2]) for look in looks]))
    fitting = [side for side in PATCHES if side <= shortest]
    if not fitting:
        return max(16, int(shortest) // SMALLEST * SMALLEST)
    return next((side for side in fitting if side >= _wanted(looks)), fitting[-1])


def _wanted(looks: Sequence[Look]) -> float:
    """Return the side of a patch that nine of ten objects fit into with a margin."""
    longest = [side for look in looks for _, _, side in look.objects]
    return MARGIN * float(np.percentile(longest, 90)) if longest else PATCHES[0]


def rarest(rows: Sequence[dict[str, Any]]) -> float:
    """Return the share of the pixels of the rarest foreground class that occurs."""
    return min((row["fraction"] for row in rows[1:] if row["fraction"]), default=0.0)


def sampler(share: float) -> str:
    """Return how patches are drawn where the rarest class has that share of the pixels."""
    return "foreground(share=0.33)" if share < RARE else "uniform"


def losses(looks: Sequence[Look], bare: float = 0.0) -> tuple[tuple[str, str], ...]:
    """Return the losses to compare, each with its reason; ``bare``: share of patches without foreground."""
    shapes = [side**2 / pixels for look in looks for _, pixels, side in look.objects]
    empty = float(np.mean([not look.counts[1:].any() for look in looks]))
    many = "images" if empty >= MANY_EMPTY else "patches" if bare >= MANY_BARE else ""
    warned = WARNED.format(many)
    usual = tuple((loss, warned if loss == "dice" and many else why) for loss, why in LOSSES)
    if shapes and float(np.median(shapes)) >= THIN:
        return (*usual, FOR_THIN)
    return (*usual, FOR_EMPTY) if empty >= MANY_EMPTY else usual


def lengths(
    looks: Sequence[Look], side: int, batch: int, levels: int, losses: int, test: float = SPLIT
) -> tuple[int, int]:
    """Return a short and a long training: as many steps as two cores manage within the time of the first
    look, all losses and seeds together and what is scored included; ``test``: its share of the images.
    """
    every = sum(float(np.prod(look.size)) for look in looks)
    pixels = SPLIT * every
    scored = LOOKS * min(pixels, DURING) + min(pixels, VALIDATION) + min(test * every, TEST)
    a_cell = 60 * MINUTES * CORES / (SEEDS[losses][0] * losses)
    # Both lengths are scored; a step of the shorter one's own decay is one in twenty.
    left = a_cell - 2 * SCORED * levels * scored / 1e6
    steps = left / (1.05 * TRAINED * levels * batch * side**2 / 1e6)
    longest = max((own for own in STEPS if own <= steps), default=STEPS[0])
    return longest // 4, longest


def experiment(
    path: Path,
    spec: str,
    looks: Sequence[Look],
    share: float,
    test: float = SPLIT,
    notes: Sequence[str] = (),
    bare: float = 0.0,
) -> str:
    """Return a TOML text to start from: every choice with its reason; ``notes`` are those of the data set's
    options, ``bare`` the share of patches without foreground.
    """
    # The folder's name, as far as an experiment may be called so.
    own = path.expanduser().resolve().name.removesuffix(".npz").removesuffix(".csv")[:LONGEST] or "mine"
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", own).strip("_-") or "mine"
    side, how, chosen = patch_side(looks), sampler(share), losses(looks, bare)
    large = side > PATCHES[0]
    batch, widths = (4, [8, 16, 32, 64]) if large else (8, [8, 16, 32])
    short, long = lengths(looks, side, batch, len(widths), len(chosen), test)
    small = "as large as the images" if side < PATCHES[0] else "nine of ten objects fit in with a margin"
    cut = "objects are longer than that, and larger patches take long without a GPU"
    centred = f"the rarest class has {share:.2%} of the pixels: a third of the patches shows some class"
    anywhere = f"each class has {share:.0%} of the pixels or more: patches lie anywhere"
    sees = f"U-Net of {len(widths)} levels, whose pixels depend on {_sees(len(widths))} px each"
    rows: list[tuple[str, Any, str]] = [
        ("patch", side, f"pixels; {cut if side < _wanted(looks) else small}"),
        ("sampler", how, anywhere if how == "uniform" else centred),
        ("batch", batch, "patches a step"),
        ("widths", widths, f"{sees}; wider ones end higher and take longer"),
        ("schedule", "wsd", "a constant rate until the last fifth: both lengths share their training"),
        ("learning_rate", 0.005, "where CE, Dice and their sum all learn; `lossbench tune` looks closer"),
        ("validations", LOOKS, "on whole images, which take as long as many steps"),
    ]
    width = max(len(quoted(loss)) for loss, _ in chosen) + 2
    text = [f"  {quoted(loss) + ',':<{width}}# {why}" for loss, why in chosen]
    recipe = [f"{key} = {json.dumps(value)}  # {why}" for key, value, why in rows]
    longer = f"do losses still improve after {short} steps? then take {4 * long}, which shows who ends higher"
    seeds = SEEDS[len(chosen)]
    asked = "by then decided pairs of losses need no more seeds: so the sweep may end at any of these"
    lines = [
        f"name = {quoted(name)}",
        f"# The first look within 20 minutes on {CORES} cores, the last within 40 (`lossbench plan` says).",
        f"seeds = {seeds[-1]}  # paired starts, at most",
        f"looks = {list(seeds)}  # {asked}",
        "choice = true  # which loss to use is the question: one that is worse by more than a point is out",
        'heads = ["prior"]  # the network starts from how frequent each class is, which no loss has to learn',
        f"lengths = {[short, long]}  # steps; {longer}",
        *(f"# {_in_one_line(note)}" for note in notes),
        f"datasets = [{{ use = {quoted(spec)}, label = {quoted(own)} }}]",
        "losses = [",
        *text,
        "]",
        "",
        "[recipe]",
        *recipe,
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a string of TOML: that of JSON but for escaped rare characters and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _in_one_line(text: str) -> str:
    """Return a text that may stand in a comment: a name of a file may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sees(levels: int) -> int:
    """Return the side of what one output pixel of a U-Net depends on."""
    # Two convolutions of 3 px a stage add 4 of the level's pixels, a pooling one.
    down = sum(4 * 2**level for level in range(levels))
    up_and_pooling = sum(5 * 2**level for level in range(levels - 1))
    return 1 + down + up_and_pooling
