"""Reading one pair of a user's folder: channels first, masks as their raw values.

Raw values are grey values as they are, and colours above ``COLOUR``; ``coding`` says which classes they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.coding import COLOUR, MOST_GREY
from lossbench.data.formats import PICTURES, labels_of, read_any, suffix_of
from lossbench.data.pairs import FilePair

MOST_CHANNELS = 64  # an axis that is longer belongs to space


def read_mask(pair: FilePair) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values (*S) of a mask and its spacing, if known; of one file an object, 1 inside any."""
    if pair.draw is not None:
        return pair.draw(), None
    parts = [read_values(path) for path in pair.masks]
    if len(parts) == 1:
        return parts[0]
    shapes = {values.shape for values, _ in parts}
    if len(shapes) > 1:
        raise UserError(f"{pair.masks[0].parent}: the masks of one image differ in size: {sorted(shapes)}")
    # Half of the top: objects are often drawn with soft edges.
    return np.any([values > values.max() / 2 for values, _ in parts], 0).astype(np.uint8), parts[0][1]


def read_values(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values of one mask file, uint8, uint16 or (colours) int32, and its spacing."""
    array, spacing = read_any(path, "mask")
    if array.ndim == 3 and suffix_of(path) in PICTURES and array.dtype == np.uint8:
        array = _without_alpha(array)
        if array.shape[-1] == 3:
            return _packed(array), spacing
        array = array[..., 0]
    # Volumes of one slice and pictures with one channel are masks of two axes.
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: a mask must have 2 or 3 axes, it has the shape {array.shape}")
    return labels_of(array, path, MOST_GREY), spacing


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
    arrays = [pair.image()] if pair.image else [read_any(path)[0] for path in pair.images]
    parts = [_channels_first(array, shape, path) for array, path in zip(arrays, pair.images, strict=True)]
    image = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{pair.images[0]}: holds values that are not finite")
    return image


def _channels_first(array: np.ndarray, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        raise UserError(f"{path}: an image must hold numbers, not {array.dtype}")
    # Small integers keep their type: they take a half or a quarter of the room, and z-scoring loses nothing.
    if array.dtype not in (np.uint8, np.uint16, np.int16):
        array = array.astype(np.float32)
    if array.shape == shape or array.squeeze().shape == shape:
        return array.reshape(1, *shape)
    if array.shape[:-1] == shape and array.shape[-1] <= MOST_CHANNELS:
        if array.shape[-1] in (2, 4) and array.dtype == np.uint8:  # the last channel is alpha
            array = array[..., :-1]
        return np.moveaxis(array, -1, 0)
    if array.shape[1:] == shape and array.shape[0] <= MOST_CHANNELS:
        return array
    raise UserError(f"{path}: has the shape {array.shape}, its mask {shape}")
