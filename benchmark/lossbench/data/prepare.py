"""Prepared arrays: built once, kept by what they are made from, and opened memory-mapped so that all workers
share one copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.seeds import stream
from lossbench.base.files import write_atomically
from lossbench.data import sources, splitting
from lossbench.data.cache import cache_root, locked, reason, whole_folder
from lossbench.data.container import VOID, Data, container, digest, validate
from lossbench.data.formats import UNREADABLE
from lossbench.data.identity import PUBLIC, content_of, public_source
from lossbench.data.splitting import crop_corner, rng_of, shuffle_key, tile_corners, whole_size, window

PARTS = ("train", "val", "test")

SPLIT_ONLY = ("val_fraction", "test_fraction")  # parameters that decide the split, not the arrays

_found_sound: set[tuple] = set()  # the arrays that this process has compared with their digests


@dataclass
class Prepared:
    """What a loader hands over before the split: arrays, and for every image its group, stratum, official
    part and name.
    """

    images: np.ndarray
    masks: np.ndarray
    groups: list[int]
    names: list[str]
    strata: list[int] | None = None
    parts: list[str] | None = None
    classes: tuple[str, ...] = ("background", "foreground")
    spacing: tuple[float, ...] | None = None
    unit: str = "px"
    notes: dict[str, Any] = field(default_factory=dict)


def open_prepared(
    name: str, spec: str, params: dict, version: int, seed: int, build: Callable[[], Prepared], card: dict
) -> Data:
    """Return the data set from the cache, building it first where it is not there.

    The arrays depend on the parameters and on the contents of the raw files alone; the split is dealt here,
    from ``seed``, unless the set has an official one. Nothing of an interrupted or failed build stays behind.
    """
    folder = prepared_path(name, params, version)
    opened = _open(folder)
    if opened is None:
        try:
            with locked(folder):
                opened = _open(folder)
                if opened is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    _write(folder, build(), spec)
                    opened = _open(folder)
        except OSError as error:
            where = f"cannot write the prepared data set '{name}' to {folder.parent}: {reason(error)}"
            raise UserError(f"{where}; free some space or set LOSSBENCH_CACHE to another folder") from None
        if opened is None:
            raise UserError(
                f"{folder}: the prepared data set '{name}' cannot be read back; delete the folder and "
                "try again"
            )
    images, masks, meta = opened
    groups = np.asarray(meta["groups"], np.int64)
    if meta["parts"]:
        parts = np.asarray(meta["parts"])
        split = {part: np.flatnonzero(parts == part) for part in PARTS}
    else:
        fractions = tuple(params[key] for key in SPLIT_ONLY)
        split = splitting.deal(groups, fractions, stream("split", name, seed), meta["strata"], spec)
    return container(
        name=spec, images=images, masks=masks, split=split, groups=groups, spacing=meta["spacing"], unit=meta["unit"],
        classes=tuple(meta["classes"]), ignore_index=VOID, card={**card, **meta["notes"], "names": meta["names"]},
        digests=(meta["digests"]["images"], meta["digests"]["masks"]),
    )  # fmt: skip


def prepared_path(name: str, params: dict, version: int) -> Path:
    """Return the folder of a variant's prepared arrays, named by what they are made from."""
    kept = {key: value for key, value in params.items() if key not in SPLIT_ONLY}
    content, kept = content_of(name, kept)
    text = json.dumps([name, version, kept, content], sort_keys=True)
    return cache_root() / "prepared" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_prepared(name: str, params: dict, version: int) -> bool:
    """Return whether a public set's variant lies ready in the cache."""
    return name in PUBLIC and (prepared_path(name, params, version) / "meta.json").is_file()


def _open(folder: Path) -> tuple[np.ndarray, np.ndarray, dict] | None:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        images, masks = (np.load(folder / f"{key}.npy", mmap_mode="r") for key in ("images", "masks"))
        whole = (
            list(images.shape) == meta["shape"]
            and len(masks) == len(images)
            and _whole(meta, len(images), masks.ndim - 1)
        )
        whole = whole and all(
            _sound(folder / f"{key}.npy", array, key, meta)
            for key, array in (("images", images), ("masks", masks))
        )
    except UNREADABLE:
        return None
    return (images, masks, meta) if whole else None


