"""Masks that come as outlines: COCO, LabelMe and YOLO files, drawn into masks of class ids."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossbench.base.errors import UserError
from lossbench.data.container import VOID
from lossbench.data.formats import PICTURES, size_of, stem_of
from lossbench.data.pairing import short_names, supported
from lossbench.data.pairs import FilePair, Layout
from lossbench.data.words import part_of, words_of

BACKGROUND = ("_background_", "background", "bg")

IGNORED = ("__ignore__", "ignore", "void")

MOST = 254  # classes; 255 is void

BESIDE = ("person_keypoints", "captions")  # of the same images; they lie beside the instances of COCO

Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e7, le=1e7)]


class _Read(BaseModel):
    """What is read of a JSON file; other keys are passed over."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


def _described(root: Path, kind: type[_Read], keys: tuple[str, ...]) -> dict[Path, Any]:
    """Return the JSON files below a folder that have lists of these names; UserError where one is damaged."""
    described = {}
    for file in supported(root, (".json",)):
        if file.name.startswith(BESIDE):
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # not every file here is about outlines
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys):
            try:
                described[file] = kind.model_validate(content)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise UserError(f"{file}: cannot be read, {where}: {first['msg']}") from None
    return described


def _layout(kind: str, root: Path, pairs: list[FilePair], names: Iterable[str], files=(), notes=()) -> Layout:
    classes = ("background", *names)
    # Masks are stored in eight bits.
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


def _frame(image: Path, file: Path, height: float | None, width: float | None) -> tuple[int, int]:
    """Return the size (H, W) of the picture on which outlines were drawn.

    That is the one that their file names, of a picture as it is shown or as it is stored before it is turned;
    UserError where it is neither, since the outlines would be shifted.
    """
    shown, said = size_of(image), (height, width)
    if not height or not width or said == shown:
        return shown
    stored = size_of(image, upright=False)
    if said == stored:
        return stored
    drawn = f"its outlines were drawn on {width:g}x{height:g} pixels"
    mend = "take the pictures that were outlined, or export the outlines of these"
    raise UserError(f"{file}: {drawn}, '{image.name}' has {shown[1]}x{shown[0]}; {mend}")


# --- COCO


class _Runs(_Read):
    """Run lengths, column by column, as numbers or packed into a string."""

    size: tuple[int, int]
    counts: list[Annotated[int, Field(ge=0)]] | str


class _Object(_Read):
    image_id: int | str
    category_id: int
    segmentation: list[Annotated[list[Number], Field(min_length=6)]] | _Runs | None = None
    area: Number | None = None
    iscrowd: int = 0


class _Image(_Read):
    id: int | str
    file_name: str
    height: Number | None = None
    width: Number | None = None


class _Category(_Read):
    id: int
    name: str


class _Coco(_Read):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category] = []


def coco(root: Path) -> Layout | None:
    """Return the images that COCO files below a folder describe; None where there is no such file.

    Images without annotations are empty; of two objects the smaller lies on top; crowds are void.
    """
    described = _described(root, _Coco, ("images", "annotations"))
    if not described:
        return None
    pictures: dict[str, list[Path]] = defaultdict(list)
    for picture in supported(root, PICTURES):
        pictures[picture.name].append(picture)
    ids, names = _categories(described)
    pairs: list[FilePair] = []
    notes = []
    for file, content in described.items():
        # By image once, rather than a search for each.
        objects = defaultdict(list)
        for entry in content.annotations:
            objects[entry.image_id].append(entry)
        # The file says which part an image is in, wherever the image lies.
        part = part_of((*file.relative_to(root).parts[:-1], file.stem))
        missing = 0
        for entry in content.images:
            picture = _picture_of(entry.file_name, file, root, pictures)
            if picture is None:
                missing += 1
                continue
            draw = partial(_draw_coco, picture, file, entry, objects[entry.id], ids)
            own = part or part_of(picture.relative_to(root).parts[:-1])
            pairs.append(FilePair("", (picture,), (file,), "", own, draw))
        if missing:
            notes.append(f"{missing} images of {file.name} are not here and are left out")
    files = ", ".join(sorted(file.name for file in described))
    images = [pair.images[0] for pair in pairs]
    if len(set(images)) < len(images):
        raise UserError(f"{root}: an image stands twice in its COCO files; leave one of {files} there")
    pairs = [replace(pair, name=name) for pair, name in zip(pairs, short_names(images, root), strict=True)]
    return _layout(f"images and outlines of {files} (COCO)", root, pairs, names, described, notes)


def _categories(described: dict[Path, _Coco]) -> tuple[dict[int, int], list[str]]:
    """Return the class of each category that has an object, and the names in the order of the classes."""
    names: dict[int, str] = {}
    for file, content in described.items():
        own = {category.id: category.name for category in content.categories}
        for entry in content.annotations:
            if entry.category_id not in own:
                raise UserError(f"{file}: an object has the category {entry.category_id}, which has no name")
            names[entry.category_id] = own[entry.category_id]
    order = sorted(names)
    return {category: number for number, category in enumerate(order, 1)}, [names[c] for c in order]


def _picture_of(name: str, file: Path, root: Path, pictures: dict[str, list[Path]]) -> Path | None:
    """Return the picture that a COCO entry means: by its path, or the only one so named."""
    named = pictures.get(Path(name).name, [])
    for place in (file.parent / name, root / name, root / "images" / name):
        if place in named:
            return place
    # Of several, the one in the part that the file names: val2017/ for instances_val2017.json.
    wanted = {*words_of(file.stem), *words_of(file.parent.name)} & {"train", "val", "valid", "test"}
    in_part = [picture for picture in named if wanted & {*words_of(picture.parent.name)}]
    candidates = named if len(named) == 1 else in_part
    return candidates[0] if len(candidates) == 1 else None


