"""MedSegBench files (.npz): read directly, with their official split; the package that made them is not
needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data import windows
from lossbench.data.container import SPLITS
from lossbench.data.formats import UNREADABLE, labels_of
from lossbench.data.naming import class_names
from lossbench.data.pairs import Arrays, Item, Pairs
from lossbench.data.windows import Cut

SMALL = 160  # pictures up to this side are taken as they are, larger ones are cropped


def read(path: Path, category: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images (N, H, W[, 3]) and labels (N, H, W) of each part.

    Keys are ``{part}_images`` and ``{part}_label`` (singular), with a suffix such as ``_C1`` for sets in
    categories; some share their images among the categories. A trailing axis of one is dropped.
    """
    suffix = f"_{category}" if category else ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            if f"train_label{suffix}" not in keys:
                raise UserError(f"{path}: {_why_not(keys, category)}")
            parts = {}
            for part in SPLITS:
                label, image = f"{part}_label{suffix}", f"{part}_images{suffix}"
                # Lesions of one picture: the categories have labels of their own and share the images.
                image = image if image in keys else f"{part}_images"
                if image not in keys or label not in keys:
                    raise UserError(f"{path}: has no images or no labels of the part '{part}'")
                parts[part] = _pair(archive[image], archive[label], path, part)
    except (*UNREADABLE, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: is not a readable .npz file ({error})") from None
    return parts


def _why_not(keys: set[str], category: str) -> str:
    """Return what is wrong with a file that has no labels of a category."""
    offered = sorted({key.split("_label_")[1] for key in keys if "_label_" in key})
    if not offered and "train_label" not in keys:
        there = ", ".join(sorted(keys)[:6])
        return f"is not a MedSegBench file; it holds {there}, expected train_images, train_label, ..."
    choices = ", ".join(f"'{name}'" for name in offered) or "none, leave 'category' out"
    return f"has no labels for category '{category}'; the categories are {choices}"


def _pair(images: np.ndarray, labels: np.ndarray, path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    # Some files keep an axis for the one channel.
    labels = labels[..., 0] if labels.ndim == 4 and labels.shape[-1] == 1 else labels
    if labels.ndim != 3 or images.shape[:3] != labels.shape or images.ndim not in (3, 4) or not len(labels):
        shapes = f"images {images.shape} and labels {labels.shape}"
        raise UserError(f"{path}: {shapes} of the part '{part}' do not fit")
    return images, labels_of(labels, path)


def prepare(path: Path, category: str, cut: Cut) -> Pairs | Arrays:
    """Return the pairs of a file, or their windows; its parts are kept, each picture is its own group."""
    parts = read(path, category)
    values = sorted({int(value) for _, labels in parts.values() for value in np.unique(labels)})
    # Binary sets hold 0 and 1, or 0 and 255 where they were saved as pictures.
    top = 1 if values in ([0, 255], [255]) else max(values)
    names = [(part, n) for part in SPLITS for n in range(len(parts[part][1]))]

    def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
        part, number = name.split("/")
        image, mask = (array[int(number)] for array in parts[part])
        image = np.moveaxis(image.reshape(*mask.shape, -1), -1, 0)
        return image, (mask > 0).astype(np.uint8) if top == 1 else mask

    items = [Item(f"{part}/{n}", group, part=part) for group, (part, n) in enumerate(names)]
    pairs = Pairs(items, pair, class_names(top + 1), pixels=sum(labels.size for _, labels in parts.values()))
    view = cut.view
    if view == "auto":
        largest = max(max(labels.shape[1:]) for _, labels in parts.values())
        view = "padded" if largest <= SMALL else "crop"
    if view in ("slices", "volumes", "whole_slices"):
        raise UserError(f"{path}: holds pictures; view='{view}' is for volumes")
    return pairs if view == "whole" else windows.cut(pairs, view=view, size=cut.size, per_image=cut.per_image)
