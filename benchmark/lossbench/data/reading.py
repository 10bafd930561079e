"""Reading one pair of a user's folder: channels first, masks as class ids, one sentence for what cannot
be meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.container import VOID
from lossbench.data.formats import labels_of, read_any
from lossbench.data.layouts import Pair

MANY = 24  # more distinct values than this, most of them rare, look like anti-aliased edges

MOST_CHANNELS = 64  # an axis that is longer belongs to space


@dataclass(frozen=True)
class Options:
    """What the user says about mask values.

    Those above ``threshold`` are foreground; ``ignore_index`` is void; ``values[i]`` is class i.
    """

    threshold: int | None = None
    ignore_index: int | None = None
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = [*self.values, self.threshold, self.ignore_index]
        for value in given:
            if value is not None and (not isinstance(value, int) or not 0 <= value <= 255):
                raise UserError(f"mask values lie between 0 and 255, got {value!r}")
        if len(set(self.values)) != len(self.values) or len(self.values) == 1:
            raise UserError(f"'values' must list at least two different mask values, got {list(self.values)}")


@dataclass(frozen=True)
class Coding:
    """How mask values become class ids: ``ids[value]`` is a class, 255 (void), or -1 where it must not
    occur.
    """

    ids: np.ndarray
    classes: int
    text: str

    def apply(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the mask as class ids; UserError names a file with an undeclared value."""
        ids = self.ids[values]
        if (ids < 0).any():
            strange = values[ids < 0].min()
            raise UserError(
                f"{path}: holds the mask value {strange}, which no other mask explains; {self.text}"
            )
        return ids.astype(np.uint8)


def read_mask(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values (*S) uint8 of a mask and its spacing, if known.

    A colour picture is accepted when its channels agree.
    """
    array, spacing = read_any(path)
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.shape[0] > 4 and array.dtype == np.uint8:
        # Grey masks saved as RGB are common; real colours would need a palette, which is not guessed.
        if (array[..., :1] != array[..., 1:3]).any():
            raise UserError(f"{path}: is a colour picture; save the mask as one channel of class ids")
        array = array[..., 0]
    # Volumes of one slice and pictures with one channel are masks of two axes.
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim not in (2, 3):
        raise UserError(f"{path}: a mask must have 2 or 3 axes, it has the shape {array.shape}")
    return labels_of(array, path), spacing


def read_image(pair: Pair, shape: tuple[int, ...]) -> np.ndarray:
    """Return the image (C, *S) of a mask of shape ``shape``; small integers stay, all else becomes
    float32.
    """
    parts = [_channels_first(read_any(path)[0], shape, path) for path in pair.images]
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


def understand(counts: np.ndarray, options: Options, declared: int | None, where: str) -> Coding:
    """Return how the values of all masks (``counts`` of each, 256) become class ids.

    The user's options come first, then the ``declared`` number of classes of a task file. Without these:
    {0, v} is binary; 0..K-1 are class ids; 255 beside them is void. Anything else raises UserError, with the
    option that would settle it.
    """
    ids = np.full(256, -1, np.int16)
    if options.values:
        ids[list(options.values)] = range(len(options.values))
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
    # Last, so that it wins over every other reading of that value.
    if options.ignore_index is not None:
        coding.ids[options.ignore_index] = VOID
    return coding


def _guess(counts: np.ndarray, void: int | None, where: str) -> Coding:
    """Return the coding of values that speak for themselves."""
    ids = np.full(256, -1, np.int16)
    values = [value for value in np.flatnonzero(counts).tolist() if value != void]
    # Anti-aliased edges: many values, nearly all of them rare.
    if len(values) > MANY and counts[values].max() > 0.3 * counts.sum():
        edges = f"the masks hold {len(values)} different values and look anti-aliased"
        raise UserError(f"{where}: {edges}; say where to cut, as in folder(path='...', threshold=127)")
    if len(values) <= 2 and 0 in values:
        ids[values] = range(len(values))
        return Coding(ids, 2, f"the values are {values}")
    # Gaps are allowed: a class may be rare enough to be missing from these masks.
    known = [value for value in values if value != VOID]
    if len(known) >= 2 and known[-1] < MANY:
        count = known[-1] + 1
        ids[:count] = np.arange(count)
        ids[VOID] = VOID if VOID in values else -1
        return Coding(ids, count, f"the classes are 0 to {count - 1}")
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    mend = "list them in the order of the classes, as in folder(path='...', values=[0, 128, 255])"
    raise UserError(
        f"{where}: the mask values {shown} are not class ids 0, 1, 2, ...; {mend}, or cut with 'threshold'"
    )
