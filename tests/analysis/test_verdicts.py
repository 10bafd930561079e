"""A verdict follows from the cells by rules that can be checked one by one."""

import json

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import claims, flips, verdicts
from lossbench.analysis.resampling import ByGroup
from lossbench.base import columns, words
from small_claim import CLAIM

ALONE = CLAIM.replace('against = "ce"\n', "")
SAME = {
    "value": '"log_size_ratio_soft"',
    "of": '"ce"',
    "shape": '"each"',
    "expect": '"equal"',
    "margin": 0.0488,
}
PLANNED = pd.DataFrame(
    [{"experiment": "quick", "part": "ladder", "losses": '["ce", "dice"]', "seeds": "[0, 1, 2, 3]"}]
)


def another(number):
    """Return one more test of the claim, the same as the first."""
    return CLAIM[CLAIM.index("[[claim.test]]") :].replace("X.1", f"X.{number}")


def evaluated(cells, text, tmp_path, **options):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    (verdict,) = verdicts.evaluate(claims.read_claims(path).claims, cells, **options)
    return verdict


def judged(cells, tmp_path, claim=CLAIM, parts=PLANNED, by_group=None, **changes):
    """Return the result of the only test of a claim, with some of its keys changed."""
    text = claim
    for key, value in changes.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        text = "\n".join([*lines, f"{key} = {value}"])
    return evaluated(cells, text, tmp_path, parts=parts, by_group=by_group).results[0]


def test_a_clear_difference_in_the_claimed_direction_supports(ten_seeds, tmp_path):
    result = judged(ten_seeds, tmp_path)
    assert result.verdict == "supported" and result.p == result.p_adjusted == 2 / 2**10
    assert result.measured.evidence.interval()[0] > 0


def test_the_same_difference_contradicts_the_opposite_claim(ten_seeds, tmp_path):
    assert judged(ten_seeds, tmp_path, expect='"less"').verdict == "contradicted"


def test_a_difference_smaller_than_what_matters_is_equivalent_whatever_its_sign(ten_seeds, tmp_path):
    for expect in ('"greater"', '"less"'):
        assert judged(ten_seeds, tmp_path, margin=0.5, expect=expect).verdict == "equivalent"


def test_a_null_of_ones_own_is_the_smallest_effect_that_matters(ten_seeds, tmp_path):
    assert judged(ten_seeds, tmp_path, margin=0.5, null=0.01).verdict == "supported"


def test_a_null_is_written_as_the_row_writes_effects(ten_seeds, tmp_path):
    assert judged(ten_seeds, tmp_path, null=-0.005).why.startswith("On the claimed side of −0.50 points")


def test_a_difference_that_the_seeds_do_not_show_is_inconclusive_not_refuted(ten_seeds, tmp_path):
    blurred = ten_seeds.assign(**{"dice@0.5": np.random.default_rng(0).normal(0, 0.2, len(ten_seeds))})
    result = judged(blurred, tmp_path)
    assert result.verdict == "inconclusive" and result.why == "Neither a difference nor its absence is shown"


def test_too_few_seeds_for_any_outcome_are_exploratory_and_the_command_says_how_many_it_takes(
    cells, tmp_path
):
    result = judged(cells, tmp_path)
    assert result.verdict == "not testable" and result.why.startswith("Exploratory: no outcome of 4 seeds")
    assert result.command == "lossbench sweep quick --seeds 6"
    assert result.measured.evidence.estimate > 0 and np.isinf(result.measured.evidence.interval()).all()
    enough = PLANNED.assign(seeds="[0, 1, 2, 3, 4, 5]")
    assert judged(cells, tmp_path, parts=enough).command == "lossbench sweep quick"


def test_eight_seeds_are_enough_for_six_tests_of_a_family_and_too_few_for_seven(ten_seeds, tmp_path):
    cells = ten_seeds[ten_seeds["seed"] < 8]
    six = CLAIM + "".join(map(another, range(2, 7)))
    assert {r.verdict for r in evaluated(cells, six, tmp_path).results} == {"supported"}
    seven = evaluated(cells, six + another(7), tmp_path)
    assert {r.verdict for r in seven.results} == {"not testable"}
    assert seven.results[0].command.endswith("--seeds 9")


