"""The mini study as records and as tables."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))


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
