"""A user's folder is read as it lies, or refused in one sentence that names the file."""

import json
import shutil

import numpy as np
import pytest
from data_files import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data import layouts
from lossbench.data.container import Ratings


def load(root, seed=0, **options):
    given = ", ".join([f"path={str(root)!r}", *(f"{key}={value!r}" for key, value in options.items())])
    return get_dataset(f"folder({given})", seed=seed)


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Each test reads its own folders."""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".nii", ".nii.gz", ".bmp"])
def test_every_format_gives_the_same_data(make_folder, suffix):
    data, same = load(make_folder(suffix=suffix, name="a")), load(make_folder(suffix=".png", name="b"))
    assert data.fingerprint == same.fingerprint
    assert len(data) == 12 and data.shape == (24, 20) and data.classes == ("background", "foreground")
    assert abs(np.asarray(data.images[0]).mean()) < 1e-4
    assert [(m == 1).sum() for m in data.masks] == [25] * 12


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    count=st.integers(3, 8),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    classes=st.integers(2, 4),
    channels=st.sampled_from([1, 3]),
    suffix=st.sampled_from([".png", ".npy", ".tif"]),
    void=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_what_was_written_is_what_is_read(
    tmp_path_factory, count, height, width, classes, channels, suffix, void, seed
):
    root = tmp_path_factory.mktemp("property")
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    masks = rng.integers(0, classes, (count, height, width)).astype(np.uint8)
    masks[:, 0, :classes] = np.arange(classes)
    if void and classes > 2:
        masks[:, 1, 0] = 255
    for folder, arrays in (("images", images), ("masks", masks)):
        (root / folder).mkdir()
        for n, array in enumerate(arrays):
            write(root / folder / f"{n}{suffix}", array)
    data = load(root)
    assert len(data) == count and len(data.classes) == classes
    for n, name in enumerate(data.card["names"]):
        assert name == str(n)
        valid = (slice(0, height), slice(0, width))
        assert np.array_equal(data.masks[n][valid], masks[n])
        rest = data.masks[n].copy()
        rest[valid] = 255
        assert (rest == 255).all()
        plain = images[n] if channels == 1 else images[n][..., 0]
        assert np.corrcoef(data.images[n, 0][valid].ravel(), plain.ravel())[0, 1] == pytest.approx(
            1, abs=1e-5
        )


def test_mask_names_may_carry_the_usual_endings_and_hidden_files_are_passed_over(make_folder):
    root = make_folder()
    for n, file in enumerate(sorted((root / "masks").iterdir())):
        file.rename(file.with_name(f"{file.stem}{('_mask', '_seg', '_gt')[n % 3]}.png"))
    (root / "images" / "._case00.png").write_bytes(b"mac")
    (root / "images" / "Thumbs.db").write_bytes(b"windows")
    assert len(load(root)) == 12


def test_large_pictures_stay_whole_and_small_ones_of_one_size_are_arrays(make_folder):
    large = load(make_folder(shape=(300, 420), count=6))
    assert large.shape == (300, 420) and large.counts[:, 1].tolist() == [25] * 6
    assert load(make_folder(name="small")).images.shape == (12, 1, 24, 20)


def test_a_split_and_groups_are_taken_from_their_tables(make_folder):
    root = make_folder()
    (root / "split.csv").write_text(
        "name,split\n" + "".join(f"case{n:02d}.png,{('train', 'val', 'test')[n % 3]}\n" for n in range(12))
    )
    assert {part: index.tolist() for part, index in load(root).split.items()} == {
        part: list(range(k, 12, 3)) for k, part in enumerate(("train", "val", "test"))
    }
    (root / "split.csv").unlink()
    (root / "groups.csv").write_text(
        "name,group\n" + "".join(f"case{n:02d},patient {n // 3}\n" for n in range(12))
    )
    for seed in range(4):
        data = load(root, seed=seed)
        assert len(np.unique(data.groups)) == 4
        assert all(len(index) % 3 == 0 for index in data.split.values())


def test_a_split_without_validation_gets_a_fifth_of_its_training_groups(make_folder):
    root = make_folder()
    rows = "".join(f"case{n:02d},{'test' if n > 9 else 'train'}\n" for n in range(12))
    (root / "split.csv").write_text(f"name,split\n{rows}")
    assert [len(index) for index in load(root, view="whole").split.values()] == [8, 2, 2]


def test_a_split_that_divides_a_group_is_refused(make_folder):
    root = make_folder()
    (root / "split.csv").write_text(
        "name,split\n" + "".join(f"case{n:02d},{('train', 'val', 'test')[n % 3]}\n" for n in range(12))
    )
    (root / "groups.csv").write_text("name,group\n" + "".join(f"case{n:02d},{n // 2}\n" for n in range(12)))
    with pytest.raises(UserError, match="would leak"):
        load(root)


@pytest.mark.parametrize(
    ("table", "text", "word"),
    [
        ("split.csv", "name,which\na,b\n", "columns 'name' and 'split'"),
        ("split.csv", "", "columns"),
        ("split.csv", "name,split\nstranger,train\n", "names 'stranger'"),
        ("split.csv", "name,split\ncase00,train\n", "does not name 'case01'"),
        (
            "split.csv",
            "name,split\n" + "".join(f"case{n:02d},train\n" for n in range(12)),
            "no images for test",
        ),
        ("split.csv", "name,split\n" + "".join(f"case{n:02d},holdout\n" for n in range(12)), "'holdout'"),
        ("groups.csv", "name,group\ncase00,a\ncase00,b\n", "twice"),
        ("groups.csv", "name,group\ncase00,\n", "row without"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_by_name(make_folder, table, text, word):
    root = make_folder()
    (root / table).write_text(text)
    with pytest.raises(UserError, match=word) as refused:
        load(root)
    assert table in str(refused.value) and "\n" not in str(refused.value)


def lonely(root):
    (root / "masks" / "case03.png").unlink()


def rubbish(root):
    (root / "images" / "case03.png").write_bytes(b"rubbish")


def cut(root):
    whole = (root / "masks" / "case03.png").read_bytes()
    (root / "masks" / "case03.png").write_bytes(whole[: len(whole) // 2])


def other_size(root):
    write(root / "images" / "case03.png", np.zeros((10, 10), np.uint8))


def colour_mask(root):
    write(
        root / "masks" / "case03.png", np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    )


def grey_mask(root):
    for file in (root / "masks").iterdir():
        array = np.zeros((24, 20), np.uint8)
        array[5:12, 5:12] = np.arange(49).reshape(7, 7) * 5
        write(file, array)


def odd_values(root):
    for file in (root / "masks").iterdir():
        write(
            file,
            np.where(
                np.arange(480).reshape(24, 20) % 9 == 0, 200, np.arange(480).reshape(24, 20) % 2 * 90
            ).astype(np.uint8),
        )


def twins(root):
    shutil.copy(root / "images" / "case03.png", root / "images" / "case03.tif")


def more_channels(root):
    (root / "images" / "case03.png").unlink()
    np.save(root / "images" / "case03.npy", np.zeros((24, 20, 5)))


def empty(root):
    for file in root.rglob("*.png"):
        file.unlink()


def no_masks(root):
    shutil.rmtree(root / "masks")


def few(root):
    for file in root.rglob("case*.png"):
        if file.stem not in ("case00", "case01"):
            file.unlink()


def probabilities(root):
    for file in (root / "masks").glob("*.png"):
        np.save(file.with_suffix(".npy"), np.full((24, 20), 0.3))
        file.unlink()


def not_finite(root):
    (root / "images" / "case03.png").unlink()
    np.save(root / "images" / "case03.npy", np.full((24, 20), np.nan))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lonely, r"images/case03.png' has no mask"),
        (rubbish, r"case03.png: is not a picture .* leave it out by leave_out=\['case03'\]"),
        (cut, r"case03.png: cannot be read .* leave it out by leave_out=\['case03'\]"),
        (other_size, r"case03.png: has the shape \(10, 10\), its mask \(24, 20\); mend it, or leave it out"),
        (colour_mask, "colours, too many"),
        (grey_mask, "anti-aliased.*threshold=120"),
        (odd_values, r"values=\[0, 90, 200\]"),
        (twins, "same stem"),
        (more_channels, "5 channels"),
        (empty, "no pair"),
        (no_masks, "--images 'PATTERN' --masks 'PATTERN'"),
        (few, "three"),
        (probabilities, "probability map(?!.*leave_out)"),
        (not_finite, "not finite"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_folders_are_refused_in_one_sentence(make_folder, damage, word, cache):
    root = make_folder()
    damage(root)
    with pytest.raises(UserError, match=word) as refused:
        load(root)
    assert "\n" not in str(refused.value)
    assert not list(cache.glob("prepared/*/meta.json"))


def test_pictures_of_unequal_channels_are_refused_with_their_folder(tmp_path):
    for number in range(10):
        for part, shape in (("images", (2 if number == 7 else 3, 24, 24)), ("masks", (24, 24))):
            (tmp_path / part).mkdir(exist_ok=True)
            np.save(tmp_path / part / f"{number}.npy", np.eye(24, dtype=np.uint8) + np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="'7' has 2 channels, the images before it have 3") as refused:
        load(tmp_path)
    assert str(refused.value).startswith(str(tmp_path))


def test_a_path_that_is_not_there_or_not_given_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="say where the data are"):
        get_dataset("folder")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"MedSegBench \.npz"):
        load(tmp_path / "a.txt")


def test_the_values_of_masks_can_be_declared(make_folder):
    root = make_folder(values=(0, 128, 255), shape=(40, 40))
    data = load(root, values=[0, 128, 255])
    assert data.classes == ("background", "class_1", "class_2") and set(np.unique(data.masks)) == {0, 1, 2}
    assert set(np.unique(load(root, threshold=200).masks)) == {0, 1}
    void = load(root, values=[0, 255], ignore_index=128)
    assert void.classes == ("background", "foreground")
    assert np.array_equal(np.asarray(void.masks) == 255, np.asarray(data.masks) == 1)
    with pytest.raises(UserError, match="holds the mask value 128"):
        load(root, values=[0, 255])
    with pytest.raises(UserError, match="between 0 and 65535"):
        load(root, values=[0, 70000])


# --- task folders


@pytest.fixture
def make_task(tmp_path):
    """Return a function that writes a Decathlon or nnU-Net task of small volumes."""

    def make(kind="decathlon", channels=1, labels=None, count=5, shape=(20, 18, 6), spacing=(1.0, 1.0, 2.0)):
        rng = np.random.default_rng(0)
        root = tmp_path / kind
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
        entries = []
        for n in range(count):
            mask = np.zeros(shape, np.float32 if n == 1 else np.uint8)  # float labels occur in the Decathlon
            mask[3:9, 4:10, 1:4] = 1
            mask[12:15, 4:10, 2:5] = 2
            write(root / "labelsTr" / f"c_{n}.nii.gz", mask, spacing)
            image = rng.normal(0, 100, (*shape, channels)).astype(np.float32) + 200 * mask[..., None]
            if kind == "decathlon":
                write(root / "imagesTr" / f"c_{n}.nii.gz", image[..., 0] if channels == 1 else image, spacing)
                entries.append({"image": f"./imagesTr/c_{n}.nii.gz", "label": f"./labelsTr/c_{n}.nii.gz"})
            else:
                for channel in range(channels):
                    write(root / "imagesTr" / f"c_{n}_{channel:04d}.nii.gz", image[..., channel], spacing)
        (root / "imagesTr" / "._c_0.nii.gz").write_bytes(b"")
        if kind == "decathlon":
            described = {
                "modality": {str(c): "MRI" for c in range(channels)},
                "labels": {"0": "background", "1": "a", "2": "b"},
                "training": entries,
            }
        else:
            described = {
                "channel_names": {str(c): "MRI" for c in range(channels)},
                "labels": {"background": 0, "a": 1, "b": 2},
                "numTraining": count,
            }
        (root / "dataset.json").write_text(
            json.dumps({**described, **({"labels": labels} if labels else {})})
        )
        return root

    return make


@pytest.mark.parametrize("kind", ["decathlon", "nnunet"])
@pytest.mark.parametrize("channels", [1, 2])
def test_task_folders_give_slices_and_volumes_with_their_names_and_spacing(make_task, kind, channels):
    root = make_task(kind, channels)
    slices, volumes = load(root), load(root, view="whole")
    assert slices.classes == volumes.classes == ("background", "a", "b")
    assert slices.images[0].shape == (channels, 20, 18) and slices.spacing == (1.0, 1.0)
    assert slices.unit == "mm" and len(slices) == 30 and len(np.unique(slices.groups)) == 5
    assert volumes.images[0].shape == (channels, 20, 18, 6) and volumes.spacing == (1.0, 1.0, 2.0)
    assert volumes.counts[:, 1].sum() == 5 * 6 * 6 * 3 == slices.counts[:, 1].sum()


def test_other_labels_of_a_task_are_refused_or_ignored_as_declared(make_task):
    root = make_task(labels={"background": 0, "whole": [1, 2]})
    with pytest.raises(UserError, match="regions"):
        load(root)
    (root / "dataset.json").write_text(
        json.dumps(
            {**json.loads((root / "dataset.json").read_text()), "labels": {"0": "background", "1": "a"}}
        )
    )
    with pytest.raises(UserError, match=r"c_0.nii.gz: holds the mask value 2"):
        load(root)
    for text in ("{", "[" * 100_000):
        (root / "dataset.json").write_text(text)
        with pytest.raises(UserError, match="cannot be read as JSON"):
            load(root)


def test_a_task_that_lists_a_file_outside_or_missing_is_refused(make_task, tmp_path):
    root = make_task()
    described = json.loads((root / "dataset.json").read_text())
    described["training"][0]["image"] = "../../secret.nii.gz"
    (root / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="outside the task's folder"):
        load(root)
    described["training"][0]["image"] = "./imagesTr/gone.nii.gz"
    (root / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"gone.nii.gz' is listed in dataset.json but missing"):
        load(root)


def test_a_volume_of_another_voxel_size_is_refused(make_task):
    root = make_task()
    write(root / "labelsTr" / "c_2.nii.gz", np.zeros((20, 18, 6), np.uint8), (1.0, 1.0, 3.0))
    with pytest.raises(UserError, match="voxel size"):
        load(root)


def test_pictures_have_no_slices(make_folder):
    with pytest.raises(UserError, match="for volumes"):
        load(make_folder(), view="whole_slices")


def test_a_layout_lists_each_file_once(make_folder):
    layout = layouts.find(make_folder(count=3))
    assert len(layout.files()) == 6 and layout.kind == "pairs by images/case*.png and masks/case*.png"


def test_colour_pictures_lose_their_alpha_and_keep_their_channels(make_folder):
    root = make_folder(count=6)
    for file in (root / "images").iterdir():
        Image.open(file).convert("RGBA").save(file)
    assert load(root).images.shape[1] == 3


# Several raters: the mean of what they say is what soft losses train on


def rate(root, raters=3, count=10):
    """Write a square in each image, and for each rater one that is cut off by as many rows as he has before
    him; the top left pixel is void for the first.
    """
    for n in range(count):
        square = np.zeros((16, 12), np.uint8)
        square[4:10, 3 : 7 + n % 2] = 1
        (root / "images").mkdir(parents=True, exist_ok=True)
        write(root / "images" / f"{n}.png", 50 + 100 * square)
        for rater in range(raters):
            mask = square.copy()
            mask[10 - rater :] = 0
            mask[0, 0] = 0 if rater else 255
            (root / f"masks_{rater + 1}").mkdir(exist_ok=True)
            write(root / f"masks_{rater + 1}" / f"{n}.png", mask)
    return root


def test_what_raters_say_is_their_majority_and_their_shares(tmp_path):
    root = rate(tmp_path / "rated")
    data = get_dataset(f"raters(path={str(root)!r})")
    assert data.ratings.of(0).shape == (3, 16, 12) and data.ratings.of(0)[0, 0, 0] == 255
    # Row 9 is marked by one of three, row 8 by two, the others by all.
    assert np.asarray(data.masks[0])[:, 4].tolist() == [0] * 4 + [1] * 5 + [0] * 7
    assert data.counts[0].tolist() == [16 * 12 - 20, 20]
    shares = data.ratings.shares(2)[data.ratings.codes[0]]
    assert shares[:, 4, 1].tolist() == pytest.approx([0] * 4 + [1] * 4 + [2 / 3, 1 / 3] + [0] * 6)
    # The void of one leaves two.
    assert shares[0, 0].tolist() == [1, 0]
    assert "3 raters: mean Dice of two of them" in data.card["notes"]


def test_data_change_with_any_rater(tmp_path):
    root, other = rate(tmp_path / "a"), rate(tmp_path / "b")
    mask = np.zeros((16, 12), np.uint8)
    mask[4:7, 3:7] = 1
    write(other / "masks_3" / "0.png", mask)
    first, second = (get_dataset(f"raters(path={str(path)!r})") for path in (root, other))
    assert np.array_equal(first.masks[0], second.masks[0])
    assert first.fingerprint != second.fingerprint


def test_ratings_of_two_who_differ_are_background_and_of_nobody_are_void():
    ratings = Ratings(np.array([[0, 1, 2, 3, 255]], np.uint8), np.array([[0, 0], [1, 1], [0, 1], [255, 1]]))
    assert ratings.masks(2).tolist() == [[0, 1, 0, 1, 255]]
    assert ratings.shares(2)[:4].tolist() == [[1, 0], [0, 1], [0.5, 0.5], [0, 1]]
    assert ratings.shares(2)[255].tolist() == [0, 0]


def test_raters_who_are_missing_are_named(tmp_path):
    root = rate(tmp_path / "rated")
    (root / "masks_2" / "3.png").unlink()
    with pytest.raises(UserError, match=r"beside 'masks_1/3.png' there is no mask of the rater"):
        get_dataset(f"raters(path={str(root)!r})")
    with pytest.raises(UserError, match=r"so it is folder\(path=...\), not raters"):
        get_dataset(f"raters(path={str(rate(tmp_path / 'alone', raters=1))!r})")
