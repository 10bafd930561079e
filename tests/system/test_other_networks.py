"""Networks of other libraries and of a user's own, on two real sets: swept, killed, resumed, verified."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from command import lossbench

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.peers, pytest.mark.realdata]

NETWORKS = {
    "smp": "smp:Unet(encoder_name='resnet18')",
    "monai": "monai:BasicUNet(features=[8, 8, 16, 32, 64, 8])",
    "torchvision": "torchvision:lraspp_mobilenet_v3_large",
    "own": "tiny(width=16)",
}

EXPERIMENT = """
name = "nets"
seeds = [2000001]
losses = ["ce", "dice", "dice_ce"]
datasets = [
  { use = "msd_hippocampus(subset=4)", label = "hippocampus", recipe = { augment = "none" } },
  { use = "sirst(view='crop', size=64)", label = "sirst" },
]
[recipe]
patch = 32
steps = 6
batch = 2
validations = 1
""" + "".join(
    f'[[part]]\nname = "{name}"\nrecipe = {{ network = "{spec}" }}\n' for name, spec in NETWORKS.items()
)

OWN = """
from torch import nn
from lossbench import network

@network("tiny", cite="me, today")
def tiny(in_channels, classes, dims, *, width=16, dropout=0.1):
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    layers = []
    for inputs, dilation in ((in_channels, 1), (width, 2), (width, 4)):
        layers += [conv(inputs, width, 3, padding=dilation, dilation=dilation), norm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), conv(width, classes, 1))
"""


def test_networks_of_libraries_and_of_ones_own_survive_a_kill_and_are_repeated_bit_for_bit(tmp_path):
    (tmp_path / "nets.toml").write_text(EXPERIMENT)
    (tmp_path / "my_net.py").write_text(OWN)
    words = ["sweep", "nets.toml", "--with", "my_net.py", "--workers", "2"]
    command = [sys.executable, "-m", "lossbench", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("results/cells/*/*.json"))) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(3)  # orphaned workers notice that their driver is gone
    done = len(list(tmp_path.glob("results/cells/*/*.json")))
    assert done < 24
    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert resumed.returncode == 0 and f"trained {24 - done} cells" in resumed.stdout, resumed
    said = lossbench(tmp_path, "verify", "--with", "my_net.py", "--sample", "24")
    assert "24 of 24 cells trained again: all as recorded (24 bit for bit)" in said
    page = (tmp_path / "results" / "report.html").read_text()
    assert all(spec.split("(")[0] in page for spec in NETWORKS.values())
