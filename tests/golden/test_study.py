"""The committed study: its records give back its tables byte for byte, its tables its verdicts, and every
planned cell is there.
"""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lossbench.experiment.reading import find_experiment
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


def test_the_records_give_the_tables_byte_for_byte(frames, tmp_path):
    from lossbench.tables.files import write_tables

    for path in write_tables(
        {name: frame for name, frame in frames.items() if name != "images"}, tmp_path
    ):  # too large to be committed
        assert path.read_bytes() == (STUDY / "tables" / path.name).read_bytes(), path.name


def test_the_tables_give_the_verdicts_byte_for_byte(frames, tmp_path):
    from lossbench.analysis.claims import read_claims
    from lossbench.analysis.groups import ByGroup
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


def test_the_experiment_file_is_the_one_that_was_trained(note):
    from lossbench.experiment.reading import read_experiment

    if notes.read(STUDY).skipped:
        pytest.skip("a public set was left out")
    planned = {cell.key for cell in read_experiment(find_experiment("paper")).cells()}
    here = {cell.key for cell in note.cells}
    assert planned <= here  # where a public set is not at hand, its cells are not planned


def test_a_recorded_cell_is_the_same_cell_today(note):
    from lossbench.experiment.cells import GONE, LATER, Cell

    for record in itertools.islice(records(STUDY, note), 0, None, 97):
        own = Cell.from_json(record).to_json()
        own["cell"]["recipe"] |= GONE
        # Some are older than a field of the recipe.
        record["cell"]["recipe"] = LATER | record["cell"]["recipe"]
        named = {"data_label", "block"}  # by the note, where a later sweep of the folder names it otherwise
        assert {k: v for k, v in own["cell"].items() if k not in named} == {
            k: v for k, v in record["cell"].items() if k not in named
        }
        assert all(own[part] == record[part] for part in own if part != "cell")


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
    missing, held = re.search(
        r"(\d+) missing\n.* holds (\d+) of them: '--results results/paper'", done.stdout
    ).groups()
    assert missing == held != "0"  # public sets count where their data are at hand
