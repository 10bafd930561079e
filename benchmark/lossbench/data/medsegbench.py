"""MedSegBench files (.npz): read directly, with their official split; the package that made them is not
needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data import prepare as pictures
from lossbench.data.formats import UNREADABLE, labels_of
from lossbench.data.prepare import Item, Prepared

PARTS = ("train", "val", "test")


def read(path: Path, category: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images (N, H, W[, 3]) and labels (N, H, W) of each part.

    Keys are ``{part}_images`` and ``{part}_label`` (singular), with a suffix such as ``_C1`` for sets in
    categories; some share their images among the categories. A trailing axis of one is dropped.
    """
    suffix = f"_{category}" if category else ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            offered = sorted({key.split("_label_")[1] for key in keys if "_label_" in key})
            if f"train_label{suffix}" not in keys:
                if not offered and "train_label" not in keys:
                    raise UserError(
                        f"{path}: is not a MedSegBench file; it holds {', '.join(sorted(keys)[:6])}, "
                        "expected train_images, train_label, ..."
                    )
                choices = ", ".join(f"'{c}'" for c in offered) or "none, leave 'category' out"
                raise UserError(
                    f"{path}: has no labels for category '{category}'; the categories are {choices}"
                )
            found = {}
            for part in PARTS:
                image_key = next((k for k in (f"{part}_images{suffix}", f"{part}_images") if k in keys), None)
                if image_key is None or f"{part}_label{suffix}" not in keys:
                    raise UserError(f"{path}: lacks the images or labels of the part '{part}'")
                found[part] = _pair(archive[image_key], archive[f"{part}_label{suffix}"], path, part)
    except (*UNREADABLE, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: is not a readable .npz file ({error})") from None
    return found


def _pair(images: np.ndarray, labels: np.ndarray, path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    labels = labels[..., 0] if labels.ndim == 4 and labels.shape[-1] == 1 else labels
    if labels.ndim != 3 or images.shape[:3] != labels.shape or images.ndim not in (3, 4) or not len(labels):
        raise UserError(
            f"{path}: images {images.shape} and labels {labels.shape} of the part '{part}' do not fit"
        )
    return images, labels_of(labels, path)


def prepare(path: Path, category: str, cut: dict) -> Prepared:
    """Return the prepared arrays of a MedSegBench file; its parts are kept, each picture is its own group."""
    parts = read(path, category)
    values = np.unique(np.concatenate([np.unique(labels) for _, labels in parts.values()]))
    top = 1 if values.tolist() in ([0, 255], [255]) else int(values.max())
    classes = (
        ("background", "foreground")
        if top <= 1
        else ("background", *(f"class_{k}" for k in range(1, top + 1)))
    )
    offsets = dict(zip(PARTS, np.cumsum([0, *(len(parts[p][1]) for p in PARTS)]), strict=False))
    items = [
        Item(f"{part}/{n}", int(offsets[part] + n), part=part)
        for part in PARTS
        for n in range(len(parts[part][1]))
    ]

    def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
        part, number = name.split("/")
        image, mask = (array[int(number)] for array in parts[part])
        return np.moveaxis(image.reshape(*mask.shape, -1), -1, 0), (mask > 0).astype(
            np.uint8
        ) if top == 1 else mask

    side = max(max(labels.shape[1:]) for _, labels in parts.values())
    view = ("whole" if side <= 160 else "crop") if cut["view"] == "auto" else cut["view"]
    if view in ("slices", "volumes"):
        raise UserError(f"{path}: holds pictures; view='{view}' is for volumes")
    return pictures.prepare(
        items, pair, view=view, size=cut["size"], per_image=cut["per_image"], classes=classes
    )
