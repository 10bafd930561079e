"""The threshold that validation chooses is the best of ninety-nine, and a known posterior has a best cut in
closed form.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.metrics import choose_threshold
from lossbench.metrics.thresholds import GRID, _passed, bayes_ce, bayes_dice, labels_at


def binary(p):
    p = np.asarray(p, dtype=np.float32)
    return np.stack([1 - p, p], axis=1)


def slow_curve(prob, masks, ignore_index=None):
    """The mean Dice over present (image, class) pairs with ninety-nine thresholded copies."""
    curve = []
    for tau in GRID:
        labels, dice = labels_at(prob, tau), []
        for n, c in product(range(len(masks)), range(1, prob.shape[1])):
            valid = masks[n] != (-1 if ignore_index is None else ignore_index)
            p, t = (labels[n] == c) & valid, (masks[n] == c) & valid
            if t.any():
                dice.append(2 * (p & t).sum() / (p.sum() + t.sum()))
        curve.append(np.mean(dice))
    return np.array(curve)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("ignore_index", [None, 255])
def test_the_curve_equals_thresholding_ninety_nine_times(classes, ignore_index):
    rng = np.random.default_rng(classes)
    masks = rng.choice(classes, p=[0.8] + [0.2 / (classes - 1)] * (classes - 1), size=(5, 12, 10)).astype(
        np.uint8
    )
    noise = rng.normal(size=(5, classes, 12, 10)) + 2 * np.stack([masks == c for c in range(classes)], axis=1)
    prob = (np.exp(noise) / np.exp(noise).sum(axis=1, keepdims=True)).astype(np.float32)
    masks[0] = 0
    if ignore_index:
        masks[:, :3] = ignore_index
    tau, curve = choose_threshold(prob, masks, ignore_index=ignore_index)
    slow = slow_curve(prob, masks, ignore_index)
    assert curve == pytest.approx(slow)
    assert slow[round(tau * 100) - 1] == pytest.approx(slow.max())


def test_a_timid_network_gets_a_low_threshold():
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[:, 2:5, 2:5] = 1
    tau, curve = choose_threshold(binary(np.where(masks, 0.3, 0.1)), masks, ignore_index=None)
    assert tau == 0.29, "every threshold in 0.10..0.29 is perfect; the nearest to one half is taken"
    assert curve.max() == 1
    assert curve[49] == 0


def test_a_flat_curve_chooses_one_half():
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, 0] = 1
    assert choose_threshold(binary(masks.astype(float)), masks)[0] == 0.5


def test_without_any_object_the_threshold_is_one_half_and_the_curve_says_nothing():
    tau, curve = choose_threshold(binary(np.full((2, 4, 4), 0.3)), np.zeros((2, 4, 4), np.uint8))
    assert tau == 0.5
    assert np.isnan(curve).all()


def test_probabilities_at_a_threshold_and_a_hair_beside_it_fall_on_the_side_that_the_comparison_says():
    near = np.concatenate(
        [GRID, np.nextafter(GRID, np.float32(2)), np.nextafter(GRID, np.float32(-1)), [0, 1]]
    )
    near = near.astype(np.float32)
    assert _passed(near).tolist() == (near[:, None] > GRID).sum(axis=1).tolist()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_any_probability_passes_as_many_thresholds_as_it_exceeds(values):
    q = np.array(values, dtype=np.float32)
    assert _passed(q).tolist() == (q[:, None] > GRID).sum(axis=1).tolist()


def test_labels_at_a_threshold_keep_the_likeliest_foreground_class():
    prob = np.array([[0.6, 0.1, 0.3], [0.4, 0.35, 0.25], [0.8, 0.1, 0.1]], np.float32).T[None]
    assert labels_at(prob, None).tolist() == [[0, 0, 0]]
    assert labels_at(prob, 0.39).tolist() == [[2, 1, 0]]
    assert labels_at(prob, 0.5).tolist() == [[0, 1, 0]], (
        "together the two classes exceed one half, neither does alone"
    )


def test_the_best_cut_of_a_posterior_by_hand():
    # D_1 = 1.8/2.7, D_2 = 2.6/3.7, D_3 = 3.4/4.7: all three pixels, although cross-entropy keeps only the
    # first.
    posterior = binary([[[0.9, 0.4, 0.4]]])
    labels, tau, best = bayes_dice(posterior)
    assert labels.tolist() == [[[1, 1, 1]]]
    assert best == pytest.approx([3.4 / 4.7])
    assert tau == pytest.approx([1.7 / 4.7])
    assert bayes_ce(posterior).tolist() == [[[1, 0, 0]]]


def test_a_hopeless_rim_is_left_out():
    labels, _, _ = bayes_dice(binary([[[0.9, 0.9, 0.1, 0.1]]]))
    assert labels.tolist() == [[[1, 1, 0, 0]]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9))
def test_no_subset_of_pixels_beats_the_bayes_region(values):
    q = np.array(values, dtype=np.float32)
    posterior = binary(q[None, None])
    q = 1 - posterior[0, 0, 0].astype(float)
    _, tau, best = bayes_dice(posterior)
    subsets = np.array(list(product([0, 1], repeat=len(q))))[1:]
    dice = 2 * (subsets @ q) / (subsets.sum(axis=1) + q.sum())
    assert best[0] == pytest.approx(dice.max())
    assert tau[0] <= 0.5 + 1e-9, (
        "Dice never asks for more than one half: it predicts at least as much as cross-entropy"
    )


def test_one_cut_for_all_images_is_that_of_the_images_laid_side_by_side():
    rng = np.random.default_rng(0)
    posterior = binary(rng.beta(0.3, 1, (3, 6, 6)))
    labels, tau, best = bayes_dice(posterior, over="batch")
    joined = np.concatenate(list(posterior), axis=-1)[None]
    assert np.concatenate(list(labels), axis=-1).tolist() == bayes_dice(joined)[0][0].tolist()
    assert len(set(best)) == len(set(tau)) == 1


def test_a_posterior_without_foreground_predicts_none():
    labels, _, best = bayes_dice(binary(np.zeros((1, 3, 3))))
    assert not labels.any()
    assert best == [0]


def test_an_unknown_way_of_pooling_is_named():
    with pytest.raises(ValueError, match="'image' or 'batch'"):
        bayes_dice(binary(np.zeros((1, 3, 3))), over="class")


def test_images_without_the_class_choose_too_when_they_count_by_hand():
    # One object at 0.3; three empty images with a stray 0.4: the object is found below 0.3 only, and above
    # 0.4 all is silent.
    masks, p = np.zeros((4, 2, 2), np.uint8), np.zeros((4, 2, 2))
    masks[0], p[0] = 1, 0.3
    p[1:, 0, 0] = 0.4
    tau, curve = choose_threshold(binary(p), masks)
    assert (tau, curve[28], curve[40]) == (0.29, 1, 0)
    tau, curve = choose_threshold(binary(p), masks, by="dice_all")
    assert (tau, curve[28], curve[40]) == (0.5, 1 / 4, 3 / 4)
    with pytest.raises(ValueError, match="'dice' or 'dice_all'"):
        choose_threshold(binary(p), masks, by="iou")


def test_images_of_unequal_sizes_choose_one_threshold():
    rng = np.random.default_rng(1)
    masks = (rng.random((3, 8, 8)) < 0.3).astype(np.uint8)
    masks[:, 6:, 7:] = 255
    prob = binary(np.clip(0.3 * (masks == 1) + 0.6 * rng.random(masks.shape), 0, 1))
    whole = choose_threshold(prob, masks, by="dice_all", ignore_index=255)
    single = choose_threshold(iter(prob), iter(masks), by="dice_all", ignore_index=255)
    assert whole[0] == single[0] and whole[1] == pytest.approx(single[1])
