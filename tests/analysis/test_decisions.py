"""One rule says which loss is better, wherever that is said; its cases are worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lossbench.analysis import advice, answers, boards, decisions, effects, flips
from lossbench.analysis.decisions import decide
from lossbench.analysis.resampling import ByGroup


def cells(column="dice@0.5", **scores):
    """Return cells of one data set: a list of scores over seeds for each loss."""
    facts = dict.fromkeys(("dataset", "recipe", "dataset_name", "data_label", "outcome", "family"), "d")
    facts |= dict.fromkeys(("init_hash", "order_hash", "split_hash"), "h")
    rows = [
        facts | {"loss": loss, "loss_label": loss, "seed": seed, "key": f"{loss}{seed}", column: value}
        for loss, values in scores.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def verdict(numbers, p_holm=0.0, column="dice@0.5", good=1):
    evidence = flips.flips(numbers)
    return decide(evidence, evidence.estimate, p_holm, column, good)


def groups(table, **values):
    """Return the scores by test group of each cell, around the cell's own by ``values`` of its loss."""
    rows = [
        {"key": cell.key, "group": str(n), "class": "", "dice@0.5": cell.dice + value, "n dice@0.5": 1}
        for cell in table.rename(columns={"dice@0.5": "dice"}).itertuples()
        for n, value in enumerate(values[cell.loss])
    ]
    return ByGroup(pd.DataFrame(rows))


# Eight differences of one sign have p = 2 / 2^8; with seven of one sign the smallest is 4 / 2^8.
AHEAD = [0.03, 0.05, 0.02, 0.04, 0.06, 0.03, 0.02, 0.05]


def test_a_loss_is_better_where_all_eight_seeds_agree_and_the_difference_matters():
    assert verdict(AHEAD) == "better"
    assert verdict(AHEAD, good=-1) == "worse"
    assert verdict(np.negative(AHEAD)) == "worse"


def test_nothing_is_better_where_the_adjusted_p_is_not_below_a_twentieth():
    assert verdict(AHEAD, p_holm=0.05) == "open"


def test_a_sure_difference_that_is_too_small_to_matter_is_called_equal():
    assert verdict([0.001, 0.002, 0.003, 0.002, 0.001, 0.002, 0.003, 0.002]) == "equal"


def test_a_score_without_a_smallest_effect_of_interest_is_never_equal():
    assert verdict([0.0] * 8, p_holm=1.0, column="hd95@0.5") == "open"


# How far the groups of a test part lie from its mean, in Dice.
APART = np.array([1, -2, 3, -1, 2, -3, 1, -1, 2, -2]) / 100


@pytest.mark.parametrize(("spread", "says"), [(0.5, "better"), (2.0, "better"), (3.0, "open")])
def test_the_p_of_a_pair_is_the_larger_one_of_seeds_and_of_test_groups(spread, says):
    # Without any spread between seeds the test of images is the t test of ten groups.
    table = cells(a=[0.83] * 8, b=[0.8] * 8)
    by_group = groups(table, a=spread * APART, b=0 * APART)
    found = decisions.contest(table, "dice@0.5", by_group).decide("a", "b")
    t = stats.ttest_1samp(0.03 + spread * APART, 0)
    assert found.p_holm == pytest.approx(max(2 / 2**8, t.pvalue))
    assert found.verdict == says and (found.why == decisions.OTHER_IMAGES) == (says == "open")
    # Of eight equal differences the interval of seeds is a point, so that of images is the wider one.
    assert found.interval() == pytest.approx(tuple(t.confidence_interval()))


def test_noise_of_seeds_and_of_images_adds_up():
    noise = np.array([3, -1, 2, -2, 1, -3, 2, -2]) / 100
    table = cells(a=0.83 + noise, b=[0.8] * 8)
    found = decisions.contest(table, "dice@0.5", groups(table, a=APART, b=0 * APART)).decide("a", "b")
    assert found.images.se == pytest.approx(np.hypot(stats.sem(noise), stats.sem(APART)))
    assert 7 < found.images.df < 7 + 9


