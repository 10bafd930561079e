"""The engine runs every task once, reports what becomes of each, and says why when a task dies or hangs."""

from __future__ import annotations

import asyncio
import ctypes
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossbench.base import process
from lossbench.base.errors import UserError
from lossbench.base.process import usable_cores
from lossbench.engine import run as engines
from lossbench.engine import worker
from lossbench.engine.tasks import EngineOptions, Task
from lossbench.engine.worker import emit


def toy(payload):
    """What a task does is told by its payload."""
    for what, value in payload.items():
        ACTIONS[what](value)
    environment = {
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "path": sys.path, **environment}


def steps(count):
    for step in range(count + 1):
        emit("step", cell="c", step=step, steps=count, loss=1.0 / (step + 1))


def fail(text):
    raise RuntimeError(text)


def fail_as_user(text):
    raise UserError(text)


def have_child(_):
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    child.join()
    assert child.exitcode == 0


ACTIONS = {
    "sleep": time.sleep,
    "steps": steps,
    "fail": fail,
    "fail_as_user": fail_as_user,
    "leave": lambda code: sys.exit(code),
    "kill": lambda number: os.kill(os.getpid(), number),
    "crash": lambda _: ctypes.string_at(0),
    "print": lambda text: print(text, flush=True),
    "have_child": have_child,
    "interrupt": lambda number: os.kill(os.getpid(), number),
}


def run(tasks, **options):
    events, results = [], []
    options = EngineOptions(**options)
    summary = engines.run(tasks, toy, options, on_event=events.append, on_result=results.append)
    return summary, {result.task.name: result for result in results}, events


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """One run on two workers in which everything happens; each test looks at a part of it."""
    folder = tmp_path_factory.mktemp("logs")
    tasks = [
        Task("steps", {"steps": 50}),
        Task("fails", {"fail": "first line\nsecond line"}),
        Task("user", {"fail_as_user": "the data folder 'x' is empty"}),
        Task("leaves", {"leave": 3}),
        Task("child", {"have_child": 1}),
        Task("killer", {"sleep": 0.2, "kill": 9}),
        Task("crasher", {"sleep": 0.2, "crash": 1}),
        Task("hangs", {"sleep": 1000}, time_limit=2),
        *[Task(f"good {n}", {"sleep": 0.05, "print": "noise"}) for n in range(20)],
    ]
    environment = dict(os.environ)
    summary, results, events = run(tasks, workers=2, time_limit=60, logs=folder)
    assert dict(os.environ) == environment
    return summary, results, events, folder


def test_every_task_has_one_result_and_the_sweep_goes_on(troubled):
    summary, results, _, _ = troubled
    assert summary.ok == 22 and summary.failed == 6 and summary.left == 0 and not summary.interrupted
    assert len(results) == 28 and all(results[f"good {n}"].ok for n in range(20))


def test_an_exception_becomes_a_sentence_with_its_trace(troubled):
    result = troubled[1]["fails"]
    assert (result.kind, result.error, result.user_error) == ("error", "RuntimeError: first line", False)
    assert "in fail\n" in result.trace and result.attempts == 1


def test_a_users_mistake_keeps_its_own_words(troubled):
    result = troubled[1]["user"]
    assert (result.error, result.user_error) == ("the data folder 'x' is empty", True)


def test_a_task_that_calls_exit_is_an_error_like_others(troubled):
    assert troubled[1]["leaves"].error == "the task left with exit(3)"


def test_a_task_that_kills_its_worker_three_times_is_given_up_with_the_reason(troubled):
    result = troubled[1]["killer"]
    assert (result.kind, result.attempts) == ("killed", 3)
    assert result.error == "its worker was killed by SIGKILL: out of memory, or killed by hand, 3 times"
    lost = [event for event in troubled[2] if event["kind"] == "lost" and event["task"] == "killer"]
    assert len(lost) == 3


