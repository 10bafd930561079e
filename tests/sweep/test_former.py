"""Records of protocol 1 count although the fingerprints of their losses were narrowed since."""

import json
from pathlib import Path

import pytest

from lossbench.base.protocol import PROTOCOL
from lossbench.catalogue import registry
from lossbench.experiment.reading import read_experiment
from lossbench.store.store import Store
from lossbench.sweep import plan

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "record_v1.json").read_text())
pytestmark = pytest.mark.skipif(PROTOCOL != 1, reason="protocol 2 trains everything anew")


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "one.toml"
    path.write_text('name = "one"\nseeds = 1\nlosses = ["0.5*ce + 0.5*dice"]\ndatasets = ["scenes"]\n')
    return read_experiment(path)


def record(folder, cell, fingerprint):
    Store(folder).write({**GOLDEN, "key": cell.key, "loss_fingerprint": fingerprint})


def test_the_marks_of_protocol_1_are_those_that_its_records_hold():
    # as in the note of results/paper
    assert [registry.parse_loss(name).former for name in ("ce", "wce(power=0.5)")] == ["9cefd038", "8cb81278"]


def test_a_record_under_the_former_fingerprint_is_done_and_planned_under_it(experiment, tmp_path):
    (cell,) = experiment.cells()
    record(tmp_path, cell, cell.loss.former)
    planned = plan.plan(experiment, tmp_path)
    assert planned.counts() == {"done": 1}
    assert planned.cells[0].loss.fingerprint == cell.loss.former != cell.loss.fingerprint


def test_a_loss_that_was_changed_since_has_no_former_fingerprint(experiment, tmp_path, monkeypatch):
    (cell,) = experiment.cells()
    record(tmp_path, cell, cell.loss.former)
    monkeypatch.setattr(registry, "_former", dict)  # as after an edit: today's mark is not in the list
    changed = read_experiment(experiment.file)
    assert plan.plan(changed, tmp_path).counts() == {"stale": 1}


def test_a_new_record_goes_before_a_former_one(experiment, tmp_path):
    (cell,) = experiment.cells()
    record(tmp_path, cell, cell.loss.fingerprint)
    assert plan.plan(experiment, tmp_path).cells[0].loss.fingerprint == cell.loss.fingerprint
