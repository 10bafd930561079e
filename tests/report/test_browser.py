"""What only a browser can show: every filter, sort, link and the decision aid work, by keyboard too; skipped
where there is no Chromium.
"""

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from lossbench.analysis.claims import read_claims
from lossbench.analysis.verdicts import evaluate, level_table, verdict_table
from lossbench.base import columns
from lossbench.report.page import About, build

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)
CHECK = Path(__file__).with_name("check.js").read_text(encoding="utf-8")


def seen(page: Path, folder: Path, width: int) -> dict:
    """Return the facts that check.js collects when a browser opens the page."""
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={folder / str(width)}",
        f"--window-size={width},900",
        "--dump-dom",
        f"file://{page}#advice?empty=10+to+40+%25",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    place = re.search(r'data-facts="([^"]*)"', done.stdout)
    assert place, done.stderr[-2000:]
    return json.loads(
        place[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )


CLAIMS = """
[[claim]]
id = "M{n}"
title = "Dice {n}"
statement = "Dice scores {expect}."
source = "me"
family = "mine"
experiment = "mini"
[[claim.test]]
id = "M{n}.1"
says = "It does."
value = "dice@0.5"
of = "dice"
against = "ce"
expect = "{expect}"
margin = {margin}
part = "ladder"
"""


def judged(study, derived):
    """Return the answers with two claims that these cells speak of; a wide margin makes one of them true."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "claims.toml"
        file.write_text(
            CLAIMS.format(n=1, expect="greater", margin=0.005)
            + CLAIMS.format(n=2, expect="equal", margin=1.0)
        )
        claims = read_claims(file)
    verdicts = evaluate(claims.claims, study["cells"])
    tables = {"verdicts": verdict_table(verdicts), "levels": level_table(verdicts)}
    return replace(derived, claims=claims, verdicts=verdicts, tables={**derived.tables, **tables})


@pytest.fixture(scope="module")
def facts(study, derived, tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    page = build(study, judged(study, derived), [], folder / "report.html", About(experiment="mini"))
    watch = (
        "<script>window.failures = []; window.onerror = (m) => window.failures.push(String(m)); "
        "window.alert = (m) => failures.push(m);</script>"
    )
    text = (
        page.read_text()
        .replace("<style>", watch + "<style>", 1)
        .replace("</body>", f"<script>{CHECK}</script></body>")
    )
    (folder / "checked.html").write_text(text)
    return {width: seen(folder / "checked.html", folder, width) for width in (1200, 390)}


def test_the_scripts_run_without_an_error_and_no_name_becomes_markup(facts):
    assert facts[1200]["errors"] == []


def test_a_column_sorts_by_value_both_ways_and_says_so(facts):
    rising = [float(v) for v in facts[1200]["rising"]]
    assert rising == sorted(rising) and facts[1200]["falling"] == facts[1200]["rising"][::-1]
    assert facts[1200]["sort"] == "ascending" and facts[1200]["focused"]


def test_every_sortable_column_of_every_table_sorts_and_only_one_column_says_so(facts):
    assert facts[1200]["unsorted"] == []


def test_a_column_of_names_sorts_by_name(facts):
    assert facts[1200]["names"] == sorted(facts[1200]["names"])


def test_every_filter_of_the_effects_shows_only_the_rows_asked_for_and_counts_them(facts):
    for column, value, shown, output in facts[1200]["effects"]:
        assert shown == [value], (column, value)
        assert int(re.match(r"(\d+) of \d+ rows", output)[1]) > 0


def test_every_filter_of_the_leaderboards_shows_only_what_is_asked_for(facts):
    found = facts[1200]["boards"]
    assert found["data set"] == [["scenes(foreground=0.002)"], ["scenes(foreground=0.002)"]]
    assert found["family"] == [["overlap"], ["overlap"]]
    assert found["loss"] == [["dice"], ["dice"]]
    assert found["output"] == "24 rows on 6 of 6 settings"


def test_a_metric_alone_hides_the_other_columns_and_puts_the_best_first(facts):
    for metric, (heads, values, lower) in facts[1200]["metrics"].items():
        assert all(
            head == metric or head in ("#", "Loss", "Seeds", "Collapsed") or metric == "Dice at 0.5"
            for head in heads
        ), metric
        assert values == sorted(values, reverse=not lower), metric
    assert facts[1200]["metrics"]["HD95 at 0.5"][2] and not facts[1200]["metrics"]["Dice at 0.5"][2]
    assert facts[1200]["all metrics"] == sorted(facts[1200]["all metrics"])


def test_every_link_leads_to_something_that_is_there(facts):
    assert facts[1200]["broken"] == []


def test_following_a_loss_shows_its_cells_with_the_command_that_trains_each_again(facts, study):
    cells = study["cells"]
    for wanted, rows, caption, focused in facts[1200]["drilled"]:
        own = cells[(cells["data_label"] == wanted[0]) & (cells["loss_label"] == wanted[1])]
        assert len(own) and len(rows) == len(own) and focused
        assert {row[-1] for row in rows} == {f"lossbench verify --cell {key}" for key in own["key"]}
        assert {row[2] for row in rows} == {f"{value:.3f}" for value in own["dice@0.5"]}
        assert wanted[0] in caption and wanted[1] in caption
    assert facts[1200]["curves"] > 0


def test_cells_are_found_by_the_form_too_and_a_pair_without_cells_says_so(facts):
    assert re.fullmatch(r"8 cells of ce on .+", facts[1200]["by form"])
    assert facts[1200]["no cells"].startswith("no cell of ")


def test_the_metric_of_a_part_chooses_its_table(facts):
    assert facts[1200]["part"] == [[0], [1]]


def test_the_decision_aid_shows_the_rows_of_the_table_for_every_answer(facts, derived):
    from lossbench.base import words

    groups = {
        (g["foreground"], g["boundaries"], g["empty"]): g
        for g in derived.tables["advice_groups"].to_dict("records")
    }
    table = derived.tables["advice"]
    assert len(facts[1200]["advice"]) == 5 * 3 * 4 * 7
    for answers, goal, rows, (says, more, sets) in facts[1200]["advice"]:
        group = groups[tuple(answers)]
        assert sets.startswith(
            "No data set of this study is like that." if group["given_up"] else "Data sets"
        )
        own = table[(table["group"] == group["group"]) & (table["goal"] == goal)].sort_values("place")
        if not len(own):  # records that lack the score
            assert rows == [] and says.endswith("hold no score for this goal.")
            continue
        assert [row[:2] for row in rows] == own[["loss_label", "verdict"]].values.tolist()
        kind = columns.form(own["metric"].iloc[0])
        assert [row[2].removesuffix(" points") for row in rows] == [
            words.effect(v, kind) for v in own["estimate"]
        ]
        assert [row[3] for row in rows] == [
            words.interval(a, b, kind) for a, b in zip(own["low"], own["high"], strict=True)
        ]
        assert [int(row[4]) for row in rows] == own["n_seeds"].tolist()
        for row, rests, bad, of in zip(rows, own["datasets"], own["collapsed"], own["n_cells"], strict=True):
            assert row[7].endswith(rests) and row[6] == (f"{bad} of {of}" if bad else "0")
        assert group["datasets"] in sets
        # Too few real data sets for a mean over them: what is shown stands first.
        shown = f"{says} {more}"
        assert ("Shown to be better" in shown) == bool((own["verdict"] == "better").any())
        assert says.startswith(("Shown to be better than ce", "No loss is shown to be better than ce"))
    assert any(group["given_up"] for group in groups.values())


def test_the_answers_stand_in_the_address_and_an_address_brings_them_back(facts):
    assert facts[1200]["state"][1] == "10 to 40 %"
    name, _, answers = facts[1200]["address"].partition("?")
    wanted = {"foreground=2.5+to+10+%25", "empty=10+%25+or+less", "goal=calibrated+volume"}
    assert name == "#advice" and wanted <= set(answers.split("&"))


def test_evidence_is_folded_and_few_stops_of_the_tabulator_come_before_it(facts):
    assert facts[1200]["openings"] == [False] * 4 and facts[1200]["stops"] < 150


def test_search_finds_losses_and_data_sets_and_opens_what_it_leads_to(facts):
    hits, says = facts[1200]["search"]
    assert hits and all("dice" in hit and hit.startswith("loss: ") for hit in hits)
    assert says.startswith(f"{len(hits)} found") and facts[1200]["revealed"] == [True, True]
    assert facts[1200]["of a kind"] == ["claim: M1 Dice 1"]
    assert facts[1200]["no hit"][0] == 0 and facts[1200]["no hit"][1].startswith("0 found: nothing on")


def test_a_question_about_two_losses_finds_the_sentence_that_answers_it(facts, derived):
    table = derived.tables["pairs"].set_index(["metric", "loss_label", "against_label"])
    row = table.loc["dice@0.5", "dice_ce", "dice"]
    begin = f"pair: dice_ce minus dice: {100 * row['estimate']:+.2f} points [".replace("-", "−")
    assert any(hit.startswith(begin) for hit in facts[1200]["pair"])


def test_the_name_of_a_loss_shows_its_formula(facts):
    tips = dict(facts[1200]["tips"])
    assert tips["dice"] == "dice: 1 - 2|PG|/(|P|+|G|)"


def test_verdicts_are_filtered_and_counted(facts):
    assert [row[0] for row in facts[1200]["claims"]] == ["", "supported", "inconclusive"]
    for wanted, kinds, count, says in facts[1200]["claims"]:
        assert (not wanted and count == 2) or (kinds == [wanted] and count == 1)
        assert says == f"{count} of 2 claims"


def test_the_section_that_is_read_is_marked_in_the_navigation(facts):
    assert len(facts[1200]["here"]) == 1


def test_the_theme_switches_between_light_and_dark(facts):
    before, after, name = facts[1200]["themes"]
    assert before != after and name in ("light", "dark")


def test_hidden_parts_can_be_reached_by_keyboard(facts):
    assert facts[1200]["unlabelled"] == [] and facts[1200]["skip"] == "#answer"
    assert facts[1200]["outline"] not in ("none", "")


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_never_scrolls_sideways_as_a_whole(facts, width):
    assert facts[width]["overflow"] <= 0 and facts[width]["tooWide"] == []
