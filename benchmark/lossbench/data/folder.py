"""The user's own data without code: a folder in one of many layouts, a table of pairs, a MedSegBench file,
for which the package that made it is not needed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.files import last_part
from lossbench.base.specs import canonical, without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data import layouts, windows
from lossbench.data.coding import Options, names_of, understand
from lossbench.data.container import SPLITS, VOID, Data, class_names
from lossbench.data.formats import UNREADABLE, labels_of
from lossbench.data.pairs import Arrays, FilePair, Item, Layout, Pairs
from lossbench.data.prepare import open_prepared
from lossbench.data.reading import read_image, read_mask, survey
from lossbench.metrics.raters import agreement

OWN = {"licence": "the user's own", "citation": "", "url": ""}


@dataset("folder", version=3, family="folder", cite="the user's own")
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
      groups.csv (name, group) says what must not be divided. Images of each class, and those without
      foreground, are dealt for themselves.
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
            return prepare_archive(root, category, view)
        return prepare(layout, options, view)

    card = {**OWN, "source": last_part(root)}
    return open_prepared("folder", canonical(folder, given), given, 3, build, card)


def prepare(layout: Layout, options: Options, view: str) -> Pairs | Arrays:
    """Return the pairs of a layout, or padded pictures.

    Masks are read twice, first to learn which values occur at all.
    """
    # A value that one mask alone holds changes the meaning of all, so all are seen first.
    seen = survey(layout, strict=False)
    for name, why in seen.broken.items():
        raise _unusable(name, why) if seen.shapes else UserError(why)
    coding = understand(seen.values, options, len(layout.classes or ()) or None, str(layout.root))
    files = {pair.name: pair for pair in layout.pairs}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        # The mask first: its shape says which axis of the image holds the channels.
        values, _ = read_mask(files[name])
        try:
            image = read_image(files[name], values.shape)
        except UserError as error:
            raise _unusable(name, error) from None
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
    return windows.cut(pairs, view="padded", size=0, where=str(layout.root)) if padded else pairs


def _unusable(name: str, why: object) -> UserError:
    how = f"mend it, or leave it out by leave_out={[name]}; 'lossbench inspect' finds all such pairs"
    return UserError(f"{why}; {how}")


def _items(layout: Layout) -> list[Item]:
    """Return an item for each pair; one without a group is a group of its own."""
    unit_of = {pair.name: pair.group or f"image {pair.name}" for pair in layout.pairs}
    # By name, not by order of files: a pair that is added later moves no number before it.
    numbers = {unit: number for number, unit in enumerate(sorted(set(unit_of.values())))}
    return [Item(pair.name, numbers[unit_of[pair.name]], part=pair.part) for pair in layout.pairs]


# --- several raters: one mask file each, of every image


@dataset("raters", version=2, family="folder", cite="the user's own")
def raters(
    *,
    seed,
    path: str = "",
    leave_out: list[str] = (),
    threshold: int | None = None,
    ignore_index: int | str | None = None,
    values: list[int | str | list[int | str]] = (),
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return the user's images with the masks of several raters each; parameters as those of ``folder``.

    A folder for each rater (images/, masks_1/, masks_2/, ...) or an ending (07_manual1.png, 07_manual2.png).
    Losses that take shares of the classes are shown those of the raters, all others their majority, on which
    everything is scored. Where a rater left a pixel void he has no say there. Pictures are whole, volumes are
    slices across their last axis.
    """
    given = without_seed(locals())
    if not path:
        raise UserError("raters: say where the data are, as in raters(path='my_folder')")
    root, options = Path(path).expanduser(), Options(threshold, ignore_index, tuple(values))

    def build() -> Pairs:
        return prepare_raters(layouts.find(root, leave_out=tuple(leave_out), raters=True), options)

    return open_prepared(
        "raters", canonical(raters, given), given, 2, build, {**OWN, "source": last_part(root)}
    )


MOST_PATTERNS = 255  # of what raters say of a pixel: one byte less the void


