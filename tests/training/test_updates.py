"""All cells of a stack are updated at once, to the bit as PyTorch's optimisers update each by itself."""

import math

import pytest
import torch

from lossbench.catalogue.registry import parse_network
from lossbench.experiment.cells import Recipe
from lossbench.networks.build import Network
from lossbench.networks.stack import Stack
from lossbench.training.optim import clip, learning_rate, optimizer

STEPS = 12
NETWORK = Network(parse_network("unet(widths=[4, 8])"), 1, 3, (8, 8))


@pytest.mark.parametrize("schedule", ["one_cycle", "constant", "poly"])
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_the_learning_rate_is_positive_and_never_above_its_peak(schedule, steps):
    recipe = Recipe(schedule=schedule, steps=steps, learning_rate=0.1)
    rates = [learning_rate(recipe, step, 0.1) for step in range(steps)]
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in rates) and rates[0] > 0


# Several rates, one rate of all cells, one cell; whole, and in pieces that end anywhere.
@pytest.mark.parametrize("tops, piece", [([0.01, 0.003, 0.01], 2**17), ([0.01] * 3, 50), ([0.01], 50)])
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "weight_decay": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.0, "schedule": "constant"},
        {"optimizer": "sgd", "weight_decay": 0.01, "momentum": 0.9, "schedule": "poly"},
        {"optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.0},
    ],
)
def test_weights_are_those_of_torch_optim_bit_for_bit(settings, limit, tops, piece, monkeypatch):
    monkeypatch.setattr("lossbench.networks.stack.PIECE", piece)
    recipe = Recipe(steps=STEPS, clip=limit, **settings)
    starts = [NETWORK.start(seed) for seed in range(len(tops))]
    stack = Stack(NETWORK, starts)
    update = optimizer(stack, recipe, tops)
    theirs = []
    for start, top in zip(starts, tops, strict=True):
        cell = {name: value.clone().requires_grad_() for name, value in start.items()}
        if recipe.optimizer == "adamw":
            theirs.append(
                (cell, torch.optim.AdamW(cell.values(), weight_decay=recipe.weight_decay, foreach=True), top)
            )
        else:
            options = {
                "momentum": recipe.momentum,
                "nesterov": recipe.momentum > 0,
                "weight_decay": recipe.weight_decay,
            }
            theirs.append((cell, torch.optim.SGD(cell.values(), lr=0.0, foreach=True, **options), top))
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        norms = []
        for number, (cell, optimiser, top) in enumerate(theirs):
            for name, value in cell.items():
                value.grad = torch.randn(value.shape, generator=generator)
                stack.slopes[stack.parts[name]].view(len(tops), -1)[number] = value.grad.flatten()
            norms.append(torch.nn.utils.clip_grad_norm_(cell.values(), math.inf if limit is None else limit))
            optimiser.param_groups[0]["lr"] = learning_rate(recipe, step, top)
            optimiser.step()
        with torch.no_grad():
            assert torch.equal(clip(stack, limit), torch.stack(norms))
            update(torch.tensor([step]))
    for number, (cell, _, _) in enumerate(theirs):
        found = stack.weights(number)
        assert all(torch.equal(found[name], value) for name, value in cell.items())
        assert not torch.equal(found["head.weight"], starts[number]["head.weight"])


def test_numbers_between_layers_stay_nought():
    stack = Stack(NETWORK, [NETWORK.start(seed) for seed in range(2)])
    update = optimizer(stack, Recipe(steps=3), [0.01, 0.01])
    stack(torch.randn(2, 2, 8, 8)).square().mean().backward()
    update(torch.tensor([0]))
    used = torch.zeros(len(stack.values), dtype=torch.bool)
    for part in stack.parts.values():
        used[part] = True
    assert 0 < used.sum() < len(used) and stack.values[~used].abs().max() == 0
