"""Pairs of image and mask: as files that were found in a folder, and as a loader hands them over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FilePair:
    """One image (its channels may be several files) and its mask, with what the user's tables say of it.

    ``masks`` is one file, one file an object, or the file of outlines from which ``draw()`` makes a mask of
    class ids; ``image()`` takes the image from a file that holds many; ``void`` is the value of the mask that
    a task file calls so.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    group: str = ""
    part: str = ""
    draw: Callable[[], np.ndarray] | None = None
    image: Callable[[], np.ndarray] | None = None
    void: int | None = None

    @property
    def where(self) -> Path:
        """The file to name when the mask is wrong."""
        # An image without objects has no file of outlines in YOLO.
        return (self.masks or self.images)[0]


@dataclass(frozen=True)
class Layout:
    """What was understood of a folder.

    ``kind`` names the layout in a few words; ``classes`` where they are declared; ``unmatched`` files that
    lack their counterpart; ``notes``: sentences on what was decided or left out; ``extra_files``: tables and
    task files that the data set depends on.
    """

    kind: str
    root: Path
    pairs: list[FilePair]
    classes: tuple[str, ...] | None = None
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra_files: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """Return every file that the data set is made from."""
        # A set, since one file may hold the outlines of all images.
        own = {file for pair in self.pairs for file in (*pair.images, *pair.masks)}
        return sorted(own | set(self.extra_files))


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
    for void; ``pixels``: of all images together, where that is known before they are read; ``slices``:
    whether volumes are taken as slices across their last axis.
    """

    items: list[Item]
    read: Callable[[str], tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...] = ("background", "foreground")
    spacing: tuple[float, ...] | None = None
    unit: str = "px"
    notes: dict[str, Any] = field(default_factory=dict)
    pixels: int | None = None  # lets a full disk be noticed before anything is written
    slices: bool = False
    patterns: np.ndarray | None = None  # of several raters, whose codes are the masks; see ``Ratings``


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


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Return a number for each different name, in their order: the groups of a set."""
    return {name: number for number, name in enumerate(sorted(set(names)))}