def test_a_crash_is_told_from_a_kill(troubled):
    result = troubled[1]["crasher"]
    # On a loaded machine a replacement can die with the same task before the third death is told apart: never
    # fewer than three.
    assert result.kind == "killed" and result.attempts >= 3
    assert result.error == f"its worker crashed (Segmentation fault), {result.attempts} times"


def test_a_task_over_its_time_limit_is_stopped_and_reported(troubled):
    result = troubled[1]["hangs"]
    assert (result.kind, result.error) == ("time limit", "stopped after 2 s, over its time limit of 2 s")


def test_tasks_may_have_children(troubled):
    assert troubled[1]["child"].ok


def test_workers_are_single_threaded_and_have_loaded_no_torch(troubled):
    values = [result.value for result in troubled[1].values() if result.ok]
    assert {value["threads"] for value in values} == {"1"}
    assert not any(value["torch"] for value in values)
    assert os.getpid() not in {value["pid"] for value in values}


def test_workers_look_for_modules_where_the_driver_does(troubled):
    paths = [set(result.value["path"]) for result in troubled[1].values() if result.ok]
    assert all(path <= set(sys.path) for path in paths)


def test_steps_are_thinned(troubled):
    seen = [event["step"] for event in troubled[2] if event["kind"] == "step" and event["task"] == "steps"]
    assert seen[0] == 0 and len(seen) < 10


def test_events_name_their_task_and_come_in_order(troubled):
    kinds = [event["kind"] for event in troubled[2] if event.get("task") == "good 3"]
    assert kinds == ["start", "end"]
    assert {event["kind"] for event in troubled[2]} == {"engine", "start", "step", "end", "lost", "tick"}
    assert troubled[2][0] == {"kind": "engine", "text": "2 workers on this machine"}


def test_what_workers_print_goes_to_their_logs(troubled, capfd):
    assert "noise" in "".join(file.read_text() for file in troubled[3].glob("worker-*.log"))


