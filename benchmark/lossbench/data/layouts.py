"""Finding the pairs in what a user points at: the layouts that data come in, tried one after the other."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.data import outlines
from lossbench.data.cache import hashes, remembered_hash
from lossbench.data.formats import NAMED, PICTURES, is_colour, roles_in, stem_of, suffix_of
from lossbench.data.pairing import by_globs, by_names, short_names, supported
from lossbench.data.pairs import FilePair, Layout
from lossbench.data.tables import listed_pairs, with_tables
from lossbench.data.words import IMAGE_WORDS, MASK_WORDS, part_of, words_of

KINDS = "a folder with images and masks, a pairs.csv, a task folder with dataset.json, or a MedSegBench .npz"


def find(
    path: str | Path,
    images: str = "",
    masks: str = "",
    leave_out: tuple[str, ...] = (),
    *,
    strict: bool = True,
    raters: bool = False,
) -> Layout:
    """Return the layout of a folder, a pairs.csv or a MedSegBench file.

    ``images`` and ``masks`` are patterns below the folder, for one whose names tell nothing; ``leave_out``
    names pairs and files that are not to be used. With ``strict`` an unmatched file raises UserError, else it
    is listed. ``raters``: a folder in which each image has several masks, one a rater.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{path}: there is no such folder or file")
    if root.is_file() and root.suffix.lower() == ".npz":
        return Layout("a MedSegBench file", root, [], extra_files=(root,))
    if root.is_file() and root.suffix.lower() != ".csv":
        raise UserError(f"{path}: expected {KINDS}")
    found = by_names(root, raters=True) if raters else _found(root, images, masks)
    if found is None:
        raise UserError(f"{root}: holds no images with masks of several raters, as in images/ and masks_1/")
    layout = _parts_told(with_tables(_without(found, leave_out), found))
    if strict and layout.unmatched:
        more = f" and {len(layout.unmatched) - 1} more" if len(layout.unmatched) > 1 else ""
        name = layout.unmatched[0].split("'")[1]
        mend = f"every image needs a mask of the same stem, or leave_out=['{name}']"
        raise UserError(f"{root}: {layout.unmatched[0]}{more}; {mend}")
    if not layout.pairs:
        lonely = f": {layout.unmatched[0]}" if layout.unmatched else ""
        raise UserError(f"{root}: holds no pair of image and mask{lonely}; {_mend(root)}")
    return layout


def _found(root: Path, images: str, masks: str) -> Layout:
    if root.is_file():
        return listed_pairs(root)
    if images or masks:
        return by_globs(root, images, masks)
    if (root / "pairs.csv").is_file():
        return listed_pairs(root / "pairs.csv")
    for finder in FINDERS:
        layout = finder(root)
        if layout is not None:
            return layout
    raise UserError(f"{root}: holds no pair of image and mask; {_mend(root)}")


def _without(layout: Layout, names: tuple[str, ...]) -> Layout:
    """Return the layout without the pairs and the unmatched files of these names."""
    pairs = [pair for pair in layout.pairs if pair.name not in names]
    # The sentence begins with the file's name in quotes.
    lonely = {sentence.split("'")[1]: sentence for sentence in layout.unmatched}
    strange = next(
        (n for n in names if n not in lonely and n not in {pair.name for pair in layout.pairs}), None
    )
    if strange is not None:
        near = nearest(strange, [pair.name for pair in layout.pairs])
        raise UserError(f"{layout.root}: leave_out names '{strange}', for which there is no pair{near}")
    unmatched = [sentence for name, sentence in lonely.items() if name not in names]
    return replace(layout, pairs=pairs, unmatched=unmatched)


def _mend(root: Path) -> str:
    # What is there helps more than what is not.
    count = Counter(suffix_of(file) for file in supported(root)) if root.is_dir() else Counter()
    there = ", ".join(f"{number} {suffix}" for suffix, number in count.most_common(4))
    what = (
        f"it holds {there} files, and names do not tell masks from images" if there else "it holds no image"
    )
    return (
        f"{what}; say which by --images 'PATTERN' --masks 'PATTERN', or list them in pairs.csv (image,mask)"
    )


def _parts_told(layout: Layout) -> Layout:
    """Return the layout with parts that make a split: none, or train and test at least."""
    present = {pair.part for pair in layout.pairs} - {""}
    if {"train", "test"} <= present and all(pair.part for pair in layout.pairs):
        return layout
    parts, notes = {}, list(layout.notes)
    # What is called validation where there is no test is what results are reported on.
    if present == {"train", "val"} and all(pair.part for pair in layout.pairs):
        parts = {"train": "train", "val": "test"}
        notes.append("there is no test part: 'val' serves as test, and validation is dealt from train")
    elif len(present) > 1:
        notes.append(f"the parts {', '.join(sorted(present))} make no split; it is dealt anew")
    pairs = [replace(pair, part=parts.get(pair.part, "")) for pair in layout.pairs]
    return replace(layout, pairs=pairs, notes=notes)


