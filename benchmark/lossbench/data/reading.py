"""Reading the pairs of a user's folder: one, channels first, masks as their raw values; and all of
them, to learn which values the masks hold and what can be said of each image.

Raw values are grey values as they are, and colours above ``COLOUR``; ``coding`` says which classes they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.process import usable_cores
from lossbench.data.coding import COLOUR, MOST_GREY, Coding, Values
from lossbench.data.container import VOID
from lossbench.data.formats import (
    PICTURES,
    has_alpha,
    is_colour,
    labels_of,
    read_any,
    read_picture,
    size_of,
    suffix_of,
)
from lossbench.data.pairs import FilePair, Layout

MOST_CHANNELS = 64  # an axis that is longer belongs to space


def read_mask(pair: FilePair) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values (*S) of a mask and its spacing, if known; of one file an object, 1 inside any."""
    if pair.draw is not None:
        return pair.draw(), None
    # Beside a picture a mask is one plane, whatever its array looks like.
    beside = pair.image is None and all(suffix_of(path) in PICTURES for path in pair.images)
    parts = [read_values(path, pair.images[0] if beside else None) for path in pair.masks]
    if len(parts) == 1:
        values, spacing = parts[0]
        return values if pair.void is None else np.where(values == pair.void, VOID, values), spacing
    shapes = {values.shape for values, _ in parts}
    if len(shapes) > 1:
        raise UserError(f"{pair.masks[0].parent}: the masks of one image differ in size: {sorted(shapes)}")
    # Half of the top: objects are often drawn with soft edges.
    return np.any([values > values.max() / 2 for values, _ in parts], 0).astype(np.uint8), parts[0][1]


