"""The stacked network computes for each cell what that cell alone would compute."""

import pytest
import torch

from lossbench.networks.unet import Stack, UNet, halve, initial_weights, weights_hash


@pytest.mark.parametrize("dims", [2, 3])
def test_a_stack_equals_its_cells(dims):
    size = (8,) * dims
    starts = [
        {k: v.double() for k, v in initial_weights(2, 3, (4, 8, 16), dims, seed).items()} for seed in range(3)
    ]
    inputs = torch.randn(2, 3, 2, *size, dtype=torch.float64)
    stack = Stack(starts, 2, 3, (4, 8, 16), dims)
    together = stack(inputs.reshape(2, 6, *size))
    for cell, start in enumerate(starts):
        alone = UNet(2, 3, (4, 8, 16), dims).double()
        alone.load_state_dict(start)
        assert torch.allclose(together[:, cell], alone(inputs[:, cell])[:, 0], atol=1e-10)
        assert weights_hash(stack.weights(cell)) == weights_hash(start)


def test_gradients_of_a_stack_equal_those_of_its_cells():
    starts = [{k: v.double() for k, v in initial_weights(1, 2, (4, 8), 2, seed).items()} for seed in range(2)]
    inputs = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    stack = Stack(starts, 1, 2, (4, 8), 2)
    out = stack(inputs)
    (out[:, 0].square().mean() + out[:, 1].exp().mean()).backward()
    slopes = {name: value.grad.view(2, -1) for name, value in stack.network.named_parameters()}
    for cell, (start, loss) in enumerate(
        zip(starts, (lambda z: z.square().mean(), lambda z: z.exp().mean()), strict=True)
    ):
        alone = UNet(1, 2, (4, 8), 2).double()
        alone.load_state_dict(start)
        loss(alone(inputs[:, cell : cell + 1])[:, 0]).backward()
        for name, parameter in alone.named_parameters():
            assert torch.allclose(slopes[name][cell], parameter.grad.flatten(), atol=1e-10, rtol=0), name


def test_the_start_depends_on_the_seed_alone_and_leaves_the_global_stream_untouched():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one = weights_hash(initial_weights(1, 2, (8, 16), 2, 7))
    assert torch.rand(1) == before
    assert (
        one
        == weights_hash(initial_weights(1, 2, (8, 16), 2, 7))
        != weights_hash(initial_weights(1, 2, (8, 16), 2, 8))
    )


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 2, 6, 10), (2, 1, 2, 2), (2, 3, 4, 6, 8)])
@pytest.mark.parametrize("kinds", [2, 4, 0])
def test_halving_is_max_pooling_bit_for_bit_and_so_is_its_gradient(shape, kinds):
    """With few kinds of numbers most windows hold their maximum several times: the first place gets the
    gradient.
    """
    generator = torch.Generator().manual_seed(kinds)
    x = (
        torch.randint(0, kinds, shape, generator=generator).float() - 1
        if kinds
        else torch.randn(shape, generator=generator)
    )
    pool = torch.nn.functional.max_pool2d if x.ndim == 4 else torch.nn.functional.max_pool3d
    assert torch.equal(halve(x), pool(x, 2))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    slope = torch.randn(pool(x, 2).shape, generator=generator)
    for own, function in ((ours, halve), (theirs, lambda y: pool(y, 2))):
        found = function(own)
        assert torch.equal(found, pool(x, 2))
        found.backward(slope)
    assert torch.equal(ours.grad, theirs.grad)


def test_halving_keeps_what_is_not_a_number():
    x = torch.zeros(1, 1, 2, 4)
    x[0, 0, 1, 1] = torch.nan
    assert halve(x).isnan().tolist() == [[[[True, False]]]]
    assert halve(x.requires_grad_()).isnan().tolist() == [[[[True, False]]]]
