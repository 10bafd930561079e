"""Prepared arrays: built once, kept by what they are made from, and opened memory-mapped so that all workers share one
copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data import sources, splitting
from benchmark.data.container import VOID, Data, container, digest, validate
from benchmark.data.files import locked, plain, whole_folder, write_whole
from benchmark.data.formats import UNREADABLE
from benchmark.data.identity import PUBLIC, content_of, public_source
from benchmark.errors import UserError
from benchmark.seeds import stream

PARTS = ("train", "val", "test")
SPLIT_ONLY = ("val_fraction", "test_fraction")  # parameters that decide the split, not the arrays
_found_sound: set[tuple] = set()  # the arrays that this process has compared with their digests


@dataclass
class Prepared:
    """What a loader hands over before the split: arrays, and for every image its group, stratum, official part and
    name.
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


def open_prepared(name: str, spec: str, params: dict, version: int, seed: int, build: Callable[[], Prepared], card: dict) -> Data:
    """Return the data set from the cache, building it first where it is not there.

    The arrays depend on the parameters and on the contents of the raw files alone; the split is dealt here, from
    ``seed``, unless the set has an official one. Nothing of an interrupted or failed build stays behind.
    """
    folder = prepared_path(name, params, version)
    opened = _open(folder)
    if opened is None:
        try:
            with locked(folder.parent / f".{folder.name}.lock"):
                opened = _open(folder)
                if opened is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    _write(folder, build(), spec)
                    opened = _open(folder)
        except OSError as error:
            where = f"cannot write the prepared data set '{name}' to {folder.parent}: {plain(error)}"
            raise UserError(f"{where}; free some space or set LOSSBENCH_CACHE to another folder") from None
        if opened is None:
            raise UserError(f"{folder}: the prepared data set '{name}' cannot be read back; delete the folder and try again")
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
    return sources.cache_root() / "prepared" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_prepared(name: str, params: dict, version: int) -> bool:
    """Return whether a public set's variant lies ready in the cache."""
    return name in PUBLIC and (prepared_path(name, params, version) / "meta.json").is_file()


def _open(folder: Path) -> tuple[np.ndarray, np.ndarray, dict] | None:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        images, masks = (np.load(folder / f"{key}.npy", mmap_mode="r") for key in ("images", "masks"))
        whole = list(images.shape) == meta["shape"] and len(masks) == len(images) and _whole(meta, len(images), masks.ndim - 1)
        whole = whole and all(_sound(folder / f"{key}.npy", array, key, meta) for key, array in (("images", images), ("masks", masks)))
    except UNREADABLE:
        return None
    return (images, masks, meta) if whole else None


def _sound(path: Path, array: np.ndarray, key: str, meta: dict) -> bool:
    """Whether an array is the one that was prepared: by size and time of change, else by its digest, read through once a process."""
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
        raise UserError(f"data set '{spec}': {len(set(made.groups))} independent units cannot be split into train, val and test; it needs three")
    spacing = made.spacing or (1.0,) * (made.masks.ndim - 1)
    validate(Data(spec, made.images, made.masks, {}, np.asarray(made.groups), spacing, made.unit, made.classes, VOID, None, ""))
    meta = {
        "spec": spec, "shape": list(made.images.shape), "groups": [int(g) for g in made.groups], "names": made.names,
        "strata": made.strata, "parts": made.parts, "classes": list(made.classes), "spacing": list(spacing), "unit": made.unit,
        "notes": made.notes, "digests": {"images": digest(made.images), "masks": digest(made.masks)},
    }  # fmt: skip
    with whole_folder(folder) as work:
        np.save(work / "images.npy", made.images)
        np.save(work / "masks.npy", made.masks)
        meta["marks"] = {key: _mark(work / f"{key}.npy") for key in ("images", "masks")}
        write_whole(work / "meta.json", json.dumps(meta).encode())


def zscore(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the image with mean 0 and standard deviation 1 over ``axes``; a constant image becomes 0."""
    image = image.astype(np.float64)
    spread = image.std(axis=axes, keepdims=True)
    return ((image - image.mean(axis=axes, keepdims=True)) / np.where(spread > 1e-8, spread, 1)).astype(np.float32)


def missing(spec: Any) -> str:
    """Return the sentence that says how to get a public set that is not on this machine; an empty string if it is, or
    is no public set.
    """
    if spec.name not in PUBLIC:
        return ""
    if is_prepared(spec.name, spec.params, spec.entry.meta.get("version", 1)):
        return ""
    name = public_source(spec.name, spec.params)
    folder = sources.raw_folder(name)
    if folder is None:
        return sources.how_to_get(name)
    gaps = sources.absent(name, folder)
    if gaps:
        lacking = f"{len(gaps)} of {len(sources.source(name).files)} files in {folder} (such as {gaps[0]})"
        return f"data set '{name}' lacks {lacking}; 'lossbench data fetch {name}' completes it"
    return ""