def read_values(path: Path, picture: Path | None = None) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values of one mask file, uint8, uint16 or (colours) int32, and its spacing.

    ``picture`` is the image, where that is a picture: the mask then has two axes.
    """
    array, spacing = read_any(path, "mask")
    if array.ndim == 3 and suffix_of(path) in PICTURES and array.dtype == np.uint8:
        array = _without_alpha(array)
        if array.shape[-1] == 3:
            return _packed(array), spacing
        array = array[..., 0]
    # Volumes of one slice and pictures with one channel are masks of two axes.
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim == 3 and picture is not None and array.dtype.kind in "buif":
        array = _one_plane(array, path, picture)
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: a mask must have 2 or 3 axes, it has the shape {array.shape}")
    return labels_of(array, path, MOST_GREY), spacing


def _one_plane(array: np.ndarray, path: Path, picture: Path) -> np.ndarray:
    """Return the class ids (H, W) of an array (H, W, C) or (C, H, W): one-hot, or the same plane C times."""
    sizes = (size_of(picture), size_of(picture, upright=False))
    if array.shape[:2] in sizes:
        planes = np.moveaxis(array, -1, 0)
    elif array.shape[1:] in sizes:
        planes = array
    else:
        raise UserError(f"{path}: has the shape {array.shape}, its picture {sizes[0]}")
    if (planes == planes[0]).all():
        return planes[0]
    top = planes.max()
    if top in (1, 255) and np.isin(planes, (0, top)).all() and (planes.sum(0) == top).all():
        return planes.argmax(0)
    what = f"has {len(planes)} planes beside a picture, which are neither one-hot nor all the same"
    raise UserError(f"{path}: {what}; save class ids as one plane {sizes[0]}")


def _without_alpha(array: np.ndarray) -> np.ndarray:
    """Return grey or colour without alpha; where all of it is one colour, alpha itself is the mask."""
    if array.shape[-1] == 3:
        return array
    colours, alpha = array[..., :-1], array[..., -1:]
    drawn_in_alpha = (colours == colours[:1, :1]).all() and (alpha != alpha[:1, :1]).any()
    return alpha if drawn_in_alpha else colours


def _packed(array: np.ndarray) -> np.ndarray:
    """Return each colour as one number: grey ones as their value, all others as COLOUR + 0xRRGGBB."""
    red, green, blue = (array[..., n] for n in range(3))
    grey = (red == green) & (green == blue)
    if grey.all():
        return red
    packed = COLOUR + (red.astype(np.int32) << 16) + (green.astype(np.int32) << 8) + blue
    return np.where(grey, red, packed)


def read_image(pair: FilePair, shape: tuple[int, ...]) -> np.ndarray:
    """Return the image (C, *S) of a mask of shape ``shape``; small integers stay, all else becomes
    float32.
    """
    arrays = [pair.image()] if pair.image else [_read_image(path, shape) for path in pair.images]
    parts = [_channels_first(array, shape, path) for array, path in zip(arrays, pair.images, strict=True)]
    image = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{pair.images[0]}: holds values that are not finite")
    return image


def _read_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = read_any(path)[0]
    # Some tools draw on a photograph as it is stored, not as it is shown: the mask's shape tells.
    if array.shape[:2] != shape and array.shape[1::-1] == shape and suffix_of(path) in PICTURES:
        stored = read_picture(path, indices=False)
        return stored if stored.shape[:2] == shape else array
    return array


def _channels_first(array: np.ndarray, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise UserError(f"{path}: an image must hold numbers, not {array.dtype}")
    # Small integers keep their type: they take a half or a quarter of the room, and z-scoring loses nothing.
    if array.dtype not in (np.uint8, np.uint16, np.int16):
        array = array.astype(np.float32)
    if array.shape == shape or array.squeeze().shape == shape:
        return array.reshape(1, *shape)
    if array.shape[:-1] == shape and array.shape[-1] <= MOST_CHANNELS:
        # Of an array the fourth channel may be near infrared: only a picture says that it is alpha.
        if array.shape[-1] in (2, 4) and has_alpha((path,)):
            array = array[..., :-1]
        return np.moveaxis(array, -1, 0)
    if array.shape[1:] == shape and array.shape[0] <= MOST_CHANNELS:
        return array
    raise UserError(f"{path}: has the shape {array.shape}, its mask {shape}")


# --- all pairs: the values of their masks

Progress = Callable[[str, float, float], None]  # (what, done, total)

THUMB = 24  # pixels of a thumbnail's side

FEWEST_NUMBERS = 3  # different numbers of objects in an image, below which nothing tells them from classes

MOSTLY = 0.9  # share of the masks, and of their values, that is as where objects are numbered

THREADS = 4  # that decode pictures, at most; more wait for the disk


def quiet(what: str, done: float, total: float) -> None:
    """Show no progress."""


@dataclass
class Survey:
    """What all masks of a layout hold: their values, their shapes by name, one voxel size or None; whether an
    image is in colour; and why a pair cannot be used, by name.
    """

    values: Values = field(default_factory=Values)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    spacing: tuple[float, ...] | None = None
    colour: bool = False
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        return len(next(iter(self.shapes.values())))


def survey(layout: Layout, *, strict: bool = True, progress: Progress = quiet) -> Survey:
    """Read all masks; with ``strict`` one that cannot be read raises UserError, else it is listed.

    Pictures beside volumes, and volumes of several voxel sizes, always raise: surface distances would be
    wrong.
    """
    seen = Survey(colour=any(is_colour(pair.images) for pair in layout.pairs))
    for pair, got in _each(_values_of, layout.pairs, "reading masks", progress):
        if isinstance(got, UserError):
            if strict:
                raise got
            seen.broken[pair.name] = str(got)
            continue
        values, shape, spacing = got
        seen.values.merge(values)
        seen.shapes[pair.name] = shape
        seen.spacing = seen.spacing or spacing  # files without one, such as NPY, may stand beside others
        if spacing is not None and not np.allclose(seen.spacing, spacing, rtol=0.01):
            other = f"has the voxel size {spacing}, other masks {seen.spacing}; resample them to one"
            raise UserError(f"{pair.where}: {other}")
    if len({len(shape) for shape in seen.shapes.values()}) > 1:
        raise UserError(f"{layout.root}: holds both pictures and volumes; keep them in two folders")
    return seen


def _values_of(pair: FilePair) -> tuple[Values, tuple[int, ...], tuple[float, ...] | None]:
    mask, spacing = read_mask(pair)
    # Counted within the thread, joined outside: counts are no place for a race.
    values = Values()
    values.add(mask, pair.name)
    return values, mask.shape, spacing


def _each(work: Callable, pairs: list[FilePair], what: str, progress: Progress) -> Iterator[tuple]:
    """Yield each pair with what ``work`` returns of it, or with the UserError that it raises."""

    def careful(pair: FilePair):
        try:
            return work(pair)
        except UserError as error:
            return error

    # Results are small, whatever the size of the images, so all may wait.
    with ThreadPoolExecutor(min(THREADS, usable_cores())) as pool:
        for number, (pair, got) in enumerate(zip(pairs, pool.map(careful, pairs), strict=True), 1):
            yield pair, got
            progress(what, number, len(pairs))


# --- one image


@dataclass(frozen=True)
class Look:
    """What was seen of one image and its mask.

    - ``counts``: pixels of each class; ``void``: share of the pixels;
    - ``objects``: (class, pixels, longest side) of each connected region of foreground;
    - ``frame``: share of the image's border that is foreground;
    - ``thumbnail``: a unit vector of mean 0, of the first channel (of a volume, of the middle slice).
    """

    name: str
    size: tuple[int, ...]
    channels: int
    kind: str
    top: float
    counts: np.ndarray
    void: float
    objects: list[tuple[int, int, int]]
    frame: float
    thumbnail: np.ndarray


def looks(layout: Layout, coding: Coding, progress: Progress = quiet) -> tuple[list[Look], dict[str, str]]:
    """Return what was seen of each pair, and why some cannot be used."""
    seen, broken = [], {}
    for pair, got in _each(partial(_look, coding), layout.pairs, "looking at images", progress):
        if isinstance(got, UserError):
            broken[pair.name] = str(got)
        else:
            seen.append(got)
    return seen, broken


def _look(coding: Coding, pair: FilePair) -> Look:
    values, _ = read_mask(pair)
    image = read_image(pair, values.shape)
    mask = coding.apply(values, pair.where)
    counts = np.bincount(mask.ravel(), minlength=256)
    inside = (mask > 0) & (mask < coding.classes)
    # Of a volume, the sides of its slices: its first and last slice are inside the body.
    edges = [inside.take(at, axis).ravel() for axis in range(min(2, mask.ndim)) for at in (0, -1)]
    return Look(
        pair.name,
        mask.shape,
        len(image),
        image.dtype.name,
        float(image.max()),
        counts[: coding.classes],
        float(counts[coding.classes :].sum() / mask.size),
        list(_objects(mask, np.flatnonzero(counts[1 : coding.classes]) + 1)),
        float(np.concatenate(edges).mean()),
        thumbnail(image),
    )


def _objects(mask: np.ndarray, classes: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    from scipy import ndimage

    for kind in classes:
        # Corners touch: thin diagonal objects would fall into pieces otherwise.
        labelled, _ = ndimage.label(mask == kind, np.ones((3,) * mask.ndim))
        pixels = np.bincount(labelled.ravel())[1:].tolist()
        for count, box in zip(pixels, ndimage.find_objects(labelled), strict=True):
            yield int(kind), count, max(side.stop - side.start for side in box)


def numbered_objects(every: Sequence[Look]) -> list[str]:
    """Return a sentence where classes look like the numbers of objects: 1 to k in each image, k differing
    from image to image, and each of them one region.
    """
    present = np.stack([look.counts for look in every])[:, 1:] > 0
    present = present[present.any(1)]
    if present.shape[1] < FEWEST_NUMBERS or len(present) < FEWEST_NUMBERS:
        return []
    count = present.sum(1)
    from_one = (present == (np.arange(present.shape[1]) < count[:, None])).all(1).mean()
    # Of classes that every image holds, the last is not rare.
    falls = present[:, -1].sum() < present[:, 0].sum() / 2 and len(set(count.tolist())) >= FEWEST_NUMBERS
    regions = Counter((n, kind) for n, look in enumerate(every) for kind, *_ in look.objects)
    single = np.mean([number == 1 for number in regions.values()])
    if not falls or min(from_one, single) < MOSTLY:
        return []
    seen = f"{from_one:.0%} of the masks hold 1 to k without a gap, and {single:.0%} of these are one region"
    mend = "if they number objects, write threshold=0 to make all of them foreground"
    return [f"are the values 1 to {present.shape[1]} classes? {seen}; {mend}"]


def thumbnail(image: np.ndarray) -> np.ndarray:
    plane = image[0] if image.ndim == 3 else image[0, ..., image.shape[-1] // 2]
    plane = plane.astype(np.float32)
    for axis in (0, 1):
        # Means over blocks: fast, and no library has to be imported for a thumbnail.
        edges = np.linspace(0, plane.shape[axis], THUMB + 1).astype(int)
        widths = np.maximum(np.diff(edges), 1)
        plane = np.add.reduceat(plane, edges[:-1], axis=axis) / np.expand_dims(widths, 1 - axis)
    flat = plane.ravel() - plane.mean()
    norm = np.linalg.norm(flat)
    return flat / norm if norm > 1e-6 else np.zeros_like(flat)
