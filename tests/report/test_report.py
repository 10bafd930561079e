"""The report is one offline page; every number in its tables comes from a table; odd input cannot break or
inject anything.
"""

import html.parser
import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from lossbench.analysis.answers import answer
from lossbench.analysis.claims import read_claims
from lossbench.base import words
from lossbench.base.columns import FACTOR, PLAIN, POINTS
from lossbench.base.errors import UserError
from lossbench.figures.drawing import entries
from lossbench.report import drawing, loss_cards, make, summary
from lossbench.report.page import About, build
from lossbench.store import note
from lossbench.tables import stamp
from lossbench.tables.files import NOTED, write_tables

NOTE = {
    "name": "mini",
    "title": "A made-up study",
    "skipped": ["camvid is left out: not at hand"],
    "cells": [["0" * 16, "0" * 8, "", "", ""]] * 100,
}
PAPERS = {"https://doi.org", "https://arxiv.org"}

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


class Page(html.parser.HTMLParser):
    """Collects what the tests ask about: ids, links, balance of tags, text of table cells."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.open, self.cells, self.wrong, self.tags = [], [], [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[k] for k in ("href", "src", "xlink:href") if k in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def results(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_tables(tables, folder / "tables")
    note.write(folder, NOTE)
    # What an earlier report drew of other records.
    (folder / "figures").mkdir()
    for name in entries():
        (folder / "figures" / f"{name}.png").write_text("old")
    make.make(folder)
    return folder


@pytest.fixture(scope="module")
def text(results):
    return (results / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def built(tables, tmp_path, about=None):
    out = build(tables, answer(tables, read_claims()), [], tmp_path / "report.html", about)
    return out.read_text()


def test_the_page_is_well_formed_and_every_id_is_unique(page):
    assert not page.wrong and not page.open
    assert len(set(page.ids)) == len(page.ids)


def test_every_link_leads_somewhere_in_the_page_itself_or_to_a_paper(page):
    papers = {paper.link for claim in read_claims().claims for paper in claim.papers}
    papers |= set(loss_cards.PAPERS.values())
    for link in page.links:
        assert link.startswith(("#", "data:")) or link in papers, link
        if link.startswith("#"):
            assert link[1:] in page.ids, link


def test_nothing_is_loaded_from_a_network(text, page):
    addresses = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text))
    assert addresses <= {"http://www.w3.org", "https://www.w3.org", *PAPERS}  # links, followed by nobody
    assert not page.tags & {"link", "img", "iframe", "object"}
    assert "default-src 'none'" in text


def test_the_answer_comes_first_then_verdicts_and_the_evidence(text):
    places = [
        text.index(f'<section id="{name}"')
        for name in (
            "answer",
            "verdicts",
            "figures",
            "leaderboards",
            "effects",
            "collapses",
            "missing",
            "provenance",
        )
    ]
    assert places == sorted(places)
    hero = re.search(r"<b>Figure \d+\.", text)
    assert hero and hero.start() < text.index('<section id="verdicts"')
    assert "<h3>Leaderboards</h3>" in text  # one level below the heading of its group


def test_a_figure_has_one_number_on_the_page_in_its_file_and_in_the_search(text, results):
    shown = re.findall(r'<figure id="figure-(\w+)" data-find="(\d+), ', text)
    told = {file.stem: file.read_text() for file in (results / "figures").glob("*.txt")}
    assert len(shown) == len(told) > 5
    for name, number in shown:
        assert told[name].startswith(f"Figure {number}. ")
        assert f"<b>Figure {number}. " in text and f'data-find="{number}, {name}: ' in text


def test_of_few_data_sets_the_answer_comes_first_of_many_what_holds_over_all(tables, answers, tmp_path):
    for times, few in ((1, True), (2, False)):
        own = answers.recommendations * times
        page = build(tables, replace(answers, recommendations=own), [], tmp_path / "report.html").read_text()
        assert (len(own) <= 2) == few
        assert (page.index('class="own"') < page.index('aria-label="In short"')) == few
        assert page.count('<details class="own">') == (0 if few else len(own))


@pytest.mark.slow
def test_the_same_tables_give_the_same_bytes(results, text):
    make.make(results)
    assert (results / "report.html").read_text() == text


def test_every_table_that_a_report_writes_has_a_check_sum(results):
    count, found = stamp.check(results / "tables")
    # Those that the report only read were written without one.
    bare = {name.rpartition("/")[2] for name in found.unmarked}
    assert not found.damaged and "verdicts.csv" not in bare and count > len(bare)
    assert {name for name in bare if not name.endswith(".parquet")} == {"cells.csv"}


def test_it_says_what_is_missing(text):
    section = text[text.index('<section id="missing"') :]
    assert "camvid is left out: not at hand" in section
    assert "4 of 100 planned cells have no record" in section
    assert "<code>lossbench sweep paper</code>" in text


def test_a_figure_that_is_no_longer_drawn_leaves_nothing(results, text):
    gone = re.findall(r"figure (\w+) is not drawn", text)
    assert gone and not {file.stem for file in (results / "figures").iterdir()} & set(gone)
    assert not any(file.read_bytes() == b"old" for file in (results / "figures").glob("*.png"))


def test_every_derived_table_is_written_beside_the_others(results):
    names = {p.name for p in (results / "tables").glob("*.csv")}
    assert names >= {
        "cells.csv",
        "verdicts.csv",
        "effects.csv",
        "pooled.csv",
        "leaderboard.csv",
        "collapses.csv",
        "missing.csv",
        "cost.csv",
    }
    assert names >= {"profiles.csv", "stability.csv"}
    assert names >= {
        "part_effects.csv",
        "sensitivity.csv",
        "advice.csv",
        "advice_groups.csv",
        "advice_data.csv",
    }


def test_every_number_in_the_tables_of_the_page_stands_in_a_table(page, results, answers):
    told = {""}
    frames = [
        pd.read_parquet(p) for p in (results / "tables").glob("*.parquet") if p.stem in ("recipes", "origins")
    ]
    for frame in [*frames, *answers.tables.values()]:
        for column in frame:
            for value in frame[column].drop_duplicates():
                told |= ways_to_write(value)
    for claim in read_claims().claims:  # what is claimed is quoted, numbers and all
        of_papers = [f"{paper.title} {paper.year}" for paper in claim.papers]
        own = (claim.title, claim.statement, claim.source, claim.note, claim.prediction)
        for words_of_claim in (*own, *of_papers):
            told |= ways_to_write(words_of_claim)
    pattern = re.compile(r"[×<>+−]?\d*\.?\d+(?:e[−+]?\d+)?")
    unknown = {}
    for cell in page.cells:
        for number in pattern.findall(cell):
            if number.lstrip("+×") not in told:
                unknown[number] = cell
    assert not unknown


def ways_to_write(value):
    """Return every way in which the report may write a value of a table."""
    if isinstance(value, str):
        return set(re.findall(r"[×<>+−]?\d*\.?\d+(?:e[−+]?\d+)?", value)) | {
            v.lstrip("0") for v in re.findall(r"0\.\d+", value)
        }
    if isinstance(value, bool) or value is None or pd.isna(value):
        return set()
    value = float(value)
    found = {
        words.p_value(value),
        words.duration(value).split()[0],
        words.percent(value, 2).split()[0],
        f"{value:.0f}",
        str(value),
    }
    for kind in (FACTOR, POINTS, PLAIN):
        found |= {
            words.effect(value, kind),
            *re.findall(r"[+−<>]?[\d.e−+]+", words.interval(value, value, kind).replace(",", " ")),
        }
        found |= set(re.findall(r"[+−<>]?[\d.e−+]+", words.interval(value, 1.0, kind).split(",")[0]))
        found |= {words.signed(100 * value, digits) for digits in (1, 2)}
    found |= {words.number(value, digits) for digits in (1, 2, 3)}
    # Regrets, as advice writes them: of distances three digits, of sizes percent.
    found |= {f"{value:.3g}", f"{100 * math.expm1(min(value, 99)):.0f}"}
    return {text.lstrip("+×") for text in found} | {text.lstrip("+×−") for text in found}


def test_names_from_users_are_escaped(tables, tmp_path):
    evil = '<script>alert("x")</script>'
    cells = tables["cells"].copy()
    for column in ("loss_label", "data_label"):
        cells[column] = cells[column] + evil
    page = built({**tables, "cells": cells}, tmp_path, About(title=evil, skipped=(evil,)))
    assert evil not in page and "&lt;script&gt;alert" in page
    assert page.count("<script>") == 1
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL):
        assert "<" not in block and json.loads(block)


@pytest.mark.parametrize(
    "keep",
    [
        lambda c: c.index < 0,
        lambda c: c["loss"] == "dice",
        lambda c: c["seed"] == 0,
        lambda c: c["outcome"] == "collapsed",
    ],
    ids=["no cells", "one loss", "one seed", "only a collapse"],
)
def test_little_data_still_gives_a_page(keep, tables, tmp_path):
    cells = tables["cells"]
    page = Page(built({**tables, "cells": cells[keep(cells)]}, tmp_path))
    assert not page.wrong and "verdicts" in page.ids


def test_a_page_without_data_cards_promises_none(text, tables, tmp_path):
    assert "<h2>Losses</h2>" in text and "Losses and data" not in text
    card = {
        "label": "d",
        "spec": "d",
        "about": "",
        "rows": (),
        "withheld": False,
        "samples": (),
        "histograms": (),
    }
    assert "<h2>Losses and data</h2>" in built(tables, tmp_path, About(cards=(card,)))


def test_a_folder_of_before_parts_and_losses_were_noted_shows_less(tables, tmp_path):
    text = built({name: table for name, table in tables.items() if name not in NOTED}, tmp_path)
    cards = text[text.index('<section id="losses"') : text.index('<section id="provenance"')]
    assert "<dt>spec</dt><dd>dice</dd>" in cards and "<dt>formula" not in cards


def test_without_tables_it_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="lossbench sweep"):
        make.make(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tables, answers, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        build(tables, answers, [], tmp_path / "file" / "report.html")


@pytest.mark.slow
def test_tables_figures_and_report_are_made_where_torch_is_missing(results, without_torch):
    code = (
        without_torch + "from lossbench import load_table\n"
        "from lossbench.figures import drawing\n"
        "from lossbench.report import make\n"
        f"load_table({str(results)!r}); drawing.entries(); print(make.make({str(results)!r}).report)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (0.085, POINTS, "+8.5"),
        (-0.0021, POINTS, "−0.21"),
        (0.0, POINTS, "0.00"),
        (0.47, FACTOR, "×1.60"),
        (-30.0, FACTOR, "×<0.001"),
        (12.0, FACTOR, "×>999"),
        (-1.1131, PLAIN, "−1.113"),
        (float("nan"), PLAIN, "–"),
    ],
)
def test_effects_are_told_in_the_units_of_the_field(value, kind, told):
    assert words.effect(value, kind) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0004, "<.001"), (0.0125, ".013"), (0.9999, "1"), (float("nan"), "–"), (0.05, ".050")],
)
def test_p_values_are_printed_as_journals_do(value, told):
    assert words.p_value(value) == told


@pytest.mark.parametrize(("seconds", "told"), [(3.24, "3.2 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_told_in_the_unit_a_person_would_use(seconds, told):
    assert words.duration(seconds) == told


def test_who_cannot_see_a_figure_is_told_of_a_minus_and_not_of_a_hyphen():
    alt = "cross-entropy -0.5 [-1, 2], seeds 0-9, -log Dice"
    drawn = drawing.inline('<svg viewBox="0 0 1 1"></svg>', "x", alt)
    assert 'aria-label="cross-entropy −0.5 [−1, 2], seeds 0-9, -log Dice"' in drawn


def test_the_interval_glyph_puts_zero_in_the_middle_and_the_zone_around_it():
    glyph = drawing.glyph(0.1, 0.05, 0.15, 0.02, width=100)
    assert (
        glyph["zero"] == 50
        and glyph["zone"]
        < 50
        < glyph["zone"] + glyph["zone_width"]
        < glyph["low"]
        < glyph["at"]
        < glyph["high"]
        <= 100
    )
    # A ratio that is tested against one lies around one.
    assert drawing.glyph(1.1, 1.05, 1.15, 0.02, middle=1, width=100) == glyph
    assert drawing.glyph(float("nan"), 0, 0, 0.1) is None
    assert drawing.glyph(0.1, float("nan"), float("nan"), 0.1)["low"] is None


def test_the_first_screen_says_what_was_compared_what_to_do_and_how_far_to_trust_it(tables, answers):
    first = summary.opening(tables, answers, About(verified="Verified by hand"))
    assert first.compared.startswith("4 losses on 6 data set variants (")
    assert "4 seeds each: " in first.compared
    assert "the start of the last layer" in " ".join(first.trust)
    assert first.trust[-2] == "Verified by hand." and "--network" in first.trust[-1]
    # Four losses are six pairs: 6 * 2 / 2^8 = .047.
    few = "With fewer than 8 seeds p, adjusted over all pairs of losses, cannot fall below .05, so that no "
    few += "difference can be shown: all losses have"
    assert any(text.startswith(f"{few} so few on 6 of 6 settings (") for text in first.trust)
    assert any("`lossbench verify --cell KEY`" in text for text in first.trust)


def test_the_first_screen_counts_who_is_ahead_by_more_than_a_point(tables):
    table = pd.DataFrame(
        {"contrast": summary.MAIN, "estimate": [0.5, 0.02, 0.02, 0.0, 0.0, 0.0, 0.009, -0.3]}
    )
    says = summary._spread(table)
    assert "under 8 combinations" in says and "ahead in 38 %" in says
    assert "behind in 12 %" in says and "within a point in 50 %" in says
    assert summary._spread(table.head(7)) == ""


def test_without_cells_the_first_screen_says_so(tables, answers):
    empty = {**tables, "cells": tables["cells"].iloc[:0]}
    first = summary.opening(empty, answers, About())
    assert first.compared == "No training is recorded here yet." and not first.advice
