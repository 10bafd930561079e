"""Public sets of photographs: surfaces, roads, streets, leaves, skies. Each handles the traps of its
masks.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from lossbench.base.errors import UserError, nearest
from lossbench.base.seeds import shuffle_key
from lossbench.base.specs import without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data.cache import check
from lossbench.data.container import VOID, Data
from lossbench.data.formats import channels_first, read_picture
from lossbench.data.pairs import Item, Pairs, numbered
from lossbench.data.prepare import open_public
from lossbench.data.sources import get_source, tile_groups

KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven", "Free")  # of magnetic tiles

RAREST = ("Fray", "Uneven", "Crack", "Break", "Blowhole", "Free")  # first: by their number of tiles

STREETS = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)


# --- magnetic tiles


@dataset("magnetic_tile", version=1, family="public", cite="Huang 2020")
def magnetic_tile(
    *,
    seed,
    kinds: list[str] = ("Blowhole", "Crack", "Break"),
    free: float = 1.0,
    view: Literal["whole", "crop", "tiles", "padded"] = "whole",
    size: int = 96,
    per_image: int | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return tiles with the defects of some kinds, and defect-free ones, as one binary task.

    - ``kinds``: of Blowhole, Break, Crack, Fray, Uneven; ``free``: defect-free images for each image with a
      defect (at most 952 in all), whole groups in an order that nests;
    - ``view``: 'whole' images, or windows of ``size`` ('crop' around an object, which raises the share of
      foreground; 'tiles', ``per_image`` of them), or 'padded' to one size.

    Six exposures show each tile, so the split is by tile (254 groups, derived by us), dealt by kind.
    """
    given = without_seed(locals())
    given["kinds"] = kinds = [str(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    for kind in kinds:  # "Free" is chosen by ``free``
        if kind not in KINDS[:-1]:
            raise UserError(f"magnetic_tile: there is no kind '{kind}'{nearest(kind, KINDS[:-1])}")
    if not kinds or free < 0:
        raise UserError("magnetic_tile: name at least one of the 'kinds', and give 'free' as 0 or more")

    def build() -> Pairs:
        items = tile_items(kinds, free)
        folder = check("magnetic_tile", [path for i in items for path in (i.name, tile_mask(i.name))])
        notes = {
            "unit_of_independence": "tile (group of exposures)",
            "notes": "tile groups are derived by thumbnail correlation",
        }
        return Pairs(items, lambda name: read_tile(folder, name), notes=notes)

    return open_public(magnetic_tile, given, build)


def tile_items(kinds: list[str], free: float) -> list[Item]:
    """Return the chosen images; a group's stratum is its rarest kind, so that each kind reaches each part."""
    rows = tile_groups()
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    chosen = [row for row in rows if row["defect"] in {f"MT_{kind}" for kind in kinds}]
    # Whole groups in a fixed order: a larger ``free`` adds tiles and takes none away.
    budget = round(free * len(chosen))
    for name in sorted(groups, key=lambda group: shuffle_key(f"tile {group}")):
        plain = sorted(row["path"] for row in groups[name] if row["defect"] == "MT_Free")[:budget]
        chosen += [row for row in groups[name] if row["path"] in plain]
        budget -= len(plain)
    # A tile may show several kinds; it counts for the one of which there are fewest.
    rank = {f"MT_{kind}": at for at, kind in enumerate(RAREST) if kind in (*kinds, "Free")}
    stratum = {
        name: min((rank[row["defect"]] for row in members if row["defect"] in rank), default=0)
        for name, members in groups.items()
    }
    chosen.sort(key=lambda row: row["path"])
    return [Item(row["path"], int(row["group"]), stratum[row["group"]]) for row in chosen]


def tile_mask(image: str) -> str:
    return str(PurePosixPath(image).with_suffix(".png"))


def read_tile(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one tile (1, H, W) and its mask, cut at > 127.

    Taking > 0 would count the anti-aliased edge: 45 % more crack.
    """
    mask = read_picture(folder / tile_mask(name), "L") > 127
    return read_picture(folder / name, "L")[None], mask.astype(np.uint8)


# --- road cracks


@dataset("crackforest", version=1, family="public", cite="Shi 2016")
def crackforest(
    *,
    seed,
    view: Literal["whole", "crop", "tiles", "padded"] = "whole",
    size: int = 80,
    per_image: int | None = 6,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
) -> Data:
    """Return 118 road pictures (RGB, 320 x 480) with thin cracks.

    ``view``: 'whole' images, or windows of ``size``: six of the 24 'tiles' of each picture, or 'crop' around
    an object, which raises the share of foreground. The masks are region codes: cracks are 2 and 4 (detached
    pieces); 1 is road and 3 is road *enclosed* by cracks, both background.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("crackforest")
        items = [Item(f"{n:03d}", n) for n in range(1, 119)]  # later pictures have no ground truth
        return Pairs(items, lambda name: read_crack(folder, name), notes={"unit_of_independence": "picture"})

    return open_public(crackforest, given, build)


def read_crack(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one road picture (3, 320, 480) and its crack mask, codes 2 and 4 of the regions."""
    from scipy.io import loadmat

    regions = loadmat(folder / "groundTruth" / f"{name}.mat")["groundTruth"][0, 0]["Segmentation"]
    image = read_picture(folder / "image" / f"{name}.jpg", "RGB")
    return channels_first(image), np.isin(regions, (2, 4)).astype(np.uint8)


# --- streets


@dataset("camvid", version=1, family="public", cite="Brostow 2009")
def camvid(
    *,
    seed,
    frames: Literal["third", "all"] = "third",
    view: Literal["whole", "crop", "tiles", "padded"] = "whole",
    size: int = 120,
    per_image: int | None = 2,
) -> Data:
    """Return street scenes (RGB, 360 x 480) in 11 classes.

    - ``frames``: 'third' (123 train and 78 test frames) or 'all' (367/101/233, the official split). With
      'third', whose source has no validation frames, the last fifth of each training sequence is validation;
    - ``view``: 'whole' images, or windows of ``size``: two of the 12 'tiles' of each frame, or 'crop' around
      an object, which raises the share of foreground.

    Id 11, unlabelled, is void and not a class; class 0 (Sky) stands where binary tasks have their background.
    The unit is a sequence's stretch within one part: there are few, so intervals over frames are too narrow;
    sequence 0001TP gives its beginning to train and its end to test (official).
    """
    given = without_seed(locals())
    return open_public(camvid, given, lambda: _street_pairs(frames))


@dataset("camvid_binary", version=1, family="public", cite="Brostow 2009")
def camvid_binary(*, seed, target: str = "Pedestrian", frames: Literal["third", "all"] = "third") -> Data:
    """Return whole street scenes with one class of ``camvid`` against the rest, in two classes.

    ``target``: Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian or Bicyclist.
    Frames, split and void are those of ``camvid``.
    """
    given = without_seed(locals())
    if target not in STREETS:
        raise UserError(f"camvid_binary: there is no class '{target}'{nearest(target, STREETS)}")

    def build() -> Pairs:
        # The same pairs as all classes have; only the masks are read otherwise.
        pairs = _street_pairs(frames, ("rest", target))
        whole, wanted = pairs.read, STREETS.index(target)

        def read(path: str) -> tuple[np.ndarray, np.ndarray]:
            image, mask = whole(path)
            return image, np.where(mask == VOID, VOID, mask == wanted).astype(np.uint8)

        pairs.read = read
        return pairs

    return open_public(camvid_binary, given, build)


def _street_pairs(frames: str, classes: tuple[str, ...] = STREETS) -> Pairs:
    source = "camvid_full" if frames == "all" else "camvid"
    folder = check(source)
    notes = {
        "unit_of_independence": "stretch of a sequence",
        "notes": "three sequences in train, two in test",
    }
    return Pairs(street_items(source), lambda path: read_street(folder, path), classes, notes=notes)


def street_items(source: str) -> list[Item]:
    """Return the frames with their part.

    Where there are no validation frames, the last fifth of each training sequence is validation.
    """
    sequences: dict[tuple[str, str], list[str]] = {}
    for path in sorted(get_source(source).files):
        _, part, frame = path.split("/")
        if part in ("train", "val", "test"):
            sequences.setdefault((part, frame[:6]), []).append(path)
    if not any(part == "val" for part, _ in sequences):
        for part, sequence in [key for key in sequences if key[0] == "train"]:
            members = sequences[part, sequence]
            # The end rather than frames in between, which neighbour training frames.
            cut = len(members) - max(1, round(len(members) / 5))
            sequences["train", sequence], sequences["val", sequence] = members[:cut], members[cut:]
    return [
        Item(path, group, part=part)
        for group, ((part, _), members) in enumerate(sorted(sequences.items()))
        for path in members
    ]


def read_street(folder: Path, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame (3, 360, 480) and its class ids; 11 (unlabelled) becomes void."""
    top, part, frame = path.split("/")
    mask = read_picture(folder / top / f"{part}annot" / frame)
    image = read_picture(folder / path, "RGB")
    return channels_first(image), np.where(mask == 11, VOID, mask).astype(np.uint8)


# --- infrared targets


@dataset("sirst", version=1, family="public", cite="Dai 2021")
def sirst(
    *,
    seed,
    view: Literal["whole", "crop", "tiles", "padded"] = "whole",
    size: int = 96,
    per_image: int | None = None,
) -> Data:
    """Return infrared frames (grey) with tiny targets (median 20 pixels, smallest 4), official split
    256/85/86.

    ``view``: 'whole' images, or windows of ``size``, such as 'crop' around a target, which raises the share
    of foreground. One frame (Misc_111) has a mask of another size, which
    is brought to the frame by nearest neighbour; frames are never resized.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("sirst")
        items = []
        for part in ("train", "val", "test"):
            stems = (folder / "idx_427" / f"{part}.txt").read_text(encoding="utf-8").split()
            items += [Item(stem, int(stem.removeprefix("Misc_")), part=part) for stem in stems]
        items.sort(key=lambda item: item.group)  # by number, so that the order is not that of the split
        notes = {
            "unit_of_independence": "picture",
            "notes": "some frames may come from one sequence; which, is not documented",
        }
        return Pairs(items, lambda name: read_target(folder, name), notes=notes)

    return open_public(sirst, given, build)


def read_target(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one frame (1, H, W) as grey values, whatever its mode, and its target mask (> 0) at its size."""
    # Four modes occur, some with a tint; the frames are grey by nature.
    image = read_picture(folder / "images" / f"{name}.png", "L")
    mask = read_picture(folder / "masks" / f"{name}_pixels0.png", "L") > 0
    if mask.shape != image.shape:
        # The pixel of the mask under the middle of each pixel of the frame.
        sides = zip(image.shape, mask.shape, strict=True)
        mask = mask[np.ix_(*(((np.arange(n) + 0.5) * m / n).astype(int) for n, m in sides))]
    return image[None], mask.astype(np.uint8)


# --- leaves, steel, roads from the air, skies: whole images only


@dataset("coffee_leaf", version=1, family="public", cite="Esgario 2022")
def coffee_leaf(*, seed, scale: Literal["full", "half"] = "full") -> Data:
    """Return photographs of coffee leaves (RGB) with leaf (32 %) and lesions of biotic stress (1.1 %).

    Official split 40/17/25. ``scale``: 'full' is 1024 x 2048; 'half' halves both sides, images by the mean of
    four pixels, masks by the upper left of them. This is the one set that is resized, and it says so.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("coffee_leaf")
        images = [path for path in get_source("coffee_leaf").files if path.endswith(".jpg")]
        items = [Item(path, int(Path(path).stem), part=path.split("/")[-2]) for path in sorted(images)]
        classes = ("background", "leaf", "lesion")
        notes = {"unit_of_independence": "picture", "notes": f"{scale} size"}
        return Pairs(items, lambda path: read_leaf(folder, path, scale), classes, notes=notes)

    return open_public(coffee_leaf, given, build)


def read_leaf(folder: Path, path: str, scale: str = "full") -> tuple[np.ndarray, np.ndarray]:
    """Return one leaf (3, H, W) and its mask, whose colours are (0, 176, 0) for leaf and (255, 0, 0)
    for lesion.
    """
    image = read_picture(folder / path, "RGB")
    # Three exact colours in all files, so one channel each is enough to tell them.
    mask_path = path.replace("/images/", "/annotations/").replace(".jpg", "_mask.png")
    colours = read_picture(folder / mask_path, "RGB")
    mask = np.where(colours[..., 0] == 255, np.uint8(2), (colours[..., 1] == 176).astype(np.uint8))
    if scale == "half":
        # Integers throughout: the sum of four bytes fits 16 bits, and 2 rounds to the nearest.
        rows = image[::2].astype(np.uint16) + image[1::2]
        image, mask = ((rows[:, ::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8), mask[::2, ::2]
    return channels_first(image), mask


@dataset("neu_seg", version=1, family="public", cite="Song 2013")
def neu_seg(*, seed, val_fraction: float = 0.2, test_fraction: float = 0.2) -> Data:
    """Return surfaces of hot-rolled steel (grey, 200 x 200) with inclusions, patches and scratches.

    555 pictures, one of every second group of rotated or flipped copies. The official split puts copies of
    810 of its 840 test images into training; here the split is dealt by picture.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("neu_seg")
        images = sorted(path for path in get_source("neu_seg").files if path.endswith(".jpg"))
        items = [Item(path, number) for number, path in enumerate(images)]
        classes = ("background", "inclusion", "patches", "scratches")
        notes = {"unit_of_independence": "picture"}
        return Pairs(items, lambda path: read_steel(folder, path), classes, notes=notes)

    return open_public(neu_seg, given, build)


def read_steel(folder: Path, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one surface (1, 200, 200) and its class ids."""
    mask = read_picture(folder / path.replace("images/", "annotations/").replace(".jpg", ".png"))
    return read_picture(folder / path, "L")[None], mask


@dataset("epfl_roads", version=1, family="public", cite="EPFL machine learning course")
def epfl_roads(*, seed, val_fraction: float = 0.2, test_fraction: float = 0.2) -> Data:
    """Return 34 aerial images (RGB, 400 x 400) with roads (21 %): nearly balanced, a control.

    The masks are anti-aliased and cut at > 127. Tiles come from few regions, which are not published.
    """
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("epfl_roads")
        images = sorted(path for path in get_source("epfl_roads").files if "/images/" in path)
        items = [Item(path, number) for number, path in enumerate(images)]
        notes = {"unit_of_independence": "picture", "notes": "neighbouring tiles are not known"}
        return Pairs(items, lambda path: read_road(folder, path), ("background", "road"), notes=notes)

    return open_public(epfl_roads, given, build)


def read_road(folder: Path, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one aerial image (3, 400, 400) and its road mask, cut at > 127 (> 0 would add 2.5 points)."""
    mask = read_picture(folder / path.replace("images/images", "groundtruth/groundtruth"), "L") > 127
    return channels_first(read_picture(folder / path, "RGB")), mask.astype(np.uint8)


@dataset("hyta_sky", version=1, family="public", cite="Dev 2015")
def hyta_sky(*, seed, val_fraction: float = 0.2, test_fraction: float = 0.2) -> Data:
    """Return 32 skies (RGB, 19 sizes) with thin (9 %) and thick (43 %) cloud; some hold one class alone."""
    given = without_seed(locals())

    def build() -> Pairs:
        folder = check("hyta_sky")
        stems = sorted(Path(path).stem for path in get_source("hyta_sky").files if path.startswith("images/"))
        items = [Item(stem, number) for stem, number in numbered(stems).items()]
        notes = {"unit_of_independence": "picture"}
        # Sky stands where binary tasks have their background.
        classes = ("sky", "thin cloud", "thick cloud")
        return Pairs(items, lambda stem: read_sky(folder, stem), classes, notes=notes)

    return open_public(hyta_sky, given, build)


def read_sky(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one sky (3, H, W) and its class ids, stored as 0, 126 (not 128) and 255."""
    codes = read_picture(folder / "3GT" / f"{stem}_3GT.png", "L")
    mask = (codes == 126) + 2 * (codes == 255)
    return channels_first(read_picture(folder / "images" / f"{stem}.jpg", "RGB")), mask.astype(np.uint8)
