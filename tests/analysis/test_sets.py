"""Data sets as a sample of data sets: against published examples and against what a hand can derive."""

import numpy as np
import pytest
from scipy import stats

from lossbench.analysis import across_sets, resampling

# Nine laboratories, Kacker (2004), Metrologia 41, 132-136; the numbers below are those of R's metafor for
# method = "DL", test = "knha".
LABS = [61.00, 61.40, 62.21, 62.30, 62.34, 62.60, 62.70, 62.84, 65.90]
VARIANCES = [0.2025, 1.2100, 0.0900, 0.2025, 0.3844, 0.5625, 0.0676, 0.0225, 1.8225]


def test_the_mean_and_interval_are_those_of_a_published_example():
    found = across_sets.pooled(LABS, VARIANCES)
    assert found.estimate == pytest.approx(62.3901386)
    assert found.tau**2 == pytest.approx(0.2880492)
    assert found.se == pytest.approx(0.2947761)
    assert found.interval() == pytest.approx((61.7103838, 63.0698934))


def test_the_prediction_interval_is_that_of_a_textbook():
    """Borenstein et al. (2009), Introduction to Meta-Analysis, chapters 14 and 17: six studies with mean
    .358, tau^2 .037, and a new study expected within -.25 and .97.
    """
    effects = [0.09452, 0.27736, 0.36654, 0.66438, 0.46181, 0.18516]
    found = across_sets.pooled(effects, [0.03337, 0.03107, 0.05088, 0.01056, 0.04339, 0.02363])
    assert (found.estimate, found.tau**2) == (pytest.approx(0.358, abs=1e-3), pytest.approx(0.037, abs=1e-3))
    assert found.prediction() == pytest.approx((-0.25, 0.97), abs=5e-3)
    half = stats.t.ppf(0.975, 4) * np.hypot(found.tau, found.se)
    assert found.prediction()[1] - found.estimate == pytest.approx(half)


def test_equal_variances_make_it_a_t_test_over_data_sets():
    effects = [0.1, 0.4, 0.2, 0.5, 0.3]
    found = across_sets.pooled(effects, [1e-4] * 5)
    expected = stats.ttest_1samp(effects, 0)
    assert found.p() == pytest.approx(expected.pvalue)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert found.equal(0.6) == pytest.approx(stats.ttest_1samp(effects, 0.6, alternative="less").pvalue)


def test_sets_that_agree_by_chance_show_no_more_than_their_own_variances_allow():
    found = across_sets.pooled([0.1, 0.1, 0.1], [0.03, 0.03, 0.03])
    assert (found.tau, found.se) == (0.0, pytest.approx(0.1))


def test_one_set_says_nothing_about_data_sets_and_two_nothing_about_a_new_one():
    one, two = across_sets.pooled([0.1], [0.01]), across_sets.pooled([0.1, 0.2], [0.01, 0.01])
    assert one.interval() == (-np.inf, np.inf) and one.p() == one.smallest_p == 1.0
    assert np.isfinite(two.interval()).all() and two.prediction() == (-np.inf, np.inf)


def test_the_interval_over_test_groups_draws_groups_and_weighs_them_by_their_images():
    # Two classes; group 0 holds four images of the first, group 1 one image of each.
    values, weights = np.array([[1.0, np.nan], [0.0, 2.0]]), np.array([[4.0, 0.0], [1.0, 1.0]])
    drawn = set(np.round(resampling.redrawn(values, weights, draws=200), 6))
    # Twice the first: class 1 alone, 1. Twice the second: (0 + 2) / 2. Both: ((4 * 1 + 0) / 5 + 2) / 2.
    assert drawn == {1.0, 1.4}


def test_groups_of_one_size_have_the_variance_of_a_t_test_and_a_large_one_more():
    values = np.random.default_rng(1).normal(size=(9, 1))
    assert resampling.left_out(values, np.full((9, 1), 3.0)) == pytest.approx(stats.sem(values[:, 0]) ** 2)
    assert resampling.equal_groups(values, np.full((9, 1), 3.0)) == pytest.approx(9)
    # Half of all images in one group: shares 1/2 and eight times 1/16, squares 1/4 + 8/256.
    sizes = np.array([[8.0], *[[1.0]] * 8])
    assert resampling.equal_groups(values, sizes) == pytest.approx(1 / (1 / 4 + 8 / 256))


def test_a_class_that_one_group_holds_is_left_out_with_it():
    # All: (1 + 3) / 2 = 2. Without group 0 class 0 alone, 1; without another both, 2.
    values = np.array([[1.0, 3.0], [1.0, np.nan], [1.0, np.nan]])
    weights = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    left = np.array([1.0, 2.0, 2.0])
    assert resampling.left_out(values, weights) == pytest.approx(2 / 3 * ((left - left.mean()) ** 2).sum())


def test_many_groups_give_the_interval_of_a_plain_bootstrap():
    values = np.random.default_rng(0).normal(size=(60, 1))
    ours = np.quantile(resampling.redrawn(values, np.ones((60, 1)), 20_000), [0.025, 0.975])
    theirs = stats.bootstrap((values[:, 0],), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
