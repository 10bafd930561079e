"""Masks that come as outlines: COCO, LabelMe and YOLO files, drawn into masks of class ids."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.container import VOID
from lossbench.data.formats import PICTURES, size_of, stem_of
from lossbench.data.pairing import short_names, supported
from lossbench.data.pairs import FilePair, Layout
from lossbench.data.words import part_of, words_of

BACKGROUND = ("_background_", "background", "bg")

IGNORED = ("__ignore__", "ignore", "void")

MOST = 254  # classes; 255 is void


def _read_json(file: Path) -> Any:
    """Return what a JSON file holds; None where it is none, for not every file here is about outlines."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _layout(kind: str, root: Path, pairs: list[FilePair], names: Iterable[str], files=(), notes=()) -> Layout:
    classes = ("background", *names)
    if len(classes) > MOST:
        raise UserError(f"{root}: has {len(classes) - 1} classes; at most {MOST - 1} are read")
    return Layout(kind, root, pairs, classes, [], list(notes), tuple(files))


def _pairs(root: Path, images: list[Path], files: list[Path | None], draws: list) -> list[FilePair]:
    parts = [part_of(image.relative_to(root).parts[:-1]) for image in images]
    rows = zip(short_names(images, root), images, files, parts, draws, strict=True)
    return [
        FilePair(name, (image,), (file,) if file else (), part=part, draw=draw)
        for name, image, file, part, draw in rows
    ]


