"""The sign-flip test is counted by hand and by brute force, and its interval and its p-values are one
thing.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from lossbench.analysis import flips


def brute_force(x, null=0.0):
    """Return the share of all sign patterns whose sum is at least as far from zero as the observed one."""
    shifted = np.asarray(x, dtype=float) - null
    sums = [abs(np.dot(signs, shifted)) for signs in itertools.product([-1, 1], repeat=len(x))]
    return np.mean(np.array(sums) >= abs(shifted.sum()) - 1e-9)


def test_the_p_value_of_three_numbers_is_counted_on_paper():
    # Of the eight sums +-1 +-2 +-4 only 7 and -7 are at least 7 away from zero, and six at least 3 away.
    assert flips.flips([1, 2, 4]).p() == 2 / 8
    assert flips.flips([-1, 2, 4]).p() == pytest.approx(4 / 8)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("null", [0.0, 0.3])
def test_all_flips_are_counted(n, null):
    x = np.round(np.random.default_rng(n).normal(0.4, 1, n), 2)
    assert flips.flips(x).p(null) == pytest.approx(brute_force(x, null))


def test_ties_and_zeros_count_as_ties():
    assert flips.flips(np.zeros(6)).p() == 1.0
    assert flips.flips([1.0, -1.0]).p() == 1.0
    # Four zeros say nothing: what is left is a test of two numbers.
    assert flips.flips([0, 0, 0, 0, 1, 2]).p() == flips.flips([1, 2]).p() == 0.5
    assert flips.flips(np.full(8, 0.1) * 3).interval() == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize(("n", "smallest"), [(5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125)])
def test_the_smallest_p_is_two_over_two_to_the_seeds(n, smallest):
    assert flips.smallest_p(n) == flips.flips(np.arange(1.0, n + 1)).p() == smallest


def test_seven_contrasts_need_nine_seeds_and_six_contrasts_eight():
    assert [flips.seeds_needed(tests) for tests in (1, 6, 7)] == [6, 8, 9]


def test_five_seeds_leave_the_interval_unbounded_and_six_end_it_at_the_extremes():
    assert flips.flips([1, 2, 3, 4, 5]).interval() == (-np.inf, np.inf)
    # 2.5 % of 64 flips is 1.6: one may be left out at each end, and the outermost mean is that of one number.
    assert flips.flips([1, 2, 3, 4, 5, 9]).interval() == (1, 9)


@pytest.mark.parametrize("n", [6, 8, 10, 13, 20])
def test_the_interval_holds_just_the_nulls_that_are_not_rejected(n):
    found = flips.flips(np.random.default_rng(n).standard_t(2, n))
    low, high = found.interval()
    assert low <= found.estimate <= high
    step = 1e-6 * (high - low)
    assert found.p(low) > 0.05 and found.p(high) > 0.05
    assert found.p(low - step) < 0.05 and found.p(high + step) < 0.05


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.35, 0.8])
def test_equivalence_is_the_ninety_percent_interval_within_the_margin(margin):
    found = flips.flips([0.3, 0.1, 0.4, -0.1, 0.2, 0.25, 0.05])
    low, high = found.interval(0.9)
    assert (found.equal(margin) < 0.05) == (-margin < low and high < margin)
    low, high = found.interval()
    assert (found.beyond(margin) < 0.05) == (low > margin or high < -margin)


def test_many_seeds_are_flipped_at_random_and_agree_with_the_normal_limit():
    x = np.random.default_rng(0).normal(0.15, 1, 200)
    expected = 2 * stats.norm.sf(abs(x.sum()) / np.sqrt((x**2).sum()))
    assert flips.flips(x).p() == pytest.approx(expected, abs=0.005)
    assert flips.smallest_p(60) == 2 / 100_001


def test_holm_is_statsmodels_holm_and_a_test_that_was_not_run_still_counts():
    from statsmodels.stats.multitest import multipletests

    p = [0.01, 0.04, 0.03, 0.005]
    assert flips.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert flips.holm([0.01, np.nan]) == pytest.approx([0.02, np.nan], nan_ok=True)


@pytest.mark.parametrize(("n", "in_sd"), [(10, 1.00), (15, 0.78), (20, 0.66)])
def test_the_detectable_effect_is_near_that_of_a_t_test_which_it_can_hardly_beat(n, in_sd):
    """Of a paired t test at 80 % power: 1.00, .78 and .66 standard deviations."""
    assert flips.detectable(n) == pytest.approx(in_sd, abs=0.04)


def test_what_no_outcome_could_show_is_not_detectable():
    assert flips.detectable(5) == flips.detectable(8, tests=7) == np.inf
    assert np.isfinite(flips.detectable(8, tests=6))
    assert flips.equal_within(4) == np.inf and np.isfinite(flips.equal_within(5))
