"""Patches are the same for every loss, go nowhere twice as often as elsewhere, and are void beyond
their image.
"""

import numpy as np
import pytest

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data.container import container
from lossbench.data.patches import Patches, parse_sampler


def toy(sizes=((40, 30), (50, 64), (9, 80)), empty=(), classes=2, seed=0, **changed):
    """Images whose pixel (r, c) holds 1000 n + 100 r + c / 1000, so that a patch says where it was taken."""
    images, masks = [], []
    for n, (height, width) in enumerate(sizes):
        rows, columns = np.mgrid[:height, :width]
        images.append((1000 * n + 10 * rows + columns / 1000)[None])
        mask = np.zeros((height, width), np.uint8)
        if n not in empty:
            mask[2:5, 3:7] = 1
            mask[-1, -1] = classes - 1
        masks.append(mask)
    split = {"train": range(len(sizes) - 2), "val": [len(sizes) - 2], "test": [len(sizes) - 1]}
    names = ("background", "a", "b")[:classes]
    return container(name="toy", images=images, masks=masks, split=split, classes=names, **changed)


MANY = [(40 + n, 60 - n) for n in range(12)]


def test_a_step_is_the_same_for_all_and_differs_from_other_steps_seeds_and_sets():
    patches = Patches(toy(MANY), 16, "foreground")
    images, masks = patches.draw(seed=3, step=7, batch=6)
    again = Patches(toy(MANY), 16, "foreground").draw(3, 7, 6)
    assert images.shape == (6, 1, 16, 16) and images.dtype == np.float32 and masks.dtype == np.uint8
    assert np.array_equal(images, again[0]) and np.array_equal(masks, again[1])
    others = [
        patches.draw(3, 8, 6),
        patches.draw(4, 7, 6),
        Patches(toy(MANY), 16, name="other").draw(3, 7, 6),
    ]
    assert not any(np.array_equal(images, other) for other, _ in others)


def test_a_patch_shows_image_and_mask_of_one_place():
    data = toy(MANY)
    patches = Patches(data, (16, 8), "foreground")
    where = patches.where(0, 0, 64)
    images, masks = patches.images_at(*where), patches.masks_at(*where)
    for n, (row, column), image, mask in zip(*where, images, masks, strict=True):
        assert n in data.split["train"] and 0 <= row <= data.sizes[n, 0] - 16
        assert np.array_equal(image[0], data.images[n][0, row : row + 16, column : column + 8])
        assert np.array_equal(mask, data.masks[n][row : row + 16, column : column + 8])


def test_images_take_turns_so_that_each_is_shown_equally_often():
    patches = Patches(toy(MANY), 16)
    images = np.concatenate([patches.where(0, step, 4)[0] for step in range(25)])
    assert np.bincount(images).tolist() == [10] * 10


def test_a_patch_lies_anywhere_with_equal_chance():
    patches = Patches(toy([(20, 16)] * 3), 16)
    rows = np.concatenate([patches.where(0, step, 50)[1][:, 0] for step in range(100)])
    counts = np.bincount(rows, minlength=5)  # 5,000 draws over the rows 0 to 4
    assert len(counts) == 5 and ((counts - 1000) ** 2 / 1000).sum() < 18.5  # chi square, 4 degrees: p = .001


def test_the_share_of_centred_patches_is_the_one_asked_for():
    data = toy([(200, 200)] * 3)
    patches = Patches(data, 8, "foreground(share=0.33)")
    centred = np.mean([(patches.masks_at(*patches.where(0, s, 5))[:, 4, 4] == 1).mean() for s in range(400)])
    assert centred == pytest.approx(0.33, abs=0.03)  # elsewhere foreground is 13 of 40,000 pixels
    assert Patches(data, 8, "foreground(share=1.0)").masks_at(*patches.where(0, 0, 9)).shape == (9, 8, 8)


