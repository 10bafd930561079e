"""The one container that every data set becomes: images, masks, split, groups, and a fingerprint of all
four; and where foreground lies in them, so that a patch can be centred on it without reading a mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.seeds import rng_of
from lossbench.data.ragged import Looked, Ragged

VOID = 255  # of masks that were prepared here, whatever value stood for void before

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Ratings:
    """What R raters say of each image. ``codes[i]``: uint8 (*S), rows of ``patterns``, 255 where nobody has a
    label; ``patterns``: uint8 (P, R), the class that each rater gives, 255 where he has none.

    One byte a pixel holds them all, so that a patch of it is cut, flipped and turned as a mask is."""

    codes: np.ndarray | Ragged
    patterns: np.ndarray

    def of(self, i: int) -> np.ndarray:
        """Return the labels of all raters of one image, uint8 (R, *S)."""
        table = np.full((VOID + 1, self.patterns.shape[1]), VOID, np.uint8)
        table[: len(self.patterns)] = self.patterns
        return np.moveaxis(table[np.asarray(self.codes[i])], -1, 0)

    def shares(self, classes: int) -> np.ndarray:
        """Return the share of each class among the raters of each code, float32 (256, classes), void 0."""
        votes = (self.patterns[:, :, None] == np.arange(classes)).sum(1)
        table = np.zeros((VOID + 1, classes), np.float32)
        table[: len(votes)] = votes / votes.sum(1, keepdims=True)
        return table

    def majority(self, classes: int) -> np.ndarray:
        """Return the class that most raters give, uint8 (256,); of equally many the first, so that half of
        two raters is background.
        """
        table = self.shares(classes).argmax(1).astype(np.uint8)
        table[len(self.patterns) :] = VOID
        return table

    def masks(self, classes: int) -> np.ndarray | Ragged:
        """Return the masks of the majority."""
        table = self.majority(classes)
        return Looked(self.codes, table) if isinstance(self.codes, Ragged) else table[self.codes]


@dataclass(frozen=True, eq=False)
class Data:
    """Images and masks, ready to train on: arrays where all have one size, else ``Ragged``; both
    memory-mapped where they were prepared on disk.

    - ``images``: float32, ``images[i]`` (C, *S); ``masks``: uint8, ``masks[i]`` (*S), class ids and
      ``ignore_index`` for void. ``images[i, :, 10:20, 30:40]`` reads a part and nothing else;
    - ``split``: 'train', 'val', 'test' to sorted int64 indices;
    - ``groups``: int64 (N,), the independent unit of each image, never divided between two parts of the
      split;
    - ``spacing`` per spatial axis in ``unit``; ``classes`` in order of their ids, the background first;
    - ``posterior``: float32 (N, K, *S), the exact p(class | image) of a synthetic scene, or None;
    - ``counts``: int64 (N, K), pixels of each class in each image;
    - ``places``: where foreground lies, as far as it was looked up when the set was prepared;
    - ``ratings``: what several raters say, of whom ``masks`` is the majority, or None.

    Arrays have sides that are divisible by 4; whole images of unequal sizes are as they came.
    """

    name: str
    images: np.ndarray | Ragged
    masks: np.ndarray | Ragged
    split: dict[str, np.ndarray]
    groups: np.ndarray
    spacing: tuple[float, ...]
    counts: np.ndarray
    fingerprint: str
    unit: str = "px"
    classes: tuple[str, ...] = ("background", "foreground")
    ignore_index: int | None = None
    posterior: np.ndarray | None = None
    places: Places | None = None
    ratings: Ratings | None = None
    card: dict = field(default_factory=dict)
    truth: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def labels(self) -> np.ndarray | Ragged:
        """What training reads of each image: its mask, or the codes of what its raters say."""
        return self.masks if self.ratings is None else self.ratings.codes

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return self.masks.ndim - 1

    @property
    def channels(self) -> int:
        ragged = isinstance(self.images, Ragged)
        return int(self.images.shapes[0, 0] if ragged else self.images.shape[1])

    @property
    def sizes(self) -> np.ndarray:
        """Spatial size of each image, int64 (N, dims)."""
        if isinstance(self.masks, Ragged):
            return self.masks.shapes
        return np.tile(np.array(self.masks.shape[1:]), (len(self), 1))

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Spatial size of every image, or None where sizes differ."""
        sizes = self.sizes
        return tuple(sizes[0].tolist()) if (sizes == sizes[0]).all() else None

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(self.split[name])}" for name in SPLITS)
        what = f"{len(self)} images of {size_text(self.sizes)}, {len(self.classes)} classes, {parts}"
        return f"<Data {self.name}: {what}, {self.fingerprint}>"


