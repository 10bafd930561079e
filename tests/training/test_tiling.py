"""Where the tiles of an image lie, and what their pixels weigh."""

import numpy as np
import pytest

from lossbench.training.predict import tile, tile_weights


def test_the_tiles_of_a_row_are_three_quarters_of_a_side_apart_and_the_last_is_moved_inside():
    tiling = tile((64, 150), 64)
    assert tiling.starts == ((0,), (0, 48, 86)) and tiling.margins == ((0, 0), (0, 0))
    assert tile((10, 64), 64).margins == ((27, 27), (0, 0))


def test_the_middle_of_a_tile_weighs_most_and_its_weights_are_a_gaussian():
    weights = tile_weights((8, 8))
    assert weights[3, 4] == weights.max() and weights[0, 0] == pytest.approx(1e-3)
    assert weights[3, 0] / weights[3, 3] == pytest.approx(
        np.exp(-(3.5**2 - 0.5**2) / 2)
    )  # sigma is one pixel
