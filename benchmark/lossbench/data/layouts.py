"""Finding the pairs in what a user points at: images/ beside masks/, an nnU-Net or Decathlon task, or a
MedSegBench file.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.data.formats import SUFFIXES, stem_of, suffix_of
from lossbench.data.hashes import hashes, remembered_hash

IMAGE_FOLDERS = ("images", "imagesTr", "image", "imgs")

MASK_FOLDERS = ("masks", "labelsTr", "labels", "mask", "annotations")

MASK_ENDINGS = ("_mask", "_seg", "_label", "_gt", "-mask", "_segmentation")

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
    """One image (its channels may be several files) and its mask, with what the user's tables say about
    it.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path
    group: str = ""
    part: str = ""


@dataclass(frozen=True)
class Layout:
    """What was understood of a folder: its kind, the pairs, the class names where they are declared, and what
    could not be used.
    """

    kind: str
    root: Path
    pairs: list[Pair]
    classes: tuple[str, ...] | None = None
    unmatched: list[str] = field(default_factory=list)
    extra_files: tuple[Path, ...] = ()

    def files(self) -> list[Path]:
        """Return every file that the data set is made from."""
        return sorted(
            {file for pair in self.pairs for file in (*pair.images, pair.mask)} | set(self.extra_files)
        )


