"""Any data set object in the manner of torchvision, and torchvision's own segmentation sets by name, through
one adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lossbench.base.errors import UserError, nearest
from lossbench.base.seeds import stream
from lossbench.catalogue.registry import dataset
from lossbench.data import prepare
from lossbench.data.container import SPLITS, VOID, Data, container
from lossbench.data.prepare import Item, Prepared, open_prepared
from lossbench.data.scenes import canonical
from lossbench.data.splitting import deal, shuffle_key

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse",
    "motorbike", "person", "potted plant", "sheep", "sofa", "train", "monitor",
)  # fmt: skip

SETS = ("OxfordIIITPet", "VOCSegmentation", "Cityscapes")


@dataset("torchvision", version=1, family="torchvision", cite="torchvision")
def torchvision(
    *,
    seed,
    name: str = "OxfordIIITPet",
    root: str = "",
    limit: int | None = 400,
    view: Literal["crop", "tiles", "whole"] = "crop",
    size: int = 128,
    per_image: int | None = None,
) -> Data:
    """Return one of torchvision's sets from a copy on this machine (nothing is downloaded): OxfordIIITPet,
    VOCSegmentation or Cityscapes.

    ``root`` is what torchvision's class takes; ``limit`` keeps that many images of each official part (None:
    all), in an order that nests. The official test (or validation) images are the test; a fifth of the
    training images is validation. Pets: the border of the trimap is void. Cityscapes: ids become the 19 train
    ids, the rest is void; class 0 (road) stands where binary tasks have their background."""
    if name not in SETS:
        raise UserError(f"torchvision: there is no adapter for '{name}'{nearest(name, SETS)}")
    if not root:
        raise UserError(
            f"torchvision: say where the copy of {name} lies, as in torchvision(name='{name}', root='/data')"
        )
    given = {"name": name, "root": root, "limit": limit, "view": view, "size": size, "per_image": per_image}

    def build() -> Prepared:
        train, test, label_map, classes = _open(name, root)
        order = sorted(range(len(train)), key=lambda n: shuffle_key(f"{name} {n}"))[:limit]
        held = set(order[: max(1, len(order) // 5)])
        tested = sorted(range(len(test)), key=lambda n: shuffle_key(f"{name} test {n}"))[:limit]
        items = [Item(f"train/{n}", n, part="val" if n in held else "train") for n in sorted(order)]
        items += [Item(f"test/{n}", len(train) + n, part="test") for n in sorted(tested)]

        def read(item: str):
            part, number = item.split("/")
            return pair_of(
                (train if part == "train" else test)[int(number)], label_map, VOID, len(classes), item
            )

        return prepare.prepare(items, read, view=view, size=size, per_image=per_image, classes=classes)

    card = {
        "licence": "see the set's own page",
        "citation": name,
        "url": "",
        "source": f"torchvision.datasets.{name}",
    }
    return open_prepared("torchvision", canonical(torchvision, given), given, 1, seed, build, card)


def _open(name: str, root: str) -> tuple[Any, Any, dict[int, int] | None, tuple[str, ...]]:
    try:
        from torchvision import datasets
    except ImportError:
        raise UserError("torchvision(...) needs the package torchvision") from None
    try:
        if name == "OxfordIIITPet":
            sets = [
                datasets.OxfordIIITPet(root, split, target_types="segmentation")
                for split in ("trainval", "test")
            ]
            return *sets, {1: 1, 2: 0, 3: VOID}, ("background", "pet")
        if name == "VOCSegmentation":
            return *(datasets.VOCSegmentation(root, image_set=part) for part in ("train", "val")), None, VOC
        sets = [datasets.Cityscapes(root, split, target_type="semantic") for split in ("train", "val")]
        train_ids = {
            c.id: c.train_id if 0 <= c.train_id < 19 else VOID
            for c in datasets.Cityscapes.classes
            if c.id >= 0
        }
        names = {c.train_id: c.name for c in datasets.Cityscapes.classes if 0 <= c.train_id < 19}
        return *sets, train_ids, tuple(names[i] for i in range(19))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"torchvision: {name} cannot be opened at '{root}' ({str(error).splitlines()[0]})"
        ) from None


def from_torchvision(
    objects: Any | dict[str, Any],
    *,
    num_classes: int,
    label_map: dict[int, int] | Callable[[np.ndarray], np.ndarray] | None = None,
    ignore_index: int | None = None,
    classes: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
    name: str = "torchvision_object",
    view: Literal["crop", "tiles", "whole"] = "whole",
    size: int = 128,
    per_image: int | None = None,
    fractions: tuple[float, float] = (0.2, 0.2),
    seed: int = 0,
) -> Data:
    """Return any object whose items are (image, mask) pairs as a data set, in memory.

    ``objects`` is one such object, split here by ``groups`` (default: each item its own) into ``fractions``
    of val and test, or a dictionary with the keys train, val and test. Images may be PIL pictures, arrays (H,
    W[, C]) or tensors (C, H, W); masks hold class ids below ``num_classes`` after ``label_map`` (a dictionary
    from old to new ids, or a function of the array), and ``ignore_index`` for void."""
    parts = objects if isinstance(objects, dict) else {"": objects}
    if isinstance(objects, dict) and set(parts) != set(SPLITS):
        raise UserError(f"{name}: the objects must be named train, val and test, got {sorted(parts)}")
    items, number = [], 0
    for part, source in parts.items():
        for n in range(len(source)):
            items.append(
                Item(f"{part}/{n}", int(groups[number]) if groups is not None else number, part=part)
            )
            number += 1
    if not items:
        raise UserError(f"{name}: the object is empty")

    def read(item: str):
        part, at = item.rsplit("/", 1)
        return pair_of(parts[part][int(at)], label_map, ignore_index, num_classes, f"{name} {item}")

    names = tuple(
        classes
        or (("background", "foreground") if num_classes == 2 else [f"class_{k}" for k in range(num_classes)])
    )
    made = prepare.prepare(items, read, view=view, size=size, per_image=per_image, classes=names)
    found = np.asarray(made.groups)
    if made.parts:
        split = {part: np.flatnonzero(np.asarray(made.parts) == part) for part in SPLITS}
    else:
        split = deal(found, fractions, stream("split", name, seed), name=name)
    return container(
        name=name, images=made.images, masks=made.masks, split=split, groups=found, classes=names, ignore_index=VOID,
        card={"licence": "the user's own", "citation": "", "url": "", "source": "a data set object"},
    )  # fmt: skip


def pair_of(
    pair: Any, label_map, ignore_index: int | None, num_classes: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, H, W) and mask (H, W) of class ids with 255 for void, from whatever one item of a data
    set object holds.
    """
    try:
        image, mask = pair[0], pair[1]
    except (TypeError, IndexError, KeyError):
        raise UserError(
            f"{where}: an item must be a pair (image, mask), it is {type(pair).__name__}"
        ) from None
    mask = np.asarray(mask).squeeze()
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.number):
        raise UserError(
            f"{where}: the mask must be (H, W) numbers, it has the shape {mask.shape} and type {mask.dtype}"
        )
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[None]
    elif array.shape[:2] == mask.shape:
        array = np.moveaxis(array, -1, 0)
    if array.shape[1:] != mask.shape:
        raise UserError(
            f"{where}: the image {np.asarray(image).shape} and the mask {mask.shape} differ in size"
        )
    void = np.zeros(mask.shape, bool) if ignore_index is None else mask == ignore_index
    if callable(label_map):
        mapped = np.asarray(label_map(mask))
    elif label_map is not None:
        mapped = np.full(mask.shape, -1, np.int64)
        for old, new in label_map.items():
            mapped[mask == old] = new
            void |= (mask == old) & (new in (VOID, ignore_index))
    else:
        mapped = mask.astype(np.int64)
    strange = np.unique(mask[~void & ((mapped < 0) | (mapped >= num_classes))])
    if len(strange):
        raise UserError(
            f"{where}: the mask holds {strange[0]}, which is no class below {num_classes}; give "
            "label_map or ignore_index"
        )
    return array.astype(np.float32), np.where(void, VOID, mapped).astype(np.uint8)
