"""Rank agreement and largest regret: their values by hand, and that noise is not taken for disagreement."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from lossbench.analysis import ranks


def test_tau_b_is_scipys_ties_included():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (5, 7)).astype(float), rng.normal(size=7)
    assert ranks.tau_b(a, b) == pytest.approx([kendalltau(row, b).statistic for row in a])


def test_two_metrics_without_noise_agree_as_their_orders_do_and_the_ceiling_is_one():
    # One of three pairs is turned round: tau = (2 - 1) / 3.
    scores = np.array([[[[3.0, 3.0], [2.0, 1.0], [1.0, 2.0]]]]).repeat(4, axis=0)
    assert ranks.split_halves(scores) == (pytest.approx(1 / 3), pytest.approx(1))
    for numbers in ranks.agreement_by_seed(scores, 0.9):
        assert numbers == pytest.approx(1 / 3 - 0.9)
    found = ranks.order(scores, 0.9)
    assert (found.tau, found.tau_alike) == (pytest.approx(1 / 3), pytest.approx(1))


def test_pairs_that_only_one_metric_resolves_say_nothing_of_order():
    # Of the pairs of three losses one metric orders two on every seed, the other another two; the pair that
    # both order is the same way round by both.
    first, second = np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0])
    flip = np.array([1, -1, 1, -1])[:, None]
    scores = np.stack([first + 0.1 * flip * [0, 0, 1], second + 0.1 * flip * [0, 1, 0]], axis=-1)[:, None]
    found = ranks.order(scores, 0.9)
    # Of the other two pairs the order by one metric is the same on all seeds, that by the other up on two and
    # down on two. With the signs of the two seeds that are left these count -1 in 4 of 12 pairs of seeds.
    assert found.tau == pytest.approx(1 / 3) and found.tau_alike == pytest.approx((1 - 2 * 4 / 12) / 3)
    alike, ceiling = ranks.agreement_by_seed(scores, 0.9)
    assert alike.mean() > 0 > ceiling.mean()


def test_the_ceiling_is_what_noise_leaves_of_a_metrics_agreement_with_itself():
    rng = np.random.default_rng(1)
    truth = np.linspace(0, 2, 8)[None, None, :, None]
    scores = truth + rng.normal(size=(60, 1, 8, 2))
    found = ranks.split_halves(scores[:12])
    assert 0.4 < found.ceiling < 0.95 and found.tau == pytest.approx(found.ceiling, abs=0.15)
    # All seeds together: n numbers whose mean is tau between single seeds minus its ceiling, which is zero.
    assert ranks.agreement_by_seed(scores, 1.0)[1].mean() == pytest.approx(0, abs=0.02)


def test_an_order_is_decided_where_both_references_decide_it():
    scores = np.random.default_rng(1).normal(size=(8, 2, 6, 2)) + np.linspace(0, 3, 6)[:, None]
    found = ranks.order(scores, 0.9)
    low, high = found.interval()
    ends = found.first.interval(), found.second.interval()
    assert (low, high) == (min(end[0] for end in ends), max(end[1] for end in ends))
    assert found.p(low - 1e-6) < 0.05 < found.p(low) and found.p(high + 1e-6) < 0.05 < found.p(high)


def test_halves_are_dealt_in_every_way_once():
    assert sum(1 for _ in ranks.halves(4)) == 3 and sum(1 for _ in ranks.halves(5)) == 10
    assert sum(1 for _ in ranks.halves(16)) == ranks.SPLITS


def test_the_regret_of_a_loss_is_its_largest_distance_below_the_best_within_a_seed():
    scores = np.array([[[0.9, 0.8, 0.7], [0.5, 0.6, 0.55]], [[0.9, 0.9, 0.9], [0.6, 0.6, 0.6]]])
    assert [ranks.regret_by_seed(scores, loss).tolist() for loss in (0, 2)] == [
        pytest.approx([0.1, 0.0]),
        pytest.approx([0.2, 0.0]),
    ]


def test_a_regret_of_every_loss_is_shown_and_its_interval_holds_it():
    rng = np.random.default_rng(2)
    means = np.array([[-0.2, 0, 0], [0, -0.2, -0.2]])
    found = ranks.Regrets(means + rng.normal(0, 0.02, (8, 2, 3)), (0, 1, 2))
    low, high = found.interval()
    assert found.p(0.01) < 0.05 and 0.1 < low < found.estimate < high < 0.3


def test_the_regret_of_losses_that_are_equal_is_not_shown_to_be_above_zero():
    found = ranks.Regrets(np.random.default_rng(3).normal(0, 0.02, (10, 5, 3)), (0, 1, 2))
    assert found.estimate > 0 and found.above(0.0) > 0.05 and found.interval()[0] == 0


def test_a_variant_that_no_seed_holds_changes_no_regret():
    scores = np.random.default_rng(5).normal(0, 0.02, (8, 2, 3))
    more = np.concatenate([scores, np.full((8, 1, 3), np.nan)], axis=1)
    alone, beside = (ranks.Regrets(values, (0, 1)) for values in (scores, more))
    assert (beside.estimate, beside.p(), beside.interval()) == (alone.estimate, alone.p(), alone.interval())


def test_a_regret_is_shown_on_the_variants_that_are_there():
    scores = np.array([[-0.2, 0.0], [0.0, -0.2]]) + np.random.default_rng(4).normal(0, 0.02, (10, 2, 2))
    scores[5:, 1] = np.nan
    assert ranks.Regrets(scores, (0,)).above(0.1) < 0.05 < ranks.Regrets(scores, (0,)).above(0.2)
