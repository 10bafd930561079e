"""Public sets of medicine and biology: MRI, wounds, vessels, neurons. Each handles the traps of its files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.seeds import shuffle_key
from lossbench.base.specs import without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data.cache import check
from lossbench.data.container import Data
from lossbench.data.formats import as_it_came, channels_first, labels_of, read_nifti, read_picture
from lossbench.data.pairs import Arrays, Item, Pairs, numbered
from lossbench.data.prepare import open_public
from lossbench.data.sources import get_source
from lossbench.data.windows import window, zscore

# --- hippocampus

HIPPOCAMPUS = ("background", "anterior", "posterior")

# The largest extent along each axis of the 260 volumes (43, 59, 47), rounded up to a multiple of 4.
PADDED = (44, 60, 48)


@dataset("msd_hippocampus", version=1, family="public", cite="Simpson 2019")
def msd_hippocampus(
    *,
    seed,
    view: Literal["whole", "whole_slices", "slices", "volumes"] = "whole_slices",
    subset: int | None = 60,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return hippocampus MRI at 1 mm in three classes, each volume z-scored by itself.

    - ``view``: 'whole_slices' across the third axis (28.6 % of them are without foreground) or 'whole'
      volumes, as they came; 'slices' (44 x 60) or 'volumes' (44 x 60 x 48), padded to one size with 0 in the
      image and void in the mask;
    - ``subset``: how many of the 260 volumes, in an order that nests (the first 60 lie in the first 100);
      None takes all.

    The split is by volume. The two sides of one person may be two volumes; which, is not published.
    """
    given = without_seed(locals())
    names = sorted(Path(path).name for path in get_source("msd_hippocampus").files if "/images/" in path)
    if subset is not None and not 3 <= subset <= len(names):
        count = f"'subset' must lie between 3 and {len(names)}, or be None for all, got {subset}"
        raise UserError(f"msd_hippocampus: {count}")
    # By hash rather than by name: neighbours in name may be alike.
    names = sorted(sorted(names, key=shuffle_key)[:subset])

    def build() -> Pairs | Arrays:
        folders = [f"data/TrainingSet/{kind}" for kind in ("images", "labels")]
        root = check("msd_hippocampus", [f"{folder}/{name}" for name in names for folder in folders])
        pairs = Pairs(
            [Item(name.removesuffix(".nii.gz"), number) for number, name in enumerate(names)],
            lambda name: read_volume(*(root / folder / f"{name}.nii.gz" for folder in folders)),
            HIPPOCAMPUS,
            spacing=(1.0, 1.0, 1.0),
            unit="mm",
            notes={
                "unit_of_independence": "volume",
                "notes": "left and right side of one person may fall on both sides of the split",
            },
        )
        return pairs if view.startswith("whole") else _padded(pairs, view)

    return open_public(msd_hippocampus, given, build)