def test_equal_on_these_images_is_not_equal_on_others():
    table = cells(a=[0.801] * 8, b=[0.8] * 8)
    for spread, says in ((0.3, "equal"), (3.0, "open")):
        found = decisions.contest(table, "dice@0.5", groups(table, a=spread * APART, b=0 * APART))
        own = found.decide("a", "b")
        assert own.verdict == says and found.decide("b", "a").verdict == says
        assert (own.why, own.on_these) == (
            (decisions.OTHER_IMAGES, "equal") if says == "open" else ("", "open")
        )


def test_p_of_fixed_seeds_is_adjusted_over_all_pairs():
    # Each pair's eight differences have one sign: 2 / 2^8 thrice, and Holm's first step multiplies by three.
    table = cells(a=[0.9] * 8, b=[0.8] * 8, c=[0.7] * 8)
    adjusted = decisions.contest(table, "dice@0.5").adjusted
    assert adjusted[~np.eye(3, dtype=bool)] == pytest.approx(3 * 2 / 2**8)
    # Five losses are ten pairs: 10 * 2 / 2^8 = .078, and with nine seeds .039.
    for n, best in ((8, set("abcde")), (9, {"a"})):
        many = cells(**{loss: [0.9 - place / 10] * n for place, loss in enumerate("abcde")})
        assert decisions.contest(many, "dice@0.5").best() == best


def test_five_seeds_exclude_nobody_and_eight_do():
    few = cells(a=[0.9] * 5, b=[0.5, 0.52, 0.51, 0.5, 0.49])
    assert boards.leaderboard(few)["best"].all()
    many = cells(a=[0.9] * 8, b=[0.5, 0.52, 0.51, 0.5, 0.49, 0.5, 0.5, 0.5])
    assert boards.leaderboard(many).set_index("loss")["best"].to_dict() == {"a": True, "b": False}


def test_one_p_counts_for_a_pair_from_whichever_side_it_is_asked():
    rng = np.random.default_rng(0)
    table = cells(**{name: 0.7 + rng.normal(0, 0.02, 8) + 0.01 * n for n, name in enumerate("abcd")})
    contest = decisions.contest(table, "dice@0.5")
    assert np.array_equal(contest.adjusted, contest.adjusted.T, equal_nan=True)
    other = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}
    for a, b in ("ab", "ac", "ad", "bd"):
        assert contest.decide(a, b).verdict == other[contest.decide(b, a).verdict]


def test_effects_and_leaderboard_say_the_same_of_the_reference():
    rng = np.random.default_rng(1)
    for gap in (0.0, 0.005, 0.01, 0.02, 0.03):
        table = cells(**{n: 0.7 + rng.normal(0, 0.01, 8) + gap * (n == "dice") for n in ("ce", "dice", "x")})
        beaten = (effects.effects_table(table, "ce", ["dice@0.5"])["verdict"] == "better").any()
        assert boards.leaderboard(table).set_index("loss").loc["ce", "best"] == (not beaten)


@pytest.mark.parametrize(("ahead", "says"), [(0.4, "better"), (0.002, "equal")])
def test_with_fewer_than_eight_test_groups_nothing_is_better_and_nothing_equal(ahead, says):
    table = cells(a=[0.5 + ahead] * 8, b=[0.5] * 8)
    for count in (7, 8):
        by_group = groups(table, a=[0.0] * count, b=[0.0] * count)
        found = decisions.contest(table, "dice@0.5", by_group).decide("a", "b")
        assert found.verdict == ("open" if count == 7 else says)
        assert (found.why, found.on_these) == ((decisions.FEW_GROUPS, says) if count == 7 else ("", "open"))
    # No look decides either.
    found = decisions.contest(
        table, "dice@0.5", groups(table, a=[0.0] * 7, b=[0.0] * 7), looks=[range(8)] * 2
    )
    assert found.decide("a", "b").verdict == "open" and found.unsettled(choice=True) == {"a", "b"}


def test_many_p_values_at_once_are_those_of_one_test_each():
    rng = np.random.default_rng(2)
    d = rng.normal(0.3, 1, (20, 8))
    d[3, 2] = d[4] = np.nan
    d[5] = 1.0
    alone = [flips.flips(row[~np.isnan(row)]).p() if not np.isnan(row).all() else np.nan for row in d]
    assert np.array_equal(flips.two_sided(d), alone, equal_nan=True)


