"""Which file is an image, which its mask: told apart by folders, names or contents, matched by names."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from lossbench.base.errors import UserError, nearest
from lossbench.data.formats import SUFFIXES, read_any, roles_in, stem_of, suffix_of
from lossbench.data.pairs import FilePair, Layout
from lossbench.data.words import (
    DRAWN_WORDS,
    names_mask,
    part_of,
    pattern_of,
    place_of,
    plain_stem,
    role_of,
    shared_start,
    words_of,
)

Keys = dict[Path, tuple]  # a file to what it shares with its counterpart


def supported(root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Return the files below a folder that end so, sorted; hidden ones are left out, links are followed."""
    files, seen = [], set()
    for place, folders, names in os.walk(root, followlinks=True):
        # macOS leaves files such as ._case01.png beside the real ones, and a whole folder in its archives.
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        # A link to a folder above would be walked for ever.
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        paths = (Path(place, name) for name in names if not name.startswith("."))
        files += [path for path in paths if suffix_of(path) in suffixes and path.is_file()]
    return sorted(files)


def by_globs(root: Path, images: str, masks: str) -> Layout:
    """Return the pairs of the files that two patterns below a folder name."""
    if not images or not masks:
        raise UserError("'images' and 'masks' go together: a pattern for each, such as 'pics/*.jpg'")
    every = supported(root)
    chosen = []
    for what, pattern in (("images", images), ("masks", masks)):
        names = {file.relative_to(root).as_posix(): file for file in every}
        # Paths as they are typed, with '/' on every system.
        chosen.append([file for name, file in names.items() if fnmatchcase(name, pattern)])
        if not chosen[-1]:
            raise UserError(
                f"{root}: no file that is read matches {what}='{pattern}'{nearest(pattern, names)}"
            )
    # One pattern may hold the other, as '*.png' holds '*_mask.png'.
    return _layout(root, [file for file in chosen[0] if file not in set(chosen[1])], chosen[1])


def by_names(root: Path, raters: bool = False) -> Layout | None:
    """Return the pairs below a folder as folders and names tell them apart; None where nothing does.

    ``raters``: all masks of an image, one file a rater.
    """
    files = supported(root)
    # Folders say most; what files look alike in says least, so it is tried last.
    sides = _by_folders(files, root)
    if sides:
        return _of_drawn(root, *sides, raters) or _layout(root, *sides, raters)
    sides = _by_endings(files) or _by_types(files) or _by_beginnings(files, root)
    return _layout(root, *sides, raters) if sides else None


# --- which side a file is on


def _by_folders(files: list[Path], root: Path) -> tuple[list[Path], list[Path]] | None:
    roles: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        roles[role_of(file.relative_to(root).parts[:-1])].append(file)
    # Other folders hold images only where none says that it does, as in CamVid's train and trainannot.
    images = roles["image"] or roles[""]
    return (images, roles["mask"]) if images and roles["mask"] else None


def _of_drawn(root: Path, images: list[Path], masks: list[Path], raters: bool) -> Layout | None:
    """Return the pairs with the masks that a person drew, where others lie beside them and these suffice.

    DRIVE has both 1st_manual/ and mask/, which is the field of view.
    """
    drawn, others = [], []
    for file in masks:
        folders = file.relative_to(root).parts[:-1]
        named = any(set(words_of(folder)) & DRAWN_WORDS for folder in folders)
        (drawn if named else others).append(file)
    if not drawn or not others:
        return None
    try:
        layout = _layout(root, images, drawn, raters)
    except UserError:
        return None  # masks/ and manual/ may be two raters
    if not layout.pairs or layout.unmatched:
        return None
    taken = f"{pattern_of(drawn, root)} is taken and {pattern_of(others, root)} is left out"
    note = f"there are two kinds of masks: {taken}; --images with --masks chooses the other"
    return replace(layout, notes=[*layout.notes, note])


def _by_endings(files: list[Path]) -> tuple[list[Path], list[Path]] | None:
    masks = [file for file in files if names_mask(stem_of(file))]
    images = [file for file in files if not names_mask(stem_of(file))]
    return (images, masks) if images and masks else None


def _by_types(files: list[Path]) -> tuple[list[Path], list[Path]] | None:
    """Return the sides of files that share their stem: 001.jpg and 001.png."""
    same: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        same[file.parent / stem_of(file)].append(file)
    twos = [pair for pair in same.values() if len({suffix_of(file) for file in pair}) == 2 == len(pair)]
    kinds = Counter(tuple(sorted(suffix_of(file) for file in pair)) for pair in twos)
    # A stray second file is no layout.
    if not twos or 2 * len(twos) < len(same):
        return None
    (one, other), _ = kinds.most_common(1)[0]
    by_kind = {
        kind: [file for pair in twos for file in pair if suffix_of(file) == kind] for kind in (one, other)
    }
    # A photograph holds many values, a mask few.
    mask = min((one, other), key=lambda kind: _distinct(by_kind[kind][:3]))
    image = other if mask == one else one
    # One folder may hold both .jpg and .jpeg; what stands beside a known kind is of the other side.
    images = {image, *(kind for pair in kinds for kind in pair if mask in pair and kind != mask)}
    masks = {mask, *(kind for pair in kinds for kind in pair if image in pair and kind not in images)}
    sides = ([file for file in files if suffix_of(file) in kind] for kind in (images, masks))
    return tuple(sides)


