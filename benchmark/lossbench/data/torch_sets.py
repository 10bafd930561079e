"""Any data set object in the manner of torchvision, and torchvision's own segmentation sets, by one
adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lossbench.base.errors import UserError, nearest
from lossbench.base.seeds import shuffle_key, stream
from lossbench.base.specs import canonical, without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data import windows
from lossbench.data.container import SPLITS, VOID, Data, class_names, container
from lossbench.data.pairs import Arrays, Item, Pairs
from lossbench.data.prepare import open_prepared
from lossbench.data.splitting import deal

PETS = ("background", "pet")

# In the order of their ids.
VOC = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "monitor",
)

SETS = ("OxfordIIITPet", "VOCSegmentation", "Cityscapes")


@dataset("torchvision", version=1, family="torchvision", cite="torchvision")
def torchvision(
    *,
    seed,
    name: str = "OxfordIIITPet",
    root: str = "",
    limit: int | None = 400,
    view: Literal["whole", "crop", "tiles", "padded"] = "whole",
    size: int = 128,
    per_image: int | None = None,
) -> Data:
    """Return one of torchvision's sets from a copy on this machine (nothing is downloaded).

    - ``name``: OxfordIIITPet (the border of its trimap is void), VOCSegmentation, or Cityscapes (ids become
      the 19 train ids, the rest is void; class 0, road, stands where binary tasks have their background);
    - ``root``: what torchvision's class takes; ``limit``: images of each official part (None: all), in an
      order that nests;
    - ``view``: 'whole' images, or windows of ``size`` ('crop', 'tiles', ``per_image`` of them) or 'padded'.

    The official test (or validation) images are the test; a fifth of the training images is validation.
    """
    given = without_seed(locals())
    if name not in SETS:
        raise UserError(f"torchvision: there is no adapter for '{name}'{nearest(name, SETS)}")
    if not root:
        example = f"torchvision(name='{name}', root='/data')"
        raise UserError(f"torchvision: say where the copy of {name} lies, as in {example}")

    def build() -> Pairs:
        train, test, label_map, classes = _open(name, root)
        # By hash of the number: a larger limit adds images and takes none away.
        order = sorted(range(len(train)), key=lambda n: shuffle_key(f"{name} {n}"))[:limit]
        validation = set(order[: max(1, len(order) // 5)])
        tested = sorted(range(len(test)), key=lambda n: shuffle_key(f"{name} test {n}"))[:limit]
        items = [Item(f"train/{n}", n, part="val" if n in validation else "train") for n in sorted(order)]
        # Numbers go on after those of training, so that no test picture shares a group with one.
        items += [Item(f"test/{n}", len(train) + n, part="test") for n in sorted(tested)]

        def read(item: str) -> tuple[np.ndarray, np.ndarray]:
            part, number = item.split("/")
            objects = train if part == "train" else test
            return pair_of(objects[int(number)], label_map, VOID, len(classes), item)

        return Pairs(items, read, classes)

    card = {"licence": "see the set's own page", "citation": name, "url": ""}
    card["source"] = f"torchvision.datasets.{name}"
    return open_prepared("torchvision", canonical(torchvision, given), given, 1, build, card)


def _open(name: str, root: str) -> tuple[Any, Any, dict[int, int] | None, tuple[str, ...]]:
    """Return train and test objects, how their ids become ours, and the class names."""
    try:
        from torchvision import datasets
    except ImportError:
        raise UserError("torchvision(...) needs the package torchvision") from None
    try:
        if name == "OxfordIIITPet":
            parts = ("trainval", "test")
            sets = [datasets.OxfordIIITPet(root, part, target_types="segmentation") for part in parts]
            return *sets, {1: 1, 2: 0, 3: VOID}, PETS  # 3 is the border between pet and background
        if name == "VOCSegmentation":
            return *(datasets.VOCSegmentation(root, image_set=part) for part in ("train", "val")), None, VOC
        # Its test masks are not public; validation stands for the test.
        sets = [datasets.Cityscapes(root, part, target_type="semantic") for part in ("train", "val")]
        known = {c.train_id: c.name for c in datasets.Cityscapes.classes if 0 <= c.train_id < 19}
        ids = {c.id: c.train_id for c in datasets.Cityscapes.classes if c.id >= 0}
        label_map = {old: new if new in known else VOID for old, new in ids.items()}
        return *sets, label_map, tuple(known[number] for number in range(19))
    # torchvision raises RuntimeError where files are not there, in a text whose first line says it.
    except (RuntimeError, OSError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"torchvision: {name} cannot be opened at '{root}' ({why})") from None


def from_torchvision(
    objects: Any | dict[str, Any],
    *,
    num_classes: int,
    label_map: dict[int, int] | Callable[[np.ndarray], np.ndarray] | None = None,
    ignore_index: int | None = None,
    classes: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
    name: str = "torchvision_object",
    view: Literal["whole", "crop", "tiles", "padded"] = "padded",
    size: int = 128,
    per_image: int | None = None,
    fractions: tuple[float, float] = (0.2, 0.2),
    seed: int = 0,
) -> Data:
    """Return any object whose items are (image, mask) pairs as a data set, in memory.

    - ``objects``: one such object, split here by ``groups`` (default: each item its own) into ``fractions``
      of val and test, or a dictionary with the keys train, val and test. Images may be PIL pictures, arrays
      (H, W[, C]) or tensors (C, H, W);
    - ``num_classes``, ``label_map``, ``ignore_index``: masks hold class ids below ``num_classes`` after
      ``label_map`` (a dictionary from old to new ids, or a function of the array), and ``ignore_index`` for
      void; ``classes``: their names;
    - ``view``, ``size``, ``per_image``: 'whole' images, windows, or pictures padded to one size.
    """
    parts = objects if isinstance(objects, dict) else {"": objects}
    if isinstance(objects, dict) and set(parts) != set(SPLITS):
        raise UserError(f"{name}: the objects must be named train, val and test, got {sorted(parts)}")
    places = [(part, n) for part, source in parts.items() for n in range(len(source))]
    if not places:
        raise UserError(f"{name}: the object is empty")
    # Without groups each item is one: right only where no two show the same thing.
    units = groups if groups is not None else range(len(places))
    items = [Item(f"{part}/{n}", int(unit), part=part) for (part, n), unit in zip(places, units, strict=True)]

    def read(item: str) -> tuple[np.ndarray, np.ndarray]:
        part, at = item.rsplit("/", 1)
        return pair_of(parts[part][int(at)], label_map, ignore_index, num_classes, f"{name} {item}")

    names = tuple(classes or _names(num_classes))
    # Objects cannot be hashed, so nothing of them is kept on disk.
    pairs = Pairs(items, read, names)
    made = _whole(pairs) if view == "whole" else windows.cut(pairs, view=view, size=size, per_image=per_image)
    kept_groups, kept_parts = (
        np.array([getattr(item, key) for item in made.items]) for key in ("group", "part")
    )
    if isinstance(objects, dict):
        split = {part: np.flatnonzero(kept_parts == part) for part in SPLITS}
    else:
        # By group: two pictures of one unit must not stand on both sides of a split.
        split = deal(kept_groups, fractions, stream("split", name, seed), name=name)
    return container(
        name=name,
        images=made.images,
        masks=made.masks,
        split=split,
        groups=kept_groups,
        classes=names,
        ignore_index=VOID,
        card={"licence": "the user's own", "citation": "", "url": "", "source": "a data set object"},
    )


def _whole(pairs: Pairs) -> Arrays:
    """Return all pictures as they are, in lists."""
    images, masks = zip(*(pairs.read(item.name) for item in pairs.items), strict=True)
    names = [item.name for item in pairs.items]
    return Arrays(list(map(windows.zscore, images)), list(masks), pairs.items, names)


def _names(count: int) -> list[str]:
    return list(class_names(2)) if count == 2 else [f"class_{k}" for k in range(count)]


def pair_of(
    pair: Any, label_map, ignore_index: int | None, num_classes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, H, W) and mask (H, W) of class ids with 255 for void, from one item of an object."""
    # Items may hold more than two things, such as a file name.
    try:
        image, mask = pair[0], pair[1]
    except (TypeError, IndexError, KeyError):
        kind = type(pair).__name__
        raise UserError(f"{where}: an item must be a pair (image, mask), it is {kind}") from None
    mask = np.asarray(mask).squeeze()
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.number):
        given = f"it has the shape {mask.shape} and type {mask.dtype}"
        raise UserError(f"{where}: the mask must be (H, W) numbers, {given}")
    array = np.asarray(image)
    # Grey pictures have no axis for their channel.
    if array.ndim == 2:
        array = array[None]
    elif array.shape[:2] == mask.shape:  # a picture or an array; tensors have their channels first already
        array = np.moveaxis(array, -1, 0)
    if array.shape[1:] != mask.shape:
        shapes = f"the image {np.asarray(image).shape} and the mask {mask.shape}"
        raise UserError(f"{where}: {shapes} differ in size")
    ids, void = _mapped(mask, label_map, ignore_index)
    # The user's own values are named, not those after the mapping.
    strange = np.unique(mask[~void & ((ids < 0) | (ids >= num_classes))])
    if len(strange):
        value = f"the mask holds {strange[0]}, which is no class below {num_classes}"
        raise UserError(f"{where}: {value}; give label_map or ignore_index")
    return array, np.where(void, VOID, ids).astype(np.uint8)


def _mapped(mask: np.ndarray, label_map, ignore_index: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return class ids (-1 for what a dictionary does not name) and where the mask is void."""
    # Void is looked for before the mapping, which may give its value to a class.
    void = np.zeros(mask.shape, bool) if ignore_index is None else mask == ignore_index
    if callable(label_map):
        return np.asarray(label_map(mask)), void
    if label_map is None:
        return mask.astype(np.int64), void
    ids = np.full(mask.shape, -1, np.int64)
    for old, new in label_map.items():
        ids[mask == old] = new
        if new in (VOID, ignore_index):
            void |= mask == old
    return ids, void