def size_text(sizes: np.ndarray) -> str:
    """Return '64x64', or '19 sizes from 308x328 to 512x745', of sizes (N, dims)."""
    different = np.unique(sizes, axis=0)
    low, high = ("x".join(map(str, edge.tolist())) for edge in (sizes.min(0), sizes.max(0)))
    return low if len(different) == 1 else f"{len(different)} sizes from {low} to {high}"


def container(*, split, groups=None, spacing=None, digests=None, counts=None, **facts) -> Data:
    """Check images and masks, compute the fingerprint and return a ``Data``; the other fields are its own.

    Images and masks are arrays (N, C, *S) and (N, *S), or lists of arrays of unequal sizes. ``digests`` and
    ``counts`` are known of sets that were checked when they were prepared, and are not computed again. A
    broken promise raises UserError naming the data set and the fault.
    """
    # Prepared sets come with digests: to check gigabytes again would cost what memory-mapping saves.
    images, masks, name = facts.pop("images"), facts.pop("masks"), facts["name"]
    if digests is None:
        images, masks = _as_type(images, np.float32), _as_type(masks, np.uint8)
    data = Data(
        images=images,
        masks=masks,
        split={part: np.sort(np.asarray(split[part], np.int64)) for part in SPLITS},
        groups=np.arange(len(masks)) if groups is None else np.ascontiguousarray(groups, np.int64),
        spacing=tuple(float(step) for step in spacing or (1.0,) * (masks.ndim - 1)),
        counts=counts,
        fingerprint="",
        **facts,
    )
    if digests is None:
        data = replace(data, counts=validate(data))
        digests = (digest(images), digest(data.labels))
    validate_split(data.split, data.groups, len(data), name)
    return replace(data, fingerprint=fingerprint(*digests, data.split, data.groups))


def _as_type(arrays, kind) -> np.ndarray | Ragged:
    if not isinstance(arrays, np.ndarray):
        # A list of one size becomes an array where a network can take it as it is.
        shapes = {np.shape(array) for array in arrays}
        if len(shapes) > 1 or any(side % 4 for side in min(shapes)[-2:]):
            return Ragged([np.ascontiguousarray(array, kind) for array in arrays])
    return np.ascontiguousarray(arrays, kind)


def digest(arrays: np.ndarray | Ragged) -> str:
    """Return the sha256 over type, shape and bytes."""
    if isinstance(arrays, Ragged):
        return hashlib.sha256(" ".join(map(digest, arrays)).encode()).hexdigest()
    array = np.ascontiguousarray(
        arrays
    )  # the hash is over values in the order of the axes, not of the memory
    hashed = hashlib.sha256(f"{array.dtype.str} {array.shape};".encode())
    hashed.update(array.data)
    return hashed.hexdigest()


def fingerprint(images: str, masks: str, split: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """Return 16 hexadecimal digits over what is learned and scored.

    ``images`` and ``masks`` are digests; the split and the groups are hashed here.
    """
    # Names, classes and spacing are no part of it: they change what is printed, not what is learned.
    parts = [images, masks, digest(groups), *(digest(split[part]) for part in SPLITS)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def validate(data: Data) -> np.ndarray:
    """Return the pixels of each class (N, K); UserError if images or masks break a promise of ``Data``."""

    def fail(sentence: str):
        raise UserError(f"data set '{data.name}': {sentence}")

    if len(data) == 0:
        fail("there are no images")
    for sentence in (_misfit(data.images, data.masks), _odd_size(data), _odd_spacing(data)):
        if sentence:
            fail(sentence)
    if any(not np.isfinite(image).all() for image in data.images):
        fail("an image holds values that are not finite")
    # One pass gives the class counts and shows every value that was not declared.
    counts = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in data.masks])
    allowed = {*range(len(data.classes)), data.ignore_index} - {None}
    present = set(np.flatnonzero(counts.sum(0)).tolist())
    if present - allowed:
        undeclared = f"the masks hold the undeclared values {sorted(present - allowed)}"
        fail(f"{undeclared}; declared are {sorted(allowed)}")
    # Only scenes have a posterior, and all scenes have one size.
    expected = (len(data), len(data.classes), *(data.shape or ()))
    if data.posterior is not None and data.posterior.shape != expected:
        fail(f"the posterior has shape {data.posterior.shape}, expected {expected}")
    return counts[:, : len(data.classes)]


