"""Records are verified by training again, and joined without changing any."""

import json
import shutil

import pytest

from lossbench.base.errors import UserError
from lossbench.engine.tasks import EngineOptions
from lossbench.experiment.reading import read_experiment
from lossbench.store.record import encode
from lossbench.store.store import Store
from lossbench.sweep import plan, run, verify
from tiny import TINY

pytestmark = pytest.mark.system

TEXT = TINY.replace("steps = 4", "steps = 3")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    from lossbench.store import provenance

    folder = tmp_path_factory.mktemp("verify")
    (folder / "tiny.toml").write_text(TEXT)
    planned = plan.plan(read_experiment(folder / "tiny.toml"), folder / "results")
    run.run(
        planned,
        planned.missing,
        folder / "results",
        EngineOptions(serial=True),
        provenance=provenance.collect(results=folder),
        mode="quiet",
    )
    return folder / "results"


def test_records_made_here_are_repeated_bit_for_bit(swept):
    certificate = verify.verify(swept, 2, 0, ())
    assert certificate["passed"] and all(row["exact"] for row in certificate["cells"])
    assert {**certificate, "check": ...} == {
        **json.loads((swept / "verified.json").read_text()),
        "check": ...,
    }
    assert certificate["says"] == "2 of 4 cells trained again: all as recorded (2 bit for bit)"


def test_one_cell_is_trained_again_by_its_key_and_is_no_sample_of_the_folder(swept, tmp_path):
    shutil.copytree(swept, tmp_path / "r")
    (tmp_path / "r" / "verified.json").unlink(missing_ok=True)
    key = next(iter((tmp_path / "r" / "cells").rglob("*.json"))).name.split(".")[0]
    certificate = verify.verify(tmp_path / "r", 3, 0, (), cell=key[:12])
    assert certificate["passed"] and [row["key"] for row in certificate["cells"]] == [key]
    assert not (tmp_path / "r" / "verified.json").exists()
    with pytest.raises(UserError, match="no cell of known data"):
        verify.verify(tmp_path / "r", 3, 0, (), cell="nothing")
    with pytest.raises(UserError, match="4 cells whose keys begin"):
        verify._named([{"key": "a1"}, {"key": "a2"}, {"key": "a3"}, {"key": "a4"}], "a", "r")


def test_a_record_with_another_number_is_found(swept, tmp_path):
    shutil.copytree(swept, tmp_path / "r")
    for path in (tmp_path / "r" / "cells").rglob("*.json"):
        record = json.loads(path.read_text())
        record["metrics"]["dice@0.5"] = 0.123
        del record["check"]  # as somebody does who knows what it is for
        path.write_bytes(
            encode(record)
        )  # as the store writes it: with a check sum that fits, so that only training again can tell
    certificate = verify.verify(tmp_path / "r", 1, 0, ())
    assert not certificate["passed"] and "metrics differ" in certificate["cells"][0]["how"]


def test_merging_adds_what_is_missing_and_changes_nothing_else(swept, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(swept, half)
    files = sorted((half / "cells").rglob("*.json"))
    for path in files[:3]:
        path.unlink()
    before = files[3].read_bytes()
    assert "3 records added, 1 were here already" in verify.merge(swept, half)
    assert files[3].read_bytes() == before and len(list(Store(half).records())) == 4
    assert [p.read_bytes() for p in files] == [
        p.read_bytes() for p in sorted((swept / "cells").rglob("*.json"))
    ]


def test_only_a_results_folder_can_be_merged_and_only_records_verified(tmp_path):
    with pytest.raises(UserError, match="not a results folder"):
        verify.merge(tmp_path, tmp_path / "r")
    with pytest.raises(UserError, match="no records"):
        verify.verify(tmp_path, 1, 0, ())
