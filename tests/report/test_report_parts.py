"""Parts stand apart from the leaderboards; claims of other experiments are folded; the page can be used
without a mouse or eyes.
"""

import html.parser
import json
import re
from itertools import pairwise

import pandas as pd
import pytest

from lossbench.analysis.answers import answer, compared
from lossbench.analysis.claims import read_claims
from lossbench.analysis.selection import in_parts
from lossbench.base import columns, words
from lossbench.report import advice, changes, context, effects, loss_cards, page, singles, summary


@pytest.fixture(scope="module")
def text(study, derived, tmp_path_factory):
    out = tmp_path_factory.mktemp("parts") / "report.html"
    return page.build(study, derived, [], out, page.About(experiment="mini")).read_text()


class Elements(html.parser.HTMLParser):
    """Collects every element with its attributes and the elements around it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes), tuple(self.open)))
        if tag not in {
            "meta",
            "link",
            "br",
            "hr",
            "img",
            "input",
            "col",
            "path",
            "rect",
            "line",
            "circle",
            "use",
        }:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text).found


def test_cells_of_fixed_parts_stay_out_of_leaderboards_and_effects(study, derived):
    cells = study["cells"]
    own = cells[in_parts(cells, ("ladder",))]
    assert set(derived.tables["leaderboard"]["dataset"]) == set(own["dataset"])
    assert set(derived.tables["leaderboard"]["recipe"]) == set(own["recipe"])
    assert not derived.tables["effects"]["dataset"].str.contains("boundary_shift").any()
    assert len(compared(cells, ["ladder", "rates", "uncertain", "variants"])) == 0 and len(
        compared(cells, [])
    ) == len(cells)


def test_a_part_is_compared_within_itself_against_ce_or_against_dice_where_it_has_none(derived):
    table = derived.tables["part_effects"]
    assert dict(table.drop_duplicates("part")[["part", "against"]].values) == {
        "rates": "ce",
        "uncertain": "ce",
        "variants": "dice",
    }
    assert not (table["loss"] == table["against"]).any()


def test_each_fixed_part_has_a_section_with_what_it_is_for(text):
    section = text[text.index('<section id="parts"') : text.index('<section id="sensitivity"')]
    assert (
        "Each loss at three rates." in section
        and "C6: boundaries that the image does not determine." in section
    )
    assert "C1: open to all losses" not in section


def test_every_collapse_is_told_once(study, derived):
    cells = study["cells"]
    assert derived.tables["collapses"]["collapsed"].sum() == (cells["outcome"] == "collapsed").sum()


def test_a_part_that_trains_fewer_seeds_is_not_called_incomplete(study, derived):
    assert not len(derived.tables["missing"])


def test_claims_without_any_cell_are_folded_into_one_line_with_the_command(study, tmp_path):
    cells = study["cells"]
    tables = {**study, "cells": cells[cells["dataset"] == "magnetic_tile"].assign(parts="")}
    html = page.build(tables, answer(tables, read_claims()), [], tmp_path / "r.html").read_text()
    folded = re.search(
        r'<details class="elsewhere"><summary>(\d+) claims need other cells: <code>lossbench sweep '
        r"paper</code></summary>",
        html,
    )
    assert folded and int(folded[1]) >= 12
    shown = re.findall(r'<tr class="claim" id="(C\d+)">', html)
    assert len(shown) + int(folded[1]) == len(read_claims().claims)


def test_a_setting_is_compared_with_the_usual_one_and_validation_prefers_the_better_rate(derived):
    table = derived.tables["sensitivity"]
    rates = table[
        (table["axis"] == "learning rate") & (table["loss"] == "dice") & (table["metric"] == "dice@0.5")
    ].set_index("setting")
    assert list(rates.index) == ["rate 0.0015", "rate 0.005", "rate 0.015", "chosen on validation"]
    assert rates.loc["rate 0.0015", "estimate"] == pytest.approx(-0.05) and rates.loc[
        "rate 0.015", "estimate"
    ] == pytest.approx(0.02)
    assert rates.loc["rate 0.005", "usual"] and rates.loc["rate 0.015", "chosen"]
    # Both gain the same, so that the effect against CE is the same at each rate.
    assert rates["ce_estimate"].round(6).nunique() == 1
    assert set(table.loc[table["axis"] == "form of the loss", "setting"]) == {"against dice"}


def test_advice_counts_each_data_set_once_and_names_those_it_rests_on(derived):
    groups, advice = derived.tables["advice_groups"], derived.tables["advice"]
    for row in advice.to_dict("records"):
        group = groups[groups["group"] == row["group"]].iloc[0]
        assert set(row["datasets"].split("; ")) <= set(group["datasets"].split("; "))
        assert row["n_datasets"] == len(row["datasets"].split("; "))
    uncertain = groups[
        (groups["boundaries"] == "uncertain") & (groups["foreground"] == "any") & (groups["empty"] == "any")
    ]
    assert list(uncertain["n_datasets"]) == [1]
    rare = groups[(groups["foreground"] == "0.5 % or less") & (groups["boundaries"] == "uncertain")]
    assert rare["given_up"].str.startswith("boundaries").all()


def test_the_table_of_regrets_is_that_of_all_data_sets_with_the_smallest_marked():
    answers = [("any", "any", "any", 0), ("0.5 % or less", "any", "any", 1)]
    groups = pd.DataFrame(answers, columns=["foreground", "boundaries", "empty", "group"])
    rows = [
        (0, "Dice at 0.5", "ce", 0.021, "rare"),
        (0, "Dice at 0.5", "dice", 0.004, "common"),
        (0, "surface distance (HD95)", "ce", 1.5, "rare"),
        (1, "Dice at 0.5", "jaccard", 0.0, "rare"),
    ]
    start = pd.DataFrame(rows, columns=["group", "goal", "loss", "regret", "where"])
    start = start.assign(loss_label=start["loss"], n_datasets=7)
    shown = advice.regrets({"advice_groups": groups, "advice_start": start})
    assert shown["goals"] == ["Dice at 0.5, points", "surface distance (HD95)"] and shown["sets"] == 7
    texts = {row["label"]: [(cell["text"], cell["least"]) for cell in row["cells"]] for row in shown["rows"]}
    assert texts == {"ce": [("2.1", False), ("1.5", True)], "dice": [("0.4", True), ("–", False)]}
    assert not advice.regrets({"advice_groups": groups, "advice_start": start[1:0]})["rows"]


def test_advice_finds_what_was_built_in(derived):
    groups, advice = derived.tables["advice_groups"], derived.tables["advice"]
    rare = groups[
        (groups["foreground"] == "0.5 % or less")
        & (groups["boundaries"] == "as sharp as the image")  # scenes alone: two data sets show little
        & (groups["empty"] == "any")
    ]["group"].iloc[0]
    own = advice[(advice["group"] == rare) & (advice["goal"] == "Dice at 0.5")].set_index("loss")
    assert own.loc["dice", "verdict"] == "better" and own.loc["dice", "estimate"] > 0.1
    volume = advice[(advice["group"] == rare) & (advice["goal"] == "calibrated volume")].set_index("loss")
    assert (
        volume.loc["focal", "verdict"] == "worse" and volume.loc["focal", "metric"] == "|log_size_ratio_soft|"
    )


def test_numbers_of_the_decision_aid_and_of_single_cells_stand_in_tables(study, derived, text):
    blocks = {
        name: json.loads(block)
        for name, block in re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', text)
    }
    table = derived.tables["advice"]
    told = [
        row for group in blocks["advice-data"]["rows"].values() for goal in group.values() for row in goal
    ]
    assert len(told) == len(table)
    known = set()
    for row in table.to_dict("records"):
        kind = columns.form(row["metric"])
        effect = f"{words.effect(row['estimate'], kind)} {words.unit(kind)}".strip()
        known.add(
            (
                row["loss_label"],
                effect,
                words.interval(row["low"], row["high"], kind),
                row["n_seeds"],
                row["n_datasets"],
            )
        )
    assert {(row[0], row[3], row[4], row[5], row[8]) for row in told} == known
    cells = study["cells"].set_index("key")
    for row in blocks["cells-data"]["rows"]:
        assert row[4][0] == f"{cells.loc[row[7], 'dice@0.5']:.3f}" and row[2] == cells.loc[row[7], "seed"]
    assert len(blocks["cells-data"]["rows"]) == len(cells)


def test_single_cells_and_their_curves_are_left_out_of_large_studies_and_that_is_said(study, monkeypatch):
    cells, curves = study["cells"], study["curves"]
    labels = {pair: pair[0] for pair in zip(cells["dataset"], cells["recipe"], strict=True)}
    ids = singles.variants(cells, labels)
    whole = singles.data(cells, curves, ids)
    assert whole["says"] == "" and all(row[-1] for row in whole["rows"])
    monkeypatch.setattr(singles, "CURVES_UP_TO", 10)
    lighter = singles.data(cells, curves, ids)
    assert "Curves are left out" in lighter["says"] and not any(row[-1] for row in lighter["rows"])
    monkeypatch.setattr(singles, "CELLS_UP_TO", 10)
    assert (
        singles.data(cells, curves, ids)["rows"] == []
        and "tables/cells.csv" in singles.data(cells, curves, ids)["says"]
    )


def test_effects_beyond_what_a_page_can_hold_are_left_out_and_that_is_said(derived, monkeypatch):
    table = derived.tables["effects"]
    assert effects.fitting(table)[0] is table and effects.fitting(table)[1] == ""
    monkeypatch.setattr(effects, "EFFECTS_UP_TO", 20)
    kept, says = effects.fitting(table)
    assert set(kept["metric"]) <= {"dice@0.5", "dice@val"}
    assert says == f"20 of {len(table)} rows are shown, Dice only; all stand in tables/effects.csv."


def test_a_long_curve_is_thinned_and_stays_in_its_box():
    curves = pd.DataFrame({"key": ["a"] * 100, "step": range(1, 101), "val_dice": [1.2] * 100})
    points = singles._curves(curves)["a"].split()
    assert len(points) <= singles.POINTS and all(
        0 <= int(p.split(",")[0]) <= 60 and p.endswith(",0") for p in points
    )


def test_loss_cards_say_what_the_sweep_noted_of_a_loss_and_its_spec_where_it_noted_nothing(study):
    cards = {card["label"]: dict(card["facts"]) for card in loss_cards.cards(study["cells"], study["losses"])}
    assert cards["dice"] == {
        "spec": "dice",
        "formula": "1 - 2|PG|/(|P|+|G|)",
        "source": "Milletari 2016",
        "parameters": "over = 'sample'",
    }
    assert cards["ce"] == {"spec": "ce"}


def test_changes_are_told_against_the_report_before_and_stay_when_nothing_was_trained(
    study, derived, tmp_path
):
    cells = study["cells"]
    assert changes.compare(tmp_path, cells, derived) == ("This is the first report from this folder",)
    fewer = cells[cells["seed"] < 2]
    tables = {**study, "cells": fewer}
    second = answer(tables, read_claims())
    says = changes.compare(tmp_path, fewer, second)
    assert says[0] == f"{len(fewer)} cells instead of {len(cells)}"
    assert changes.compare(tmp_path, fewer, second) == says
    (tmp_path / changes.FILE).write_text("{")
    assert changes.compare(tmp_path, fewer, second) == ("This is the first report from this folder",)


def test_a_change_of_verdict_and_of_leader_is_named(tmp_path):
    old = {
        "cells": 4,
        "claims": "a",
        "verdicts": {"C1": "supported", "C2": "equivalent"},
        "leaders": {"x (r)": "ce"},
    }
    new = {
        "cells": 4,
        "claims": "b",
        "verdicts": {"C1": "contradicted", "C3": "supported"},
        "leaders": {"x (r)": "dice", "y (r)": "ce"},
    }
    says = changes.differences(old, new)
    assert (
        "C1: contradicted, was supported" in says
        and "C3 is new: supported" in says
        and "C2 is gone: was equivalent" in says
    )
    assert (
        "x (r): dice leads, was ce" in says
        and "y (r) is new: ce leads" in says
        and any("sha256 a, now b" in text for text in says)
    )
    assert changes.differences(old, old) == ["No verdict and no leader changed"]


def test_every_table_has_a_caption_and_headers_with_a_scope(elements):
    tables = [e for e in elements if e[0] == "table"]
    assert len([e for e in elements if e[0] == "caption"]) == len(tables)
    assert all("scope" in attributes for tag, attributes, _ in elements if tag == "th")


def test_every_choice_has_a_label_and_every_form_a_name(elements):
    assert all("label" in around for tag, _, around in elements if tag == "select")
    assert all("aria-label" in attributes for tag, attributes, _ in elements if tag == "form")
    assert all(
        "aria-label" in attributes
        for tag, attributes, _ in elements
        if attributes.get("role") in ("region", "img")
    )


def test_headings_never_skip_a_level_and_there_is_one_of_the_first(elements):
    levels = [int(tag[1]) for tag, _, _ in elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_focus_is_visible_and_dark_mode_follows_the_system(text):
    assert (
        ":focus-visible { outline: 2px" in text
        and "prefers-color-scheme: dark" in text
        and 'class="skip" href="#answer"' in text
    )


def test_questions_offer_what_the_table_knows():
    assert advice.QUESTIONS["boundaries"][1][0] == "any"
    assert [len(choices) for _, choices in advice.QUESTIONS.values()] == [5, 3, 4]


def test_a_ratio_that_is_tested_against_one_has_no_plus_sign():
    assert words.level(words.effect(1.019, "plain"), 1.0) == "1.019"
    assert words.level(words.interval(1.01, 1.027, "plain"), 1.0) == "[1.010, 1.027]"
    for null in (0.0, -0.5, float("nan")):
        assert words.level(words.effect(0.019, "plain"), null) == "+0.019"


def test_a_ratio_that_is_tested_against_one_is_drawn_around_one(derived):
    row = derived.tables["verdicts"].iloc[0].to_dict() | {"estimate": 1.02, "low": 1.01, "high": 1.03}
    ratio, difference = (
        context._test(row | {"null": null, "margin": 0.05}, "", [])["glyph"] for null in (1.0, 0.0)
    )
    # Within the zone that is too small to matter, and not far outside it.
    assert ratio["low"] > ratio["zero"] and ratio["high"] < ratio["zone"] + ratio["zone_width"]
    assert difference["low"] > difference["zone"] + difference["zone_width"]


def test_what_is_planned_and_not_trained_is_named_on_the_first_screen():
    cells = pd.DataFrame({"dataset": ["scenes"] * 3})
    planned = pd.DataFrame({"dataset": ["scenes", "cracks"], "dataset_name": ["scenes", "crackforest"]})
    tables, about = {"cells": cells, "datasets": planned}, context.About(planned=2000)
    says = "1,997 of 2,000 planned trainings are missing, among them all on crackforest."
    assert summary._untrained(tables, about) == says
    assert summary._untrained(tables, context.About(planned=3)) == ""
    tables["datasets"] = planned[:1]
    assert summary._untrained(tables, about) == "1,997 of 2,000 planned trainings are missing."


def test_false_alarms_are_told_of_data_that_train_on_images_without_foreground():
    cells = pd.DataFrame(
        {"dataset": ["few", "few", "some", "some"], "recipe": "r", "loss": ["ce", "dice"] * 2}
        | {"loss_label": ["ce", "dice"] * 2, "false_alarms@0.5": [0.9, 0.9, 0.0, 0.95]}
        | {"data_label": ["few", "few", "some", "some"]}
    )
    facts = pd.DataFrame({"dataset": ["few", "some"], "recipe": "r", "empty_share": [0.01, 0.3]})
    says = summary._alarms(cells, facts)
    assert says.endswith("Share of them on which a loss marks something (“some”): dice 95 %, ce 0 %.")
    assert summary._alarms(cells, facts.assign(empty_share=0.0)) == ""
    # The mean over the seeds of a loss says where most is marked, not one seed.
    one = cells.assign(
        **{"dataset": "seeds", "data_label": "seeds", "false_alarms@0.5": [1.0, 0.0, 0.0, 0.0]}
    )
    facts.loc[2] = ["seeds", "r", 0.3]
    assert "(“some”)" in summary._alarms(pd.concat([cells, one]), facts)


def test_of_the_leads_those_that_longer_training_changes_most_are_told():
    table = pd.DataFrame(
        [
            (0.1, 0.09, "a is ahead"),
            (0.02, 0.0, "near"),
            (0.03, -0.4, "b is ahead"),
            (0.3, 0.2, "c is ahead"),
        ],
        columns=["lead", "lead_longest", "says"],
    )
    assert summary._length(table) == "Train long enough before you compare: b is ahead; c is ahead."
    assert summary._length(table[1:2]).endswith(": near.") and summary._length(table[:0]) == ""


def test_data_sets_stand_from_rare_to_common(study, derived):
    page = context.gather(study, derived, [], context.About())
    cells = study["cells"]
    measured = cells.assign(n=cells["foreground_true"].astype(float)).groupby("data_label")["n"].mean()
    for rows in (page["learnt"], page["cost"]):
        shown = measured[[row["label"] for row in rows]]
        assert shown.is_monotonic_increasing and len(shown) > 5
    sets = [measured[own["label"]] for own in page["opening"].own]
    assert sets == sorted(sets)


def test_a_network_that_few_cells_have_is_varied_all_the_same():
    table = pd.DataFrame({"contrast": [summary.MAIN] * 2, "head": ["default", "prior"], "length": ["1", "2"]})
    table = table.assign(sampler="uniform", network="unet")
    cells = pd.DataFrame({"recipe.network": ["unet", "smp:Unet"]})
    assert summary._not_varied(table, cells).endswith("is not known: the sampler.")
    assert "the network" in summary._not_varied(table, cells[:1])