def _distinct(files: list[Path]) -> int:
    """Return how many values or colours a file holds at most: a mask holds few."""
    counts = []
    for file in files:
        # A file of named arrays that holds a mask and no image says so itself.
        if suffix_of(file) == ".mat" and roles_in(file) == {"mask"}:
            return 0
        array = np.asarray(read_any(file)[0])
        colours = array.ndim == 3 and array.shape[-1] in (3, 4)
        counts.append(
            len(
                np.unique(
                    array.reshape(-1, array.shape[-1]) if colours else array, axis=0 if colours else None
                )
            )
        )
    return max(counts)


def _by_beginnings(files: list[Path], root: Path) -> tuple[list[Path], list[Path]] | None:
    """Return the sides of files whose stem goes on where another ends: 'a.jpg' and 'a_1stHO.png'."""
    stems = {(file.parent, stem_of(file)) for file in files}
    masks = [
        file
        for file in files
        if _beginning(stem_of(file), lambda stem, file=file: (file.parent, stem) in stems)
    ]
    images = [file for file in files if file not in set(masks)]
    # More images than masks would be a series of names, not pairs.
    return (images, masks) if masks and len(images) <= len(masks) else None


def _beginning(stem: str, known: Callable[[str], bool]) -> str:
    """Return the longest known beginning that ends before a separator and a word: '1' is none of '1_2'."""
    for length in range(len(stem) - 1, 0, -1):
        ending = stem[length:]
        if not ending[0].isalnum() and any(c.isalpha() for c in ending) and known(stem[:length]):
            return stem[:length]
    return ""


# --- which image belongs to which mask


def _layout(root: Path, images: list[Path], masks: list[Path], raters: bool = False) -> Layout:
    keys = max(_all_keys(root, images, masks), key=lambda keys: _matches(keys, images, masks))
    by_key: tuple[dict, dict] = ({}, {})
    for side, files in zip(by_key, (images, masks), strict=True):
        for file in files:
            side.setdefault(keys[file], []).append(file)
    for file, other, *_ in (files for files in by_key[0].values() if len(files) > 1):
        raise UserError(f"{file.parent}: '{file.name}' and '{other.name}' have the same stem")
    image_of = {key: files[0] for key, files in by_key[0].items()}
    every, notes = (_every_rater(by_key[1], root), []) if raters else _one_each(by_key[1], root)
    mask_of = {key: files[0] for key, files in every.items()}
    both = sorted(image_of.keys() & mask_of.keys(), key=lambda key: image_of[key])
    chosen = [image_of[key] for key in both], [mask_of[key] for key in both]
    lonely = ([image_of[key] for key in image_of.keys() - mask_of.keys()], "mask", chosen[0])
    widowed = ([mask_of[key] for key in mask_of.keys() - image_of.keys()], "image", chosen[1])
    unmatched: list[str] = []
    for files, lacking, used in (lonely, widowed):
        unmatched += _unmatched(files, lacking, {file.parent for file in used}, root, notes)
    if not both:
        return Layout("", root, [], unmatched=unmatched)
    kind = f"pairs by {pattern_of(chosen[0], root)} and {pattern_of(chosen[1], root)}"
    names = short_names(chosen[0], root)
    parts = [part_of(file.relative_to(root).parts[:-1]) for file in chosen[0]]
    pairs = [
        FilePair(name, (image_of[key],), every[key], part=part)
        for name, key, part in zip(names, both, parts, strict=True)
    ]
    return Layout(kind, root, pairs, unmatched=unmatched, notes=notes)


def _all_keys(root: Path, images: list[Path], masks: list[Path]) -> Iterable[Keys]:
    """Yield the ways to match files, the strictest first."""
    files = [*images, *masks]
    # Names may be the same in train and in test.
    places = {file: place_of(file.relative_to(root).parts[:-1]) for file in files}
    stems = {file: stem_of(file) for file in files}
    plain = {file: plain_stem(stem) for file, stem in stems.items()}
    bare = {**_bare(images, stems), **_bare(masks, stems)}
    # For masks such as 'Misc_1_pixels0', which go on where the image's name ends.
    known = {stems[file] for file in images}
    begun = {file: stems[file] for file in images}
    begun |= {file: _beginning(stems[file], known.__contains__) or stems[file] for file in masks}
    ways = (stems, plain, bare, begun)
    for way in ways:
        yield {file: (places[file], way[file]) for file in files}
    for way in ways:
        yield {file: ((), way[file]) for file in files}
    # Each folder may have an ending of its own: '21_training' and '01_test', '21_manual1' and '01_manual1'.
    own: dict[Path, str] = {}
    for side in (images, masks):
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for file in side:
            by_folder[file.parent].append(file)
        for group in by_folder.values():
            own |= _bare(group, stems)
    parts = {file: (part_of(file.relative_to(root).parts[:-1]),) for file in files}
    yield {file: (parts[file], own[file]) for file in files}
    yield {file: ((), own[file]) for file in files}


