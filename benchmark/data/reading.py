"""Reading one pair of a user's folder: channels first, masks as class ids, and one sentence for everything that cannot be meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.data.container import VOID
from benchmark.data.formats import labels_of, read_any
from benchmark.data.layouts import Pair
from benchmark.errors import UserError

MANY = 24  # more distinct values than this, most of them rare, look like anti-aliased edges


@dataclass(frozen=True)
class Options:
    """What the user says about mask values: cut above ``threshold``, ``ignore_index`` is void, ``values[i]`` is class i."""

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
    """How mask values become class ids: ``ids[value]`` is a class, 255 (void), or -1 for a value that must not occur."""

    ids: np.ndarray
    classes: int
    text: str

    def apply(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return the mask as class ids; a value that is not declared raises UserError naming the file and the value."""
        found = self.ids[values]
        if (found < 0).any():
            strange = sorted(np.unique(values[found < 0]).tolist())
            raise UserError(f"{path}: holds the mask value {strange[0]}, which no other mask explains; {self.text}")
        return found.astype(np.uint8)


def read_mask(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the raw values (*S) uint8 of a mask and its spacing, if known; a colour picture is accepted when its channels agree."""
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

    The user's options come first, then the ``declared`` number of classes of a task file. Without these: {0, v} is binary; 0..K-1 are class
    ids; 255 beside them is void. Anything else raises UserError, with the option that would settle it.
    """
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
            f"{where}: the masks hold {len(values)} different values and look anti-aliased; say where to cut, as in folder(path='...', threshold=127)"
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
        f"{where}: the mask values {shown} are not class ids 0, 1, 2, ...; list them in the order of the classes, as in "
        "folder(path='...', values=[0, 128, 255]), or cut with 'threshold'"
    )
