"""The machinery under simulation: false alarms at most 5 %, intervals that cover as n allows, promised power.

Levels of a study share their seeds here as they do in trainings: their differences correlate by .99. Bounds
leave three standard errors of the simulation, sqrt(p (1 - p) / runs), and nothing else. docs/protocol.md
shows the numbers; ``table`` makes them.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import across_sets, decisions, flips, ranks, resampling, seeds, selection
from lossbench.analysis.pairs import Blocks
from lossbench.analysis.resampling import ByGroup

RUNS = 2000

ATTAINABLE = {6: 1 - 2 / 64, 8: 1 - 12 / 256, 10: 1 - 50 / 1024}  # of the 95 % interval: 6, 8 and 10 seeds


def three_errors(share, runs=RUNS):
    return 3 * np.sqrt(share * (1 - share) / runs)


def levels(rng, n, variants=4, effect=0.0, share=0.99, scales=(1.0,)):
    """Return differences (variants, seeds) whose levels correlate by ``share``."""
    common, own = rng.normal(size=(1, n)), rng.normal(size=(variants, n))
    return effect + np.resize(scales, (variants, 1)) * (np.sqrt(share) * common + np.sqrt(1 - share) * own)


def studies(n, runs=RUNS, seed=0, weigh=None, **options):
    """Yield the sign-flip test of the mean over levels (or another weighted sum) of simulated studies."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        d = levels(rng, n, **options)
        weights = np.full(len(d), 1 / len(d)) if weigh is None else weigh
        yield flips.flips(seeds.within(d, weights).numbers)


@pytest.mark.parametrize("n", [6, 8, 10])
def test_levels_that_correlate_raise_no_false_alarms(n):
    alarms = np.mean([found.p() < 0.05 for found in studies(n)])
    assert alarms <= 0.05 + three_errors(0.05)


@pytest.mark.parametrize("n", [6, 8, 10])
def test_intervals_cover_at_least_what_they_say_and_no_more_than_n_allows(n):
    ends = [found.interval() for found in studies(n, effect=0.7)]
    covered = np.mean([low <= 0.7 <= high for low, high in ends])
    assert covered >= 0.95 - three_errors(0.95)
    assert covered == pytest.approx(ATTAINABLE[n], abs=three_errors(0.95))


def test_five_seeds_never_reject_and_never_end_their_interval():
    found = list(studies(5, runs=200, effect=3.0))
    assert min(own.p() for own in found) == 2 / 32 and np.isinf([own.interval() for own in found]).all()


@pytest.mark.parametrize("draw", [lambda rng: rng.standard_t(2, 8), lambda rng: rng.laplace(0, 1, 10)])
def test_heavy_tails_raise_no_false_alarms(draw):
    rng = np.random.default_rng(1)
    alarms = np.mean([flips.flips(draw(rng)).p() < 0.05 for _ in range(RUNS)])
    assert alarms <= 0.05 + three_errors(0.05)


def test_a_slope_keeps_its_level_where_the_rare_end_scatters_fifty_times_as_much():
    x = np.log10([0.002, 0.01, 0.05, 0.2])
    weigh = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    found = list(studies(10, weigh=weigh, effect=0.1, scales=(0.5, 0.1, 0.02, 0.01), share=0.5))
    assert np.mean([own.p() < 0.05 for own in found]) <= 0.05 + three_errors(0.05)


@pytest.mark.parametrize(("n", "tests"), [(8, 1), (8, 6), (10, 1)])
def test_an_effect_of_the_detectable_size_is_found_with_the_promised_power(n, tests):
    rng = np.random.default_rng(2)
    effect = flips.detectable(n, tests)
    power = np.mean([flips.flips(rng.normal(effect, 1, n)).p() * tests < 0.05 for _ in range(RUNS)])
    assert power == pytest.approx(0.8, abs=0.03)


def test_a_margin_within_which_equality_can_be_shown_is_shown_with_the_promised_power():
    rng = np.random.default_rng(3)
    margin = flips.equal_within(8)
    power = np.mean([flips.flips(rng.normal(0, 1, 8)).equal(margin) < 0.05 for _ in range(RUNS)])
    assert power == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("n", [6, 10])
def test_equivalence_is_declared_in_at_most_five_percent_at_the_margin(n):
    rng = np.random.default_rng(4)
    said = np.mean([flips.flips(rng.normal(0.01, 0.008, n)).equal(0.01) < 0.05 for _ in range(RUNS)])
    assert said <= 0.05 + three_errors(0.05)