def _bare(files: list[Path], stems: dict[Path, str]) -> dict[Path, str]:
    """Return stems without what all of one side share: 'labels00000007' and '07' both become 7."""
    start = shared_start([stems[file] for file in files]).rstrip("0123456789") if len(files) > 1 else ""
    rest = {file: stems[file][len(start) :] for file in files}
    end = (
        shared_start([stem[::-1] for stem in rest.values()])[::-1].lstrip("0123456789")
        if len(files) > 1
        else ""
    )
    cut = {file: stem.removesuffix(end) for file, stem in rest.items()}
    # Tools differ in leading zeros.
    return {file: str(int(stem)) if stem.isdecimal() else stem for file, stem in cut.items()}


def _matches(keys: Keys, images: list[Path], masks: list[Path]) -> int:
    """Return how many images have a mask; several images of one key count for nothing."""
    counts = Counter(keys[file] for file in images)
    there = {keys[file] for file in masks}
    return sum(count == 1 and key in there for key, count in counts.items())


def _every_rater(masks: dict[tuple, list[Path]], root: Path) -> dict[tuple, tuple[Path, ...]]:
    """Return the masks of each key, one a rater, in the same order for all."""
    kinds = {key: {_kind(file, key): file for file in files} for key, files in masks.items()}
    names = sorted(set().union(*kinds.values()))
    if len(names) < 2:
        raise UserError(f"{root}: holds one mask of each image, so it is folder(path=...), not raters(...)")
    for own in kinds.values():
        rater = next((name for name in names if name not in own), None)
        if rater:
            there = next(iter(own.values())).relative_to(root)
            other = next(each[rater] for each in kinds.values() if rater in each).relative_to(root)
            raise UserError(f"{root}: beside '{there}' there is no mask of the rater of '{other}'")
    return {key: tuple(own[name] for name in names) for key, own in kinds.items()}


def _one_each(masks: dict[tuple, list[Path]], root: Path) -> tuple[dict[tuple, tuple[Path]], list[str]]:
    """Return one mask for each key, of one kind where there are several kinds, and what was left out."""
    several = [files for files in masks.values() if len(files) > 1]
    if not several:
        return {key: (files[0],) for key, files in masks.items()}, []
    # The first kind that every image has, such as the first of two observers.
    kinds = {key: {_kind(file, key): file for file in files} for key, files in masks.items()}
    shared = sorted(set.intersection(*(set(each) for each in kinds.values())))
    if not shared:
        one, other = several[0][:2]
        names = f"'{one.relative_to(root)}' and '{other.relative_to(root)}'"
        raise UserError(f"{root}: two masks for one image, {names}; name those to take by masks='PATTERN'")
    chosen = {key: (each[shared[0]],) for key, each in kinds.items()}
    left = [file for key, files in masks.items() for file in files if file not in chosen[key]]
    note = f"{len(several)} images have several masks: {pattern_of(left, root)} is left out"
    return chosen, [f"{note}, --masks chooses; the data set raters(path=...) takes all"]


def _kind(file: Path, key: tuple) -> tuple[str, ...]:
    """Return what is left of a mask's name without its key, which may lack leading zeros."""
    return re.sub(f"0*{re.escape(key[1])}", "*", stem_of(file), count=1), suffix_of(file), file.parent.name


def _unmatched(files: list[Path], lacking: str, used: set[Path], root: Path, notes: list[str]) -> list[str]:
    """Return a sentence for each file without counterpart; folders without any pair become one note each."""
    elsewhere = Counter(file.parent for file in files if used and file.parent not in used)
    for folder, count in sorted(elsewhere.items()):
        left = f"{count} files without {lacking} in {folder.relative_to(root).as_posix()}/ are left out"
        notes.append(left)
    rest = sorted(file for file in files if file.parent not in elsewhere)
    return [f"'{file.relative_to(root).as_posix()}' has no {lacking}" for file in rest]


def short_names(files: list[Path], root: Path) -> list[str]:
    """Return a name for each image: its stem, after the folders that tell images apart."""
    relative = [file.relative_to(root) for file in files]
    levels = list(zip(*(path.parts[:-1] for path in relative), strict=False))
    # Folders that all share say nothing; nor do those whose name is 'images'.
    shared = next((n for n, names in enumerate(levels) if len(set(names)) > 1), len(levels))
    names = []
    for path in relative:
        folders = [folder for folder in path.parts[shared:-1] if place_of((folder,))]
        names.append("/".join([*folders, stem_of(path)]))
    if len(set(names)) == len(names):
        return names
    return [path.with_name(stem_of(path)).as_posix() for path in relative]
