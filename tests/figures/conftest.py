"""The mini study as tables, with two public sets beside the ladder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))


@pytest.fixture(scope="session")
def tables():
    import mini_study

    from benchmark.analysis.tables import compact

    return compact(mini_study.records(real=True))
