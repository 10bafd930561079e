"""Any module trains by the same interface; what a network demands is found by trying it, and said in a
sentence.
"""

import random

import numpy as np
import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_network, networks, parse_network
from lossbench.networks.build import check_shape, divisor
from lossbench.networks.initial import weights_hash
from lossbench.networks.stack import Stack


def trained(network, seeds=(1,), steps=3):
    """Return a stack after some steps of descent, the same in every cell."""
    stack = Stack(network, [network.start(seed) for seed in seeds])
    for step in range(steps):
        images = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(step))
        stack.slopes.zero_()
        stack(images.repeat(1, len(stack), 1, 1), seed=step).square().mean((0, 2, 3, 4)).sum().backward()
        stack.values -= 0.1 * stack.slopes
    return stack


def test_a_spec_names_a_network_with_all_its_parameters(own):
    spec = parse_network("tiny(dropout=0.5, width=4)", [own])
    assert spec.text == "tiny(width=4)" and spec.identity() == ["tiny", {"width": 4, "dropout": 0.5}]
    assert parse_network("unet(widths=[8, 16, 32])") == parse_network("unet")
    assert parse_network("smp:Unet(encoder_weights=None)").text == "smp:Unet"
    assert set(networks()) == {"unet"} and "tiny" in networks([own])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("unett", "unknown network 'unett'; did you mean 'unet'"),
        ("unet(width=8)", "has no parameter 'width'; did you mean 'widths'"),
        ("tiny(width='wide')", "'width' of network 'tiny' must be a whole number"),
        ("grouped(cells=3)", "has no parameter 'cells'"),
        ("unet + tiny", "is not one network"),
        ("kornia:Unet", "the libraries are monai, smp, torchvision"),
        ("smp:Unet(encoder_weights='imagenet')", "would download trained weights"),
        ("unet(", "write it like 'unet"),
    ],
)
def test_a_bad_spec_gets_one_sentence(own, text, part):
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        parse_network(text, [own])


def test_a_builder_that_takes_something_else_is_refused_where_it_stands(tmp_path):
    file = tmp_path / "odd.py"
    file.write_text("from lossbench import network\n@network('odd')\ndef odd(channels):\n    pass\n")
    with pytest.raises(
        UserError, match=r"odd.py:3: network 'odd' must take \(in_channels, classes, dims, \*"
    ):
        networks([file])


@pytest.mark.parametrize("dims", [2, 3])
def test_get_network_maps_images_to_logits(own, dims):
    for text in ("unet(widths=[4, 8])", "tiny"):
        module = get_network(text, 3, 4, dims, extra_files=[own])
        assert module(torch.randn(2, 3, *[8] * dims)).shape == (2, 4, *[8] * dims)


