"""What a planned study can show is known before it is trained, by running its tests on made-up scores."""

import numpy as np
import pytest
from scipy import stats

import small_claim
from lossbench.analysis import across_sets, flips
from lossbench.analysis.claims import read_claims
from lossbench.analysis.power import power, refusal

HEAD = small_claim.HEAD.replace("quick", "mini")
TEST = """
[[claim.test]]
id = "X.{n}"
says = "s"
value = "{value}"
of = "dice"
against = "ce"
expect = "greater"
margin = 0.01
"""


def claims(tmp_path, *values):
    path = tmp_path / "claims.toml"
    path.write_text(HEAD + "".join(TEST.format(n=n, value=value) for n, value in enumerate(values, 1)))
    return read_claims(path).claims


def planned(cells):
    """Return what is known of cells before they are trained: no score."""
    return cells[[name for name in cells if "@" not in name]]


def test_a_planned_test_knows_its_seeds_its_smallest_p_and_what_it_detects(ten_seeds, tmp_path):
    first, second = power(claims(tmp_path, "dice@0.5", "dice@val"), planned(ten_seeds))
    assert (first.n_seeds, first.n_sets, first.tests) == (10, 1, 2)
    assert first.smallest_p == second.smallest_p == 2 * 2 / 2**10
    assert first.detectable == flips.detectable(10, 2) and np.isnan(first.mde) and not first.hopeless
    assert not refusal([first, second])


def test_a_margin_that_every_level_must_keep_to_is_wider_than_that_of_one(ten_seeds, tmp_path):
    path = tmp_path / "claims.toml"
    text = TEST.format(n=1, value="dice@0.5").replace('"greater"', '"equal"')
    path.write_text(HEAD + text + text.replace("X.1", "X.2") + 'shape = "each"\n')
    mean, each = power(read_claims(path).claims, planned(ten_seeds))
    assert mean.detectable == flips.equal_within(10, 2)
    assert each.detectable == flips.equal_within(10, 2, 0.95) > mean.detectable


def test_trials_give_the_detectable_effect_its_unit(ten_seeds, tmp_path):
    (own,) = power(claims(tmp_path, "dice@0.5"), planned(ten_seeds), ten_seeds[ten_seeds["seed"] < 3])
    assert own.mde == pytest.approx(own.spread * flips.detectable(10)) and own.spread > 0


def test_a_primary_test_that_no_outcome_could_decide_is_refused(ten_seeds, tmp_path):
    few = planned(ten_seeds[ten_seeds["seed"] < 8])
    seven = [f"dice@{arm}" for arm in range(7)]  # 7 x 2 / 2^8 = .055, 6 of them reach .047
    assert refusal(power(claims(tmp_path, *seven[:6]), few)) == ""
    says = refusal(power(claims(tmp_path, *seven), few))
    assert "X.1 (8 seeds)" in says and "plan 9 seeds" in says


def test_what_is_not_planned_is_named_and_refuses_nothing(ten_seeds, tmp_path):
    (own,) = power(claims(tmp_path, "dice@0.5"), planned(ten_seeds[ten_seeds["loss"] != "dice"]))
    assert own.problem == "there are no cells of dice" and not own.hopeless


@pytest.mark.parametrize(("k", "tests"), [(5, 1), (12, 3)])
def test_an_effect_that_data_sets_detect_is_found_with_the_promised_power(k, tests):
    draw, effect = np.random.default_rng(k), across_sets.detectable(k, tests)
    p = stats.ttest_1samp(draw.normal(effect, 1, (4000, k)), 0, axis=1).pvalue
    assert np.mean(p * tests < 0.05) == pytest.approx(0.8, abs=0.03)
    assert across_sets.detectable(1) == np.inf
