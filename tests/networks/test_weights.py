"""Weights come from a local file as data: nothing in it is run, and what does not fit is named."""

import pickle

import pytest
import torch
from torch import nn

from lossbench.base.errors import UserError
from lossbench.networks.initial import read_weights, set_weights, weights_hash


class Trap:
    """Would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def net(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))


def load_weights(module, path):
    set_weights(module, read_weights(path), str(path))


@pytest.mark.parametrize(
    "wrap", [lambda weights: weights, lambda weights: {"state_dict": weights, "epoch": 3}]
)
def test_weights_are_those_of_the_file_and_so_is_their_hash(tmp_path, wrap):
    source, module = net(), net()
    torch.save(wrap(source.state_dict()), tmp_path / "net.pt")
    load_weights(module, tmp_path / "net.pt")
    assert weights_hash(module.state_dict()) == weights_hash(source.state_dict())
    assert torch.equal(module[0].weight, source[0].weight)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"0.weight": Trap(str(trap))}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap(str(trap))))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(
            UserError, match=f"{name}: holds more than tensors .pickled code, which is not run"
        ):
            load_weights(net(), tmp_path / name)
    assert not trap.exists()


def change(**changes):
    weights = {**net().state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in weights.items() if value is not None}


@pytest.mark.parametrize(
    ("held", "part"),
    [
        (change(**{"0__weight": None}), "lacks '0.weight' of the network"),
        (change(**{"0__weight": None, "0__wieght": torch.zeros(1)}), "did you mean '0.wieght'"),
        (change(**{"2__weight": torch.zeros(1)}), "holds '2.weight', which the network does not have"),
        (change(**{"0__bias": torch.zeros(5)}), r"'0.bias' has the shape \(5,\), the network needs \(4,\)"),
        ([torch.zeros(3)], "must hold a dictionary from names to tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(tmp_path, held, part):
    torch.save(held, tmp_path / "net.pt")
    with pytest.raises(UserError, match=part):
        load_weights(net(), tmp_path / "net.pt")


@pytest.mark.parametrize("content", [None, b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_what_is_no_file_of_weights_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "net.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"net\.pt: "):
        load_weights(net(), path)
