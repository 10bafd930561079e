"""From a list of picture pairs to prepared arrays: read, z-score, cut into windows that keep small targets whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from benchmark.data.prepare import Prepared, zscore
from benchmark.data.splitting import crop_corner, rng_of, shuffle_key, tile_corners, whole_size, window
from benchmark.errors import UserError

VIEWS = ("crop", "tiles", "whole")


@dataclass(frozen=True)
class Item:
    """One picture of a set: its name, its independent unit, its stratum for the split and its part in an official
    split.
    """

    name: str
    group: int
    stratum: int = 0
    part: str = ""


def prepare(
    items: Iterable[Item],
    read: Callable[[str], tuple[np.ndarray, np.ndarray]],
    *,
    view: str,
    size: int,
    per_image: int | None = None,
    classes: tuple[str, ...] = ("background", "foreground"),
    notes: dict | None = None,
) -> Prepared:
    """Return the windows of all pictures; ``read(name)`` gives image (C, H, W) and mask (H, W) with 255 for void.

    - view 'crop': ``per_image`` (or one) windows of ``size`` x ``size`` at native resolution, each around one whole
      object drawn at random, or anywhere where the picture has none;
    - view 'tiles': the windows that cover the picture, each pixel in one of them; ``per_image`` keeps that many, chosen
      at random;
    - view 'whole': the pictures themselves, padded to a common size.
    Nothing is ever resized. Random choices depend on the picture's name alone.
    """
    if view not in VIEWS:
        raise UserError(f"'view' must be one of {', '.join(VIEWS)}, got '{view}'")
    if view != "whole" and (size < 16 or size % 4):
        raise UserError(f"'size' must be at least 16 and divisible by 4, got {size}")
    if per_image is not None and per_image < 1:
        raise UserError(f"'per_image' must be at least 1, or None for all windows, got {per_image}")
    items = list(items)
    loaded = ((item, *read(item.name)) for item in items)
    if view == "whole":
        loaded = list(loaded)
        wanted = whole_size([mask.shape for _, _, mask in loaded])
    images, masks, kept, names = [], [], [], []
    for item, image, mask in loaded:
        image = zscore(image, axes=(1, 2))
        if view == "whole":
            corners = [((0, 0), None)]
        elif view == "tiles":
            wanted = (size, size)
            corners = tile_corners(mask.shape, wanted)
            chosen = sorted(corners, key=lambda c: shuffle_key(f"{item.name} {c}"))[:per_image]
            corners = sorted(chosen)
        else:
            wanted = (size, size)
            rng = rng_of(f"crop {item.name} {size}")
            corners = [(crop_corner(mask, wanted, rng), None) for _ in range(per_image or 1)]
        for corner, margin in corners:
            cut_image, cut_mask = window(image, mask, corner, wanted, margin)
            images.append(cut_image)
            masks.append(cut_mask)
            kept.append(item)
            names.append(item.name if view == "whole" else f"{item.name}@{corner[0]},{corner[1]}")
    return Prepared(
        np.stack(images), np.stack(masks), [i.group for i in kept], names, classes=classes, notes=notes or {},
        strata=[i.stratum for i in kept], parts=[i.part for i in kept] if items[0].part else None,
    )  # fmt: skip
