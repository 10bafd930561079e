"""The kernels for a GPU, run by Triton's interpreter on the CPU, beside PyTorch's own convolutions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from lossbench.networks import grouped
from lossbench.networks.unet import UNet

COMPARE = """
import torch
from lossbench.networks import grouped
from lossbench.networks.unet import UNet

torch.manual_seed(0)
for sides, widths, cells, classes in (((16, 16), (8, 16), 3, 2), ((12, 20), (4, 6, 8), 2, 3)):
    network = UNet(2, classes, widths, 2, cells)
    x = torch.randn(2, 2 * cells, *sides, requires_grad=True)
    told = []
    for ours in (False, True):
        if ours:
            grouped.regroup(network)
            kinds = {type(layer) for layer in network.modules()}
            assert not kinds & {torch.nn.Conv2d, torch.nn.ConvTranspose2d}
        network.zero_grad()
        x.grad = None
        logits = network(x)
        logits.square().sum().backward()
        told.append([logits, x.grad, *(value.grad for value in network.parameters())])
    for one, other in zip(*told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
print("alike")
"""


@pytest.mark.slow
def test_all_groups_at_once_give_what_cudnn_and_the_cpu_give():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "alike\n", done.stderr[-2000:]


def test_what_the_kernels_do_not_know_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(grouped, "kernels", lambda: grouped)
    other = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=2),
        nn.ConvTranspose2d(4, 4, 3, stride=2, groups=2),
        nn.Conv3d(4, 4, 3, padding=1, groups=2),
    )
    before = [type(layer) for layer in other]
    grouped.regroup(other)
    assert [type(layer) for layer in other] == before
    grouped.regroup(network := UNet(1, 2, (8, 16), 2, 2))
    assert type(network.head) is grouped.Conv and type(network.up[0]) is grouped.Double


def test_without_triton_nothing_changes(monkeypatch):
    monkeypatch.setattr(grouped, "kernels", lambda: None)
    grouped.regroup(network := UNet(1, 2, (8, 16), 2, 2))
    assert type(network.head) is nn.Conv2d
    assert network(torch.zeros(1, 2, 8, 8)).shape == (1, 4, 8, 8)