def _sound(path: Path, array: np.ndarray, key: str, meta: dict) -> bool:
    """Whether an array is the one that was prepared: by size and time of change, else by its digest, read
    through once a process.
    """
    mark = _mark(path)
    if mark == meta.get("marks", {}).get(key):
        return True
    seen = (path, *mark, meta["digests"][key])
    if seen not in _found_sound and digest(array) == meta["digests"][key]:
        _found_sound.add(seen)
    return seen in _found_sound


def _mark(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _whole(meta: dict, count: int, dims: int) -> bool:
    """Whether the facts beside the arrays are all there and of their kind; damaged ones are built again."""
    numbers = (meta["groups"], *(meta[key] for key in ("strata",) if meta[key] is not None))
    words = (meta["names"], *(meta[key] for key in ("parts",) if meta[key] is not None))
    return (
        all(len(column) == count and set(map(type, column)) == {int} for column in numbers)
        and all(len(column) == count and set(map(type, column)) == {str} for column in words)
        and set(meta["parts"] or PARTS) <= set(PARTS)
        and set(map(type, meta["classes"])) == {str}
        and len(meta["spacing"]) == dims
        and all(isinstance(step, int | float) and 0 < step < float("inf") for step in meta["spacing"])
        and isinstance(meta["unit"], str)
        and isinstance(meta["notes"], dict)
        and all(isinstance(meta["digests"][key], str) for key in ("images", "masks"))
        and isinstance(meta.get("marks", {}), dict)
    )


def _write(folder: Path, made: Prepared, spec: str) -> None:
    if made.parts is None and len(set(made.groups)) < 3:
        raise UserError(
            f"data set '{spec}': {len(set(made.groups))} independent units cannot be split into "
            "train, val and test; it needs three"
        )
    spacing = made.spacing or (1.0,) * (made.masks.ndim - 1)
    validate(
        Data(
            spec,
            made.images,
            made.masks,
            {},
            np.asarray(made.groups),
            spacing,
            made.unit,
            made.classes,
            VOID,
            None,
            "",
        )
    )
    meta = {
        "spec": spec, "shape": list(made.images.shape), "groups": [int(g) for g in made.groups], "names": made.names,
        "strata": made.strata, "parts": made.parts, "classes": list(made.classes), "spacing": list(spacing), "unit": made.unit,
        "notes": made.notes, "digests": {"images": digest(made.images), "masks": digest(made.masks)},
    }  # fmt: skip
    with whole_folder(folder) as work:
        np.save(work / "images.npy", made.images)
        np.save(work / "masks.npy", made.masks)
        meta["marks"] = {key: _mark(work / f"{key}.npy") for key in ("images", "masks")}
        write_atomically(work / "meta.json", json.dumps(meta).encode())


def zscore(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the image with mean 0 and standard deviation 1 over ``axes``; a constant image becomes 0."""
    image = image.astype(np.float64)
    spread = image.std(axis=axes, keepdims=True)
    return ((image - image.mean(axis=axes, keepdims=True)) / np.where(spread > 1e-8, spread, 1)).astype(
        np.float32
    )


def missing(spec: Any) -> str:
    """Return the sentence that says how to get a public set that is not on this machine; an empty string if
    it is, or is no public set.
    """
    if spec.name not in PUBLIC:
        return ""
    if is_prepared(spec.name, spec.params, spec.entry.meta.get("version", 1)):
        return ""
    return sources.missing_files(public_source(spec.name, spec.params))


# --- From a list of picture pairs to prepared arrays: read, z-score, cut into windows that keep small
# targets whole.

VIEWS = ("crop", "tiles", "whole")


@dataclass(frozen=True)
class Item:
    """One picture of a set: its name, its independent unit, its stratum for the split and its part in an
    official split.
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
    """Return the windows of all pictures; ``read(name)`` gives image (C, H, W) and mask (H, W) with 255 for
    void.

    - view 'crop': ``per_image`` (or one) windows of ``size`` x ``size`` at native resolution, each around one
      whole object drawn at random, or anywhere where the picture has none;
    - view 'tiles': the windows that cover the picture, each pixel in one of them; ``per_image`` keeps that
      many, chosen at random;
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