def test_missing_cells_are_named_with_the_command_that_trains_them(cells, tmp_path):
    result = judged(cells, tmp_path, of='"tversky(fp_weight=0.3)"')
    assert result.verdict == "not testable"
    assert result.why.startswith("There are no cells of tversky(fp_weight=0.3)")
    assert result.command == "lossbench sweep quick --loss 'tversky(fp_weight=0.3)'"


@pytest.mark.parametrize(
    ("named", "added"),
    [
        ("tversky(fp_weight=0.3)", ""),  # its default, written out
        ("tversky(fp_weight=0.3, smooth=1.0)", ""),
        ("tversky(fp_weight=0.4)", " --loss 'tversky(fp_weight=0.4)'"),
        ("ce(over='batch')", ""),  # of cells, where no table of losses knows it
    ],
)
def test_a_loss_that_is_planned_under_another_spelling_is_not_added(cells, tmp_path, named, added):
    params = '{"fp_weight": 0.3, "smooth": 1.0}'
    losses = pd.DataFrame([{"loss": "tversky", "weight": 1.0, "name": "tversky", "params": params}])
    cells = cells.assign(loss_spellings=cells["loss"].replace("ce", "ce(over='batch') | cross(over='batch')"))
    text = CLAIM.replace('"dice"', f'"{named}"')
    planned = PLANNED.assign(losses='["ce", "dice", "tversky"]')
    result = evaluated(cells, text, tmp_path, parts=planned, losses=losses).results[0]
    seeds = " --seeds 6" if named.startswith("ce") else ""
    assert result.command == f"lossbench sweep quick{added}{seeds}"


@pytest.mark.parametrize(
    ("datasets", "changes", "says"),
    [
        (["scenes(foreground=0.01)"], {}, ""),
        (
            ["scenes(foreground=0.01)", "sirst(view='whole')"],
            {},
            "1 of 2 planned data sets have no cells yet (sirst)",
        ),
        (["scenes(foreground=0.01)", "sirst"], {"data": '["scenes"]'}, ""),
        (["scenes(foreground=0.01)", "sirst"], {"foreground": "[0.0, 0.5]"}, ""),
    ],
)
def test_data_sets_that_are_planned_and_not_trained_leave_a_test_open(
    ten_seeds, tmp_path, datasets, changes, says
):
    planned = PLANNED.assign(datasets=json.dumps(datasets))
    result = judged(ten_seeds.assign(parts="ladder"), tmp_path, parts=planned, part='"ladder"', **changes)
    assert result.why.startswith(says)
    if says:
        assert result.verdict == "not testable" and result.command == "lossbench sweep quick"
        assert result.measured.evidence.estimate > 0
    else:
        assert result.verdict == "supported"


def test_of_an_experiment_that_was_not_swept_here_the_command_names_the_file_alone(cells, tmp_path):
    elsewhere = PLANNED.assign(experiment="another")
    assert judged(cells, tmp_path, parts=elsewhere, of='"nowhere"').command == "lossbench sweep quick"


def test_no_cells_at_all_make_every_claim_not_testable(cells):
    found = verdicts.evaluate(claims.read_claims().claims, cells.iloc[:0])
    assert {v.verdict for v in found} == {"not testable"}


def test_unpaired_cells_are_not_testable_and_the_reason_is_given(cells, tmp_path):
    cells.loc[cells["loss"] == "dice", "init_hash"] = "other"
    result = judged(cells, tmp_path)
    assert result.verdict == "not testable" and "are not paired" in result.why


def test_equality_in_every_data_set_needs_each_of_them(ten_seeds, tmp_path):
    assert judged(ten_seeds, tmp_path, ALONE, **SAME).verdict == "supported"
    rare, common = (ten_seeds["data.foreground"] == f for f in (0.002, 0.2))
    spoilt = ten_seeds.copy()
    spoilt.loc[rare, "log_size_ratio_soft"] += 0.2
    result = judged(spoilt, tmp_path, ALONE, **SAME)
    assert result.verdict == "contradicted" and result.measured.where == "scenes(foreground=0.002)"
    spoilt.loc[common, "log_size_ratio_soft"] -= 0.2  # equal on average, and that must not count
    assert judged(spoilt, tmp_path, ALONE, **SAME).verdict == "contradicted"