def test_holm_over_tests_that_share_their_reference_keeps_any_false_alarm_at_five_percent():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(RUNS):
        shared = rng.normal(0, 1, 10)  # every loss is compared with the same cells of CE
        alarms += flips.holm([flips.flips(rng.normal(0, 1, 10) - shared).p() for _ in range(6)]).min() < 0.05
    assert alarms / RUNS <= 0.05 + three_errors(0.05)


def test_scoring_a_collapse_keeps_the_difference_unbiased_and_dropping_it_would_not():
    rng = np.random.default_rng(6)
    scored, dropped = [], []
    for _ in range(RUNS):
        ce, rival = rng.normal(0.7, 0.02, 10), rng.normal(0.8, 0.02, 10)
        gone = rng.random(10) < 0.3
        rival[gone] = 0.0
        scored.append(np.mean(rival - ce))
        dropped.append(np.mean((rival - ce)[~gone]) if (~gone).any() else np.nan)
    assert np.mean(scored) == pytest.approx(0.7 * 0.8 - 0.7, abs=0.01)
    assert np.nanmean(dropped) > 0.09  # the collapsing loss would look better than CE


def test_collapses_missing_cells_and_ties_raise_no_false_alarms():
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(RUNS):
        d = levels(rng, 10)
        collapsed = rng.random(10) < 0.2  # of either loss alike
        d[0, collapsed] += rng.choice([-20.0, 20.0], collapsed.sum())
        d[:, rng.random(10) < 0.1] = 0.0  # both losses score the same
        d[rng.integers(4), rng.integers(10)] = np.nan
        alarms += flips.flips(seeds.within(d, np.full(4, 0.25)).numbers).p() < 0.05
    assert alarms / RUNS <= 0.05 + three_errors(0.05)


@pytest.mark.parametrize("k", [3, 6, 10])
def test_the_mean_over_data_sets_keeps_its_level_and_seeds_alone_would_not(k):
    rng = np.random.default_rng(8)
    runs, pooled, predicted, by_seed = 500, 0, 0, 0
    for _ in range(runs):
        truth, spread = rng.normal(0, 1, k + 1), rng.uniform(0.2, 1.5, k)
        d = truth[:k, None] + spread[:, None] * rng.normal(size=(k, 8))
        found = across_sets.pooled(d.mean(axis=1), d.var(axis=1, ddof=1) / 8)
        pooled += found.p() < 0.05
        predicted += found.prediction()[0] <= truth[k] <= found.prediction()[1]
        by_seed += flips.flips(d.mean(axis=0)).p() < 0.05
    assert pooled / runs <= 0.05 + three_errors(0.05, runs)
    assert predicted / runs >= 0.90 - three_errors(0.9, runs)  # the formula is an approximation
    assert by_seed / runs > 0.3


def ranked(rng, truth, other, n=10, levels=2, alike=0.0, shared=0.0, noise=1.0):
    """Return scores of losses by two metrics, of which these are the true ones; the noise of the metrics
    correlates by ``alike``, that of the levels by ``shared``.
    """
    shape = (n, levels, len(truth), 2)
    common = rng.normal(size=(n, 1, *shape[2:]))
    z = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=shape)
    z[..., 1] = alike * z[..., 0] + np.sqrt(1 - alike**2) * z[..., 1]
    return np.stack([truth, other], axis=-1) + z * (1.0, noise)


def said_to_differ(seed, truth, other, share=0.9, runs=200, **options):
    """Return how often losses of these true scores are said to come in another order."""
    rng = np.random.default_rng(seed)
    found = [ranks.order(ranked(rng, truth, other, **options), share) for _ in range(runs)]
    return np.mean([own.p() < 0.05 and own.below() < own.above() for own in found])


@pytest.mark.parametrize("share", [0.9, 1.0])
@pytest.mark.parametrize(("spread", "noise"), [(0, 1.0), (1, 1.0), (4, 1.0), (4, 3.0), (12, 1.0)])
@pytest.mark.parametrize(("alike", "shared"), [(0.0, 0.0), (0.8, 0.99)])
def test_noise_is_not_taken_for_another_order(spread, noise, alike, shared, share):
    truth = np.linspace(0, spread, 6)
    said = said_to_differ(9, truth, truth, share, alike=alike, shared=shared, noise=noise)
    assert said <= 0.05 + three_errors(0.05, 200)


