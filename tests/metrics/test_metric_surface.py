"""Surface distances agree with their definitions written slowly, with MONAI, and with numbers worked out on
paper.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as np_arrays
from metric_shapes import (
    GOLDEN,
    MESH,
    SURFACE_OF_MONAI,
    ellipsoid,
    monai_scores,
    pairs,
    random_pair,
    slow_border,
    slow_boundary_iou,
    slow_scores,
)

from lossbench.metrics import evaluate, surface
from lossbench.metrics.surface import BAND, USUAL, Wanted, ball, edge, rim, surface_scores

CASES = [
    ((24, 31), (1.0, 1.0)),
    ((24, 31), (0.7, 1.9)),
    ((12, 9, 14), (1.0, 1.0, 1.0)),
    ((12, 9, 14), (3.0, 0.8, 1.1)),
]


def scores(pred, true, spacing=None, worst=None):
    spacing = (1.0,) * pred.ndim if spacing is None else spacing
    worst = (
        np.sqrt(sum((n * s) ** 2 for n, s in zip(pred.shape, spacing, strict=True)))
        if worst is None
        else worst
    )
    out = surface_scores(pred[None], true[None], spacing, np.array([worst]))
    return {name: float(value[0]) for name, value in out.items()}


def mask(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def test_two_single_pixels_are_as_far_apart_as_pythagoras_says():
    a, b = mask("#....", ".....", ".....", "....."), mask(".....", ".....", ".....", "....#")
    got = scores(a, b)
    assert [got[k] for k in USUAL.distances] == [5.0] * 4
    assert (got["nsd_1"], got["nsd_2"], got["boundary_iou"]) == (0, 0, 0)
    assert scores(a, b, (1.0, 0.5))["hd"] == pytest.approx(np.sqrt(9 + 4))


def test_a_row_of_four_against_its_left_half_by_hand():
    # Prediction to truth: 0 0; truth to prediction: 0 0 1 2. Pooled mean 3/6, mean of means (0 + 3/4)/2.
    # 95th percentile of 0 0 1 2: rank 2.85, hence 1.85. Within 1: five of six border pixels.
    got = scores(mask("##.."), mask("####"))
    assert got["hd"] == 2
    assert got["hd95"] == pytest.approx(1.85)
    assert got["assd"] == pytest.approx(0.5)
    assert got["masd"] == pytest.approx(0.375)
    assert got["nsd_1"] == pytest.approx(5 / 6)
    assert got["nsd_2"] == 1
    assert got["boundary_iou"] == pytest.approx(0.5)


def test_hd95_is_the_larger_directed_percentile_and_not_the_percentile_of_the_pooled_distances():
    pred, true, spacing = pairs()["ellipses and a speck of 6 px"]
    got = scores(pred, true, spacing)
    assert got["hd95"] == pytest.approx(37.46, abs=5e-3)
    # The first number of a point is its image.
    a, b = (np.pad(slow_border(mask), ((0, 0), (1, 0))) for mask in (pred, true))
    pooled = np.concatenate(surface.nearest(a, b, spacing))
    assert np.percentile(pooled, 95) == pytest.approx(5.0)
    without, _, _ = pairs()["ellipses"]
    assert scores(without, true)["hd95"] == pytest.approx(4.921, abs=5e-4)


@pytest.mark.parametrize("name", pairs())
def test_frozen_values_of_monai_are_reproduced(name):
    frozen = json.loads(GOLDEN.read_text())["pairs"][name]
    got = scores(*pairs()[name])
    assert {k: got[k] for k in SURFACE_OF_MONAI} == pytest.approx(frozen, abs=1e-4)


@pytest.mark.parametrize("name", MESH)
def test_a_mesh_library_agrees_within_a_quarter(name):
    assd, nsd = MESH[name]
    got = scores(*pairs()[name])
    assert got["assd"] == pytest.approx(assd, rel=0.25)
    assert got["nsd_2"] == pytest.approx(nsd, rel=0.25)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_every_score_equals_its_slow_definition(shape, spacing):
    rng = np.random.default_rng(5)
    for _ in range(8):
        pred, true = random_pair(rng, shape)
        got = scores(pred, true, spacing)
        assert {k: got[k] for k in slow_scores(pred, true, spacing)} == pytest.approx(
            slow_scores(pred, true, spacing)
        )
        worst = np.sqrt(((np.array(shape) * spacing) ** 2).sum())
        width = max(BAND * worst, max(spacing))
        assert got["boundary_iou"] == pytest.approx(slow_boundary_iou(pred, true, spacing, width))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("shape", "spacing"), [*CASES, ((96, 80), (0.5, 2.0)), ((24, 24, 24), (3.0, 1.0, 1.0))]
)
def test_monai_gives_the_same_numbers_on_random_masks(shape, spacing):
    pytest.importorskip("monai", reason="MONAI is not installed (extra 'peers')")
    rng = np.random.default_rng(11)
    for _ in range(6):
        pred, true = random_pair(rng, shape)
        got = scores(pred, true, spacing)
        assert {k: got[k] for k in SURFACE_OF_MONAI} == pytest.approx(
            monai_scores(pred, true, spacing), abs=1e-4
        )


@pytest.mark.parametrize("reach", [0, 1, 50])
@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_the_ways_to_the_nearest_border_pixel_agree(monkeypatch, shape, spacing, reach):
    pred, true = random_pair(np.random.default_rng(2), shape)
    pred[..., 0], true[..., -1] = False, False
    pred[(0,) * len(shape)] = True  # a distant speck
    direct = scores(pred, true, spacing)
    monkeypatch.setattr(surface, "_ALL_PAIRS", 0)
    monkeypatch.setattr(surface, "_ROWS", {1: reach, 2: min(reach, 9)})
    assert scores(pred, true, spacing) == pytest.approx(direct)


def test_more_percentiles_and_tolerances_by_hand():
    # Prediction to truth: 0 0; truth to prediction: 0 0 1 2.
    got = surface_scores(
        mask("##..")[None], mask("####")[None], (1.0, 1.0), np.array([9.0]), Wanted((50, 100), (0, 1.5))
    )
    assert {name: values[0] for name, values in got.items() if name != "boundary_iou"} == {
        "hd": 2,
        "hd50": 0.5,
        "hd100": 2,
        "assd": 0.5,
        "masd": 0.375,
        "nsd_0": 4 / 6,
        "nsd_1.5": 5 / 6,
    }


@pytest.mark.parametrize("worst", [40.0, 150.0, 400.0])
def test_the_band_of_boundary_iou_is_right_at_any_width(worst):
    pred, true = random_pair(np.random.default_rng(3), (40, 60))
    got = scores(pred, true, (1.0, 0.7), worst=worst)
    assert got["boundary_iou"] == pytest.approx(
        slow_boundary_iou(pred, true, (1.0, 0.7), max(BAND * worst, 1.0))
    )


def test_a_stack_scores_each_image_as_if_it_were_alone():
    rng = np.random.default_rng(4)
    stack = [random_pair(rng, (20, 25)) for _ in range(5)]
    preds, trues = (np.stack(side) for side in zip(*stack, strict=True))
    preds[1], trues[2] = False, False
    together = surface_scores(preds, trues, (1.0, 2.0), np.full(5, 40.0))
    for n in range(5):
        alone = scores(preds[n], trues[n], (1.0, 2.0), worst=40.0)
        assert {k: together[k][n] for k in USUAL.names} == pytest.approx(alone, nan_ok=True)


def test_a_missed_object_gets_the_worst_values_and_an_empty_truth_gets_none():
    empty, full = np.zeros((6, 8), bool), ellipsoid((6, 8), (3, 4), (2, 2))
    missed = scores(empty, full)
    assert {missed[k] for k in USUAL.distances} == {10.0}
    assert {missed[k] for k in USUAL.names if k not in USUAL.distances} == {0.0}
    assert all(np.isnan(v) for v in scores(full, empty).values())
    assert all(np.isnan(v) for v in scores(empty, empty).values())


def test_nothing_inside_an_image_is_as_far_as_a_miss():
    corner, other = np.zeros((2, 7, 5), bool)
    corner[0, 0], other[-1, -1] = True, True
    assert scores(corner, other, (2.0, 3.0))["hd"] < scores(np.zeros((7, 5), bool), other, (2.0, 3.0))["hd"]


def pixels_of(rows):
    return sorted((*(int(i) for i in offset), x) for offset, reach in rows for x in range(-reach, reach + 1))


def test_a_ball_holds_the_pixels_within_its_radius_in_units_of_the_spacing():
    cross = [(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]
    assert pixels_of(ball(1.0, (1.0, 1.0))) == cross
    assert len(pixels_of(ball(2.0, (1.0, 1.0)))) == 13
    assert pixels_of(ball(1.0, (3.0, 0.5))) == [(0, x) for x in range(-2, 3)]
    assert len(pixels_of(ball(0.3, (0.1, 0.1)))) == 29, "3 x 0.1 lies within 0.3 in spite of rounding"
    assert len(pixels_of(ball(1.0, (1.0, 1.0, 1.0)))) == 7


@pytest.mark.parametrize("shape", [(9,), (7, 9), (5, 6, 7)])
def test_the_border_is_the_rim_of_one_pixel(shape):
    mask = np.random.default_rng(0).random((3, *shape)) < 0.8
    assert (edge(mask) == rim(mask, 1.0, (1.0,) * len(shape))).all()


masks_2d = np_arrays(bool, (7, 9), elements=st.booleans()).filter(np.any)


@settings(max_examples=60, deadline=None)
@given(masks_2d, masks_2d, st.sampled_from([(1.0, 1.0), (0.5, 2.0)]))
def test_scores_are_symmetric_bounded_and_ordered(a, b, spacing):
    got = scores(a, b, spacing)
    assert got == pytest.approx(scores(b, a, spacing))
    assert 0 <= got["assd"] <= got["hd"] + 1e-9
    assert got["hd95"] <= got["hd"] + 1e-9
    assert got["hd"] < np.hypot(7 * spacing[0], 9 * spacing[1])
    assert 0 <= got["nsd_1"] <= got["nsd_2"] <= 1
    assert 0 <= got["boundary_iou"] <= 1


@settings(max_examples=30, deadline=None)
@given(masks_2d)
def test_a_mask_is_at_no_distance_from_itself(a):
    got = scores(a, a)
    assert [got[k] for k in USUAL.distances] == [0] * 4
    assert (got["nsd_1"], got["nsd_2"], got["boundary_iou"]) == (1, 1, 1)


@settings(max_examples=30, deadline=None)
@given(masks_2d, masks_2d, st.integers(0, 3), st.integers(0, 4))
def test_flips_transposition_and_empty_margins_change_nothing(a, b, top, left):
    got = scores(a, b, worst=50.0)
    assert scores(a[::-1], b[::-1], worst=50.0) == pytest.approx(got)
    assert scores(a.T, b.T, worst=50.0) == pytest.approx(got)
    around = ((top, 2), (left, 1))
    assert scores(np.pad(a, around), np.pad(b, around), worst=50.0) == pytest.approx(got)


@settings(max_examples=20, deadline=None)
@given(masks_2d, masks_2d, st.sampled_from([0.25, 2.0, 3.0]))
def test_distances_scale_with_the_spacing(a, b, factor):
    got, scaled = scores(a, b), scores(a, b, (factor, factor))
    assert {k: scaled[k] for k in USUAL.distances} == pytest.approx(
        {k: factor * got[k] for k in USUAL.distances}
    )
    assert scaled["boundary_iou"] == pytest.approx(got["boundary_iou"])


def test_the_released_boundary_iou_erodes_by_squares():
    true = np.zeros((9, 9), int)
    true[2:7, 2:7] = 1
    pred = true.copy()
    pred[2, 2] = 0  # a corner: the pixel behind it lies 1.4 from the background, and beside it on a diagonal
    got = evaluate(pred, true, released=True)
    # 15 of the 16 pixels of the ring are in both bands; the one behind the corner is in the released band.
    assert (got["boundary_iou"], got["boundary_iou_released"]) == (15 / 16, 15 / 17)
    assert evaluate(0 * pred, true, released=True)["boundary_iou_released"] == 0
    assert np.isnan(evaluate(pred, 0 * true, released=True)["boundary_iou_released"])
