"""The user's own data without code: a folder in one of many layouts, a table of pairs, a MedSegBench file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.specs import canonical, without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data import layouts, medsegbench, windows
from lossbench.data.coding import Options, names_of, understand
from lossbench.data.container import Data
from lossbench.data.pairs import Arrays, Item, Layout, Pairs
from lossbench.data.prepare import open_prepared
from lossbench.data.reading import read_image, read_mask
from lossbench.data.survey import survey

OWN = {"licence": "the user's own", "citation": "", "url": ""}


@dataset("folder", version=2, family="folder", cite="the user's own")
def folder(
    *,
    seed,
    path: str = "",
    images: str = "",
    masks: str = "",
    leave_out: list[str] = (),
    view: Literal["auto", "whole", "whole_slices"] = "auto",
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
    - ``view``: 'whole' pictures or volumes as they are, 'whole_slices' of volumes across their last axis.
      'auto' takes slices of volumes and whole pictures, small ones padded to one size with void;
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
        if not layout.pairs:
            return medsegbench.prepare(root, category, view)
        return prepare(layout, options, view)

    card = {**OWN, "source": root.name}
    return open_prepared("folder", canonical(folder, given), given, 2, build, card)


def prepare(layout: Layout, options: Options, view: str) -> Pairs | Arrays:
    """Return the pairs of a layout, or padded pictures.

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
        pixels=sum(int(np.prod(shape)) for shape in seen.shapes.values()),
        slices=seen.dims == 3 and view != "whole",
    )
    if seen.dims == 2 and view == "whole_slices":
        raise UserError(f"{layout.root}: holds pictures; view='whole_slices' is for volumes")
    padded = seen.dims == 2 and view == "auto" and windows.are_small([*seen.shapes.values()])
    return windows.cut(pairs, view="padded", size=0) if padded else pairs


def _items(layout: Layout) -> list[Item]:
    """Return an item for each pair; one without a group is a group of its own."""
    unit_of = {pair.name: pair.group or f"image {pair.name}" for pair in layout.pairs}
    # By name, not by order of files: a pair that is added later moves no number before it.
    numbers = {unit: number for number, unit in enumerate(sorted(set(unit_of.values())))}
    return [Item(pair.name, numbers[unit_of[pair.name]], part=pair.part) for pair in layout.pairs]
