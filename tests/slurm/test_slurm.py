"""A sweep through a real batch system: jobs are submitted, killed, replaced and cancelled; nothing is lost or
repeated.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]
CLUSTER = Path(__file__).parent / "cluster.toml"

kills = pytest.importorskip("test_engine_kills")


def jobs():
    out = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout
    return [
        line.split()[0]
        for line in out.splitlines()
        if line.split()[1] in ("RUNNING", "PENDING", "CONFIGURING")
    ]


def jobs_gone(seconds=20):
    deadline = time.monotonic() + seconds
    while jobs() and time.monotonic() < deadline:
        time.sleep(0.2)
    return jobs()


@pytest.fixture(autouse=True)
def tidy(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # certificates and job logs go there
    yield
    for job in jobs():
        subprocess.run(["scancel", "--signal=KILL", "--full", job], check=False)
    jobs_gone()


def test_a_sweep_runs_through_jobs_and_cancels_them_at_the_end(tmp_path):
    process = kills.sweep(tmp_path, "--cells", 20, "--seconds", 0.2, "--cluster", CLUSTER)
    assert kills.finish(process, 120).endswith("finished\n") and process.returncode == 0
    kills.check(tmp_path, 20)
    assert not jobs_gone()
    assert (tmp_path / "stderr").read_text() == ""


def test_a_killed_job_is_replaced_and_costs_only_what_it_was_running(tmp_path):
    process = kills.sweep(tmp_path, "--cells", 60, "--seconds", 0.5, "--cluster", CLUSTER)
    kills.wait_for(tmp_path, "done", 6, 90)
    before = jobs()
    subprocess.run(["scancel", "--signal=KILL", "--full", before[0]], check=True)
    deadline = time.monotonic() + 60
    while not set(jobs()) - set(before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert set(jobs()) - set(before), "no job took the place of the killed one"
    assert kills.finish(process, 120).endswith("finished\n")
    kills.check(tmp_path, 60)
    starts = Counter(line[1] for line in kills.log(tmp_path) if line[0] == "start")
    assert sum(starts.values()) <= 60 + 1


def test_an_interrupt_cancels_the_jobs(tmp_path):
    process = kills.sweep(tmp_path, "--cells", 20, "--seconds", 5, "--cluster", CLUSTER)
    kills.wait_for(tmp_path, "start", 1, 90)
    os.killpg(process.pid, signal.SIGINT)
    assert kills.finish(process, 30).endswith("interrupted\n") and process.returncode == 130
    assert not jobs_gone() and not kills.all_gone(process.pid, 2)
    assert (tmp_path / "stderr").read_text() == ""


def test_the_workers_of_an_sbatch_array_serve_a_sweep_by_a_scheduler_file(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(kills.HERE), str(kills.HERE.parents[1] / "benchmark")]),
    }
    file, dask = tmp_path / "scheduler.json", f"{sys.executable} -m dask"
    command = f"{dask} scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file {file}"
    scheduler = subprocess.Popen(command.split(), env=environment, stderr=subprocess.DEVNULL)
    try:
        while not file.exists():
            time.sleep(0.1)
        worker = f"{dask} worker --scheduler-file {file} --nthreads 1 --no-dashboard"
        batch = [
            "sbatch",
            "--array=1-2",
            "--requeue",
            "--mem=1G",
            f"--output={tmp_path}/%a.out",
            "--wrap",
            worker,
        ]
        subprocess.run(batch, check=True, env=environment, capture_output=True)
        process = kills.sweep(tmp_path, "--cells", 20, "--seconds", 0.2, "--scheduler", file)
        assert kills.finish(process, 120).endswith("finished\n") and process.returncode == 0
        kills.check(tmp_path, 20)
        assert (tmp_path / "stderr").read_text() == ""
        assert len(jobs()) == 2, "workers that are not ours live on"
    finally:
        scheduler.terminate()
        scheduler.wait(20)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('python = "/nowhere/bin/python"', "/nowhere/bin/python: No such file or directory"),
        ('queue = "nosuch"', "invalid partition specified: nosuch"),
    ],
)
def test_jobs_that_come_to_nothing_end_the_sweep_with_their_last_words(tmp_path, line, told):
    file = tmp_path / "cluster.toml"
    kept = [kept for kept in CLUSTER.read_text().splitlines() if not kept.startswith(line.split(" ")[0])]
    at = kept.index("[scheduler_options]")
    file.write_text("\n".join([*kept[:at], line, *kept[at:]]))
    process = kills.sweep(tmp_path, "--cells", 4, "--cluster", file, "--logs", tmp_path / "logs")
    kills.finish(process, 90)
    error = (tmp_path / "stderr").read_text().strip().splitlines()[-1]
    assert process.returncode == 1 and "3 jobs ended and no worker arrived" in error and told in error
    assert not jobs_gone()
    if "python" in line:
        assert any(told in log.read_text() for log in (tmp_path / "logs").glob("job-*.log"))


@pytest.mark.slow
def test_jobs_that_reach_their_walltime_are_replaced(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text(CLUSTER.read_text().replace("00:10:00", "00:01:00"))
    process = kills.sweep(tmp_path, "--cells", 120, "--seconds", 1, "--cluster", file)
    assert kills.finish(process, 400).endswith("finished\n") and process.returncode == 0
    kills.check(tmp_path, 120)