def _draw_coco(
    image: Path, file: Path, entry: _Image, objects: list[_Object], ids: dict[int, int]
) -> np.ndarray:
    try:
        from pycocotools import mask as masks
    except ImportError:
        raise UserError("COCO files are read by pycocotools: pip install 'lossbench[coco]'") from None
    shape = _frame(image, file, entry.height, entry.width)
    out = np.zeros(shape, np.uint8)
    # Small things lie on large ones far more often than under them.
    for thing in sorted(objects, key=lambda thing: -(thing.area or 0)):
        outline = thing.segmentation
        if not outline:
            raise UserError(f"{image}: an annotation has a box and no outline; segmentation needs outlines")
        try:
            if isinstance(outline, list):
                packed = masks.merge(masks.frPyObjects(outline, *shape))
            elif isinstance(outline.counts, list):
                packed = masks.frPyObjects(outline.model_dump(), *shape)
            else:
                packed = {"size": list(outline.size), "counts": outline.counts}
            # The library fills outlines as the official scores do.
            inside = masks.decode(packed).astype(bool)
            out[inside] = VOID if thing.iscrowd else ids[thing.category_id]
        except (TypeError, ValueError, KeyError, IndexError, MemoryError) as error:
            raise UserError(f"{image}: an outline of its COCO file cannot be read ({error})") from None
    return out


# --- LabelMe


class _Shape(_Read):
    label: str
    points: list[tuple[Number, Number]]
    shape_type: str | None = None


class _LabelMe(_Read):
    shapes: list[_Shape]
    imagePath: str | None = None
    imageHeight: Number | None = None
    imageWidth: Number | None = None


def labelme(root: Path) -> Layout | None:
    """Return the pictures that have a LabelMe file, beside them or elsewhere; None where there is none."""
    described = _described(root, _LabelMe, ("shapes",))
    if not described:
        return None
    pictures = supported(root, PICTURES)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_stem[stem_of(picture)].append(picture)
    labels = sorted({shape.label for content in described.values() for shape in content.shapes})
    names = [label for label in labels if label.lower() not in (*BACKGROUND, *IGNORED)]
    ids = {label: names.index(label) + 1 if label in names else 0 for label in labels}
    # LabelMe's own converters have this name for void.
    ids |= {label: VOID for label in labels if label.lower() in IGNORED}
    images, files, draws, unmatched = [], [], [], []
    for file, content in described.items():
        # Written on Windows, the path has backslashes.
        near = (file.parent / (content.imagePath or "").replace("\\", "/").replace("\0", "")).resolve()
        same = by_stem[file.stem]
        picture = next((p for p in same if p.resolve() == near), same[0] if len(same) == 1 else None)
        if picture is None:
            unmatched.append(f"'{file.relative_to(root).as_posix()}' has no image")
            continue
        images.append(picture)
        files.append(file)
        draws.append(partial(_draw_labelme, picture, file, content, ids))
    bare = len(set(pictures) - set(images))
    notes = [f"{bare} images without a LabelMe file are left out"] if bare else []
    layout = _layout("images and LabelMe files", root, _pairs(root, images, files, draws), names, notes=notes)
    return replace(layout, unmatched=unmatched)


def _draw_labelme(image: Path, file: Path, content: _LabelMe, ids: dict[str, int]) -> np.ndarray:
    filled = []
    for shape in content.shapes:
        points, kind = shape.points, shape.shape_type or "polygon"
        if kind == "rectangle" and len(points) == 2:
            (x0, y0), (x1, y1) = points
            points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        elif kind == "circle" and len(points) == 2:
            (x, y), radius = points[0], float(np.hypot(*np.subtract(*points)))
            # A circle is a centre and a point on it.
            turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            points = list(zip(x + radius * np.cos(turn), y + radius * np.sin(turn), strict=True))
        elif kind != "polygon" or len(points) < 3:
            areas = "areas are polygons, rectangles and circles"
            raise UserError(f"{file}: holds a {kind} of {len(points)} points; {areas}")
        filled.append((points, ids[shape.label]))
    return _polygons(_frame(image, file, content.imageHeight, content.imageWidth), filled)


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
    # YOLO writes no text file for a picture without objects.
    files = [file if file in texts else None for file in files]
    if not any(files):
        return None
    names, described = _yolo_names(root)
    # A class that never occurs still has its number.
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
    # The last 'images' of the path, as YOLO itself has it.
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
        # Centre, width and height.
        if len(numbers) == 4:
            raise UserError(f"{file}: holds boxes and no outlines; segmentation needs outlines")
        if not 0 <= kind < MOST or len(numbers) < 6 or len(numbers) % 2:
            raise UserError(f"{file}: an outline is a class below {MOST} and three points or more, x and y")
        if not all(-1 <= number <= 2 for number in numbers):
            raise UserError(f"{file}: outlines are shares of the sides, from 0 to 1")
    return rows


def _yolo_names(root: Path) -> tuple[dict[int, str], list[Path]]:
    """Return class names by number from the set's YAML file, if it has one."""
    import yaml

    for file in supported(root, (".yaml", ".yml")):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue  # not every file here names classes
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
