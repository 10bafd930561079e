"""What the tests of the data share: a cache of their own, the public sets where they are at hand, and small
folders to read.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_files import write


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, so that a test sees what is built and what is found."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOSSBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def no_data(cache, monkeypatch):
    """A machine without any public set."""
    monkeypatch.delenv("LOSSBENCH_DATA", raising=False)
    return cache


@pytest.fixture(scope="session")
def real_data():
    """The folder with the public sets, or a skip that says why."""
    folder = os.environ.get("LOSSBENCH_DATA")
    if not folder:
        pytest.skip("LOSSBENCH_DATA is not set")
    if not (Path(folder) / "msd_hippocampus").is_dir():
        pytest.skip(f"LOSSBENCH_DATA={folder} does not hold the public sets")
    return Path(folder)


@pytest.fixture
def make_folder(tmp_path):
    """Return a function that writes images/ and masks/ with small square objects and returns the folder."""

    def make(count=12, shape=(24, 20), values=(0, 255), suffix=".png", name="mine", seed=0):
        rng = np.random.default_rng(seed)
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        for n in range(count):
            mask = np.full(shape, values[0], np.uint8)
            for value in values[1:]:
                corner = [rng.integers(0, s - 6) for s in shape]
                mask[tuple(slice(c, c + 5) for c in corner)] = value
            image = (rng.normal(100, 20, shape) + 60 * (mask > 0)).clip(0, 255).astype(np.uint8)
            write(root / "images" / f"case{n:02d}{suffix}", image)
            write(root / "masks" / f"case{n:02d}{suffix}", mask)
        return root

    return make