def _misfit(images, masks) -> str:
    if isinstance(images, Ragged) and isinstance(masks, Ragged) and images.ndim == masks.ndim + 1:
        fits = np.array_equal(images.shapes[:, 1:], masks.shapes) and len(np.unique(images.shapes[:, 0])) == 1
        return "" if fits else "an image and its mask differ in size, or images differ in channels"
    if isinstance(images, Ragged) or isinstance(masks, Ragged):
        return "images and masks do not fit; expected (C, *S) and (*S) of each"
    if images.ndim in (4, 5) and images.shape[:1] + images.shape[2:] == masks.shape:
        return ""
    return f"images {images.shape} and masks {masks.shape} do not fit; expected (N, C, *S) and (N, *S)"


def _odd_size(data: Data) -> str:
    # Four is what the reference network halves twice; whole images are cut into patches first.
    if isinstance(data.masks, Ragged) or not any(side % 4 for side in data.masks.shape[1:]):
        return ""
    return f"the image size {data.masks.shape[1:]} is not divisible by 4"


def _odd_spacing(data: Data) -> str:
    if len(data.spacing) == data.dims:
        return ""
    return f"spacing {data.spacing} has not one value for each of the {data.dims} spatial axes"


def validate_split(split: dict[str, np.ndarray], groups: np.ndarray, count: int, name: str) -> None:
    """Raise UserError unless the parts are not empty, in range, disjoint and share no group."""
    seen: dict[int, str] = {}  # group -> the part that has it
    for part in SPLITS:
        index = split[part]
        if len(index) == 0:
            raise UserError(f"data set '{name}': the split '{part}' is empty")
        if index[0] < 0 or index[-1] >= count or len(np.unique(index)) != len(index):
            fault = "names an image twice or one that does not exist"
            raise UserError(f"data set '{name}': the split '{part}' {fault}")
        for group in np.unique(groups[index]).tolist():
            if group in seen:
                both = f"group {group} is in both '{seen[group]}' and '{part}'"
                raise UserError(f"data set '{name}': {both}, so the test would leak")
            seen[group] = part


def fractions(data: Data, part: str | None = None) -> dict[str, float]:
    """Return the pooled fraction of each class among the pixels that are not void.

    Over one part of the split, or over all images.
    """
    counts = (data.counts if part is None else data.counts[data.split[part]]).sum(0)
    return dict(zip(data.classes, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def has_void(data: Data) -> bool:
    """Return whether a mask holds void pixels, besides those that pad an image to the size of others."""
    if data.ignore_index is None:
        return False
    # Counts leave void out: few masks have to be read.
    for n in np.flatnonzero(data.counts.sum(1) < data.sizes.prod(1)):
        void = np.asarray(data.masks[n]) == data.ignore_index
        # Padding is 0 in every channel; of a z-scored image hardly a pixel is.
        if (void & np.any(data.images[n], axis=0)).any():
            return True
    return False


def class_names(count: int) -> tuple[str, ...]:
    """Return names for classes that have none: background, foreground; or background, class_1, ..."""
    if count <= 2:
        return ("background", "foreground")
    return ("background", *(f"class_{k}" for k in range(1, count)))


# --- where foreground lies


MOST_PLACES = 1000  # pixels of one class that are kept of one image


@dataclass(frozen=True, eq=False)
class Places:
    """Flat indices of foreground pixels: all of a class in an image, or 1,000 of them drawn at random.

    ``flat`` (M,) integers, image by image and class by class; those of class k in image n begin at
    ``starts[n * (K - 1) + k - 1]``, int64 (N * (K - 1) + 1,), where the one before ends.
    """

    flat: np.ndarray
    starts: np.ndarray
    classes: int

    def of(self, n: int, k: int) -> np.ndarray:
        """Return the kept pixels of class ``k`` in image ``n``."""
        # One flat array and its bounds, rather than lists: it can lie in a file and be mapped.
        at = n * (self.classes - 1) + k - 1
        return self.flat[self.starts[at] : self.starts[at + 1]]


def places_of(mask: np.ndarray, classes: int, name: str) -> list[np.ndarray]:
    """Return the kept pixels of each foreground class of one mask; which, depends on the image's name
    alone.
    """
    # A thousand is enough: neighbouring pixels centre nearly the same patch.
    flat, rng = mask.ravel(), rng_of(f"places {name}")
    kept = []
    for k in range(1, classes):
        pixels = np.flatnonzero(flat == k)
        if len(pixels) > MOST_PLACES:
            pixels = np.sort(rng.choice(pixels, MOST_PLACES, replace=False, shuffle=False))
        kept.append(pixels)
    return kept


def gather(images: Iterable[list[np.ndarray]], classes: int) -> Places:
    """Return the places of a data set from those of its images."""
    pixels = [kept for image in images for kept in image]
    starts = np.cumsum([0, *map(len, pixels)])
    return Places(np.concatenate(pixels).astype(np.int64), starts, classes)
