"""The one container that every data set becomes: images, masks, split, groups, and a fingerprint of all four."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from lossbench.base.errors import UserError

VOID = 255

SPLITS = ("train", "val", "test")

DEFAULTS = {"unit": "px", "classes": ("background", "foreground"), "ignore_index": None, "posterior": None}


@dataclass(frozen=True, eq=False)
class Data:
    """Images and masks in memory (or memory-mapped), ready to train on.

    ``images`` float32 (N, C, *S); ``masks`` uint8 (N, *S) of class ids, ``ignore_index`` for void; ``split``
    names to sorted int64 indices; ``groups`` int64 (N,), the independent unit of each image, never divided
    between two parts of the split; ``spacing`` per spatial axis in ``unit``; ``classes`` in order of their
    ids, the background first; ``posterior`` float32 (N, K, *S), the exact p(class | image) of a synthetic
    scene, or None where it is not known. All images have one size, divisible by 4.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray
    split: dict[str, np.ndarray]
    groups: np.ndarray
    spacing: tuple[float, ...]
    unit: str
    classes: tuple[str, ...]
    ignore_index: int | None
    posterior: np.ndarray | None
    fingerprint: str
    card: dict = field(default_factory=dict)
    truth: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of one image."""
        return self.masks.shape[1:]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(self.split[name])}" for name in SPLITS)
        size = "x".join(map(str, self.shape))
        what = f"{len(self)} images of {size}, {len(self.classes)} classes, {parts}"
        return f"<Data {self.name}: {what}, {self.fingerprint}>"


def digest(array: np.ndarray) -> str:
    """Return the sha256 over type, shape and bytes of an array."""
    array = np.ascontiguousarray(array)
    found = hashlib.sha256(f"{array.dtype.str} {array.shape};".encode())
    found.update(array.data)
    return found.hexdigest()


def fingerprint(images: str, masks: str, split: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """Return 16 hexadecimal digits over what is learned and scored: the digests of images and masks, the
    split and the groups.
    """
    parts = [images, masks, digest(groups), *(digest(split[part]) for part in SPLITS)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def container(*, split, groups=None, spacing=None, digests=None, **arrays) -> Data:
    """Check the arrays, compute the fingerprint and return a ``Data``.

    ``digests`` are those of images and masks where they are known: arrays that come with them were checked
    when they were prepared and are not read again. A broken promise raises UserError naming the data set and
    the fault."""
    images, masks = arrays["images"], arrays["masks"]
    if digests is None:
        images = arrays["images"] = np.ascontiguousarray(images, np.float32)
        masks = arrays["masks"] = np.ascontiguousarray(masks, np.uint8)
    groups = (
        np.arange(len(images), dtype=np.int64) if groups is None else np.ascontiguousarray(groups, np.int64)
    )
    split = {part: np.sort(np.asarray(split[part], np.int64)) for part in SPLITS}
    spacing = tuple(float(s) for s in (spacing or (1.0,) * (masks.ndim - 1)))
    facts = {**DEFAULTS, **arrays}
    data = Data(split=split, groups=groups, spacing=spacing, fingerprint="", **facts)
    if digests is None:
        validate(data)
    validate_split(split, groups, len(images), data.name)
    mark = fingerprint(*(digests or (digest(images), digest(masks))), split, groups)
    return replace(data, fingerprint=mark)


def validate(data: Data) -> None:
    """Raise UserError with one sentence if the container breaks a promise of the ``Data`` docstring."""

    def fail(sentence: str):
        raise UserError(f"data set '{data.name}': {sentence}")

    images, masks = data.images, data.masks
    if images.ndim not in (4, 5) or images.shape[:1] + images.shape[2:] != masks.shape:
        fail(f"images {images.shape} and masks {masks.shape} do not fit; expected (N, C, *S) and (N, *S)")
    if len(images) == 0:
        fail("there are no images")
    if any(s % 4 for s in masks.shape[1:]):
        fail(f"the image size {masks.shape[1:]} is not divisible by 4")
    if len(data.spacing) != masks.ndim - 1:
        fail(f"spacing {data.spacing} has not one value for each of the {masks.ndim - 1} spatial axes")
    if not np.isfinite(images).all():
        fail("an image holds values that are not finite")
    allowed = {*range(len(data.classes)), *([] if data.ignore_index is None else [data.ignore_index])}
    found = set(np.flatnonzero(np.bincount(masks.ravel(), minlength=256)).tolist())
    if found - allowed:
        fail(
            f"the masks hold the undeclared values {sorted(found - allowed)}; declared are {sorted(allowed)}"
        )
    if data.posterior is not None and data.posterior.shape != (
        len(images),
        len(data.classes),
        *masks.shape[1:],
    ):
        fail(f"the posterior has shape {data.posterior.shape}")


def validate_split(split: dict[str, np.ndarray], groups: np.ndarray, count: int, name: str) -> None:
    """Raise UserError unless the parts are not empty, in range, disjoint and share no group."""
    seen: dict[int, str] = {}
    for part in SPLITS:
        index = split[part]
        if len(index) == 0:
            raise UserError(f"data set '{name}': the split '{part}' is empty")
        if index[0] < 0 or index[-1] >= count or len(np.unique(index)) != len(index):
            raise UserError(
                f"data set '{name}': the split '{part}' names an image twice or one that does not exist"
            )
        for group in np.unique(groups[index]).tolist():
            if group in seen:
                raise UserError(
                    f"data set '{name}': group {group} is in both '{seen[group]}' and '{part}', so "
                    "the test would leak"
                )
            seen[group] = part


def fractions(data: Data, part: str | None = None) -> dict[str, float]:
    """Return the pooled pixel fraction of each class among the pixels that are not void, over one part of the
    split or all images.
    """
    masks = data.masks if part is None else data.masks[data.split[part]]
    counts = np.bincount(masks.ravel(), minlength=256)[: len(data.classes)].astype(float)
    return dict(zip(data.classes, (counts / max(counts.sum(), 1)).tolist(), strict=True))
