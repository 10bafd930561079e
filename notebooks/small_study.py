"""Where the notebooks read from: the committed study, or, where it is not there, a sweep of seconds in a
temporary folder.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

STUDY = Path(__file__).resolve().parents[1] / "results" / "paper"
SMALL = """
name = "small"
seeds = 3
losses = ["ce", "dice", "dice_ce"]
datasets = [
{ use = "scenes(foreground=0.02, noise=0.5, size=32, n_train=24, n_val=10, n_test=10)",label="scenes 2 %" },
{ use = "scenes(foreground=0.1, noise=0.5, size=32, n_train=24, n_val=10, n_test=10)",label="scenes 10 %" },
]
[recipe]
head = "prior"
widths = [8, 16]
steps = 40
batch = 4
validations = 4
"""


def results() -> Path:
    """Return the folder of the study's results, or of a small sweep that is made for this notebook."""
    if (STUDY / "tables" / "verdicts.csv").is_file():
        return STUDY
    return sweep(Path(tempfile.mkdtemp(prefix="lossbench_")), SMALL)


def sweep(folder: Path, experiment: str, *options: str) -> Path:
    """Train an experiment, given as text, in a folder; returns its folder of results."""
    (folder / "small.toml").write_text(experiment, encoding="utf-8")
    command = [sys.executable, "-m", "lossbench", "sweep", "small.toml", "--serial", *options]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    for line in done.stdout.splitlines():
        if line.startswith(("small", "mine", "trained", "report")):
            print(line.partition(" in ")[0])  # without the seconds
    return folder / "results"
