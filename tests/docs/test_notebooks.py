"""The notebooks run from the first cell to the last, and hold what they print."""

import json
import re
import sys
from pathlib import Path

import pytest

from tools.notebooks import executed

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def test_there_are_the_four_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_claims",
        "02_add_a_loss",
        "03_region_size_bias",
        "04_your_data",
    ]


def printed(cells) -> str:
    """Return what the cells of a notebook show as text, a pause between two words being one space."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return " ".join("".join(part for text in texts for part in (*text, "\n")).split())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_holds_its_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert len(code) <= 10
    assert all(cell["execution_count"] for cell in code)
    assert printed(code)
    assert path.stat().st_size < 200_000
    assert not re.search(r"/tmp/|/home/|/root/", path.read_text(encoding="utf-8"))


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_is_run_again_prints_what_it_holds(path):
    # Another kind of CPU rounds otherwise: the words must be the same, and the numbers nearly.
    kept = printed(json.loads(path.read_text(encoding="utf-8"))["cells"])
    now = printed(executed(path).cells)
    assert NUMBER.sub("#", now) == NUMBER.sub("#", kept)
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (now, kept)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.05)


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
