"""The user's own data without code: a folder in one of many layouts, a table of pairs, a MedSegBench file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import dataset
from lossbench.data import layouts, medsegbench, windows
from lossbench.data.choice import rng_of, shuffle_key
from lossbench.data.coding import Options, Values, names_of, understand
from lossbench.data.container import Data
from lossbench.data.formats import is_colour
from lossbench.data.naming import canonical, without_seed
from lossbench.data.pairs import Arrays, Item, Layout, Pairs
from lossbench.data.prepare import open_prepared
from lossbench.data.reading import read_image, read_mask
from lossbench.data.windows import Cut, check_size, check_view, common_size, crop_corner, window, zscore

SMALL = 160  # pictures up to this side are taken whole, larger ones are cropped

BUDGET = 4 * 2**30  # bytes of windows that are not exceeded without being asked for

OWN = {"licence": "the user's own", "citation": "", "url": ""}


@dataset("folder", version=2, family="folder", cite="the user's own")
def folder(
    *,
    seed,
    path: str = "",
    images: str = "",
    masks: str = "",
    leave_out: list[str] = (),
    view: Literal["auto", "whole", "whole_slices", "crop", "tiles", "padded", "slices", "volumes"] = "auto",
    size: int = 128,
    per_image: int | None = None,
    threshold: int | None = None,
    ignore_index: int | str | None = None,
    values: list[int | str | list[int | str]] = (),
    category: str = "",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return the user's pairs of images and masks, z-scored one by one, never resized.

    - ``path``: a folder of images and masks in one of the layouts of ``data.layouts``, a pairs.csv, or a
      MedSegBench .npz (``category``: 'C1', 'C2', ... where it has several);
    - ``images``, ``masks``: patterns below the folder ('pics/*.jpg'), where its names tell nothing;
    - ``leave_out``: names of pairs, or of files without a counterpart, that are not to be used;
    - ``view``: 'whole' pictures or volumes as they are, 'whole_slices' of volumes across their last axis; or
      windows of one size: pictures as 'crop' (around whole objects), 'tiles' or 'padded', volumes as 'slices'
      or 'volumes' (patches of ``size`` per axis, or less). 'auto' takes small pictures padded, large ones
      cropped, and slices of volumes;
    - ``size``, ``per_image``: of windows; how many of a picture or volume (None: one crop or patch, all tiles
      or slices);
    - ``threshold``, ``ignore_index``, ``values``: how mask values become classes where that is not plain (see
      ``coding.understand``);
    - ``val_fraction``, ``test_fraction``: shares of the split, unless split.csv (name, split) decides it;
      groups.csv (name, group) says what must not be divided.
    """
    given = without_seed(locals())
    if not path:
        raise UserError("folder: say where the data are, as in folder(path='my_folder')")
    root = Path(path).expanduser()
    # Checked here, so that a bad option is named before any file is read.
    options = Options(threshold, ignore_index, tuple(values))

    def build() -> Pairs | Arrays:
        layout = layouts.find(root, images, masks, tuple(leave_out))
        cut = Cut(view, size, per_image)
        return prepare(layout, options, cut) if layout.pairs else medsegbench.prepare(root, category, cut)

    card = {**OWN, "source": root.name}
    return open_prepared("folder", canonical(folder, given), given, 2, seed, build, card)


def prepare(layout: Layout, options: Options, cut: Cut) -> Pairs | Arrays:
    """Return the pairs of a layout, or their windows.

    Masks are read twice, first to learn which values occur at all.
    """
    # A value that one mask alone holds changes the meaning of all, so all are seen first.
    seen = survey(layout)
    coding = understand(seen.values, options, len(layout.classes or ()) or None, str(layout.root))
    files = {pair.name: pair for pair in layout.pairs}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        # The mask first: its shape says which axis of the image holds the channels.
        values, _ = read_mask(files[name])
        image = read_image(files[name], values.shape)
        # Grey pictures among colour ones get each colour alike.
        image = np.repeat(image, 3, 0) if len(image) == 1 and seen.colour else image
        return image, coding.apply(values, files[name].where)

    pairs = Pairs(
        _items(layout),
        read,
        names_of(coding, layout.classes),
        spacing=seen.spacing,
        unit="px" if seen.spacing is None else "mm",
        pixels=sum(int(np.prod(shape)) for shape in seen.shapes),
    )
    if cut.view == "whole":
        return pairs
    return _volumes(layout, pairs, seen, cut) if seen.dims == 3 else _pictures(layout, pairs, seen, cut)


def _items(layout: Layout) -> list[Item]:
    """Return an item for each pair; one without a group is a group of its own."""
    unit_of = {pair.name: pair.group or f"image {pair.name}" for pair in layout.pairs}
    # By name, not by order of files: a pair that is added later moves no number before it.
    numbers = {unit: number for number, unit in enumerate(sorted(set(unit_of.values())))}
    return [Item(pair.name, numbers[unit_of[pair.name]], part=pair.part) for pair in layout.pairs]


