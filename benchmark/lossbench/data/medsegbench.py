"""MedSegBench files (.npz): read directly, with their official split; the package that made them is not
needed.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data import windows
from lossbench.data.container import SPLITS, class_names
from lossbench.data.formats import UNREADABLE, labels_of
from lossbench.data.pairs import Arrays, FilePair, Item, Layout, Pairs


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


def listed(path: Path) -> tuple[Layout, str]:
    """Return the pairs of a file, to be looked at, and the category, the first of several."""
    category, notes = "", []
    try:
        parts = read(path)
    except UserError as error:
        # A file of several categories names them when it refuses.
        match = re.search(r"the categories are '(\w+)'", str(error))
        if not match:
            raise
        category = match[1]
        notes.append(f"{error}; looked at '{category}'")
        parts = read(path, category)
    pairs = [
        FilePair(f"{part}/{n}", (path,), (path,), "", part, labels[n].view, images[n].view)
        for part, (images, labels) in parts.items()
        for n in range(len(labels))
    ]
    return Layout("a MedSegBench file", path, pairs, notes=notes, extra_files=(path,)), category


def prepare(path: Path, category: str, view: str) -> Pairs | Arrays:
    """Return the pairs of a file, or padded pictures; its parts are kept, each picture is its own group."""
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
    if view == "whole_slices":
        raise UserError(f"{path}: holds pictures; view='whole_slices' is for volumes")
    shapes = [mask.shape for _, labels in parts.values() for mask in labels[:1]]
    padded = view == "auto" and windows.are_small(shapes)
    return windows.cut(pairs, view="padded", size=0) if padded else pairs
