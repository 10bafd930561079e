"""A network of one's own that trains one cell at a time."""

import pytest


@pytest.fixture(scope="session")
def own_network(tmp_path_factory):
    """Return the file of the network 'drop': small, with batch normalisation and dropout."""
    path = tmp_path_factory.mktemp("own") / "my_net.py"
    path.write_text(
        "from torch import nn\nfrom lossbench import network\n@network('drop')\n"
        "def drop(in_channels, classes, dims):\n"
        "    first, last = nn.Conv2d(in_channels, 4, 3, padding=1), nn.Conv2d(4, classes, 1)\n"
        "    return nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), last)\n"
    )
    return str(path)
