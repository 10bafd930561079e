"""Views of pictures that have one size: crops around objects, tiles, padded pictures. Nothing is resized.

They are not whole images: a crop around an object raises the share of foreground, and is named so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.seeds import rng_of, shuffle_key
from lossbench.data.container import VOID
from lossbench.data.pairs import Arrays, Item, Pairs

VIEWS = ("crop", "tiles", "padded")

SMALL = 160  # pictures up to this side are padded to one size, where that adds little

TINY = 64  # pictures up to this side always are: a usual patch would hold more padding


def cut(pairs: Pairs, *, view: str, size: int, per_image: int | None = None, where: str = "") -> Arrays:
    """Return the windows of all pictures.

    - view 'crop': ``per_image`` (or one) windows of ``size`` x ``size`` at native resolution, each around one
      whole object drawn at random, or anywhere where the picture has none;
    - view 'tiles': the windows that cover the picture, each pixel in one of them; ``per_image`` keeps that
      many, chosen at random;
    - view 'padded': the pictures themselves, padded to a common size.

    Random choices depend on the picture's name alone. ``where`` is what an error names.
    """
    check_view(view, size, per_image)
    # Read one by one, but for 'padded', which must see all sizes first.
    loaded = ((item, *pairs.read(item.name)) for item in pairs.items)
    extent = (size, size)
    if view == "padded":
        loaded = list(loaded)
        extent = common_size([mask.shape for _, _, mask in loaded])
    images, masks, kept, names = [], [], [], []
    for item, image, mask in loaded:
        if kept and len(image) != len(images[0]):
            channels = f"{len(image)} channels, the images before it have {len(images[0])}"
            raise UserError(f"{where}: '{item.name}' has {channels}".removeprefix(": "))
        image = zscore(image)
        for corner, margin in _corners(item, mask, view, extent, per_image):
            part, labels = window(image, mask, corner, extent, margin)
            images.append(part)
            masks.append(labels)
            kept.append(item)
            names.append(item.name if view == "padded" else f"{item.name}@{corner[0]},{corner[1]}")
    return Arrays.of(pairs, np.stack(images), np.stack(masks), kept, names)


def check_view(view: str, size: int, per_image: int | None) -> None:
    if view not in VIEWS:
        raise UserError(f"'view' must be one of {', '.join(VIEWS)}, got '{view}'")
    if view != "padded":
        check_size(size)
    if per_image is not None and per_image < 1:
        raise UserError(f"'per_image' must be at least 1, or None for all windows, got {per_image}")


def check_size(size: int) -> None:
    if size < 16 or size % 4:
        raise UserError(f"'size' must be at least 16 and divisible by 4, got {size}")


def _corners(item: Item, mask: np.ndarray, view: str, size, per_image: int | None) -> list[tuple]:
    """Return (corner, margin already covered or None) of each window of one picture."""
    if view == "padded":
        return [((0, 0), None)]
    if view == "tiles":
        # Chosen by hash and then put in their order: more tiles add to fewer.
        order = sorted(
            tile_corners(mask.shape, size), key=lambda corner: shuffle_key(f"{item.name} {corner}")
        )
        return sorted(order[:per_image])
    # By name and size alone, so that every seed sees the same windows.
    rng = rng_of(f"crop {item.name} {size[0]}")
    return [(crop_corner(mask, size, rng), None) for _ in range(per_image or 1)]


def crop_corner(mask: np.ndarray, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Return the corner of a window that holds one whole object, as far as it fits, or of any window."""
    from scipy import ndimage

    # Corners touch: thin diagonal objects would fall into pieces otherwise.
    labelled, count = ndimage.label((mask != 0) & (mask != VOID), np.ones((3,) * mask.ndim))
    box = ndimage.find_objects(labelled)[int(rng.integers(count))] if count else None
    corner = []
    for axis, (extent, wanted) in enumerate(zip(mask.shape, size, strict=True)):
        # All starts that lie inside, then those that hold the object, then one of them.
        low, high = 0, max(extent - wanted, 0)
        if box is not None:
            first, last = sorted((box[axis].stop - wanted, box[axis].start))
            low, high = min(max(first, 0), high), min(max(last, 0), high)
        corner.append(int(rng.integers(low, high + 1)))
    return tuple(corner)


def tile_corners(extent: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[tuple, tuple]]:
    """Return (corner, margin) of the windows that cover an image; the last of a row is moved inside it.

    What such a window shares with its neighbour is its margin, which is to be void, so that every pixel
    counts once.
    """
    tiles: list[tuple[tuple, tuple]] = [((), ())]
    for length, wanted in zip(extent, size, strict=True):
        tiles = [
            ((*corner, start), (*margin, covered))
            for corner, margin in tiles
            for start, covered in _along_axis(length, wanted)
        ]
    return tiles


def _along_axis(length: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield (start, pixels already covered) of the windows along one axis."""
    end = 0
    for start in range(0, max(length - wanted, 0) + 1, wanted):
        end = start + wanted
        yield start, 0
    if end < length:
        yield length - wanted, end - (length - wanted)


def window(image: np.ndarray, mask: np.ndarray, corner, size, margin=None) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, *size) and mask (*size) cut at ``corner``.

    Outside the image they are 0 and void; the ``margin`` is void in the mask.
    """
    place = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
    part, labels = image[(slice(None), *place)], mask[place]
    filled = tuple(slice(0, s) for s in labels.shape)
    # 0 is the mean of a z-scored image: the padding looks like nothing in particular.
    out = np.zeros((len(image), *size), np.float32)
    out[(slice(None), *filled)] = part
    out_mask = np.full(size, VOID, np.uint8)
    out_mask[filled] = labels
    # Scored in the neighbour already; the network still sees it.
    for axis, covered in enumerate(margin or ()):
        out_mask[(slice(None),) * axis + (slice(0, covered),)] = VOID
    return out, out_mask


def common_size(shapes: list[tuple[int, ...]], multiple: int = 4) -> tuple[int, ...]:
    """Return the smallest size, a multiple of 4 along each axis, that holds every image."""
    return tuple(-(-max(extent) // multiple) * multiple for extent in zip(*shapes, strict=True))


def are_small(shapes: list[tuple[int, ...]]) -> bool:
    """Return whether pictures are better padded to one size than cut into patches."""
    common = common_size(shapes)
    added = len(shapes) * np.prod(common) / sum(np.prod(shape) for shape in shapes)
    return max(common) <= TINY or (max(common) <= SMALL and added <= 1.5)


def zscore(image: np.ndarray) -> np.ndarray:
    """Return the image (C, *S) with mean 0 and standard deviation 1 in each channel; a constant one becomes
    0.
    """
    axes = tuple(range(1, image.ndim))  # each channel by itself
    # In float64: the values of one set run from 112 to 1.7 million.
    image = image.astype(np.float64)
    spread = image.std(axis=axes, keepdims=True)
    scored = (image - image.mean(axis=axes, keepdims=True)) / np.where(spread > 1e-8, spread, 1)
    return scored.astype(np.float32)
