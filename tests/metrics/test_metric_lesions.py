"""Objects are counted, matched and sorted by size as one would by looking at the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as np_arrays

from lossbench.metrics.lesions import QUINTILES, Matches, components, lesion_scores, match


def picture(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def compare(pred, true):
    return match(components(pred[None]), components(true[None]))


def test_one_found_one_missed_one_invented():
    true = picture("##....", "##....", ".....#")
    pred = picture("##....", "#.....", "...#..")
    m = compare(pred, true)
    assert m.size.tolist() == [4, 1]
    assert m.hit.tolist() == [True, False]
    assert m.iou.tolist() == [0.75, 0]
    assert m.real.tolist() == [True, False]
    got = lesion_scores(m)
    assert (got["lesion_recall"], got["lesion_precision"], got["lesion_f1"]) == (0.5, 0.5, 0.5)
    assert got["pq"] == pytest.approx(0.75 / (1 + 0.5 + 0.5))
    assert got["rq"] == pytest.approx(1 / 2)


def test_pixels_that_touch_at_a_corner_are_one_object():
    assert len(components(picture("#.", ".#")[None]).size) == 1


def test_objects_of_neighbouring_images_never_join():
    stack = np.ones((3, 2, 2), bool)
    found = components(stack)
    assert found.size.tolist() == [4, 4, 4]
    assert found.per_image().tolist() == [1, 1, 1]
    stack[1] = picture("..", "..")
    assert components(stack).per_image().tolist() == [1, 0, 1]


def test_volumes_are_labelled_with_their_corners_too():
    volume = np.zeros((1, 2, 2, 2), bool)
    volume[0, 0, 0, 0] = volume[0, 1, 1, 1] = True
    assert components(volume).size.tolist() == [2]


def test_an_object_split_into_halves_is_hit_but_matched_by_none():
    # Each half has IoU 2/5 or 2/5 with the bar of five; both are real, neither is a match.
    m = compare(picture("##.##"), picture("#####"))
    got = lesion_scores(m)
    assert (got["lesion_recall"], got["lesion_precision"]) == (1, 1)
    assert (got["pq"], got["rq"]) == (0, 0)


def test_an_overlap_of_exactly_one_half_is_no_match_because_two_could_have_it():
    assert compare(picture("##.."), picture("####")).iou.tolist() == [0]
    assert compare(picture("###."), picture("####")).iou.tolist() == [0.75]


def test_recall_by_size_quintile_reads_from_small_to_large():
    hit = np.array([False, False, True, True, True, False, True, True, True, True])
    m = Matches(np.arange(1, 11), hit, np.zeros(10), np.zeros(0, bool))
    got = lesion_scores(m)
    assert [got[q] for q in QUINTILES] == [0, 1, 0.5, 1, 1]


def test_objects_of_one_size_share_the_smallest_fifth_and_the_others_are_empty():
    got = lesion_scores(Matches(np.full(7, 3), np.ones(7, bool), np.ones(7), np.ones(7, bool)))
    assert got["recall_q1"] == 1
    assert all(np.isnan(got[q]) for q in QUINTILES[1:])


def test_nothing_predicted_scores_zero_and_no_true_object_scores_nothing():
    empty, full = picture("...", "..."), picture("#.#", "#.#")
    assert {v for v in lesion_scores(compare(empty, full)).values() if not np.isnan(v)} == {0.0}
    assert all(np.isnan(v) for v in lesion_scores(compare(full, empty)).values())


def slow_match(pred, true):
    """IoU of every pair of components, one mask at a time."""
    from scipy.ndimage import label

    preds, trues = (
        [lab == k for k in range(1, n + 1)] for lab, n in (label(m, np.ones((3, 3))) for m in (pred, true))
    )
    table = np.array([[(p & t).sum() / (p | t).sum() for p in preds] for t in trues]).reshape(
        len(trues), len(preds)
    )
    return table, preds, trues


@settings(max_examples=60, deadline=None)
@given(np_arrays(bool, (3, 5, 6), elements=st.booleans(), fill=st.just(False)))
def test_objects_are_numbered_from_image_to_image(stack):
    assert components(stack).per_image().tolist() == [len(components(m[None]).size) for m in stack]


@settings(max_examples=60, deadline=None)
@given(*[np_arrays(bool, (8, 9), elements=st.booleans(), fill=st.just(False))] * 2)
def test_matches_equal_the_table_of_all_pairs(pred, true):
    table, preds, trues = slow_match(pred, true)
    m = compare(pred, true)
    assert m.size.tolist() == [t.sum() for t in trues]
    assert m.hit.tolist() == (table > 0).any(axis=1).tolist()
    assert m.real.tolist() == (table > 0).any(axis=0).tolist()
    assert m.iou.tolist() == pytest.approx(np.where(table > 0.5, table, 0).sum(axis=1).tolist())
    if len(trues):
        got = lesion_scores(m)
        assert all(np.isnan(v) or 0 <= v <= 1 for v in got.values())
        assert got["pq"] <= got["rq"] + 1e-12
        assert len(preds) == len(m.real)
