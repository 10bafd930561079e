"""Reading one file into an array: NIfTI with numpy alone, PNG, JPEG and TIFF through Pillow, NPY; HDF5, MAT
and NPZ, which hold arrays by name.
"""

from __future__ import annotations

import gzip
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.words import IMAGE_WORDS, MASK_WORDS, words_of

# Codes of the NIfTI-1.1 standard.
NIFTI_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}

NIFTI = (".nii", ".nii.gz")

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif")

NAMED = (".h5", ".hdf5", ".npz")  # files that may hold an image and its mask, by name

SUFFIXES = (*NIFTI, *PICTURES, ".npy", ".mat")

HEADER = 352  # bytes of a NIfTI-1 header with its extension flag

MOST_BYTES = 2**33  # of a NIfTI file; a header that promises more is not believed

# What numpy raises for a damaged NPY or NPZ file: its header is Python text, and may promise more than
# memory.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
)

# How a picture is turned or mirrored to stand upright, by the orientation that a camera notes (EXIF).
ORIENTATION, TURNS = (
    274,
    {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
        7: "TRANSVERSE",
        8: "ROTATE_90",
    },
)

LYING = (5, 6, 7, 8)  # of these, height and width change places

# Tags of a TIFF's page: whether it is a smaller copy of another, and how many channels it has.
SMALLER_COPY, CHANNELS = 254, 277

ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")  # Pillow's modes whose last channel is alpha

DAMAGED = (RuntimeError, NotImplementedError, AttributeError)  # what HDF5 and NPZ raise besides


def suffix_of(path: Path) -> str:
    """Return the lower-case suffix, with both parts of '.nii.gz'."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """Return the name without its suffix (both parts of '.nii.gz')."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the scaled array of a NIfTI-1 file and the voxel size along x, y, z in mm.

    Axes are (x, y, z[, channels]) as stored. scl_slope and scl_inter are applied where they say something;
    either byte order; gzip or plain. Headers follow the NIfTI-1.1 standard.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _nifti(file, path)
    except (EOFError, zlib.error):
        raise UserError(f"{path}: is a damaged gzip file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _nifti(file: BinaryIO, path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    head = file.read(HEADER)
    if len(head) < HEADER or head[344:347] not in (b"n+1", b"ni1"):
        raise UserError(f"{path}: is not a single-file NIfTI-1 volume")
    # The first field is always 348, so it tells the byte order.
    order = "<" if struct.unpack("<i", head[:4])[0] == 348 else ">"
    dims = struct.unpack(order + "8h", head[40:56])
    code = struct.unpack(order + "h", head[70:72])[0]
    steps = struct.unpack(order + "8f", head[76:108])
    offset, slope, shift = struct.unpack(order + "3f", head[108:120])
    if code not in NIFTI_TYPES or not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1]) < 1:
        header = f"a NIfTI header that makes no sense (type code {code}, dimensions {dims})"
        raise UserError(f"{path}: has {header}")
    shape = dims[1 : dims[0] + 1]
    kind = np.dtype(NIFTI_TYPES[code]).newbyteorder(order)
    count = math.prod(shape)
    # No more is unpacked than the header promises, whatever a file of gzip claims to hold.
    first = int(offset) if 348 <= offset < MOST_BYTES else MOST_BYTES
    size = first + count * kind.itemsize
    raw = head + file.read(size - HEADER) if size <= MOST_BYTES else b""
    if len(raw) < size:
        raise UserError(f"{path}: is cut short; its header promises {count} voxels")
    array = np.frombuffer(raw, kind, count, first).reshape(shape, order="F")
    # Tools write volumes with a fourth axis of one: they are volumes all the same.
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if slope != 0.0 and (slope, shift) != (1.0, 0.0) and np.isfinite([slope, shift]).all():
        array = array.astype(np.float64) * slope + shift
    return array.astype(array.dtype.newbyteorder("=")), tuple(abs(float(s)) or 1.0 for s in steps[1:4])


