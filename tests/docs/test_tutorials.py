"""The tutorials are run as they are read: files are written, commands run, and what a page says they print is
compared.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "paper"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.\w+)\n")


def read(page: str, folder: Path, **environment: str) -> str:
    """Work through a page in a folder; returns all that was printed. Blocks: python and toml whose first line
    names a file are written, other python is run, sh is run line by line, output must be in what the last sh
    block printed ("..." stands for anything)."""
    paths = os.pathsep.join([*filter(None, [environment.pop("first", "")]), str(ROOT / "benchmark")])
    environment = (
        os.environ
        | {"PYTHONPATH": paths, "LOSSBENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
        | environment
    )
    printed, last = "", ""
    for kind, body in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        named = FILE.match(body)
        if kind in ("python", "toml") and named:
            (folder / named[1]).write_text(body, encoding="utf-8")
        elif kind == "python":
            printed += _run([sys.executable, "-c", body], folder, environment)
        elif kind == "sh":
            last = "".join(_run(_command(line), folder, environment) for line in body.splitlines())
            printed += last
        elif kind == "output":
            for line in body.splitlines():
                parts = [re.escape(part.strip()) for part in line.split("...")]
                assert re.search(".*".join(parts), last), (
                    f"{page} says {line!r}, but this was printed:\n{last}"
                )
    return printed


def _command(line: str) -> list[str]:
    program, *arguments = shlex.split(line)
    return [sys.executable, *({"lossbench": ["-m", "lossbench"], "python": []}[program]), *arguments]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_a_student_gets_an_answer_for_a_folder(tmp_path):
    printed = read("tutorial_your_data.md", tmp_path)
    assert "dice_ce" in printed
    report = (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert "my_folder" in report


@pytest.mark.slow
def test_the_author_of_a_loss_trains_its_cells_only(tmp_path):
    read("tutorial_new_loss.md", tmp_path)
    assert "soft_miss" in (tmp_path / "results" / "report.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "results" / "cells").glob("*/*.json"))) == 10


@pytest.mark.slow
def test_a_network_of_ones_own_is_checked_swept_and_verified(tmp_path):
    printed = read("networks.md", tmp_path)
    assert "FAIL" not in printed and "12 cells in 3 parts" in printed


@pytest.mark.slow
def test_a_reader_needs_no_torch(tmp_path):
    (tmp_path / "none" / "torch").mkdir(parents=True)
    (tmp_path / "none" / "torch" / "__init__.py").write_text("raise ImportError('not here')")
    tables(tmp_path / "results" / "paper")
    shutil.copy(STUDY / "claims.toml", tmp_path / "results" / "paper")  # the claims of the study, not today's
    printed = read("tutorial_reader.md", tmp_path, first=str(tmp_path / "none"))
    assert "M1.1" in printed


def tables(folder: Path) -> None:
    """Put the study's tables into a results folder; where they are not committed, those of the made-up mini
    study.
    """
    if (STUDY / "tables" / "cells.parquet").is_file():
        shutil.copytree(STUDY / "tables", folder / "tables")
        return
    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import mini_study

    from lossbench.tables.compact import compact
    from lossbench.tables.files import write_tables

    write_tables(compact(mini_study.records()), folder / "tables")
