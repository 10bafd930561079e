"""Calibration scores against counts made by hand, a direct implementation, MONAI, and a forecaster that is
right.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.metrics.calibration import BINS, reliability_rows, scores, tally


def binary(p):
    """(N, 2, *S) probabilities from those of the foreground."""
    p = np.asarray(p, dtype=np.float32)
    return np.stack([1 - p, p], axis=1)


def calibration(prob, masks, valid=None):
    return scores([tally(prob, masks, valid)], [str(c) for c in range(prob.shape[1])])


def reliability(prob, masks):
    return reliability_rows([tally(prob, masks)], [str(c) for c in range(prob.shape[1])])


def noisy_scene(rng, shape=(4, 3, 16, 16)):
    prob = rng.dirichlet(np.full(shape[1], 0.4), size=(shape[0], *shape[2:]))
    masks = rng.integers(0, shape[1], (shape[0], *shape[2:]), dtype=np.uint8)
    return np.moveaxis(prob, -1, 1).astype(np.float32), masks


def direct_ece(p, true, bins=BINS):
    """The definition, bin by bin."""
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for b in range(bins):
        inside = (p > edges[b] if b else p >= 0) & (p <= edges[b + 1])
        if inside.any():
            total += inside.sum() * abs(p[inside].mean() - true[inside].mean())
    return total / p.size


def test_four_pixels_by_hand():
    prob, masks = binary([[[0.1, 0.4], [0.7, 0.9]]]), np.array([[[0, 1], [0, 1]]], dtype=np.uint8)
    got = calibration(prob, masks)
    assert got["nll"] == pytest.approx(-(np.log(0.9) + np.log(0.4) + np.log(0.3) + np.log(0.9)) / 4, rel=1e-6)
    assert got["brier"] == pytest.approx(2 * (0.01 + 0.36 + 0.49 + 0.01) / 4, rel=1e-5)
    # Four pixels in four different bins: the errors are |p - y| each.
    assert got["ece"] == pytest.approx((0.1 + 0.6 + 0.7 + 0.1) / 4, rel=1e-5)
    assert got["ece_adaptive"] == pytest.approx(got["ece"], rel=1e-5)
    assert got["ece_fg"] == pytest.approx(got["ece"], rel=1e-5), "all four lie within 4 px of the object"
    assert (got["n_pixels"], got["n_pixels_fg"]) == (4, 4)


def test_errors_of_opposite_sign_cancel_inside_a_bin_only():
    prob, masks = (
        binary(np.full((1, 1, 10), 0.3)),
        np.array([[[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.uint8),
    )
    assert calibration(prob, masks)["ece"] == pytest.approx(0, abs=1e-7)
    assert calibration(prob, masks)["ece_adaptive"] == pytest.approx(0, abs=1e-7), (
        "equal values share an adaptive bin"
    )
    assert calibration(prob, 1 - masks)["ece"] == pytest.approx(0.4, rel=1e-5)


def test_a_forecaster_that_knows_the_posterior_is_calibrated_everywhere_and_near_the_objects():
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(0, 1, 48), (200, 48, 48)).astype(np.float32)
    masks = (rng.random(ramp.shape) < ramp).astype(np.uint8)
    got = calibration(binary(ramp), masks)
    assert got["ece"] < 0.002
    assert got["ece_adaptive"] < 0.002
    overconfident = calibration(binary((ramp > 0.5) * 0.998 + 0.001), masks)
    assert overconfident["ece"] > 0.2


def test_the_foreground_region_is_not_swamped_by_background():
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[0, 30:34, 30:34] = 1
    got = calibration(binary(np.where(masks, 0.5, 0.0)), masks)
    assert got["n_pixels_fg"] == 12 * 12
    assert got["ece_fg"] == pytest.approx(0.5 * 16 / 144)
    assert got["ece"] == pytest.approx(0.5 * 16 / 4096)


def test_the_class_wise_error_equals_its_definition_bin_by_bin():
    prob, masks = noisy_scene(np.random.default_rng(1))
    expected = np.mean([direct_ece(prob[:, c].astype(float), masks == c) for c in (1, 2)])
    assert calibration(prob, masks)["ece"] == pytest.approx(expected, rel=1e-5)


def test_adaptive_bins_equal_a_sort_into_equal_parts():
    rng = np.random.default_rng(2)
    p = rng.permutation(np.linspace(0.01, 0.99, 1500)).astype(np.float32)
    true = rng.random(1500) < p**2
    parts = np.argsort(p).reshape(BINS, 100)
    expected = np.mean([abs(p[i].astype(float).mean() - true[i].mean()) for i in parts])
    got = calibration(binary(p[None, None]), true[None, None].astype(np.uint8))
    assert got["ece_adaptive"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_monai_bins_and_averages_the_same():
    monai = pytest.importorskip("monai.metrics.calibration", reason="MONAI is not installed (extra 'peers')")
    import torch

    prob, masks = noisy_scene(np.random.default_rng(3), (1, 3, 24, 24))
    onehot = torch.from_numpy(np.stack([masks == c for c in range(3)], axis=1)).float()
    mean_p, mean_y, n = monai.calibration_binning(torch.from_numpy(prob), onehot, num_bins=BINS)
    ours = [r for r in reliability(prob, masks) if r["region"] == "all"]
    for name, theirs in (("n", n), ("probability", mean_p), ("frequency", mean_y)):
        assert [r[name] for r in ours] == pytest.approx(
            theirs[0, 1:].flatten().tolist(), abs=1e-5, nan_ok=True
        )


def test_void_pixels_count_for_nothing():
    prob, masks = noisy_scene(np.random.default_rng(4), (3, 2, 20, 20))
    masks[:, 10:] = 255
    changed = prob.copy()
    changed[:, :, 10:] = changed[:, ::-1, 10:]
    assert calibration(prob, masks, masks != 255) == calibration(changed, masks, masks != 255)
    alone = calibration(prob[:, :, :10], masks[:, :10])
    assert calibration(prob, masks, masks != 255) == pytest.approx(alone, rel=1e-6)


def test_tallies_of_two_stacks_add_up_to_that_of_both():
    prob, masks = noisy_scene(np.random.default_rng(5))
    parts = [tally(prob[:1], masks[:1]), tally(prob[1:], masks[1:])]
    assert scores(parts, "abc") == pytest.approx(scores([tally(prob, masks)], "abc"))


def test_each_class_has_its_own_calibration_error_and_the_mean_is_theirs():
    prob, masks = noisy_scene(np.random.default_rng(7))
    got = calibration(prob, masks)
    for c in (1, 2):
        assert got[f"ece:{c}"] == pytest.approx(direct_ece(prob[:, c].astype(float), masks == c), rel=1e-5)
    for name in ("ece", "ece_fg", "ece_adaptive"):
        assert got[name] == pytest.approx((got[f"{name}:1"] + got[f"{name}:2"]) / 2)


def test_reliability_rows_name_their_bins_and_count_every_pixel():
    prob, masks = noisy_scene(np.random.default_rng(6))
    rows = reliability_rows([tally(prob, masks)], ("bg", "a", "b"))
    assert {(r["class"], r["region"]) for r in rows} == {(c, g) for c in "ab" for g in ("all", "fg")}
    assert all(len([r for r in rows if (r["class"], r["region"]) == (c, "all")]) == BINS for c in "ab")
    assert sum(r["n"] for r in rows if (r["class"], r["region"]) == ("a", "all")) == masks.size
    assert all(r["low"] - 1e-6 <= r["probability"] <= r["high"] + 1e-6 for r in rows if r["n"])


def test_without_any_object_there_is_no_foreground_region():
    got = calibration(binary(np.full((2, 8, 8), 0.2)), np.zeros((2, 8, 8), np.uint8))
    assert np.isnan(got["ece_fg"])
    assert got["n_pixels_fg"] == 0
    assert got["ece"] == pytest.approx(0.2)


def test_certain_and_wrong_is_finite():
    got = calibration(binary(np.ones((1, 4, 4))), np.zeros((1, 4, 4), np.uint8))
    assert got["nll"] == pytest.approx(-np.log(1e-12), rel=1e-5)
    assert (got["brier"], got["ece"]) == (2, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_bounds_and_permutations_of_the_pixels(seed, classes):
    rng = np.random.default_rng(seed)
    prob, masks = noisy_scene(rng, (2, classes, 6, 7))
    got = calibration(prob, masks)
    assert 0 <= got["brier"] <= 2
    assert 0 <= got["ece"] <= 1 and 0 <= got["ece_adaptive"] <= 1 and got["nll"] >= 0
    order = rng.permutation(42)
    shuffled = [a.reshape(*a.shape[:-2], 42)[..., order].reshape(a.shape) for a in (prob, masks)]
    again = calibration(*shuffled)
    assert {k: again[k] for k in ("nll", "brier", "ece")} == pytest.approx(
        {k: got[k] for k in ("nll", "brier", "ece")}
    )
