"""The pages say what the tables say: how markers are filled, and that those of the repository are."""

import re
from pathlib import Path

import pandas as pd
import pytest

from lossbench.analysis.claims import read_claims
from lossbench.base.errors import UserError
from tools import findings

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "paper"
ROW = {
    "title": "A beats B",
    "says": "A scores higher.",
    "estimand": "dice@0.5 of a minus b; mean; all data sets",
    "n_seeds": 10,
    "n_variants": 4,
    "why": "It is so",
    "mde": 0.004,
    "margin": 0.005,
}
LARGE = {"estimand": "log_size_ratio_soft of a; mean; all data sets", "margin": 0.0488}
SLOPE = "dice@0.5 of a minus b; change per tenfold foreground; all data sets"
VERDICTS = [
    ("C1", "supported", "C1.1", "primary", "supported", 0.0851, 0.071, 0.0992, 0.03, {}),
    (
        "C1",
        "supported",
        "C1.2",
        "primary",
        "supported",
        -0.02,
        -0.03,
        -0.01,
        0.002,
        {"estimand": SLOPE, "says": "B falls."},
    ),
    (
        "C1",
        "supported",
        "C1.3",
        "exploratory",
        "exploratory",
        0.002,
        -0.001,
        0.005,
        0.4,
        {"mde": float("nan"), "where": "scenes"},
    ),
    ("C2", "contradicted", "C2.1", "primary", "inconclusive", 0.01, -0.1, 0.12, 0.9, {**LARGE, "mde": 0.3}),
    (
        "C2",
        "contradicted",
        "C2.2",
        "primary",
        "contradicted",
        -0.5,
        -0.6,
        -0.4,
        0.0004,
        {**LARGE, "says": "Too small.", "mde": 0.04},
    ),
]


@pytest.fixture
def study(tmp_path):
    """A results folder with two claims, two cells and a figure, in a checkout of its own."""
    tables, figures = tmp_path / "results" / "tables", tmp_path / "results" / "figures"
    for folder in (tables, figures, tmp_path / "docs", tmp_path / "experiments"):
        folder.mkdir(parents=True)
    names = ["claim", "claim_verdict", "test", "role", "verdict", "estimate", "low", "high", "p_adjusted"]
    rows = [{**ROW, **dict(zip(names, row, strict=False)), **row[-1]} for row in VERDICTS]
    pd.DataFrame(rows).to_csv(tables / "verdicts.csv", index=False)
    levels = [
        {"test": "C1.1", "level": name, "estimate": x} for name, x in (("rare", 0.16), ("common", 0.01))
    ]
    pd.DataFrame(levels).to_csv(tables / "levels.csv", index=False)
    pd.DataFrame({"says": ["rare: nothing is left of it"]}).to_csv(tables / "speeds.csv", index=False)
    shared = {
        "dataset": "scenes()",
        "data_label": "scenes",
        "recipe": "r",
        "loss": "ce",
        "loss_label": "ce",
        "outcome": "done",
    }
    shared |= {"commit": "abcdef0123", "cpu_seconds": 5400}
    cells = [
        {**shared, "block": str(seed), "seed": seed, "dice@0.5": value}
        for seed, value in enumerate((0.5, 0.75))
    ]
    pd.DataFrame(cells).to_parquet(tables / "cells.parquet")
    pd.DataFrame({"cpu": ["Some processor", "Some processor"]}).to_parquet(tables / "origins.parquet")
    board = {
        "dataset": "real",
        "data_label": "camvid",
        "loss_label": "ce",
        "mean": 0.7512,
        "low": 0.74,
        "high": 0.761,
    }
    pd.DataFrame([board, board | {"dataset": "scenes()", "data_label": "scenes"}]).to_csv(
        tables / "leaderboard.csv", index=False
    )
    (figures / "gap.png").write_bytes(b"")
    (figures / "gap.txt").write_text("Figure 12. The gap. Points are means.\n")
    (tmp_path / "experiments" / "published.csv").write_text(
        "data,loss,dice,source\nKvasir,ce,89.3,x\nKvasir,dice,,x\n"
    )
    return findings.Results(tmp_path / "results", tmp_path)


