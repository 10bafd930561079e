"""Claims are read strictly, and a verdict follows from the cells by rules that can be checked one by one."""

import pandas as pd
import pytest

from lossbench.analysis import claims, verdicts
from lossbench.base.errors import UserError

CLAIM = """
[[claim]]
id = "X"
title = "t"
statement = "s"
source = "o"
family = "f"
experiment = "quick"
[[claim.test]]
id = "X.1"
says = "says"
value = "dice@0.5"
of = "dice"
against = "ce"
expect = "greater"
margin = 0.005
"""


def read(tmp_path, text):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    return claims.read_claims(path)


PLANNED = pd.DataFrame(
    [{"experiment": "quick", "part": "ladder", "losses": '["ce", "dice"]', "seeds": "[0, 1, 2, 3]"}]
)


def judged(cells, *, claim=CLAIM, tmp_path, parts=PLANNED, **changes):
    text = claim
    for key, value in changes.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
        text = "\n".join([*lines, f"{key} = {value}"])
    (verdict,) = verdicts.evaluate(read(tmp_path, text).claims, cells, parts)
    return verdict.results[0]


def test_the_shipped_claims_are_read_and_carry_a_digest():
    shipped = claims.read_claims()
    assert [c.id for c in shipped.claims] == [f"C{n}" for n in range(1, 17)]
    assert sum(len(c.tests) for c in shipped.claims) == 93
    assert len(shipped.digest) == 12
    for claim in shipped.claims:
        assert claim.source and any(t.role == "primary" for t in claim.tests)


def test_no_two_tests_of_a_claim_ask_the_same():
    for claim in claims.read_claims().claims:
        estimands = [test.estimand for test in claim.tests]
        assert len(set(estimands)) == len(estimands), claim.id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("margin = 0.005", "margni = 0.005", "unknown key 'margni'; did you mean 'margin'"),
        ('expect = "greater"', 'expect = "bigger"', "expect 'bigger'"),
        ("margin = 0.005", "margin = 0", "margin must be a number above 0"),
        ('says = "says"', "", "the key 'says' is missing"),
        ('id = "X.1"', 'id = "X"', "the id 'X' stands twice"),
        ("margin = 0.005", 'margin = 0.005\nrole = "beside"', "no primary test"),
        ("margin = 0.005", 'margin = 0.005\nshape = "each"', "shape 'each' goes with expect 'equal' only"),
        ("margin = 0.005", "margin = 0.005\nforeground = [0.2, 0.1]", "foreground must be"),
        ("[[claim]]", "[[claim]", r"claims\.toml"),
        ("margin = 0.005", 'margin = 0.005\nshape = "sum"', "shape 'sum'; "),
        ("margin = 0.005", "margin = 0.005\npart = 3", "part must be a list of names, not 3"),
        ("margin = 0.005", 'margin = 0.005\nwhere = "rim"', "where must be a table of columns"),
        (
            "margin = 0.005",
            'margin = 0.005\nwhere = { "data.rim" = [1, 0] }',
            r"'data.rim' must be a value or \[smallest, largest\], not \[1, 0\]",
        ),
        ("margin = 0.005", 'margin = 0.005\ntuned = "yes"', "tuned must be true or false"),
        ("margin = 0.005", 'margin = 0.005\nnull = "0"', "null must be a number"),
        (
            "margin = 0.005",
            'margin = 0.005\ndose = "data.rim"',
            "the key 'dose' goes with shape 'slope' only",
        ),
        (
            "margin = 0.005",
            'margin = 0.005\nwith = "iou@0.5"',
            "the key 'with' goes with shape 'agreement' only",
        ),
        (
            "margin = 0.005",
            'margin = 0.005\namong = ["ce", "dice"]',
            "the key 'among' goes with shape 'regret' only",
        ),
        ("margin = 0.005", 'margin = 0.005\nshape = "agreement"', "is about all losses"),
        ("margin = 0.005", 'margin = 0.005\nshape = "regret"', "needs the key 'among'"),
        (
            "margin = 0.005",
            'margin = 0.005\nshape = "regret"\namong = ["ce", "focal"]',
            "of 'dice' is not one of the losses of among",
        ),
        ("margin = 0.005", 'margin = 0.005\nshape = "slope"\nnull = 1', "a slope is tested against zero"),
        ('of = "dice"', 'of = ["dice"]', "of must be a loss or a list of two or more losses"),
        ('of = "dice"', 'of = "any"', "of = 'any' goes with shape"),
        (
            'value = "dice@0.5"',
            'value = { "dice@0.5" = "one" }',
            "value must be a column or columns with weights",
        ),
        ('expect = "greater"', 'expect = "equal"\nnull = 0.1', "expect 'equal' is to zero"),
    ],
)
def test_a_bad_claims_file_gets_one_sentence(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, CLAIM.replace(old, new))


def test_a_clear_difference_in_the_claimed_direction_supports(cells, tmp_path):
    result = judged(cells, tmp_path=tmp_path)
    assert result.verdict == "supported" and result.p == pytest.approx(result.p_adjusted)
    assert result.effect.low > 0


def test_the_same_difference_contradicts_the_opposite_claim(cells, tmp_path):
    assert judged(cells, tmp_path=tmp_path, expect='"less"').verdict == "contradicted"


def test_a_difference_smaller_than_what_matters_is_equivalent_whatever_its_sign(cells, tmp_path):
    assert judged(cells, tmp_path=tmp_path, margin=0.5).verdict == "equivalent"


def test_a_difference_that_the_blocks_do_not_show_is_inconclusive_not_refuted(cells, tmp_path):
    some = cells[cells["data.foreground"] == 0.2]
    more = pd.concat([some.assign(block=some["block"] + str(i), key=some["key"] + str(i)) for i in range(2)])
    assert judged(more, tmp_path=tmp_path).verdict == "inconclusive"


