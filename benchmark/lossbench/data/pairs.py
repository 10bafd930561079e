"""What a loader hands over: pairs of image and mask that are read one by one, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Item:
    """One pair: its name, its independent unit, its stratum for the split, its part in an official split."""

    name: str
    group: int
    stratum: int = 0
    part: str = ""


@dataclass
class Pairs:
    """A data set before it is prepared.

    ``read(name)`` returns image (C, *S), in the type in which it came, and mask (*S) of class ids, with 255
    for void; ``pixels``: of all images together, where that is known before they are read.
    """

    items: list[Item]
    read: Callable[[str], tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...] = ("background", "foreground")
    spacing: tuple[float, ...] | None = None
    unit: str = "px"
    notes: dict[str, Any] = field(default_factory=dict)
    pixels: int | None = None  # lets a full disk be noticed before anything is written


@dataclass
class Arrays:
    """Prepared images of one size: float32 (N, C, *S), uint8 (N, *S), and the item that each was cut from."""

    images: np.ndarray
    masks: np.ndarray
    items: list[Item]
    names: list[str]
    classes: tuple[str, ...] = ("background", "foreground")
    spacing: tuple[float, ...] | None = None
    unit: str = "px"
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Pairs, images, masks, items: list[Item], names: list[str]) -> Arrays:
        # Slices of volumes keep the spacing of the two axes that they have.
        spacing = pairs.spacing and pairs.spacing[: masks.ndim - 1]
        return cls(images, masks, items, names, pairs.classes, spacing, pairs.unit, pairs.notes)
