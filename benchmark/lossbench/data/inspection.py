"""What ``lossbench data inspect`` shows of a user's folder: what was understood, what is suspicious, and
where to start from. One pair is in memory at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.protocol import is_since
from lossbench.data import layouts, medsegbench
from lossbench.data.choice import shuffle_key
from lossbench.data.coding import Coding, Options, Unclear, Values, names_of, shown, understand
from lossbench.data.container import SPLITS, VOID, size_text
from lossbench.data.pairs import Layout
from lossbench.data.reading import read_image, read_mask

LOOKED_AT = 400  # pairs whose pixels are read; names are checked for all

ALIKE = 0.99  # correlation of two thumbnails above which two images probably show one thing

THUMB = 24  # pixels of a thumbnail's side

TINY = 10  # pixels of an object that is mentioned

PATCH = 64  # pixels of the usual patch; smaller images are padded to it

# What the suggested experiment compares: the two sides of the debate, their sum, and the usual third.
LOSSES = ("ce", "dice", "dice_ce", "focal")


@dataclass
class Seen:
    """What was seen in the pairs that were looked at; masks are read again once their coding is known."""

    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    channels: dict[int, str] = field(default_factory=dict)  # number -> the first image that has it
    thumbnails: list[np.ndarray] = field(default_factory=list)
    values: Values = field(default_factory=Values)
    masks: list[Callable[[], np.ndarray]] = field(default_factory=list)

    def add(self, name: str, image: np.ndarray, mask: np.ndarray, again: Callable[[], np.ndarray]) -> None:
        self.names.append(name)
        self.sizes.append(mask.shape)
        self.channels.setdefault(len(image), name)
        self.thumbnails.append(_thumbnail(image))
        self.values.add(mask, name)
        self.masks.append(again)


def inspect(path: str | Path, images: str = "", masks: str = "") -> dict[str, Any]:
    """Return what was understood of a folder in any layout, a table of pairs or a MedSegBench file.

    - ``path, layout, pairs, looked_at, sizes, split``;
    - ``classes``: rows of ``id, name, fraction`` (of pixels that are not void), ``present`` (share of
      images), ``median_object`` and ``smallest_object`` (pixels of a connected region);
    - ``empty``: share of images without foreground; ``suspicious``: sentences;
    - ``spec``: the data set's spec string; ``experiment``: a TOML text to start from.
    """
    layout = layouts.find(path, images, masks, strict=False)
    suspicious = list(layout.notes)
    suspicious += [f"{len(layout.unmatched)} unmatched: {layout.unmatched[0]}"] if layout.unmatched else []
    if not layout.pairs:
        seen = _look_into_file(layout.root, suspicious)
        split, count = "split as published in the file", len(seen.names)
    else:
        seen = _look_into_folder(layout, suspicious)
        split, count = _split(layout, suspicious), len(layout.pairs)
    if len({len(size) for size in seen.sizes}) > 1:
        raise UserError(f"{path}: holds both pictures and volumes; keep them in two folders")
    # Nothing can be said of a folder of which nothing can be read.
    if not seen.names:
        raise UserError(f"{path}: none of its pairs can be read; {suspicious[0]}")
    options, coding = _coding(layout, seen.values, suspicious)
    rows, empty = _classes(seen, coding, names_of(coding, layout.classes))
    suspicious += _doubts(seen, rows, empty, count) + _look_alikes(seen, layout)
    patterns = {key: value for key, value in (("images", images), ("masks", masks)) if value}
    options = patterns | options
    given = [f"path={str(path)!r}", *(f"{key}={value!r}" for key, value in options.items())]
    spec = f"folder({', '.join(given)})"
    return {
        "path": str(path),
        "layout": layout.kind,
        "pairs": count,
        "looked_at": len(seen.names),
        "sizes": _sizes(seen),
        "split": split,
        "classes": rows,
        "empty": empty,
        "suspicious": suspicious,
        "spec": spec,
        "experiment": _experiment(Path(path), spec, count),
    }


def _look_into_folder(layout: Layout, suspicious: list[str]) -> Seen:
    # A fixed choice that is spread over the names, so that two looks at a folder say the same.
    chosen = sorted(layout.pairs, key=lambda pair: shuffle_key(pair.name))[:LOOKED_AT]
    if len(chosen) < len(layout.pairs):
        suspicious.append(f"only {len(chosen)} of {len(layout.pairs)} pairs were looked into")
    seen, broken = Seen(), []
    for pair in sorted(chosen, key=lambda pair: pair.name):
        try:
            mask, _ = read_mask(pair)
            image = read_image(pair, mask.shape)
        except UserError as error:
            broken.append(str(error))
            continue
        seen.add(pair.name, image, mask, lambda pair=pair: read_mask(pair)[0])
    if broken:
        suspicious.append(f"{len(broken)} of {len(chosen)} pairs cannot be used: {broken[0]}")
    if len(seen.channels) > 1:
        each = ", ".join(f"{n} in '{name}'" for n, name in sorted(seen.channels.items()))
        suspicious.append(f"images differ in channels: {each}")
    return seen


def _look_into_file(path: Path, suspicious: list[str]) -> Seen:
    try:
        parts = medsegbench.read(path)
    except UserError as error:
        # A file of several categories names them when it refuses; look at the first.
        match = re.search(r"the categories are '(\w+)'", str(error))
        if not match:
            raise
        suspicious.append(f"{error}; looked at '{match[1]}'")
        parts = medsegbench.read(path, match[1])
    seen = Seen()
    for part, (images, labels) in parts.items():
        for n in range(min(len(labels), LOOKED_AT // 3)):
            image = np.moveaxis(images[n].reshape(*labels[n].shape, -1), -1, 0)
            seen.add(f"{part}/{n}", image, labels[n], lambda mask=labels[n]: mask)
    return seen


def _split(layout: Layout, suspicious: list[str]) -> str:
    """Return how the pairs are split, and by which unit."""
    groups = {pair.group or pair.name for pair in layout.pairs}
    if len(groups) < 3:
        units = f"there are {len(groups)} independent units"
        needed = "a split into train, val and test needs three, trust needs twenty or more"
        suspicious.append(f"{units}; {needed}")
    grouped = any(pair.group for pair in layout.pairs)
    unit = f"{len(groups)} groups (groups.csv)" if grouped else "single images (no groups.csv)"
    if layout.pairs and layout.pairs[0].part:
        counts = [f"{part} {sum(pair.part == part for pair in layout.pairs)}" for part in SPLITS]
        return f"split.csv: {', '.join(counts)}; unit: {unit}"
    return f"no split.csv: dealt 60/20/20 at random, anew for each seed; unit: {unit}"


def _coding(layout: Layout, seen: Values, suspicious: list[str]) -> tuple[dict[str, Any], Coding]:
    """Return the options that the folder needs and how its values are read; a guess becomes a suspicion."""
    declared = len(layout.classes) if layout.classes else None
    options: dict[str, Any] = {}
    try:
        coding = understand(seen, Options(), declared, str(layout.root))
        strange = [shown(value) for value in sorted(seen.pixels) if coding.of(value) < 0]
        if strange:
            classes = f"dataset.json declares the classes 0 to {declared - 1}"
            suspicious.append(f"the masks hold {strange}, but {classes}")
    except Unclear as error:
        # The sweep would refuse these masks; here the likely meaning is tried and said to be a guess.
        if not error.options:
            raise
        options = error.options
        coding = understand(seen, Options(**options), None, "")
        suspicious.append(f"{str(error).partition(': ')[2]}; here {coding.text}")
    if coding.of(VOID) == VOID and seen.pixels[VOID]:
        share = f"the value 255 covers {seen.pixels[VOID] / seen.pixels.total():.2%} of the pixels"
        suspicious.append(f"{share} and is read as void (left out of losses and scores)")
    if coding.above is None:  # so that the rest of the masks can still be counted
        strange = {value: VOID for value in seen.pixels if value not in coding.ids}
        coding = replace(coding, ids=coding.ids | strange)
    return options, coding


def _classes(seen: Seen, coding: Coding, names: tuple[str, ...]) -> tuple[list[dict], float]:
    """Return a row for each class, and the share of images without foreground."""
    from scipy import ndimage

    count = coding.classes
    pixels, present, empty = np.zeros(count, np.int64), np.zeros(count), 0
    objects: list[list[int]] = [[] for _ in range(count)]
    # Read again one by one: all masks of a large set would not fit in memory.
    for read in seen.masks:
        mask = coding.apply(read(), "")
        inside = np.bincount(mask.ravel(), minlength=256)[:count]
        pixels += inside
        present += inside > 0
        empty += not inside[1:].any()  # void is not foreground
        for k in np.flatnonzero(inside[1:]) + 1:
            labelled, _ = ndimage.label(mask == k, np.ones((3,) * mask.ndim))
            objects[k] += np.bincount(labelled.ravel())[1:].tolist()
    rows = [
        {
            "id": k,
            "name": names[k],
            "fraction": float(pixels[k] / max(pixels.sum(), 1)),
            "present": float(present[k] / len(seen.masks)),
            "median_object": float(np.median(objects[k])) if objects[k] else None,
            "smallest_object": min(objects[k], default=None),
        }
        for k in range(count)
    ]
    return rows, empty / len(seen.masks)


def _doubts(seen: Seen, rows: list[dict], empty: float, count: int) -> list[str]:
    """Return what is suspicious about the masks and the sizes."""
    doubts = []
    if rows[0]["present"] == 0:
        doubts.append("no mask holds the background (value 0): are images and masks swapped?")
    doubts += [f"class {row['id']} ({row['name']}) never occurs" for row in rows[1:] if row["present"] == 0]
    if empty:
        effect = "how losses treat them decides their false positives"
        doubts.append(f"{empty:.1%} of the images hold no foreground; {effect}")
    smallest = min((row["smallest_object"] or TINY for row in rows[1:]), default=TINY)
    if smallest < TINY:
        doubts.append(f"objects as small as {smallest} px occur; images are cropped, never shrunk")
    small = sum(min(size) < PATCH for size in seen.sizes if len(size) == 2)
    if small and is_since(2):  # before, training takes no patches
        doubts.append(
            f"{small} of {len(seen.sizes)} images are smaller than a patch of {PATCH} px and are padded"
        )
    if count < 20:
        doubts.append(f"{count} images are few: expect wide intervals")
    return doubts


def _look_alikes(seen: Seen, layout: Layout) -> list[str]:
    """Return a warning where images are so alike that a random split would leak, unless groups were given."""
    # With groups the user has said what belongs together.
    if len(seen.names) < 2 or any(pair.group for pair in layout.pairs):
        return []
    thumbs = np.stack(seen.thumbnails)
    # Products of unit vectors are correlations; the upper triangle names each pair once.
    alike = np.argwhere(np.triu(thumbs @ thumbs.T > ALIKE, 1))
    flat = sum(not thumb.any() for thumb in thumbs)
    doubts = [f"{flat} images are constant"] if flat else []
    if len(alike):
        a, b = (seen.names[n] for n in alike[0])
        count = len(set(alike.ravel().tolist()))
        mend = "a random split may leak; give what shows one thing one group in groups.csv (name,group)"
        doubts.append(f"{count} images have a near-duplicate ('{a}' and '{b}'): {mend}")
    return doubts


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a thumbnail of the first channel (of a volume's middle slice) as a unit vector of mean 0."""
    plane = image[0] if image.ndim == 3 else image[0, ..., image.shape[-1] // 2]
    plane = plane.astype(np.float32)
    for axis in (0, 1):
        # Means over blocks: fast, and no library has to be imported for a thumbnail.
        edges = np.linspace(0, plane.shape[axis], THUMB + 1).astype(int)
        widths = np.maximum(np.diff(edges), 1)
        plane = np.add.reduceat(plane, edges[:-1], axis=axis) / np.expand_dims(widths, 1 - axis)
    flat = plane.ravel() - plane.mean()
    norm = np.linalg.norm(flat)
    return flat / norm if norm > 1e-6 else np.zeros_like(flat)


def _sizes(seen: Seen) -> str:
    channels = "/".join(map(str, sorted(seen.channels)))
    return f"{size_text(np.array(seen.sizes))}, {channels} channel{'' if channels == '1' else 's'}"


def _experiment(path: Path, spec: str, count: int) -> str:
    # The folder's name, as far as an experiment may be called so.
    own = path.expanduser().absolute().name.removesuffix(".npz")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", own).strip("_-") or "mine"
    losses = ", ".join(json.dumps(loss) for loss in LOSSES)
    return (
        f"name = {json.dumps(name)}\n"
        "seeds = 5            # five paired starts; more make the intervals narrower\n"
        f"losses = [{losses}]\n"
        f"datasets = [{json.dumps(spec)}]\n\n"
        "[recipe]\n"
        "steps = 300\n"
        f"batch = {8 if count >= 8 else max(1, count // 2)}\n"
    )
