"""The walls of the house: which room may import which, read from the source of every module."""

import ast
import re

import pytest

from lossbench.base import errors
from tools import house

EDGES = house.imports()
GUIDE = house.PAGE.read_text(encoding="utf-8")


def test_the_tests_run_the_package_of_this_checkout():
    assert house.PACKAGE in house.Path(errors.__file__).parents


def test_every_import_leads_to_a_room_that_lies_lower():
    assert house.climbing(EDGES) == set()


def test_no_module_leads_back_to_itself():
    assert house.circles((edge.source, edge.target) for edge in EDGES) == []


def test_no_room_leads_back_to_itself():
    rooms = {(house.room(edge.source), house.room(edge.target)) for edge in EDGES}
    assert house.circles(rooms) == []


def test_nothing_lies_at_the_root_of_the_package_but_its_interface():
    assert {path.name for path in house.PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_every_folder_is_a_room_of_the_layers():
    rooms = {name for names in house.WRITING for name in names} | set(house.READING) | {"cli", "lossbench"}
    assert {house.room(name) for name in house.modules()} == rooms


def test_nothing_that_reads_leads_to_torch():
    rooms = (*house.READING, *house.SHARED, "metrics")
    reading = [name for name in house.modules() if house.room(name) in rooms]
    by = house.reached(reading, EDGES)
    assert {f"{by[name]} -> {name}" for name in house.outside("torch") & by.keys()} == set()


def test_a_package_with_every_fault_shows_each_of_them(tmp_path):
    """The walk sees imports inside functions and for types alone, of modules and of functions."""
    files = {
        "base/low.py": "def f():\n    from lossbench.engine import high\n",
        "engine/high.py": "import typing\nif typing.TYPE_CHECKING:\n    from lossbench.base.low import f\n",
        "report/page.py": "import lossbench.sweep.plan\nimport lossbench.theory.facts\n",
        "sweep/plan.py": "import torch.nn as nn\n",
        "theory/facts.py": "",
    }
    package = tmp_path / "lossbench"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text(text)
    edges = house.imports(package)
    assert house.climbing(edges) == {
        "lossbench.base.low -> lossbench.engine.high",
        "lossbench.report.page -> lossbench.sweep.plan",
    }
    both = {"lossbench.base.low", "lossbench.engine.high"}
    assert house.circles((edge.source, edge.target) for edge in edges) == [both]
    assert house.outside("torch", package) & house.reached(["lossbench.report.page"], edges).keys() == {
        "lossbench.sweep.plan"
    }


def test_the_guide_shows_the_imports_as_they_are():
    assert house.fill(GUIDE, "graph", house.graph(EDGES)) == GUIDE, "python -m tools.house writes it again"


def test_the_guide_tells_sizes_that_are_near_to_those_of_today():
    """A change of a few lines need not change the guide; one of a tenth should."""
    shown = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", block("measures"))]
    today = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", house.table(house.measures()))]
    assert shown == pytest.approx(today, rel=0.1, abs=5), "python -m tools.house writes them again"


def block(name: str) -> str:
    return re.search(rf"<!-- {name}: .*?<!-- / -->", GUIDE, re.DOTALL)[0]


def test_the_way_of_a_record_leads_through_functions_that_exist():
    steps = re.findall(r"`(\w+/\w+\.py): (\w+)`", GUIDE)
    assert len(steps) >= 15
    for file, name in steps:
        tree = ast.parse((house.PACKAGE / file).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", "") for node in tree.body}, f"{file}: {name}"
