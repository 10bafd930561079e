"""Finding the pairs in what a user points at: images/ beside masks/, an nnU-Net or Decathlon task, a
MedSegBench file.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError
from lossbench.data.container import SPLITS
from lossbench.data.formats import SUFFIXES, stem_of, suffix_of
from lossbench.data.hashes import hashes, remembered_hash

IMAGE_FOLDERS = ("images", "imagesTr", "image", "imgs")

MASK_FOLDERS = ("masks", "labelsTr", "labels", "mask", "annotations")

MASK_ENDINGS = ("_mask", "_seg", "_label", "_gt", "-mask", "_segmentation")

# How the parts of a split are called in tables and folders.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Pair:
    """One image (its channels may be several files) and its mask, with what the user's tables say of it."""

    name: str
    images: tuple[Path, ...]
    mask: Path
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class Layout:
    """What was understood of a folder: its kind, its pairs, class names where declared, what was left
    over.
    """

    kind: str
    root: Path
    pairs: list[Pair]
    classes: tuple[str, ...] | None = None
    unmatched: list[str] = field(default_factory=list)
    extra_files: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """Return every file that the data set is made from."""
        own = {file for pair in self.pairs for file in (*pair.images, pair.mask)}
        return sorted(own | set(self.extra_files))


def find(path: str | Path, *, strict: bool = True) -> Layout:
    """Return the layout of a folder; with ``strict`` an unmatched file raises UserError, else it is
    listed.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{path}: there is no such folder or file")
    if root.is_file():
        if root.suffix.lower() == ".npz":
            return Layout("a MedSegBench file", root, [], extra_files=(root,))
        kinds = "a folder with images/ and masks/, a task folder with dataset.json, or a MedSegBench .npz"
        raise UserError(f"{path}: expected {kinds}")
    # A task file says more than folder names do, so it goes first.
    layout = _task(root) if (root / "dataset.json").is_file() else _plain(root)
    if strict and layout.unmatched:
        more = f" and {len(layout.unmatched) - 1} more" if len(layout.unmatched) > 1 else ""
        raise UserError(f"{root}: {layout.unmatched[0]}{more}; every image needs a mask of the same stem")
    if not layout.pairs:
        looked = f"files of one stem are looked for in images/ and masks/ ({', '.join(SUFFIXES)})"
        raise UserError(f"{root}: holds no pair of image and mask; {looked}")
    return layout


def content_hash(path: str) -> str:
    """Return 16 hexadecimal digits over names and contents of the files that the data set is made from."""
    root = Path(path).expanduser()

    def compute() -> str:
        files = find(path).files()
        # Names relative to the folder: the same data elsewhere is the same data.
        base = root if root.is_dir() else root.parent
        names = [file.relative_to(base).as_posix() for file in files]
        content = list(zip(names, hashes(files, root), strict=True))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    return remembered_hash(root, compute) if root.exists() else compute()


# --- a plain folder


def _plain(root: Path) -> Layout:
    """Match images and masks by their stem."""
    image_folder = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    mask_folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if image_folder is None or mask_folder is None:
        missing = "images" if image_folder is None else "masks"
        raise UserError(f"{root}: has no folder '{missing}'; expected images/ and masks/, or a dataset.json")
    # Only masks carry endings: an image called x_mask.png would be one of a mask.
    images, masks = _by_stem(image_folder), _by_stem(mask_folder, MASK_ENDINGS)
    pairs = [Pair(stem, (images[stem],), masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    unmatched = [f"'{_relative(images[s], root)}' has no mask" for s in sorted(images.keys() - masks.keys())]
    unmatched += [f"'{_relative(masks[s], root)}' has no image" for s in sorted(masks.keys() - images.keys())]
    kind = f"{image_folder.name}/ beside {mask_folder.name}/"
    return _with_tables(Layout(kind, root, pairs, unmatched=unmatched))


def _by_stem(folder: Path, endings: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the supported files below a folder by their relative stem; hidden ones are passed over."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        # macOS leaves files such as ._case01.png beside the real ones.
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if hidden or not file.is_file() or suffix_of(file) not in SUFFIXES:
            continue
        stem = (file.parent.relative_to(folder) / stem_of(file)).as_posix()
        stem = next((stem[: -len(ending)] for ending in endings if stem.endswith(ending)), stem)
        if stem in files:
            raise UserError(f"{folder}: '{files[stem].name}' and '{file.name}' have the same stem")
        files[stem] = file
    return files


# --- task folders with a dataset.json


def _task(root: Path) -> Layout:
    """Read a Decathlon task (it lists its pairs) or an nnU-Net task (channels as case_0000, case_0001,
    ...).
    """
    file = root / "dataset.json"
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(described, dict):
        raise UserError(f"{file}: must hold an object with 'labels'")
    classes = _class_names(described.get("labels"), file)
    listed = described.get("training")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        return _decathlon(root, file, listed, classes)
    return _nnunet(root, file, described, classes)


def _nnunet(root: Path, file: Path, described: dict[str, Any], classes) -> Layout:
    for folder in ("imagesTr", "labelsTr"):
        if not (root / folder).is_dir():
            raise UserError(f"{file}: lists no training pairs, and there is no folder '{folder}' beside it")
    channels = described.get("channel_names") or described.get("modality") or {"0": "image"}
    labels, images = _by_stem(root / "labelsTr"), _by_stem(root / "imagesTr")
    pairs, unmatched, used = [], [], set()
    for stem, mask in sorted(labels.items()):
        wanted = [f"{stem}_{int(key):04d}" for key in sorted(channels, key=int)]
        # Tasks of one channel are also seen without the number of the channel.
        wanted = wanted if wanted[0] in images else [stem]
        if any(name not in images for name in wanted):
            unmatched.append(f"'{_relative(mask, root)}' has no image for every channel")
            continue
        used.update(wanted)
        pairs.append(Pair(stem, tuple(images[name] for name in wanted), mask))
    unmatched += [f"'{_relative(images[s], root)}' has no mask" for s in sorted(images.keys() - used)]
    return _with_tables(Layout("an nnU-Net task", root, pairs, classes, unmatched, (file,)))


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
            pairs.append(Pair(stem_of(image), (image,), mask))
    pairs.sort(key=lambda pair: pair.name)
    return _with_tables(Layout("a Decathlon task", root, pairs, classes, unmatched, (file,)))


def _class_names(labels: Any, file: Path) -> tuple[str, ...] | None:
    """Return names by id from {"0": "background"} (Decathlon) or {"background": 0} (nnU-Net).

    Regions of several labels and gaps are refused.
    """
    if labels is None:
        return None
    try:
        by_id = all(str(key).isdigit() for key in labels)
        names = {int(key if by_id else value): str(value if by_id else key) for key, value in labels.items()}
    except (AttributeError, TypeError, ValueError):
        regions = "'labels' must map class ids to names; regions of several labels are not read"
        raise UserError(f"{file}: {regions}") from None
    # nnU-Net names the void label so; it is no class.
    names = {number: name for number, name in names.items() if name.lower() != "ignore"}
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        given = f"'labels' must name the ids 0, 1, 2, ... without gaps, it has {sorted(names)}"
        raise UserError(f"{file}: {given}")
    return tuple(names[number] for number in range(len(names)))


# --- the user's tables


def _with_tables(layout: Layout) -> Layout:
    """Return the layout with the groups of groups.csv and the parts of split.csv, where the folder has
    them.
    """
    names = {pair.name for pair in layout.pairs}
    groups = _read_table(layout.root / "groups.csv", "group", names)
    parts = _read_table(layout.root / "split.csv", "split", names)
    _check_parts(layout.root / "split.csv", parts)
    pairs = [
        replace(pair, group=groups.get(pair.name, ""), part=PARTS.get(parts.get(pair.name, "").lower(), ""))
        for pair in layout.pairs
    ]
    tables = [layout.root / name for name, rows in (("groups.csv", groups), ("split.csv", parts)) if rows]
    return replace(layout, pairs=pairs, extra_files=(*layout.extra_files, *tables))


def _check_parts(file: Path, parts: dict[str, str]) -> None:
    """Raise UserError for a part of another name, or a split without train or test images."""
    for name, part in parts.items():
        if part.lower() not in PARTS:
            raise UserError(f"{file}: '{name}' is in '{part}'; the parts are {_list(SPLITS)}")
    present = {PARTS[part.lower()] for part in parts.values()}
    # Validation may be missing: it is then dealt from the training groups.
    if parts and not {"train", "test"} <= present:
        raise UserError(f"{file}: has no images for {_list(sorted({'train', 'test'} - present))}")


def _read_table(file: Path, column: str, names: set[str]) -> dict[str, str]:
    """Return name to value from a CSV with the columns 'name' and ``column`` that names every pair.

    Names may carry a suffix. A folder without the file gives nothing.
    """
    if not file.is_file():
        return {}
    try:
        # Spreadsheets put a byte order mark in front, which would become part of the first column's name.
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if not rows or "name" not in rows[0] or column not in rows[0]:
        raise UserError(f"{file}: must have the columns 'name' and '{column}'")
    values: dict[str, str] = {}
    for row in rows:
        name, value = (row["name"] or "").strip(), (row[column] or "").strip()
        name = stem_of(Path(name)) if suffix_of(Path(name)) in SUFFIXES and "/" not in name else name
        if not name or not value:
            raise UserError(f"{file}: has a row without name or {column}")
        # A name that stands twice with one value does no harm.
        if values.setdefault(name, value) != value:
            raise UserError(f"{file}: names '{name}' twice, with different values")
    if values.keys() - names:
        raise UserError(f"{file}: names '{min(values.keys() - names)}', for which there is no pair")
    if names - values.keys():
        raise UserError(f"{file}: does not name '{min(names - values.keys())}'; it must name every pair")
    return values


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
