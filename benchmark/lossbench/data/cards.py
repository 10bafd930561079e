"""The card of a data set: what a report shows of it, as plain numbers and small pictures in one JSON file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.files import cannot_write, write_atomically
from lossbench.data import leaks, parts, splitting
from lossbench.data.container import VOID, Data, fractions, size_text

LEAST_GAP = 1e-6

OBJECTS_FROM = 300  # images whose connected regions are counted, at most

SIDE = 320  # pixels of the longer side above which a picture is made smaller

# One colour for each foreground class, safe for the colour-blind (Okabe and Ito 2008); more start again.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def card(data: Data, *, samples: int = 6, name: str = "") -> dict[str, Any]:
    """Return what describes a data set; every entry but ``samples`` can be written as JSON. ``name`` stands
    for it in random streams (default: its own).

    - ``name, fingerprint, licence, citation, url, source, notes, published, unpublished, channels, spacing,
      unit, classes``;
    - ``shape``: of every image, or None, and then ``sizes`` says from what to what;
    - ``scored``: share of the images of val and test that the budgets of pixels allow;
    - ``images``: their number in each part; ``fractions``: pooled pixel fraction of each class;
    - ``image_fractions``: for each foreground class its fraction in every image; ``empty``: share of images
      without foreground in each part;
    - ``object_sizes``: pixels of connected regions of each foreground class, from at most 300 images;
    - ``samples``: (image (H, W[, 3]) uint8, mask (H, W) uint8) of test images spread over foreground sizes.
    """
    foreground = data.counts[:, 1:]  # counted when the set was prepared: no mask is read for it
    valid = np.maximum(data.counts.sum(1), 1)
    # Spread over the whole set, so that no volume or sequence speaks for all.
    chosen = np.unique(np.linspace(0, len(data) - 1, min(OBJECTS_FROM, len(data))).astype(int))
    shares = foreground / valid[:, None]
    empty = foreground.sum(1) == 0
    origin = {key: data.card.get(key, "") for key in ("licence", "citation", "url", "source", "notes")}
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        **origin,
        "published": data.card.get("published", []),
        "unpublished": data.card.get("unpublished", ""),
        "shape": list(data.shape) if data.shape else None,
        "sizes": size_text(data.sizes),
        "channels": data.channels,
        "spacing": list(data.spacing),
        "unit": data.unit,
        "classes": list(data.classes),
        "scored": splitting.shares(data, name),
        "images": {part: len(index) for part, index in data.split.items()},
        "fractions": fractions(data),
        "image_fractions": {name: shares[:, k].tolist() for k, name in enumerate(data.classes[1:])},
        "empty": {part: float(empty[index].mean()) for part, index in data.split.items()},
        "object_sizes": _object_sizes(data, chosen),
        "samples": [_picture(data, n) for n in _spread(foreground.sum(1), data.split["test"], samples)],
    }


def _object_sizes(data: Data, chosen: np.ndarray) -> dict[str, list[int]]:
    from scipy import ndimage

    sizes: dict[str, list[int]] = {name: [] for name in data.classes[1:]}
    for n in chosen:
        mask = np.asarray(data.masks[n])
        for k in np.flatnonzero(data.counts[n, 1:]) + 1:  # classes that the image has
            labelled, _ = ndimage.label(mask == k, np.ones((3,) * data.dims))
            sizes[data.classes[k]] += np.bincount(labelled.ravel())[1:].tolist()
    return sizes


def _spread(sizes: np.ndarray, index: np.ndarray, count: int) -> list[int]:
    """Return test images from the smallest to the largest foreground, those with foreground first."""
    # An empty image shows nothing of a class; it is taken only where there is nothing else.
    with_foreground = index[sizes[index] > 0] if (sizes[index] > 0).any() else index
    ordered = with_foreground[np.argsort(sizes[with_foreground], kind="stable")]
    return ordered[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int))].tolist()


def _picture(data: Data, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one image as grey or colour between its 1st and 99th percentile.

    Of a volume, the slice with most foreground.
    """
    return shown_slice(np.asarray(data.images[n]), np.asarray(data.masks[n]), data.ignore_index)


def shown_slice(image: np.ndarray, mask: np.ndarray, void: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (C, *S) as uint8 (H, W[, 3]), and its mask (H, W)."""
    if mask.ndim == 3:
        slices = ((mask > 0) & (mask != (void or -1))).sum((0, 1))
        z = int(slices.argmax()) if slices.any() else mask.shape[2] // 2
        image, mask = image[..., z], mask[..., z]
    image = image if len(image) == 3 else image[:1]  # colour, else the first of other channels
    # Percentiles rather than extremes: one bright pixel would leave all others black.
    low, high = np.percentile(image, (1, 99))
    scaled = (np.clip((image - low) / max(high - low, LEAST_GAP), 0, 1) * 255).astype(np.uint8)
    return (scaled[0] if len(scaled) == 1 else scaled.transpose(1, 2, 0)), mask.copy()


def name(spec: Any, identity: str) -> str:
    """Return the file name of a data set variant's card."""
    return hashlib.sha256(f"{spec.public.text}\0{identity}".encode()).hexdigest()[:16] + ".json"


def store(
    results: str | Path, variants: list[tuple[Any, str, str]], seed: int, extra_files: tuple[str, ...] = ()
) -> dict[str, str]:
    """Write the card of each variant (spec, identity, label) that has none yet; return label -> file name."""
    from lossbench.catalogue.registry import get_dataset

    folder = Path(results) / "cards"
    files = {}
    for spec, identity, label in variants:
        file = folder / name(spec, identity)  # another version of the data gets another card
        files[label] = file.name
        if file.is_file():
            continue
        facts = card(get_dataset(spec, seed, extra_files), name=spec.public.text)
        facts["name"], facts["seed"] = spec.public.text, seed
        if spec.name == "folder":  # of a public set that is known, and stands in its notes
            data = get_dataset(spec, seed, extra_files)
            facts["leaks"], facts["lacks"] = leaks.says(data), "; ".join(parts.lacks(data))
        facts["samples"] = [picture(image, mask) for image, mask in facts["samples"]]
        try:
            write_atomically(file, (json.dumps(facts, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise cannot_write(Path(results), error) from None
    return files


def picture(image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Return an image (H, W[, 3]) beside itself under its mask (H, W), as base64 PNG with its size."""
    from PIL import Image

    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    marked = colour.copy()
    for kind in np.setdiff1d(np.unique(mask), (0, VOID)):
        tint = np.array(COLOURS[(kind - 1) % len(COLOURS)])
        marked[mask == kind] = (0.45 * marked[mask == kind] + 0.55 * tint).astype(np.uint8)
    marked[mask == VOID] = 128  # grey: nobody asks what is there
    gap = np.full((colour.shape[0], max(2, colour.shape[1] // 32), 3), 255, np.uint8)
    both = Image.fromarray(np.concatenate([colour, gap, marked], 1))
    if max(colour.shape[:2]) > SIDE:
        both = both.resize([round(s * SIDE / max(colour.shape[:2])) for s in both.size])
    buffer = io.BytesIO()
    both.save(buffer, "PNG", optimize=True)
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "width": both.width, "height": both.height}