def test_blocks_that_agree_but_for_one_far_away_are_inconclusive(cells, tmp_path):
    assert judged(cells, tmp_path=tmp_path, of='"focal"', expect='"less"').verdict == "inconclusive"


def test_so_few_blocks_that_no_outcome_could_decide_are_not_testable_and_the_command_says_how_many_are_needed(
    cells, tmp_path
):
    result = judged(cells[(cells["data.foreground"] == 0.01)], tmp_path=tmp_path)
    assert result.verdict == "not testable"
    assert result.command == "lossbench sweep quick --seeds 6"


def test_missing_cells_are_named_with_the_command_that_trains_them(cells, tmp_path):
    result = judged(cells, tmp_path=tmp_path, of='"tversky(fp_weight=0.3)"')
    assert result.verdict == "not testable"
    assert result.why.startswith("There are no cells of tversky(fp_weight=0.3)")
    assert result.command == "lossbench sweep quick --loss 'tversky(fp_weight=0.3)'"


def test_of_an_experiment_that_was_not_swept_here_the_command_names_the_file_alone(cells, tmp_path):
    elsewhere = {"tmp_path": tmp_path, "parts": PLANNED.assign(experiment="another")}
    assert judged(cells, of='"nowhere"', **elsewhere).command == "lossbench sweep quick"
    assert judged(cells[cells["data.foreground"] == 0.01], **elsewhere).command == "lossbench sweep quick"


def test_no_cells_at_all_make_every_claim_not_testable(cells):
    found = verdicts.evaluate(claims.read_claims().claims, cells.iloc[:0])
    assert {v.verdict for v in found} == {"not testable"}


def test_unpaired_cells_are_not_testable_and_the_reason_is_given(cells, tmp_path):
    cells.loc[cells["loss"] == "dice", "init_hash"] = "other"
    result = judged(cells, tmp_path=tmp_path)
    assert result.verdict == "not testable" and "are not paired" in result.why


def test_equality_in_every_data_set_needs_each_of_them(cells, tmp_path):
    same = {
        "value": '"log_size_ratio_soft"',
        "of": '"ce"',
        "shape": '"each"',
        "expect": '"equal"',
        "margin": 0.0488,
    }
    alone = CLAIM.replace('against = "ce"\n', "")
    assert judged(cells, claim=alone, tmp_path=tmp_path, **same).verdict == "supported"
    spoilt = cells.copy()
    spoilt.loc[spoilt["data.foreground"] == 0.002, "log_size_ratio_soft"] += 0.2
    result = judged(spoilt, claim=alone, tmp_path=tmp_path, **same)
    assert result.verdict == "contradicted" and result.where == "scenes(foreground=0.002)"
    balanced = cells.copy()  # one data set above, one below: equal on average, and that must not count
    balanced.loc[balanced["data.foreground"] == 0.002, "log_size_ratio_soft"] += 0.2
    balanced.loc[balanced["data.foreground"] == 0.2, "log_size_ratio_soft"] -= 0.2
    assert judged(balanced, claim=alone, tmp_path=tmp_path, **same).verdict == "contradicted"


def test_one_seed_can_show_nothing_equal(cells, tmp_path):
    same = {
        "value": '"log_size_ratio_soft"',
        "of": '"ce"',
        "shape": '"each"',
        "expect": '"equal"',
        "margin": 0.0488,
    }
    alone = CLAIM.replace('against = "ce"\n', "")
    assert judged(cells[cells["seed"] == 0], claim=alone, tmp_path=tmp_path, **same).verdict == "not testable"


def test_holm_counts_every_declared_test_of_a_family_also_those_without_cells(cells, tmp_path):
    second = (
        CLAIM[CLAIM.index("[[claim.test]]") :].replace("X.1", "X.2").replace('of = "dice"', 'of = "nowhere"')
    )
    (verdict,) = verdicts.evaluate(read(tmp_path, CLAIM + second).claims, cells)
    assert verdict.results[0].p_adjusted == pytest.approx(2 * verdict.results[0].p)
    assert verdict.verdict == "not testable"


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


def test_the_verdict_table_holds_every_test_with_its_numbers(cells):
    table = verdicts.verdict_table(verdicts.evaluate(claims.read_claims().claims, cells))
    assert set(table["claim"]) >= {"C2", "C3", "C9", "C10"}
    assert table.set_index("test").loc["C9.1", "n_blocks"] == 12
    assert set(table["verdict"]) <= set(verdicts.VERDICTS)


@pytest.mark.slow  # evaluates noise 120 times
def test_where_no_loss_differs_a_family_of_claims_is_decided_wrongly_in_at_most_five_percent(cells, tmp_path):
    """The whole evaluator under the null: two directional tests a family, blocks whose spread differs between
    data sets.
    """
    import numpy as np

    second = (
        CLAIM[CLAIM.index("[[claim.test]]") :]
        .replace("X.1", "X.2")
        .replace('value = "dice@0.5"', 'value = "dice@val"')
    )
    both = read(tmp_path, CLAIM + second).claims
    pair = cells[cells["loss"].isin(["ce", "dice"])].copy()
    spread = pair["data.foreground"].map({0.002: 0.1, 0.01: 0.05, 0.05: 0.02, 0.2: 0.02}).to_numpy()
    rng, runs, wrong = np.random.default_rng(0), 120, 0
    for _ in range(runs):
        for column in ("dice@0.5", "dice@val"):
            pair[column] = 0.7 + rng.normal(size=len(pair)) * spread
        (found,) = verdicts.evaluate(both, pair)
        wrong += any(r.verdict in ("supported", "contradicted") for r in found.results)
    assert wrong / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