def test_the_trial_is_shown_over_seeds_that_every_loss_has_or_said_to_be_missing(study, monkeypatch):
    from lossbench.store import store
    from lossbench.tables import compact

    assert "lossbench sweep trial" in findings.show("trial", study)
    cell = {"data_label": "roads", "dice_all@0.5": 0.25, "dice_pooled@0.5": 0.3}
    scores = [("ce", 1, 0.5), ("dice", 1, 0.7), ("ce", 2, 0.1)]  # the second seed lacks Dice
    cells = [cell | {"loss_label": loss, "seed": seed, "dice@0.5": value} for loss, seed, value in scores]
    monkeypatch.setattr(store.Store, "records", lambda self: iter(cells))
    monkeypatch.setattr(compact, "compact", lambda records: {"cells": pd.DataFrame(records)})
    assert "| roads | 1 | .50/.25/.30 | .70/.25/.30 |" in findings.show("trial", study)


def test_only_what_stands_between_markers_is_written(study):
    before = (
        "C1 is <!-- verdict C1 -->old\nlines<!-- / -->, C2 <!-- verdict C2 --><!-- / -->; <!-- a remark "
        "--> stays"
    )
    after = (
        "C1 is <!-- verdict C1 -->supported<!-- / -->, C2 <!-- verdict C2 -->contradicted<!-- / -->; "
        "<!-- a remark --> stays"
    )
    assert findings.fill(before, study) == after
    assert findings.fill(after, study) == after
    assert findings.prose(after) == "C1 is , C2 ; <!-- a remark --> stays"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("effect C1.1", "+8.5 points [+7.1, +9.9]"),
        ("effect C1.2", "−2.0 points a decade [−3.0, −1.0]"),
        ("effect C1.3", "+0.20 points [−0.10, +0.50] (scenes)"),
        ("effect C2.2", "×0.607 [0.549, 0.670]"),
        (
            "sure C1.2",
            "adjusted p = .002, 10 seeds on 4 data set variants, minimum detectable effect 0.40, "
            "smallest of interest 0.50",
        ),
        (
            "sure C1.3",
            "p = .400, 10 seeds on 4 data set variants, minimum detectable effect –, smallest of "
            "interest 0.50",
        ),
        ("tally", "1 supported · 1 contradicted"),
        (
            "power",
            "3 of 4 primary tests have a minimum detectable effect (80 % power) no larger than the "
            "smallest effect of interest. 3 of 4 are decided",
        ),
        ("mean dice@0.5 | ce | scenes", "0.625"),
        ("share dice@0.5 | ce | scenes", "62 %"),
        ("levels C1.1", "rare +16.0; common +1.0"),
        ("lengths", "\n\n- rare: nothing is left of it.\n\n"),
        ("hours", "3.0 core-hours (Some processor)"),
        ("caption gap", "Figure 12. The gap. Points are means."),
        (
            "study",
            "2 trainings in 2 paired blocks (0 collapsed, and counted), 1 losses, 1 data set "
            "variants, 2 seeds; 3.0 core-hours; commit abcdef01",
        ),
    ],
)
def test_a_marker_shows_the_numbers_of_the_tables(study, call, text):
    assert findings.show(call, study) == text


def test_the_table_of_verdicts_shows_the_test_that_decided(study):
    lines = findings.show("verdicts", study).strip().splitlines()
    assert lines[2] == (
        "| [C1](docs/findings.md#c1) A beats B | ✓ supported | −2.0 points a decade [−3.0, −1.0] | "
        ".002 | C1.2: B falls. |"
    )
    assert lines[3] == (
        "| [C2](docs/findings.md#c2) A beats B | ✕ contradicted | ×0.607 [0.549, 0.670] | <.001 | "
        "C2.2: Too small. |"
    )


def test_the_tests_of_a_claim_mark_the_primary_ones(study):
    lines = findings.show("tests C1", study).strip().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| **C1.1**", "| **C1.2**", "| C1.3"]
    assert lines[2].endswith("| ✓ supported | +8.5 points [+7.1, +9.9] | .030 | 10 | 0.40 | 0.50 |")
    assert "| exploratory |" in lines[4]
    assert lines[6] == "- **C1.1**: It is so. Level by level: rare +16.0; common +1.0."
    assert lines[7:] == ["- **C1.2**: It is so."]


