"""Tiles cover an image, and what is stitched from them is what was predicted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.data.tiling import tile, tile_weights


def test_the_tiles_of_a_row_are_three_quarters_of_a_side_apart_and_the_last_is_moved_inside():
    tiling = tile((64, 150), 64)
    assert tiling.starts == ((0,), (0, 48, 86)) and tiling.margins == ((0, 0), (0, 0))
    assert tile((10, 64), 64).margins == ((27, 27), (0, 0))


@settings(max_examples=60, deadline=None)
@given(extent=st.tuples(st.integers(1, 90), st.integers(1, 90)), side=st.sampled_from([4, 16, 33]))
def test_stitching_gives_back_what_was_cut(extent, side):
    image = np.random.default_rng(0).normal(size=(2, *extent)).astype(np.float32)
    tiling = tile(extent, side)
    assert np.abs(tiling.stitch(tiling.cut(image)) - image).max() < 1e-5


def test_volumes_have_tiles_of_three_axes_of_their_own():
    image = np.random.default_rng(0).normal(size=(1, 9, 20, 31)).astype(np.float32)
    tiling = tile(image.shape[1:], (8, 16, 16))
    assert tiling.cut(image).shape == (8 // 4 * 2 * 3, 1, 8, 16, 16)
    assert np.abs(tiling.stitch(tiling.cut(image)) - image).max() < 1e-5


def test_the_middle_of_a_tile_weighs_most_and_its_weights_are_a_gaussian():
    weights = tile_weights((8, 8))
    assert weights[3, 4] == weights.max() and weights[0, 0] == pytest.approx(1e-3)
    assert weights[3, 0] / weights[3, 3] == pytest.approx(
        np.exp(-(3.5**2 - 0.5**2) / 2)
    )  # sigma is one pixel


@pytest.mark.peers
@pytest.mark.parametrize("extent", [(100, 130), (64, 64), (40, 90), (200, 65)])
def test_places_and_weights_are_those_of_monai(extent):
    monai = pytest.importorskip("monai.inferers")
    import torch

    seen = []

    def predict(tiles):
        """Something that depends on where a pixel lies in its tile, so that the weights matter."""
        seen.append(tiles)
        ramp = torch.linspace(-1, 1, tiles.shape[-1])
        return torch.cat([tiles * ramp, tiles + ramp[:, None]], 1)

    image = np.random.default_rng(0).normal(size=(1, *extent)).astype(np.float32)
    inferer = monai.SlidingWindowInferer((64, 64), 4, 0.25, mode="gaussian", padding_mode="reflect")
    theirs = inferer(torch.from_numpy(image[None]), predict)[0].numpy()
    tiling = tile(extent, 64)
    tiles = tiling.cut(image)
    assert sum(map(len, seen)) == len(tiles)
    ours = tiling.stitch(predict(torch.from_numpy(tiles)).numpy())
    assert np.abs(ours - theirs).max() < 1e-4