def content_hash(
    path: str, images: str = "", masks: str = "", leave_out: tuple[str, ...] = (), raters: bool = False
) -> str:
    """Return 16 hexadecimal digits over names and contents of the files that the data set is made from."""
    root = Path(path).expanduser()

    def compute() -> str:
        files = find(path, images, masks, leave_out, raters=raters).files()
        # Names relative to the folder: the same data elsewhere is the same data.
        base = root if root.is_dir() else root.parent
        names = [file.relative_to(base).as_posix() if base in file.parents else file.name for file in files]
        content = list(zip(names, hashes(files, root), strict=True))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    # A table of pairs may name files anywhere, which no look at its folder covers.
    listed = root.suffix.lower() == ".csv" or (root / "pairs.csv").is_file()
    return (
        compute()
        if listed or not root.exists()
        else remembered_hash(root, compute, f"{images} {masks} {leave_out}{' raters' * raters}")
    )


# --- PASCAL VOC


def _voc(root: Path) -> Layout | None:
    """Return the pairs of JPEGImages/ and SegmentationClass/, with the split of ImageSets/Segmentation."""
    sides: dict[str, dict[str, Path]] = {"JPEGImages": {}, "SegmentationClass": {}}
    for file in supported(root, PICTURES):
        if file.parent.name in sides:
            sides[file.parent.name][stem_of(file)] = file
    images, masks = sides.values()
    stems = sorted(images.keys() & masks.keys())
    if not stems:
        return None
    lists, folder = {}, masks[stems[0]].parents[1] / "ImageSets" / "Segmentation"
    for part in ("train", "val", "test"):
        file = folder / f"{part}.txt"
        if file.is_file():
            lists |= dict.fromkeys(file.read_text(encoding="utf-8", errors="replace").split(), part)
    # Pictures without segmentation are usual: most are there for detection.
    left = len(images) - len(stems)
    notes = [f"{left} pictures without segmentation are left out"] if left else []
    pairs = [FilePair(stem, (images[stem],), (masks[stem],), part=lists.get(stem, "")) for stem in stems]
    alone = [
        f"'{_relative(masks[stem], root)}' has no image" for stem in sorted(masks.keys() - images.keys())
    ]
    return Layout("JPEGImages and SegmentationClass (VOC)", root, pairs, None, alone, notes)


# --- one folder an image, one mask file an object


def _objects(root: Path) -> Layout | None:
    """Return the pairs of folders that each hold one image and, in a folder of masks, one file an object."""
    cases: dict[Path, tuple[list[Path], list[Path]]] = {}
    for file in supported(root, PICTURES):
        words = set(words_of(file.parent.name))
        # The folder above 'images' and 'masks' is the case.
        case = cases.setdefault(file.parent.parent, ([], []))
        if words & MASK_WORDS:
            case[1].append(file)
        elif words & IMAGE_WORDS:
            case[0].append(file)
    whole = {case: files for case, files in cases.items() if len(files[0]) == 1 and case != root}
    # One image alone with one mask would be any small folder.
    if len(whole) < 2 or sum(len(masks) > 1 for _, masks in whole.values()) < len(whole) / 2:
        return None
    images = [images[0] for images, _ in whole.values()]
    # The case names the image; what the file in it is called is often the same everywhere.
    names = short_names([case / case.name for case in whole], root)
    parts = [part_of(case.relative_to(root).parts) for case in whole]
    pairs = [
        FilePair(name, (image,), tuple(masks), part=part)
        for name, image, part, (_, masks) in zip(names, images, parts, whole.values(), strict=True)
        if masks
    ]
    bare = len(whole) - len(pairs)
    notes = [f"{bare} images without any mask file are left out"] if bare else []
    return Layout("one folder an image, one mask file an object", root, pairs, notes=notes)


# --- files that hold both


def _both_in_one(root: Path) -> Layout | None:
    """Return a pair for each HDF5 or NPZ file that holds an image and a mask by name."""
    files = supported(root, NAMED)
    # One is enough to see: opening thousands takes long.
    if not files or roles_in(files[0]) != {"image", "mask"}:
        return None
    parts = [part_of(file.relative_to(root).parts[:-1]) for file in files]
    rows = zip(short_names(files, root), files, parts, strict=True)
    pairs = [FilePair(name, (file,), (file,), part=part) for name, file, part in rows]
    return Layout("image and mask by name in each file", root, pairs)


# --- task folders with a dataset.json


TASK_FOLDERS = ("imagesTr", "labelsTr")


