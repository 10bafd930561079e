"""A folder is read in the layout in which it comes, without options, and what was decided is said."""

import csv
import json
import re

import h5py
import numpy as np
import pytest
from data_files import write
from scipy.io import savemat

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data.layouts import find

N = 6


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Each test reads its own folders."""


def load(root, **options):
    given = {"path": str(root), "view": "whole", **options}
    return get_dataset(f"folder({', '.join(f'{key}={value!r}' for key, value in given.items())})")


def picture(n, colour=False):
    shape = (20, 24, 3) if colour else (20, 24)
    return np.random.default_rng(n).integers(0, 200, shape).astype(np.uint8)


def square(n, value=255):
    """Return a mask with a square of 5 pixels at (3 + n, 4)."""
    mask = np.zeros((20, 24), np.uint8)
    mask[3 + n : 8 + n, 4:9] = value
    return mask


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, array)


def lay(root, image, mask, count=N, draw=square):
    """Write pictures and masks at paths with {n} in them."""
    for n in range(count):
        put(root / image.format(n=n), picture(n))
        put(root / mask.format(n=n), draw(n))
    return root


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{n}.png", "masks/{n}.png"),
        ("imgs/{n}.png", "labels/{n}.bmp"),
        ("data/{n}.png", "gt/{n}_gt.png"),
        ("images/{n}_image.png", "masks/{n}_mask.png"),
        ("JPEGs/img_{n}.png", "Annotations/mask_{n}.png"),
        ("{n}.bmp", "{n}.png"),
        ("x/{n}.tif", "x/{n}.png"),
        ("{n}.png", "{n}_mask.png"),
        ("case{n}/scan.bmp", "case{n}/scan_seg.png"),
        ("case{n}/image.png", "case{n}/mask.png"),
        ("eye_{n}L.png", "eye_{n}L_1stHO.png"),
        ("a/b/image/{n}.png", "a/b/groundTruth/{n}.png"),
        ("training/images/images/{n}.png", "training/groundtruth/groundtruth/{n}.png"),
        ("raw/0{n}.png", "labels/labels0000{n}.png"),
        ("images/B{n}.png", "3GT/B{n}_3GT.png"),
        ("images/Misc_{n}.png", "masks/Misc_{n}_pixels0.png"),
        ("volume-{n}.png", "segmentation-{n}.png"),
        ("inputs/{n}.png", "targets/{n}.png"),
    ],
)
def test_pairs_are_found_by_folders_names_and_types(tmp_path, image, mask):
    root = lay(tmp_path / "mine", image, mask)
    layout = find(root)
    assert [pair.masks[0] for pair in layout.pairs] == [root / mask.format(n=n) for n in range(N)]
    assert [pair.images[0] for pair in layout.pairs] == [root / image.format(n=n) for n in range(N)]
    patterns = f"{image.format(n='*')} and {mask.format(n='*')}"
    assert layout.kind == f"pairs by {re.sub('0+[*]', '*', patterns)}"
    assert [mask.sum() for mask in load(root).masks] == [25] * N


def test_folders_named_after_the_parts_give_the_split(tmp_path):
    root = tmp_path / "mine"
    for part, count in (("train", 8), ("val", 3), ("test", 4)):
        lay(root, f"images/{part}/{{n}}.png", f"annotations/{part}/{{n}}_mask.png", count)
    assert {part: len(index) for part, index in load(root).split.items()} == {"train": 8, "val": 3, "test": 4}
    assert load(root).card["names"][0] == "test/0"


@pytest.mark.parametrize(("second", "note"), [("test", ""), ("val", "'val' serves as test")])
def test_two_parts_are_training_and_test_and_validation_is_dealt_from_training(tmp_path, second, note):
    root = tmp_path / "mine"
    for part, count in (("train", 10), (second, 4)):
        lay(root, f"{part}/{{n}}.png", f"{part}annot/{{n}}.png", count)
    assert {part: len(index) for part, index in load(root).split.items()} == {"train": 8, "val": 2, "test": 4}
    assert note in " ".join(find(root).notes)


def test_a_part_without_masks_is_left_out_and_said(tmp_path):
    root = lay(tmp_path / "mine", "training/images/{n}.png", "training/labels/{n}.png")
    for n in range(3):
        put(root / f"test/images/{n}.png", picture(n))
    assert len(load(root)) == N and "3 files without mask in test/images/" in find(root).notes[0]


def test_of_several_masks_for_an_image_the_first_kind_is_taken_and_said(tmp_path):
    root = lay(tmp_path / "mine", "{n}.png", "{n}_1stHO.png")
    lay(root, "{n}.png", "{n}_2ndHO.png", draw=lambda n: square(n) * 0)
    assert [mask.sum() for mask in load(root).masks] == [25] * N
    assert "*_2ndHO.png is left out" in find(root).notes[0]
    assert load(root, images="?.png", masks="*_2ndHO.png").counts[:, 1].sum() == 0


def drive(root, parts=("training", "test"), marked=("training", "test"), second=False):
    """Lay files as DRIVE comes: what was drawn by hand, and the field of view, which is called mask."""
    for part in parts:
        first = 21 if part == "training" else 1
        for n in range(first, first + 20):
            put(root / part / "images" / f"{n:02d}_{part}.tif", picture(n))
            put(root / part / "mask" / f"{n:02d}_{part}_mask.gif", square(0) * 0 + 255)
            if part in marked:
                put(root / part / "1st_manual" / f"{n:02d}_manual1.gif", square(n % 5))
            if part == "test" and second:
                put(root / part / "2nd_manual" / f"{n:02d}_manual2.gif", square(n % 5) * 0)
    return root


@pytest.mark.parametrize("second", [False, True])
def test_what_was_drawn_by_hand_is_taken_before_a_field_of_view(tmp_path, second):
    root = drive(tmp_path / "DRIVE", second=second)
    data, notes = load(root), find(root).notes
    assert [len(data.split[part]) for part in ("train", "val", "test")] == [16, 4, 20]
    assert data.counts[:, 1].tolist() == [25] * 40
    assert "*/mask/*_mask.gif is left out; --images with --masks chooses the other" in notes[-1]
    of_view = find(root, "*/images/*", "*/mask/*").pairs
    assert len(of_view) == 40 and {pair.masks[0].parent.name for pair in of_view} == {"mask"}


def test_of_a_part_without_hand_drawn_masks_the_images_are_left_out(tmp_path):
    root = drive(tmp_path / "DRIVE", marked=("training",))
    assert len(load(root)) == 20 and "20 files without mask in test/images" in find(root).notes[0]


def test_patterns_pair_names_whose_endings_differ_between_parts(tmp_path):
    root = drive(tmp_path / "DRIVE")
    layout = find(root, "*/images/*", "*/1st_manual/*")
    assert len(layout.pairs) == 40 and not layout.unmatched
    assert all(pair.images[0].name[:2] == pair.masks[0].name[:2] for pair in layout.pairs)


def test_a_few_masks_by_hand_do_not_stand_for_all(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png")
    put(root / "manual" / "2.png", square(2) * 0)
    assert load(root).counts[:, 1].tolist() == [25] * N


@pytest.mark.parametrize("other", ["{n}.jpeg", "{n}.tif"])
def test_images_of_two_file_types_may_stand_beside_masks_of_one(tmp_path, other):
    root = lay(tmp_path / "mine", "{n}.jpg", "{n}.png")
    for n in range(N, N + 3):
        put(root / other.format(n=n), picture(n))
        put(root / f"{n}.png", square(n))
    layout = find(root)
    assert len(layout.pairs) == N + 3 and not layout.unmatched


def test_masks_of_two_file_types_may_stand_beside_images_of_one(tmp_path):
    root = lay(tmp_path / "mine", "{n}.jpg", "{n}.png")
    for n in range(N, N + 3):
        put(root / f"{n}.jpg", picture(n))
        put(root / f"{n}.bmp", square(n))
    assert len(find(root).pairs) == N + 3


def test_a_matlab_file_of_a_mask_may_stand_beside_its_picture(tmp_path):
    for n in range(N):
        put(tmp_path / f"{n}.jpg", picture(n))
        structure = {"Segmentation": square(n, 1), "Boundaries": np.zeros((20, 24), bool)}
        savemat(tmp_path / f"{n}.mat", {"groundTruth": structure})
    assert load(tmp_path).counts[:, 1].tolist() == [25] * N


def test_patterns_name_both_sides_where_names_tell_nothing(tmp_path):
    root = lay(tmp_path / "mine", "a/{n}.png", "b/{n}.png")
    with pytest.raises(UserError, match=r"--images 'PATTERN' --masks 'PATTERN'"):
        find(root)
    assert len(load(root, images="a/*.png", masks="b/*.png")) == N
    with pytest.raises(UserError, match=r"masks='c/\*\.png'"):
        load(root, images="a/*.png", masks="c/*.png")
    with pytest.raises(UserError, match="go together"):
        load(root, images="a/*.png")


def test_what_has_no_counterpart_can_be_left_out_by_name(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png")
    put(root / "images" / "lonely.png", picture(9))
    with pytest.raises(UserError, match=r"leave_out=\['images/lonely.png'\]"):
        load(root)
    assert len(load(root, leave_out=["images/lonely.png", "3"])) == N - 1
    with pytest.raises(UserError, match="leave_out names 'stranger'"):
        load(root, leave_out=["stranger"])


def test_a_table_of_pairs_names_files_groups_and_parts(tmp_path):
    root = lay(tmp_path / "mine", "a/{n}.png", "b/{n}.png")
    rows = [
        {"image": f"a/{n}.png", "mask": f"b/{n}.png", "patient": n // 2, "split": ("train", "test")[n > 3]}
        for n in range(N)
    ]
    with (root / "pairs.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    data = load(root)
    assert data.groups.tolist() == [0, 0, 1, 1, 2, 2] and len(data.split["test"]) == 2
    assert load(root / "pairs.csv").fingerprint == data.fingerprint
    (root / "b" / "0.png").unlink()
    with pytest.raises(UserError, match=r"pairs.csv, line 2: there is no mask 'b/0.png'"):
        load(root)


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_table_of_whole_paths_is_read_from_a_relative_folder(tmp_path, monkeypatch, through_a_link):
    root = lay(tmp_path / "mine", "{n}/image.png", "{n}/mask.png")
    whole = root
    if through_a_link:
        whole = tmp_path / "link"
        whole.symlink_to(root)
    rows = "".join(f"{whole}/{n}/image.png,{whole}/{n}/mask.png\n" for n in range(N))
    (root / "pairs.csv").write_text(f"image,mask\n{rows}")
    monkeypatch.chdir(tmp_path)
    assert [pair.name for pair in find("mine").pairs] == [f"{n}/image" for n in range(N)]
    assert len(load("mine")) == N


def test_groups_may_be_given_by_path(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png")
    rows = "".join(f"images/{n}.png,{n // 2}\n" for n in range(N))
    (root / "groups.csv").write_text(f"path,group\n{rows}")
    assert load(root).groups.tolist() == [0, 0, 1, 1, 2, 2]


def test_voc_gives_its_own_split_and_leaves_other_pictures_out(tmp_path):
    root = lay(tmp_path / "mine", "VOC2012/JPEGImages/{n}.png", "VOC2012/SegmentationClass/{n}.png", 10)
    put(root / "VOC2012" / "JPEGImages" / "boxes_only.png", picture(1))
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join("01234"))
    (lists / "val.txt").write_text("\n".join("56789"))
    data, notes = load(root), " ".join(find(root).notes)
    assert [len(data.split[part]) for part in ("train", "val", "test")] == [4, 1, 5]
    assert "1 pictures without segmentation" in notes and "'val' serves as test" in notes


def test_one_mask_file_an_object_is_joined(tmp_path):
    root = tmp_path / "mine"
    for n in range(N):
        put(root / f"id{n}" / "images" / f"id{n}.png", picture(n))
        put(root / f"id{n}" / "masks" / "one.png", square(0))
        put(root / f"id{n}" / "masks" / "two.png", square(10))
    assert [mask.sum() for mask in load(root).masks] == [50] * N
    assert find(root).kind == "one folder an image, one mask file an object"


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_a_file_may_hold_image_and_mask_by_name_with_slices_first(tmp_path, suffix):
    for n in range(N):
        arrays = {"image": np.ones((4, 20, 24), np.float32), "label": np.stack([square(n, 1)] * 4)}
        arrays["image"][0, 0, n] = 9
        if suffix == ".npz":
            np.savez(tmp_path / f"{n}.npz", **arrays)
        else:
            with h5py.File(tmp_path / f"{n}.h5", "w") as file:
                for name, array in arrays.items():
                    file[name] = array
    data = load(tmp_path)
    assert data.masks[0].shape == (20, 24, 4) and data.counts[:, 1].tolist() == [100] * N


def test_a_matlab_structure_gives_its_segmentation(tmp_path):
    for n in range(N):
        put(tmp_path / "image" / f"{n}.png", picture(n))
        (tmp_path / "groundTruth").mkdir(exist_ok=True)
        structure = {"Segmentation": square(n, 1), "Boundaries": np.zeros((20, 24), bool)}
        savemat(tmp_path / "groundTruth" / f"{n}.mat", {"groundTruth": structure})
    assert load(tmp_path).counts[:, 1].tolist() == [25] * N


# --- dataset.json


def task(root, described, image="{n}_0000.png", draw=square, colour=False):
    """Write an nnU-Net task of pictures."""
    for n in range(N):
        put(root / "imagesTr" / image.format(n=n), picture(n, colour))
        put(root / "labelsTr" / f"{n}.png", draw(n))
    (root / "dataset.json").write_text(json.dumps(described))
    return root


LABELS = {"background": 0, "square": 1}


def test_the_colours_of_a_task_of_photographs_may_stand_in_one_file(tmp_path):
    described = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": LABELS, "file_ending": ".png"}
    root = task(tmp_path / "mine", described, draw=lambda n: square(n, 1), colour=True)
    data = load(root)
    assert len(data) == N and data.channels == 3
    put(root / "imagesTr" / "3_0000.png", picture(3))
    with pytest.raises(UserError, match=r"'labelsTr/3.png' has no image for every channel"):
        load(root)


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channels_of_a_task_may_be_a_list_and_must_be_numbered(tmp_path, key):
    root = task(tmp_path / "mine", {key: ["CT"], "labels": LABELS}, draw=lambda n: square(n, 1))
    assert len(load(root)) == N
    for wrong in ({"CT": "0"}, "CT"):
        (root / "dataset.json").write_text(json.dumps({key: wrong, "labels": LABELS}))
        with pytest.raises(UserError, match=rf"dataset.json: '{key}' must number the channels"):
            load(root)


def test_what_a_task_calls_ignore_is_void(tmp_path):
    def with_void(n):
        mask = square(n, 1)
        mask[18:] = 2
        return mask

    described = {"channel_names": {"0": "grey"}, "labels": {**LABELS, "ignore": 2}}
    root = task(tmp_path / "mine", described, draw=with_void)
    data = load(root)
    assert data.classes == ("background", "square")
    assert data.counts.tolist() == [[480 - 48 - 25, 25]] * N
    assert [(np.asarray(mask) == 255).sum() for mask in data.masks] == [48] * N
    assert "the value 2, which dataset.json calls 'ignore', is read as void" in find(root).notes[0]


@pytest.mark.parametrize(
    "text", ['{"name": "mine"}', '{"labels": ["cat"]}', "[1]", "{", '{"training": ["a"]}']
)
def test_another_dataset_json_leaves_a_folder_of_images_and_masks_alone(tmp_path, text):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png")
    (root / "dataset.json").write_text(text)
    assert len(load(root)) == N


def test_a_task_without_its_folders_is_said(tmp_path):
    root = task(tmp_path / "mine", {"channel_names": {"0": "grey"}, "labels": LABELS})
    (root / "labelsTr").rename(root / "labels")
    with pytest.raises(UserError, match="lists no training pairs, and there is no folder 'labelsTr'"):
        load(root)


# --- outlines


def corners(n):
    """Return the corners (x, y) of the square of ``square(n)``; an outline's own pixels are inside."""
    return [[4, 3 + n], [8, 3 + n], [8, 7 + n], [4, 7 + n]]