@pytest.mark.parametrize("steep", [1.0, 4.0])
@pytest.mark.parametrize(("alike", "shared"), [(0.0, 0.0), (0.8, 0.99)])
def test_one_order_of_which_two_metrics_resolve_different_pairs_is_not_taken_for_another(
    steep, alike, shared
):
    """One metric tells the first three losses apart, the other the last three; no pair is reversed."""
    first, last = np.minimum(np.arange(9.0), 3), np.maximum(np.arange(9.0) - 5, 0)
    options = {"levels": 4, "alike": alike, "shared": shared}
    assert said_to_differ(14, steep * first, steep * last, **options) <= 0.05 + three_errors(0.05, 200)


@pytest.mark.parametrize("order", [(1, 0, 3, 2, 5, 4), (2, 1, 0, 3, 5, 4)])
def test_another_order_is_shown(order):
    """A fifth of the pairs is reversed, and of four of fifteen pairs those that are furthest apart."""
    truth = np.linspace(0, 12, 6)
    assert said_to_differ(10, truth, truth[list(order)], runs=50) > 0.9


@pytest.mark.parametrize(("spread", "power"), [(4.0, 0.5), (8.0, 0.9)])
def test_a_third_of_the_pairs_turned_round_is_found_where_seeds_scatter_as_much_as_losses_differ(
    spread, power
):
    """Twelve of 36 pairs; neighbours are half a standard deviation of a seed apart, or one."""
    truth = np.linspace(0, spread, 9)
    turned = truth[[4, 3, 2, 1, 0, 5, 8, 7, 6]]
    assert said_to_differ(15, truth, turned, runs=50) > power


@pytest.mark.parametrize("worst", [0.0, 0.02, 0.1])
def test_two_losses_of_equal_regret_are_seldom_told_apart(worst):
    means = np.array([[-worst, 0, -worst], [0, -worst, -worst], [0, 0, 0], [0, 0, 0]])
    rng, runs, alarms = np.random.default_rng(11), 1000, 0
    for _ in range(runs):
        scores = means + rng.normal(0, 0.02, (10, 4, 3))
        alarms += flips.flips(ranks.regret_by_seed(scores, 0) - ranks.regret_by_seed(scores, 1)).p() < 0.05
    assert alarms / runs <= 0.05 + three_errors(0.05, runs)


@pytest.mark.parametrize("means", [np.zeros((5, 3)), np.array([[-0.05, 0, 0], [0, -0.05, -0.05]])])
def test_a_regret_at_its_null_is_seldom_said_to_be_above_it(means):
    rng, runs = np.random.default_rng(12), 200
    alarms = [
        ranks.Regrets(means + rng.normal(0, 0.02, (8, *means.shape)), (0, 1, 2)).above(0.05) < 0.025
        for _ in range(runs)
    ]
    assert np.mean(alarms) <= 0.025 + three_errors(0.025, runs)


def best_of(rng, means, runs, crossed):
    """Return the test scores (runs, 10 seeds) of the best of some losses, chosen on validation; test and
    validation scores correlate by .8.
    """
    luck = rng.normal(size=(runs, 10, len(means)))
    tested = 0.8 * luck + 0.6 * rng.normal(size=luck.shape) + means
    run, seed, loss = (at.ravel() for at in np.indices(luck.shape))
    cells = pd.DataFrame({"dataset": run, "recipe": "r", "block": run * 10 + seed, "seed": seed})
    cells = cells.assign(loss=[f"{number:02}" for number in loss], x=tested.ravel())
    cells["val_dice@0.5"] = (luck + means).ravel()
    names = tuple(cells["loss"].unique())
    own = selection.arm(cells, names if len(names) > 1 else names[0], "x", crossed)
    return own.sort_values(["dataset", "seed"])["x"].to_numpy().reshape(runs, 10)


