"""Whole images on disk: each read once, checked and written as it came; nothing is resized, none is
left out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.process import usable_cores
from lossbench.data.container import VOID, Places, Ratings, places_of
from lossbench.data.pairs import Item, Pairs
from lossbench.data.ragged import KINDS, Ragged, Scaled, Stored, Writer

THREADS = 4  # that decode pictures, at most; more wait for the disk

LEAST_SPREAD = 1e-8  # of a channel; below, it is constant and becomes 0


@dataclass
class Ready:
    """One image as it is written: (*S, C), with all that is known of it."""

    name: str
    item: Item
    image: np.ndarray
    mask: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    counts: np.ndarray
    places: list[np.ndarray]


@dataclass
class Written:
    """What stands beside the files: an item and a name for each image, arrays for index.npz, hashes."""

    items: list[Item]
    names: list[str]
    index: dict[str, np.ndarray]
    digests: dict[str, str]  # of images and masks
    hashes: dict[str, str]  # sha256 of files, as far as they were computed while writing

    @property
    def dims(self) -> int:
        return self.index["mask_shapes"].shape[1]


def write(folder: Path, pairs: Pairs, slices: bool, spec: str) -> Written:
    """Write images.bin, masks.bin and places.bin; with ``slices``, volumes as slices across their last axis.

    Memory holds the few images that are being read, whatever the number of all. A pair that does not fit, a
    value that is no class, or a disk without room raise UserError.
    """
    rows: list[Ready] = []
    lengths: list[int] = []
    files = [folder / f"{name}.bin" for name in ("images", "masks", "places")]
    with Writer(files[0]) as images, Writer(files[1]) as masks, files[2].open("wb") as places:
        for number, ready in enumerate(_all(pairs, slices, spec)):
            # Only the first image says how many bytes a pixel takes.
            if number == 0:
                _check_room(folder, pairs, ready.image, spec)
            elif ready.image.shape[-1] != rows[0].mean.size:
                channels = f"{ready.image.shape[-1]} channels, the images before it have {rows[0].mean.size}"
                raise UserError(f"data set '{spec}': '{ready.name}' has {channels}")
            images.append(ready.image)
            masks.append(ready.mask)
            for pixels in ready.places:
                places.write(pixels.astype(np.int64).tobytes())
            lengths += map(len, ready.places)
            ready.image = ready.mask = ready.places = None  # written; only what is known of it is kept
            rows.append(ready)
    index = {f"image_{key}": value for key, value in images.index().items()}
    index |= {f"mask_{key}": value for key, value in masks.index().items()}
    index |= {key: np.stack([getattr(row, key) for row in rows]) for key in ("mean", "spread", "counts")}
    # The bytes alone are not what is learned: shapes, types and scaling belong to them.
    read_with = [index[key] for key in ("image_shapes", "image_kinds", "mean", "spread")]
    digests = {
        "images": _digest(images.hash.hexdigest(), *read_with),
        "masks": _digest(masks.hash.hexdigest(), index["mask_shapes"]),
    }
    index["starts"] = np.cumsum([0, *lengths])
    if pairs.patterns is not None:
        index["patterns"] = pairs.patterns
        digests["masks"] = _digest(digests["masks"], pairs.patterns)
    hashes = {"images.bin": images.hash.hexdigest(), "masks.bin": masks.hash.hexdigest()}
    return Written([row.item for row in rows], [row.name for row in rows], index, digests, hashes)


def open_written(folder: Path, index: dict[str, np.ndarray], classes: int) -> tuple[Scaled, Ragged, Places]:
    """Return images, masks and places of files that ``write`` left, memory-mapped."""
    own = {
        kind: {key: index[f"{kind}_{key}"] for key in ("shapes", "offsets", "kinds")}
        for kind in ("image", "mask")
    }
    images = Scaled(Stored(folder / "images.bin", own["image"]), index["mean"], index["spread"])
    masks = Ragged(Stored(folder / "masks.bin", own["mask"]), own["mask"]["shapes"])
    return images, masks, Places(_flat(folder / "places.bin"), index["starts"], classes)


def _flat(path: Path) -> np.ndarray:
    # A file of no bytes, of a set without foreground, cannot be mapped.
    return np.memmap(path, np.int64, "r") if path.stat().st_size else np.empty(0, np.int64)


def _all(pairs: Pairs, slices: bool, spec: str) -> Iterator[Ready]:
    """Yield every image, read ahead by some threads."""

    def ready(item: Item) -> list[Ready]:
        image, mask = pairs.read(item.name)
        where = f"data set '{spec}': '{item.name}'"
        if image.shape[1:] != mask.shape:
            raise UserError(f"{where}: the image has the size {image.shape[1:]}, its mask {mask.shape}")
        return list(_ready(item, image, mask, pairs, slices, where))

    for images in _ahead(ready, pairs.items, min(THREADS, usable_cores())):
        yield from images


def _ahead(work: Callable, items: Iterable, threads: int) -> Iterator:
    """Yield ``work(item)`` in the order of the items; never more than ``threads`` results wait."""
    # Threads suffice: decoding, hashing and numpy let each other run.
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ready(item: Item, image, mask, pairs: Pairs, slices: bool, where: str) -> Iterator[Ready]:
    """Yield one image, or the slices of a volume: these are scaled alike."""
    # Channels last: a row of a patch then lies in one place of the file.
    stored = np.ascontiguousarray(np.moveaxis(_compact(image), 0, -1))
    mask = np.ascontiguousarray(mask, np.uint8)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise UserError(f"{where}: the image holds values that are not finite")
    # Of the whole volume: slices scaled one by one would lose how bright they are beside each other.
    mean, spread = moments(stored)
    # What several raters say is kept; what is counted is their majority.
    classes, rated = len(pairs.classes), pairs.patterns is not None
    seen = Ratings(mask, pairs.patterns).majority(classes)[mask] if rated else mask
    cuts = [(f"{item.name}:{z}", (..., z, slice(None)), (..., z)) for z in range(mask.shape[-1])]
    for name, of_image, of_mask in cuts if slices else [(item.name, ..., ...)]:
        labels = seen[of_mask]
        facts = mean, spread, _counts(labels, classes, where), places_of(labels, classes, name)
        yield Ready(name, item, stored[of_image], mask[of_mask], *facts)


def _compact(image: np.ndarray) -> np.ndarray:
    """Return the image in a type that is stored: its own where it is small, else float32."""
    return image if image.dtype in KINDS else image.astype(np.float32)


def moments(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of an image (*S, C), float64; 1 for a constant
    one.
    """
    columns = stored.reshape(-1, stored.shape[-1])
    if stored.dtype.kind == "f":
        mean, spread = columns.mean(0, dtype=np.float64), columns.std(0, dtype=np.float64)
    else:
        mean, spread = np.array([_moments_of_integers(column) for column in columns.T]).T
    return mean, np.where(spread > LEAST_SPREAD, spread, 1.0)


