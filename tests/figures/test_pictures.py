"""The panel of pictures: chosen by rule, cut around the object, complete."""

import numpy as np
import pytest

from lossbench.figures import drawing, public
from lossbench.figures.drawing import NothingToDraw
from tools import panel


def test_the_panel_shows_every_column_and_its_dice(study):
    drawn = drawing.draw("panel", study)
    axes = drawn.figure.axes
    assert [axis.get_title(loc="center") for axis in axes] == ["image", "truth", "ce", "dice"]
    assert [axis.get_xlabel() for axis in axes] == ["", "", "0.00", "1.00"]
    assert "pixels" not in drawn.data and "dice 1.00" in drawn.alt


def test_a_mask_is_split_into_right_too_much_missing_and_wrong_class():
    truth, mask = np.array([1, 0, 1, 2, 0]), np.array([1, 1, 0, 1, 0])
    right, extra, missing, wrong = public.errors(mask, truth)
    assert right.tolist() == [True, False, False, False, False] and extra.tolist().index(True) == 1
    assert missing.tolist().index(True) == 2 and wrong.tolist().index(True) == 3
    assert sum(kind.sum() for kind in (right, extra, missing, wrong)) == 4


def test_without_its_table_the_panel_says_which_command_makes_it():
    with pytest.raises(NothingToDraw, match=r"tools\.panel"):
        public.panel({})


def test_the_window_is_square_inside_the_image_and_holds_the_object(study):
    truth = public.picture(study["panel"].iloc[1])
    window = public.crop(truth)
    assert truth[window].sum() == truth.sum()
    assert {s.stop - s.start for s in window} == {24}
    assert public.crop(np.zeros((16, 16), np.uint8)) == (slice(None), slice(None))


def test_the_image_is_the_median_of_those_that_hold_every_class():
    one = {"image": [1, 2, 3, 4], "dice@0.5": [0.1, 0.5, 0.9, None]}
    two = {"image": [1, 2, 3, 4], "dice@0.5": [0.2, 0.6, 0.8, 1.0]}
    assert panel.choose([one, two]) == 2


def test_of_each_data_set_the_fullest_then_the_longest_block_is_shown():
    def block(steps, *losses):
        return {loss: {"cell": {"recipe": {"steps": steps}}} for loss in losses}

    three, four = ("ce", "dice", "dice_ce"), ("ce", "dice", "dice_ce", "ce_l1")
    blocks = {
        ("a", "r1", 0): block(200, *three),
        ("a", "r2", 1): block(800, *three),
        ("b", "r1", 0): block(200, *four),
        ("b", "r2", 0): block(800, *three),
        ("c", "r1", 0): block(800, "ce", "dice"),
    }
    assert panel.chosen_blocks(blocks) == [blocks["a", "r2", 1], blocks["b", "r1", 0]]
