"""The user's own data without code: a folder of images and masks, a task folder, or a MedSegBench file, as
one data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import dataset
from lossbench.data import layouts, medsegbench
from lossbench.data import prepare as pictures
from lossbench.data.container import VOID, Data
from lossbench.data.formats import labels_of, read_any
from lossbench.data.layouts import Pair
from lossbench.data.prepare import Item, Prepared, open_prepared, zscore
from lossbench.data.scenes import canonical
from lossbench.data.splitting import crop_corner, rng_of, shuffle_key, whole_size, window

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

    - ``path``: a folder with images/ and masks/ (PNG, TIFF, JPEG, NPY, NIfTI; matched by stem), an nnU-Net or
      Decathlon task folder (dataset.json), or a MedSegBench .npz (``category``: 'C1', 'C2', ... where it has
      several);
    - ``view``: pictures 'crop' (windows of ``size`` around whole objects), 'tiles', 'whole'; volumes 'slices'
      (across the last axis) or 'volumes' (patches of ``size`` per axis, or less); 'auto' takes small pictures
      whole, crops large ones, and slices volumes;
    - ``per_image``: windows per picture, slices or patches per volume (None: one crop or patch, all tiles or
    slices);
    - ``threshold``, ``ignore_index``, ``values``: how mask values become classes where that is not plain (see
    ``reading.understand``);
    - split.csv (name, split) and groups.csv (name, group) beside the pairs decide the split; without them it
    is dealt by image or volume."""
    if not path:
        raise UserError("folder: say where the data are, as in folder(path='my_folder')")
    root = Path(path).expanduser()
    given = {
        "path": path, "view": view, "size": size, "per_image": per_image, "threshold": threshold, "ignore_index": ignore_index,
        "values": list(values), "category": category, "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip
    options = Options(threshold, ignore_index, tuple(values))
    card = {"licence": "the user's own", "citation": "", "url": "", "source": root.name}

    def build() -> Prepared:
        layout = layouts.find(root)
        cut = {"view": view, "size": size, "per_image": per_image}
        return medsegbench.prepare(root, category, cut) if root.is_file() else prepare(layout, options, cut)

    return open_prepared("folder", canonical(folder, given), given, 1, seed, build, card)


def prepare(layout: layouts.Layout, options: Options, cut: dict) -> Prepared:
    """Return the prepared arrays of a layout: masks are read twice, first to learn which values occur at all."""
    counts, shapes, spacing = survey(layout)
    dims = {len(shape) for shape in shapes}
    if len(dims) > 1:
        raise UserError(f"{layout.root}: holds both pictures and volumes; keep them in two folders")
    declared = len(layout.classes) if layout.classes else None
    coding = understand(counts, options, declared, str(layout.root))
    classes = layout.classes or ("background", "foreground")
    if len(classes) != coding.classes:
        classes = ("background", *(f"class_{k}" for k in range(1, coding.classes)))
    pairs = {pair.name: pair for pair in layout.pairs}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        pair = pairs[name]
        values, _ = read_mask(pair.mask)
        return read_image(pair, values.shape), coding.apply(values, pair.mask)

    groups = {
        group: at
        for at, group in enumerate(sorted({pair.group or f"image {pair.name}" for pair in layout.pairs}))
    }
    items = [
        Item(pair.name, groups[pair.group or f"image {pair.name}"], part=pair.part) for pair in layout.pairs
    ]
    if dims == {3}:
        return _from_volumes(layout, items, read, shapes, spacing, classes, cut)
    view = cut["view"]
    if view in ("slices", "volumes"):
        raise UserError(f"{layout.root}: holds pictures; view='{view}' is for volumes")
    if view == "auto":
        view = "whole" if max(max(shape) for shape in shapes) <= SMALL else "crop"
    _check_size(layout, shapes, view, cut)
    return pictures.prepare(
        items, _same_channels(read), view=view, size=cut["size"], per_image=cut["per_image"], classes=classes
    )


def survey(layout: layouts.Layout) -> tuple[np.ndarray, list[tuple[int, ...]], tuple[float, ...] | None]:
    """Return how often each of the 256 values occurs in all masks, every mask's shape, and the one voxel size
    of all masks, if known.

    Surface distances would be wrong for a volume of another voxel size, so that raises UserError.
    """
    counts, shapes, spacing = np.zeros(256, np.int64), [], None
    for pair in layout.pairs:
        mask, found = read_mask(pair.mask)
        counts += np.bincount(mask.ravel(), minlength=256)
        shapes.append(mask.shape)
        spacing = spacing or found
        if found is not None and not np.allclose(spacing, found, rtol=0.01):
            raise UserError(
                f"{pair.mask}: has the voxel size {found}, other masks {spacing}; resample them to one"
            )
    return counts, shapes, spacing


def _check_size(layout, shapes, view: str, cut: dict) -> None:
    if view == "whole":
        total = 4 * len(shapes) * int(np.prod(whole_size(shapes)))
    elif view == "tiles" and cut["per_image"] is None:
        total = sum(4 * int(np.prod(shape)) for shape in shapes)
    else:
        total = 4 * len(shapes) * (cut["per_image"] or 1) * cut["size"] ** 2
    if total > BUDGET:
        raise UserError(
            f"{layout.root}: view='{view}' would make {total / 2**30:.1f} GB of images; choose "
            "view='crop' or set 'per_image'"
        )


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
    number = (
        sum(min(cut["per_image"] or shape[2], shape[2]) for shape in shapes)
        if view == "slices"
        else len(shapes) * (cut["per_image"] or 1)
    )
    if 4 * number * int(np.prod(size)) > BUDGET:
        raise UserError(
            f"{layout.root}: {number} windows of {'x'.join(map(str, size))} need too much room; set "
            "'per_image' or a smaller 'size'"
        )
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


# --- Reading one pair of a user's folder: channels first, masks as class ids, and one sentence for
# everything that cannot be meant.

MANY = 24  # more distinct values than this, most of them rare, look like anti-aliased edges


@dataclass(frozen=True)
class Options:
    """What the user says about mask values: cut above ``threshold``, ``ignore_index`` is void, ``values[i]``
    is class i.
    """

    threshold: int | None = None
    ignore_index: int | None = None
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for value in (*self.values, *(v for v in (self.threshold, self.ignore_index) if v is not None)):
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise UserError(f"mask values lie between 0 and 255, got {value!r}")
        if len(set(self.values)) != len(self.values) or len(self.values) == 1:
            raise UserError(f"'values' must list at least two different mask values, got {list(self.values)}")


@dataclass(frozen=True)
class Coding:
    """How mask values become class ids: ``ids[value]`` is a class, 255 (void), or -1 for a value that must
    not occur.
    """

    ids: np.ndarray
    classes: int
    text: str

    def apply(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the mask as class ids; a value that is not declared raises UserError naming the file and the
        value.
        """
        found = self.ids[values]
        if (found < 0).any():
            strange = sorted(np.unique(values[found < 0]).tolist())
            raise UserError(
                f"{path}: holds the mask value {strange[0]}, which no other mask explains; {self.text}"
            )
        return found.astype(np.uint8)


def read_mask(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values (*S) uint8 of a mask and its spacing, if known; a colour picture is accepted when
    its channels agree.
    """
    array, spacing = read_any(path)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] > 4 and array.dtype == np.uint8:
        if not (array[..., 0] == array[..., 1]).all() or not (array[..., 0] == array[..., 2]).all():
            raise UserError(f"{path}: is a colour picture; save the mask as one channel of class ids")
        array = array[..., 0]
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: a mask must have 2 or 3 axes, it has the shape {array.shape}")
    return labels_of(array, path), spacing


def read_image(pair: Pair, shape: tuple[int, ...]) -> np.ndarray:
    """Return the image (C, *S) float32 of a mask of shape ``shape``."""
    image = np.concatenate([_channels_first(read_any(path)[0], shape, path) for path in pair.images])
    if not np.isfinite(image).all():
        raise UserError(f"{pair.images[0]}: holds values that are not finite")
    return image


def _channels_first(array: np.ndarray, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise UserError(f"{path}: an image must hold numbers, not {array.dtype}")
    if array.shape == shape or array.squeeze().shape == shape:
        return array.reshape(1, *shape).astype(np.float32)
    if array.shape[:-1] == shape and array.shape[-1] <= 64:
        array = np.moveaxis(array, -1, 0)
        if len(array) in (2, 4) and array.dtype == np.uint8:  # grey or colour with an alpha channel
            array = array[:-1]
        return array.astype(np.float32)
    if array.shape[1:] == shape and array.shape[0] <= 64:
        return array.astype(np.float32)
    raise UserError(f"{path}: has the shape {array.shape}, its mask {shape}")


def understand(counts: np.ndarray, options: Options, declared: int | None, where: str) -> Coding:
    """Return how the values of all masks (``counts`` of each, 256) become class ids.

    The user's options come first, then the ``declared`` number of classes of a task file. Without these: {0,
    v} is binary; 0..K-1 are class ids; 255 beside them is void. Anything else raises UserError, with the
    option that would settle it."""
    ids = np.full(256, -1, np.int16)
    if options.values:
        for number, value in enumerate(options.values):
            ids[value] = number
        coding = Coding(ids, len(options.values), f"the declared values are {list(options.values)}")
    elif options.threshold is not None:
        ids[:] = np.arange(256) > options.threshold
        coding = Coding(ids, 2, f"values above {options.threshold} are foreground")
    elif declared is not None:
        ids[:declared] = np.arange(declared)
        ids[VOID] = VOID
        coding = Coding(ids, declared, f"the task declares the classes 0 to {declared - 1}")
    else:
        coding = _guess(counts, options.ignore_index, where)
    if options.ignore_index is not None:
        coding.ids[options.ignore_index] = VOID
    return coding


def _guess(counts: np.ndarray, void: int | None, where: str) -> Coding:
    ids = np.full(256, -1, np.int16)
    values = [v for v in np.flatnonzero(counts).tolist() if v != void]
    if len(values) > MANY and counts[values].max() > 0.3 * counts.sum():
        raise UserError(
            f"{where}: the masks hold {len(values)} different values and look anti-aliased; say where "
            "to cut, as in folder(path='...', threshold=127)"
        )
    if len(values) <= 2 and 0 in values:
        ids[values] = range(len(values))
        return Coding(ids, 2, f"the values are {values}")
    known = [v for v in values if v != VOID]
    if len(known) >= 2 and known[-1] < MANY:
        count = known[-1] + 1
        ids[:count] = np.arange(count)
        ids[VOID] = VOID if VOID in values else -1
        return Coding(ids, count, f"the classes are 0 to {count - 1}")
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    raise UserError(
        f"{where}: the mask values {shown} are not class ids 0, 1, 2, ...; list them in the order of "
        "the classes, as in "
        "folder(path='...', values=[0, 128, 255]), or cut with 'threshold'"
    )