def read_volume(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the image (1, x, y, z), intensities as stored, and its mask (x, y, z)."""
    array, _ = read_nifti(image)
    mask, _ = read_nifti(label)
    if array.shape != mask.shape:
        raise UserError(f"{image}: has the shape {array.shape}, its label {mask.shape}")
    return array[None], labels_of(mask, label)


def _padded(pairs: Pairs, view: str) -> Arrays:
    """Return all slices, or all volumes, padded to one size."""
    cuts, kept, names = [], [], []
    for item in pairs.items:
        image, mask = pairs.read(item.name)
        image = zscore(image)  # before cutting: slices of one volume keep their brightness
        if view == "volumes":
            cuts.append(window(image, mask, (0, 0, 0), PADDED))
            kept.append(item)
            names.append(item.name)
            continue
        for z in range(mask.shape[2]):
            cuts.append(window(image[..., z], mask[..., z], (0, 0), PADDED[:2]))
            kept.append(item)
            names.append(f"{item.name}:{z}")
    images, masks = (np.stack(arrays) for arrays in zip(*cuts, strict=True))
    return Arrays.of(pairs, images, masks, kept, names)


# --- heart


@dataset("acdc", version=1, family="public", cite="Bernard 2018")
def acdc(
    *,
    seed,
    view: Literal["whole", "whole_slices"] = "whole_slices",
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return cine MRI of 25 hearts (grey): right ventricle, myocardium, left ventricle; 1.3 to 1.6 % each.

    ``view``: 'whole_slices' (227, of 13 sizes) or 'whole' volumes of 6 to 17 slices. The voxel size is not
    stored. The split is by patient, dealt within the five diagnostic groups of 20 in their order.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        root = check("acdc")
        # The challenge orders its 100 patients in five blocks of 20 by diagnosis; these are every fourth.
        paths = {Path(path).stem: path for path in sorted(get_source("acdc").files)}
        numbers = {name: int(name.removeprefix("patient")[:3]) for name in paths}
        items = [Item(name, number, stratum=(number - 1) // 20) for name, number in numbers.items()]
        classes = ("background", "right ventricle", "myocardium", "left ventricle")
        notes = {"unit_of_independence": "patient"}
        return Pairs(items, lambda name: read_heart(root / paths[name]), classes, notes=notes)

    return open_public(acdc, given, build)


def read_heart(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return one heart (1, y, x, z) and its mask; the file holds (z, y, x), and scribbles, which are
    not used.
    """
    import h5py

    with h5py.File(path) as file:
        # Slices last, as everywhere here.
        image, label = (np.moveaxis(file[key][:], 0, -1) for key in ("image", "label"))
    return image[None], label


# --- brain tumours


@dataset("lgg_mri", version=1, family="public", cite="Buda 2019")
def lgg_mri(
    *,
    seed,
    view: Literal["whole", "whole_slices"] = "whole_slices",
    val_fraction: float = 0.15,
    test_fraction: float = 0.3,
) -> Data:
    """Return brain MRI of 14 patients with lower-grade glioma, 20 slices each (256 x 256), tumour 0.84 %.

    Channels: before contrast, FLAIR, after contrast. 65 % of the slices hold no tumour. ``view``:
    'whole_slices' or 'whole' volumes. The split is by patient, dealt within the two institutions.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        root = check("lgg_mri")
        slices = [PurePosixPath(path) for path in get_source("lgg_mri").files if path.endswith(".tif")]
        # Folders are named TCGA_<institution>_<patient>_<date>.
        cases: dict[str, list[PurePosixPath]] = {}
        for path in slices:
            if not path.stem.endswith("_mask"):
                cases.setdefault(path.parent.name, []).append(path)
        institutions = numbered(name.split("_")[1] for name in cases)
        items = [Item(name, n, institutions[name.split("_")[1]]) for name, n in numbered(cases).items()]
        notes = {"unit_of_independence": "patient"}
        return Pairs(items, lambda name: read_brain(root, cases[name]), ("background", "tumour"), notes=notes)

    return open_public(lgg_mri, given, build)


def read_brain(root: Path, slices: list[PurePosixPath]) -> tuple[np.ndarray, np.ndarray]:
    """Return one brain (3, 256, 256, 20) and its mask, slices in the order of their numbers (10 after 9)."""
    slices = sorted(slices, key=lambda path: int(path.stem.rpartition("_")[2]))
    images = [read_picture(as_it_came(root / path), "RGB") for path in slices]
    # Exactly 0 and 255; the cut guards against a copy that is not.
    masks = [
        read_picture(as_it_came(root / path.with_stem(f"{path.stem}_mask")), "L") > 127 for path in slices
    ]
    return np.moveaxis(np.stack(images, -1), 2, 0), np.stack(masks, -1).astype(np.uint8)


# --- wounds


@dataset("fuseg", version=1, family="public", cite="Wang 2024")
def fuseg(*, seed, val_fraction: float = 0.2, test_fraction: float = 0.2) -> Data:
    """Return 50 photographs of foot ulcers (RGB, 512 x 512, partly black from padding), ulcer 1.4 %.

    Patients are not published: a few may occur twice.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        root = check("fuseg")
        names = sorted(Path(path).stem for path in get_source("fuseg").files if "/images/" in path)
        items = [Item(name, int(name)) for name in names]
        notes = {"unit_of_independence": "picture", "notes": "a few patients may occur twice"}
        return Pairs(items, lambda name: read_wound(root, name), ("background", "ulcer"), notes=notes)

    return open_public(fuseg, given, build)


def read_wound(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one photograph (3, 512, 512) and its mask, stored in three equal channels of 0 and 255."""
    image, mask = (
        read_picture(root / "validation" / kind / f"{name}.png", "RGB") for kind in ("images", "labels")
    )
    return channels_first(image), (mask[..., 0] > 127).astype(np.uint8)


# --- retinal vessels


@dataset("chase_db1", version=1, family="public", cite="Fraz 2012")
def chase_db1(*, seed, observer: Literal["first", "second"] = "first") -> Data:
    """Return fundus images (RGB, 960 x 999) of both eyes of 14 children, with retinal vessels (6.9 %).

    The last four children are the test, a fifth of the others validation. ``observer``: whose masks; the two
    observers reach a Dice of 0.777 against each other. The black surround counts as background.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        root = check("chase_db1")
        names = sorted(Path(path).stem for path in get_source("chase_db1").files if path.endswith(".jpg"))
        # Image_01L and Image_01R are the two eyes of child 1.
        children = {name: int(name[-3:-1]) for name in names}
        items = [
            Item(name, child, part="test" if child > 10 else "train") for name, child in children.items()
        ]
        notes = {"unit_of_independence": "child (both eyes)"}
        return Pairs(
            items, lambda name: read_eye(root, name, observer), ("background", "vessel"), notes=notes
        )

    return open_public(chase_db1, given, build)


def read_eye(root: Path, name: str, observer: str = "first") -> tuple[np.ndarray, np.ndarray]:
    """Return one fundus image (3, 960, 999) and the vessels that an observer marked (1-bit PNG)."""
    ending = {"first": "1stHO", "second": "2ndHO"}[observer]
    folder = root / "CHASEDB1"
    mask = read_picture(folder / f"{name}_{ending}.png", "L") > 127
    return channels_first(read_picture(folder / f"{name}.jpg", "RGB")), mask.astype(np.uint8)


# --- neurons

NEURONS = {
    "intracellular": (255,),
    "membrane": (0, 32, 64, 96, 128),  # four orientations and junctions
    "mitochondria": (191,),
    "synapse": (223,),
    "glia": (159,),
}

# Neighbouring sections are alike, so one between the parts is left out.
SECTIONS = {"train": range(9), "val": range(10, 11), "test": range(12, 15)}


@dataset("drosophila_vnc", version=1, family="public", cite="Gerhard 2013")
def drosophila_vnc(*, seed) -> Data:
    """Return sections of a fly's nerve cord in electron microscopy (grey, 1024 x 1024) in five classes.

    Membrane 17, mitochondria 5.3, synapse 0.65, glia 3.1 %. Sections 0 to 8 are train, 10 is validation, 12
    to 14 are test. All are of one animal: no interval over sections says anything about another.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        root = check("drosophila_vnc")
        parts = enumerate(SECTIONS.items())  # each part a group: sections of one part are not independent
        items = [Item(f"{z:02d}", group, part=part) for group, (part, zs) in parts for z in zs]
        notes = {"unit_of_independence": "none: one animal, stretches of its sections"}
        return Pairs(items, lambda name: read_section(root, name), tuple(NEURONS), notes=notes)

    return open_public(drosophila_vnc, given, build)


def read_section(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one section (1, 1024, 1024) and its class ids."""
    ids = np.full(256, len(NEURONS), np.uint8)  # a code that is not listed is refused as no class
    for number, codes in enumerate(NEURONS.values()):
        ids[list(codes)] = number
    labels = read_picture(root / "stack1" / "labels" / f"labels000000{name}.png", "L")
    return read_picture(as_it_came(root / "stack1" / "raw" / f"{name}.tif"), "L")[None], ids[labels]
