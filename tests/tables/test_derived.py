"""Derived columns equal what a hand can compute from a small record, and are nan where the record cannot
tell.
"""

import math

import numpy as np
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


def curve(noise, steps=100, fall=30):
    """A loss that falls from 2 to 1 within ``fall`` steps and then swings about 1 with period four: up, on
    it, down, on it.
    """
    return [*np.linspace(2, 1, fall), *(1 + noise * (0, 1, 0, -1)[i % 4] for i in range(steps - fall))]


def test_the_noise_of_a_loss_is_its_spread_about_the_running_median_over_its_fall():
    loss = curve(0.1)
    swings = np.array(loss[50:]) - 1  # the running median is 1 throughout the second half
    expected = swings.std(ddof=1) / (np.mean(loss[:5]) - np.mean(loss[-20:]))
    found = derived.training({"train_loss": loss}, {})
    assert found["loss_noise"] == pytest.approx(expected)
    assert found["log_loss_noise"] == pytest.approx(math.log(expected))


def test_twice_the_loss_is_as_noisy_and_twice_the_noise_twice_as_noisy():
    one, scaled, twice = (
        derived.training({"train_loss": c}, {})["loss_noise"]
        for c in (curve(0.1), [7 * x for x in curve(0.1)], curve(0.2))
    )
    assert scaled == pytest.approx(one)
    assert twice == pytest.approx(2 * one, rel=0.1)


def test_the_gradient_noise_is_that_of_its_logarithm():
    swings = 0.3 * np.array([(0, 1, 0, -1)[i % 4] for i in range(100)])
    found = derived.training({"grad_norm": list(5 * np.exp(swings))}, {})
    assert found["grad_noise"] == pytest.approx(swings[50:].std(ddof=1))
    assert found["log_grad_noise"] == pytest.approx(math.log(found["grad_noise"]))


def test_a_loss_that_falls_while_dice_rises_tracks_it_and_a_shuffled_dice_less():
    steps = {"train_loss": list(np.linspace(2, 1, 100))}
    at = [10 * i for i in range(1, 11)]
    rising = derived.training(steps, {"step": at, "val_dice": [i / 20 for i in range(1, 11)]})
    assert rising["loss_tracks_dice"] == pytest.approx(1)
    mixed = derived.training(steps, {"step": at, "val_dice": [0, 0, 0, 0, 0, 0.3, 0.5, 0.1, 0.4, 0.2]})
    assert mixed["loss_tracks_dice"] == pytest.approx(abs(1 - 6 * (2**2 + 3**2 + 2**2 + 0 + 3**2) / (5 * 24)))


def test_steps_to_half_is_the_first_validated_step_there_or_one_more_than_all():
    at = {"step": [20, 40, 60]}
    assert derived.training({}, at | {"val_dice": [0.1, 0.5, 0.4]})["steps_to_half"] == 40
    assert derived.training({}, at | {"val_dice": [0.1, None, 0.4]})["steps_to_half"] == 61
    assert math.isnan(derived.training({}, {})["steps_to_half"])


@pytest.mark.parametrize(
    "loss",
    [
        [],
        [1.0] * 10,
        [1.0] * 100,
        list(np.linspace(1, 2, 100)),
        [*curve(0.1)[:-1], None],
        [*curve(0.1)[:-1], math.inf],
    ],
)
def test_curves_that_are_short_flat_rising_or_not_finite_have_no_noise(loss):
    assert math.isnan(derived.training({"train_loss": loss}, {})["loss_noise"])


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
