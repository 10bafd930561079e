"""The user's own tables beside the images: pairs.csv, groups.csv, split.csv."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lossbench.base.errors import UserError, nearest
from lossbench.base.files import write_atomically
from lossbench.data.container import SPLITS
from lossbench.data.formats import stem_of
from lossbench.data.pairing import short_names
from lossbench.data.pairs import FilePair, Layout
from lossbench.data.words import PARTS

# What a column may be called as well.
COLUMNS = {
    "name": ("name", "path", "image", "file", "filename", "id"),
    "image": ("image", "images", "image_path", "img", "path"),
    "mask": ("mask", "masks", "mask_path", "label", "labels", "label_path", "annotation"),
    "group": ("group", "groups", "patient", "case"),
    "split": ("split", "part", "set", "fold"),
}


def listed_pairs(file: Path) -> Layout:
    """Return the pairs of a table with the columns image and mask, and group and split where it has them.

    Paths are taken from the folder of the table.
    """
    header, rows = _rows(file)
    # The first that is there counts: 'path' is an image unless there is a column 'image'.
    columns = {what: _column(header, what, file) for what in ("image", "mask")}
    optional = {what: name for what in ("group", "split") if (name := _found(header, what))}
    paths: dict[str, list[Path]] = {what: [] for what in columns}
    for number, row in enumerate(rows, 2):
        for what, column in columns.items():
            # An absolute path stays as it is.
            path = file.parent / (row[column] or "").strip()
            if not path.is_file():
                raise UserError(f"{file}, line {number}: there is no {what} '{row[column]}'")
            paths[what].append(path)
    names = short_names([_within(path, file.parent) for path in paths["image"]], file.parent)
    # Groups and parts are given by name.
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice:
        raise UserError(f"{file}: lists the image '{twice}' twice")
    told = {what: [(row[column] or "").strip() for row in rows] for what, column in optional.items()}
    parts = dict(zip(names, told.get("split", []), strict=False))
    _check_parts(file, parts)
    pairs = [
        FilePair(name, (image,), (mask,), group, PARTS.get(parts.get(name, "").lower(), ""))
        for name, image, mask, group in zip(
            names, paths["image"], paths["mask"], told.get("group", [""] * len(rows)), strict=True
        )
    ]
    return Layout(f"pairs as listed in {file.name}", file.parent, pairs, extra_files=(file,))


def _within(path: Path, folder: Path) -> Path:
    """Return a path below a folder for one that may lie elsewhere; only its name is used."""
    if folder in path.parents:
        return path
    # An absolute path in a table of a relative one; then, one of both through a link.
    for whole in (os.path.abspath, os.path.realpath):
        own, above = Path(whole(path)), Path(whole(folder))
        if above in own.parents:
            return folder / own.relative_to(above)
    return folder / path.name


def with_tables(layout: Layout, every: Layout) -> Layout:
    """Return the layout with the groups of groups.csv and the parts of split.csv, where they are there.

    ``every``: the same with the pairs that are left out, which tables may name and need not.
    """
    known = _aliases(every)
    groups = _read(layout.root / "groups.csv", "group", known, layout)
    parts = _read(layout.root / "split.csv", "split", known, layout)
    _check_parts(layout.root / "split.csv", parts)
    pairs = [
        replace(
            pair,
            group=groups.get(pair.name, pair.group),
            part=PARTS[parts[pair.name].lower()] if parts else pair.part,
        )
        for pair in layout.pairs
    ]
    tables = [layout.root / name for name, rows in (("groups.csv", groups), ("split.csv", parts)) if rows]
    return replace(layout, pairs=pairs, extra_files=(*layout.extra_files, *tables))


def _aliases(layout: Layout) -> dict[str, str]:
    """Return what a pair may be called in a table (path, file name, stem) and its name, where clear."""
    named: dict[str, set[str]] = {}
    for pair in layout.pairs:
        image = pair.images[0]
        path = image.relative_to(layout.root) if layout.root in image.parents else Path(image.name)
        plain = path.with_name(stem_of(path))
        # A path with and without suffix, a file name, a stem: as tools write them.
        for alias in (pair.name, path.as_posix(), plain.as_posix(), path.name, plain.name):
            named.setdefault(alias, set()).add(pair.name)
    own = {pair.name for pair in layout.pairs}
    return {alias: min(names) for alias, names in named.items() if len(names) == 1} | {
        name: name for name in own
    }


def _check_parts(file: Path, parts: dict[str, str]) -> None:
    """Raise UserError for a part of another name, or a split without train or test images."""
    for name, part in parts.items():
        if part.lower() not in PARTS:
            raise UserError(f"{file}: '{name}' is in '{part}'; the parts are {', '.join(SPLITS)}")
    present = {PARTS[part.lower()] for part in parts.values()}
    # Validation may be missing: it is then dealt from the training groups.
    if parts and not {"train", "test"} <= present:
        missing = ", ".join(sorted({"train", "test"} - present))
        raise UserError(f"{file}: has no images for {missing}")


def _read(file: Path, what: str, known: dict[str, str], layout: Layout) -> dict[str, str]:
    """Return pair to value from a CSV that names every pair; a folder without the file gives nothing."""
    if not file.is_file():
        return {}
    header, rows = _rows(file)
    by, column = _found(header, "name"), _found(header, what)
    if not by or not column:
        raise UserError(f"{file}: must have the columns 'name' and '{what}'")
    values: dict[str, str] = {}
    for row in rows:
        name, value = (row[by] or "").strip(), (row[column] or "").strip()
        if not name or not value:
            raise UserError(f"{file}: has a row without name or {what}")
        if name not in known:
            raise UserError(f"{file}: names '{name}', for which there is no pair{nearest(name, known)}")
        # A name that stands twice with one value does no harm.
        if values.setdefault(known[name], value) != value:
            raise UserError(f"{file}: names '{name}' twice, with different values")
    # One without a group would be dealt alone, and might leak.
    missing = {pair.name for pair in layout.pairs} - values.keys()
    if missing:
        raise UserError(f"{file}: does not name '{min(missing)}'; it must name every pair")
    return {pair.name: values[pair.name] for pair in layout.pairs}


def write_groups(layout: Layout, groups: dict[str, str]) -> Path:
    """Write groups.csv beside the images, with a row for every pair, and return its path.

    A pair without a group, since it cannot be read, is one of its own: it may be mended later.
    """
    file = (layout.root if layout.root.is_dir() else layout.root.parent) / "groups.csv"
    # Made in memory, so that the file is written whole or not at all.
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(("name", "group"))
    table.writerows((pair.name, groups.get(pair.name, pair.name)) for pair in layout.pairs)
    try:
        write_atomically(file, rows.getvalue().encode())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror or error})") from None
    return file


def _rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        # Spreadsheets put a byte order mark in front, which would become part of the first column's name.
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            header, rows = [name for name in reader.fieldnames or [] if name], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if not rows:
        raise UserError(f"{file}: has no rows below its columns")
    return header, rows


def _found(header: list[str], what: str) -> str:
    """Return the column of a table that means ``what``, or ''."""
    lower = {name.strip().lower(): name for name in header}
    return next((lower[name] for name in COLUMNS[what] if name in lower), "")


def _column(header: list[str], what: str, file: Path) -> str:
    column = _found(header, what)
    if not column:
        raise UserError(f"{file}: must have the columns 'image' and 'mask', it has {', '.join(header)}")
    return column
