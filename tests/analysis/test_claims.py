"""A claims file is read strictly: every mistake gets one sentence, and what a test estimates another."""

import pytest

from lossbench.analysis import claims
from lossbench.base.errors import UserError
from small_claim import CLAIM


def read(tmp_path, text):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    return claims.read_claims(path)


def test_the_shipped_claims_are_read_and_carry_a_digest():
    shipped = claims.read_claims()
    # The naive reading of C2 has a number of its own.
    assert [c.id for c in shipped.claims if c.id != "C2b"] == [f"C{n}" for n in range(1, 22)]
    assert len(shipped.digest) == 12
    for claim in shipped.claims:
        assert claim.source and claim.prediction and any(t.role == "primary" for t in claim.tests)
        for paper in claim.papers:
            assert paper.link.startswith(("https://doi.org/10.", "https://arxiv.org/abs/"))


def test_no_two_tests_of_a_claim_ask_the_same():
    for claim in claims.read_claims().claims:
        estimands = [(test.estimand, test.expect) for test in claim.tests]
        assert len(set(estimands)) == len(estimands), claim.id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("margin = 0.005", "margni = 0.005", "test X.1: unknown key 'margni'; did you mean 'margin'"),
        ('title = "t"', 'titel = "t"', "claim X: unknown key 'titel'; did you mean 'title'"),
        (
            'expect = "greater"',
            'expect = "bigger"',
            "expect must be 'greater', 'less' or 'equal', not 'bigger'",
        ),
        ("margin = 0.005", "margin = 0", "margin = 0 is not possible: input should be greater than 0"),
        ('says = "says"', "", "the key 'says' is missing"),
        ('id = "X.1"', 'id = "X"', "the id 'X' stands twice"),
        ("margin = 0.005", 'margin = 0.005\nrole = "beside"', "no primary test"),
        ("margin = 0.005", 'margin = 0.005\nshape = "each"', "shape 'each' goes with expect 'equal' only"),
        (
            "margin = 0.005",
            "margin = 0.005\nforeground = [0.2, 0.1]",
            "foreground must be .smallest, largest.",
        ),
        ("[[claim]]", "[[claim]", r"claims\.toml"),
        ("margin = 0.005", 'margin = 0.005\nshape = "sum"', "shape must be 'mean', 'slope'"),
        ("margin = 0.005", "margin = 0.005\npart = 3", "part = 3 is not possible"),
        ("margin = 0.005", 'margin = 0.005\nwhere = "rim"', "where = 'rim' is not possible"),
        ("margin = 0.005", 'margin = 0.005\nwhere = { "data.rim" = [1, 0] }', "where .*data.rim.*1, 0"),
        ("margin = 0.005", 'margin = 0.005\ntuned = "yes"', "tuned = 'yes' is not possible"),
        ("margin = 0.005", 'margin = 0.005\nnull = "0"', "null = '0' is not possible"),
        ("margin = 0.005", 'margin = 0.005\ndose = "data.rim"', "'dose' goes with shape 'slope' only"),
        ("margin = 0.005", 'margin = 0.005\nwith = "nll"', "'with' goes with shape 'agreement' only"),
        ("margin = 0.005", 'margin = 0.005\namong = ["ce", "x"]', "'among' goes with shape 'trend' or"),
        ("margin = 0.005", 'margin = 0.005\nshape = "agreement"\nwith = "nll"', "is about all losses"),
        ("margin = 0.005", 'margin = 0.005\nshape = "agreement"', "needs the key 'with'"),
        ("margin = 0.005", 'margin = 0.005\nshape = "regret"', "needs the key 'among'"),
        (
            "margin = 0.005",
            'margin = 0.005\nshape = "regret"\namong = ["ce", "focal"]',
            "of 'dice' is not one of the losses of among",
        ),
        ("margin = 0.005", 'margin = 0.005\nshape = "slope"\nnull = 1', "a slope is tested against zero"),
        ('of = "dice"', 'of = ["dice"]', r"of = \['dice'\] is not possible"),
        ('of = "dice"', 'of = "any"', "of = 'any' goes with shape"),
        ('value = "dice@0.5"', 'value = { "dice@0.5" = "one" }', "value = .* is not possible"),
        ('expect = "greater"', 'expect = "equal"\nnull = 0.1', "expect 'equal' is to zero"),
        ("margin = 0.005", "margin = 0.005\nminus = { tims = 2 }", "unknown key 'tims'"),
        ("margin = 0.005", 'margin = 0.005\nlength = "long"', "length must be 'longest' or 'shortest'"),
    ],
)
def test_a_bad_claims_file_gets_one_sentence(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path, CLAIM.replace(old, new))
    assert "\n" not in str(raised.value) or "[[claim]" in new


def test_what_is_taken_off_stands_in_the_estimand(tmp_path):
    added = """
where = { "recipe.head" = "prior" }
length = "shortest"
minus = { times = 0.2, where = { "recipe.head" = "default" } }
"""
    (claim,) = read(tmp_path, CLAIM + added).claims
    assert claim.tests[0].estimand == (
        "dice@0.5 of dice minus ce; mean; all data sets, shortest training, head prior; "
        "minus 0.2 times the same with head default"
    )


def test_files_of_protocol_1_call_what_is_exploratory_beside(tmp_path):
    second = CLAIM[CLAIM.index("[[claim.test]]") :].replace("X.1", "X.2") + 'role = "beside"\n'
    (claim,) = read(tmp_path, CLAIM + second).claims
    assert [test.role for test in claim.tests] == ["primary", "exploratory"]


def test_every_slope_says_what_it_is_counted_per():
    for claim in claims.read_claims().claims:
        for test in claim.tests:
            assert bool(claims.per(test)) == (test.shape in ("slope", "trend"))
