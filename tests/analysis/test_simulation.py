"""The machinery under simulation: false alarms at most 5 %, intervals that cover 95 %, promised power; small,
seeded, honest.

Bounds leave three standard errors of the simulation, sqrt(p (1 - p) / runs), and nothing else.
"""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import rankings, resampling, stats

RUNS = 2000


def three_errors(share: float, runs: int = RUNS) -> float:
    return 3 * np.sqrt(share * (1 - share) / runs)


def ladder(rng, scales, blocks=4, effect=0.0):
    return [rng.normal(effect, scale, blocks) for scale in scales]


@pytest.mark.parametrize(
    "draw",
    [lambda rng: rng.normal(0, 1, 8), lambda rng: rng.standard_t(2, 8), lambda rng: rng.laplace(0, 1, 12)],
)
def test_sign_flips_raise_false_alarms_in_at_most_five_percent(draw):
    rng = np.random.default_rng(0)
    alarms = np.mean([resampling.sign_flip([draw(rng)]) <= 0.05 for _ in range(RUNS)])
    assert alarms <= 0.05 + three_errors(0.05)


def test_sign_flips_stay_valid_when_data_sets_scatter_very_differently():
    rng = np.random.default_rng(1)
    alarms = np.mean(
        [resampling.sign_flip(ladder(rng, (0.001, 0.01, 0.1, 1.0))) <= 0.05 for _ in range(RUNS)]
    )
    assert alarms <= 0.05 + three_errors(0.05)


@pytest.mark.parametrize(
    ("scales", "blocks"), [((1.0,), 4), ((1.0,), 10), ((1.0, 1.0, 1.0, 1.0), 3), ((0.1, 0.3, 1.0, 3.0), 4)]
)
def test_the_t_interval_covers_95_percent(scales, blocks):
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(RUNS):
        groups = ladder(rng, scales, blocks, effect=0.7)
        low, high = stats.estimate(groups, stats.mean_weights(groups)).interval()
        hits += low <= 0.7 <= high
    assert hits / RUNS == pytest.approx(0.95, abs=three_errors(0.95) + 0.005)


def test_the_bootstrap_covers_with_many_blocks_and_not_with_few_which_is_why_the_t_interval_leads():
    rng = np.random.default_rng(3)

    def coverage(blocks, runs=500):
        hits = 0
        for run in range(runs):
            group = [rng.normal(0, 1, blocks)]
            low, high = stats.bca_interval(group, [1.0], resamples=1000, seed=run)
            hits += low <= 0 <= high
        return hits / runs

    assert coverage(40) >= 0.95 - three_errors(0.95, 500)
    assert coverage(4) < 0.90


def test_slope_intervals_cover_and_the_trend_test_keeps_its_level_when_the_rare_end_scatters_more():
    rng = np.random.default_rng(4)
    x = np.log10([0.002, 0.01, 0.05, 0.2])
    hits = alarms = 0
    runs = 1500
    for _ in range(runs):
        groups = ladder(rng, (0.2, 0.05, 0.02, 0.01), effect=0.1)
        low, high = stats.estimate(groups, stats.slope_weights(x)).interval()
        hits += low <= 0 <= high
        alarms += resampling.trend([(groups, x)])[0] <= 0.05
    assert hits / runs >= 0.95 - three_errors(0.95, runs)
    assert alarms / runs <= 0.05 + three_errors(0.05, runs)


def test_an_effect_of_the_minimum_detectable_size_is_found_with_the_promised_power():
    rng = np.random.default_rng(5)
    blocks = 10
    d = np.arange(blocks) - (blocks - 1) / 2
    effect = stats.minimum_detectable(
        stats.estimate([d / d.std(ddof=1)], [1.0])
    )  # with a standard deviation of exactly one
    found = np.mean(
        [stats.t_test(stats.estimate([rng.normal(effect, 1, blocks)], [1.0])) < 0.05 for _ in range(RUNS)]
    )
    assert found == pytest.approx(0.80, abs=three_errors(0.8))
    flips = np.mean([resampling.sign_flip([rng.normal(effect, 1, blocks)]) < 0.05 for _ in range(RUNS)])
    assert flips == pytest.approx(0.80, abs=three_errors(0.8) + 0.03)


def test_equivalence_is_declared_in_at_most_five_percent_at_the_margin():
    rng = np.random.default_rng(6)
    declared = np.mean(
        [stats.tost(stats.estimate([rng.normal(0.005, 0.004, 6)], [1.0]), 0.005) < 0.05 for _ in range(RUNS)]
    )
    assert declared <= 0.05 + three_errors(0.05)


def test_holm_keeps_the_chance_of_any_false_alarm_at_five_percent():
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(RUNS):
        shared = rng.normal(0, 1, 10)  # every loss is compared with the same CE cells
        p = [stats.t_test(stats.estimate([rng.normal(0, 1, 10) - shared], [1.0])) for _ in range(6)]
        alarms += stats.holm(p).min() < 0.05
    assert alarms / RUNS <= 0.05 + three_errors(0.05)


def test_an_interval_for_new_data_sets_needs_data_sets_as_its_unit():
    """TOOLING section 4: seeds-only intervals cover a new data set about half of the time, t over data set
    means 95 %.
    """
    rng = np.random.default_rng(8)
    runs, seeds_only, over_sets, hierarchical = 400, 0, 0, 0
    for run in range(runs):
        groups = [rng.normal(rng.normal(0, 1), 1, 5) for _ in range(8)]
        low, high = stats.estimate(groups, stats.mean_weights(groups)).interval()
        seeds_only += low <= 0 <= high
        low, high = stats.estimate([np.array([g.mean() for g in groups])], [1.0]).interval()
        over_sets += low <= 0 <= high
        low, high = stats.hierarchical_interval([[g] for g in groups], resamples=500, seed=run)
        hierarchical += low <= 0 <= high
    assert seeds_only / runs < 0.75
    assert over_sets / runs >= 0.95 - three_errors(0.95, runs)
    assert hierarchical / runs >= 0.85


def test_the_best_loss_is_marked_as_possibly_best_in_at_least_95_percent_even_when_all_are_close():
    rng = np.random.default_rng(9)
    runs, kept = 500, 0
    for _ in range(runs):
        scores = rng.normal(0, 1, (6, 8)) + rng.normal(0, 2, (6, 1))
        scores[:, 3] += 0.05
        kept += 3 in rankings.possibly_best(pd.DataFrame(scores))
    assert kept / runs >= 0.95 - three_errors(0.95, runs)


def test_scoring_a_collapse_keeps_the_difference_unbiased_and_dropping_it_would_not():
    rng = np.random.default_rng(10)
    scored, dropped = [], []
    for _ in range(RUNS):
        ce, rival = rng.normal(0.7, 0.02, 10), rng.normal(0.8, 0.02, 10)
        gone = rng.random(10) < 0.3
        rival[gone] = 0.0
        scored.append(stats.estimate([rival - ce], [1.0]).value)
        dropped.append(np.mean((rival - ce)[~gone]) if (~gone).any() else np.nan)
    assert np.mean(scored) == pytest.approx(0.7 * 0.8 - 0.7, abs=0.01)
    assert np.nanmean(dropped) > 0.09  # the collapsing loss would look better than CE