def test_coco_outlines_run_lengths_crowds_and_empty_images(tmp_path):
    pytest.importorskip("pycocotools")
    run_lengths = {
        "counts": [0, 3, 20 * 24 - 3],
        "size": [20, 24],
    }  # column by column: the first three pixels
    objects = [
        {"image_id": n, "category_id": 7, "area": 25, "segmentation": [[4, 3, 9, 3, 9, 8, 4, 8]]}
        for n in range(4)
    ]
    objects += [{"image_id": 0, "category_id": 3, "area": 3, "segmentation": run_lengths}]
    objects += [{"image_id": 1, "category_id": 3, "area": 3, "segmentation": run_lengths, "iscrowd": 1}]
    described = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(N)],
        "annotations": objects,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}, {"id": 1, "name": "never"}],
    }
    for n in range(N):
        put(tmp_path / "pics" / f"{n}.png", picture(n))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(described))
    captions = {"images": described["images"], "annotations": [{"image_id": 0, "caption": "two animals"}]}
    (tmp_path / "annotations" / "captions.json").write_text(json.dumps(captions))
    data = load(tmp_path)
    assert data.classes == ("background", "ant", "cat")
    assert data.counts[:, 1:].tolist() == [[3, 25], [0, 25], [0, 25], [0, 25], [0, 0], [0, 0]]
    assert [(mask == 255).sum() for mask in data.masks] == [0, 3, 0, 0, 0, 0]


