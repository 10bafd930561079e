"""Augmentation moves image, mask and distances alike, and depends on its random stream alone."""

import numpy as np
import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.training.batches import Draws, augment, draw


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(shape=(16, 16), count=6, channels=2):
    masks = torch.randint(0, 3, (count, *shape), generator=stream(1))
    images = torch.stack([masks.float(), masks.float() * 10], 1)[:, :channels]
    return images, masks, torch.stack([masks.float() * -1] * 3, 1)


def augmented(images, masks, extra, generator, kind):
    draws = draw(kind, 1, len(masks), masks.ndim - 1, generator)
    return augment(images, masks, extra, draws.at(torch.tensor([0])))


def test_none_changes_nothing_and_draws_nothing():
    generator = stream()
    before = generator.get_state()
    parts = batch()
    assert all(a is b for a, b in zip(augmented(*parts, generator, "none"), parts, strict=True))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("shape", "motions"), [((4, 4), 8), ((4, 6), 4), ((4, 4, 4), 16), ((4, 4, 6), 16)])
def test_each_draw_is_another_motion_told_by_its_bits(shape, motions):
    dims = len(shape)
    image = torch.arange(torch.tensor(shape).prod()).reshape(1, *shape)
    found = set()
    for code in range(2 ** (dims + 1)):
        _, moved, _ = augment(image[:, None].float(), image, None, Draws(torch.tensor([code])))
        expected = image[0].flip([axis for axis in range(dims) if code >> axis & 1])
        assert torch.equal(
            moved[0], expected.transpose(0, 1) if code >> dims and shape[0] == shape[1] else expected
        )
        found.add(tuple(moved.flatten().tolist()))
    assert len(found) == motions


@pytest.mark.parametrize("kind", ["flips", "full"])
def test_a_step_is_drawn_after_the_steps_before_it(kind):
    whole, generator = draw(kind, 3, 4, 2, stream(5)), stream(5)
    for step in range(3):
        alone, row = draw(kind, 1, 4, 2, generator).at(torch.tensor([0])), whole.at(torch.tensor([step]))
        for name in ("flips", "angles", "lights")[: 1 if kind == "flips" else 3]:
            assert torch.equal(getattr(alone, name), getattr(row, name))


@pytest.mark.parametrize("shape", [(16, 16), (12, 20), (8, 8, 12)])
def test_flips_move_everything_alike_and_keep_every_pixel(shape):
    images, masks, extra = augmented(*batch(shape, count=40), stream(), "flips")
    assert torch.equal(images[:, 0], masks.float()) and torch.equal(extra[:, 2], -masks.float())
    for before, after in zip(batch(shape, count=40)[1], masks, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


def test_all_eight_positions_of_a_square_occur_about_equally():
    corner = torch.zeros(800, 4, 4, dtype=torch.long)
    corner[:, 0, 1] = 1
    _, masks, _ = augmented(corner[:, None].float(), corner, None, stream(), "flips")
    places, counts = np.unique(masks.flatten(1).argmax(1).numpy(), return_counts=True)
    assert len(places) == 8 and counts.min() > 60


@pytest.mark.parametrize("kind", ["flips", "full"])
@pytest.mark.parametrize("shape", [(16, 16), (12, 20), (8, 8, 12)])
def test_the_same_stream_gives_the_same_batch_whatever_is_carried_along(kind, shape):
    images, masks, extra = batch(shape)
    first = augmented(images, masks, extra, stream(3), kind)
    second = augmented(images, masks, None, stream(3), kind)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]) and second[2] is None
    assert first[0].shape == images.shape and first[1].dtype == masks.dtype
    generators = [stream(3), stream(3)]
    augmented(images, masks, extra, generators[0], kind)
    augmented(images[:, :1], masks, None, generators[1], kind)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_full_turns_a_little_keeps_classes_and_changes_the_light():
    masks = torch.zeros(60, 32, 32, dtype=torch.long)
    masks[:, 10:20, 8:24] = 1
    masks[:, 0, 0] = 255
    images = masks.eq(1).float()[:, None]
    turned, labels, _ = augmented(images, masks, None, stream(), "full")
    assert set(labels.unique().tolist()) <= {0, 1, 255}
    areas = labels.eq(1).sum((1, 2)).float()
    assert areas.mean() == pytest.approx(160, rel=0.03) and not torch.equal(labels, masks)
    overlap = [
        np.corrcoef(t.flatten(), m.eq(1).flatten())[0, 1] for t, m in zip(turned[:, 0], labels, strict=True)
    ]
    assert min(overlap) > 0.85
    inside = torch.stack(
        [t[0][m == 1].mean() - t[0][m == 0].mean() for t, m in zip(turned, labels, strict=True)]
    )
    assert 0.05 < inside.std() < 0.3


def test_full_keeps_pixels_square_in_an_oblong_image():
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = ((y**2 + x**2) < 15**2).long()[None].repeat(8, 1, 1)
    _, labels, _ = augmented(disc[:, None].float(), disc, None, stream(), "full")
    assert (labels != disc).float().mean() < 0.01  # a disc is a disc, however it is turned


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="did you mean 'flips'"):
        augmented(*batch(), stream(), "flip")
