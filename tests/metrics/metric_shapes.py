"""Mask pairs and slow, obvious oracles for the metric tests; run as a program it rewrites the frozen MONAI
values.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_monai.json"
SURFACE_OF_MONAI = ("hd", "hd95", "assd", "nsd_1", "nsd_2")


def ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Pixels whose centre lies inside an axis-parallel ellipsoid."""
    grid = np.indices(shape)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Name -> (prediction, truth, spacing): overlapping ellipses, a distant speck, an object at the border,
    volumes.
    """
    flat, deep = (128, 128), (64, 64, 64)
    truth, pred = ellipsoid(flat, (64, 64), (20, 17)), ellipsoid(flat, (67, 66), (22, 15))
    speck = pred.copy()
    speck[6:8, 3:6] = True
    edge = ellipsoid(flat, (5, 60), (22, 15)), ellipsoid(flat, (8, 62), (20, 17))
    volume = ellipsoid(deep, (33, 33, 34), (14, 10, 12)), ellipsoid(deep, (32, 32, 32), (13, 12, 11))
    return {
        "ellipses": (pred, truth, (1.0, 1.0)),
        "ellipses, spacing (0.5, 2)": (pred, truth, (0.5, 2.0)),
        "ellipses and a speck of 6 px": (speck, truth, (1.0, 1.0)),
        "objects that touch the border": (*edge, (1.0, 1.0)),
        "ellipsoids": (*volume, (1.0, 1.0, 1.0)),
        "ellipsoids, spacing (3, 1, 1)": (*volume, (3.0, 1.0, 1.0)),
    }


# The same pairs measured with MeshMetrics 1.4.1, whose surfaces are triangles instead of pixels: (ASSD, NSD
# at 2).
MESH = {
    "ellipses": (2.199, 0.481),
    "ellipses, spacing (0.5, 2)": (1.882, 0.602),
    "ellipses and a speck of 6 px": (4.320, 0.465),
    "objects that touch the border": (1.348, 0.696),
    "ellipsoids": (1.363, 0.736),
    "ellipsoids, spacing (3, 1, 1)": (1.612, 0.654),
}


def random_pair(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping masks of smooth, lumpy objects with holes and specks, both with at least one pixel."""
    from scipy.ndimage import gaussian_filter

    base = gaussian_filter(rng.normal(size=shape), 2.5)
    other = base + gaussian_filter(rng.normal(size=shape), 1.5) * rng.uniform(0.1, 0.6)
    masks = [f > np.quantile(f, rng.uniform(0.7, 0.99)) for f in (base, other)]
    return masks[0], masks[1]


def slow_border(mask: np.ndarray) -> np.ndarray:
    """(n, D) coordinates of the pixels with a background pixel among their face neighbours, by looking at
    each.
    """
    points = []
    for place in zip(*np.nonzero(mask), strict=True):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            beside = list(place)
            beside[axis] += step
            if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                points.append(place)
                break
    return np.array(points)


def slow_scores(pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    """The surface scores from the full matrix of distances, written as their definitions read."""
    a, b = slow_border(pred) * np.array(spacing), slow_border(true) * np.array(spacing)
    matrix = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1))
    there, back = matrix.min(axis=1), matrix.min(axis=0)
    both = np.concatenate([there, back])
    return {
        "hd": both.max(),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": both.mean(),
        "masd": (there.mean() + back.mean()) / 2,
        "nsd_1": (both <= 1 + 1e-9).mean(),
        "nsd_2": (both <= 2 + 1e-9).mean(),
    }


def slow_boundary_iou(pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...], width: float) -> float:
    """Overlap of the two bands of mask pixels that have a background pixel within `width` (or are border
    pixels).
    """
    bands = []
    for mask in (pred, true):
        margin = [int(width / s) + 1 for s in spacing]
        outside = np.argwhere(~np.pad(mask, [(m, m) for m in margin])) - margin
        inside = np.argwhere(mask)
        gap = np.sqrt((((inside[:, None] - outside[None]) * np.array(spacing)) ** 2).sum(-1)).min(axis=1)
        band = np.zeros(mask.shape, bool)
        band[tuple(inside[gap <= width + 1e-9].T)] = True
        border = slow_border(mask)
        band[tuple(border.T)] = True
        bands.append(band)
    return (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()


def monai_scores(pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    """The same scores from MONAI's public functions (needs the extra 'peers')."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    p, t = (torch.from_numpy(np.ascontiguousarray(m))[None, None].float() for m in (pred, true))
    options = {"include_background": True, "spacing": list(spacing)}
    scores = {
        "hd": compute_hausdorff_distance(p, t, **options),
        "hd95": compute_hausdorff_distance(p, t, percentile=95, **options),
        "assd": compute_average_surface_distance(p, t, symmetric=True, **options),
        "nsd_1": compute_surface_dice(p, t, class_thresholds=[1.0], **options),
        "nsd_2": compute_surface_dice(p, t, class_thresholds=[2.0], **options),
    }
    return {name: float(value.squeeze()) for name, value in scores.items()}


if __name__ == "__main__":
    import monai

    values = {
        name: {k: round(v, 6) for k, v in monai_scores(*pair).items()} for name, pair in pairs().items()
    }
    GOLDEN.write_text(json.dumps({"source": f"MONAI {monai.__version__}", "pairs": values}, indent=1) + "\n")
