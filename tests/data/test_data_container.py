"""The container refuses what breaks its promises, and its fingerprint follows what is learned and scored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.base.errors import UserError
from lossbench.base.seeds import rng_of
from lossbench.data.container import container, fractions
from lossbench.data.splitting import deal, rarest_held, validation_from_train
from lossbench.data.windows import common_size, crop_corner, tile_corners, window


def parts(**changed):
    """Return the arguments of a sound container of ten images, some replaced."""
    sound = {
        "name": "toy",
        "images": np.zeros((10, 1, 8, 8)),
        "masks": np.zeros((10, 8, 8)),
        "split": {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [9, 8]},
    }
    return {**sound, **changed}


def test_a_sound_container_has_types_order_and_a_summary():
    data = container(**parts())
    assert (
        data.images.dtype == np.float32
        and data.masks.dtype == np.uint8
        and data.split["test"].tolist() == [8, 9]
    )
    assert data.spacing == (1.0, 1.0) and data.classes == ("background", "foreground") and len(data) == 10
    assert "10 images of 8x8" in repr(data) and data.fingerprint in repr(data)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"images": np.zeros((10, 1, 8, 6))}, "do not fit"),
        ({"images": np.zeros((10, 1, 6, 6)), "masks": np.zeros((10, 6, 6))}, "divisible by 4"),
        ({"images": np.full((10, 1, 8, 8), np.nan)}, "not finite"),
        ({"masks": np.full((10, 8, 8), 2)}, r"undeclared values \[2\]"),
        ({"masks": np.full((10, 8, 8), 255)}, "undeclared"),
        ({"spacing": (1.0, 1.0, 1.0)}, "spacing"),
        ({"split": {"train": [0], "val": [1], "test": []}}, "'test' is empty"),
        ({"split": {"train": [0, 1], "val": [1], "test": [2]}}, "would leak"),
        ({"split": {"train": [0, 0], "val": [1], "test": [2]}}, "twice"),
        ({"split": {"train": [0], "val": [1], "test": [10]}}, "does not exist"),
        ({"groups": [0] * 10}, "would leak"),
        ({"posterior": np.zeros((10, 3, 8, 8))}, "posterior"),
    ],
    ids=str,
)
def test_a_broken_promise_is_named(changed, word):
    with pytest.raises(UserError, match=word) as refused:
        container(**parts(**changed))
    assert "'toy'" in str(refused.value)


UNEQUAL = {
    "name": "toy",
    "images": [np.full((2, 3 + n, 5), n) for n in range(4)],
    "masks": [np.eye(3 + n, 5) for n in range(4)],
    "split": {"train": [0, 1], "val": [2], "test": [3]},
}


def test_images_of_unequal_sizes_are_indexed_as_an_array_is():
    data = container(**UNEQUAL)
    assert data.shape is None and data.sizes.tolist() == [[3, 5], [4, 5], [5, 5], [6, 5]]
    assert data.channels == 2 and data.dims == 2 and "4 sizes from 3x5 to 6x5" in repr(data)
    assert data.images[3].shape == (2, 6, 5) and data.images[3, :, 1:3].shape == (2, 2, 5)
    assert data.images[1].dtype == np.float32 and data.masks[1, :2, :2].tolist() == [[1, 0], [0, 1]]
    assert data.counts[:, 1].tolist() == [3, 4, 5, 5]
    assert data.fingerprint == container(**UNEQUAL).fingerprint


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("masks", [np.zeros((4, 4))] * 4, "do not fit"),
        ("masks", [np.zeros((9, 9 + n)) for n in range(4)], "differ in size"),
        ("images", [np.zeros((1 + n, 3 + n, 5)) for n in range(4)], "differ in channels"),
        ("images", [np.full((2, 3 + n, 5), np.inf) for n in range(4)], "not finite"),
        ("masks", [np.full((3 + n, 5), n) for n in range(4)], r"undeclared values \[2, 3\]"),
    ],
)
def test_a_broken_promise_of_images_of_unequal_sizes_is_named(field, value, word):
    with pytest.raises(UserError, match=word):
        container(**{**UNEQUAL, field: value})


def test_void_pixels_are_allowed_where_declared_and_left_out_of_fractions():
    masks = np.full((10, 8, 8), 255)
    masks[:, :2] = 1
    masks[:, 2:4] = 0
    data = container(**parts(masks=masks, ignore_index=255))
    assert fractions(data) == {"background": 0.5, "foreground": 0.5}


def test_the_fingerprint_changes_with_images_masks_split_and_groups_and_with_nothing_else():
    plain = container(**parts()).fingerprint
    images, masks = np.zeros((10, 1, 8, 8)), np.zeros((10, 8, 8))
    images[3, 0, 2, 2] = masks[3, 2, 2] = 1
    moved = {"train": [0, 1, 2, 3, 4, 6], "val": [5, 7], "test": [8, 9]}
    changed = [{"images": images}, {"masks": masks}, {"split": moved}, {"groups": np.arange(1, 11)}]
    assert len({plain, *(container(**parts(**c)).fingerprint for c in changed)}) == 5
    same = [
        {"name": "other"},
        {"classes": ("a", "b")},
        {"card": {"x": 1}},
        {"images": np.asfortranarray(np.zeros((10, 1, 8, 8)))},
    ]
    assert {container(**parts(**s)).fingerprint for s in same} == {plain}


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=3, max_size=40),
    val=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
    kinds=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_a_dealt_split_covers_all_images_and_divides_no_group(sizes, val, test, kinds, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    split = deal(groups, (val, test), np.random.default_rng(seed), strata=groups % kinds)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(len(groups)))
    members = {part: set(groups[index].tolist()) for part, index in split.items()}
    assert all(members.values())
    assert not (
        members["train"] & members["val"]
        or members["train"] & members["test"]
        or members["val"] & members["test"]
    )


def test_the_dealt_fractions_come_out_and_every_stratum_of_three_groups_reaches_every_part():
    groups = np.arange(300)
    strata = np.where(groups < 5, 1, 0)
    split = deal(groups, (0.2, 0.3), np.random.default_rng(0), strata)
    assert len(split["val"]) == pytest.approx(60, abs=3) and len(split["test"]) == pytest.approx(90, abs=3)
    assert all((strata[index] == 1).any() for index in split.values())


def test_a_group_is_dealt_by_the_rarest_class_that_it_holds():
    # The fourth group holds class 1 in its second image alone, the third no class at all.
    groups = np.array([0, 1, 2, 3, 3])
    counts = np.array([[5, 1, 1], [5, 2, 0], [5, 0, 0], [5, 0, 0], [5, 3, 0]])
    assert rarest_held(groups, counts).tolist() == [2, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("groups", "fractions_", "word"),
    [([0, 0, 1], (0.2, 0.2), "three"), (range(9), (0.6, 0.5), "sum"), (range(9), (0, 0.2), "above 0")],
)
def test_an_impossible_split_is_refused(groups, fractions_, word):
    with pytest.raises(UserError, match=word):
        deal(np.asarray(groups), fractions_, np.random.default_rng(0), name="toy")


def test_validation_is_dealt_from_the_training_groups_of_a_split_that_has_none():
    groups = np.repeat(np.arange(10), 2)
    parts = np.where(groups < 8, "train", "test")
    dealt = validation_from_train(groups, parts, np.random.default_rng(0))
    validation = groups[dealt == "val"]
    assert len(validation) == 4 and len(set(validation)) == 2 and validation.max() < 8
    assert (dealt[groups >= 8] == "test").all()


@settings(max_examples=60, deadline=None)
@given(height=st.integers(3, 70), width=st.integers(3, 70), size=st.sampled_from([16, 20, 32]))
def test_tiles_count_every_pixel_exactly_once(height, width, size):
    mask = np.zeros((height, width), np.uint8)
    image = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    seen = np.zeros(height * width, int)
    for corner, margin in tile_corners(mask.shape, (size, size)):
        part, labels = window(image, mask, corner, (size, size), margin)
        assert part.shape == (1, size, size) and labels.shape == (size, size)
        seen[part[0][labels != 255].astype(int)] += 1
    assert (seen == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    row=st.integers(0, 54),
    column=st.integers(0, 34),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_a_crop_holds_a_small_target_whole(row, column, height, width, seed):
    mask = np.zeros((60, 40), np.uint8)
    mask[row : row + height, column : column + width] = 1
    corner = crop_corner(mask, (16, 16), np.random.default_rng(seed))
    _, labels = window(np.zeros((1, 60, 40)), mask, corner, (16, 16))
    assert (labels == 1).sum() == mask.sum() and not (labels == 255).any()


def test_a_window_larger_than_its_image_is_padded_with_void():
    image, labels = window(np.ones((2, 3, 5)), np.ones((3, 5), np.uint8), (0, 0), (8, 8))
    assert (
        image[:, :3, :5].all()
        and not image[:, 3:].any()
        and (labels[3:] == 255).all()
        and (labels[:, 5:] == 255).all()
    )


def test_whole_images_get_the_smallest_common_size_divisible_by_four():
    assert common_size([(5, 9), (8, 3)]) == (8, 12)


def test_choices_by_name_do_not_depend_on_the_process():
    assert (
        rng_of("a").random() == np.random.default_rng(int("ca978112ca1bbdca", 16)).random()
    )  # the sha256 of "a" begins so
