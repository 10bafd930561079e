"""Overlap and region size follow from three counts; every number here can be checked on paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbench.base.counts import log_ratio, overlap, size_per_image
from lossbench.metrics.overlap import pooled, size_aggregate


@pytest.mark.parametrize(
    ("shared", "predicted", "size", "dice", "iou", "precision", "recall"),
    [
        (1, 2, 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2),
        (2, 2, 2, 1, 1, 1, 1),
        (1, 4, 1, 2 / 5, 1 / 4, 1 / 4, 1),
        (0, 3, 1, 0, 0, 0, 0),
        (0, 0, 4, 0, 0, 0, 0),
    ],
)
def test_a_2x2_image_by_hand(shared, predicted, size, dice, iou, precision, recall):
    got = overlap([shared], [predicted], [size])
    expected = {"dice": dice, "iou": iou, "precision": precision, "recall": recall}
    assert {name: got[name][0] for name in expected} == pytest.approx(expected)


def test_an_absent_class_has_no_overlap_to_score():
    assert all(np.isnan(v).all() for v in overlap([0, 0], [0, 3], [0, 0]).values())
    assert all(np.isnan(v) for v in pooled([0, 0], [0, 3], [0, 0]).values())


def test_pooled_dice_counts_what_is_predicted_on_empty_images():
    assert pooled([4], [4], [4])["dice"] == 1
    assert pooled([4, 0], [4, 2], [4, 0])["dice"] == pytest.approx(8 / 10)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_dice_and_iou_tell_the_same_story(shared, extra, missing):
    got = {k: float(v[0]) for k, v in overlap([shared], [shared + extra], [shared + missing]).items()}
    assert got["iou"] == pytest.approx(got["dice"] / (2 - got["dice"]))
    assert 0 <= got["iou"] <= got["dice"] <= 1
    if shared:
        assert 2 / got["dice"] == pytest.approx(1 / got["precision"] + 1 / got["recall"]), (
            "Dice is the harmonic mean"
        )


def test_the_log_ratio_is_signed_symmetric_and_finite_for_a_miss():
    assert log_ratio(20, 10) == pytest.approx(np.log(2))
    assert log_ratio(10, 20) == pytest.approx(-np.log(2))
    assert log_ratio(0, 10) == pytest.approx(-np.log(20)), "half a pixel stands for nothing"
    assert log_ratio(0, 0) == 0


def test_sizes_per_image_and_over_the_split_by_hand():
    predicted, size = np.array([2, 9, 5]), np.array([4, 6, 0])
    images = size_per_image(predicted, size)
    assert images["size_ratio"] == pytest.approx([0.5, 1.5, np.nan], nan_ok=True)
    assert images["size_error"] == pytest.approx([0.5, 0.5, np.nan], nan_ok=True)
    assert images["log_size_image"] == pytest.approx([np.log(0.5), np.log(1.5), np.nan], nan_ok=True)
    split = size_aggregate(predicted, size)
    assert split["size_ratio"] == pytest.approx(16 / 10), "what is predicted on the empty image counts"
    assert split["log_size_ratio"] == pytest.approx(np.log(1.6))
    assert split["log_size_image"] == pytest.approx(np.log(0.75) / 2)
    assert split["size_error"] == pytest.approx(0.5)


def test_a_class_that_no_image_holds_has_no_size_ratio():
    split = size_aggregate([3, 0], [0, 0])
    assert {v for k, v in split.items() if k.startswith("n_")} == {0}
    assert all(np.isnan(v) for k, v in split.items() if not k.startswith("n_"))


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_exchanging_prediction_and_truth_turns_the_sign(a, b):
    assert log_ratio(a, b) == pytest.approx(-log_ratio(b, a))
