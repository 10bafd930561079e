"""The statistics agree with hand calculation and with scipy and statsmodels."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lossbench.analysis import resampling, stats

D = np.array([0.3, 0.1, 0.4, -0.1, 0.2])


def test_the_interval_of_one_group_is_the_paired_t_interval():
    found = stats.estimate([D], [1.0])
    expected = scipy_stats.ttest_1samp(D, 0).confidence_interval(0.95)
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert stats.t_test(found) == pytest.approx(scipy_stats.ttest_1samp(D, 0).pvalue)


def test_the_contrast_of_two_groups_is_welchs_t_test():
    other = np.array([0.0, 0.05, -0.02])
    found = stats.estimate([D, other], [1.0, -1.0])
    welch = scipy_stats.ttest_ind(D, other, equal_var=False)
    assert found.df == pytest.approx(welch.df)
    assert stats.t_test(found) == pytest.approx(welch.pvalue)


def test_a_slope_is_the_least_squares_line_through_the_group_means():
    x = [-3.0, -2.0, -1.0]
    groups = [np.array([1.0, 3.0]), np.array([1.0, 1.2]), np.array([0.1, 0.3])]
    weights = stats.slope_weights(x)
    assert stats.estimate(groups, weights).value == pytest.approx(np.polyfit(x, [2.0, 1.1, 0.2], 1)[0])
    with pytest.raises(ValueError, match="two different"):
        stats.slope_weights([1.0, 1.0])


def test_a_single_block_has_no_interval_but_borrows_the_spread_of_the_other_groups():
    assert np.isnan(stats.estimate([np.array([0.3])], [1.0]).interval()).all()
    mixed = stats.estimate([np.array([1.0, 3.0]), np.array([5.0])], [0.5, 0.5])
    assert mixed.value == 3.5
    assert mixed.se == pytest.approx(np.sqrt(0.25 * 2 / 2 + 0.25 * 2 / 1))
    assert mixed.df == 1


def test_the_bca_interval_of_one_group_is_scipys():
    values = np.random.default_rng(3).exponential(size=25)
    ours = stats.bca_interval([values], [1.0], resamples=40_000, seed=1)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=2
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert stats.bca_interval([values], [1.0], seed=1) == stats.bca_interval([values], [1.0], seed=1)


def test_blocks_that_agree_exactly_leave_the_bootstrap_no_room():
    assert stats.bca_interval([np.full(4, 0.2), np.full(4, 0.2)], [0.5, 0.5]) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_sign_flips_are_counted_exactly(n):
    d = np.round(np.random.default_rng(n).normal(0.4, 1, n), 2)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=n)]
    assert resampling.sign_flip([d]) == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_sign_flips_weigh_data_sets_alike():
    groups = [np.array([1.0, 2.0, 0.5]), np.array([0.3])]
    terms = np.array([1.0, 2.0, 0.5, 0.9]) / 6
    sums = [abs(np.dot(signs, terms)) for signs in itertools.product([-1, 1], repeat=4)]
    assert resampling.sign_flip(groups) == pytest.approx(np.mean(np.array(sums) >= terms.sum() - 1e-12))


def test_drawn_sign_flips_agree_with_the_normal_limit():
    d = np.random.default_rng(0).normal(0.15, 1, 200)
    expected = 2 * scipy_stats.norm.sf(abs(d.sum()) / np.sqrt((d**2).sum()))
    assert resampling.sign_flip([d]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("blocks", "smallest"), [(5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125)]
)
def test_the_smallest_reachable_p_is_two_over_two_to_the_blocks(blocks, smallest):
    assert resampling.smallest_p(blocks) == smallest
    assert resampling.sign_flip([np.arange(1, blocks + 1.0)]) == smallest


def test_blocks_needed_for_seven_rivals_is_nine_as_in_the_literature():
    assert resampling.blocks_needed(tests=1) == 6
    assert resampling.blocks_needed(tests=7) == 9


def test_no_difference_anywhere_is_p_one():
    assert resampling.sign_flip([np.zeros(6)]) == 1.0
    assert resampling.sign_flip([np.array([1.0, -1.0])]) == 1.0


def test_holm_is_statsmodels_holm_and_a_test_that_was_not_run_still_counts():
    from statsmodels.stats.multitest import multipletests

    p = [0.01, 0.04, 0.03, 0.005]
    assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert stats.holm([0.01, np.nan])[0] == pytest.approx(0.02)
    assert np.isnan(stats.holm([0.01, np.nan])[1])


def test_tost_is_statsmodels_tost():
    from statsmodels.stats.weightstats import DescrStatsW

    d = np.array([0.001, -0.002, 0.003, 0.0, 0.001, -0.001])
    expected = DescrStatsW(d).ttost_mean(-0.005, 0.005)[0]
    assert stats.tost(stats.estimate([d], [1.0]), 0.005) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "in_sd"), [(5, 1.68), (10, 1.00), (15, 0.78), (20, 0.66), (30, 0.53)])
def test_the_minimum_detectable_effect_is_the_reference_value(n, in_sd):
    """CLAIMS 4.0 gives 1.68, 1.00, .78, .66 and .54 (simulated) for a paired t test at 80 % power;
    statsmodels gives .53 for n = 30.
    """
    from statsmodels.stats.power import TTestPower

    d = np.arange(n) - (n - 1) / 2
    d = d / d.std(ddof=1)
    found = stats.minimum_detectable(stats.estimate([d], [1.0]))
    assert found == pytest.approx(in_sd, abs=0.01)
    assert found == pytest.approx(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8), abs=2e-3)


def test_superiority_counts_ties_half():
    assert stats.superiority(np.array([1.0, 0.0, -1.0, 2.0])) == 0.625


def test_a_trend_is_tested_by_flipping_differences_between_mirrored_doses():
    groups = [np.array([1.0, 2.0]), np.array([5.0, 6.0]), np.array([3.0, 3.5])]
    rises = resampling.mirrored([(groups, [-3.0, -1.0, -2.0])])
    assert rises == pytest.approx([2 * 4.0 / 2, 2 * 4.0 / 2])  # the middle dose says nothing about a trend
    assert resampling.trend([(groups, [-3.0, -1.0, -2.0])]) == (0.5, 0.5)


def test_a_trend_is_found_and_its_absence_is_not():
    rng = np.random.default_rng(1)
    x = [-3, -2, -1, 0]
    rising = [rng.normal(level, 0.3, 4) for level in (0, 1, 2, 3)]
    assert resampling.trend([(rising, x)]) == (2 / 2**8, 2 / 2**8)
    assert resampling.trend([([rng.normal(1, 0.3, 4) for _ in x], x)])[0] > 0.05


def test_the_hierarchical_interval_of_single_blocks_is_a_plain_bootstrap_over_data_sets():
    means = np.array([0.1, 0.4, 0.2, 0.5, 0.3])
    low, high = stats.hierarchical_interval([[np.array([m])] for m in means], resamples=20_000)
    plain = scipy_stats.bootstrap(
        (means,), np.mean, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    assert (low, high) == pytest.approx((plain.low, plain.high), abs=0.01)
    assert np.isnan(stats.hierarchical_interval([[means]])).all()


def test_two_equal_values_show_nothing_beyond_a_margin():
    assert np.isnan(stats.beyond(stats.Estimate(5.0, 0.0, 1.0), 0.1))
    assert np.isnan(stats.tost(stats.Estimate(0.0, 0.0, 1.0), 0.1))
    assert stats.beyond(stats.Estimate(5.0, 0.0, 3.0), 0.1) == 0.0


def test_a_ladder_of_equal_difficulty_is_one_ladder_and_a_grid_of_noises_is_several():
    import pandas as pd

    from lossbench.analysis.pairs import ladder_parameters

    equal = pd.DataFrame(
        {"data.foreground": [0.01, 0.1], "data.noise": [0.4, 2.0], "data.size": [64, 64], "recipe": "r"}
    )
    assert ladder_parameters(equal) == ["data.size"]
    grid = pd.DataFrame(
        {"data.foreground": [0.01, 0.01], "data.noise": [0.4, 2.0], "data.size": [64, 64], "recipe": "r"}
    )
    assert ladder_parameters(grid) == ["data.size", "data.noise"]
