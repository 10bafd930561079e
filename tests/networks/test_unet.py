"""The stacked network computes for each cell what that cell alone would compute."""

import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_network, parse_network
from lossbench.networks.build import Network
from lossbench.networks.initial import weights_hash
from lossbench.networks.stack import Stack
from lossbench.networks.unet import halve


def double(network, seeds):
    return [{k: v.double() for k, v in network.start(seed).items()} for seed in range(seeds)]


def alone(network, start):
    module = network.build().double()
    module.load_state_dict(start)
    return module


@pytest.mark.parametrize("dims", [2, 3])
def test_a_stack_equals_its_cells(dims):
    network = Network(parse_network("unet(widths=[4, 8, 16])"), 2, 3, (8,) * dims)
    starts = double(network, 3)
    inputs = torch.randn(2, 3, 2, *network.shape, dtype=torch.float64)
    stack = Stack(network, starts)
    together, inferred = stack(inputs.flatten(1, 2)), stack.infer(inputs.flatten(1, 2))
    assert inferred.is_contiguous()
    for cell, start in enumerate(starts):
        expected = alone(network, start)(inputs[:, cell])
        assert torch.allclose(together[:, cell], expected, atol=1e-10)
        assert torch.allclose(inferred[:, cell], expected, atol=1e-10)
        assert weights_hash(stack.weights(cell)) == weights_hash(start)


def test_gradients_of_a_stack_equal_those_of_its_cells():
    network = Network(parse_network("unet(widths=[4, 8])"), 1, 2, (8, 8))
    starts = double(network, 2)
    inputs = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    stack = Stack(network, starts)
    out = stack(inputs)
    (out[:, 0].square().mean() + out[:, 1].exp().mean()).backward()
    slopes = {name: value.grad.view(2, -1) for name, value in stack.module.named_parameters()}
    losses = (lambda z: z.square().mean(), lambda z: z.exp().mean())
    for cell, (start, loss) in enumerate(zip(starts, losses, strict=True)):
        single = alone(network, start)
        loss(single(inputs[:, cell : cell + 1])).backward()
        for name, parameter in single.named_parameters():
            assert torch.allclose(slopes[name][cell], parameter.grad.flatten(), atol=1e-10, rtol=0), name


def test_the_start_depends_on_the_seed_alone_and_leaves_the_global_stream_untouched():
    network = Network(parse_network("unet"), 1, 2, (8, 8))
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one = weights_hash(network.start(7))
    assert torch.rand(1) == before
    assert one == weights_hash(network.start(7)) != weights_hash(network.start(8))


def test_the_start_of_a_seed_is_the_one_that_protocol_1_trained_from():
    """Computed by the code of protocol 1: records of both pair only while this holds."""
    network = Network(parse_network("unet(widths=[8, 16, 32])"), 1, 2, (64, 64))
    assert weights_hash(network.start(0)) == "d84300febb430eef"


@pytest.mark.parametrize("widths", ["[8]", "[8, 0]", "[8, 1.5]", "8", "'wide'"])
def test_widths_that_make_no_network_are_refused(widths):
    with pytest.raises(UserError, match="'widths' of network 'unet' must be 2 to 6 whole numbers"):
        get_network(f"unet(widths={widths})")


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
