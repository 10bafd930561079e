"""The user's own data without code: a folder of images and masks, a task folder, or a MedSegBench file, as one data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from benchmark.data import layouts, medsegbench, pictures, reading
from benchmark.data.container import Data
from benchmark.data.pictures import Item
from benchmark.data.prepare import Prepared, open_prepared, zscore
from benchmark.data.splitting import crop_corner, rng_of, shuffle_key, whole_size, window
from benchmark.data.synthetic import canonical
from benchmark.errors import UserError
from benchmark.registry import dataset

SMALL = 160  # pictures up to this side are taken whole, larger ones are cropped
BUDGET = 4 * 2**30  # bytes of prepared images that are not exceeded without being asked for


@dataset("folder", version=1, family="folder", cite="the user's own")
def folder(
    *,
    seed,
    path: str = "",
    view: Literal["auto", "crop", "tiles", "whole", "slices", "volumes"] = "auto",
    size: int = 128,
    per_image: int | None = None,
    threshold: int | None = None,
    ignore_index: int | None = None,
    values: list[int] = (),
    category: str = "",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return the user's pairs of images and masks, z-scored one by one, never resized.

    - ``path``: a folder with images/ and masks/ (PNG, TIFF, JPEG, NPY, NIfTI; matched by stem), an nnU-Net or Decathlon task folder (dataset.json),
      or a MedSegBench .npz (``category``: 'C1', 'C2', ... where it has several);
    - ``view``: pictures 'crop' (windows of ``size`` around whole objects), 'tiles', 'whole'; volumes 'slices' (across the last axis) or
      'volumes' (patches of ``size`` per axis, or less); 'auto' takes small pictures whole, crops large ones, and slices volumes;
    - ``per_image``: windows per picture, slices or patches per volume (None: one crop or patch, all tiles or slices);
    - ``threshold``, ``ignore_index``, ``values``: how mask values become classes where that is not plain (see ``reading.understand``);
    - split.csv (name, split) and groups.csv (name, group) beside the pairs decide the split; without them it is dealt by image or volume.
    """
    if not path:
        raise UserError("folder: say where the data are, as in folder(path='my_folder')")
    root = Path(path).expanduser()
    given = {
        "path": path, "view": view, "size": size, "per_image": per_image, "threshold": threshold, "ignore_index": ignore_index,
        "values": list(values), "category": category, "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip
    options = reading.Options(threshold, ignore_index, tuple(values))
    card = {"licence": "the user's own", "citation": "", "url": "", "source": root.name}

    def build() -> Prepared:
        layout = layouts.find(root)
        cut = {"view": view, "size": size, "per_image": per_image}
        return medsegbench.prepare(root, category, cut) if root.is_file() else prepare(layout, options, cut)

    return open_prepared("folder", canonical(folder, given), given, 1, seed, build, card)


def prepare(layout: layouts.Layout, options: reading.Options, cut: dict) -> Prepared:
    """Return the prepared arrays of a layout: masks are read twice, first to learn which values occur at all."""
    counts, shapes, spacing = survey(layout)
    dims = {len(shape) for shape in shapes}
    if len(dims) > 1:
        raise UserError(f"{layout.root}: holds both pictures and volumes; keep them in two folders")
    declared = len(layout.classes) if layout.classes else None
    coding = reading.understand(counts, options, declared, str(layout.root))
    classes = layout.classes or ("background", "foreground")
    if len(classes) != coding.classes:
        classes = ("background", *(f"class_{k}" for k in range(1, coding.classes)))
    pairs = {pair.name: pair for pair in layout.pairs}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        pair = pairs[name]
        values, _ = reading.read_mask(pair.mask)
        return reading.read_image(pair, values.shape), coding.apply(values, pair.mask)

    groups = {group: at for at, group in enumerate(sorted({pair.group or f"image {pair.name}" for pair in layout.pairs}))}
    items = [Item(pair.name, groups[pair.group or f"image {pair.name}"], part=pair.part) for pair in layout.pairs]
    if dims == {3}:
        return _from_volumes(layout, items, read, shapes, spacing, classes, cut)
    view = cut["view"]
    if view in ("slices", "volumes"):
        raise UserError(f"{layout.root}: holds pictures; view='{view}' is for volumes")
    if view == "auto":
        view = "whole" if max(max(shape) for shape in shapes) <= SMALL else "crop"
    _check_size(layout, shapes, view, cut)
    return pictures.prepare(items, _same_channels(read), view=view, size=cut["size"], per_image=cut["per_image"], classes=classes)


def survey(layout: layouts.Layout) -> tuple[np.ndarray, list[tuple[int, ...]], tuple[float, ...] | None]:
    """Return how often each of the 256 values occurs in all masks, every mask's shape, and the one voxel size of all masks, if known.

    Surface distances would be wrong for a volume of another voxel size, so that raises UserError.
    """
    counts, shapes, spacing = np.zeros(256, np.int64), [], None
    for pair in layout.pairs:
        mask, found = reading.read_mask(pair.mask)
        counts += np.bincount(mask.ravel(), minlength=256)
        shapes.append(mask.shape)
        spacing = spacing or found
        if found is not None and not np.allclose(spacing, found, rtol=0.01):
            raise UserError(f"{pair.mask}: has the voxel size {found}, other masks {spacing}; resample them to one")
    return counts, shapes, spacing


def _check_size(layout, shapes, view: str, cut: dict) -> None:
    if view == "whole":
        total = 4 * len(shapes) * int(np.prod(whole_size(shapes)))
    elif view == "tiles" and cut["per_image"] is None:
        total = sum(4 * int(np.prod(shape)) for shape in shapes)
    else:
        total = 4 * len(shapes) * (cut["per_image"] or 1) * cut["size"] ** 2
    if total > BUDGET:
        raise UserError(f"{layout.root}: view='{view}' would make {total / 2**30:.1f} GB of images; choose view='crop' or set 'per_image'")


def _same_channels(read):
    first: list[int] = []

    def checked(name: str):
        image, mask = read(name)
        first.append(len(image))
        if len(image) != first[0]:
            raise UserError(f"'{name}' has {len(image)} channels, the images before it have {first[0]}")
        return image, mask

    return checked


def _from_volumes(layout, items, read, shapes, spacing, classes, cut: dict) -> Prepared:
    view = "slices" if cut["view"] == "auto" else cut["view"]
    if view not in ("slices", "volumes"):
        raise UserError(f"{layout.root}: holds volumes; choose view='slices' or view='volumes', not '{view}'")
    if cut["size"] < 16 or cut["size"] % 4:
        raise UserError(f"'size' must be at least 16 and divisible by 4, got {cut['size']}")
    axes = 2 if view == "slices" else 3
    biggest = whole_size([shape[:axes] for shape in shapes])
    size = tuple(min(side, cut["size"]) for side in biggest)
    number = sum(min(cut["per_image"] or shape[2], shape[2]) for shape in shapes) if view == "slices" else len(shapes) * (cut["per_image"] or 1)
    if 4 * number * int(np.prod(size)) > BUDGET:
        raise UserError(f"{layout.root}: {number} windows of {'x'.join(map(str, size))} need too much room; set 'per_image' or a smaller 'size'")
    images, masks, kept, names = [], [], [], []
    read = _same_channels(read)
    for item in items:
        image, mask = read(item.name)
        image = zscore(image, axes=(1, 2, 3))
        for label, part, labels in _windows(image, mask, item.name, view, size, cut["per_image"]):
            images.append(part)
            masks.append(labels)
            kept.append(item)
            names.append(f"{item.name}:{label}")
    return Prepared(
        np.stack(images), np.stack(masks), [i.group for i in kept], names, classes=classes, spacing=(spacing or (1.0,) * 3)[:axes],
        parts=[i.part for i in kept] if items[0].part else None, unit="px" if spacing is None else "mm",
    )  # fmt: skip


def _windows(image, mask, name: str, view: str, size, per_image: int | None):
    """Yield (label, image window, mask window) of one volume."""
    rng = rng_of(f"crop {name} {size}")
    if view == "volumes":
        for _ in range(per_image or 1):
            corner = crop_corner(mask, size, rng)
            yield ",".join(map(str, corner)), *window(image, mask, corner, size)
        return
    chosen = sorted(range(mask.shape[2]), key=lambda z: shuffle_key(f"{name} {z}"))[:per_image]
    for z in sorted(chosen):
        yield z, *window(image[..., z], mask[..., z], crop_corner(mask[..., z], size, rng), size)
