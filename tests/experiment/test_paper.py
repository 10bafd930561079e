"""The study as it is planned: seeds that were never trained, and claims that its cells can decide."""

import shutil
from pathlib import Path

import pytest

from lossbench.analysis.claims import read_claims
from lossbench.analysis.power import power
from lossbench.experiment import rates
from lossbench.experiment.reading import read_experiment
from lossbench.tables.compact import planned

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the experiment, at made-up rates: what tuning chooses changes neither cells nor claims."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(EXPERIMENTS / "paper.toml", folder)
    losses = [
        rates.Chosen(
            loss=loss, head=head, learning_rate=0.005, edge=False, tried=[], mean_rank=[], mean_score=[]
        )
        for loss in ("ce", "dice")
        for head in ("default", "prior")
    ]
    made_up = rates.Rates(shared=0.005, search={}, nearest=rates.NEAREST, chosen=losses)
    rates.write(folder / "rates.chosen.toml", made_up)
    return read_experiment(folder / "paper.toml")


@pytest.fixture(scope="module")
def reach(study):
    facts = [{**cell.to_json(), "parts": ",".join(cell.parts)} for cell in study.cells()]
    return power(read_claims().claims, planned(facts))


def test_its_seeds_are_kept_for_it_and_each_part_has_eight(study):
    assert set(study.seeds) == set(range(100, 110))
    assert min(len(part.seeds) for part in study.parts) >= 8


def test_the_shared_rate_is_no_part_of_a_label(study):
    labels = {variant.label for variant in study.datasets}
    assert "scenes 0.2 %, head default, steps 200" in labels
    assert not any("learning_rate 0.005" in label for label in labels)


def test_no_primary_test_is_planned_that_could_show_nothing(reach):
    assert [own.test.id for own in reach if own.hopeless] == []
    of_scenes = [own for own in reach if not {"public", "public_l1", "sampling"} & set(own.test.part)]
    assert len(of_scenes) > 40 and [own.test.id for own in of_scenes if own.problem] == []


@pytest.mark.realdata
def test_every_primary_test_has_its_cells_where_the_public_sets_are_at_hand(study, reach):
    assert study.skipped == () and [own.test.id for own in reach if own.problem] == []
    assert {own.n_sets for own in reach if "public" in own.test.part and not own.test.data} >= {10}
