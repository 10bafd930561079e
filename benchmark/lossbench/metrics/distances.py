"""Signed distance maps of masks: what boundary losses take as data, computed before a training step."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt


def signed_distances(
    masks: np.ndarray, classes: int, spacing: tuple[float, ...], ignore_index: int | None = None
) -> np.ndarray:
    """Return float32 (N, classes, *S): the distance to each class's boundary in units of the spacing,
    negative inside.

    Outside, a pixel holds the distance to the nearest pixel of the class; inside, minus the distance to the
    nearest pixel outside, plus the smallest spacing, so that both sides of a boundary are one step apart
    through zero (Kervadec et al. 2019). A class that is absent or fills the whole image has no boundary and
    gives a map of zeros; void pixels count as outside.
    """
    maps = np.zeros((masks.shape[0], classes, *masks.shape[1:]), np.float32)
    for image, mask in enumerate(masks):
        for kind in range(classes):
            inside = (mask == kind) & (kind != ignore_index)
            if not inside.any() or inside.all():
                continue
            outer = distance_transform_edt(~inside, sampling=spacing)
            inner = distance_transform_edt(inside, sampling=spacing)
            maps[image, kind] = np.where(inside, -(inner - min(spacing)), outer)
    return maps