def _task(root: Path) -> Layout | None:
    """Read a Decathlon task (it lists its pairs) or an nnU-Net task (channels as case_0000, case_0001,
    ...); None where dataset.json, if there is one, tells of something else.
    """
    file = root / "dataset.json"
    if not file.is_file():
        return None
    there = [name for name in TASK_FOLDERS if (root / name).is_dir()]
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if not there:
            return None
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(described, dict):
        if not there:
            return None
        raise UserError(f"{file}: must hold an object with 'labels'")
    listed = described.get("training")
    lists = isinstance(listed, list) and bool(listed) and isinstance(listed[0], dict)
    # Many tools call a file so; of a task it says what its labels and its channels are.
    is_task = "labels" in described and not described.keys().isdisjoint(("channel_names", "modality"))
    if not (there or lists or is_task):
        return None
    classes, void = _class_names(described.get("labels"), file)
    layout = (
        _decathlon(root, file, listed, classes) if lists else _nnunet(root, file, described, classes, there)
    )
    if void is None:
        return layout
    pairs = [replace(pair, void=void) for pair in layout.pairs]
    notes = [*layout.notes, f"the value {void}, which dataset.json calls 'ignore', is read as void (255)"]
    return replace(layout, pairs=pairs, notes=notes)


def _nnunet(root: Path, file: Path, described: dict[str, Any], classes, there: list[str]) -> Layout:
    lacking = next((name for name in TASK_FOLDERS if name not in there), None)
    if lacking:
        raise UserError(f"{file}: lists no training pairs, and there is no folder '{lacking}' beside it")
    channels = _channels(described, file)
    labels, images = ({stem_of(f): f for f in supported(root / name)} for name in TASK_FOLDERS[::-1])
    pairs, unmatched, used = [], [], set()
    for stem, mask in sorted(labels.items()):
        wanted = [f"{stem}_{channel:04d}" for channel in channels]
        here = [name for name in wanted if name in images]
        # The colours of a photograph may stand in one file.
        if len(wanted) > 1 and here == wanted[:1] and is_colour((images[here[0]],)):
            wanted = here
        # Tasks of one channel are also seen without the number of the channel.
        wanted = wanted if wanted[0] in images else [stem]
        if any(name not in images for name in wanted):
            unmatched.append(f"'{_relative(mask, root)}' has no image for every channel")
            continue
        used.update(wanted)
        pairs.append(FilePair(stem, tuple(images[name] for name in wanted), (mask,)))
    unmatched += [f"'{_relative(images[s], root)}' has no mask" for s in sorted(images.keys() - used)]
    return Layout("an nnU-Net task", root, pairs, classes, unmatched, [], (file,))


def _channels(described: dict[str, Any], file: Path) -> list[int]:
    """Return the numbers of the channels, in their order."""
    key = "channel_names" if described.get("channel_names") else "modality"
    named = described.get(key) or {"0": "image"}
    if isinstance(named, list):
        return list(range(len(named)))
    try:
        return sorted(map(int, dict(named)))
    except (TypeError, ValueError):
        given = f'\'{key}\' must number the channels, as in {{"0": "CT"}}, it is {named!r}'
        raise UserError(f"{file}: {given}") from None


def _decathlon(root: Path, file: Path, listed: list, classes) -> Layout:
    pairs, unmatched = [], []
    for entry in listed:
        try:
            image, mask = ((root / str(entry[key])) for key in ("image", "label"))
        except (KeyError, TypeError):
            raise UserError(f"{file}: a training entry has no 'image' or no 'label': {entry!r}") from None
        # Entries are relative paths from a file that anybody may have written.
        for path in (image, mask):
            if root.resolve() not in path.resolve().parents:
                raise UserError(f"{file}: '{path}' lies outside the task's folder")
        missing = next((path for path in (image, mask) if not path.is_file()), None)
        if missing is not None:
            unmatched.append(f"'{_relative(missing, root)}' is listed in dataset.json but missing")
        else:
            pairs.append(FilePair(stem_of(image), (image,), (mask,)))
    pairs.sort(key=lambda pair: pair.name)
    return Layout("a Decathlon task", root, pairs, classes, unmatched, [], (file,))


def _class_names(labels: Any, file: Path) -> tuple[tuple[str, ...] | None, int | None]:
    """Return names by id from {"0": "background"} (Decathlon) or {"background": 0} (nnU-Net), and the id of
    void.

    Regions of several labels and gaps are refused.
    """
    if labels is None:
        return None, None
    try:
        by_id = all(str(key).isdigit() for key in labels)
        names = {int(key if by_id else value): str(value if by_id else key) for key, value in labels.items()}
    except (AttributeError, TypeError, ValueError):
        regions = "'labels' must map class ids to names; regions of several labels are not read"
        raise UserError(f"{file}: {regions}") from None
    # nnU-Net names the void label so; it is no class.
    void = next((number for number, name in names.items() if name.lower() == "ignore"), None)
    names = {number: name for number, name in names.items() if number != void}
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        given = f"'labels' must name the ids 0, 1, 2, ... without gaps, it has {sorted(names)}"
        raise UserError(f"{file}: {given}")
    return tuple(names[number] for number in range(len(names))), void


# The more a layout says of itself, the earlier it is tried; each returns None where it is not there.
FINDERS: tuple[Callable[[Path], Layout | None], ...] = (
    _task,
    _voc,
    outlines.coco,
    outlines.labelme,
    outlines.yolo,
    _objects,
    _both_in_one,
    by_names,
)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
