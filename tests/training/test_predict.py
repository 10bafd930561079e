"""Whole images are predicted from tiles: what is joined is what was predicted, the same as MONAI joins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.data.container import container
from lossbench.networks.build import Network
from lossbench.networks.stack import Stack
from lossbench.training.predict import HELD, Tiles, predict


class Stub:
    """A stack of cells, each of which predicts a function of its images alone."""

    device = torch.device("cpu")

    def __init__(self, *functions):
        self.functions = functions

    def __len__(self):
        return len(self.functions)

    def infer(self, images):
        parts = images.split(images.shape[1] // len(self), 1)
        return torch.stack([f(part) for f, part in zip(self.functions, parts, strict=True)], 1)


def data(*extents, channels=1):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(channels, *extent)).astype(np.float32) for extent in extents]
    masks = [rng.integers(0, 2, extent).astype(np.uint8) for extent in extents]
    while len(images) < 3:  # a split needs three
        images.append(images[0])
        masks.append(masks[0])
    split = {"train": [0], "val": [1], "test": range(2, len(images))}
    return container(name="toy", images=images, masks=masks, split=split)


def whole(stack, sets, batch=4):
    """Return each cell's images, in their order."""
    out = [[] for _ in sets]
    for cell, _, logits in predict(stack, sets, batch):
        out[cell] += list(logits.numpy())
    return out


@settings(max_examples=30, deadline=None)
@given(extent=st.tuples(st.integers(1, 60), st.integers(1, 60)), side=st.sampled_from([4, 16, 33]))
def test_what_predicts_the_image_itself_gives_the_image_back(extent, side):
    toy = data(extent)
    tiles = Tiles(toy, np.arange(3), (side, side))
    for n, image in enumerate(whole(Stub(lambda x: x), [tiles])[0]):
        np.testing.assert_allclose(image, toy.images[n], atol=1e-5)


def test_volumes_have_tiles_of_three_axes_of_their_own():
    toy = data((9, 20, 31))
    tiles = Tiles(toy, np.arange(1), (8, 16, 16))
    assert len(tiles) == 8 // 4 * 2 * 3
    np.testing.assert_allclose(whole(Stub(lambda x: x), [tiles])[0][0], toy.images[0], atol=1e-5)


def test_images_of_many_sizes_come_in_their_order_whatever_the_batch():
    toy = data((20, 30), (20, 30), (64, 9), (5, 5), (20, 30))
    tiles = Tiles(toy, np.array([0, 1, 2, 3, 4]), (16, 16))
    assert tiles.groups == [(0, 2), (2, 3), (3, 4), (4, 5)]
    for batch in (1, 4, 1000):
        for n, image in enumerate(whole(Stub(lambda x: x), [tiles], batch)[0]):
            np.testing.assert_allclose(image, toy.images[n], atol=1e-5)


def test_groups_hold_no_more_pixels_than_memory_is_meant_for():
    small = Tiles(data(*[(64, 64)] * 100), np.arange(100))
    assert [end - begin for begin, end in small.groups] == [HELD // 64**2, 100 - HELD // 64**2]


def test_cells_with_images_of_their_own_each_get_theirs():
    one, two = data((20, 30), (9, 40)), data((16, 16), (30, 30), (8, 8))
    sets = [Tiles(one, np.arange(2), (16, 16)), Tiles(two, np.arange(3), (16, 16))]
    first, second = whole(Stub(lambda x: x, lambda x: -x), sets)
    assert len(first) == 2 and len(second) == 3
    np.testing.assert_allclose(first[1], one.images[1], atol=1e-5)
    np.testing.assert_allclose(second[1], -two.images[1], atol=1e-5)
    nothing = Tiles(two, np.arange(0), (16, 16))
    assert [len(images) for images in whole(Stub(lambda x: x, lambda x: x), [nothing, sets[0]])] == [0, 2]
    assert whole(Stub(lambda x: x), [nothing]) == [[]]


def test_the_masks_of_tiles_are_void_in_the_padding():
    toy = data((10, 40))
    masks = Tiles(toy, np.arange(1), (16, 16)).masks(0, 100)
    assert masks.shape == (3, 16, 16)
    assert (masks[:, :3] == 255).all() and (masks[:, 13:] == 255).all() and (masks[:, 3:13] < 255).all()


@pytest.mark.peers
@pytest.mark.parametrize("extent", [(100, 130), (64, 64), (40, 90), (200, 65)])
def test_whole_images_are_those_of_monai(extent):
    monai = pytest.importorskip("monai.inferers")
    from lossbench.catalogue.registry import parse_network

    network = Network(parse_network("unet(widths=[4, 8])"), 1, 2, (64, 64))
    starts = [network.start(seed) for seed in (0, 1)]
    ours = whole(Stack(network, starts), [Tiles(data(extent), np.arange(1), (64, 64))] * 2)
    inferer = monai.SlidingWindowInferer((64, 64), 4, 0.25, mode="gaussian", padding_mode="reflect")
    for (image,), start in zip(ours, starts, strict=True):
        module = network.build().eval()
        module.load_state_dict(start)
        with torch.no_grad():
            theirs = inferer(torch.from_numpy(data(extent).images[0][None]), module)[0].numpy()
        assert np.abs(image - theirs).max() < 1e-4