@pytest.mark.parametrize(
    ("text", "shape", "part"),
    [
        ("unet", (18, 16), "images of 18x16 do not fit network 'unet': every side must be divisible by 4"),
        ("eights", (20, 16), "every side must be divisible by 8"),
        ("halves", (16, 16), r"in training: it returns \(2, 2, 8, 8\) instead of logits \(2, 2, 16, 16\)"),
        ("pair", (16, 16), "it returns a tuple instead of logits"),
        ("raises", (16, 16), r"cannot be built for 2-D images .*ValueError: no such layer \(my_net.py:\d+\)"),
        ("a_list", (16, 16), "must be built as a torch.nn.Module, got a list"),
        ("eights", (16, 16, 16), "do not fit network 'eights' in training: RuntimeError"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_refused(fitted, text, shape, part):
    with pytest.raises(UserError, match=part):
        check_shape(fitted(text, shape=shape))


def test_normalisation_over_a_batch_of_one_pixel_is_refused_before_training(fitted):
    with pytest.raises(UserError, match="in training: ValueError: Expected more than 1 value per channel"):
        check_shape(fitted("tiny", shape=(1, 1)), batch=1)


@pytest.mark.parametrize(("text", "step"), [("unet(widths=[4, 4, 4, 4])", 8), ("eights", 8), ("tiny", 1)])
def test_what_sides_must_be_divisible_by_is_found_by_trying(fitted, text, step):
    assert divisor(fitted(text)) == step


def test_a_network_without_weights_is_refused(fitted):
    with pytest.raises(UserError, match="has no weights to train"):
        Stack(fitted("nothing", classes=1), [{}])


def test_dropout_and_batch_normalisation_give_the_same_bits_again_and_touch_no_global_stream(fitted):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again = trained(fitted("tiny")), trained(fitted("tiny"))
    assert one.draws and torch.equal(before, torch.get_rng_state())
    assert weights_hash(one.weights(0)) == weights_hash(again.weights(0))
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(one(images, seed=1), one(images, seed=1))
    assert not torch.equal(one(images, seed=1), one(images, seed=2))


def test_what_a_network_draws_from_numpy_and_python_comes_from_the_seed_too(fitted):
    before = random.getstate(), np.random.get_state()[1].tolist()
    one, again = trained(fitted("lucky")), trained(fitted("lucky"))
    assert weights_hash(one.weights(0)) == weights_hash(again.weights(0))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_what_another_thread_draws_meanwhile_is_no_draw_of_the_network(fitted):
    stack = Stack(network := fitted("unet(widths=[4, 8])"), [network.start(seed) for seed in (1, 2)])
    stack.module.register_forward_hook(lambda *_: random.random() + np.random.rand() < 0 or None)
    stack(torch.zeros(2, 2, 16, 16))
    assert stack.draws is False


def test_evaluation_uses_running_means_which_are_kept_with_the_weights(fitted):
    network = fitted("tiny")
    stack, images = trained(network), torch.randn(4, 1, 16, 16)
    seen = stack.infer(images)
    assert torch.equal(seen, stack.infer(images)) and not seen.requires_grad
    assert torch.allclose(seen[:1], stack.infer(images[:1]), atol=1e-6)
    kept = stack.weights(0)
    assert int(kept["1.num_batches_tracked"]) == 3
    other = Stack(network, [network.start(9)])
    other.load([kept])
    assert torch.equal(other.infer(images), seen)
    assert weights_hash(other.weights(0)) == weights_hash(kept) != weights_hash(network.start(1))


def test_cells_of_a_grouped_network_of_ones_own_train_as_alone(fitted):
    network = fitted("grouped")
    together = trained(network, seeds=(1, 2, 3))
    for cell, seed in enumerate((1, 2, 3)):
        alone = trained(network, seeds=(seed,)).weights(0)
        for name, value in together.weights(cell).items():
            assert torch.allclose(value, alone[name], atol=1e-5), name


def test_a_grouped_network_that_draws_trains_alone_or_not_at_all(fitted):
    network = fitted("grouped(dropout=0.5)")
    trained(network)
    with pytest.raises(UserError, match="draws random numbers, so its cells cannot be grouped"):
        trained(network, seeds=(1, 2))


def test_weights_of_all_kinds_lie_in_one_vector_and_are_shared_where_the_module_shares_them(tmp_path):
    file = tmp_path / "tied.py"
    file.write_text(
        "import torch\nfrom torch import nn\nfrom lossbench import network\n@network('tied')\n"
        "def tied(in_channels, classes, dims):\n"
        "    class Tied(nn.Module):\n"
        "        def __init__(self):\n"
        "            super().__init__()\n"
        "            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)\n"
        "            self.b.weight, self.scale = self.a.weight, nn.Parameter(torch.tensor(2.0))\n"
        "            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)\n"
        "        def forward(self, x):\n"
        "            return self.b(self.a(x)) * self.scale * self.frozen.view(1, 2, 1, 1)\n"
        "    return Tied()\n"
    )
    from lossbench.networks.build import Network

    network = Network(parse_network("tied", [file]), 1, 2, (16, 16))
    stack = trained(network)
    assert set(stack.parts) == {"a.weight", "a.bias", "b.bias", "scale"}
    end, start = stack.weights(0), network.start(1)
    assert torch.equal(end["a.weight"], end["b.weight"]) and torch.equal(end["frozen"], torch.ones(2))
    assert all(not torch.equal(end[name], start[name]) for name in stack.parts)
