"""Rank agreement and largest regret: their values by hand, their false alarms by simulation, and the effects
that they must find.

Bounds leave three standard errors of the simulation and nothing else.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from lossbench.analysis import rankings, resampling, stats
from lossbench.analysis.pairs import NotPaired
from lossbench.base.errors import UserError

RUNS = 200
LIMIT = 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
NAMES = ["a", "b", "c"]
CELLS = pd.DataFrame({"loss": NAMES, "loss_label": NAMES})


def of(of, against=None, null=0.0, margin=0.005):
    return SimpleNamespace(shape="regret", of=of, against=against, null=null, margin=margin)


def study(rng, means, blocks, scale):
    """One (blocks, losses, columns) array a data set: a share of the noise is common to the losses of a
    block, one to the columns of a cell.
    """
    found = []
    for mean in means:
        common = rng.normal(0, scale, (blocks, 1, 1))
        cell = rng.normal(0, scale, (blocks, len(mean), 1))
        found.append(mean + common + cell + rng.normal(0, scale, (blocks, *np.shape(mean))))
    return found


def alarms(means, judge, blocks, scale=0.02, runs=RUNS):
    rng = np.random.default_rng(0)
    return np.mean([judge(study(rng, means, blocks, scale)).p < 0.05 for _ in range(runs)])


def test_the_agreement_is_kendalls_tau_averaged_over_data_sets():
    rng = np.random.default_rng(0)
    means = [rng.integers(0, 4, (1, 7, 2)).astype(float), rng.normal(size=(1, 7, 2))]
    expected = np.mean([kendalltau(m[0, :, 0], m[0, :, 1]).statistic for m in means])
    assert rankings.agreement(means)[0] == pytest.approx(expected)


def test_the_regret_of_a_loss_is_its_largest_distance_below_the_best():
    means = [np.array([[[0.9], [0.8], [0.7]]]), np.array([[[0.5], [0.6], [0.55]]])]
    assert rankings.regrets(means)[0] == pytest.approx([0.1, 0.1, 0.2])


def test_losses_that_are_nearly_tied_are_not_said_to_be_ranked_differently():
    order = np.linspace(0, 0.004, 6)
    assert alarms([np.stack([order, order], -1)] * 2, lambda g: rankings._agreement(g, 0.9), 6) <= LIMIT


@pytest.mark.parametrize("blocks", [4, 10])
def test_an_agreement_that_equals_the_null_is_seldom_said_to_differ_from_it(blocks):
    a = np.linspace(0, 0.1, 5)
    means = [np.stack([a, a[[1, 0, 2, 3, 4]]], -1), np.stack([a, a[[0, 1, 2, 4, 3]]], -1)]
    assert rankings.agreement([m[None] for m in means])[0] == pytest.approx(0.8)
    assert alarms(means, lambda g: rankings._agreement(g, 0.8), blocks) <= LIMIT


def test_opposite_and_equal_rankings_are_found():
    a = np.linspace(0, 0.5, 6)
    assert alarms([np.stack([a, -a], -1)] * 2, lambda g: rankings._agreement(g, 0.9), 6, runs=40) > 0.95
    assert alarms([np.stack([a, a], -1)] * 2, lambda g: rankings._agreement(g, 0.9), 6, 0.005, runs=40) > 0.95


def test_the_upper_bound_of_an_agreement_covers_when_one_pair_is_turned_round():
    a = np.linspace(0, 0.4, 5)
    truth, rng = 0.8, np.random.default_rng(1)
    missed = 0
    for _ in range(RUNS):
        shown = stats.discordant(study(rng, [np.stack([a, a[[1, 0, 2, 3, 4]]], -1)], 5, 0.05))
        missed += stats.agreement_at_most(shown, 0.05) < truth - 1e-9
    assert missed / RUNS <= LIMIT


@pytest.mark.parametrize("blocks", [4, 10])
def test_where_all_losses_are_equal_no_regret_is_shown(blocks):
    assert (
        alarms(
            [np.zeros((3, 1))] * 5, lambda g: rankings._regret(g, of("any", null=0.005), CELLS, NAMES), blocks
        )
        <= LIMIT
    )


def test_a_regret_that_equals_the_null_is_seldom_said_to_differ_from_it():
    means = [np.array([[0.05], [0], [0]]), np.array([[0], [0.05], [0.05]])]
    assert alarms(means, lambda g: rankings._regret(g, of("any", null=0.05), CELLS, NAMES), 6) <= LIMIT


def test_a_regret_of_every_loss_is_found():
    means = [np.array([[0.2], [0], [0]]), np.array([[0], [0.2], [0.2]])]
    assert (
        alarms(means, lambda g: rankings._regret(g, of("any", null=0.005), CELLS, NAMES), 6, runs=40) > 0.95
    )
    assert (
        alarms(
            [np.array([[0.2], [0], [0]])] * 3,
            lambda g: rankings._regret(g, of("any", null=0.1), CELLS, NAMES),
            6,
            runs=40,
        )
        > 0.95
    )


@pytest.mark.parametrize("blocks", [4, 10])
@pytest.mark.parametrize("worst", [0.0, 0.1])
def test_two_losses_of_equal_regret_are_seldom_told_apart(blocks, worst):
    means = [
        np.array([[worst], [0], [worst]]),
        np.array([[0], [worst], [worst]]),
        np.zeros((3, 1)),
        np.zeros((3, 1)),
    ]
    assert alarms(means, lambda g: rankings._regret(g, of("a", "b"), CELLS, NAMES), blocks) <= LIMIT


def test_a_smaller_regret_is_found_and_two_equal_ones_are_equal_within_a_wide_margin():
    means = [np.array([[0.2], [0], [0.2]]), np.array([[0.18], [0.2], [0.2]])]
    assert alarms(means, lambda g: rankings._regret(g, of("a", "b"), CELLS, NAMES), 6, runs=40) > 0.95
    told = rankings._regret(
        study(np.random.default_rng(0), [np.zeros((3, 1))] * 2, 8, 0.001),
        of("a", "b", margin=0.1),
        CELLS,
        NAMES,
    )
    assert told.p_equal < 0.05


def test_few_blocks_give_a_value_but_no_interval():
    told = rankings._regret([np.zeros((2, 3, 1))], of("a", "b"), CELLS, NAMES)
    assert told.value == 0 and np.isnan(told.p) and told.smallest_p == 1


def test_the_interval_of_a_plain_mean_is_its_t_interval():
    group = np.random.default_rng(3).normal(size=(12, 1))
    drawn = resampling.resample([group], lambda means: means[0][:, 0], draws=20_000)
    expected = stats.estimate([group[:, 0]], [1.0]).interval()
    width = expected[1] - expected[0]
    assert drawn.percentiles() == pytest.approx(expected, abs=0.04 * width)


def cells():
    rows = [
        {
            "dataset": d,
            "dataset_name": d,
            "recipe": "r",
            "block": f"{d}{s}",
            "seed": s,
            "loss": loss,
            "loss_label": loss,
            "dice@0.5": value + 0.001 * s,
            "hd95@0.5": 10 - value,
            "init_hash": "i",
            "order_hash": "o",
            "split_hash": "s",
        }
        for d in ("x", "y")
        for s in range(4)
        for loss, value in (("a", 0.9), ("b", 0.8), ("c", 0.7))
    ]
    return pd.DataFrame(rows)


AGREE = SimpleNamespace(
    shape="agreement",
    value="dice@0.5",
    with_="hd95@0.5",
    of="any",
    against=None,
    among=(),
    null=0.9,
    margin=0.05,
)
REGRET = SimpleNamespace(
    shape="regret",
    value="dice@0.5",
    with_=None,
    of="b",
    against=None,
    among=("a", "b"),
    null=0.0,
    margin=0.005,
)


def test_a_metric_of_which_less_is_better_is_turned_round():
    assert rankings.ranked(cells(), AGREE).effect.estimate == pytest.approx(1)


def test_only_blocks_that_hold_every_loss_count():
    found = rankings.ranked(cells().drop(index=0), AGREE)
    assert (found.effect.n_blocks, found.effect.n_datasets, found.incomplete) == (7, 2, 1)
    assert rankings.ranked(cells().drop(index=2), REGRET).incomplete == 0  # loss c is not compared


def test_a_regret_against_one_rival_is_the_difference_to_it():
    found = rankings.ranked(cells(), REGRET).effect
    assert found.estimate == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_what_lacks_is_said_in_a_sentence():
    table = cells()
    with pytest.raises(UserError, match="there are no cells of d"):
        rankings.ranked(table, SimpleNamespace(**vars(REGRET) | {"among": ("a", "d")}))
    with pytest.raises(UserError, match="no block holds all 2 losses"):
        rankings.ranked(table[(table["loss"] == "a") ^ (table["seed"] == 1)], REGRET)
    with pytest.raises(UserError, match="no column 'hd@"):
        rankings.ranked(table, SimpleNamespace(**vars(AGREE) | {"with_": "hd@0.5"}))
    table.loc[0, "init_hash"] = "other"
    with pytest.raises(NotPaired, match="not paired"):
        rankings.ranked(table, AGREE)
