"""The card of a data set: what a report shows of it, as plain numbers and small pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.data.container import Data, fractions

LEAST_GAP = 1e-6


def card(data: Data, *, samples: int = 6, objects_from: int = 300) -> dict[str, Any]:
    """Return what describes a data set; every entry but ``samples`` can be written as JSON.

    ``name, fingerprint, licence, citation, url, source, notes, shape, channels, spacing, unit, classes``; ``images``: their number in each
    part; ``fractions``: pooled pixel fraction of each class; ``image_fractions``: for each foreground class its fraction in every image;
    ``empty``: share of images without foreground in each part; ``object_sizes``: pixels of connected regions of each foreground class, from
    at most ``objects_from`` images; ``samples``: (image (H, W[, 3]) uint8, mask (H, W) uint8) of test images spread over the foreground sizes.
    """
    valid = np.maximum((np.asarray(data.masks) != (-1 if data.ignore_index is None else data.ignore_index)).reshape(len(data), -1).sum(1), 1)
    counts = np.stack([(data.masks == k).reshape(len(data), -1).sum(1) for k in range(1, len(data.classes))], 1)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(objects_from, len(data))).astype(int))
    return {
        "name": data.name, "fingerprint": data.fingerprint, "shape": list(data.shape), "channels": data.images.shape[1],
        "spacing": list(data.spacing), "unit": data.unit, "classes": list(data.classes),
        **{key: data.card.get(key, "") for key in ("licence", "citation", "url", "source", "notes")},
        "images": {part: len(index) for part, index in data.split.items()},
        "fractions": fractions(data),
        "image_fractions": {name: (counts[:, k] / valid).tolist() for k, name in enumerate(data.classes[1:])},
        "empty": {part: float((counts[index].sum(1) == 0).mean()) for part, index in data.split.items()},
        "object_sizes": {name: _object_sizes(data, k, chosen) for k, name in enumerate(data.classes[1:], 1)},
        "samples": [_picture(data, n) for n in _spread(counts.sum(1), data.split["test"], samples)],
    }  # fmt: skip


def _object_sizes(data: Data, k: int, chosen: np.ndarray) -> list[int]:
    from scipy import ndimage

    found: list[int] = []
    for n in chosen:
        labelled, count = ndimage.label(data.masks[n] == k, np.ones((3,) * len(data.shape)))
        found += np.bincount(labelled.ravel())[1:].tolist() if count else []
    return found


def _spread(sizes: np.ndarray, index: np.ndarray, count: int) -> list[int]:
    """Return test images from the smallest to the largest foreground, those with foreground first."""
    with_foreground = index[sizes[index] > 0] if (sizes[index] > 0).any() else index
    ordered = with_foreground[np.argsort(sizes[with_foreground], kind="stable")]
    return ordered[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int))].tolist()


def _picture(data: Data, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image as grey or colour between its 1st and 99th percentile, a volume by the slice with most foreground."""
    image, mask = np.asarray(data.images[n]), np.asarray(data.masks[n])
    if mask.ndim == 3:
        slices = ((mask > 0) & (mask != (data.ignore_index or -1))).sum((0, 1))
        z = int(slices.argmax()) if slices.any() else mask.shape[2] // 2
        image, mask = image[..., z], mask[..., z]
    image = image if len(image) == 3 else image[:1]
    low, high = np.percentile(image, (1, 99))
    scaled = (np.clip((image - low) / max(high - low, LEAST_GAP), 0, 1) * 255).astype(np.uint8)
    return (scaled[0] if len(scaled) == 1 else scaled.transpose(1, 2, 0)), mask.copy()