def _moments_of_integers(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation from how often each value occurs: exact, and one pass."""
    low = int(values.min())
    counts = np.bincount(values - low if low else values)
    levels = np.arange(len(counts))
    mean = counts @ levels / values.size
    return mean + low, float(np.sqrt(counts @ (levels - mean) ** 2 / values.size))


def _counts(mask: np.ndarray, classes: int, where: str) -> np.ndarray:
    """Return the pixels of each class; UserError for a value that is neither a class nor void."""
    counts = np.bincount(mask.ravel(), minlength=256)
    strange = [value for value in np.flatnonzero(counts[classes:]) + classes if value != VOID]
    if strange:
        declared = f"the undeclared value {strange[0]}; the classes are 0 to {classes - 1}, {VOID} is void"
        raise UserError(f"{where}: the mask holds {declared}")
    return counts[:classes]


def _check_room(folder: Path, pairs: Pairs, first: np.ndarray, spec: str) -> None:
    """Raise UserError where the disk cannot hold what the number of pixels says; unknown numbers pass."""
    needed = (pairs.pixels or 0) * (first.shape[-1] * first.itemsize + 1)
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"needs {needed / 1e9:.1f} GB of prepared images, {free / 1e9:.1f} GB are free"
        mend = "free some space or set LOSSBENCH_CACHE to another disk"
        raise UserError(f"data set '{spec}' {sizes} in {folder.parent}; {mend}")


def _digest(content: str, *facts: np.ndarray) -> str:
    hashed = hashlib.sha256(content.encode())
    for array in facts:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
