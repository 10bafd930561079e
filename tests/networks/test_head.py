"""The prior head: the softmax of the bias is the frequency of the classes, in whatever network."""

import math

import pytest
import torch
from torch import nn

from lossbench.base.errors import UserError
from lossbench.networks.initial import find_heads, prior_bias, set_head
from lossbench.networks.stack import Stack


class Summed(nn.Module):
    """Two heads whose logits are summed, one after a bilinear enlargement."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)

    def forward(self, x):
        deep = nn.functional.avg_pool2d(x, 4)
        return nn.functional.interpolate(self.low(deep), size=x.shape[2:], mode="bilinear") + self.high(x)


class Scaled(nn.Module):
    """A bias that reaches the logits doubled, and a scale of one number a class."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 3, 1), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return 2 * self.conv(x) * self.scale.view(1, 3, 1, 1)


IMAGES = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_softmax_of_the_bias_is_the_frequency_of_the_classes():
    assert prior_bias([0.99, 0.01]).tolist() == pytest.approx([math.log(99) / 2, -math.log(99) / 2])
    assert prior_bias([0.7, 0.2, 0.1]).softmax(0).tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert float(prior_bias([0.5, 0.3, 0.2]).sum()) == pytest.approx(0, abs=1e-6)


def test_a_class_that_never_occurs_gets_a_finite_bias():
    assert float(prior_bias([1.0, 0.0]).softmax(0)[1]) == pytest.approx(1e-6, rel=1e-4)


def test_of_summed_heads_the_first_is_set_and_the_others_are_zero():
    module, bias = Summed(), prior_bias([0.8, 0.15, 0.05])
    names = find_heads(module, IMAGES, 3)
    assert names == ["low.bias", "high.bias"]
    before = module(IMAGES) - module.low.bias.view(1, 3, 1, 1) - module.high.bias.view(1, 3, 1, 1)
    set_head(module, bias, names)
    assert torch.allclose(module(IMAGES), before + bias.view(1, 3, 1, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("module", "tried"),
    [
        (Scaled(), "'scale', 'conv.bias'"),
        (nn.Conv2d(1, 3, 1, bias=False), "it has none of length 3"),
        (nn.Sequential(nn.Conv2d(1, 3, 1), nn.Softmax(1)), "'0.bias'"),
    ],
)
def test_a_network_without_such_a_bias_is_refused_and_stays_as_it_was(module, tried):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError, match=f"no bias that shifts its logits one for one.*{tried}"):
        find_heads(module.train(), IMAGES, 3)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_each_cell_of_a_stack_has_the_bias_of_its_own_data(fitted):
    network = fitted("unet(widths=[4, 8])")
    priors = [prior_bias([0.99, 0.01]), prior_bias([0.6, 0.4])]
    stack = Stack(network, [network.start(1, bias) for bias in priors])
    for cell, bias in enumerate(priors):
        own, default = stack.weights(cell), network.start(1)
        assert torch.equal(own["head.bias"], bias)
        assert all(torch.equal(own[name], default[name]) for name in own if name != "head.bias")