def find(path: str | Path, *, strict: bool = True) -> Layout:
    """Return the layout of a folder; with ``strict`` an unmatched file raises UserError, else it is listed as
    unmatched.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{path}: there is no such folder or file")
    if root.is_file():
        if root.suffix.lower() == ".npz":
            return Layout("a MedSegBench file", root, [], extra_files=(root,))
        raise UserError(
            f"{path}: expected a folder with images/ and masks/, a task folder with dataset.json, or "
            "a MedSegBench .npz"
        )
    layout = _task(root) if (root / "dataset.json").is_file() else _plain(root)
    if strict and layout.unmatched:
        more = f" and {len(layout.unmatched) - 1} more" if len(layout.unmatched) > 1 else ""
        raise UserError(f"{root}: {layout.unmatched[0]}{more}; every image needs a mask of the same stem")
    if not layout.pairs:
        raise UserError(
            f"{root}: holds no pair of image and mask; files of one stem are looked for in images/ "
            f"and masks/ ({', '.join(SUFFIXES)})"
        )
    return layout


def _plain(root: Path) -> Layout:
    image_folder = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    mask_folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if image_folder is None or mask_folder is None:
        lacking = "images" if image_folder is None else "masks"
        raise UserError(f"{root}: has no folder '{lacking}'; expected images/ and masks/, or a dataset.json")
    images, masks = _by_stem(image_folder), _by_stem(mask_folder, MASK_ENDINGS)
    pairs = [Pair(stem, (images[stem],), masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    unmatched = [f"'{_relative(images[s], root)}' has no mask" for s in sorted(images.keys() - masks.keys())]
    unmatched += [f"'{_relative(masks[s], root)}' has no image" for s in sorted(masks.keys() - images.keys())]
    kind = f"{image_folder.name}/ beside {mask_folder.name}/"
    return _with_tables(Layout(kind, root, pairs, unmatched=unmatched))


def _by_stem(folder: Path, endings: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the supported files below a folder by their relative stem; hidden files (such as macOS's ._*)
    are passed over.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if (
            any(part.startswith(".") for part in file.relative_to(folder).parts)
            or not file.is_file()
            or suffix_of(file) not in SUFFIXES
        ):
            continue
        stem = (file.parent.relative_to(folder) / stem_of(file)).as_posix()
        stem = next((stem[: -len(ending)] for ending in endings if stem.endswith(ending)), stem)
        if stem in found:
            raise UserError(f"{folder}: '{found[stem].name}' and '{file.name}' have the same stem")
        found[stem] = file
    return found


def _task(root: Path) -> Layout:
    """Read a Decathlon task (its list of training pairs) or an nnU-Net task (channels as case_0000,
    case_0001, ...).
    """
    file = root / "dataset.json"
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(described, dict):
        raise UserError(f"{file}: must hold an object with 'labels'")
    classes = _class_names(described.get("labels"), file)
    listed = described.get("training")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        return _decathlon(root, file, listed, classes)
    images, masks = (root / name for name in ("imagesTr", "labelsTr"))
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(
                f"{file}: lists no training pairs, and there is no folder '{folder.name}' beside it"
            )
    channels = described.get("channel_names") or described.get("modality") or {"0": "image"}
    labels = _by_stem(masks)
    found = _by_stem(images)
    pairs, unmatched, used = [], [], set()
    for stem, mask in sorted(labels.items()):
        wanted = [f"{stem}_{int(key):04d}" for key in sorted(channels, key=int)]
        wanted = wanted if wanted[0] in found else [stem]
        if any(name not in found for name in wanted):
            unmatched.append(f"'{_relative(mask, root)}' has no image for every channel")
            continue
        used.update(wanted)
        pairs.append(Pair(stem, tuple(found[name] for name in wanted), mask))
    unmatched += [f"'{_relative(found[s], root)}' has no mask" for s in sorted(found.keys() - used)]
    return _with_tables(Layout("an nnU-Net task", root, pairs, classes, unmatched, (file,)))


def _decathlon(root: Path, file: Path, listed: list, classes) -> Layout:
    pairs, unmatched = [], []
    for entry in listed:
        try:
            image, mask = ((root / str(entry[key])) for key in ("image", "label"))
        except (KeyError, TypeError):
            raise UserError(f"{file}: a training entry lacks 'image' or 'label': {entry!r}") from None
        for path in (image, mask):
            if root.resolve() not in path.resolve().parents:
                raise UserError(f"{file}: '{path}' lies outside the task's folder")
        lacking = next((path for path in (image, mask) if not path.is_file()), None)
        if lacking is not None:
            unmatched.append(f"'{_relative(lacking, root)}' is listed in dataset.json but missing")
        else:
            pairs.append(Pair(stem_of(image), (image,), mask))
    return _with_tables(
        Layout("a Decathlon task", root, sorted(pairs, key=lambda p: p.name), classes, unmatched, (file,))
    )


def _class_names(labels, file: Path) -> tuple[str, ...] | None:
    """Return names by id from {"0": "background"} (Decathlon) or {"background": 0} (nnU-Net); regions and
    gaps are refused.
    """
    if labels is None:
        return None
    try:
        pairs = (
            {int(k): str(v) for k, v in labels.items()}
            if all(str(k).isdigit() for k in labels)
            else {int(v): str(k) for k, v in labels.items()}
        )
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{file}: 'labels' must map class ids to names; regions of several labels are not read"
        ) from None
    pairs = {number: name for number, name in pairs.items() if name.lower() != "ignore"}
    if sorted(pairs) != list(range(len(pairs))) or len(pairs) < 2:
        raise UserError(
            f"{file}: 'labels' must name the ids 0, 1, 2, ... without gaps, it has {sorted(pairs)}"
        )
    return tuple(pairs[number] for number in range(len(pairs)))


def _with_tables(layout: Layout) -> Layout:
    """Return the layout with the groups of groups.csv and the parts of split.csv, where the folder holds
    them.
    """
    groups, parts, extra = {}, {}, list(layout.extra_files)
    for name, column, table in (("groups.csv", "group", groups), ("split.csv", "split", parts)):
        file = layout.root / name
        if file.is_file():
            table.update(_read_table(file, column))
            extra.append(file)
            known = {pair.name for pair in layout.pairs}
            strange = sorted(table.keys() - known)
            if strange:
                raise UserError(f"{file}: names '{strange[0]}', for which there is no pair")
            lacking = sorted(known - table.keys())
            if lacking:
                raise UserError(f"{file}: does not name '{lacking[0]}'; it must name every pair")
    for name, part in parts.items():
        if part.lower() not in PARTS:
            raise UserError(
                f"{layout.root / 'split.csv'}: '{name}' is in '{part}'; the parts are train, val and test"
            )
    if parts:
        present = {PARTS[part.lower()] for part in parts.values()}
        if present != {"train", "val", "test"}:
            raise UserError(
                f"{layout.root / 'split.csv'}: has no images for "
                f"{', '.join(sorted({'train', 'val', 'test'} - present))}"
            )
    pairs = [
        Pair(p.name, p.images, p.mask, groups.get(p.name, ""), PARTS[parts[p.name].lower()] if parts else "")
        for p in layout.pairs
    ]
    return Layout(layout.kind, layout.root, pairs, layout.classes, layout.unmatched, tuple(extra))


def _read_table(file: Path, column: str) -> dict[str, str]:
    """Return name to value from a CSV with a header 'name,<column>'; names may carry a suffix."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if not rows or "name" not in rows[0] or column not in rows[0]:
        raise UserError(f"{file}: must have the columns 'name' and '{column}'")
    found = {}
    for row in rows:
        name, value = (row["name"] or "").strip(), (row[column] or "").strip()
        name = stem_of(Path(name)) if suffix_of(Path(name)) in SUFFIXES and "/" not in name else name
        if not name or not value:
            raise UserError(f"{file}: has a row without name or {column}")
        if found.setdefault(name, value) != value:
            raise UserError(f"{file}: names '{name}' twice, with different values")
    return found


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)


def content_hash(path: str) -> str:
    """Return 16 hexadecimal digits over names and contents of the files that the folder's data set is made
    from.
    """
    root = Path(path).expanduser()

    def compute() -> str:
        layout = find(path)
        base = root if root.is_dir() else root.parent
        names = [file.relative_to(base).as_posix() for file in layout.files()]
        marks = hashes(layout.files(), root)
        return hashlib.sha256(json.dumps(list(zip(names, marks, strict=True))).encode()).hexdigest()[:16]

    return remembered_hash(root, compute) if root.exists() else compute()
