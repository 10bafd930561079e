"""MedSegBench files, torchvision-style objects and torchvision's own sets come in through adapters that check
what they get.
"""

import numpy as np
import pytest
from PIL import Image

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data.inspection import inspect
from lossbench.data.torch_sets import from_torchvision, pair_of


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Each test reads its own files."""


@pytest.fixture
def make_npz(tmp_path):
    """Return a function that writes a MedSegBench-like file; ``drop`` leaves keys out, ``changed`` replaces
    or adds some.
    """

    def make(colour=False, top=1, categories=(), trailing=False, drop=(), **changed):
        rng = np.random.default_rng(0)
        arrays = {}
        for part, count in (("train", 6), ("val", 3), ("test", 4)):
            for suffix in [f"_{c}" for c in categories] or [""]:
                labels = rng.integers(0, top + 1, (count, 32, 32)).astype(np.uint8)
                arrays[f"{part}_label{suffix}"] = labels[..., None] if trailing else labels
            arrays[f"{part}_images"] = rng.integers(
                0, 256, (count, 32, 32, 3) if colour else (count, 32, 32)
            ).astype(np.uint8)
        path = tmp_path / "toy_32.npz"
        np.savez_compressed(path, **{k: v for k, v in {**arrays, **changed}.items() if k not in drop})
        return path, arrays

    return make


def load(path, **options):
    given = ", ".join([f"path={str(path)!r}", *(f"{k}={v!r}" for k, v in options.items())])
    return get_dataset(f"folder({given})")


@pytest.mark.parametrize(
    ("colour", "top", "trailing"), [(False, 1, False), (True, 5, False), (False, 1, True)]
)
def test_a_medsegbench_file_keeps_its_official_parts(make_npz, colour, top, trailing):
    path, arrays = make_npz(colour, top, trailing=trailing)
    data = load(path)
    assert {part: len(index) for part, index in data.split.items()} == {"train": 6, "val": 3, "test": 4}
    assert data.images.shape == (13, 3 if colour else 1, 32, 32) and len(data.classes) == top + 1
    assert np.array_equal(data.masks[data.split["test"]], arrays["test_label"].reshape(4, 32, 32))


def test_categories_share_their_images_and_must_be_chosen(make_npz):
    path, arrays = make_npz(categories=("C1", "C2"))
    with pytest.raises(UserError, match="the categories are 'C1', 'C2'"):
        load(path)
    assert np.array_equal(load(path, category="C2").masks[:6], arrays["train_label_C2"])
    findings = inspect(path)
    assert "looked at 'C1'" in findings.suspicious[0] and "category='C1'" in findings.spec


def test_a_file_that_is_not_medsegbench_is_refused(make_npz, tmp_path):
    for drop, changed, word in (
        (("val_label",), {}, "part 'val'"),
        (("train_label", "val_label", "test_label"), {"labels": np.zeros(3)}, "not a MedSegBench file"),
        ((), {"test_label": np.zeros((4, 16, 16), np.uint8)}, "do not fit"),
        ((), {"train_label": np.full((6, 32, 32), 0.5)}, "probability"),
    ):
        path, _ = make_npz(drop=drop, **changed)
        with pytest.raises(UserError, match=word) as refused:
            load(path)
        assert "toy_32.npz" in str(refused.value)
    (tmp_path / "bad.npz").write_bytes(b"PK rubbish")
    with pytest.raises(UserError, match=r"bad\.npz: is not a readable"):
        load(tmp_path / "bad.npz")


def test_inspect_reads_a_medsegbench_file(make_npz):
    found = inspect(make_npz(top=3)[0])
    assert found.layout == "a MedSegBench file" and found.pairs == 13 and len(found.classes) == 4


class Toy:
    """A data set object as torchvision has them."""

    def __init__(
        self,
        count=12,
        values=(0, 1, 255),
        make=lambda image, mask: (Image.fromarray(image), Image.fromarray(mask)),
    ):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (count, 20, 24, 3)).astype(np.uint8)
        self.masks = rng.choice(values, (count, 20, 24)).astype(np.uint8)
        self.make = make

    def __len__(self):
        return len(self.images)

    def __getitem__(self, n):
        return self.make(self.images[n], self.masks[n])


def tensors(image, mask):
    import torch

    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None]


@pytest.mark.parametrize(
    "make",
    [lambda image, mask: (Image.fromarray(image), Image.fromarray(mask)), tensors, lambda i, m: {0: i, 1: m}],
)
def test_an_object_of_pairs_becomes_a_data_set(make):
    toy = Toy(make=make)
    data = from_torchvision(toy, num_classes=2, ignore_index=255)
    assert data.images.shape == (12, 3, 20, 24) and data.ignore_index == 255
    assert np.array_equal(data.masks, toy.masks) and sum(map(len, data.split.values())) == 12


def test_parts_groups_and_label_maps_are_respected():
    parts = {"train": Toy(6), "val": Toy(3), "test": Toy(4)}
    assert [len(i) for i in from_torchvision(parts, num_classes=2, ignore_index=255).split.values()] == [
        6,
        3,
        4,
    ]
    grouped = from_torchvision(Toy(12), num_classes=2, ignore_index=255, groups=np.arange(12) // 4)
    assert sorted(len(i) for i in grouped.split.values()) == [4, 4, 4]
    mapped = from_torchvision(Toy(values=(1, 2, 3)), num_classes=2, label_map={1: 1, 2: 0, 3: 255})
    assert np.array_equal(np.unique(mapped.masks), [0, 1, 255])
    shifted = from_torchvision(Toy(values=(1, 2)), num_classes=2, label_map=lambda mask: mask - 1)
    assert np.array_equal(np.unique(shifted.masks), [0, 1])


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        (Toy(values=(0, 7)), {}, "holds 7, which is no class below 2"),
        (Toy(values=(0, 1, 255)), {}, "holds 255"),
        (Toy(values=(0, 3)), {"label_map": {0: 0}}, "holds 3"),
        (Toy(0), {}, "empty"),
        (Toy(make=lambda i, m: 5), {}, "must be a pair"),
        (Toy(make=lambda i, m: (i[:5], m)), {}, "differ in size"),
        (Toy(make=lambda i, m: (i, i)), {}, "must be"),
        ({"train": Toy(3)}, {}, "train, val and test"),
    ],
)
def test_an_object_that_cannot_be_meant_is_refused(source, options, word):
    with pytest.raises(UserError, match=word):
        from_torchvision(source, num_classes=2, **options)


def test_torchvisions_sets_are_named_and_found_or_said_to_be_absent(tmp_path):
    pytest.importorskip("torchvision")
    for name in ("OxfordIIITPet", "VOCSegmentation", "Cityscapes"):
        with pytest.raises(UserError, match=f"{name} cannot be opened at"):
            get_dataset(f"torchvision(name='{name}', root={str(tmp_path)!r})")
    with pytest.raises(UserError, match="did you mean 'VOCSegmentation'"):
        get_dataset("torchvision(name='VOCsegmentation', root='x')")
    with pytest.raises(UserError, match="say where the copy"):
        get_dataset("torchvision")


def test_a_voc_folder_is_read_with_its_void_and_official_parts(tmp_path):
    pytest.importorskip("torchvision")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for part, names in (("train", "abcdef"), ("val", "uvw")):
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(
                root / "JPEGImages" / f"{name}.jpg"
            )
            mask = Image.fromarray(rng.choice([0, 5, 20, 255], (40, 50)).astype(np.uint8), "P")
            mask.putpalette(list(range(256)) * 3)
            mask.save(root / "SegmentationClass" / f"{name}.png")
    data = get_dataset(f"torchvision(name='VOCSegmentation', root={str(tmp_path)!r}, view='padded')")
    assert [len(index) for index in data.split.values()] == [5, 1, 3] and len(data.classes) == 21
    assert data.images.shape == (9, 3, 40, 52) and set(np.unique(data.masks)) == {0, 5, 20, 255}


def test_a_pet_folder_has_its_border_as_void(tmp_path):
    pytest.importorskip("torchvision")
    root = tmp_path / "oxford-iiit-pet"
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    for part, count in (("trainval", 6), ("test", 3)):
        names = [f"{part}_{n}" for n in range(count)]
        (root / "annotations" / f"{part}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
        for name in names:
            Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / "images" / f"{name}.jpg")
            trimap = np.full((30, 40), 2, np.uint8)
            trimap[5:20, 5:20], trimap[8:17, 8:17] = 3, 1
            Image.fromarray(trimap).save(root / "annotations" / "trimaps" / f"{name}.png")
    data = get_dataset(f"torchvision(name='OxfordIIITPet', root={str(tmp_path)!r}, view='padded', limit=5)")
    assert [len(index) for index in data.split.values()] == [4, 1, 3] and data.classes == (
        "background",
        "pet",
    )
    assert (data.masks[0] == 1).sum() == 81 and (
        data.masks[0] == 255
    ).sum() == 225 - 81 + 2 * 40  # two rows of padding


def test_streets_get_their_train_ids(tmp_path):
    pytest.importorskip("torchvision")
    for part, count in (("train", 5), ("val", 3)):
        for n in range(count):
            for folder, name, array in (
                ("leftImg8bit", "leftImg8bit", np.zeros((16, 32, 3), np.uint8)),
                ("gtFine", "gtFine_labelIds", np.array([[7, 8, 0, 33]], np.uint8).repeat(16, 0).repeat(8, 1)),
            ):
                path = tmp_path / folder / part / "city" / f"city_{n:06d}_000019_{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    data = get_dataset(f"torchvision(name='Cityscapes', root={str(tmp_path)!r}, view='padded')")
    assert len(data.classes) == 19 and data.classes[0] == "road"
    assert data.masks[0, 0, ::8].tolist() == [0, 1, 255, 18]


def test_a_grey_image_and_a_mask_with_an_axis_of_one_fit():
    image, mask = pair_of((np.zeros((4, 5)), np.ones((1, 4, 5))), None, None, 2, "x")
    assert image.shape == (1, 4, 5) and mask.shape == (4, 5)