@pytest.mark.parametrize(
    ("means", "rates"),
    [(np.zeros(12), 1), (-0.3 * np.arange(12.0), 1), (np.zeros(5), 5), (np.zeros(5), 2)],
)
def test_the_best_of_a_list_on_validation_is_not_said_to_be_better_or_worse_for_having_been_chosen(
    means, rates
):
    """The best of a list is as good as the loss that it is compared with; so are all of it, or others are
    worse.
    """
    runs, tests = 300, []
    for crossed in (True, False):
        rng = np.random.default_rng(16)  # the same trainings, chosen among in two ways
        d = best_of(rng, means, runs, crossed) - best_of(rng, np.zeros(rates), runs, crossed)
        tests.append(map(flips.flips, d))
    found = [flips.Both(*own) for own in zip(*tests, strict=True)]
    assert np.mean([own.p() < 0.05 for own in found]) <= 0.05 + three_errors(0.05, runs)
    # The choice of the other seeds does not flatter; it may miss the best one, where the others are worse.
    assert np.mean([own.estimate for own in found]) < 0.05


def test_the_best_loss_is_marked_in_at_least_95_percent_even_when_all_are_close():
    import pandas as pd

    from lossbench.analysis import decisions

    rng, runs, kept = np.random.default_rng(13), 150, 0
    facts = {
        "dataset": "d",
        "recipe": "r",
        "dataset_name": "d",
        "data_label": "d",
        "order_hash": "o",
        "split_hash": "s",
    }
    for _ in range(runs):
        scores = rng.normal(0, 1, (8, 4)) + rng.normal(0, 2, (8, 1)) + [0, 0, 0, 0.05]
        rows = [
            {**facts, "init_hash": f"i{seed}", "seed": seed, "loss": str(loss), "x": value}
            for seed, row in enumerate(scores)
            for loss, value in enumerate(row)
        ]
        kept += "3" in decisions.contest(pd.DataFrame(rows), "x").best()
    assert kept / runs >= 0.95 - three_errors(0.95, runs)


