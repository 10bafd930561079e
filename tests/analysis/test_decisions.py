"""One rule says which loss is better, wherever that is said; its cases are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import boards, decisions, effects, flips
from lossbench.analysis.decisions import decide
from lossbench.analysis.resampling import ByGroup, Images


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


def verdict(numbers, p_holm=0.0, column="dice@0.5", good=1, images=None):
    evidence = flips.flips(numbers)
    return decide(evidence, evidence.estimate, p_holm, column, good, images)


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


@pytest.mark.parametrize(("low", "high", "says"), [(0.01, 0.06, "better"), (-0.01, 0.09, "open")])
def test_other_test_images_must_agree(low, high, says):
    assert verdict(AHEAD, images=Images(low, high, 0.0, 20)) == says


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


def test_with_fewer_than_eight_test_groups_nothing_is_better():
    table = cells(a=[0.9] * 8, b=[0.5, 0.52, 0.51, 0.5, 0.49, 0.5, 0.5, 0.5])
    for groups, says in ((7, "open"), (8, "better")):
        rows = [
            {"key": key, "group": str(g), "class": "", "dice@0.5": dice, "n dice@0.5": 1}
            for key, dice in zip(table["key"], table["dice@0.5"], strict=True)
            for g in range(groups)
        ]
        found = decisions.contest(table, "dice@0.5", ByGroup(pd.DataFrame(rows))).decide("a", "b")
        assert found.verdict == says
        assert (found.why == decisions.FEW_GROUPS) == (says == "open")


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