def prepare_raters(layout: Layout, options: Options) -> Pairs:
    """Return the pairs of a layout whose masks are codes of what the raters say, see ``Ratings``."""
    # Every mask is looked at as if it were an image's only one: raters have one coding.
    single = [replace(p, name=f"{p.name} {r}", masks=(file,)) for p in layout.pairs for r, file in _files(p)]
    seen = survey(replace(layout, pairs=single))
    coding = understand(seen.values, options, None, str(layout.root))
    names, files = names_of(coding, layout.classes), {pair.name: pair for pair in layout.pairs}

    def labels_by(pair: FilePair) -> np.ndarray:
        singles = [replace(pair, masks=(file,)) for file in pair.masks]
        parts = [coding.apply(read_mask(own)[0], own.where) for own in singles]
        if len({part.shape for part in parts}) > 1:
            raise UserError(f"{pair.where}: the raters' masks of one image differ in size")
        return np.stack(parts)

    unlike, agreed = set(), []
    for pair in layout.pairs:
        labels = labels_by(pair)
        unlike |= set(map(tuple, np.unique(labels[:, (labels != labels[0]).any(0)], axis=1).T.tolist()))
        agreed.append(agreement(labels, classes=names, ignore_index=VOID))
    number = len(layout.pairs[0].masks)
    patterns = np.array([[k] * number for k in range(len(names))] + sorted(unlike), np.uint8)
    if len(patterns) > MOST_PATTERNS:
        several = f"{number} raters and {len(names)} classes make {len(patterns)} different sets of labels"
        raise UserError(f"{layout.root}: {several} of a pixel, {MOST_PATTERNS} are the most; take fewer")
    # Only where raters differ is a pattern looked for: where all agree the code is the class.
    code_of = {pattern.tobytes(): code for code, pattern in enumerate(patterns)}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        labels = labels_by(files[name])
        codes, unlike = labels[0].copy(), (labels != labels[0]).any(0)
        codes[unlike] = [code_of[pattern.tobytes()] for pattern in np.ascontiguousarray(labels[:, unlike].T)]
        image = read_image(files[name], codes.shape)
        return np.repeat(image, 3, 0) if len(image) == 1 and seen.colour else image, codes

    dice, kappa = (np.nanmean([own[key] for own in agreed]) for key in ("dice", "kappa"))
    means = f"mean Dice of two of them {dice:.3f}, Fleiss' kappa {kappa:.3f}"
    return Pairs(
        _items(layout),
        read,
        names,
        spacing=seen.spacing,
        unit="px" if seen.spacing is None else "mm",
        notes={"notes": f"{number} raters: {means}, as means over images"},
        pixels=sum(int(np.prod(shape)) for shape in seen.shapes.values()) // number,
        slices=seen.dims == 3,
        patterns=patterns,
    )


def _files(pair: FilePair) -> list[tuple[int, Path]]:
    return list(enumerate(pair.masks, 1))


# --- MedSegBench files (.npz): read directly, with their official split


def read_archive(path: Path, category: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
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
                parts[part] = _arrays(archive[image], archive[label], path, part)
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


def _arrays(images: np.ndarray, labels: np.ndarray, path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    # Some files keep an axis for the one channel.
    labels = labels[..., 0] if labels.ndim == 4 and labels.shape[-1] == 1 else labels
    if labels.ndim != 3 or images.shape[:3] != labels.shape or images.ndim not in (3, 4) or not len(labels):
        shapes = f"images {images.shape} and labels {labels.shape}"
        raise UserError(f"{path}: {shapes} of the part '{part}' do not fit")
    return images, labels_of(labels, path)


def listed_archive(path: Path) -> tuple[Layout, str]:
    """Return the pairs of a file, to be looked at, and the category, the first of several."""
    category, notes = "", []
    try:
        parts = read_archive(path)
    except UserError as error:
        # A file of several categories names them when it refuses.
        match = re.search(r"the categories are '(\w+)'", str(error))
        if not match:
            raise
        category = match[1]
        notes.append(f"{error}; looked at '{category}'")
        parts = read_archive(path, category)
    pairs = [
        FilePair(f"{part}/{n}", (path,), (path,), "", part, labels[n].view, images[n].view)
        for part, (images, labels) in parts.items()
        for n in range(len(labels))
    ]
    return Layout("a MedSegBench file", path, pairs, notes=notes, extra_files=(path,)), category


def prepare_archive(path: Path, category: str, view: str) -> Pairs | Arrays:
    """Return the pairs of a file, or padded pictures; its parts are kept, each picture is its own group."""
    parts = read_archive(path, category)
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