@pytest.mark.parametrize(("gap", "most_open"), [(0.0, 1.0), (0.02, 1 / 3)])
def test_three_groups_of_eight_seeds_do_not_contradict_each_other(gap, most_open):
    rng, sets, opposed, unsure = np.random.default_rng(4), 60, 0, 0
    for _ in range(sets):
        # Paired differences scatter by a point and a half, as on small public sets.
        d = gap + rng.normal(0, 0.015, (3, 8))
        says = {verdict(own, p_holm=flips.flips(own).p()) for own in d}
        opposed += {"better", "worse"} <= says
        unsure += sum(verdict(own, p_holm=flips.flips(own).p()) == "open" for own in d)
    assert opposed == 0 and unsure / (3 * sets) <= most_open


LOOKS = (range(8), range(10), range(12))

ASIDE = [0.5, 0.51, 0.49, 0.5, 0.52, 0.5, 0.51, 0.49]  # of one loss; another is 5 points ahead, then behind


def sequential(looks=LOOKS, taken=None, **scores):
    return decisions.contest(cells(**scores), "dice@0.5", looks=looks, taken=taken)


def test_a_pair_is_decided_at_the_first_look_that_can_tell_and_is_not_asked_again():
    ahead, behind = [v + 0.05 for v in ASIDE], [0.1] * 4
    found = sequential(a=ahead + behind, b=ASIDE + [0.5] * 4).decide("a", "b")
    assert (found.verdict, found.seeds) == ("better", 8)
    assert found.evidence.estimate == pytest.approx(0.05)
    # All eight differences have one sign: 2 of 2^8 patterns, at three looks.
    assert found.p_holm == pytest.approx(3 * 2 / 2**8)


def test_nothing_is_decided_before_the_first_look_nor_where_a_seed_is_missing():
    ahead = [v + 0.05 for v in ASIDE]
    assert sequential(a=ahead[:7], b=ASIDE[:7]).decide("a", "b").verdict == "open"
    assert sequential(a=ahead[:7], b=ASIDE).decide("a", "b").verdict == "open"
    assert sequential(a=ahead, b=ASIDE, looks=[range(n) for n in range(8, 16)]).best() == {"a", "b"}


def test_equality_needs_its_share_of_the_five_percent_too():
    near = [v + d for v, d in zip(ASIDE, [0.001, -0.001] * 4, strict=True)]
    # Both tests within a point see all signs alike: p is 1 in 2^8 for one pair, and 3 / 2^8 at three looks.
    assert sequential(a=near, b=ASIDE).decide("a", "b").verdict == "equal"
    assert sequential(a=near, b=ASIDE, looks=[range(n) for n in range(8, 21)]).decide("a", "b").seeds == 8
    assert sequential(a=near, b=ASIDE, looks=[range(8)] * 13).decide("a", "b").verdict == "open"


def test_a_loss_that_is_clearly_worse_leaves_the_choice_and_its_open_pairs_ask_for_nothing():
    noisy = [v + d for v, d in zip(ASIDE, [0.03, -0.03] * 4, strict=True)]
    scores = {"a": [v + 0.2 for v in ASIDE], "b": [v + 0.2 for v in noisy], "c": ASIDE}
    found = sequential(taken=1, **scores, looks=LOOKS[:2])
    assert found.dropped() == {"c"} and found.unsettled(choice=True) == {"a", "b"}
    # Beside c, d is open: that matters only where no loss is to be chosen.
    scores["d"] = noisy
    found = sequential(taken=1, **{k: v for k, v in scores.items() if k in "acd"}, looks=LOOKS[:2])
    assert found.unsettled(choice=True) == set() and found.unsettled(choice=False) == {"c", "d"}


def test_what_is_decided_is_said_of_each_pair():
    ahead = [v + 0.05 for v in ASIDE]
    table = cells(a=ASIDE, b=ahead).assign(**{"recipe.steps": 10.0})
    said = decisions.decided(table, None, LOOKS, choice=False)
    assert list(said["says"]) == ["decided at 8 of 12 seeds: b is 5.0 points above a"]


