"""What seeds without a rare event leave possible is an exact bound, and not that nothing can happen."""

import numpy as np
import pytest
from scipy import stats

from lossbench.analysis import flips
from lossbench.analysis.events import events


def test_ten_seeds_without_a_collapse_leave_a_quarter_possible():
    found = events(np.zeros(10))
    assert found.equal(0.05) == pytest.approx(0.95**10) and found.p() == 1
    # Of the interval of 90 % each end leaves out 5 %: (1 - .259)^10 = .05; of that of 95 %, .308.
    assert found.interval(0.9) == pytest.approx((-(1 - 0.05**0.1), 1 - 0.05**0.1))
    assert found.interval() == pytest.approx((-(1 - 0.025**0.1), 1 - 0.025**0.1))


def test_it_takes_59_seeds_without_a_collapse_to_show_less_than_five_percent():
    assert events(np.zeros(58)).equal(0.05) > 0.05 > events(np.zeros(59)).equal(0.05)
    assert events(np.zeros(59)).smallest_equal(0.05) == pytest.approx(0.95**59)


def test_a_seed_with_an_event_counts_on_its_side():
    found = events(np.array([0.5] + 9 * [0.0]))
    assert found.below(0.3) == pytest.approx(stats.binom.cdf(1, 10, 0.3))
    assert found.above(-0.3) == pytest.approx(0.7**10)
    low, high = found.interval()
    assert found.p(low + 1e-6) > 0.05 > found.p(low - 1e-6) and found.p(high - 1e-6) > 0.05
    assert found.p(high + 1e-6) < 0.05


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_shown_by_flips_as_ever(sign):
    numbers = sign * np.array([1.0, 1, 1, 0.5, 1, 1, 0, 1, 0.5, 1])
    found, plain = events(numbers), flips.flips(numbers)
    assert found.p() == plain.p() < 0.05 and sign * found.estimate > 0
    ends = sorted(sign * np.array(found.interval()))
    assert 0 < ends[0] <= abs(found.estimate) <= ends[1] <= 1


def test_where_numbers_can_be_larger_the_same_seeds_show_less():
    assert events(np.zeros(10), 2.0).equal(0.1) == pytest.approx(0.95**10)


@pytest.mark.parametrize("rates", [(0.05, 0.0), (0.15, 0.1), (0.3, 0.25)])
def test_collapses_that_differ_by_the_margin_are_called_equal_in_at_most_five_percent(rates):
    rng = np.random.default_rng(0)
    said = covered = 0
    for _ in range(400):
        first, second = (rng.random((2, 60)) < rate for rate in rates)
        found = events((first.astype(float) - second).mean(axis=0))
        low, high = found.interval()
        said += found.equal(0.05) < 0.05
        covered += low <= 0.05 <= high
    assert said / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert covered / 400 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)