def table(runs=10_000):
    """Return the lines of the simulation table of docs/protocol.md: four levels that correlate by .99."""
    lines = [
        "| seeds | false alarms | coverage of the 95 % interval | attainable | power at the detectable |"
    ]
    lines.append("|---|---|---|---|---|")
    for n, attainable in {5: 1.0, **ATTAINABLE}.items():
        found = list(studies(n, runs))
        alarms = np.mean([own.p() < 0.05 for own in found])
        covers = np.mean([own.interval()[0] <= 0 <= own.interval()[1] for own in found])
        effect = flips.detectable(n)
        rng = np.random.default_rng(1)
        power = (
            np.mean([flips.flips(rng.normal(effect, 1, n)).p() < 0.05 for _ in range(runs)])
            if effect < 9
            else None
        )
        says = (
            "none: no outcome reaches .05"
            if power is None
            else f"{power:.1%} ({effect:.2f} standard deviations)"
        )
        lines.append(f"| {n} | {alarms:.1%} | {covers:.1%} | {attainable:.1%} | {says} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))


LOOKS = (range(10), range(11), range(12))

# Means of the losses in points of Dice, one point being what matters; spread of a difference between seeds.
SEQUENTIAL = {
    "all equal": ((0, 0, 0, 0), 1.2),
    "one is worse by what matters": ((0, 0, 0, -1), 1.2),
    "two and two, apart by what matters": ((0, 0, 1, 1), 0.8),
    "each apart from the next by what matters": ((0, 1, 2, 3), 0.8),
}


def false_decisions(means, spread, looks=LOOKS, runs=120, seed=0):
    """Return the share of simulated sequential experiments with a wrong decision on any pair at any look: a
    winner among equals, or equality of losses that are a point apart.
    """
    rng, wrong = np.random.default_rng(seed), 0
    shape = len(means), len(looks[-1])
    for _ in range(runs):
        scores = 0.01 * (np.array(means)[:, None] + spread / np.sqrt(2) * rng.normal(size=shape))
        wrong += _errs(decisions.over_looks(paired(scores.T), "dice@0.5", looks), means)
    return wrong / runs


def paired(scores):
    """Return the blocks of the scores (seeds, losses) of one data set."""
    names = tuple("abcdef"[: scores.shape[1]])
    held, proofs = np.ones((1, *scores.shape), dtype=bool), np.ones((1, *scores.shape, 3), dtype=int)
    return Blocks(
        pd.DataFrame({"dataset": ["d"]}), np.arange(len(scores)), names, scores[None, ..., None], held, proofs
    )


def _errs(contest, means):
    for a, b in combinations(range(len(means)), 2):
        apart = means[a] - means[b]
        verdict = contest.decide("abcdef"[a], "abcdef"[b]).verdict
        right = {0: ("equal", "open"), 1: ("better", "open"), -1: ("worse", "open")}[np.sign(apart)]
        if verdict not in right:
            return True
    return False


@pytest.mark.parametrize("case", SEQUENTIAL)
def test_sequential_seeds_keep_five_percent_over_all_pairs_and_looks(case):
    assert false_decisions(*SEQUENTIAL[case]) <= 0.05 + three_errors(0.05, 120)


# Real images. losses, seeds, test groups; how far a difference scatters in points between seeds, between
# groups, and between single trainings on single groups. All losses are equal over all trainings and images;
# the trainings and images at hand favour some of them.
IMAGES = {
    "seeds as much as images": (2, 10, 12, 2.0, 2.0, 0.0),
    "five losses, seeds as much as images": (5, 10, 12, 2.0, 2.0, 2.0),
    "five losses, seeds half as much": (5, 10, 12, 1.0, 2.0, 2.0),
}


def on_images(rng, losses, seeds, groups, of_seeds, of_groups, of_both, ahead=0.0):
    """Return the contest of losses on simulated images; the first one is ``ahead`` points better."""
    scores = of_seeds * rng.normal(size=(seeds, losses, 1))
    scores = scores + of_groups * rng.normal(size=(1, losses, groups))
    # Divided by the root of 2, since a difference is of two losses.
    scores = (scores + of_both * rng.normal(size=(seeds, losses, groups))) / np.sqrt(2)
    scores[:, 0] += ahead
    scores /= 100
    seed, loss, group = (own.ravel() for own in np.indices(scores.shape))
    loss = np.array(list("abcdef"))[loss]
    cells = pd.DataFrame({"loss": loss, "seed": seed, "key": np.char.add(loss, seed.astype(str))})
    values = {"class": "", "dice@0.5": scores.ravel(), "n dice@0.5": 1.0}
    by_group = ByGroup(cells.assign(group=group.astype(str), **values))
    return decisions.Contest(paired(scores.mean(axis=2)), "dice@0.5", cells[group == 0], by_group)


def verdicts_on_images(runs, *design, seed=0, **options):
    """Return the verdicts of all pairs of simulated studies, (runs, pairs); those of the first loss first."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(runs):
        own = on_images(rng, *design, **options)
        found.append([own.decide(*pair).verdict for pair in combinations(own.blocks.arms, 2)])
    return np.array(found)


@pytest.mark.parametrize("case", IMAGES)
def test_losses_that_are_equal_over_images_and_seeds_are_seldom_told_apart(case):
    # A pair takes a fifth of the time of all ten.
    runs = 300 if IMAGES[case][0] == 2 else 40
    wrong = np.isin(verdicts_on_images(runs, *IMAGES[case]), ("better", "worse")).any(axis=1).mean()
    assert wrong <= 0.05 + three_errors(0.05, runs)


def test_three_points_are_found_on_twenty_groups_by_ten_seeds():
    # A standard error of .7 points; with ten pairs Holm's first step asks for more than three of them.
    found = verdicts_on_images(30, 5, 10, 20, 1.0, 2.0, 4.0, ahead=3.0)
    assert (found[:, :4] == "better").mean() >= 0.8


@pytest.mark.parametrize("sizes", [[1] * 12, [10] + [1] * 11, [30, 30] + [1] * 10])
def test_a_patient_with_most_of_the_images_raises_no_false_alarms(sizes):
    rng, weights, alarms = np.random.default_rng(14), np.array(sizes, float)[:, None], 0
    for _ in range(RUNS):
        d = rng.normal(size=weights.shape)
        sizes_of = len(d), resampling.equal_groups(d, weights), 10
        mean = float((d * weights).sum() / weights.sum())
        alarms += resampling.NewData(mean, resampling.left_out(d, weights), 0.0, *sizes_of).p() < 0.05
    assert alarms / RUNS <= 0.05 + three_errors(0.05)


@pytest.mark.parametrize("losses", [4, 5])
def test_among_equal_losses_of_fixed_seeds_any_is_called_better_in_five_percent(losses):
    rng, runs = np.random.default_rng(15), 1000
    wrong = [
        np.nanmin(decisions.Contest(paired(rng.normal(size=(10, losses))), "x").adjusted) for _ in range(runs)
    ]
    assert np.mean(np.array(wrong) < 0.05) <= 0.05 + three_errors(0.05, runs)