def test_labelme_files_stand_beside_their_pictures_or_elsewhere(tmp_path):
    for n in range(N):
        put(tmp_path / "data" / f"{n}.png", picture(n))
        shapes = [{"label": "cat", "points": corners(n), "shape_type": "polygon"}]
        shapes += [{"label": "ant", "points": [[10, 10], [12, 11]], "shape_type": "rectangle"}] * (n == 0)
        (tmp_path / "label").mkdir(exist_ok=True)
        described = {"imagePath": f"{n}.png", "shapes": shapes}
        (tmp_path / "label" / f"{n}.json").write_text(json.dumps(described))
    data = load(tmp_path)
    assert data.classes == ("background", "ant", "cat")
    assert data.counts[:, 1:].tolist() == [[6, 25], *[[0, 25]] * (N - 1)]


def test_yolo_outlines_are_shares_of_the_sides_and_a_picture_without_text_is_empty(tmp_path):
    for part, count in (("train", 8), ("val", 4)):
        for n in range(count):
            put(tmp_path / "images" / part / f"{n}.png", picture(n))
            text = tmp_path / "labels" / part / f"{n}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            numbers = " ".join(f"{x / 24:.6f} {y / 20:.6f}" for x, y in corners(0))
            if n:
                text.write_text(f"1 {numbers}\n")
    (tmp_path / "data.yaml").write_text("names: [ant, cat]\n")
    data = load(tmp_path)
    assert data.classes == ("background", "ant", "cat") and len(data.split["test"]) == 4
    assert sorted(data.counts[:, 2].tolist()) == [0] * 2 + [25] * 10
    (tmp_path / "labels" / "val" / "1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match="holds boxes and no outlines"):
        load(tmp_path)


# --- what mask values mean


def test_colours_are_classes_black_first_and_can_be_declared(tmp_path):
    def painted(n):
        mask = np.zeros((20, 24, 3), np.uint8)
        mask[:5], mask[10:12] = (255, 0, 0), (0, 176, 0)
        return mask

    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", draw=painted)
    data = load(root)
    assert data.classes == ("background", "#00b000", "#ff0000") and data.counts[0].tolist() == [312, 48, 120]
    one = load(root, values=["#000000", ["#ff0000", "#00b000"]])
    assert one.classes == ("background", "foreground") and one.counts[0].tolist() == [312, 168]


def test_soft_edges_are_cut_at_half(tmp_path):
    def soft(n):
        mask = square(n)
        mask[3 + n, 4:9], mask[7 + n, 4:9] = 10 + n * 5 + np.arange(5), 190 + n * 5 + np.arange(5)
        return mask

    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", draw=soft)
    assert load(root).counts[:, 1].tolist() == [20] * N


def test_a_few_stray_pixels_are_refused_with_the_mapping_that_mends_them(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", 20, lambda n: np.tile(square(0), (9, 9)))
    mask = np.tile(square(0), (9, 9))
    mask[0, 0], mask[5, 5] = 3, 250
    for n in range(20):
        put(root / "images" / f"{n}.png", np.tile(picture(n), (9, 9)))
    put(root / "masks" / "7.png", mask)
    with pytest.raises(UserError, match=r"3, 250 stand in 2 pixels.*'7'.*values=\[\[0, 3\], \[255, 250\]\]"):
        load(root)
    assert load(root, values=[[0, 3], [255, 250]]).counts[:, 1].tolist() == [25 * 81] * 20


def test_numbered_objects_of_16_bit_are_said_and_made_foreground(tmp_path):
    def numbered(n):
        mask = np.zeros((20, 24), np.uint16)
        mask[::2, ::2] = 1 + np.arange(120).reshape(10, 12)
        mask[0, 0] = 300
        return mask

    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", draw=numbered)
    with pytest.raises(UserError, match=r"each object has a number.*threshold=0"):
        load(root)
    assert load(root, threshold=0).counts[:, 1].tolist() == [120] * N


def test_masks_without_zero_ask_what_the_background_is(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", draw=lambda n: 1 + square(n, 1))
    with pytest.raises(UserError, match=r"no mask holds 0.*values=\[1, 2\]"):
        load(root)
    assert load(root, values=[1, 2]).counts[:, 1].tolist() == [25] * N


def test_a_mask_may_be_drawn_in_alpha(tmp_path):
    def in_alpha(n):
        return np.dstack([np.zeros((20, 24, 3), np.uint8), square(n)])

    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png", draw=in_alpha)
    assert load(root).counts[:, 1].tolist() == [25] * N


def test_grey_pictures_among_colour_ones_have_each_colour_alike(tmp_path):
    root = lay(tmp_path / "mine", "images/{n}.png", "masks/{n}.png")
    put(root / "images" / "3.png", picture(3, colour=True))
    data = load(root)
    assert data.channels == 3 and np.array_equal(data.images[0][0], data.images[0][2])