def test_serial_runs_here_with_the_same_callbacks_and_no_dask():
    code = """
import sys
import test_engines as t
tasks = [t.Task("a", {"steps": 3}), t.Task("b", {"fail": "no"}), t.Task("c", {"fail_as_user": "yours"})]
summary, results, events = t.run(tasks, serial=True)
assert (summary.ok, summary.failed, summary.left) == (1, 2, 0), summary
assert results["a"].value["pid"] == t.os.getpid()
assert results["b"].error == "RuntimeError: no" and results["b"].attempts == 1
assert results["c"].user_error
assert [e["kind"] for e in events if e.get("task") == "a"] == ["start", "step", "end"], events
assert not {"distributed", "dask", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=path_to_here())


def path_to_here():
    folders = [os.path.dirname(__file__), os.environ["PYTHONPATH"]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_serial_run_stops_when_told_and_says_so(number):
    # A shell starts what runs in its background with SIGINT ignored; here as at a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tasks = [Task("a", {}), Task("b", {"interrupt": number, "sleep": 5}), Task("c", {})]
    start = time.monotonic()
    summary, results, _ = run(tasks, serial=True)
    assert summary.interrupted and summary.left == 2 and set(results) == {"a"}
    assert time.monotonic() - start < 4.5  # it did not wait for the task's five seconds
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_stops_when_told_and_leaves_no_process():
    before, started, results = children(), [], []

    def stop_when_busy(event):
        if event["kind"] == "start":
            started.append(event["task"])
            if len(started) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    tasks = [Task(f"{n}", {"sleep": 600}) for n in range(5)]
    options = EngineOptions(workers=2)
    summary = engines.run(tasks, toy, options, on_event=stop_when_busy, on_result=results.append)
    assert summary.interrupted and summary.left == 5 and not results
    assert len(started) == 2  # and it did not wait for their ten minutes
    assert children() <= before


def children():
    me, found = str(os.getpid()), set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if (
            parent == me
            and state != "Z"
            and "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()
        ):
            found.add(pid)
    return found


def test_each_gpu_gets_its_workers_and_they_see_no_other():
    tasks = [Task(f"{n}", {"sleep": 0.3}) for n in range(8)]
    summary, results, events = run(tasks, gpus=("0", "3"), per_gpu=2)
    assert summary.ok == 8 and events[0]["text"] == "4 workers on this machine, 2 a GPU"
    seen = {(result.value["pid"], result.value["gpu"]) for result in results.values()}
    assert {gpu for _, gpu in seen} == {"0", "3"} and 2 <= len(seen) <= 4


def test_no_tasks_need_no_engine():
    summary, results, events = run([])
    assert (summary.ok, summary.left, summary.interrupted) == (0, 0, False) and not results and not events


def test_an_error_in_a_callback_closes_the_workers_and_comes_through():
    before = children()

    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engines.run([Task("a", {}), Task("b", {})], toy, EngineOptions(workers=1), on_result=broken)
    assert children() <= before


def test_many_workers_send_few_steps_each():
    seen = []

    def chatty(_):
        for step in range(10):
            emit("step", cell="c", step=step, steps=10, loss=1.0)

    worker.call(chatty, None, seen.append, interval=1000.0)
    assert [event["kind"] for event in seen] == ["start", "step", "end"]


def test_emitting_outside_a_task_does_nothing():
    emit("step", cell="c", step=1)


def test_the_usable_cores_respect_affinity():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_malloc_keeps_what_training_frees():
    code = "from lossbench.engine import worker; assert worker.raise_malloc_thresholds()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_engine_is_fast_and_loads_nothing_heavy():
    code = (
        "import sys, lossbench.engine.run; assert not {'distributed', 'dask', 'numpy', 'torch', 'rich'} "
        "& set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_without_text_is_named_by_its_type():
    assert worker.sentence(KeyError()) == "KeyError"
    assert worker.sentence(ValueError("a" * 999)).startswith("ValueError: aaa")
    assert len(worker.sentence(ValueError("a" * 999))) == 300


# Clusters that the user describes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("type = 'SLURMClustr'", "type: 'SLURMClustr' is not a batch system; did you mean 'SLURMCluster'?"),
        ("jobs = 2", "type: None is not a batch system"),
        ("type = 'SLURMCluster'\njobs = 0", "jobs: must be a whole number of 1 or more \\(got 0\\)"),
        ("type = 'SLURMCluster'\ncores = 4\nprocesses = 2", "cores: must equal processes \\(2\\)"),
        ("type = 'SLURMCluster'\ntls = false\nmemory = '1GB'\nquue = 'x'", "SLURMCluster did not start"),
    ],
)
def test_a_cluster_file_with_a_mistake_is_refused_in_one_sentence(tmp_path, text, sentence):
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"cluster.toml: {sentence}"):
        run([Task("a", {})], cluster=file, insecure=True)


def test_a_cluster_file_that_is_missing_or_not_toml_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: cannot be read: no such file"):
        run([Task("a", {})], cluster=tmp_path / "none.toml")
    (tmp_path / "cluster.toml").write_text("type = ")
    with pytest.raises(UserError, match=r"cluster\.toml: not valid TOML"):
        run([Task("a", {})], cluster=tmp_path / "cluster.toml")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nowhere.json", "neither an address"),
        ("tcp://127.0.0.1:1", "no scheduler answers"),
        ("127.0.0.1:1", "no scheduler"),
    ],
)
def test_a_scheduler_that_is_not_there_is_named(address, sentence, monkeypatch):
    from lossbench.engine import clusters

    monkeypatch.setattr(clusters, "_CONNECT", 1)
    with pytest.raises(UserError, match=f"--scheduler {address}: {sentence}"):
        run([Task("a", {})], scheduler=address, insecure=True)


def test_without_tls_other_machines_are_talked_to_only_if_the_user_says_so(tmp_path):
    # Also where dask-jobqueue is missing: this is said first.
    file, open_scheduler = tmp_path / "cluster.toml", tmp_path / "scheduler.json"
    file.write_text("type = 'SLURMCluster'\ntls = false\nmemory = '1GB'")
    open_scheduler.write_text('{"address": "tcp://127.0.0.1:1"}')
    for place in ({"cluster": file}, {"scheduler": "tcp://127.0.0.1:1"}, {"scheduler": open_scheduler}):
        with pytest.raises(UserError, match="without TLS anybody who reaches the scheduler runs code as you"):
            run([Task("a", {})], **place)


def test_nobody_without_the_certificates_of_this_run_reaches_its_workers():
    """Another user of this machine can open the ports, and has other certificates or none."""
    from distributed import Client
    from distributed.core import connect
    from distributed.security import Security

    from lossbench.engine import clusters

    with clusters.quiet(), clusters.connected(EngineOptions(workers=1)) as connection:
        connection.client.wait_for_workers(1)
        (at,) = connection.client.nthreads()
        (nanny,) = [nanny.address for nanny in connection.cluster.workers.values()]
        loop = connection.client.loop.asyncio_loop
        for address in (connection.cluster.scheduler_address, at, nanny):
            assert address.startswith("tls://127.0.0.1:")
            for scheme, security in (("tcp", None), ("tls", Security.temporary())):
                where = address.replace("tls", scheme)
                options = (security or Security()).get_connection_args("client")
                coming = asyncio.run_coroutine_threadsafe(connect(where, timeout=2, **options), loop)
                with pytest.raises(OSError):
                    coming.result(20)
        with Client(
            address=connection.cluster.scheduler_address, security=connection.cluster.security
        ) as mine:
            assert mine.submit(pow, 2, 3).result(20) == 8


STRANGER = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), 10)
    try:
        print("heard" if context.wrap_socket(plain).recv(1) else "refused")
    except OSError:
        print("refused")
"""


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be another user")
def test_another_user_of_this_machine_can_open_the_ports_and_hears_nothing():
    from lossbench.engine import clusters

    nobody = {"user": 65534, "capture_output": True, "text": True, "cwd": "/"}
    with clusters.quiet(), clusters.connected(EngineOptions(workers=1)) as connection:
        connection.client.wait_for_workers(1)
        nannies = [nanny.address for nanny in connection.cluster.workers.values()]
        addresses = [connection.cluster.scheduler_address, *connection.client.nthreads(), *nannies]
        places = [address.removeprefix("tls://") for address in addresses]
        # This Python may lie in a folder that others cannot enter.
        done = subprocess.run(["/usr/bin/env", "python3", "-I", "-c", STRANGER, *places], **nobody)
    assert done.stdout.split() == ["refused"] * 3, done.stderr


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"), [(4, 64, 4), (16, 8, 8), (8, 0.5, 1), (2, math.inf, 2)]
)
def test_workers_are_one_a_core_as_far_as_memory_goes(monkeypatch, cores, gigabytes, workers):
    monkeypatch.setattr(process, "usable_cores", lambda: cores)
    monkeypatch.setattr(process, "usable_memory", lambda: gigabytes * 1e9)
    assert process.usable_workers() == EngineOptions().count == workers


@pytest.mark.parametrize("serial", [True, False])
def test_when_the_time_is_over_no_task_begins_and_that_is_no_interruption(serial):
    summary, results, _ = run([Task(f"{n}", {}) for n in range(3)], serial=serial, until=time.monotonic())
    assert not results and (summary.left, summary.interrupted) == (3, False)


def test_a_task_that_has_begun_is_ended_when_the_time_is_over():
    tasks = [Task(f"{n}", {"sleep": 0.3}) for n in range(3)]
    summary, results, _ = run(tasks, serial=True, until=time.monotonic() + 0.2)
    assert list(results) == ["0"] and results["0"].ok and summary.left == 2
