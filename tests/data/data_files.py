"""Writing small files of every format that is read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 1.0), **header) -> None:
    """Write an array in the format that the suffix of the path names."""
    if path.name.endswith((".nii", ".nii.gz")):
        content = nifti_bytes(array, spacing, **header)
        path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


def nifti_bytes(array: np.ndarray, spacing=(1.0, 1.0, 1.0), slope=1.0, shift=0.0, order="<") -> bytes:
    """Return a NIfTI-1 file, written from the standard's table of header fields."""
    codes = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
    kind = array.dtype.newbyteorder("=").str[1:]
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, array.ndim, *array.shape, *[1] * (7 - array.ndim))
    struct.pack_into(order + "2h", header, 70, codes[kind], array.dtype.itemsize * 8)
    struct.pack_into(order + "8f", header, 76, 1.0, *spacing, *[1.0] * (7 - len(spacing)))
    struct.pack_into(order + "3f", header, 108, 352.0, slope, shift)
    header[344:348] = b"n+1\0"
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
