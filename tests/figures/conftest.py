"""The mini study as tables, a single cross without parts; and a made-up study with parts, from which every
figure can be drawn.
"""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "golden"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def tables():
    import mini_study

    from lossbench.tables.compact import compact

    return compact(record | {"parts": ""} for record in mini_study.records(real=True))


@pytest.fixture(scope="session")
def study():
    import study as made

    from lossbench.tables.compact import compact

    return compact(made.records()) | {"panel": made.panel()}