def test_a_verdict_that_hangs_on_one_level_names_it(ten_seeds, tmp_path):
    rare = ten_seeds["data.foreground"] == 0.002
    score = np.where(rare & (ten_seeds["loss"] == "dice"), 0.9, 0.5)
    noise = np.random.default_rng(0).normal(0, 0.01, len(ten_seeds))
    result = judged(ten_seeds.assign(**{"dice@0.5": score + noise}), tmp_path)
    assert result.verdict == "supported" and "It hangs on scenes(foreground=0.002) (without it" in result.why
    assert "hangs" not in judged(ten_seeds, tmp_path).why


@pytest.mark.parametrize(
    ("gaps", "margin", "verdict", "begin"),
    [
        # The mean over levels is within .01, that of all but the frequent one is not.
        (
            (0.01, 0.01, 0.012, -0.03),
            0.01,
            "supported",
            "Equality within the margin hangs on scenes(foreground=0.2) (",
        ),
        ((0.001, 0.001, 0.001, 0.001), 0.01, "supported", ""),
        ((0.2, 0, 0, 0), 0.02, "contradicted", "It hangs on scenes(foreground=0.002) (without it"),
        ((0.05, 0.05, 0.05, 0.05), 0.02, "contradicted", ""),
    ],
)
def test_an_equality_or_its_contradiction_that_hangs_on_one_level_names_it(
    ten_seeds, tmp_path, gaps, margin, verdict, begin
):
    fractions = sorted(ten_seeds["data.foreground"].unique())
    gap = ten_seeds["data.foreground"].map(dict(zip(fractions, gaps, strict=True)))
    noise = np.random.default_rng(0).normal(0, 1e-3, len(ten_seeds))
    score = 0.5 + gap * (ten_seeds["loss"] == "dice") + noise
    cells = ten_seeds.assign(**{"dice@0.5": score})
    result = judged(cells, tmp_path, expect='"equal"', margin=margin)
    assert result.verdict == verdict and begin in result.why
    assert ("hangs" in result.why) == bool(begin)
    if begin:  # the table says the same as the sentence
        claim = evaluated(cells, CLAIM, tmp_path).claim
        levels = verdicts.level_table([verdicts.Verdict(claim, verdict, (result,))])
        (named,) = levels[levels["p_without"] >= 0.05].to_dict("records")
        without = words.effect(named["without"], columns.POINTS)
        assert f"{named['level']} (without it {without} points, p " in result.why


def test_an_equality_of_a_mean_names_every_level_that_is_not_shown_to_be_equal(ten_seeds, tmp_path):
    fractions = sorted(ten_seeds["data.foreground"].unique())
    gap = ten_seeds["data.foreground"].map(dict(zip(fractions, (0.0103, -0.004, 0.009, -0.012), strict=True)))
    noise = np.random.default_rng(0).normal(0, 1e-4, len(ten_seeds))
    cells = ten_seeds.assign(**{"dice@0.5": 0.5 + gap * (ten_seeds["loss"] == "dice") + noise})
    for expect, verdict in (('"equal"', "supported"), ('"greater"', "equivalent")):
        result = judged(cells, tmp_path, expect=expect, margin=0.01)
        assert result.verdict == verdict
        outside = result.why.partition("Not shown on its own: ")[2]
        # In the unit of the row, with its digits.
        assert "foreground=0.002) (+1.0 points [+1.0, +1.0])" in outside
        assert "foreground=0.2) (−1.2 points [−1.2, −1.2])" in outside
        assert "foreground=0.01)" not in outside and "foreground=0.05)" not in outside
    equal = judged(cells, tmp_path, expect='"equal"', margin=0.02)
    assert equal.verdict == "supported" and "on its own" not in equal.why


