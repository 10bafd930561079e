"""The hippocampus volumes of the Medical Segmentation Decathlon: real MRI in three classes, as axial slices or as
volumes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from benchmark.data import sources
from benchmark.data.container import Data
from benchmark.data.files import check
from benchmark.data.formats import labels_of, read_nifti
from benchmark.data.prepare import Prepared, open_prepared, zscore
from benchmark.data.splitting import shuffle_key, window
from benchmark.data.synthetic import canonical
from benchmark.errors import UserError
from benchmark.registry import dataset

CLASSES = ("background", "anterior", "posterior")
SIZE = (44, 60, 48)  # the largest extent along each axis of the 260 volumes (43, 59, 47), rounded up to a multiple of 4
VERSION = 1


@dataset("msd_hippocampus", version=1, family="public", cite="Simpson 2019")
def msd_hippocampus(
    *,
    seed,
    view: Literal["slices", "volumes"] = "slices",
    subset: int | None = 60,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return hippocampus MRI as axial slices (N, 1, 44, 60) or as volumes (N, 1, 44, 60, 48) at 1 mm, each volume
    z-scored by itself.

    - ``view``: 'slices' across the third axis (28.6 % of them are without foreground), or 'volumes';
    - ``subset``: how many of the 260 volumes, in an order that nests (the first 60 lie in the first 100); None takes
      all;
    - ``val_fraction``, ``test_fraction``: shares of the volumes; the split is by volume and depends on the seed.
      Padding is 0 in the image and void (255) in the mask. The two sides of one person may be two volumes; which, is
      not published.
    """
    names = sorted(Path(p).name for p in sources.source("msd_hippocampus").files if "/images/" in p)
    if subset is not None and not 3 <= subset <= len(names):
        raise UserError(f"msd_hippocampus: 'subset' must lie between 3 and {len(names)}, or be None for all, got {subset}")
    given = {
        "view": view, "subset": subset, "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip
    names = sorted(sorted(names, key=shuffle_key)[:subset])

    def build() -> Prepared:
        paths = [f"data/TrainingSet/{kind}/{name}" for name in names for kind in ("images", "labels")]
        folder = check("msd_hippocampus", paths)
        volumes = [read_volume(folder / a, folder / b) for a, b in zip(paths[::2], paths[1::2], strict=True)]
        return _slices(volumes, names) if view == "slices" else _volumes(volumes, names)

    card = sources.source("msd_hippocampus").card()
    return open_prepared("msd_hippocampus", canonical(msd_hippocampus, given), given, VERSION, seed, build, card)


def read_volume(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the z-scored image (1, x, y, z) and its mask (x, y, z); both must have one shape."""
    array, _ = read_nifti(image)
    mask, _ = read_nifti(label)
    if array.shape != mask.shape:
        raise UserError(f"{image}: has the shape {array.shape}, its label {mask.shape}")
    return zscore(array[None], axes=(1, 2, 3)), labels_of(mask, label)


def _slices(volumes, names) -> Prepared:
    images, masks, groups, labels = [], [], [], []
    for group, (name, (image, mask)) in enumerate(zip(names, volumes, strict=True)):
        for z in range(mask.shape[2]):
            part, labelled = window(image[..., z], mask[..., z], (0, 0), SIZE[:2])
            images.append(part)
            masks.append(labelled)
            groups.append(group)
            labels.append(f"{name.removesuffix('.nii.gz')}:{z}")
    return Prepared(np.stack(images), np.stack(masks), groups, labels, classes=CLASSES, spacing=(1.0, 1.0), unit="mm", notes=NOTES)


def _volumes(volumes, names) -> Prepared:
    pairs = [window(image, mask, (0, 0, 0), SIZE) for image, mask in volumes]
    images, masks = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    labels = [name.removesuffix(".nii.gz") for name in names]
    return Prepared(images, masks, list(range(len(names))), labels, classes=CLASSES, spacing=(1.0,) * 3, unit="mm", notes=NOTES)


NOTES = {"unit_of_independence": "volume", "notes": "left and right side of one person may fall on both sides of the split"}
