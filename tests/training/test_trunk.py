"""Lengths that share a trunk: the same numbers as each trained alone, and after a break at any step."""

import io
import math

import numpy as np
import pytest
import torch

from lossbench.catalogue.registry import get_dataset, get_loss
from lossbench.engine.worker import sentence
from lossbench.experiment.cells import Cell, Recipe
from lossbench.networks.initial import weights_hash
from lossbench.training.blocks import Job
from lossbench.training.optim import learning_rate
from lossbench.training.train import Training, train

SPEC = "scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=8)"
LENGTHS = (10, 20, 40)


def recipe(steps, **changes):
    base = {"batch": 4, "widths": (4, 8), "validations": 2, "schedule": "wsd", "warmup": 3}
    return Recipe.model_validate({**base, "steps": steps, **changes})


def job(loss, steps, function=None, **changes):
    cell = Cell.of(SPEC, loss, 0, recipe(steps, **changes))
    return Job(cell, get_dataset(SPEC, 0), function or get_loss(cell.loss))


def cross(losses=("ce", "dice"), lengths=LENGTHS, **changes):
    return [job(loss, steps, **changes) for steps in lengths for loss in losses]


def assert_same(one, other):
    assert weights_hash(one.weights) == weights_hash(other.weights)
    assert (one.train_loss, one.grad_norm) == (other.train_loss, other.grad_norm)
    assert (one.certificate, one.best) == (other.certificate, other.best)
    for name, curve in one.curves.items():
        np.testing.assert_array_equal(curve, other.curves[name])
    assert repr(one.scores) == repr(other.scores)


@pytest.fixture(scope="module")
def alone():
    """Every length trained by itself."""
    return [left for steps in LENGTHS for left in train(cross(lengths=(steps,)))]


def test_the_rate_rises_over_the_warm_up_stays_and_falls_over_the_last_fifth():
    rates = [learning_rate(recipe(10, warmup=2), step, 1.0) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1 - math.sqrt(0.5)])


def test_a_warm_up_that_does_not_end_before_the_decay_is_refused():
    with pytest.raises(ValueError, match="10 steps are too few for a warm-up of 8"):
        recipe(10, warmup=8)


def test_cells_share_a_trunk_where_only_their_steps_differ():
    cells = {name: job(*name).cell for name in (("ce", 10), ("ce", 20), ("dice", 10), ("ce_to_dice", 10))}
    assert cells["ce", 10].trunk == cells["ce", 20].trunk != cells["dice", 10].trunk
    assert job("ce", 10, batch=2).cell.trunk != cells["ce", 10].trunk
    assert "progress" in cells["ce_to_dice", 10].alone
    assert "'one_cycle' depends" in job("ce", 10, schedule="one_cycle").cell.alone
    assert cells["ce", 10].key != cells["ce", 20].key


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_lengths_that_share_a_trunk_are_bit_identical_to_each_alone(alone, optimizer):
    if optimizer == "sgd":
        alone = [left for steps in LENGTHS for left in train(cross(lengths=(steps,), optimizer="sgd"))]
    for one, other in zip(train(cross(optimizer=optimizer)), alone, strict=True):
        assert_same(one, other)


def test_every_pair_of_lengths_may_share(alone):
    for left_out in LENGTHS:
        lengths = [steps for steps in LENGTHS if steps != left_out]
        expected = [alone[2 * LENGTHS.index(steps) + cell] for steps in lengths for cell in range(2)]
        for one, other in zip(train(cross(lengths=lengths)), expected, strict=True):
            assert_same(one, other)


