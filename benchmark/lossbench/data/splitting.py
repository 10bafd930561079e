"""Splits that do not leak: whole groups are dealt to train, validation and test, and windows cut images
without losing small targets.
"""

from __future__ import annotations

import hashlib

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.container import VOID


def deal(
    groups: np.ndarray, fractions: tuple[float, float], rng: np.random.Generator, strata=None, name: str = ""
) -> dict:
    """Return train, val and test indices with no group in two parts.

    ``fractions`` are those of val and test, counted in groups; ``strata`` (one value per group member) are
    dealt one by one, each with at least one group in val and test where it has three or more.
    """
    val, test = fractions
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise UserError(
            f"data set '{name}': the fractions of val ({val:g}) and test ({test:g}) must be above 0 "
            "and sum to less than 1"
        )
    groups = np.asarray(groups)
    strata = np.zeros(len(groups), int) if strata is None else np.asarray(strata)
    unique, first = np.unique(groups, return_index=True)
    if len(unique) < 3:
        raise UserError(
            f"data set '{name}': {len(unique)} independent units cannot be split into train, val and "
            "test; it needs three"
        )
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for stratum in np.unique(strata):
        members = rng.permutation(unique[strata[first] == stratum])
        count = len(members)
        least = 1 if count >= 3 else 0
        n_val, n_test = (max(least, int(np.floor(f * count + rng.random()))) for f in (val, test))
        n_val = min(n_val, count - 1 - least) if count > 1 else 0
        n_test = min(n_test, count - 1 - n_val) if count > 1 else 0
        parts["val"] += members[:n_val].tolist()
        parts["test"] += members[n_val : n_val + n_test].tolist()
        parts["train"] += members[n_val + n_test :].tolist()
    for part in ("val", "test"):  # strata of one or two groups may have left a part empty
        if not parts[part]:
            parts[part].append(parts["train"].pop())
    return {part: np.flatnonzero(np.isin(groups, members)) for part, members in parts.items()}


def shuffle_key(text: str) -> str:
    """Return a hash to sort by: an order that looks random, is the same everywhere, and nests (the first 60
    lie in the first 100).
    """
    return hashlib.sha256(text.encode()).hexdigest()


def rng_of(text: str) -> np.random.Generator:
    """Return a generator that depends on a name alone, so that prepared arrays are the same for every seed."""
    return np.random.default_rng(int(shuffle_key(text)[:16], 16))


def crop_corner(mask: np.ndarray, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Return the corner of a window that holds one whole object (as far as it fits), or of a random one where
    there is none.
    """
    from scipy import ndimage

    labelled, count = ndimage.label((mask != 0) & (mask != VOID), np.ones((3,) * mask.ndim))
    corner = []
    box = ndimage.find_objects(labelled)[int(rng.integers(count))] if count else None
    for axis, (extent, wanted) in enumerate(zip(mask.shape, size, strict=True)):
        low, high = 0, max(extent - wanted, 0)
        if box is not None:
            inside = box[axis]
            first, last = sorted((inside.stop - wanted, inside.start))
            low, high = min(max(first, 0), high), min(max(last, 0), high)
        corner.append(int(rng.integers(low, high + 1)))
    return tuple(corner)


def tile_corners(
    extent: tuple[int, ...], size: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (corner, already covered margin) of the windows that cover an image; the last of a row is moved
    inside the image.

    What such a window shares with its neighbour is its margin, which is to be void, so that every pixel
    counts once."""
    axes = []
    for length, wanted in zip(extent, size, strict=True):
        starts = list(range(0, max(length - wanted, 0) + 1, wanted))
        margins = [0] * len(starts)
        if starts[-1] + wanted < length:
            margins.append(starts[-1] + wanted - (length - wanted))
            starts.append(length - wanted)
        axes.append(list(zip(starts, margins, strict=True)))
    found = [((), ())]
    for axis in axes:
        found = [((*corner, start), (*margin, cut)) for corner, margin in found for start, cut in axis]
    return found


def window(image: np.ndarray, mask: np.ndarray, corner, size, margin=None) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, *size) and mask (*size) cut at ``corner``; outside the image 0 and void; the
    ``margin`` is void in the mask.
    """
    place = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
    part, labels = image[(slice(None), *place)], mask[place]
    fill = tuple(slice(0, s) for s in labels.shape)
    out = np.zeros((len(image), *size), np.float32)
    out[(slice(None), *fill)] = part
    out_mask = np.full(size, VOID, np.uint8)
    out_mask[fill] = labels
    for axis, cut in enumerate(margin or ()):
        if cut:
            out_mask[(slice(None),) * axis + (slice(0, cut),)] = VOID
    return out, out_mask


def whole_size(shapes: list[tuple[int, ...]], multiple: int = 4) -> tuple[int, ...]:
    """Return the smallest size, a multiple of 4 along each axis, that holds every image."""
    return tuple(-(-max(extent) // multiple) * multiple for extent in zip(*shapes, strict=True))
