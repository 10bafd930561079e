"""Derived columns equal what a hand can compute from a small record, and are nan where the record cannot
tell.
"""

import math

import pytest

from lossbench.tables import derived

RECIPE = {
    "learning_rate": 0.005,
    "steps": 100,
    "batch": 4,
    "optimizer": "adamw",
    "augment": "flips",
    "widths": [4, 8],
}


def test_dice_by_fifth_of_size_leaves_absent_objects_out():
    size = [0, 5, 3, 1, 2, 4, 10, 9, 8, 7, 6]
    images = {"size": size, "dice@0.5": [None, *(s / 10 for s in size[1:])], "class": ["object"] * 11}
    found = derived.by_size(images)
    assert [found[f"dice_q{q}@0.5"] for q in range(1, 6)] == pytest.approx([0.15, 0.35, 0.55, 0.75, 0.95])
    assert found["dice_rarest@0.5"] == pytest.approx(0.55)
    assert math.isnan(found["dice_q1@val"])


def test_the_rarest_class_is_that_with_the_fewest_test_pixels_among_those_present():
    images = {
        "class": ["a", "b", "c", "a", "b", "c"],
        "size": [100, 9, 0, 100, 0, 0],
        "dice@val": [0.9, 0.4, None, 0.7, None, None],
    }
    assert derived.by_size(images)["dice_rarest@val"] == pytest.approx(0.4)
    assert math.isnan(derived.by_size(images)["dice_q1@val"])  # three objects have no fifths


def test_no_object_at_all_has_no_dice_by_size():
    assert all(
        math.isnan(v)
        for v in derived.by_size({"size": [0, 0], "class": ["a", "a"], "dice@0.5": [None, None]}).values()
    )


def test_recipes_that_differ_only_in_learning_rate_are_one_family():
    first, second = (derived.recipe(RECIPE | {"learning_rate": rate}) for rate in (0.005, 0.015))
    longer = derived.recipe(RECIPE | {"steps": 400})
    assert first["recipe.family"] == second["recipe.family"] != longer["recipe.family"]
    rates = [columns["recipe.learning_rate"] for columns in (first, second)]
    assert rates == [0.005, 0.015] and longer["recipe.steps"] == 400


def test_a_tuned_rate_is_the_one_that_the_cell_was_given():
    assert derived.recipe(RECIPE | {"learning_rate": "tuned"}, 0.02)["recipe.learning_rate"] == 0.02


def test_every_record_gives_the_same_columns():
    bare = derived.derived({"cell": {}}, {})
    full = derived.derived(
        {
            "cell": {"recipe": RECIPE},
            "outcome": "collapsed",
            "images": {"size": [3], "class": ["a"], "dice@0.5": [1.0]},
        },
        RECIPE,
    )
    assert list(bare) == list(full) and full["collapsed"] == 1
