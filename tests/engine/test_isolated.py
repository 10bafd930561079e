"""A task that is apart runs in a process of its name, which takes nothing else with it when it dies or
hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import pytest

from lossbench.engine import isolated
from lossbench.engine import run as engines
from lossbench.engine.tasks import EngineOptions, Task
from lossbench.engine.worker import emit

pytestmark = pytest.mark.system


def toy(what):
    """What a task does is told by its payload."""
    emit("cell", cell="c", outcome="begun", seconds=0.0)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(0)
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "hang" or (what == "fork" and os.fork() == 0):
        time.sleep(1000)
    elif what == "fork and die":
        if os.fork():
            os._exit(3)
        time.sleep(1000)
    elif what == "fork and answer":
        os.fork()
    elif what == "print":
        print("much" * 100_000)
    elif what == "close":
        os.closerange(0, 100)
    elif what.startswith("say "):
        for pipe in range(3, 30):
            with contextlib.suppress(OSError):
                os.write(pipe, f"{what[4:]}\n".encode())
        time.sleep(1000)
    return os.getpid()


@pytest.fixture(autouse=True)
def none_left():
    yield
    isolated.close()


def call(what, name="a", **options):
    events = []
    out = isolated.call(name, f"{__name__}:toy", what, events.append, **options)
    return out, events


def test_tasks_of_one_name_share_a_process_and_those_of_two_do_not():
    first, events = call("nothing")
    assert [event["kind"] for event in events] == ["start", "cell", "end"]
    assert first["kind"] == "ok" and first["value"] not in (os.getpid(), None)
    assert call("print")[0]["value"] == first["value"]
    assert call("nothing", name="b")[0]["value"] != first["value"]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("kill", "its process was killed by SIGKILL, 2 times"),
        ("exit", "its process ended by itself with status 0, 2 times"),
        ("fork and die", "its process ended by itself with status 3, 2 times"),
    ],
)
def test_a_task_whose_process_dies_is_tried_once_more_and_given_up_with_the_reason(what, says):
    out, events = call(what)
    assert (out["kind"], out["error"]) == ("killed", says)
    assert [event["kind"] for event in events].count("lost") == 2
    assert call("nothing")[0]["kind"] == "ok"


def test_a_task_that_closes_its_pipes_is_given_up():
    assert call("close")[0]["kind"] == "killed"


@pytest.mark.parametrize("text", ["noise", "[]", "{}", "7", '{"event": 1}', '{"out": []}', "[" * 100_000])
def test_a_task_that_writes_into_the_pipe_of_its_process_is_given_up(text):
    assert call(f"say {text}")[0]["kind"] == "killed"


def test_a_task_over_its_limit_is_stopped_with_its_process():
    out, _ = call("hang", limit=1.0)
    assert out["kind"] == "time limit" and "over its time limit of 1 s" in out["error"]


def test_an_interrupt_that_a_task_raises_is_its_own_error():
    assert call("interrupt")[0]["error"] == "KeyboardInterrupt"


def test_a_copy_that_a_task_makes_of_its_process_says_nothing_and_ends_with_it():
    out, events = call("fork and answer")
    assert out["kind"] == "ok" and len(events) == 3
    pid = call("fork")[0]["value"]
    isolated.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and group(pid):
        time.sleep(0.05)
    assert not group(pid)


def group(pid):
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("options", [{"serial": True}, {"workers": 1}], ids=["serial", "local"])
def test_the_engine_runs_them_apart_and_the_others_go_on(options):
    tasks = [
        Task("hangs", "hang", time_limit=2.0, apart="a"),
        Task("dies", "kill", apart="a"),
        Task("good", "nothing", apart="a"),
        Task("also good", "nothing"),
    ]
    results, events = {}, []
    engines.run(
        tasks,
        sys.modules[__name__].toy,
        EngineOptions(**options),
        on_event=events.append,
        on_result=lambda result: results.update({result.task.name: result}),
    )
    kinds = {name: result.kind for name, result in results.items()}
    assert kinds == {"hangs": "time limit", "dies": "killed", "good": "ok", "also good": "ok"}
    assert results["good"].value != results["also good"].value
    owners = [event["owner"] for event in events if event["kind"] == "lost"]
    assert len(set(owners)) == 2 and all(owners)
