"""The SLURM tests start a real SLURM on this machine, only when asked for: ``pytest -m slurm``, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def slurm():
    """A controller and two nodes; the variable SLURM_CONF leads to them."""
    if shutil.which("sbatch") is None or shutil.which("munged") is None:
        pytest.skip("there is no SLURM: apt-get install --no-install-recommends slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("starting SLURM needs root")
    up = subprocess.run(["bash", HERE / "up.sh"], capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    os.environ["SLURM_CONF"] = up.stdout.strip() + "/slurm.conf"
    yield
    subprocess.run(["bash", HERE / "down.sh"], check=True)
    del os.environ["SLURM_CONF"]
