"""The panel of pictures: chosen by rule, cut around the object, complete."""

import numpy as np
import pandas as pd
import pytest

from lossbench.figures import public, style
from lossbench.figures.drawing import NothingToDraw
from tools import panel


def row(shows, pixels, dice=np.nan, loss=""):
    facts = {"dataset": "scenes()", "data_label": "scenes", "image": 7, "height": 32}
    return facts | {"shows": shows, "loss": loss, "dice": dice, "pixels": pixels.tobytes()}


@pytest.fixture
def table():
    truth = np.zeros((32, 32), np.uint8)
    truth[10:14, 20:26] = 1
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    rows = [
        row("image", grey),
        row("truth", truth),
        row("ce", truth * 0, 0.0, "ce"),
        row("dice", truth, 1.0, "dice"),
    ]
    return pd.DataFrame(rows)


def test_the_panel_shows_every_column_and_its_dice(table):
    with style.applied("panel"):
        drawing, data, _, alt = public.panel({"panel": table})
    assert [axis.get_title(loc="center") for axis in drawing.axes] == ["image", "truth", "ce", "dice"]
    assert [axis.get_xlabel() for axis in drawing.axes] == ["", "", "0.00", "1.00"]
    assert "pixels" not in data and "dice 1.00" in alt


def test_without_its_table_the_panel_says_which_command_makes_it():
    with pytest.raises(NothingToDraw, match="tools.panel"):
        public.panel({})


def test_the_window_is_square_inside_the_image_and_holds_the_object(table):
    truth = public.picture(table.iloc[1])
    window = public.crop(truth)
    assert truth[window].sum() == truth.sum()
    assert {s.stop - s.start for s in window} == {24}
    assert public.crop(np.zeros((16, 16), np.uint8)) == (slice(None), slice(None))


def test_the_image_is_the_median_of_those_that_hold_every_class():
    one = {"image": [1, 2, 3, 4], "dice@0.5": [0.1, 0.5, 0.9, None]}
    two = {"image": [1, 2, 3, 4], "dice@0.5": [0.2, 0.6, 0.8, 1.0]}
    assert panel.choose([one, two]) == 2
