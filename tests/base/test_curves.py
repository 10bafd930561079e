"""What the course of a training says: noise and speed of a curve that can be worked out on paper."""

import math

import numpy as np
import pytest

from lossbench.base import curves


def curve(noise, steps=100, fall=30):
    """A loss that falls from 2 to 1 within ``fall`` steps and then swings about 1 with period four: up, on
    it, down, on it.
    """
    return [*np.linspace(2, 1, fall), *(1 + noise * (0, 1, 0, -1)[i % 4] for i in range(steps - fall))]


def test_the_noise_of_a_loss_is_its_spread_about_the_running_median_over_its_fall():
    loss = curve(0.1)
    swings = np.array(loss[50:]) - 1  # the running median is 1 throughout the second half
    expected = swings.std(ddof=1) / (np.mean(loss[:5]) - np.mean(loss[-20:]))
    found = curves.summary({"train_loss": loss}, {})
    assert found["loss_noise"] == pytest.approx(expected)
    assert found["log_loss_noise"] == pytest.approx(math.log(expected))


def test_twice_the_loss_is_as_noisy_and_twice_the_noise_twice_as_noisy():
    one, scaled, twice = (
        curves.summary({"train_loss": c}, {})["loss_noise"]
        for c in (curve(0.1), [7 * x for x in curve(0.1)], curve(0.2))
    )
    assert scaled == pytest.approx(one)
    assert twice == pytest.approx(2 * one, rel=0.1)


def test_the_gradient_noise_is_that_of_its_logarithm():
    swings = 0.3 * np.array([(0, 1, 0, -1)[i % 4] for i in range(100)])
    found = curves.summary({"grad_norm": list(5 * np.exp(swings))}, {})
    assert found["grad_noise"] == pytest.approx(swings[50:].std(ddof=1))
    assert found["log_grad_noise"] == pytest.approx(math.log(found["grad_noise"]))


def test_a_loss_that_falls_while_dice_rises_tracks_it_and_a_shuffled_dice_less():
    steps = {"train_loss": list(np.linspace(2, 1, 100))}
    at = [10 * i for i in range(1, 11)]
    rising = curves.summary(steps, {"step": at, "val_dice": [i / 20 for i in range(1, 11)]})
    assert rising["loss_tracks_dice"] == pytest.approx(1)
    mixed = curves.summary(steps, {"step": at, "val_dice": [0, 0, 0, 0, 0, 0.3, 0.5, 0.1, 0.4, 0.2]})
    assert mixed["loss_tracks_dice"] == pytest.approx(abs(1 - 6 * (2**2 + 3**2 + 2**2 + 0 + 3**2) / (5 * 24)))


def test_steps_to_half_is_the_first_validated_step_there_or_one_more_than_all():
    at = {"step": [20, 40, 60]}
    assert curves.summary({}, at | {"val_dice": [0.1, 0.5, 0.4]})["steps_to_half"] == 40
    assert curves.summary({}, at | {"val_dice": [0.1, None, 0.4]})["steps_to_half"] == 61
    assert math.isnan(curves.summary({}, {})["steps_to_half"])


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
    assert math.isnan(curves.summary({"train_loss": loss}, {})["loss_noise"])
