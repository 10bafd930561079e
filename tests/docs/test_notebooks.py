"""The notebooks run from the first cell to the last, and are kept without what they print."""

import json
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_the_four_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_claims",
        "02_add_a_loss",
        "03_region_size_bias",
        "04_your_data",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_kept_without_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len(code) <= 10


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.system
@pytest.mark.slow
def test_where_the_study_is_missing_a_small_one_takes_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(NOTEBOOKS[0].parent))
    sys.modules.pop("small_study", None)
    import small_study

    from lossbench import load_table

    monkeypatch.setattr(small_study, "STUDY", tmp_path / "none")
    monkeypatch.setattr(small_study.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    results = small_study.results()
    assert results == tmp_path / "results"
    assert "trained 18 cells" in capsys.readouterr().out
    assert set(load_table(str(results), "cells")["loss"]) == {"ce", "dice", "dice_ce"}
