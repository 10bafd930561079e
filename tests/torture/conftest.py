"""How long the torture lasts: a few cases with `make test-all`, all of its page with `make torture`."""

import os
import random
from collections import Counter

import pytest

FULL = os.environ.get("LOSSBENCH_TORTURE") == "full"


def pytest_collection_modifyitems(items):
    for item in items:
        if "torture" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def size():
    """Return a function that chooses between a few cases and all of them."""
    return lambda few, full: full if FULL else few


@pytest.fixture
def draw():
    """Random numbers that LOSSBENCH_TORTURE_SEED repeats."""
    return random.Random(int(os.environ.get("LOSSBENCH_TORTURE_SEED", "1")))


@pytest.fixture
def seen():
    """Counts what happened; `make torture` prints it."""
    counts = Counter()
    yield counts
    print(*(f"{what}: {count}" for what, count in counts.items()), sep="\n")
