"""Agreement of raters by hand, by the example of a textbook, and by another library."""

import math

import numpy as np
import pytest

from lossbench.metrics import agreement, closeness

NAMES = ("background", "a", "b")


def test_three_raters_by_hand():
    got = agreement(np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]), classes=NAMES)
    # Pairs: 2 * 1 / (2 + 1), and twice 0 against the one who marked nothing.
    assert got["dice:a"] == got["dice"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert math.isnan(got["dice:b"])
    # Of three pairs 3, 1, 1, 3 agree on the four pixels; three of twelve labels are "a".
    agreed, chance = (3 + 1 + 1 + 3) / 12, (9 / 12) ** 2 + (3 / 12) ** 2
    assert got["kappa"] == pytest.approx((agreed - chance) / (1 - chance))
    assert (got["n_raters"], got["n_pixels"]) == (3, 4)


def test_kappa_of_the_known_example_with_fourteen_raters():
    """Ten subjects, five categories: kappa .210, as Wikipedia's article on it works out."""
    votes = """0 0 0 0 14; 0 2 6 4 2; 0 0 3 5 6; 0 3 9 2 0; 2 2 8 1 1
    7 7 0 0 0; 3 2 6 3 0; 2 5 3 2 2; 6 5 2 1 0; 0 2 2 3 7"""
    table = np.array([row.split() for row in votes.replace("\n", ";").split(";")], int)
    raters = np.stack([np.repeat(np.arange(5), row) for row in table], axis=1)
    assert agreement(raters, classes="01234")["kappa"] == pytest.approx(0.210, abs=5e-4)


def test_statsmodels_gives_the_same_kappa():
    peer = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    raters = np.random.default_rng(0).choice(3, p=(0.7, 0.2, 0.1), size=(4, 12, 9))
    table = peer.aggregate_raters(raters.reshape(4, -1).T)[0]
    assert agreement(raters, classes=NAMES)["kappa"] == pytest.approx(peer.fleiss_kappa(table))


def test_raters_who_agree_have_one_and_void_of_any_counts_for_nothing():
    one = np.array([[0, 1], [2, 0]])
    assert agreement(np.stack([one, one]), classes=NAMES)["kappa"] == 1
    other = np.array([[0, 1], [2, 255]])
    got = agreement(np.stack([one, other]), classes=NAMES, ignore_index=255)
    assert (got["dice"], got["kappa"], got["n_pixels"]) == (1, 1, 3)
    assert math.isnan(agreement(np.zeros((2, 3), int), classes=NAMES)["kappa"])


@pytest.mark.parametrize(
    ("raters", "message"),
    [
        (np.zeros((1, 4), int), "R >= 2"),
        (np.zeros((2, 4)), "integer class ids"),
        (np.array([[0, 1], [0, 3]]), "class id 3 in raters: with 3 classes"),
    ],
)
def test_what_is_no_rating_is_refused_in_one_sentence(raters, message):
    with pytest.raises(ValueError, match=message):
        agreement(raters, classes=NAMES)


@pytest.mark.parametrize("score", [agreement, lambda raters, **said: closeness(raters[0], raters, **said)])
def test_the_number_of_classes_in_place_of_their_names_is_refused_and_the_nearest_names_given(score):
    raters = np.array([[0, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"names of all classes, .* got 3; range\(3\) names them by number"):
        score(raters, classes=3)
    assert score(raters, classes=range(3))