def test_seeds_that_are_planned_and_not_trained_are_counted_whatever_the_verdict(ten_seeds, tmp_path):
    parts = PLANNED.assign(seeds=json.dumps(list(range(12))))
    cells = ten_seeds.assign(parts="ladder")
    both = {"part": '"ladder"', "parts": parts}
    result = judged(cells, tmp_path, **both)
    assert result.verdict == "supported" and result.why.endswith("So far 10 of 12 planned seeds")
    text = CLAIM + 'part = "ladder"\n' + another(2) + 'part = "ladder"\nrole = "exploratory"\n'
    beside = evaluated(cells, text, tmp_path, parts=parts).results[1]
    assert beside.verdict == "exploratory" and beside.why == "So far 10 of 12 planned seeds"
    less = cells[(cells["loss"] != "ce") | (cells["seed"] < 9)]
    ten = {**both, "parts": PLANNED.assign(seeds=json.dumps(list(range(10))))}
    assert judged(less, tmp_path, **ten).why.endswith("So far 9 of 10 planned seeds")
    assert "planned" not in judged(cells, tmp_path, **ten).why
    # A value that no further training brings is told as an incomplete seed.
    gone = cells.assign(**{"dice@0.5": cells["dice@0.5"].mask(cells["seed"] == 3)})
    found = judged(gone, tmp_path, **ten)
    assert found.measured.n_seeds == 9 and "planned" not in found.why


def test_data_sets_that_count_as_learnt_for_want_of_a_reference_are_named(ten_seeds, tmp_path):
    rare = ten_seeds["data.foreground"] == 0.002
    labels = ten_seeds["data_label"].where(~rare, "roads, steps 2400")
    cells = ten_seeds.assign(unlearnt=False, unmeasured=rare, data_label=labels)
    says = "No reference says how much of roads can be learnt; taken as learnt"
    assert judged(cells, tmp_path).why.endswith(says)
    assert "reference" not in judged(cells, tmp_path, length='"shortest"').why
    assert "reference" not in judged(cells.assign(unmeasured=False), tmp_path).why


def test_a_mean_over_levels_is_shown_with_its_levels(ten_seeds, tmp_path):
    levels = verdicts.level_table([evaluated(ten_seeds, CLAIM, tmp_path)])
    assert sorted(levels["level"]) == sorted(ten_seeds["data_label"].unique())
    whole = judged(ten_seeds, tmp_path).measured.evidence.estimate
    assert levels["estimate"].mean() == pytest.approx(whole) and levels["p_without"].notna().all()


def test_a_comparison_that_had_not_converged_is_worded_as_one_of_speed(ten_seeds, tmp_path):
    better = ten_seeds["dice@0.5"] + 0.02 * (ten_seeds["loss"] == "ce")
    longer = ten_seeds.assign(**{"recipe.steps": 240, "dice@0.5": better}, recipe="long", parts="long")
    both = pd.concat([ten_seeds, longer], ignore_index=True)
    result = judged(both, tmp_path, part='"ladder"')
    assert "Not converged: ce on scenes(foreground=0.002) (+2.0 points with 4 times the steps)" in result.why
    assert result.why.endswith("so this says which learns sooner") and "dice on" not in result.why
    last = judged(both, tmp_path, part='"long"').why
    assert "onverged" not in last and "dice on" not in last
    assert (
        "The last step up in length still changed ce on scenes(foreground=0.002) (+2.0 points from 60 to"
        in last
    )
    assert last.endswith("; and 2 more") and "still changed" not in result.why


@pytest.mark.parametrize(("column", "change", "told"), [
    ("ece_fg", 0.011, True), ("ece_fg", 0.009, False),
    ("size_clipped_hard@0.5", 0.06, True), ("size_clipped_hard@0.5", 0.04, False),
])  # fmt: skip
def test_calibration_near_objects_and_region_size_have_a_smallest_change_of_interest(
    ten_seeds, tmp_path, column, change, told
):
    draw = np.random.default_rng(0).normal(0.5, 0.01, len(ten_seeds)) + (ten_seeds["loss"] == "dice")
    short = ten_seeds.assign(**{column: draw}, parts="short")
    longer = short.assign(
        **{column: draw + change, "recipe.steps": 240}, recipe="long", parts="long", key=short["key"] + "l"
    )
    both = pd.concat([short, longer], ignore_index=True)
    why = {
        part: judged(both, tmp_path, value=f'"{column}"', part=f'"{part}"').why for part in ("short", "long")
    }
    assert ("Not converged" in why["short"]) == ("still changed" in why["long"]) == told


