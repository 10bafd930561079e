"""Shared by all tests: one thread, no cache of the user's own, and the switch for real data."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# The processes that tests start run this checkout too, whatever else is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1] / "benchmark"), os.environ.get("PYTHONPATH", "")])
)

import pytest


def pytest_collection_modifyitems(items):
    """Put the files whose tests start processes first, since they take longest; `--dist loadfile` shares
    whole files out, so that fixtures of a module are made once.
    """
    slowest = {item.path for item in items if item.get_closest_marker("system")}
    items.sort(key=lambda item: item.path not in slowest)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Numbers depend on the thread count, so tests use the one that sweeps use."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Prepared arrays of the tests stay out of the user's cache."""
    if "LOSSBENCH_CACHE" not in os.environ:
        os.environ["LOSSBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def without_torch():
    """Return the first lines of a program in which torch cannot be found, as where it is not installed.

    An entry None in sys.modules would trip up libraries that only look whether torch has been imported.
    """
    return (
        "import sys\nclass Missing:\n    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )


@pytest.fixture(scope="session")
def mini_records():
    import mini_study

    return mini_study.records()


@pytest.fixture(scope="session")
def mini_tables(mini_records):
    from lossbench.tables.compact import compact

    return compact(mini_records)


@pytest.fixture
def cells(mini_tables):
    return mini_tables["cells"].copy()


@pytest.fixture(scope="session")
def ten_seeds():
    """Return the cells of the mini study's ladder with as many seeds as a primary test needs."""
    import mini_study

    from lossbench.tables.compact import compact

    return compact(mini_study.records(seeds=10))["cells"]