def test_published_values_stand_beside_those_of_real_images(study):
    lines = findings.show("published", study).strip().splitlines()
    assert lines == [
        "| Dice, % | ce | dice |",
        "|---|---|---|",
        "| Kvasir (published) | 89.3 | – |",
        "| camvid | 75.1 [74.0, 76.1] | – |",
    ]


def test_a_figure_is_linked_from_where_the_page_is(study):
    page = findings.Results(study.folder, study.root, "docs/findings.md")
    assert "![The gap](../results/figures/gap.png)" in findings.show("figure gap", page)
    assert "![The gap](results/figures/gap.png)" in findings.show("figure gap", study)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("effekt C1.1", "effect"),
        ("effect C9.9", "C9.9"),
        ("figure gone", "gone.png"),
        ("mean dice | ce | scenes", "dice@0.5"),
        ("mean dice@0.5", "LOSS"),
        ("verdict C2 in results/gone", "gone"),
    ],
)
def test_a_marker_that_cannot_be_filled_is_named(study, call, names):
    with pytest.raises(UserError, match=re.escape(names)):
        findings.show(call, study)


def test_the_command_writes_the_pages_and_says_which(study, monkeypatch, capsys):
    monkeypatch.chdir(study.root)
    for name in findings.FILES:
        (study.root / name).write_text("<!-- verdict C2 -->?<!-- / -->")
    findings.main(Path("results"))
    assert capsys.readouterr().out.splitlines() == [f"written  {name}" for name in findings.FILES]
    assert (study.root / "docs" / "findings.md").read_text() == "<!-- verdict C2 -->contradicted<!-- / -->"
    findings.main(Path("results"))
    assert "nothing to write" in capsys.readouterr().out


@pytest.mark.parametrize("name", findings.FILES)
def test_every_marker_of_the_repository_is_known_and_names_a_claim_or_test_that_exists(name):
    known = {}
    for folder, file in (("", STUDY / "claims.toml"), ("study", ROOT / "experiments" / "claims.toml")):
        claims = read_claims(file).claims
        known[folder] = {claim.id for claim in claims} | {test.id for claim in claims for test in claim.tests}
    asked = findings.calls((ROOT / name).read_text(encoding="utf-8"))
    assert asked
    for call in asked:
        call, _, folder = call.partition(" in results/")
        kind, _, rest = call.partition(" ")
        assert kind in findings.SHOWN, call
        if kind in ("verdict", "tests", "effect", "sure"):
            assert rest in known[folder], call


def test_every_claim_has_its_chapter_with_all_of_its_tests():
    text = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    for claim in read_claims(STUDY / "claims.toml").claims:
        assert f'<a id="{claim.id.lower()}"></a>\n\n## {claim.id}. {claim.title}\n' in text, claim.id
        assert f"<!-- tests {claim.id} -->" in text, claim.id


@pytest.mark.skipif(
    not (STUDY / "tables" / "verdicts.csv").is_file(), reason="the tables of the study are not here"
)
@pytest.mark.parametrize("name", findings.FILES)
def test_the_pages_say_what_the_committed_tables_say(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert findings.fill(text, findings.Results(STUDY, ROOT, name)) == text, "run: python -m tools.findings"


# Names of claims, tests, thresholds and settings hold digits, but are no results.
NAMES = re.compile(r"`[^`]*`|\bC\d+(\.\d+)?\b|\b(at|temperature|weight|figure|figures) \d+(\.\d+)?\b|D\*/2")


@pytest.mark.parametrize("part", ["Found.", "What to do."])
def test_no_number_in_what_was_found_is_written_by_hand(part):
    text = findings.prose((ROOT / "docs" / "findings.md").read_text(encoding="utf-8"))
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(f"**{part}**"):
            left = re.sub(NAMES, "", paragraph)
            assert not re.search(r"\d", left), f"a number that no table holds: {paragraph}"
