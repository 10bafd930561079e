"""Jobs that come to nothing are told in their own words, replaced, and never waited for without end: on a
make-believe batch system.
"""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest
import test_engines
from test_engines import Task, run

from lossbench.engine.clusters import FAILURES, NoWorkers

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.name != "posix", reason="a shell script stands for sbatch"),
    pytest.mark.skipif(
        importlib.util.find_spec("dask_jobqueue") is None, reason="a batch system needs the extra 'cluster'"
    ),
]
CLUSTER = """
type = "SLURMCluster"
jobs = 2
memory = "1GB"
interface = "lo"
tls = false
[scheduler_options]
interface = "lo"
"""


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Put an ``sbatch`` on the path that runs a job at once, here; return a function that writes the cluster
    file.
    """
    (tmp_path / "bin").mkdir()
    commands = {
        "sbatch": f'echo x >> {tmp_path}/submitted\nbash "$1" & echo "Submitted batch job $!"',
        "scancel": 'kill "$1" 2>/dev/null; exit 0',
    }
    for name, text in commands.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", test_engines.path_to_here()["PYTHONPATH"])

    def write(extra: str = "") -> Path:
        (tmp_path / "cluster.toml").write_text(extra + CLUSTER)
        return tmp_path / "cluster.toml"

    return write


def test_a_sweep_runs_through_jobs_and_their_output_lies_in_the_folder_asked_for(batch, tmp_path):
    summary, _, _ = run(
        [Task(f"{n}", {"print": f"noise {n}"}) for n in range(4)],
        cluster=batch(),
        insecure=True,
        logs=tmp_path / "logs",
    )
    assert summary.ok == 4
    assert "noise 3" in "".join(log.read_text() for log in (tmp_path / "logs").glob("job-*.log"))


def test_jobs_that_all_die_end_the_sweep_with_the_last_lines_of_one(batch, tmp_path):
    began = time.monotonic()
    with pytest.raises(NoWorkers) as error:
        run(
            [Task("a", {})],
            cluster=batch("python = '/nowhere/python'\n"),
            insecure=True,
            logs=tmp_path / "logs",
        )
    text = str(error.value)
    assert (
        f"cluster.toml: {FAILURES} jobs ended and no worker arrived; the last said: " in text
        and "\n" not in text
    )
    assert "/nowhere/python: No such file or directory" in text and str(tmp_path / "logs") in text
    assert error.value.exit_code == 1 and time.monotonic() - began < 60


def test_refused_submissions_end_the_sweep_with_the_words_of_the_batch_system(batch, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: no such queue' >&2\nexit 1\n")
    with pytest.raises(NoWorkers, match=r"the last was refused: sbatch: error: no such queue"):
        run([Task("a", {})], cluster=batch(), insecure=True)


def test_a_job_that_dies_once_is_replaced_and_the_sweep_goes_on(batch, tmp_path):
    prologue = f'job_script_prologue = ["[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; exit 3; }}"]\n'
    summary, _, _ = run(
        [Task(f"{n}", {"sleep": 0.5}) for n in range(12)], cluster=batch(prologue), insecure=True
    )
    assert summary.ok == 12
    assert len((tmp_path / "submitted").read_text().split()) >= 3


def test_the_command_line_says_it_in_one_sentence_and_exits_with_1(batch, tmp_path, monkeypatch, capsys):
    import sys

    from lossbench.cli import main

    data = 'datasets = [{ use = "scenes(size=32, n_train=8, n_val=4, n_test=4)" }]'
    (tmp_path / "tiny.toml").write_text(f'name = "tiny"\nseeds = 1\nlosses = ["ce"]\n{data}\n')
    file = batch("python = '/nowhere/python'\n")
    words = [
        "sweep",
        str(tmp_path / "tiny.toml"),
        "--results",
        str(tmp_path / "results"),
        "--cluster",
        str(file),
        "--insecure",
        "--json-lines",
    ]
    monkeypatch.setattr(sys, "argv", ["lossbench", *words])
    with pytest.raises(SystemExit) as left:
        main.main()
    error = capsys.readouterr().err.strip()
    (line,) = [line for line in error.splitlines() if line.startswith("lossbench: ")]
    assert left.value.code == 1 and error.endswith(line) and "no worker arrived" in line