def test_classes_of_an_image_are_centred_on_equally_often_whatever_their_size():
    patches = Patches(toy([(100, 100)] * 3, classes=3), 9, "foreground(share=1.0)")
    corners = np.concatenate([patches.where(0, step, 50)[1] for step in range(20)])
    last = (corners == [91, 91]).all(1).mean()  # class 2 is one pixel in the corner, class 1 has twelve
    assert last == pytest.approx(0.5, abs=0.05)


def test_images_without_foreground_are_shown_but_never_centred_on():
    patches = Patches(toy(MANY, empty=range(9)), 16, "foreground(share=0.5)")
    centred = {patches.where(0, step, 2)[0][1] for step in range(20)}
    assert centred == {9} and patches.with_foreground.tolist() == [9]
    with pytest.raises(UserError, match="no image of 'train' holds foreground"):
        Patches(toy(MANY, empty=range(12)), 16, "foreground")


def test_an_image_that_is_smaller_than_the_patch_is_reflected_and_void_beyond():
    data = toy([(9, 40), (30, 40), (30, 40), (9, 9)])
    patches = Patches(data, 16)
    images, corners = np.array([0]), np.array([[-3, 5]])
    image, mask = patches.images_at(images, corners)[0, 0], patches.masks_at(images, corners)[0]
    assert (mask[:3] == 255).all() and (mask[12:] == 255).all() and (mask[3:12] != 255).all()
    inside = data.images[0][0, :, 5:21]
    assert np.array_equal(image[3:12], inside) and np.array_equal(image[2], inside[1])
    assert np.array_equal(image[12], inside[7]) and patches.ignore_index == 255
    drawn = patches.where(0, 0, 4)
    assert {int(c[0]) for n, c in zip(*drawn, strict=True) if n == 0} == {-3}  # 7 pixels: 3 before, 4 after


def test_what_marks_void_is_the_data_sets_own_value_where_it_has_one():
    assert Patches(toy(MANY), 16).ignore_index is None
    assert Patches(toy(MANY, ignore_index=7), 64).ignore_index == 7


def test_a_set_whose_images_are_all_smaller_than_half_a_patch_is_refused():
    with pytest.raises(
        UserError, match=r"all images are smaller than half a patch of 128x128; the largest is 49x60"
    ):
        Patches(toy(MANY), 128)
    Patches(toy(MANY), 98)


def test_patches_of_arrays_and_of_volumes_are_drawn_alike():
    scenes = get_dataset("scenes(n_train=8, n_val=2, n_test=2, foreground=0.05)")
    images, masks = Patches(scenes, 64, "foreground").draw(0, 0, 4)
    assert images.shape == (4, 1, 64, 64) and masks.shape == (4, 64, 64)
    volumes = get_dataset("scenes(n_train=4, n_val=2, n_test=2, foreground=0.05, dims=3, size=16)")
    assert Patches(volumes, (8, 16, 16), "foreground").draw(0, 0, 3)[0].shape == (3, 1, 8, 16, 16)


def test_frequencies_are_those_of_a_thousand_patches_and_rise_with_centring():
    data = toy([(64, 64)] * 3)  # 13 of 4,096 pixels
    assert Patches(data, 64).frequency() == pytest.approx([4083 / 4096, 13 / 4096])
    assert Patches(data, 16, "foreground(share=1.0)").frequency()[1] > 5 * 13 / 4096
    assert Patches(data, 64).bare() == 0 == Patches(data, 16, "foreground(share=1.0)").bare()
    assert 0.5 < Patches(data, 16).bare() < 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("unifrom", "did you mean 'uniform'"),
        ("foreground(share=2)", "between 0 and 1"),
        ("foreground(share=True)", "between 0 and 1"),
        ("foreground(part=0.5)", "takes 'share'"),
        ("uniform(share=0.5)", "takes nothing"),
        ("0.5*uniform + 0.5*foreground", "there is no sampler"),
    ],
)
def test_a_sampler_that_cannot_be_meant_is_refused(text, word):
    with pytest.raises(UserError, match=word):
        parse_sampler(text)
