"""Records are verified by training again, and joined without changing any."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lossbench.base.errors import UserError
from lossbench.engine.tasks import EngineOptions
from lossbench.experiment.reading import read_experiment
from lossbench.store import pack, provenance
from lossbench.store.record import encode
from lossbench.store.store import Store
from lossbench.sweep import plan, run, verify
from tiny import TINY

pytestmark = pytest.mark.system

GOLDEN = Path(__file__).parents[1] / "golden" / "record_v1.json"

TEXT = TINY.replace("steps = 4", "steps = 3")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
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


def test_cells_of_a_file_that_is_not_given_are_left_out_and_no_certificate_is_kept(swept, tmp_path):
    shutil.copytree(swept, tmp_path / "r")
    (tmp_path / "r" / "verified.json").unlink(missing_ok=True)
    files = sorted((tmp_path / "r" / "cells").rglob("*.json"))
    for path, own in zip(files, ("loss", "network", "network", "loss"), strict=True):
        record = json.loads(path.read_text())
        cell = record["cell"]
        if own == "loss":
            cell["loss_terms"][0][1] = "mine"
        else:
            cell["recipe"]["network"] = "my_net(depth=2)"
        del record["check"]
        path.write_bytes(encode(record))
        if path == files[1]:
            said = []
            certificate = verify.verify(tmp_path / "r", 4, 0, (), say=said.append)
            assert certificate["passed"] and certificate["sample"] == 2
            assert said[0] == (
                "left out: 2 cells need what stands in no file given here (loss 'mine', network 'my_net'); "
                "give it with --with. No certificate is kept"
            )
    with pytest.raises(UserError, match="holds no other cells to verify: 4 cells need"):
        verify.verify(tmp_path / "r", 4, 0, ())
    assert not (tmp_path / "r" / "verified.json").exists()


def test_a_folder_that_cannot_be_written_is_verified_all_the_same(swept, tmp_path):
    shutil.copytree(swept, tmp_path / "r")
    (tmp_path / "r" / "verified.json").unlink(missing_ok=True)
    (tmp_path / "r" / "verified.json").mkdir()
    said = []
    assert verify.verify(tmp_path / "r", 1, 0, (), say=said.append)["passed"]
    assert "verified.json cannot be written (is a directory): no certificate is kept" in said[-1]


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


def test_merging_leaves_out_a_cell_that_is_here_with_another_source_of_its_loss(tmp_path):
    facts, mine, theirs = json.loads(GOLDEN.read_text()), Store(tmp_path / "mine"), Store(tmp_path / "theirs")
    for number, packed in enumerate((True, False)):
        mine.write({**facts, "key": f"{number:016x}", "loss_fingerprint": "0" * 16})
        if packed:
            pack.pack(mine)
    for number in range(3):
        theirs.write({**facts, "key": f"{number:016x}", "loss_fingerprint": "f" * 16})
    said = verify.merge(theirs.folder, mine.folder)
    assert (
        "1 records added, 0 were here already, 2 left out: their cells are here with another source" in said
    )
    assert [fp[0] for _, fp in Store(mine.folder).recorded()] == ["0", "0", "f"]


def test_only_a_results_folder_can_be_merged_and_only_records_verified(tmp_path):
    with pytest.raises(UserError, match="not a results folder"):
        verify.merge(tmp_path, tmp_path / "r")
    with pytest.raises(UserError, match="no records"):
        verify.verify(tmp_path, 1, 0, ())


RATED = """
name = "rated"
seeds = 1
losses = ["ce", "ce_soft", "dice_soft", "0.5*ce_soft + 0.5*jaccard_soft"]
datasets = ["raters(path={path!r})"]
[recipe]
steps = 3
batch = 4
widths = [4, 8]
validations = 1
"""


def test_soft_losses_train_on_what_several_raters_say_from_the_plan_to_the_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for n in range(10):
        square = np.zeros((32, 32), np.uint8)
        square[8:24, 8:24] = 255
        images = [square // 2 + rng.integers(0, 50, square.shape, np.uint8), square, np.roll(square, 4, 0)]
        for folder, image in zip(("images", "masks_1", "masks_2"), images, strict=True):
            (tmp_path / "rated" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "rated" / folder / f"{n}.png")
    (tmp_path / "rated.toml").write_text(RATED.format(path=str(tmp_path / "rated")))
    planned = plan.plan(read_experiment(tmp_path / "rated.toml"), tmp_path / "results")
    facts, results = provenance.collect(results=tmp_path), tmp_path / "results"
    run.run(planned, planned.missing, results, EngineOptions(serial=True), provenance=facts, mode="quiet")
    certificate = verify.verify(results, 2, 0, (), data=[tmp_path / "rated"])
    assert certificate["passed"] and all(row["exact"] for row in certificate["cells"])
    records = {record["loss_label"]: record for record in Store(results).records()}
    # The raters' squares of 16 rows share 12; what both mark is the majority of two.
    between = {record["metrics"]["dice_between_raters"] for record in records.values()}
    assert len(records) == 4 and between == {0.75}
    assert len({str(record["certificate"]) for record in records.values()}) == 1
    assert records["ce"]["steps"]["train_loss"] != records["ce_soft"]["steps"]["train_loss"]
