"""Mean ranks and their critical difference, checked by hand and against a printed table."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import rankings


def cells(scores):
    """Return cells of {(data set, seed): {loss: score}}."""
    rows = [
        {"dataset": d, "recipe": "r", "seed": s, "loss": k, "dice@0.5": v, "hd95@0.5": v}
        for (d, s), own in scores.items()
        for k, v in own.items()
    ]
    return pd.DataFrame(rows)


TWO = {
    ("a", 0): {"x": 0.9, "y": 0.8, "z": 0.8},
    ("a", 1): {"x": 0.7, "y": 0.8, "z": 0.6},
    ("b", 0): {"x": 0.1, "y": 0.2, "z": 0.3},
}


def test_ranks_are_taken_within_a_block_and_ties_are_shared():
    ranks = rankings.rank_table(cells(TWO), "dice@0.5")
    assert ranks.loc["a"].to_numpy().ravel() == pytest.approx([(1 + 2) / 2, (2.5 + 1) / 2, (2.5 + 3) / 2])
    assert ranks.loc["b"].to_numpy().ravel() == pytest.approx([3, 2, 1])


def test_a_smaller_distance_and_a_size_nearer_to_the_truth_rank_first():
    assert rankings.rank_table(cells(TWO), "hd95@0.5").loc["b"].to_numpy().ravel() == pytest.approx([1, 2, 3])
    signed = cells({("a", 0): {"x": -0.1, "y": 0.3, "z": -0.5}})
    assert rankings.rank_table(signed, "dice@0.5", absolute=True).to_numpy().ravel() == pytest.approx(
        [1, 2, 3]
    )


def test_a_loss_that_one_data_set_lacks_is_not_ranked_and_an_incomplete_block_is_left_out():
    scores = {("a", 0): {"x": 1, "y": 2, "z": 3}, ("a", 1): {"x": 1, "z": 3}, ("b", 0): {"x": 5, "y": 4}}
    ranks = rankings.rank_table(cells(scores), "dice@0.5")
    assert list(ranks.columns) == ["x", "y"]
    assert ranks.loc["a"].to_numpy().ravel() == pytest.approx([2, 1]) and ranks.loc[
        "b"
    ].to_numpy().ravel() == pytest.approx([1, 2])


def test_the_bootstrap_is_the_same_every_time_and_a_single_data_set_has_no_interval():
    ranks = pd.DataFrame({"x": [1.0, 1.0, 3.0, 2.0], "y": [2.0, 3.0, 1.0, 1.0]})
    first, second = rankings.bootstrap(ranks), rankings.bootstrap(ranks)
    pd.testing.assert_frame_equal(first, second)
    assert (
        first["mean"].to_list() == [1.75, 1.75]
        and (first["low"] < 1.75).all()
        and (first["high"] > 1.75).all()
    )
    assert np.isnan(rankings.bootstrap(ranks.iloc[:1])["low"]).all()


@pytest.mark.parametrize(("losses", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_agrees_with_the_printed_quantiles(losses, q):
    """Demšar 2006, table 5 (a): the two-tailed Nemenyi test at .05."""
    assert rankings.critical_difference(losses, 30) == pytest.approx(
        q * np.sqrt(losses * (losses + 1) / 180), rel=1e-3
    )


def test_few_data_sets_have_no_critical_difference():
    assert np.isnan(rankings.critical_difference(5, 9)) and np.isfinite(rankings.critical_difference(5, 10))
