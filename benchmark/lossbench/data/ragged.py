"""Arrays of unequal sizes, in memory or in one memory-mapped file, indexed as an array (N, ...) is.

Opening a file reads nothing, and processes share what they read. Images lie in the type in which they came,
with their channels last, so that a patch touches few pages of the file; they are z-scored when they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ALIGNED = 64  # bytes; every array in a file begins at a multiple

KINDS = tuple(map(np.dtype, ("uint8", "uint16", "int16", "float32")))  # what is stored as it is


class Ragged(Sequence):
    """N arrays that differ in size: ``a[i]`` and ``a[i, :, 10:20]``; ``shapes`` int64 (N, axes)."""

    def __init__(self, arrays: Sequence[np.ndarray], shapes: np.ndarray | None = None):
        self.arrays = arrays
        # Of a file the shapes are known; asking thousands of arrays for theirs would cost more than opening.
        self.shapes = np.array([array.shape for array in arrays], np.int64) if shapes is None else shapes

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def ndim(self) -> int:
        return 1 + self.shapes.shape[1]

    def __getitem__(self, key):
        i, *window = key if isinstance(key, tuple) else (key,)
        return self.arrays[i][tuple(window)]


class Looked(Ragged):
    """Arrays of codes uint8, each replaced by its entry of ``table`` (256,) when it is read."""

    def __init__(self, codes: Ragged, table: np.ndarray):
        super().__init__(codes.arrays, codes.shapes)
        self.table = table

    def __getitem__(self, key):
        return self.table[super().__getitem__(key)]


class Scaled(Ragged):
    """Images float32 (C, *S) whose arrays lie as (*S, C); each channel is z-scored when it is read.

    ``mean`` and ``spread`` float64 (N, C) are those of the whole image (of a slice: of its volume).
    """

    def __init__(self, arrays: Stored, mean: np.ndarray, spread: np.ndarray):
        super().__init__(arrays, np.roll(arrays.shapes, 1, axis=1))
        self.mean, self.spread = mean.astype(np.float32), spread.astype(np.float32)

    def __getitem__(self, key):
        i, channels, *window = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(channels, int):  # one channel, without its axis
            return self[i, slice(channels, channels + 1 or None), *window][0]
        part = self.arrays[i][(*window, ..., channels)]
        # Channels first again, by a view; the subtraction then writes them one behind the other.
        part = part.transpose(part.ndim - 1, *range(part.ndim - 1))
        each = (-1, *[1] * (part.ndim - 1))
        scored = np.subtract(part, self.mean[i, channels].reshape(each), order="C", dtype=np.float32)
        return np.divide(scored, self.spread[i, channels].reshape(each), out=scored)


class Stored(Sequence):
    """Views of the arrays in one file; ``index`` holds shapes (N, axes), offsets in bytes (N,), kinds
    (N,).
    """

    def __init__(self, path: Path, index: dict[str, np.ndarray]):
        # A plain array over the same memory: slices of a memmap object take longer.
        self.memory = np.asarray(np.memmap(path, np.uint8, "r"))
        self.shapes, self.offsets, self.kinds = (index[key] for key in ("shapes", "offsets", "kinds"))

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, i: int) -> np.ndarray:
        kind, shape, first = KINDS[self.kinds[i]], self.shapes[i], int(self.offsets[i])
        return self.memory[first : first + int(shape.prod()) * kind.itemsize].view(kind).reshape(shape)


class Writer:
    """Appends arrays to a file, and keeps where they lie and the sha256 of all that was written."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.hash = hashlib.sha256()
        self.rows: list[tuple[tuple[int, ...], int, int]] = []  # shape, offset, kind
        self.end = 0

    def append(self, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        padding = b"\0" * (-array.nbytes % ALIGNED)
        for part in (array.reshape(-1).view(np.uint8).data, padding):
            self.file.write(part)
            self.hash.update(part)
        self.rows.append((array.shape, self.end, KINDS.index(array.dtype)))
        self.end += array.nbytes + len(padding)

    def index(self) -> dict[str, np.ndarray]:
        """Return what ``Stored`` needs to find the arrays again."""
        shapes, offsets, kinds = zip(*self.rows, strict=True)
        return {"shapes": np.array(shapes), "offsets": np.array(offsets), "kinds": np.array(kinds)}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
