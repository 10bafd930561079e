"""Scenes keep what their parameters promise, and their posterior is what counting finds."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.base.errors import UserError
from lossbench.data import posterior, shapes
from lossbench.data import scenes as synthetic
from lossbench.data.scenes import scenes

SMALL = {"n_train": 40, "n_val": 10, "n_test": 20}


@pytest.mark.parametrize("foreground", [0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("shape", ["blob", "field"])
def test_the_realised_foreground_is_the_one_asked_for(foreground, shape):
    data = scenes(seed=0, foreground=foreground, shape=shape, n_train=200, n_val=20, n_test=20)
    assert (data.masks == 1).mean() == pytest.approx(foreground, rel=0.03)
    assert data.truth["expected"]["train"][1] == pytest.approx(foreground, rel=0.02)


@pytest.mark.parametrize(
    "parameters",
    [
        {"objects": 4},
        {"size_ratio": 100.0, "foreground": 0.02},
        {"rim": 0.5},
        {"rim": 1.0, "rim_probability": 0.2},
        {"boundary_shift": 0.4},
        {"shape": "vessel"},
        {"empty": 0.3},
        {"distractors": 3},
        {"label_noise": 0.2},
        {"dims": 3, "size": 32, "n_train": 40},
        {
            "size": 128,
            "objects": 3,
            "boundary_shift": 0.2,
            "size_ratio": 4.0,
            "empty": 0.5,
            "distractors": 2,
            "label_noise": 0.1,
        },
    ],
    ids=str,
)
def test_every_factor_keeps_the_expected_fraction(parameters):
    data = scenes(seed=1, **{"foreground": 0.03, "n_train": 300, "n_val": 10, "n_test": 10, **parameters})
    for part in ("train", "test"):
        expected = parameters.get("foreground", 0.03) * (1 - parameters.get("empty", 0.0))
        assert data.truth["expected"][part][1] == pytest.approx(expected, rel=0.02)
    assert (data.masks[data.split["train"]] == 1).mean() == pytest.approx(
        data.truth["expected"]["train"][1], rel=0.06
    )


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({"noise": 2.0, "foreground": 0.05}, 1500),
        ({"noise": 1.0, "foreground": 0.005}, 1500),
        ({"noise": 1.2, "empty": 0.5}, 1500),
        ({"noise": 1.0, "objects": 3, "distractors": 3, "foreground": 0.03}, 800),
        ({"noise": 0.7, "boundary_shift": 0.3, "foreground": 0.03}, 800),
        ({"noise": 0.7, "rim": 0.5, "foreground": 0.03}, 800),
        ({"noise": 1.5, "shape": "vessel", "foreground": 0.03}, 800),
        ({"noise": 1.2, "size_ratio": 16.0, "foreground": 0.01}, 800),
        ({"noise": 1.5, "label_noise": 0.2, "foreground": 0.03}, 800),
        ({"noise": 1.2, "classes": 4, "class_ratio": 8.0, "foreground": 0.05}, 800),
        ({"noise": 1.5, "dims": 3, "size": 16, "foreground": 0.05}, 800),
    ],
    ids=str,
)
def test_the_posterior_is_calibrated_by_counting(parameters, count):
    """Of the pixels with posterior about q, a share q carries the label: in bins, within 4 standard errors of
    clustered images.
    """
    data = scenes(seed=3, **{"size": 32, "foreground": 0.01, **parameters}, n_train=count, n_val=1, n_test=1)
    images = data.split["train"]
    for k in range(1, data.posterior.shape[1]):
        claimed = data.posterior[images, k].reshape(count, -1)
        labelled = (data.masks[images] == k).reshape(count, -1)
        tested = 0
        for low, high in itertools.pairwise((0, 1e-3, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0001)):
            inside = (claimed >= low) & (claimed < high)
            if np.count_nonzero(inside.any(1)) < 50:
                continue
            tested += 1
            surplus = ((labelled - claimed) * inside).sum(
                1
            )  # by image, since pixels of one image go together
            error = surplus.std(ddof=1) * np.sqrt(count)
            assert abs(surplus.sum()) < 4 * error + 1e-3 * inside.sum() + 3, (k, low, high)
        assert tested >= 3


def test_levels_of_one_ladder_share_no_noise():
    few, many = (scenes(seed=0, foreground=f, **SMALL).images.ravel() for f in (0.002, 0.05))
    assert abs(np.corrcoef(few, many)[0, 1]) < 0.01


def test_the_posterior_equals_a_sum_over_every_template_and_place_written_out():
    data = scenes(
        seed=0, size=16, foreground=0.05, noise=0.8, boundary_shift=0.2, n_train=3, n_val=1, n_test=1
    )
    scene = _scene(size=16, foreground=0.05, noise=0.8, boundary_shift=0.2)
    kind = synthetic._kinds(scene, "train")[0][0].objects
    for n in range(3):
        weights, inside = [], []
        for t in range(len(kind.weight)):
            rows, columns = kind.room(t)
            for corner in itertools.product(range(rows), range(columns)):
                clean, probability = np.zeros((16, 16)), np.zeros((16, 16))
                box = tuple(slice(c, c + s) for c, s in zip(corner, kind.appearance[t].shape, strict=True))
                clean[box], probability[box] = kind.appearance[t], kind.probability[t]
                residual = data.images[n, 0] - clean
                weights.append(
                    kind.weight[t] / (rows * columns) * np.exp(-(residual**2).sum() / (2 * 0.8**2))
                )
                inside.append(probability)
        exact = np.einsum("t,tij->ij", np.array(weights) / np.sum(weights), np.array(inside))
        assert np.abs(data.posterior[n, 1] - exact).max() < 1e-4


def _scene(**given):
    full = {
        name: p.default
        for name, p in __import__("inspect").signature(scenes).parameters.items()
        if name != "seed"
    }
    return synthetic._checked({**full, **given})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(0, 10**6))
def test_arrangements_sum_as_if_all_were_listed(counts, seed):
    counts = (*counts, 1)
    tiles, kinds = sum(counts), len(counts)
    logs = np.random.default_rng(seed).normal(0, 2, (2, tiles, kinds))
    contents = sorted(set(itertools.permutations(np.repeat(np.arange(kinds), counts).tolist())))
    scores = np.array(
        [[logs[b, np.arange(tiles), list(order)].sum() for order in contents] for b in range(2)]
    )
    total, marginal = posterior.assignment(logs, counts)
    assert np.allclose(total, np.log(np.exp(scores).mean(1)))
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for j, t in itertools.product(range(tiles), range(kinds)):
        assert np.allclose(marginal[:, j, t], shares[:, [order[j] == t for order in contents]].sum(1))


def test_the_posterior_sums_to_one_and_never_leaves_the_unit_interval():
    for parameters in (
        {"classes": 5, "foreground": 0.1},
        {"label_noise": 0.3},
        {"empty": 1.0, "empty_test": 0.0},
        {"foreground": 0.5, "noise": 0.01},
    ):
        data = scenes(seed=2, **SMALL, **parameters)
        assert np.allclose(data.posterior.sum(1), 1, atol=1e-5)
        assert data.posterior.min() >= 0 and data.posterior.max() <= 1


def test_without_noise_the_posterior_of_a_crisp_scene_is_its_label():
    data = scenes(seed=0, noise=0.05, **SMALL)
    assert np.abs(data.posterior[:, 1] - data.masks).max() < 1e-3


def test_a_scene_depends_on_name_parameters_and_seed_alone():
    first, again, other = scenes(seed=5, **SMALL), scenes(seed=5, **SMALL), scenes(seed=6, **SMALL)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert np.array_equal(first.images, again.images) and np.array_equal(first.posterior, again.posterior)
    assert not np.array_equal(first.images, other.images)


def test_more_test_images_leave_the_training_images_as_they_are():
    few, many = scenes(seed=0, **SMALL), scenes(seed=0, **{**SMALL, "n_test": 50})
    assert np.array_equal(few.images[few.split["train"]], many.images[many.split["train"]])


def test_sizes_span_a_factor_of_a_hundred_log_uniformly():
    areas, weights = shapes.sizes(60.0, 100.0)
    assert areas[-1] / areas[0] == pytest.approx(100, rel=0.2)
    assert (areas * weights).sum() == pytest.approx(60, rel=0.01)
    steps = np.diff(np.log(areas))
    assert np.allclose(steps, np.log(100) / (len(areas) - 1), atol=0.3)
    data = scenes(seed=0, size_ratio=100.0, foreground=0.02, n_train=300, n_val=1, n_test=1)
    realised = np.bincount((data.masks[:300] == 1).sum((1, 2)))
    assert np.isin(np.flatnonzero(realised), shapes.sizes(0.02 * 64**2, 100.0)[0]).all()


def test_the_shares_of_empty_images_are_exact_in_each_part():
    data = scenes(seed=0, empty=0.3, empty_test=0.5, n_train=200, n_val=50, n_test=40)
    empty = {
        part: int((data.masks[index].reshape(len(index), -1).max(1) == 0).sum())
        for part, index in data.split.items()
    }
    assert empty == {"train": 60, "val": 15, "test": 20}


def test_the_size_shift_changes_the_test_images_alone():
    data = scenes(seed=0, size_shift=4.0, foreground=0.02, **SMALL)
    sizes = {part: (data.masks[index] == 1).mean() for part, index in data.split.items()}
    assert sizes["train"] == pytest.approx(0.02, rel=0.02) and sizes["test"] == pytest.approx(0.08, rel=0.02)


def test_label_noise_spares_the_test_images():
    clean, noisy = scenes(seed=0, **SMALL), scenes(seed=0, label_noise=0.3, **SMALL)
    test, train = clean.split["test"], clean.split["train"]
    assert np.array_equal(clean.masks[test], noisy.masks[test])
    kept = (noisy.masks[train] == 1)[clean.masks[train] == 1].mean()
    assert kept == pytest.approx(0.7, abs=0.03)


def test_classes_have_the_shares_that_the_ratio_says():
    data = scenes(
        seed=0,
        classes=5,
        class_ratio=100.0,
        foreground=0.1,
        size=128,
        noise=1.0,
        n_train=30,
        n_val=1,
        n_test=1,
    )
    shares = np.bincount(data.masks.ravel(), minlength=5)[1:] / data.masks.size
    assert shares.sum() == pytest.approx(0.1, rel=0.02) and shares[0] / shares[-1] == pytest.approx(
        100, rel=0.1
    )


def test_varying_proportions_vary_between_images_and_keep_the_total():
    fixed, varying = (
        scenes(seed=0, classes=4, shape="field", foreground=0.3, proportions=p, **SMALL)
        for p in ("fixed", "varying")
    )
    for data in (fixed, varying):
        assert np.allclose((data.masks > 0).mean((1, 2)), 0.3, atol=1e-3)
        assert data.posterior is None
    spread = [(data.masks == 1).mean((1, 2)).std() for data in (fixed, varying)]
    assert spread[0] < 1e-3 and spread[1] > 0.04


def test_distractors_are_seen_but_not_labelled():
    plain, crowded = scenes(seed=0, objects=2, foreground=0.05, noise=0.05, **SMALL), None
    crowded = scenes(seed=0, objects=2, distractors=2, foreground=0.05, noise=0.05, **SMALL)
    bright = [((data.images[:, 0] > 0.3) & (data.masks == 0)).mean() for data in (plain, crowded)]
    assert bright[1] > bright[0] + 0.02
    assert (crowded.masks == 1).mean() == pytest.approx((plain.masks == 1).mean(), rel=0.05)


def test_vessels_are_long_and_blobs_are_round():
    spans = {}
    for shape in ("blob", "vessel"):
        masks = scenes(seed=0, shape=shape, foreground=0.03, **SMALL).masks
        spans[shape] = np.mean([max(np.ptp(axis) for axis in np.nonzero(mask)) for mask in masks])
    assert spans["vessel"] > 2 * spans["blob"]


def test_the_rim_is_labelled_pixel_by_pixel_and_the_shift_as_one():
    rim = scenes(seed=0, rim=1.0, rim_probability=0.5, foreground=0.1, **SMALL)
    shift = scenes(seed=0, boundary_shift=0.3, foreground=0.1, **SMALL)
    areas = [(data.masks == 1).sum((1, 2)) for data in (rim, shift)]
    assert areas[0].std() / areas[0].mean() < 0.1 < areas[1].std() / areas[1].mean()


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"foreground": 0.0}, "foreground"),
        ({"noise": 0}, "noise"),
        ({"size": 30}, "divisible"),
        ({"dims": 4}, "dims"),
        ({"objects": 0}, "objects"),
        ({"foreground": 0.0001}, "less than one pixel"),
        ({"rim": 0.5, "boundary_shift": 0.1}, "one kind"),
        ({"shape": "star"}, "shape"),
        ({"shape": "field", "objects": 2}, "objects"),
        ({"proportions": "varying"}, "field"),
        ({"foreground": 0.6, "objects": 64, "softness": 4.0}, "pixels"),
        ({"foreground": 0.5, "shape": "vessel"}, "vessel"),
        ({"foreground": 0.5, "boundary_shift": 0.4}, "lower"),
        (
            {"size": 36, "objects": 17, "softness": 0, "foreground": 0.02},
            "8x4 tiles; 'size' must be divisible by 8",
        ),
        ({"foreground": True}, "foreground"),
        ({"shape": "field", "foreground": 0.5, "size_ratio": 50.0}, "background"),
    ],
    ids=str,
)
def test_impossible_scenes_are_refused_in_one_sentence(parameters, word):
    with pytest.raises(UserError, match=word) as refused:
        scenes(seed=0, **parameters)
    assert "\n" not in str(refused.value)
