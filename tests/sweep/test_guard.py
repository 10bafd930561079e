"""What a user's loss changes in its process is set back or refused, and what it draws can be drawn again."""

from __future__ import annotations

import gc
import os
import random
import resource
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.sweep import guard
from lossbench.training import signals

CELL = SimpleNamespace(recipe=SimpleNamespace(steps=10), stream="data", seed=3)


def lower(by):
    """Open so many files less than now at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - by, hard))


CHANGES = {
    "the number of threads": lambda: torch.set_num_threads(2),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the default device": lambda: torch.set_default_device("meta"),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "the precision of products": lambda: torch.set_float32_matmul_precision("medium"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "flags of cuDNN": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "oneDNN": lambda: torch._C._set_mkldnn_enabled(False),
    "flushing of denormals": lambda: torch.set_flush_denormal(True),
    "hooks on every module": lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: None),
    "numpy's errors": lambda: np.seterr(all="raise"),
    "the working folder": lambda: os.chdir("/"),
    "the limits of its process": lambda: lower(1),
    "grad mode": lambda: torch.set_grad_enabled(False),
}

REPLACED = {
    "torch.Tensor.softmax": (torch.Tensor, "softmax"),  # inherited
    "torch.Tensor.backward": (torch.Tensor, "backward"),
    "torch.nn.functional.conv2d": (torch.nn.functional, "conv2d"),
    "torch.nn.modules.conv.Conv2d.forward": (torch.nn.Conv2d, "forward"),
    "numpy.mean": (np, "mean"),
    "builtins.sum": (__import__("builtins"), "sum"),
    "lossbench.training.signals.call_loss": (signals, "call_loss"),
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    guard.fresh.cache_clear()  # other tests may have changed this process, too
    guard.begin()
    yield
    guard.restore(guard.SETTINGS | guard.GRAD | guard.HARMLESS)
    guard.fresh.cache_clear()  # what a test has taken for sound here is not what the next finds


def mean(logits, target, **_):
    return (logits.softmax(1)[:, 1] ** 2).mean()


def run(loss, heard=None, progress=0.0):
    logits = torch.linspace(-1, 1, 16).reshape(1, 2, 2, 4).requires_grad_()
    own = guard.own(loss, CELL, [].append if heard is None else heard.extend)
    value = own(logits, torch.zeros(1, 2, 4), progress=progress)
    value.backward()
    return value.item(), logits.grad


@pytest.mark.parametrize("what", CHANGES)
def test_a_setting_that_a_loss_changes_is_set_back_after_each_call_and_named(what):
    def loss(logits, target, **_):
        value = mean(logits, target)
        CHANGES[what]()
        return value

    heard = []
    run(loss, heard)
    assert heard[0] == what
    guard.refuse("it")


@pytest.mark.parametrize("what", CHANGES)
def test_a_setting_that_is_changed_between_the_calls_is_refused_once_and_set_back(what):
    CHANGES[what]()
    with pytest.raises(UserError, match=f"it changed {what}"):
        guard.refuse("it")
    guard.refuse("it")


def test_what_no_number_depends_on_is_set_back_and_not_refused():
    before = sys.getrecursionlimit(), gc.isenabled(), os.environ.get("OMP_NUM_THREADS")
    sys.setrecursionlimit(50_000), gc.disable(), os.environ.update(OMP_NUM_THREADS="7")
    guard.refuse("it")
    assert (sys.getrecursionlimit(), gc.isenabled(), os.environ.get("OMP_NUM_THREADS")) == before


@pytest.mark.parametrize("what", REPLACED)
def test_a_function_that_is_replaced_is_refused_and_put_back(what):
    place, name = REPLACED[what]
    before = getattr(place, name)
    for check in (guard.settle, guard.refuse):
        setattr(place, name, lambda *_: None)
        with pytest.raises(UserError, match=what):
            check("it")
        assert getattr(place, name) == before
        check("it")


def test_an_operation_that_is_replaced_beneath_python_is_refused():
    library = torch.library.Library("aten", "IMPL")
    library.impl("softmax.int", lambda x, dim, dtype=None: torch.zeros_like(x), "CompositeImplicitAutograd")
    try:
        with pytest.raises(UserError, match="what operations of torch compute"):
            guard.refuse("it")
    finally:
        library._destroy()


def test_what_a_loss_draws_depends_on_seed_and_step_and_on_nothing_before():
    def loss(logits, target, **_):
        return mean(logits, target) * (torch.rand(()) + np.random.rand() + random.random())

    torch.manual_seed(0)
    first = run(loss)[0]
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    random.random(), np.random.rand(), torch.rand(5)
    assert run(loss)[0] == first != run(loss, progress=0.5)[0]
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state[0])


def test_a_loss_is_the_same_with_and_without_its_guard():
    logits = torch.linspace(-1, 1, 16).reshape(1, 2, 2, 4).requires_grad_()
    value = mean(logits, None)
    value.backward()
    assert run(mean)[0] == value.item() and torch.equal(run(mean)[1], logits.grad)


def test_a_loss_may_write_into_its_logits_and_may_give_a_plain_number():
    value, slope = run(lambda logits, target, **_: logits.mul_(2).mean())
    assert value == pytest.approx(0, abs=1e-6) and torch.allclose(slope, torch.tensor(1 / 8))
    with torch.no_grad():
        assert guard.own(lambda *_, **__: 3.0, CELL, print)(torch.zeros(1), None, progress=0.0) == 3.0


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit])
def test_whatever_a_loss_raises_is_an_ordinary_error(raised):
    def loss(logits, target, **_):
        raise raised

    with pytest.raises(RuntimeError, match=f"it raised {raised.__name__}"):
        run(loss)


def test_what_torch_compile_wraps_is_no_fault_of_a_loss(monkeypatch):
    """It tags modules by wrapping two of their methods, whoever compiles first."""
    from torch._dynamo.mutation_guard import install_generation_tagging_init

    monkeypatch.setitem(sys.modules, f"{guard.userfiles.PREFIX}own", sys)  # a file of the user's has run
    for name in ("__init__", "__setstate__"):
        monkeypatch.setattr(torch.nn.Module, name, getattr(torch.nn.Module, name))
    monkeypatch.delattr(torch.nn.Module, "___has_generation_tag_patch", raising=False)
    guard.fresh()
    before = torch.nn.Module.__init__
    install_generation_tagging_init()
    assert torch.nn.Module.__init__ is not before
    assert guard.replaced() == []
