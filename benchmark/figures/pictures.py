"""What the masks look like: one test image of each data set, the truth, and what each loss made of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmark.figures import NothingToDraw, figure, style

TINTS = ("#e8a13a", "#3f7fd6", "#c9509b", "#4aa35b")  # of the classes, over the grey image

VOID = 255  # padding and unlabelled pixels


@figure("panel", number=2, title="One test image of each data set, and the mask that each loss leaves")
def panel(tables: Mapping[str, pd.DataFrame]):
    """Rows are data sets, columns image, truth and losses; the number under a mask is its Dice."""
    rows = tables.get("panel")
    if rows is None or not len(rows):
        raise NothingToDraw("needs the table 'panel', which `lossbench panel` makes by training a few cells again")
    sets = list(dict.fromkeys(rows["data_label"]))
    columns = list(dict.fromkeys(rows["shows"]))
    drawing, axes = style.canvas(len(sets), len(columns), 0.5 + 1.45 * len(sets))
    for y, name in enumerate(sets):
        part = rows[rows["data_label"] == name].set_index("shows")
        grey, truth = picture(part.loc["image"]), picture(part.loc["truth"])
        void = truth == VOID
        truth = np.where(void, 0, truth)
        window = crop(truth)
        for x, shows in enumerate(columns):
            axis = axes[y, x]
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            for spine in axis.spines.values():
                spine.set_visible(False)
            if y == 0:
                axis.set_title(shows, fontsize=8.5, loc="center")
            if shows not in part.index:
                continue
            axis.imshow(grey[window], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if shows != "image":
                mask = np.where(void, 0, picture(part.loc[shows]))[window]  # what stands outside the image is scored nowhere
                for kind in range(1, int(max(truth.max(), mask.max())) + 1):
                    tint = [int(TINTS[(kind - 1) % len(TINTS)][i : i + 2], 16) / 255 for i in (1, 3, 5)]
                    axis.imshow(np.dstack([np.broadcast_to(c, mask.shape) for c in tint] + [0.75 * (mask == kind)]), interpolation="nearest")
            value = part.loc[shows, "dice"]
            if np.isfinite(value):
                axis.set_xlabel(f"{value:.2f}", fontsize=8.5, labelpad=2)
        axes[y, 0].set_ylabel(style.fitting(name, 16), fontsize=8.5)
    says = (
        "Numbers: Dice of this image, as recorded. The image is chosen by a rule: the median of the test images that hold every class, by their "
        "mean Dice over the five losses (seed 0, last-step weights, threshold 0.5). Shown is the window around the true object, "
        "coloured by class. The authors' own panel (Cityscapes; images not redistributable) gives for motorcycle, rider and bus: CE .58, .54, .70; "
        "Dice .31, .55, .49; CE + Dice .70, .53, .44; CE + L1 .77, .69, .81 (read off their image)."
    )
    data = rows.drop(columns="pixels").reset_index(drop=True)
    scored = data[data["loss"] != ""]
    told = [f"{name}: " + ", ".join(f"{r.shows} {r.dice:.2f}" for r in part.itertuples()) for name, part in scored.groupby("data_label", sort=False)]
    return drawing, data, says, f"Masks of five losses beside the truth. Dice, {'; '.join(told)}."


def picture(row: pd.Series) -> np.ndarray:
    """Return a stored picture as uint8 (height, width)."""
    return np.frombuffer(row["pixels"], np.uint8).reshape(int(row["height"]), -1)


def crop(truth: np.ndarray, least: int = 24) -> tuple[slice, slice]:
    """Return the square window around the true object, half as wide again, inside the image; the whole image where there is no object."""
    inside = np.argwhere(truth > 0)
    if not len(inside):
        return slice(None), slice(None)
    low, high = inside.min(0), inside.max(0) + 1
    side = min(max(int(1.5 * (high - low).max()) + 4, least), *truth.shape)
    begin = [int(np.clip((a + b - side) // 2, 0, size - side)) for a, b, size in zip(low, high, truth.shape, strict=True)]
    return slice(begin[0], begin[0] + side), slice(begin[1], begin[1] + side)