def _polygons(shape: tuple[int, int], filled: Iterable[tuple[list[tuple[float, float]], int]]) -> np.ndarray:
    """Return a mask uint8 (H, W) with polygons (points (x, y), class id), later ones on top."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(picture)
    for points, kind in filled:
        draw.polygon(points, fill=kind)
    return np.asarray(picture)


# --- COCO


def coco(root: Path) -> Layout | None:
    """Return the images that COCO files below a folder describe; None where there is no such file.

    Images without annotations are empty; of two objects the smaller lies on top; crowds are void.
    """
    described = {}
    for file in supported(root, (".json",)):
        # Key points and captions of the same images lie beside the instances.
        if "person_keypoints" in file.name or "captions" in file.name:
            continue
        content = _read_json(file)
        if isinstance(content, dict) and all(
            isinstance(content.get(k), list) for k in ("images", "annotations")
        ):
            described[file] = content
    if not described:
        return None
    pictures: dict[str, list[Path]] = defaultdict(list)
    for picture in supported(root, PICTURES):
        pictures[picture.name].append(picture)
    names: dict[int, str] = {}
    images, files, parts, todo, notes = [], [], [], [], []
    for file, content in described.items():
        objects = defaultdict(list)
        for entry in content["annotations"]:
            objects[entry.get("image_id")].append(entry)
        own = {c.get("id"): str(c.get("name")) for c in content.get("categories", []) if isinstance(c, dict)}
        names |= {
            entry.get("category_id"): own.get(entry.get("category_id"), "")
            for entry in content["annotations"]
        }
        missing = 0
        for entry in content["images"]:
            picture = _picture_of(str(entry.get("file_name", "")), file, root, pictures)
            if picture is None:
                missing += 1
                continue
            images.append(picture)
            files.append(file)
            parts.append(part_of((*file.relative_to(root).parts[:-1], file.stem)))
            todo.append((entry, objects[entry.get("id")]))
        if missing:
            notes.append(f"{missing} images of {file.name} are not here and are left out")
    if None in names or "" in names.values():
        raise UserError(f"{min(described)}: an annotation has a category that the file does not name")
    twice = len(images) - len(set(images))
    if twice:
        raise UserError(
            f"{root}: {twice} images stand in two COCO files; leave one of {_names(described)} there"
        )
    ids = {category: number for number, category in enumerate(sorted(names), 1)}
    draws = [
        partial(_draw_coco, image, entry, objects, ids)
        for image, (entry, objects) in zip(images, todo, strict=True)
    ]
    pairs = _pairs(root, images, files, draws)
    # The file says which part an image is in, wherever the image lies.
    pairs = [
        FilePair(p.name, p.images, p.masks, "", part or p.part, p.draw)
        for p, part in zip(pairs, parts, strict=True)
    ]
    kind = f"images and outlines of {_names(described)} (COCO)"
    return _layout(kind, root, pairs, [names[c] for c in sorted(names)], described, notes)


def _names(files: Iterable[Path]) -> str:
    return ", ".join(sorted(file.name for file in files))


def _picture_of(name: str, file: Path, root: Path, pictures: dict[str, list[Path]]) -> Path | None:
    """Return the picture that a COCO entry means: by its path, or the only one so named."""
    named = pictures.get(Path(name).name, [])
    for place in (file.parent / name, root / name, root / "images" / name):
        if place in named:
            return place
    # Of several, the one in the part that the file names: val2017/ for instances_val2017.json.
    wanted = set(words_of(file.stem)) | set(words_of(file.parent.name))
    in_part = [p for p in named if set(words_of(p.parent.name)) & wanted & {"train", "val", "valid", "test"}]
    return named[0] if len(named) == 1 else in_part[0] if len(in_part) == 1 else None


def _draw_coco(image: Path, entry: dict, objects: list[dict], ids: dict[int, int]) -> np.ndarray:
    try:
        from pycocotools import mask as masks
    except ImportError:
        raise UserError("COCO files are read by pycocotools: pip install 'lossbench[coco]'") from None
    shape = size_of(image)
    out = np.zeros(shape, np.uint8)
    for thing in sorted(objects, key=lambda thing: -float(thing.get("area") or 0)):
        outline = thing.get("segmentation")
        if not outline:
            raise UserError(f"{image}: an annotation has a box and no outline; segmentation needs outlines")
        try:
            if isinstance(outline, list):
                packed = masks.merge(masks.frPyObjects(outline, *shape))
            else:
                # Lists of run lengths are packed first; strings are packed already.
                packed = (
                    masks.frPyObjects(outline, *shape) if isinstance(outline["counts"], list) else outline
                )
            inside = masks.decode(packed).astype(bool)
            out[inside] = VOID if thing.get("iscrowd") else ids[thing["category_id"]]
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{image}: an outline of its COCO file cannot be read ({error})") from None
    return out


# --- LabelMe


def labelme(root: Path) -> Layout | None:
    """Return the pictures that have a LabelMe file, beside them or elsewhere; None where there is none."""
    described = {}
    for file in supported(root, (".json",)):
        content = _read_json(file)
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            described[file] = content
    if not described:
        return None
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for picture in supported(root, PICTURES):
        by_stem[stem_of(picture)].append(picture)
    labels = sorted({str(s.get("label")) for content in described.values() for s in content["shapes"]})
    names = [label for label in labels if label.lower() not in (*BACKGROUND, *IGNORED)]
    ids = {label: names.index(label) + 1 if label in names else 0 for label in labels}
    ids |= {label: VOID for label in labels if label.lower() in IGNORED}
    images, files, draws, unmatched = [], [], [], []
    for file, content in described.items():
        near = (file.parent / str(content.get("imagePath", "")).replace("\\", "/")).resolve()
        same = by_stem[file.stem]
        picture = next((p for p in same if p.resolve() == near), same[0] if len(same) == 1 else None)
        if picture is None:
            unmatched.append(f"'{file.relative_to(root).as_posix()}' has no image")
            continue
        images.append(picture)
        files.append(file)
        draws.append(partial(_draw_labelme, picture, file, content["shapes"], ids))
    bare = sorted(set(supported(root, PICTURES)) - set(images))
    notes = [f"{len(bare)} images without a LabelMe file are left out"] if bare else []
    layout = _layout("images and LabelMe files", root, _pairs(root, images, files, draws), names, notes=notes)
    return Layout(layout.kind, root, layout.pairs, layout.classes, unmatched, layout.notes)


def _draw_labelme(image: Path, file: Path, shapes: list[dict], ids: dict[str, int]) -> np.ndarray:
    filled = []
    for shape in shapes:
        try:
            points = [(float(x), float(y)) for x, y in shape["points"]]
            kind = shape.get("shape_type") or "polygon"
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{file}: a shape has no readable points") from None
        if kind == "rectangle" and len(points) == 2:
            (x0, y0), (x1, y1) = points
            points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        elif kind == "circle" and len(points) == 2:
            (x, y), radius = points[0], float(np.hypot(*np.subtract(*points)))
            turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            points = list(zip(x + radius * np.cos(turn), y + radius * np.sin(turn), strict=True))
        elif kind != "polygon" or len(points) < 3:
            raise UserError(
                f"{file}: holds a {kind} of {len(points)} points; areas are polygons, rectangles, circles"
            )
        filled.append((points, ids[str(shape.get("label"))]))
    return _polygons(size_of(image), filled)


# --- YOLO


def yolo(root: Path) -> Layout | None:
    """Return the pictures of a YOLO set for segmentation: images/ and labels/ with one text file each.

    Pictures without a text file are empty, as YOLO has it.
    """
    texts = {file for file in supported(root, (".txt",)) if "labels" in file.relative_to(root).parts[:-1]}
    pictures = [file for file in supported(root, PICTURES) if "images" in file.relative_to(root).parts[:-1]]
    if not texts or not pictures:
        return None
    files = [_text_of(picture, root) for picture in pictures]
    files = [file if file in texts else None for file in files]
    if not any(files):
        return None
    names, described = _yolo_names(root)
    numbers = range(max(len(names), 1 + max(_numbers(files), default=0)))
    draws = [partial(_draw_yolo, picture, file) for picture, file in zip(pictures, files, strict=True)]
    classes = [names.get(number, f"class_{number + 1}") for number in numbers]
    return _layout(
        "images and outlines in labels/*.txt (YOLO)",
        root,
        _pairs(root, pictures, files, draws),
        classes,
        described,
    )


def _text_of(picture: Path, root: Path) -> Path:
    parts = list(picture.relative_to(root).parts)
    at = len(parts) - 1 - parts[::-1].index("images")
    parts[at] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _numbers(files: list[Path | None]) -> set[int]:
    return {kind for file in files if file for kind, _ in _yolo_rows(file)}


def _yolo_rows(file: Path) -> list[tuple[int, list[float]]]:
    rows = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                kind, *numbers = line.split()
                rows.append((int(kind), [float(number) for number in numbers]))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: is no YOLO file, whose lines are a class and numbers ({error})") from None
    for kind, numbers in rows:
        if len(numbers) == 4:
            raise UserError(f"{file}: holds boxes and no outlines; segmentation needs outlines")
        if kind < 0 or len(numbers) < 6 or len(numbers) % 2:
            raise UserError(f"{file}: an outline needs three points or more, x and y each")
    return rows


def _yolo_names(root: Path) -> tuple[dict[int, str], list[Path]]:
    """Return class names by number from the set's YAML file, if it has one."""
    import yaml

    for file in supported(root, (".yaml", ".yml")):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{file}: cannot be read as YAML ({error})") from None
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            return {number: str(name) for number, name in enumerate(names)}, [file]
        if isinstance(names, dict) and all(isinstance(number, int) for number in names):
            return {number: str(name) for number, name in names.items()}, [file]
    return {}, []


def _draw_yolo(picture: Path, file: Path | None) -> np.ndarray:
    height, width = size_of(picture)
    filled = []
    for kind, numbers in _yolo_rows(file) if file else []:
        # Shares of the width and the height, from the picture's corner.
        # Rounded, since 1/3 in six digits would lose the row of pixels that it means.
        xs, ys = np.round(np.array(numbers[::2]) * width, 3), np.round(np.array(numbers[1::2]) * height, 3)
        filled.append((list(zip(xs, ys, strict=True)), kind + 1))
    return _polygons((height, width), filled)
