"""The committed study: its records give back its tables, its tables its verdicts byte for byte, and every
planned cell is there.
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from lossbench.base.errors import UserError
from lossbench.store import note as notes
from lossbench.tables.make import records

STUDY = Path(__file__).parents[2] / "results" / "paper"
pytestmark = pytest.mark.skipif(
    not (STUDY / "records.zip").is_file(), reason="the records of the study are not here"
)


@pytest.fixture(scope="module")
def note():
    return notes.read(STUDY)


@pytest.fixture(scope="module")
def frames(note):
    from lossbench.tables.compact import compact

    return compact(records(STUDY, note), note)


def test_every_planned_cell_has_a_record(note, frames):
    assert len(frames["cells"]) == len(note.cells)


def test_the_records_give_the_tables(frames, tmp_path):
    from lossbench.tables.files import write_tables

    # The table of images is too large to be committed.
    for path in write_tables({name: frame for name, frame in frames.items() if name != "images"}, tmp_path):
        committed = STUDY / "tables" / path.name
        if path.suffix == ".parquet":
            # Logarithms and sums differ in their last digit between kinds of processor.
            pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(committed), rtol=1e-12)
        else:
            assert path.read_bytes() == committed.read_bytes(), path.name


@pytest.mark.slow
def test_the_tables_give_the_verdicts_byte_for_byte(frames, tmp_path):
    from lossbench.analysis.claims import read_claims
    from lossbench.analysis.resampling import ByGroup
    from lossbench.analysis.verdicts import evaluate, level_table, verdict_table
    from lossbench.tables.files import write_csv

    claims = read_claims(STUDY / "claims.toml").claims
    verdicts = evaluate(claims, frames["cells"], frames["parts"], ByGroup(frames["groups"]))
    for name, table in (("verdicts", verdict_table(verdicts)), ("levels", level_table(verdicts))):
        fresh = write_csv(table, tmp_path / f"{name}.csv")
        assert fresh.read_bytes() == (STUDY / "tables" / fresh.name).read_bytes(), name


def test_nothing_of_the_machine_that_trained_it_is_told(frames):
    told = json.dumps([frames["origins"].to_dict("list")]) + (STUDY / "experiment.json").read_text()
    assert not any(word in told for word in ("/home/", "/root", "/work", "hostname"))


def test_a_record_of_protocol_1_is_told_apart_and_not_trained_again(note):
    from lossbench.experiment.cells import Cell

    record = next(records(STUDY, note))
    with pytest.raises(UserError, match="trained under protocol 1, this is protocol 2"):
        Cell.from_json(record)


def test_no_pictures_of_public_sets_are_committed():
    cards = [json.loads(path.read_text()) for path in (STUDY / "cards").glob("*.json")]
    public = [card for card in cards if not card["name"].startswith("scenes")]
    assert len(public) == 5 and not any(card["samples"] for card in public)


def test_a_status_without_a_sweep_of_ones_own_names_the_study(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "paper").symlink_to(STUDY)
    (tmp_path / "experiments").symlink_to(STUDY.parents[1] / "experiments")
    done = subprocess.run(
        [sys.executable, "-m", "lossbench", "status", "paper"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "results/paper holds cells of protocol 1, this is protocol 2" in done.stdout
