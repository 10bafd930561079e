"""What is scored within a budget of pixels is drawn once, nests, and keeps empty images and groups."""

import numpy as np

from lossbench.data import splitting
from lossbench.data.container import container
from lossbench.data.splitting import within


def toy(seed=0):
    """60 test images of 100 pixels in ten groups, a third of them empty."""
    masks = np.zeros((64, 12, 12), np.uint8)
    masks[:, 0, 0] = np.arange(64) % 3 > 0
    groups = np.r_[np.arange(60) // 6, 10, 11, 12, 13]
    split = {"test": range(60), "train": [60, 61], "val": [62, 63]}
    return container(name="toy", images=np.zeros((64, 1, 12, 12)), masks=masks, split=split, groups=groups)


def test_all_images_are_taken_where_the_budget_allows():
    assert within(toy(), "test", 60 * 144).tolist() == list(range(60))


def test_a_budget_keeps_the_share_of_empty_images_and_lets_groups_take_turns():
    chosen = within(toy(), "test", 30 * 144)
    assert len(chosen) == 30 and np.mean(chosen % 3 == 0) == 1 / 3 and (np.diff(chosen) > 0).all()
    groups = np.bincount(chosen[chosen % 3 > 0] // 6, minlength=10)
    assert groups.tolist() == [2] * 10  # twenty images with foreground from ten groups


def test_a_smaller_budget_takes_some_of_what_a_larger_one_takes_and_at_least_one_of_each_kind():
    small, large = (set(within(toy(), "test", n * 144).tolist()) for n in (12, 30))
    assert small < large and len(small) == 12
    least = within(toy(), "test", 1)
    assert sorted(least % 3 > 0) == [False, True]


def test_the_shares_that_are_scored_are_said(monkeypatch):
    monkeypatch.setattr(splitting, "TEST", 30 * 144)
    assert splitting.shares(toy()) == {"val": 1.0, "test": 0.5}