def by_group(cells, leads):
    """Return scores by test group of cells, in each of which Dice leads by one of ``leads``."""
    rows = []
    for cell in cells.itertuples():
        for group, lead in enumerate(leads):
            score = 0.5 + lead * (cell.loss == "dice")
            row = {"key": cell.key, "group": str(group), "class": "a", "dice@0.5": score, "n dice@0.5": 1}
            rows.append(row)
    return ByGroup(pd.DataFrame(rows))


def one_set(ten_seeds, lead=None):
    """Return the cells of one data set; with a ``lead``, Dice is ahead by it on every seed."""
    one = ten_seeds[ten_seeds["data.foreground"] == 0.01]
    if lead is None:
        return one
    noise = np.random.default_rng(0).normal(0, 1e-4, len(one))
    return one.assign(**{"dice@0.5": 0.5 + lead * (one["loss"] == "dice") + noise})


def test_a_verdict_on_one_real_set_needs_other_trainings_and_other_images(ten_seeds, tmp_path):
    one = one_set(ten_seeds)
    # Dice is ahead on four groups and behind on four others.
    result = judged(one, tmp_path, by_group=by_group(one, 4 * (0.3, -0.2)))
    assert result.verdict == "inconclusive" and "but not for other test images" in result.why
    assert judged(one, tmp_path).verdict == "supported"


@pytest.mark.parametrize(
    ("lead", "leads", "changes", "verdict"),
    [
        (0.2, 8 * (0.2,), {}, "supported"),
        (0.2, 7 * (0.2,), {}, "fewer than 8 test groups"),
        (0.2, 8 * (0.2,), {"absolute": "true"}, "the absolute value of a mean is no mean over images"),
        (0.2, 7 * (0.2,), {"value": '"steps_to_half"'}, "supported"),  # no score of test images
        (0.001, 8 * (0.001,), {"expect": '"equal"'}, "supported"),
        (0.001, 4 * (0.3, -0.3), {"expect": '"equal"'}, "not for other test images"),
        (0.001, 4 * (0.3, -0.3), {}, "not for other test images"),
        (0.001, 7 * (0.001,), {"expect": '"equal"'}, "fewer than 8 test groups"),
        (0.2, 8 * (0.2,), {"expect": '"equal"'}, "contradicted"),
        (0.2, 4 * (0.5, -0.1), {"expect": '"equal"'}, "not for other test images"),
        (0.001, 4 * (0.3, -0.3), {"expect": '"equal"', "shape": '"each"'}, "not for other test images"),
        (0.001, 7 * (0.001,), {"expect": '"equal"', "shape": '"each"'}, "fewer than 8 test groups"),
    ],
)
def test_whatever_is_said_of_one_real_set_must_hold_for_other_test_images(
    ten_seeds, tmp_path, lead, leads, changes, verdict
):
    one = one_set(ten_seeds, lead)
    one = one.assign(steps_to_half=100 * one["dice@0.5"])
    result = judged(one, tmp_path, by_group=by_group(one, leads), **changes)
    if verdict in verdicts.VERDICTS:
        assert result.verdict == verdict
    else:
        assert result.verdict == "inconclusive" and verdict in result.why