def read_picture(
    path: Path, mode: str | None = None, *, indices: bool = True, upright: bool = False
) -> np.ndarray:
    """Return a picture (H, W) or (H, W, channels), converted to ``mode`` ('L', 'RGB') if that is given.

    Pictures with a palette give their ``indices``, or their colours. ``upright``: turned as its camera noted,
    which is how it is shown and outlined. Without ``mode`` a file is refused of which a part would be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            orientation = _orientation(picture) if upright else 1
            if mode is None:
                _check_whole(picture, path)
            if mode is not None:
                picture = picture.convert(mode)
            # Of 1-bit pictures True would become 1, and cutting at 127 would find nothing.
            elif picture.mode == "1" or (picture.mode == "P" and indices and _shades(picture)):
                picture = picture.convert("L")
            elif picture.mode == "CMYK" or (picture.mode == "P" and not indices):
                picture = picture.convert("RGB")
            if orientation in TURNS:
                picture = picture.transpose(Image.Transpose[TURNS[orientation]])
            return np.asarray(picture)
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture that can be read") from None
    except (*UNREADABLE, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _shades(picture: Any) -> bool:
    """Return whether a palette says only which shades of grey a GIF holds: a program that writes one puts the
    commonest first, so that white may be 0.
    """
    if picture.format != "GIF":
        return False
    used = picture.convert("RGB").getcolors(256)
    return all(red == green == blue for _, (red, green, blue) in used)


def _orientation(picture: Any) -> int:
    """Return how a picture is to be turned; 1 is upright."""
    # Pillow itself turns TIFF, and gives the size after the turn; it would read a whole PNG to find none.
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return 1
    try:
        return picture.getexif().get(ORIENTATION, 1)
    except Exception:  # of what a camera wrote, whatever cannot be read says nothing
        return 1


def _check_whole(picture: Any, path: Path) -> None:
    """Refuse a file of several pages, or of channels that Pillow passes over: a part alone would be read."""
    read = len(picture.getbands())
    if picture.format == "TIFF" and picture.tag_v2.get(CHANNELS, 1) > read:
        channels = f"{picture.tag_v2[CHANNELS]} channels, of which only {read} would be read"
        raise UserError(f"{path}: has {channels}; save it as NPY")
    # The JPEG of a phone may hold a second view or a preview (MPO): it is one photograph.
    count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if count == 1:
        return
    if picture.format == "TIFF":
        pages = range(count)
        count = 0
        for page in pages:
            picture.seek(page)
            count += not picture.tag_v2.get(SMALLER_COPY, 0) & 1
        picture.seek(0)
    if count > 1:
        mend = "save it as one NIfTI or NPY volume, or each page as a file of its own"
        raise UserError(f"{path}: has {count} pages, of which only the first would be read; {mend}")


def read_npy(path: Path) -> np.ndarray:
    """Return the array of an NPY file; object arrays (pickles) are refused."""
    try:
        return np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise UserError(f"{path}: is not a readable NPY array ({error})") from None


def size_of(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """Return height and width of a picture from its header, as it is shown or as it is stored."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            lying = upright and _orientation(picture) in LYING
            return (picture.width, picture.height) if lying else (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def is_colour(files: tuple[Path, ...]) -> bool:
    """Return whether an image is one picture in colour, from its header."""
    return len(files) == 1 and _mode(files[0]) in ("RGB", "RGBA", "P", "CMYK")


def _mode(path: Path) -> str:
    """Return the mode of a picture in Pillow's letters, '' for what is none."""
    from PIL import Image

    if suffix_of(path) not in PICTURES:
        return ""
    try:
        with Image.open(path) as picture:
            return picture.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""  # whoever reads it says what is wrong


def has_alpha(files: tuple[Path, ...]) -> bool:
    """Return whether an image is a picture with an alpha channel, from its header."""
    return _mode(files[0]) in ALPHA


def roles_in(path: Path) -> set[str]:
    """Return which of 'image' and 'mask' a file of named arrays holds."""
    return {role for role in ("image", "mask") if _named(path, role, _arrays(path))}


def read_named(path: Path, role: str) -> np.ndarray:
    """Return the array of an HDF5, MAT or NPZ file whose name says image or mask.

    Volumes that lie as (slices, H, W) become (H, W, slices).
    """
    # Only the array that is wanted is read.
    arrays = _arrays(path)
    name = _named(path, role, arrays)
    if not name:
        raise UserError(
            f"{path}: no array in it is named as {role}; it holds {', '.join(sorted(arrays)[:8])}"
        )
    try:
        array = np.asarray(arrays[name]())
    except (*UNREADABLE, *DAMAGED) as error:
        raise UserError(f"{path}: '{name}' cannot be read ({error})") from None
    slices_first = array.ndim == 3 and 2 * array.shape[0] <= min(array.shape[1:])
    return np.moveaxis(array, 0, -1) if slices_first else array


def _named(path: Path, role: str, arrays: dict) -> str:
    """Return the first array, in alphabetical order, whose own name holds a word for the role."""
    own = {"image": IMAGE_WORDS, "mask": MASK_WORDS}[role]
    return next((name for name in sorted(arrays) if set(words_of(name.split("/")[-1])) & own), "")


def _arrays(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Return the names of the arrays in a file, each with a function that reads it."""
    suffix = suffix_of(path)
    try:
        if suffix == ".npz":
            archive = np.load(path, allow_pickle=False)
            return {name: lambda name=name: archive[name] for name in archive.files}
        if suffix == ".mat":
            return _matlab(path)
        import h5py

        file, names = h5py.File(path, "r"), []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return {name: lambda name=name: file[name][()] for name in names}
    except (*UNREADABLE, *DAMAGED) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _matlab(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises classes of its own for damaged files, and many others
        raise UserError(f"{path}: cannot be read as a MAT file ({error})") from None
    found: dict[str, Callable[[], np.ndarray]] = {}
    # MATLAB wraps structures in arrays of one element.
    todo = [(name, value) for name, value in content.items() if not name.startswith("__")]
    while todo:
        name, value = todo.pop()
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.names and value.size == 1:  # a structure: its fields are arrays again
            todo += [(f"{name}/{key}", value.flat[0][key]) for key in value.dtype.names]
        elif value.dtype == object and value.size == 1:
            todo.append((name, value.flat[0]))
        elif value.dtype.kind in "biuf":
            found[name] = lambda value=value: value
    return found


def read_any(path: Path, role: str = "image") -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return the array of any supported file and, for NIfTI, its spacing.

    ``role``, 'image' or 'mask', says which array of a file that holds both.
    """
    suffix = suffix_of(path)
    if suffix in NIFTI:
        return read_nifti(path)
    if suffix == ".npy":
        return read_npy(path), None
    if suffix in PICTURES:
        return read_picture(path, indices=role == "mask", upright=True), None
    if suffix in (*NAMED, ".mat"):
        return read_named(path, role), None
    raise UserError(f"{path}: files ending in '{suffix}' are not read; supported are {', '.join(SUFFIXES)}")


def labels_of(array: np.ndarray, path: Path, most: int = 255) -> np.ndarray:
    """Return a mask as whole numbers, uint8 where they fit, else uint16.

    Floats that are whole numbers are accepted (the Decathlon has them).
    """
    if array.dtype in (bool, np.uint8):
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise UserError(f"{path}: a mask must hold numbers, not {array.dtype}")
    if array.size and (not np.isfinite(array).all() or array.min() < 0 or array.max() > most):
        values = f"{array.min()} to {array.max()}"
        raise UserError(f"{path}: a mask must hold class ids from 0 to {most}, it holds {values}")
    # A resampled label map may be off by rounding; a probability map is off by much more.
    whole = np.rint(array)
    if np.issubdtype(array.dtype, np.floating) and np.abs(array - whole).max(initial=0) > 1e-3:
        worst = array.ravel()[np.abs(array - whole).argmax()]
        probably = f"it holds {worst:g}; is it a probability map?"
        raise UserError(f"{path}: a mask must hold whole class ids, {probably}")
    return whole.astype(np.uint8 if whole.max(initial=0) <= 255 else np.uint16)


def channels_first(picture: np.ndarray) -> np.ndarray:
    """Return (C, H, W) of a picture (H, W) or (H, W, C)."""
    return picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)


def as_it_came(path: Path) -> Path:
    """Return a TIFF, or the PNG that a local copy holds in its place."""
    return path if path.is_file() else path.with_suffix(".png")
