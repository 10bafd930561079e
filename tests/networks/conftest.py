"""A network of one's own, as the documentation shows one, and others that are wrong."""

import pytest

from lossbench.catalogue.registry import parse_network
from lossbench.networks.build import Network

OWN = '''
"""Networks of my own."""
import random
import numpy as np
import torch
from torch import nn
from lossbench import network


@network("tiny")
def tiny(in_channels, classes, dims, *, width=8, dropout=0.5):
    conv, norm, drop = (
        (nn.Conv2d, nn.BatchNorm2d, nn.Dropout2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.Dropout3d)
    )
    return nn.Sequential(
        conv(in_channels, width, 3, padding=1), norm(width), nn.ReLU(), drop(dropout), conv(width, classes, 1)
    )


@network("grouped")
def grouped(in_channels, classes, dims, *, dropout=0.0, cells):
    return nn.Sequential(
        nn.Conv2d(cells * in_channels, cells * 4, 3, padding=1, groups=cells),
        nn.BatchNorm2d(cells * 4),
        nn.Dropout(dropout),
        nn.Conv2d(cells * 4, cells * classes, 1, groups=cells),
    )


@network("halves")
def halves(in_channels, classes, dims):
    return nn.Conv2d(in_channels, classes, 2, stride=2)


@network("eights")
def eights(in_channels, classes, dims):
    deep = nn.Conv2d(64 * in_channels, 64 * classes, 1)
    return nn.Sequential(nn.PixelUnshuffle(8), deep, nn.PixelShuffle(8))


@network("pair")
def pair(in_channels, classes, dims):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, classes, 1)

        def forward(self, x):
            return self.conv(x), x

    return Pair()


@network("raises")
def raises(in_channels, classes, dims):
    raise ValueError("no such layer")


@network("a_list")
def a_list(in_channels, classes, dims):
    return [nn.Conv2d(in_channels, classes, 1)]


@network("nothing")
def nothing(in_channels, classes, dims):
    return nn.ReflectionPad2d(0)


@network("restless")
def restless(in_channels, classes, dims):
    class Restless(nn.Module):
        """Draws from a generator of its own, normalises over the batch alone, and has an idle weight."""

        def __init__(self):
            super().__init__()
            self.generator = torch.Generator()
            self.generator.seed()
            self.conv = nn.Conv2d(in_channels, classes, 1, bias=False)
            self.norm = nn.BatchNorm2d(classes, track_running_stats=False)
            self.idle = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.norm(self.conv(x + torch.randn(x.shape, generator=self.generator)))

    return Restless()


@network("lucky")
def lucky(in_channels, classes, dims):
    class Lucky(nn.Module):
        """Draws from numpy and Python, as some stochastic depths do."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, classes, 1)

        def forward(self, x):
            return self.conv(x) * (random.random() + np.random.rand())

    return Lucky()


@network("ends_in")
def ends_in(in_channels, classes, dims, *, last="softmax"):
    """A head that starts at zero, one with a bias in 0..1, and three that give probabilities."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, classes, 1)
            if last in ("zero", "positive"):
                nn.init.zeros_(self.conv.weight)
                nn.init.constant_(self.conv.bias, 0.1 if last == "positive" else 0.0)

        def forward(self, x):
            z = self.conv(x)
            if last == "softmax" or (last == "softmax in evaluation" and not self.training):
                return z.softmax(1)
            return z.sigmoid() if last == "sigmoid" else z

    return Last()
'''


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my_net.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def fitted(own):
    """Return a function from a spec string to the network for images of 16 x 16 with one channel."""

    def fit(text, in_channels=1, classes=2, shape=(16, 16)):
        return Network(parse_network(text, [own]), in_channels, classes, shape)

    return fit
