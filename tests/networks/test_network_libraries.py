"""Networks of MONAI, segmentation-models-pytorch and torchvision: one tensor of logits, nothing downloaded,
the head found.
"""

import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_network, parse_network
from lossbench.networks import contract
from lossbench.networks.build import Network, check_shape, divisor, heads
from lossbench.networks.initial import prior_bias

RESNET = "smp:Unet(encoder_name='resnet18', encoder_weights=None)"
BASIC = "monai:BasicUNet(features=[4, 4, 8, 8, 8, 4])"
RESIDUAL = "monai:UNet(channels=[4, 8], strides=[2], num_res_units=1)"
LRASPP = "torchvision:lraspp_mobilenet_v3_large"
LRASPP_HEADS = ("classifier.low_classifier.bias", "classifier.high_classifier.bias")

peers = pytest.mark.peers


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any download would end here."""

    def refuse(*arguments, **options):
        raise AssertionError("something was downloaded")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.parametrize(
    ("text", "in_channels", "shape", "found"),
    [
        pytest.param(RESNET, 1, (64, 64), ("segmentation_head.0.bias",), marks=peers),
        pytest.param(BASIC, 2, (32, 32), ("final_conv.bias",), marks=peers),
        pytest.param(BASIC, 1, (32, 32, 32), ("final_conv.bias",), marks=peers),
        pytest.param(RESIDUAL, 1, (16, 16), ("model.2.1.conv.unit0.conv.bias",), marks=peers),
        (LRASPP, 1, (64, 64), LRASPP_HEADS),
        (LRASPP, 3, (64, 64), LRASPP_HEADS),
    ],
)
def test_logits_have_the_size_of_the_images_and_the_prior_head_is_found(text, in_channels, shape, found):
    network = Network(parse_network(text), in_channels, 3, shape)
    check_shape(network)
    assert heads(network) == found
    bias = prior_bias([0.9, 0.07, 0.03])
    module, plain = network.build(), network.build()
    module.load_state_dict(network.start(0, bias))
    plain.load_state_dict({**network.start(0), **dict.fromkeys(found, torch.zeros(3))})
    apart = module.eval()(network.images()) - plain.eval()(network.images())
    assert torch.allclose(apart, bias.view(1, 3, *[1] * len(shape)).expand_as(apart), atol=1e-5)


def test_the_first_convolution_takes_as_many_channels_as_the_images_have():
    assert get_network(LRASPP, 4).backbone["0"][0].weight.shape == (16, 4, 3, 3)


@peers
@pytest.mark.parametrize(
    ("text", "shape", "part"),
    [
        (RESNET, (32, 32, 32), "smp:Unet is for 2-D images, the data set is 3-D"),
        (LRASPP, (32, 32, 32), "is for 2-D images"),
        ("smp:Unett", (32, 32), "not one of its segmentation networks; did you mean 'Unet'"),
        ("smp:DiceLoss", (32, 32), "not one of its segmentation networks"),
        ("smp:Unet(encoder_nam='x')", (32, 32), "no argument 'encoder_nam'; did you mean 'encoder_name'"),
        ("smp:Unet(encoder_name='resnet1')", (32, 32), "is refused by the library: .*resnet1"),
        ("smp:Unet(classes=3)", (32, 32), "'classes' of smp:Unet is set by lossbench"),
        ("monai:UNet", (32, 32), "refused by the library: .*channels"),
        ("monai:SegResNetVAE(input_image_size=[32, 32])", (32, 32), "in training: it returns a tuple"),
        ("smp:Segformer(encoder_name='resnet18')", (48, 64), "every side must be divisible by 32"),
    ],
)
def test_what_a_library_cannot_do_is_refused_in_a_sentence(text, shape, part):
    with pytest.raises(UserError, match=part):
        check_shape(Network(parse_network(text), 1, 2, shape))


@peers
def test_sides_are_found_for_networks_that_do_not_say():
    assert divisor(Network(parse_network(RESIDUAL), 1, 2, (16, 16))) == 2
    assert divisor(Network(parse_network(RESIDUAL), 1, 2, (16, 16, 16))) == 2


@peers
@pytest.mark.slow
@pytest.mark.parametrize("text", [RESNET, BASIC, LRASPP])
def test_a_librarys_network_passes_the_check(text):
    report = contract.run(text)
    assert report.passed, [row for row in report.rows if row.passed is False]