@dataclass
class Survey:
    """What all masks of a layout hold: their values, their shapes, one voxel size or None; and whether an
    image is in colour.
    """

    values: Values
    shapes: list[tuple[int, ...]]
    spacing: tuple[float, ...] | None
    colour: bool

    @property
    def dims(self) -> int:
        return len(self.shapes[0])


def survey(layout: Layout) -> Survey:
    """Read all masks once; UserError where pictures are mixed with volumes, or volumes differ in voxel size.

    Surface distances would be wrong for a volume of another voxel size.
    """
    seen = Survey(Values(), [], None, any(is_colour(pair.images) for pair in layout.pairs))
    for pair in layout.pairs:
        mask, spacing = read_mask(pair)
        seen.values.add(mask, pair.name)
        seen.shapes.append(mask.shape)
        seen.spacing = seen.spacing or spacing  # files without one, such as NPY, may stand beside others
        if spacing is not None and not np.allclose(seen.spacing, spacing, rtol=0.01):
            other = f"has the voxel size {spacing}, other masks {seen.spacing}; resample them to one"
            raise UserError(f"{pair.where}: {other}")
    if len({len(shape) for shape in seen.shapes}) > 1:
        raise UserError(f"{layout.root}: holds both pictures and volumes; keep them in two folders")
    return seen


def _pictures(layout: Layout, pairs: Pairs, seen: Survey, cut: Cut) -> Arrays:
    """Return windows of pictures."""

    if cut.view in ("slices", "volumes", "whole_slices"):
        raise UserError(f"{layout.root}: holds pictures; view='{cut.view}' is for volumes")
    view = cut.view
    if view == "auto":
        view = "padded" if max(map(max, seen.shapes)) <= SMALL else "crop"
    check_view(view, cut.size, cut.per_image)
    # What would be held in memory while it is prepared: windows are arrays, unlike whole images.
    if view == "padded":
        pixels = len(seen.shapes) * int(np.prod(common_size(seen.shapes)))
    elif view == "tiles" and cut.per_image is None:
        pixels = pairs.pixels
    else:
        pixels = len(seen.shapes) * (cut.per_image or 1) * cut.size**2
    if 4 * pixels > BUDGET:
        much = f"view='{view}' would make {4 * pixels / 2**30:.1f} GB of images"
        raise UserError(f"{layout.root}: {much}; choose view='whole' or 'crop', or set 'per_image'")
    return windows.cut(pairs, view=view, size=cut.size, per_image=cut.per_image)


def _volumes(layout: Layout, pairs: Pairs, seen: Survey, cut: Cut) -> Pairs | Arrays:
    """Return the slices of volumes as they are, or slices and patches of one size."""
    view = "slices" if cut.view == "auto" else cut.view
    if view == "whole_slices":
        return pairs
    if view not in ("slices", "volumes"):
        views = "'whole', 'whole_slices', 'slices' or 'volumes'"
        raise UserError(f"{layout.root}: holds volumes; choose view={views}, not '{view}'")
    check_size(cut.size)
    axes = 2 if view == "slices" else 3  # slices lie across the last axis
    size = tuple(min(side, cut.size) for side in common_size([shape[:axes] for shape in seen.shapes]))
    number = len(seen.shapes) * (cut.per_image or 1)
    if view == "slices":
        number = sum(min(cut.per_image or shape[2], shape[2]) for shape in seen.shapes)
    if 4 * number * int(np.prod(size)) > BUDGET:
        much = f"{number} windows of {'x'.join(map(str, size))} need too much room"
        raise UserError(f"{layout.root}: {much}; set 'per_image' or a smaller 'size'")
    images, masks, kept, names = [], [], [], []
    for item in pairs.items:
        image, mask = pairs.read(item.name)
        if kept and len(image) != len(images[0]):
            channels = f"{len(image)} channels, the images before it have {len(images[0])}"
            raise UserError(f"{layout.root}: '{item.name}' has {channels}")
        for label, part, labels in _cuts(zscore(image), mask, item.name, view, size, cut.per_image):
            images.append(part)
            masks.append(labels)
            kept.append(item)
            names.append(f"{item.name}:{label}")
    return Arrays.of(pairs, np.stack(images), np.stack(masks), kept, names)


def _cuts(image, mask, name: str, view: str, size, per_image: int | None) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (label, image, mask) of each window of one volume."""
    # By name and size alone: every seed sees the same windows, so they are prepared once.
    rng = rng_of(f"crop {name} {size}")
    if view == "volumes":
        for _ in range(per_image or 1):
            corner = crop_corner(mask, size, rng)
            yield ",".join(map(str, corner)), *window(image, mask, corner, size)
        return
    chosen = sorted(range(mask.shape[2]), key=lambda z: shuffle_key(f"{name} {z}"))[:per_image]
    for z in sorted(chosen):
        corner = crop_corner(mask[..., z], size, rng)
        yield z, *window(image[..., z], mask[..., z], corner, size)
