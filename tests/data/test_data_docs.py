"""The page on the data says what the code and the golden statistics say."""

import json
import re
from pathlib import Path

import pytest

from lossbench.catalogue.registry import datasets
from lossbench.data.sources import SOURCES

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8").split())
GOLDEN = json.loads((Path(__file__).parent / "golden_stats.json").read_text())


@pytest.mark.parametrize("name", SOURCES)
def test_licence_citation_and_address_stand_as_in_the_sources(name):
    for fact in (SOURCES[name].licence, SOURCES[name].citation, SOURCES[name].url):
        assert " ".join(fact.split()) in PAGE


@pytest.mark.parametrize("name", SOURCES)
def test_a_published_score_has_its_source_and_says_why_ours_cannot_be_compared_or_there_is_none(name):
    published, missing = SOURCES[name].published, SOURCES[name].unpublished
    assert bool(published) != bool(missing) and missing in PAGE
    for item in published:
        assert item["source"] and (item["comparable"] or item["why"])
        assert f"{item['score']:.3f}" in PAGE


def test_every_set_has_a_section_and_every_parameter_is_mentioned():
    for name, entry in datasets().items():
        if entry.family == "user":
            continue
        assert f"## {name}" in PAGE or f"`{name}(" in PAGE
        for parameter in entry.params:
            assert re.search(rf"`?\b{parameter}\b", PAGE), (name, parameter)


def test_the_fractions_on_the_page_are_the_golden_ones():
    hippocampus, cracks = GOLDEN["msd_hippocampus"], GOLDEN["crackforest"]
    streets, targets = GOLDEN["camvid"], GOLDEN["sirst"]
    for number in (
        f"anterior ({hippocampus['pooled'][1]:.2%}".replace("%", " %"),
        f"posterior ({hippocampus['pooled'][2]:.2%}".replace("%", " %"),
        f"{hippocampus['empty_slice_frac_axis_any_ant_post'][2][0]:.1%} of the slices".replace("%", " %"),
        f"({cracks['per']['mean']:.2%} of the pixels)".replace("%", " %"),
        f"Road ({streets['train']['per']['Road']['mean']:.0%} in train)".replace("%", " %"),
        f"Bicyclist ({streets['train']['per']['Bicyclist']['mean']:.2%})".replace("%", " %"),
        f"absent in {streets['train']['per']['Bicyclist']['empty_frac']:.0%} of the training".replace(
            "%", " %"
        ),
        f"and {streets['test']['per']['Bicyclist']['empty_frac']:.0%} of the test".replace("%", " %"),
        f"median {targets['train']['obj']['50']:.0f} pixels, smallest {targets['train']['obj']['0']:.0f}",
        f"on average {targets['train']['per']['mean']:.2%} of the pixels".replace("%", " %"),
    ):
        assert number in PAGE, number


def test_the_table_of_difficulty_is_what_the_posterior_gives():
    from lossbench import get_dataset

    rows = dict(re.findall(r"\| ([\d.]+) % \|((?: [\d.]+ \|){8})", PAGE))
    for percent, noise, column in (("0.5", 1.0, 3), ("1", 1.6, 5), ("5", 3.0, 7), ("0.2", 0.6, 1)):
        data = get_dataset(
            f"scenes(foreground={float(percent) / 100}, noise={noise}, n_train=1, n_val=1, n_test=300)"
        )
        guess, label = data.posterior[data.split["test"], 1] > 0.5, data.masks[data.split["test"]] == 1
        dice = (2 * (guess & label).sum((1, 2)) / (guess.sum((1, 2)) + label.sum((1, 2)))).mean()
        assert f"{dice:.2f}" == rows[percent].split("|")[column].strip()
