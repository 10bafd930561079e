"""A page follows from its results folder alone, not from the place or from today's experiments and losses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mini_study
import pandas as pd
import pytest

from lossbench.experiment.describe import describe
from lossbench.experiment.reading import read_experiment
from lossbench.store import note
from lossbench.store.store import Store

ROOT = Path(__file__).parents[2]
# Three whole reports, each by a process of its own.
pytestmark = [pytest.mark.system, pytest.mark.slow]
EXPERIMENT = """
name = "paper"
title = "Two questions in small"
seeds = 3
datasets = ["scenes(foreground=0.002)", "scenes(foreground=0.05)"]
[[part]]
name = "ladder"
losses = ["ce", "dice"]
[[part]]
name = "dose"
title = "How much of the size term does it take?"
fixed = true
losses = ["ce", { use = "ce_db", label = "a tenth" }, { use = "ce_db(size_weight=1.0)", label = "all of it" }]
"""
LIKE = {
    "ce_db": "focal",
    "ce_db(size_weight=1.0)": "0.5*ce + 0.5*dice",
}  # numbers from a loss of the mini study


def swept(folder):
    """Make a results folder as a sweep leaves it, with made-up numbers; return it."""
    (folder / "paper.toml").write_text(EXPERIMENT)
    experiment = read_experiment(folder / "paper.toml")
    store, rows = Store(folder / "results"), []
    store.open_for_writing()
    for cell in experiment.cells():
        text, foreground = cell.loss.text, cell.data.params["foreground"]
        made = mini_study.record(cell.data.text, foreground, LIKE.get(text, text), cell.seed)
        facts = {"data_label": cell.data_label, "loss": text, "loss_terms": cell.loss.identity()}
        made |= {
            "threshold_curve": [],
            "key": cell.key,
            "loss_label": cell.loss.label,
            "cell": {**made["cell"], **facts},
            # What a claim about this part reads; any number will do.
            "metrics": made["metrics"] | {"size_clipped_hard@0.5": made["metrics"]["dice@0.5"]},
        }
        store.write(made)
        rows.append(
            [
                cell.key,
                made["loss_fingerprint"],
                cell.loss.label,
                cell.data_label,
                cell.block,
                ",".join(cell.parts),
            ]
        )
    note.write(folder / "results", describe(experiment, [], {}) | {"cells": rows})
    return folder / "results"


def changed_checkout(folder):
    """Copy package and experiments: the experiments under other names, a default of a loss another one."""
    shutil.copytree(ROOT / "benchmark", folder / "benchmark", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "experiments").mkdir()
    for file in (ROOT / "experiments").iterdir():
        renamed = file.name if file.suffix != ".toml" or file.stem == "claims" else f"my_{file.name}"
        shutil.copy(file, folder / "experiments" / renamed)
    source = folder / "benchmark" / "lossbench" / "losses" / "size.py"
    before = source.read_text()
    source.write_text(before.replace("size_weight=0.1,", "size_weight=0.7,"))
    assert source.read_text() != before
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the results folders whose reports were made in the checkout, in an empty folder, and in another
    checkout that has changed since the sweep.
    """
    home = tmp_path_factory.mktemp("place")
    results = swept(home)
    (home / "empty").mkdir()
    other = changed_checkout(home / "other")
    places = {"here": (ROOT, ROOT), "empty": (home / "empty", ROOT), "other": (other, other)}
    running = []
    for name, (folder, checkout) in places.items():
        own = shutil.copytree(results, home / f"results_{name}")
        environment = {**os.environ, "PYTHONPATH": str(checkout / "benchmark")}
        command = [sys.executable, "-m", "lossbench", "report", "--results", str(own)]
        running.append(
            (own, subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True))
        )
    for _, process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [own for own, _ in running]


def test_three_places_give_the_same_page_and_the_same_tables_byte_for_byte(pages):
    first, *others = pages
    names = ["report.html", *(f"tables/{path.name}" for path in (first / "tables").iterdir())]
    assert "tables/verdicts.csv" in names and "tables/cells.parquet" in names
    for other in others:
        for name in set(names) - {"tables/made_from.json"}:  # whose code is another one
            assert (other / name).read_bytes() == (first / name).read_bytes(), (other, name)


def test_the_page_knows_what_the_sweep_noted(pages):
    text = (pages[-1] / "report.html").read_text()
    assert "How much of the size term does it take?" in text and "size_weight = 0.1" in text
    board = pd.read_csv(pages[-1] / "tables" / "leaderboard.csv")
    assert set(board["loss"]) == {"ce", "dice"}  # the part that stands apart is not ranked


def test_a_claim_that_writes_a_default_out_finds_the_cells_that_were_trained_with_it(pages):
    for folder in pages:
        tests = pd.read_csv(folder / "tables" / "verdicts.csv").set_index("test")
        assert tests.loc["C2.3", "n_seeds"] == 3  # ce_db(size_weight=0.1) minus ce
