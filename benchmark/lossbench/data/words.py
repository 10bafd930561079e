"""What the names of files and folders say: image or mask, and which part of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters

_IMAGE = (
    "image images img imgs im jpeg data raw rgb sat input inputs photo photos picture pictures orig original "
    "originals frame frames volume volumes scan scans"
)

IMAGE_WORDS = frozenset(_IMAGE.split())

_MASK = (
    "mask masks label labels lbl annotation annotations annot annots anno gt truth groundtruth seg segs "
    "segmentation segmentations target targets manual"
)

MASK_WORDS = frozenset(_MASK.split())

# These are of what a person marked; what is only called a mask may also be the field of view.
_DRAWN = "annotation annotations annot annots anno gt truth groundtruth manual"

DRAWN_WORDS = frozenset(_DRAWN.split())

# How the parts of a split are called in tables and folders.
PARTS = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "ts": "test",
}

# Upper-case runs, words, numbers: 'JPEGImages' is two words, 'GT' is one.
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# CamVid has the folders 'trainannot' and 'testannot'.
_GLUED = re.compile(
    f"({'|'.join(sorted(PARTS, key=len, reverse=True))})({'|'.join(MASK_WORDS | IMAGE_WORDS)})"
)

_SEPARATED = re.compile(r"[_\-. ]+")


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: 'TrainingSet' and 'trainannot' are two each."""
    words: list[str] = []
    for piece in _PIECES.findall(name):
        glued = _GLUED.fullmatch(piece.lower())
        words += glued.groups() if glued else [piece.lower()]
    return words


def role_of(folders: tuple[str, ...]) -> str:
    """Return 'mask' or 'image' as the innermost folder says that says either, else ''."""
    for folder in reversed(folders):
        words = set(words_of(folder))
        # A folder called "image_masks" holds masks.
        if words & MASK_WORDS:
            return "mask"
        if words & IMAGE_WORDS:
            return "image"
    return ""


def part_of(folders: tuple[str, ...]) -> str:
    """Return the part of a split that the innermost folder names, else ''."""
    for folder in reversed(folders):
        named = [PARTS[word] for word in words_of(folder) if word in PARTS]
        if named:
            return named[-1]
    return ""


def place_of(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders without the words for image and mask, so that both sides of a pair agree."""
    # 'ground' is a word for masks only beside 'truth'.
    roles = IMAGE_WORDS | MASK_WORDS | {"ground"}
    places = ("".join(word for word in words_of(folder) if word not in roles) for folder in folders)
    return tuple(place for place in places if place)


def plain_stem(stem: str) -> str:
    """Return a stem without words for image or mask at either end: '001_image', 'mask-001' give '001'."""
    pieces = _SEPARATED.split(stem)
    # Nothing may be left, as of 'case1/image.png' and 'case1/mask.png'.
    while pieces and _is_role(pieces[-1]):
        stem, pieces = stem[: -len(pieces[-1])].rstrip("_-. "), pieces[:-1]
    while pieces and _is_role(pieces[0]):
        stem, pieces = stem[len(pieces[0]) :].lstrip("_-. "), pieces[1:]
    return stem


def names_mask(stem: str) -> bool:
    """Return whether the first or last word of a stem says that the file is a mask."""
    pieces = _SEPARATED.split(stem)
    return any(_word(piece) in MASK_WORDS for piece in (pieces[0], pieces[-1]))


def _is_role(piece: str) -> bool:
    return _word(piece) in IMAGE_WORDS | MASK_WORDS


def _word(piece: str) -> str:
    # DRIVE numbers its observers: 'manual1'.
    return piece.lower().rstrip("0123456789")


def pattern_of(files: list[Path], root: Path) -> str:
    """Return what the paths of files have in common, as in 'masks/*_mask.png'."""
    relative = [file.relative_to(root) for file in files]
    name = _common([path.name for path in relative])
    # Folders of unequal depth have no levels to compare.
    if len({len(path.parts) for path in relative}) > 1:
        return f"**/{name}"
    levels = zip(*(path.parts[:-1] for path in relative), strict=True)
    folders = [_common(names) for names in levels]
    return "/".join([*folders, name])


def _common(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    start = shared_start(names).rstrip("0123456789")
    # A word that goes on in some of them says nothing: 't' of 'train' and 'test'.
    if any(name[len(start) : len(start) + 1].isalpha() for name in names):
        start = start.rstrip(ascii_letters)
    end = shared_start([name[len(start) :][::-1] for name in names])[::-1].lstrip("0123456789")
    return f"{start}*{end}"


def shared_start(names: Sequence[str]) -> str:
    """Return the longest beginning that all names share."""
    # What the first and the last in alphabetical order share, all share.
    low, high = min(names), max(names)
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    return low[:same]