@pytest.mark.slow
def test_a_training_goes_on_from_the_state_of_any_step_bit_for_bit(alone):
    states = []

    def keep(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append((buffer.getvalue(), set(left)))

    left = {}
    for finished in Training(cross()).run(lambda: True, keep):
        left.update(finished)
    # A step of the trunk or of a decay each: 40 of the longest, and twice a fifth of the others.
    assert len(states) == 40 + 2 + 4
    for data, done in states:
        lengths = [steps for place, steps in enumerate(LENGTHS) if 2 * place not in done]
        again = Training(cross(lengths=lengths))
        again.go_on(torch.load(io.BytesIO(data), weights_only=True))
        rest = {}
        for finished in again.run():
            rest.update(finished)
        assert set(rest) == set(range(6 - len(done)))
        for place, result in rest.items():
            assert_same(result, alone[len(done) + place])


def test_running_means_and_dropout_share_a_trunk_and_go_on_bit_for_bit(own_network):
    def jobs(*lengths):
        fields = {"network": "drop", "batch": 4, "validations": 1, "schedule": "wsd", "warmup": 2}
        recipes = [Recipe.model_validate({**fields, "steps": steps}) for steps in lengths]
        cells = [Cell.of(SPEC, "ce", 0, recipe, [own_network]) for recipe in recipes]
        return [Job(cell, get_dataset(SPEC, 0), get_loss(cell.loss)) for cell in cells]

    short, long = train(jobs(5)), train(jobs(10))
    for one, other in zip(train(jobs(5, 10)), short + long, strict=True):
        assert_same(one, other)
    states = []
    for _ in Training(jobs(5, 10)).run(lambda: True, states.append):
        pass
    for state in states:
        left = sum(rows is not None for rows in state["results"].values())
        again = Training(jobs(5, 10)[-left:])
        again.go_on(state)
        for finished in again.run():
            for place, result in finished.items():
                assert_same(result, (short + long)[-left:][place])


def test_where_a_length_has_been_recorded_since_the_state_was_kept_only_the_trunk_goes_on(alone):
    states = []
    for _ in Training(cross()).run(lambda: True, states.append):
        break
    decaying = Training(cross(lengths=(20, 40)))  # the state is of the last step of length 10
    decaying.go_on(states[-1])
    left = {}
    for finished in decaying.run():
        left.update(finished)
    for place, result in left.items():
        assert_same(result, alone[2 + place])


def test_a_state_of_another_stack_is_refused():
    with pytest.raises(ValueError, match="another stack"):
        Training(cross(("ce",))).go_on(Training(cross(("ce", "dice", "focal"))).state())


@pytest.mark.parametrize("lengths", [LENGTHS, (15, 40)])
def test_a_state_past_a_length_or_without_it_is_refused_and_changes_nothing(alone, lengths):
    states = []
    for steps in zip(LENGTHS, Training(cross()).run(lambda: True, states.append), strict=False):
        if steps[0] == 20:
            break
    training = Training(cross(lengths=lengths))
    with pytest.raises(ValueError, match="does not know all these lengths, or is past one"):
        training.go_on(states[-1])
    *_, last = training.run()
    for one, other in zip(last.values(), alone[-2:], strict=True):
        assert_same(one, other)


def test_a_loss_that_fails_in_the_decay_of_a_short_length_lives_on_in_the_trunk():
    steps = iter(range(1, 1000))

    def tired(logits, target, **_):
        # Two groups a step, since a stack is never of one: step 10 is the last of the short length's decay.
        if torch.is_grad_enabled() and next(steps) in (19, 20):
            raise ValueError("tired")
        return torch.nn.functional.cross_entropy(logits, target)

    short, long = train([job("ce", 10, tired), job("ce", 20, tired)])
    assert short.error == "ValueError in step 10: tired"
    assert long.error is None and len(long.train_loss) == 20


def test_a_loss_whose_error_has_no_text_costs_its_own_cell_alone():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def mute(logits, target, **_):
        raise Mute

    own, other = train([job("ce", 10, mute), job("dice", 10)])
    assert own.error == "Mute in step 1: (its text cannot be made)"
    assert other.error is None and len(other.train_loss) == 10
    assert sentence(Mute()) == "Mute: (its text cannot be made)"


def test_a_not_finite_loss_in_the_trunk_ends_all_lengths():
    def broken(logits, target, **_):
        return (logits * math.nan).mean()

    for left in train([job("ce", 10, broken), job("ce", 20, broken)]):
        assert left.not_finite_at == 1 and len(left.train_loss) == 1