def test_effects_of_sequential_seeds_have_the_interval_of_the_look_that_decided():
    rng = np.random.default_rng(5)
    ahead = 0.55 + rng.normal(0, 0.005, 12)
    # c is so near to b that their pair stays open, and b goes on to the last look.
    table = cells(ce=[0.5] * 12, b=ahead, c=ahead + rng.normal(0, 0.02, 12))
    row = effects.effects_table(table, "ce", ["dice@0.5"], looks=LOOKS).set_index("loss").loc["b"]
    # Three pairs and three looks: 9 * 2 / 2^8 = .07, and at ten seeds .018.
    first = flips.flips(ahead[:10] - 0.5)
    assert (row["verdict"], row["n_seeds"], row["p"]) == ("better", 10, first.p())
    assert row["estimate"] == pytest.approx(first.estimate)
    assert (row["low"], row["high"]) == pytest.approx(first.interval(1 - 0.05 / 3))
    # Fixed seeds have no looks to share with.
    row = effects.effects_table(table, "ce", ["dice@0.5"]).set_index("loss").loc["b"]
    assert (row["low"], row["high"]) == pytest.approx(flips.flips(ahead - 0.5).interval())


def test_intervals_of_other_images_hold_at_all_looks_too():
    table = cells(ce=[0.5] * 12, b=[0.55] * 12)
    by_group = groups(table, ce=0 * APART, b=APART)
    row = effects.effects_table(table, "ce", ["dice@0.5"], by_group, LOOKS).iloc[0]
    t = stats.ttest_1samp(0.05 + APART, 0).confidence_interval(1 - 0.05 / 3)
    assert (row["images_low"], row["images_high"]) == pytest.approx(tuple(t))


def real_sets(**scores):
    """Return cells of two real data sets; scores by data set and loss."""
    own = [
        cells(**losses).assign(dataset=name, data_label=name, dataset_name=name, recipe="r")
        for name, losses in scores.items()
    ]
    table = pd.concat(own, ignore_index=True)
    return table.assign(key=table["dataset"] + table["key"], family="f")


@pytest.mark.parametrize(
    ("count", "spread", "says"), [(10, 0.5, "better"), (10, 3.0, "open"), (7, 0.0, "open")]
)
def test_a_pair_on_one_real_set_is_judged_by_its_images_though_others_are_on_more(count, spread, says):
    near = [0.8 + d for d in (0.004, -0.004) * 4]
    table = real_sets(
        one={"ce": [0.8] * 8, "dice": near, "x": [0.83] * 8}, two={"ce": [0.8] * 8, "dice": near}
    )
    apart = spread * np.resize(APART, count)
    by_group = groups(table, ce=0 * apart, dice=0 * apart, x=apart - apart.mean())
    table_of = effects.pair_effects(table, ["dice@0.5"], by_group).set_index(["loss", "against"])
    assert table_of.loc[("x", "ce"), "verdict"] == says
    if count == 10:
        t = stats.ttest_1samp(0.03 + apart, 0)
        assert table_of.loc[("x", "ce"), "p"] == pytest.approx(max(2 / 2**8, t.pvalue))
    # Two sets are a sample of sets, whose images are part of how they differ.
    assert table_of.loc[("dice", "ce"), "n_sets"] == 2


@pytest.mark.parametrize(("spread", "says"), [(0.5, "better"), (3.0, "open")])
def test_advice_and_parts_that_rest_on_one_real_set_ask_its_images(spread, says):
    table = real_sets(one={"ce": [0.8] * 8, "x": [0.83] * 8}).assign(parts="own", outcome="done")
    table = table.assign(**{"recipe.steps": 10.0})
    by_group = groups(table, ce=0 * APART, x=spread * APART)
    found = advice.advise(table, by_group=by_group)["advice"]
    assert set(found.loc[found["metric"] == "dice@0.5", "verdict"]) == {says}
    assert set(advice.advise(table)["advice"]["verdict"]) == {"better"}
    within = answers.part_effects(table, ["own"], (), by_group)
    assert list(within["verdict"]) == [says] and list(within["n_groups"]) == [10]
