"""What ``lossbench data inspect`` tells of a user's folder: what was understood, what is suspicious, and
where to start from.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data import folder, layouts, medsegbench
from lossbench.data.container import VOID
from lossbench.data.splitting import shuffle_key

LOOKED_AT = 400  # pairs whose pixels are read; names are checked for all

ALIKE = 0.99  # correlation of two 24 x 24 thumbnails above which two images probably show one thing

LOSSES = ("ce", "dice", "dice_ce", "focal")


def inspect(path: str | Path) -> dict[str, Any]:
    """Return what was understood of a folder of images and masks, a task folder or a MedSegBench file.

    Keys: ``path, layout, pairs, looked_at, sizes, split``; ``classes``: rows of ``id, name, fraction`` (of
    pixels that are not void), ``present`` (share of images), ``median_object`` (pixels of a connected
    region); ``empty``: share of images without foreground; ``suspicious``: sentences; ``spec``: the data
    set's spec string; ``experiment``: a TOML text to start from.
    """
    layout = layouts.find(path, strict=False)
    suspicious = [f"{len(layout.unmatched)} unmatched: {layout.unmatched[0]}"] if layout.unmatched else []
    if layout.root.is_file():
        pairs, names = _from_file(layout.root, suspicious)
        split, count = "split as published in the file", len(names)
    else:
        pairs, names = _from_folder(layout, suspicious)
        split, count = _split(layout, suspicious), len(layout.pairs)
    if not pairs:
        raise UserError(f"{path}: none of its pairs can be read; {suspicious[0]}")
    options, coding = _coding(layout, [mask for _, mask in pairs], suspicious)
    masks = [coding.ids[mask] for _, mask in pairs]
    class_names = layout.classes if layout.classes and len(layout.classes) == coding.classes else None
    rows = [_row(masks, k, class_names) for k in range(coding.classes)]
    empty = float(np.mean([not ((m > 0) & (m != VOID)).any() for m in masks]))
    suspicious += _doubts(masks, rows, empty, count) + _look_alikes(pairs, names, layout)
    given = ", ".join([f"path={str(path)!r}", *(f"{key}={value!r}" for key, value in options.items())])
    spec = f"folder({given})"
    return {
        "path": str(path), "layout": layout.kind, "pairs": count, "looked_at": len(pairs), "sizes": _sizes(pairs), "split": split,
        "classes": rows, "empty": empty, "suspicious": suspicious, "spec": spec, "experiment": _experiment(Path(path), spec, count),
    }  # fmt: skip


def _from_folder(layout: layouts.Layout, suspicious: list[str]):
    chosen = sorted(sorted(layout.pairs, key=lambda p: shuffle_key(p.name))[:LOOKED_AT], key=lambda p: p.name)
    if len(chosen) < len(layout.pairs):
        suspicious.append(f"only {len(chosen)} of {len(layout.pairs)} pairs were looked into")
    pairs, names, broken, channels = [], [], [], {}
    for pair in chosen:
        try:
            mask, _ = folder.read_mask(pair.mask)
            image = folder.read_image(pair, mask.shape)
        except UserError as error:
            broken.append(str(error))
            continue
        pairs.append((image, mask))
        names.append(pair.name)
        channels.setdefault(len(image), pair.name)
    if broken:
        suspicious.append(f"{len(broken)} of {len(chosen)} pairs cannot be used: {broken[0]}")
    if len(channels) > 1:
        suspicious.append(
            "images differ in channels: "
            + ", ".join(f"{n} in '{name}'" for n, name in sorted(channels.items()))
        )
    return pairs, names


def _from_file(path: Path, suspicious: list[str]):
    try:
        parts = medsegbench.read(path)
    except UserError as error:
        match = re.search(r"the categories are '(\w+)'", str(error))
        if not match:
            raise
        suspicious.append(f"{error}; looked at '{match[1]}'")
        parts = medsegbench.read(path, match[1])
    pairs, names = [], []
    for part, (images, labels) in parts.items():
        for n in range(min(len(labels), LOOKED_AT // 3)):
            pairs.append(
                (np.moveaxis(images[n].reshape(*labels[n].shape, -1), -1, 0).astype(np.float32), labels[n])
            )
            names.append(f"{part}/{n}")
    return pairs, names


def _split(layout: layouts.Layout, suspicious: list[str]) -> str:
    groups = {pair.group or pair.name for pair in layout.pairs}
    if len(groups) < 3:
        suspicious.append(
            f"there are {len(groups)} independent units; a split into train, val and test needs "
            "three, trust needs twenty or more"
        )
    grouped = any(pair.group for pair in layout.pairs)
    unit = f"{len(groups)} groups (groups.csv)" if grouped else "single images (no groups.csv)"
    if layout.pairs and layout.pairs[0].part:
        parts = {part: sum(pair.part == part for pair in layout.pairs) for part in ("train", "val", "test")}
        return "split.csv: " + ", ".join(f"{part} {n}" for part, n in parts.items()) + f"; unit: {unit}"
    return f"no split.csv: dealt 60/20/20 at random, anew for each seed; unit: {unit}"


def _coding(
    layout: layouts.Layout, masks: list[np.ndarray], suspicious: list[str]
) -> tuple[dict[str, Any], folder.Coding]:
    """Return the options that the folder needs and how its values are read; what had to be guessed becomes a
    suspicion.
    """
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    values = np.flatnonzero(counts)
    declared = len(layout.classes) if layout.classes else None
    try:
        coding = folder.understand(counts, folder.Options(), declared, str(layout.root))
        options: dict[str, Any] = {}
        if declared is not None:
            strange = [int(v) for v in values if coding.ids[v] < 0]
            if strange:
                suspicious.append(
                    f"the masks hold {strange}, but dataset.json declares the classes 0 to {declared - 1}"
                )
    except UserError as error:
        if len(values) > folder.MANY:
            options, why = (
                {"threshold": 127},
                f"the masks hold {len(values)} grey values and look anti-aliased: read as foreground "
                "above 127",
            )
        else:
            options, why = (
                {"values": [int(v) for v in values]},
                f"the mask values {values.tolist()} are read as classes in this order",
            )
            if len(values) < 2:
                raise UserError(
                    f"{layout.root}: every mask holds the one value {values.tolist()}; {error}"
                ) from None
        suspicious.append(why)
        coding = folder.understand(
            counts,
            folder.Options(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}),
            None,
            "",
        )
    if VOID in values and coding.ids[VOID] == VOID:
        share = counts[VOID] / counts.sum()
        suspicious.append(
            f"the value 255 covers {share:.2%} of the pixels and is read as void (left out of losses "
            "and scores)"
        )
    coding.ids[coding.ids < 0] = VOID
    return options, coding


def _row(masks: list[np.ndarray], k: int, names: tuple[str, ...] | None) -> dict[str, Any]:
    from scipy import ndimage

    valid = sum(int((m != VOID).sum()) for m in masks)
    pixels = sum(int((m == k).sum()) for m in masks)
    objects: list[int] = []
    for mask in masks if k else ():
        labelled, count = ndimage.label(mask == k, np.ones((3,) * mask.ndim))
        objects += np.bincount(labelled.ravel())[1:].tolist() if count else []
    name = (
        names[k]
        if names
        else (
            "background"
            if k == 0
            else "foreground"
            if len(np.unique([m.max() for m in masks])) <= 2
            else f"class_{k}"
        )
    )
    return {
        "id": k, "name": name, "fraction": pixels / max(valid, 1), "present": float(np.mean([(m == k).any() for m in masks])),
        "median_object": float(np.median(objects)) if objects else None, "smallest_object": min(objects) if objects else None,
    }  # fmt: skip


def _doubts(masks: list[np.ndarray], rows: list[dict], empty: float, count: int) -> list[str]:
    found = []
    if rows[0]["present"] == 0:
        found.append("no mask holds the background (value 0): are images and masks swapped?")
    found += [f"class {row['id']} ({row['name']}) never occurs" for row in rows[1:] if row["present"] == 0]
    if empty:
        found.append(
            f"{empty:.1%} of the images hold no foreground; how losses treat them decides their false "
            "positives"
        )
    small = [row for row in rows[1:] if row["smallest_object"] is not None and row["smallest_object"] < 10]
    if small:
        found.append(
            f"objects as small as {min(row['smallest_object'] for row in small)} px occur; images are "
            "cropped, never shrunk"
        )
    if count < 20:
        found.append(f"{count} images are few: expect wide intervals")
    return found


def _look_alikes(pairs, names: list[str], layout: layouts.Layout) -> list[str]:
    """Return a warning where images are so alike that a random split would leak, unless groups were given."""
    if len(pairs) < 2 or any(pair.group for pair in layout.pairs):
        return []
    thumbs = np.stack([_thumbnail(image) for image, _ in pairs])
    alike = np.argwhere(np.triu(thumbs @ thumbs.T > ALIKE, 1))
    flat = sum(not thumb.any() for thumb in thumbs)
    found = [f"{flat} images are constant"] if flat else []
    if len(alike):
        involved = len(set(alike.ravel().tolist()))
        a, b = alike[0]
        found.append(f"{involved} images have a near-duplicate ('{names[a]}' and '{names[b]}'): a random split may "
            "leak; give what shows "
                     "one thing one group in groups.csv (name,group)")  # fmt: skip
    return found


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a 24 x 24 thumbnail of the first channel (of a volume's middle slice) as a unit vector of mean
    0.
    """
    plane = image[0] if image.ndim == 3 else image[0, ..., image.shape[-1] // 2]
    for axis in (0, 1):
        extent = plane.shape[axis]
        edges = np.linspace(0, extent, 25).astype(int)
        widths = np.maximum(np.diff(edges), 1)
        plane = np.add.reduceat(plane, edges[:-1], axis=axis) / np.expand_dims(widths, 1 - axis)
    flat = plane.ravel() - plane.mean()
    norm = np.linalg.norm(flat)
    return flat / norm if norm > 1e-6 else np.zeros_like(flat)


def _sizes(pairs) -> str:
    shapes = sorted({mask.shape for _, mask in pairs})
    channels = "/".join(str(n) for n in sorted({len(image) for image, _ in pairs}))
    text = "x".join(map(str, shapes[0]))
    if len(shapes) > 1:
        low, high = (
            f(zip(*shapes, strict=True))
            for f in (lambda z: [min(a) for a in z], lambda z: [max(a) for a in z])
        )
        text = f"{len(shapes)} sizes from {'x'.join(map(str, low))} to {'x'.join(map(str, high))}"
    return f"{text}, {channels} channel{'' if channels == '1' else 's'}"


def _experiment(path: Path, spec: str, count: int) -> str:
    name = (
        re.sub(r"[^A-Za-z0-9_-]+", "_", path.expanduser().absolute().name.removesuffix(".npz")).strip("_-")
        or "mine"
    )
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
