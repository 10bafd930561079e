"""Four public sets of pictures, each with its traps handled where they are: tile defects, road cracks,
streets, infrared targets.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue.registry import dataset
from lossbench.data import sources
from lossbench.data.container import VOID, Data
from lossbench.data.hashes import check
from lossbench.data.formats import labels_of, read_nifti, read_picture
from lossbench.data.prepare import Item, Prepared, open_prepared, prepare, zscore
from lossbench.data.scenes import canonical
from lossbench.data.splitting import shuffle_key, window

KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven", "Free")

CAMVID = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip


@dataset("magnetic_tile", version=1, family="public", cite="Huang 2020")
def magnetic_tile(
    *,
    seed,
    kinds: list[str] = ("Blowhole", "Crack", "Break"),
    free: float = 1.0,
    view: Literal["crop", "tiles", "whole"] = "crop",
    size: int = 96,
    per_image: int | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return tiles with the defects of some kinds, and defect-free ones, as one binary task.

    - ``kinds``: of Blowhole, Break, Crack, Fray, Uneven; ``free``: defect-free images for each image with a
      defect (at most 952 in all), whole groups in an order that nests;
    - ``view``, ``size``, ``per_image``: how windows are cut (nothing is resized), see docs/data.md. The
      anti-aliased masks are cut at > 127. Six exposures show each tile, so the split is by tile (254 groups,
      derived by us), dealt by kind.
    """
    kinds = [str(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    for kind in kinds:
        if kind not in KINDS[:-1]:
            raise UserError(f"magnetic_tile: there is no kind '{kind}'{nearest(kind, KINDS[:-1])}")
    if not kinds or free < 0:
        raise UserError("magnetic_tile: name at least one of the 'kinds', and give 'free' as 0 or more")
    given = {
        "kinds": kinds, "free": free, "view": view, "size": size, "per_image": per_image,
        "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip

    def build():
        items = tile_items(kinds, free)
        folder = check("magnetic_tile", [p for i in items for p in (i.name, mask_path(i.name))])
        notes = {
            "unit_of_independence": "tile (group of exposures)",
            "notes": "tile groups are derived by thumbnail correlation",
        }
        return prepare(
            items,
            lambda name: read_tile(folder, name),
            view=view,
            size=size,
            per_image=per_image,
            notes=notes,
        )

    spec = canonical(magnetic_tile, given)
    return open_prepared(
        "magnetic_tile", spec, given, 1, seed, build, sources.get_source("magnetic_tile").card()
    )


def tile_items(kinds: list[str], free: float) -> list[Item]:
    """Return the chosen images; a group's stratum is its rarest kind, so that each kind reaches each part of
    the split.
    """
    rows = sources.tile_groups()
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    wanted = {f"MT_{kind}" for kind in kinds}
    rank = {
        f"MT_{kind}": at for at, kind in enumerate(("Fray", "Uneven", "Crack", "Break", "Blowhole", "Free"))
    }
    stratum = {name: min(rank[row["defect"]] for row in members if row["defect"] in wanted | {"MT_Free"})
               for name, members in groups.items() if any(row["defect"] in wanted | {"MT_Free"} for row in members)}  # fmt: skip
    chosen = [row for row in rows if row["defect"] in wanted]
    budget = round(free * len(chosen))
    for name in sorted(groups, key=lambda g: shuffle_key(f"tile {g}")):
        plain = sorted(
            (row for row in groups[name] if row["defect"] == "MT_Free"), key=lambda row: row["path"]
        )
        chosen += plain[:budget]
        budget -= len(plain[:budget])
    return [
        Item(row["path"], int(row["group"]), stratum[row["group"]])
        for row in sorted(chosen, key=lambda row: row["path"])
    ]


def mask_path(image: str) -> str:
    return str(PurePosixPath(image).with_suffix(".png"))


def read_tile(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one tile (1, H, W) and its mask, cut at > 127: taking > 0 would count the anti-aliased edge (45
    % more crack).
    """
    mask = read_picture(folder / mask_path(name), "L") > 127
    return read_picture(folder / name, "L")[None], mask.astype(np.uint8)


@dataset("crackforest", version=1, family="public", cite="Shi 2016")
def crackforest(
    *,
    seed,
    view: Literal["crop", "tiles", "whole"] = "tiles",
    size: int = 80,
    per_image: int | None = 6,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return road pictures (RGB) with thin cracks, by default six of the twenty-four 80 x 80 tiles of each of
    118 pictures.

    The masks are region codes: cracks are 2 and 4 (detached pieces); 1 is road and 3 is road *enclosed* by
    cracks, both background.
    """
    given = {
        "view": view, "size": size, "per_image": per_image, "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip

    def build():
        folder = check("crackforest")
        items = [Item(f"{n:03d}", n) for n in range(1, 119)]
        notes = {"unit_of_independence": "picture"}
        return prepare(
            items,
            lambda name: read_crack(folder, name),
            view=view,
            size=size,
            per_image=per_image,
            notes=notes,
        )

    spec = canonical(crackforest, given)
    return open_prepared("crackforest", spec, given, 1, seed, build, sources.get_source("crackforest").card())


def read_crack(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one road picture (3, 320, 480) and its crack mask, codes 2 and 4 of the regions."""
    from scipy.io import loadmat

    regions = loadmat(folder / "groundTruth" / f"{name}.mat")["groundTruth"][0, 0]["Segmentation"]
    return read_picture(folder / "image" / f"{name}.jpg", "RGB").transpose(2, 0, 1), np.isin(
        regions, (2, 4)
    ).astype(np.uint8)


@dataset("camvid", version=1, family="public", cite="Brostow 2009")
def camvid(
    *,
    seed,
    frames: Literal["third", "all"] = "third",
    view: Literal["crop", "tiles", "whole"] = "tiles",
    size: int = 120,
    per_image: int | None = 2,
) -> Data:
    """Return street scenes (RGB, 360 x 480) in 11 classes, by default two of the twelve 120 x 120 tiles of
    each frame.

    - ``frames``: 'third' (123 train and 78 test frames) or 'all' (367/101/233, the official split). Id 11,
      unlabelled, is void and not a class; class 0 (Sky) stands where binary tasks have their background. With
      'third', whose source has no validation frames, the last fifth of each training sequence is validation.
      The unit is a sequence's stretch within one part: there are few, so intervals over frames are too
      narrow; sequence 0001TP gives its beginning to train and its end to test (official).
    """
    given = {"frames": frames, "view": view, "size": size, "per_image": per_image}
    name = "camvid_full" if frames == "all" else "camvid"

    def build():
        folder = check(name)
        notes = {
            "unit_of_independence": "stretch of a sequence",
            "notes": "three sequences in train, two in test",
        }
        return prepare(camvid_items(name), lambda path: read_street(folder, path), view=view, size=size, per_image=per_image,
                       classes=CAMVID, notes=notes)  # fmt: skip

    return open_prepared(
        "camvid", canonical(camvid, given), given, 1, seed, build, sources.get_source(name).card()
    )


def camvid_items(name: str) -> list[Item]:
    """Return the frames with their part; where there are no validation frames, the last fifth of each
    training sequence.
    """
    paths = sorted(
        path for path in sources.get_source(name).files if path.split("/")[1] in ("train", "val", "test")
    )
    sequences: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        _, part, frame = path.split("/")
        sequences.setdefault((part, frame[:6]), []).append(path)
    if not any(part == "val" for part, _ in sequences):
        for (part, sequence), members in list(sequences.items()):
            if part == "train":
                cut = len(members) - max(1, round(len(members) / 5))
                sequences["train", sequence], sequences["val", sequence] = members[:cut], members[cut:]
    ordered = sorted(sequences.items())
    return [
        Item(path, group, part=part) for group, ((part, _), members) in enumerate(ordered) for path in members
    ]


def read_street(folder: Path, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame (3, 360, 480) and its class ids; 11 (unlabelled) becomes void."""
    top, part, frame = path.split("/")
    mask = read_picture(folder / top / f"{part}annot" / frame)
    return read_picture(folder / path, "RGB").transpose(2, 0, 1), np.where(mask == 11, VOID, mask).astype(
        np.uint8
    )


@dataset("sirst", version=1, family="public", cite="Dai 2021")
def sirst(
    *,
    seed,
    view: Literal["crop", "tiles", "whole"] = "crop",
    size: int = 96,
    per_image: int | None = None,
) -> Data:
    """Return infrared frames (grey) with tiny targets (median 20 pixels, smallest 4), in the official split
    256/85/86.

    One frame (Misc_111) has a mask of another size; its mask is brought to the frame by nearest neighbour.
    Frames are cropped, never resized.
    """
    given = {"view": view, "size": size, "per_image": per_image}

    def build():
        folder = check("sirst")
        items = []
        for part in ("train", "val", "test"):
            stems = (folder / "idx_427" / f"{part}.txt").read_text(encoding="utf-8").split()
            items += [Item(stem, int(stem.removeprefix("Misc_")), part=part) for stem in stems]
        items.sort(key=lambda item: item.group)
        notes = {
            "unit_of_independence": "picture",
            "notes": "some frames may come from one sequence; which, is not documented",
        }
        return prepare(
            items,
            lambda name: read_target(folder, name),
            view=view,
            size=size,
            per_image=per_image,
            notes=notes,
        )

    return open_prepared(
        "sirst", canonical(sirst, given), given, 1, seed, build, sources.get_source("sirst").card()
    )


def read_target(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame (1, H, W) as grey values, whatever its mode, and its target mask (> 0) at the frame's
    size.
    """
    image = read_picture(folder / "images" / f"{name}.png", "L")
    mask = read_picture(folder / "masks" / f"{name}_pixels0.png", "L") > 0
    if mask.shape != image.shape:
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(image.shape, mask.shape, strict=True)
        )
        mask = mask[np.ix_(rows, columns)]
    return image[None], mask.astype(np.uint8)


# --- The hippocampus volumes of the Medical Segmentation Decathlon: real MRI in three classes, as axial
# slices or as volumes.

CLASSES = ("background", "anterior", "posterior")

SIZE = (
    44,
    60,
    48,
)  # the largest extent along each axis of the 260 volumes (43, 59, 47), rounded up to a multiple of 4

VERSION = 1


@dataset("msd_hippocampus", version=1, family="public", cite="Simpson 2019")
def msd_hippocampus(
    *,
    seed,
    view: Literal["slices", "volumes"] = "slices",
    subset: int | None = 60,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return hippocampus MRI as axial slices (N, 1, 44, 60) or as volumes (N, 1, 44, 60, 48) at 1 mm, each
    volume z-scored by itself.

    - ``view``: 'slices' across the third axis (28.6 % of them are without foreground), or 'volumes';
    - ``subset``: how many of the 260 volumes, in an order that nests (the first 60 lie in the first 100);
      None takes all;
    - ``val_fraction``, ``test_fraction``: shares of the volumes; the split is by volume and depends on the
      seed. Padding is 0 in the image and void (255) in the mask. The two sides of one person may be two
      volumes; which, is not published.
    """
    names = sorted(Path(p).name for p in sources.get_source("msd_hippocampus").files if "/images/" in p)
    if subset is not None and not 3 <= subset <= len(names):
        raise UserError(
            f"msd_hippocampus: 'subset' must lie between 3 and {len(names)}, or be None for all, got {subset}"
        )
    given = {
        "view": view, "subset": subset, "val_fraction": val_fraction, "test_fraction": test_fraction,
    }  # fmt: skip
    names = sorted(sorted(names, key=shuffle_key)[:subset])

    def build() -> Prepared:
        paths = [f"data/TrainingSet/{kind}/{name}" for name in names for kind in ("images", "labels")]
        folder = check("msd_hippocampus", paths)
        volumes = [read_volume(folder / a, folder / b) for a, b in zip(paths[::2], paths[1::2], strict=True)]
        return _slices(volumes, names) if view == "slices" else _volumes(volumes, names)

    card = sources.get_source("msd_hippocampus").card()
    return open_prepared(
        "msd_hippocampus", canonical(msd_hippocampus, given), given, VERSION, seed, build, card
    )


def read_volume(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the z-scored image (1, x, y, z) and its mask (x, y, z); both must have one shape."""
    array, _ = read_nifti(image)
    mask, _ = read_nifti(label)
    if array.shape != mask.shape:
        raise UserError(f"{image}: has the shape {array.shape}, its label {mask.shape}")
    return zscore(array[None], axes=(1, 2, 3)), labels_of(mask, label)


def _slices(volumes, names) -> Prepared:
    images, masks, groups, labels = [], [], [], []
    for group, (name, (image, mask)) in enumerate(zip(names, volumes, strict=True)):
        for z in range(mask.shape[2]):
            part, labelled = window(image[..., z], mask[..., z], (0, 0), SIZE[:2])
            images.append(part)
            masks.append(labelled)
            groups.append(group)
            labels.append(f"{name.removesuffix('.nii.gz')}:{z}")
    return Prepared(
        np.stack(images),
        np.stack(masks),
        groups,
        labels,
        classes=CLASSES,
        spacing=(1.0, 1.0),
        unit="mm",
        notes=NOTES,
    )


def _volumes(volumes, names) -> Prepared:
    pairs = [window(image, mask, (0, 0, 0), SIZE) for image, mask in volumes]
    images, masks = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    labels = [name.removesuffix(".nii.gz") for name in names]
    return Prepared(
        images,
        masks,
        list(range(len(names))),
        labels,
        classes=CLASSES,
        spacing=(1.0,) * 3,
        unit="mm",
        notes=NOTES,
    )


NOTES = {
    "unit_of_independence": "volume",
    "notes": "left and right side of one person may fall on both sides of the split",
}