def test_equality_that_is_lost_by_the_adjustment_does_not_hide_a_difference_that_is_not(ten_seeds, tmp_path):
    evidence = judged(ten_seeds, tmp_path).measured.evidence
    margin = evidence.interval(0.96)[1] + 1e-9  # within it with p .02, and different with p .002
    assert 0.05 / 6 < evidence.equal(margin) < 0.05
    own = judged(ten_seeds, tmp_path, margin=margin)
    assert own.verdict == "equivalent"
    text = CLAIM.replace("margin = 0.005", f"margin = {margin}")
    text += "".join(another(number).replace('"dice"', '"nowhere"') for number in range(2, 7))
    result = evaluated(ten_seeds, text, tmp_path).results[0]
    assert result.verdict == "supported" and result.says == "differs" and result.p == 2 / 2**10
    assert result.p_adjusted == pytest.approx(6 * 2 / 2**10)


def test_of_a_test_of_equality_the_detectable_effect_is_a_margin(ten_seeds, tmp_path):
    equal = judged(ten_seeds, tmp_path, expect='"equal"', margin=0.5)
    assert equal.mde == pytest.approx(flips.equal_within(10) * equal.measured.sd)
    each = judged(ten_seeds, tmp_path, expect='"equal"', margin=0.5, shape='"each"')
    # Each of four levels may be missed in a twentieth of the studies.
    spread = max(own.sd for own in each.measured.evidence.single)
    assert each.mde == pytest.approx(flips.equal_within(10, 1, 0.95) * spread)


def test_holm_counts_every_declared_test_of_a_family_also_those_without_cells(ten_seeds, tmp_path):
    verdict = evaluated(ten_seeds, CLAIM + another(2).replace('"dice"', '"nowhere"'), tmp_path)
    assert verdict.results[0].p_adjusted == pytest.approx(2 * verdict.results[0].p)
    assert verdict.verdict == "not testable"


def test_what_is_exploratory_has_effect_and_interval_and_no_verdict(ten_seeds, tmp_path):
    verdict = evaluated(ten_seeds, CLAIM + another(2) + 'role = "exploratory"\n', tmp_path)
    assert [r.verdict for r in verdict.results] == ["supported", "exploratory"]
    row = verdicts.verdict_table([verdict]).iloc[1]
    assert row["low"] > 0 and np.isnan(row["p_adjusted"])


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "contradicted", "not testable"], "contradicted"),
        (["supported", "not testable", "inconclusive"], "not testable"),
        (["supported", "equivalent", "inconclusive"], "equivalent"),
        (["supported", "inconclusive"], "inconclusive"),
    ],
)
def test_a_claim_stands_or_falls_with_its_primary_tests(parts, whole):
    assert verdicts._combine(parts) == whole


def test_the_verdict_table_holds_every_test_with_its_numbers(ten_seeds, tmp_path):
    row = verdicts.verdict_table([evaluated(ten_seeds, CLAIM, tmp_path)]).set_index("test").loc["X.1"]
    assert (row["n_seeds"], row["n_variants"], row["n_sets"], row["verdict"]) == (10, 4, 1, "supported")
    assert row["mde"] < row["estimate"] and row["smallest_p"] == 2 / 2**10


def test_no_collapse_in_ten_seeds_does_not_show_that_collapses_are_equally_rare(ten_seeds, tmp_path):
    cells = ten_seeds.assign(collapsed=0.0)
    result = judged(cells, tmp_path, value='"collapsed"', margin=0.05)
    assert result.verdict == "inconclusive" and np.isnan(result.mde)
    assert result.measured.evidence.interval() == pytest.approx((-0.308, 0.308), abs=1e-3)
    hopeless = judged(cells, tmp_path, value='"collapsed"', margin=0.05, expect='"equal"')
    assert hopeless.verdict == "not testable" and "no outcome of 10 seeds" in hopeless.why
    assert hopeless.command == "lossbench sweep quick --seeds 59"
    shown = judged(cells, tmp_path, value='"collapsed"', margin=0.4, expect='"equal"')
    assert shown.verdict == "supported" and shown.p == pytest.approx(0.6**10)


def test_collapses_on_every_level_count_a_seed_once(ten_seeds, tmp_path):
    gone = (ten_seeds["loss"] == "dice") & (ten_seeds["seed"] < 8)
    result = judged(ten_seeds.assign(collapsed=gone.astype(float)), tmp_path, value='"collapsed"')
    assert result.verdict == "supported" and result.p == 2 / 2**8
