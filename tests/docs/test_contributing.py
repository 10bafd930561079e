"""The contribution guide is worked through in a copy of the repository: what it adds is found and used, and
the tests concerned pass, though no file is touched but those that it names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.system]

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmark", "docs", "experiments", "notebooks", "perf", "tests", "tools")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### (.+?): (\d) files?(.*?)(?=^###? )", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# (\S+?)(?:, (before|after): ([^\n]+))?\n(.*)", re.DOTALL)
SECTIONS = {title: (int(number), body) for title, number, body in SECTION.findall(GUIDE)}

EXPERIMENT = """
name = "grown"
seeds = 1
losses = ["ce", "jaccard", "sokal_sneath"]
datasets = [{ use = "squares(side=8)" }]
[recipe]
network = "plain(width=4)"
steps = 3
batch = 2
validations = 1
"""
FOUND = """
import json
from lossbench.analysis.claims import read_claims
from lossbench.base.columns import COLUMNS
from lossbench.catalogue import registry
from lossbench.engine.run import LAUNCHERS
from lossbench.figures.drawing import entries
own = (["my_loss.py"], ["my_data.py"])
print(json.dumps({
    "losses": [*registry.losses(), *registry.losses(own[0])], "networks": [*registry.networks()],
    "data sets": [*registry.datasets(), *registry.datasets(own[1])], "figures": [*entries()],
    "columns": [*COLUMNS], "claims": [claim.id for claim in read_claims().claims], "engines": [*LAUNCHERS],
}))
"""


class Copy:
    """A copy of the repository, and what is done to it."""

    def __init__(self, root: Path):
        self.root = root
        for name in FOLDERS:
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "CITATION.cff", ROOT / "LICENSE"]:
            shutil.copy(file, root)
        (root / "results").mkdir()
        paths = {"PYTHONPATH": str(root / "benchmark"), "LOSSBENCH_DATA": str(root / "data")}
        self.environment = os.environ | paths | {"LOSSBENCH_CACHE": str(root / "cache")}

    def apply(self, body: str) -> set[str]:
        """Write the blocks of a section; return the files that they touch."""
        touched = set()
        for kind, text in BLOCK.findall(body):
            if kind == "sh":
                continue
            name, where, anchor, code = PLACE.match(text).groups()
            file = self.root / name
            before = file.read_text(encoding="utf-8") if file.exists() else ""
            file.write_text(put(before, code, where, anchor), encoding="utf-8")
            touched.add(name)
        return touched

    def python(self, *words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def commands(self, body: str) -> None:
        for kind, text in BLOCK.findall(body):
            for line in text.splitlines() if kind == "sh" else ():
                self.python(*line.split()[1:])


def put(text: str, code: str, where: str | None, anchor: str | None) -> str:
    """Return the text with the code at its end, or before or after the line that begins with the anchor."""
    if where is None:
        return text + code
    lines = text.splitlines(keepends=True)
    (at,) = [number for number, line in enumerate(lines) if line.startswith(anchor)]
    lines.insert(at + (where == "after"), code)
    return "".join(lines)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The copy after all sections, with the files that each touched."""
    copy = Copy(tmp_path_factory.mktemp("grown"))
    draw_dots(copy.root / "dots")
    (copy.root / "data").mkdir()
    shutil.copytree(copy.root / "dots", copy.root / "data" / "dots")
    touched = {}
    for title, (_, body) in SECTIONS.items():
        touched[title] = copy.apply(body)
        copy.commands(body)
    copy.commands(GUIDE[GUIDE.index("### After a change of the package") :])
    (copy.root / "grown.toml").write_text(EXPERIMENT)
    return copy, touched


def draw_dots(folder: Path) -> None:
    """Write the raw files of the public set, as a download would."""
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 8, 8:16] = 255
        image = (mask // 2 + draw.integers(0, 60, mask.shape)).astype(np.uint8)
        for kind, values in (("images", image), ("masks", mask)):
            Image.fromarray(values).save(folder / kind / f"{number:02d}.png")


def test_the_guide_adds_ten_things():
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("title", SECTIONS)
def test_adding_it_touches_as_many_files_as_the_guide_says(title, grown):
    number, _ = SECTIONS[title]
    allowed = number + ("LAUNCHERS" in SECTIONS[title][1])
    assert 1 <= len(grown[1][title]) <= allowed


def test_all_that_was_added_is_found(grown):
    found = json.loads(grown[0].python("-c", FOUND))
    added = {
        "losses": {"squared", "sokal_sneath"},
        "networks": {"plain"},
        "data sets": {"squares", "dots"},
        "figures": {"durations"},
        "columns": {"fowlkes_mallows", "last_grad_norm"},
        "claims": {"X1"},
        "engines": {"pool"},
    }
    assert {kind: names - set(found[kind]) for kind, names in added.items()} == {
        kind: set() for kind in added
    }


def test_the_checks_pass_what_was_added(grown):
    for name in ("my_loss.py", "sokal_sneath", "plain"):
        assert "fail" not in grown[0].python("-m", "lossbench", "check", name)


def test_a_sweep_uses_all_of_it(grown):
    copy, _ = grown
    own = ["--with", "my_loss.py", "--with", "my_data.py"]
    copy.python("-m", "lossbench", "sweep", "grown.toml", *own, "--engine", "pool")
    records = [json.loads(path.read_text()) for path in (copy.root / "results" / "cells").rglob("*.json")]
    assert {record["outcome"] for record in records} <= {"done", "collapsed"} and len(records) == 4
    assert {record["cell"]["loss"] for record in records} >= {"squared", "sokal_sneath"}
    header = (copy.root / "results" / "tables" / "cells.csv").read_text().splitlines()[0]
    assert "fowlkes_mallows@0.5" in header and "last_grad_norm" in header
    page = (copy.root / "results" / "report.html").read_text(encoding="utf-8")
    assert 'id="figure-durations"' in page
    # The page of one's own data shows no claim; its table holds them.
    verdicts = (copy.root / "results" / "tables" / "verdicts.csv").read_text(encoding="utf-8")
    assert "Sokal-Sneath gains nothing over Jaccard" in verdicts


@pytest.mark.parametrize(
    ("tests", "chosen"),
    [
        ("tests/losses", "sokal_sneath or page or oracle"),
        ("tests/metrics", "column or overlap or documentation"),
        ("tests/figures", "durations or found"),
        ("tests/tables", ""),
        ("tests/data", "dots or page or registered"),
        ("tests/analysis/test_claims.py", "not shipped"),
        ("tests/engine", "not system"),
        ("tests/catalogue", ""),
        ("tests/test_house.py", ""),
    ],
)
def test_the_tests_concerned_pass_as_they_are(tests, chosen, grown):
    words = ["-p", "no:cacheprovider", "-m", "not slow and not slurm and not system"]
    grown[0].python("-m", "pytest", *words, "-k", chosen, tests)
