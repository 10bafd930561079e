"""What a process computes with, and whether it is still as it was: settings, generators, the functions of
torch and of lossbench.

A user's loss may change any of it, often innocently: a thread count, a default dtype, a patched method. So a
loss of the user's is called within ``call``, which gives it random numbers of its own and sets everything
back; around each stack ``settle`` and ``refuse`` look at the whole process. They take a fraction of a
millisecond."""

from __future__ import annotations

import builtins
import gc
import importlib
import math
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from operator import is_, itemgetter
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as hooks

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

from lossbench.base import seeds
from lossbench.base.errors import UserError
from lossbench.catalogue import userfiles
from lossbench.experiment.cells import Cell

# All that a stack calls must be loaded when ``fresh`` looks.
from lossbench.training import outcome, train  # noqa: F401

# The one list of what other code is known to call: every function and class in these places, and the methods
# of these classes, must stay the object that it was. All loaded modules of lossbench come on top. Not among
# them is torch.optim, which patches itself and is not used here.
PLACES: tuple[Any, ...] = (
    *(builtins, gc, importlib, math, os, random, threading, np, np.random, np.linalg),
    *(torch, torch.Tensor, torch._C._nn, torch.linalg, torch.random),
    *(torch.autograd, torch.autograd.Function, torch.autograd.graph, torch.nn.functional, torch.nn.init),
    *(torch.nn, torch.nn.Module, torch.nn.Parameter, torch.nn.Sequential, torch.nn.ModuleList),
    *(
        torch.nn.Conv2d,
        torch.nn.Conv3d,
        torch.nn.ConvTranspose2d,
        torch.nn.ConvTranspose3d,
        torch.nn.GroupNorm,
    ),
    *(torch.nn.InstanceNorm2d, torch.nn.BatchNorm2d, torch.nn.MaxPool2d, torch.nn.Upsample, torch.nn.Dropout),
)

# Not looked at, since nothing here calls them: torch._dynamo wraps the one when it is imported, and the other
# follows the default dtype.
OPEN = {(torch, "manual_seed"), (torch, "Storage")}

# Of the environment: what decides how things are computed.
VARIABLES = ("LOSSBENCH_", "OMP_", "MKL_", "OPENBLAS_")

_HOOKS = [name for name in vars(hooks) if name.startswith("_global_") and name.endswith("_hooks")]

_TINY = torch.tensor(1e-38)  # a tenth of it is denormal

_between: list[str] = []  # what was found changed when a loss was called

# How to read it, and to set it where possible.
Setting = tuple[Callable[[], Any], Callable[[Any], Any] | None]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in os.environ if name.startswith(VARIABLES)}


def _set_environment(wanted: dict[str, str]) -> None:
    for name in _environment().keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _set_hooks(wanted: tuple[int, ...]) -> None:
    for name in _HOOKS:
        getattr(hooks, name).clear()


_LIMITS = [getattr(resource, f"RLIMIT_{name}", None) for name in ("AS", "CPU", "DATA", "FSIZE", "NOFILE")]
_LIMITS = [number for number in _LIMITS if number is not None]


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple(resource.getrlimit(number) for number in _LIMITS)


def _set_limits(wanted: tuple[tuple[int, int], ...]) -> None:
    for number, limit in zip(_LIMITS, wanted, strict=True):
        with suppress(ValueError, OSError):  # what only root may raise again; it is found changed at the end
            resource.setrlimit(number, limit)


# What one call of a loss may change and the next operation would feel.
SETTINGS: dict[str, Setting] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, lambda _: torch.set_default_device(None)),
    "inference mode": (torch.is_inference_mode_enabled, None),
    "anomaly detection": (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "the precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "autocast": (
        lambda: (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        lambda on: [torch.set_autocast_enabled(*both) for both in zip(("cpu", "cuda"), on, strict=True)],
    ),
    "flags of cuDNN": (
        lambda: tuple(getattr(torch.backends.cudnn, name) for name in _CUDNN),
        lambda flags: [setattr(torch.backends.cudnn, *pair) for pair in zip(_CUDNN, flags, strict=True)],
    ),
    "oneDNN": (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    "flushing of denormals": (lambda: not _TINY.mul(0.1).item(), torch.set_flush_denormal),
    "modes of torch": (
        lambda: (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        None,
    ),
    "hooks on every module": (lambda: tuple(len(getattr(hooks, name)) for name in _HOOKS), _set_hooks),
    "numpy's errors": (np.geterr, lambda wanted: np.seterr(**wanted)),
    "the working folder": (lambda: _folder(), lambda path: os.chdir(path)),
    "the limits of its process": (_limits, _set_limits),
}

# Looked at around a stack, since validation switches it off.
GRAD: dict[str, Setting] = {"grad mode": (torch.is_grad_enabled, torch.set_grad_enabled)}

# What no number depends on: set back, and never refused.
HARMLESS: dict[str, Setting] = {
    "environment variables": (_environment, _set_environment),
    "the recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "garbage collection": (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "the mask of new files": (lambda: _umask(), os.umask),
}

_CUDNN = ("enabled", "benchmark", "deterministic", "allow_tf32")


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


class _Fresh:
    """What a process was before a user's code ran in it."""

    def __init__(self) -> None:
        self.settings = {name: read() for name, (read, _) in (SETTINGS | GRAD | HARMLESS).items()}
        # Of each place its names, what reads them all at once, and what they held.
        self.names: list[tuple[Any, list[str], Callable, list[Any]]] = []
        self.inherited: list[tuple[type, int, frozenset[str]]] = []
        for place in dict.fromkeys(_places()):
            held = {name: value for name, value in vars(place).items() if _is_code(value)}
            held = {name: value for name, value in held.items() if (place, name) not in OPEN}
            if held:
                # The last name is read twice, since of one alone there would be no tuple.
                read = itemgetter(*held, next(reversed(held)))
                self.names.append((place, list(held), read, list(held.values())))
            if isinstance(place, type):
                own = vars(place)
                self.inherited.append((place, len(own), frozenset(dir(place)).difference(own)))
        self.probe = _probe()


def _places() -> Iterator[Any]:
    yield from PLACES
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "lossbench" and isinstance(module, ModuleType):
            yield module
            for value in list(vars(module).values()):
                if isinstance(value, type) and value.__module__ == name:
                    yield value


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property | staticmethod | classmethod)


@cache
def fresh() -> _Fresh:
    """Remember this process as it is; called first before any file of the user's is run in it."""
    return _Fresh()


def begin() -> None:
    """Look at this process before a task: what its owner may choose freely holds from now on."""
    # The first step back would import it, which fails after a loss that empties sys.path.
    importlib.import_module("torch.fx.experimental.symbolic_shapes")
    for name, (read, _) in ({"the working folder": SETTINGS["the working folder"]} | HARMLESS).items():
        fresh().settings[name] = read()


def restore(settings: dict[str, Setting] = SETTINGS) -> list[str]:
    """Set back what was changed; return its names, of what cannot be set back too."""
    known, changed = fresh().settings, []
    for name, (read, write) in settings.items():
        if read() != known[name]:
            changed.append(name)
            if write is not None:
                write(known[name])
    return changed


def replaced() -> list[str]:
    """Return which functions, classes and methods are others than they were, and put them back."""
    names = []
    for place, held, read, values in fresh().names:
        now = vars(place)
        with suppress(KeyError):
            if all(map(is_, read(now), values)):
                continue
        for number, name in enumerate(held):
            new, value = now.get(name), values[number]
            if new is value:
                continue
            # torch wraps some of its functions when they are first used; torch.compile does so in any code.
            if _within(new, torch.__file__) and (not userfiles.ran() or _within(new, _COMPILE)):
                values[number] = new
                continue
            names.append(f"{_name(place)}.{name}")
            setattr(place, name, value)
    # What a class inherits is replaced by a name of its own.
    for place, count, inherited in fresh().inherited:
        if len(vars(place)) == count:
            continue
        for name in inherited.intersection(vars(place)):
            names.append(f"{_name(place)}.{name}")
            delattr(place, name)
    return names


# Where torch.compile lives.
_COMPILE = os.path.join(os.path.dirname(torch.__file__), "_dynamo", "")


def _within(function: Any, path: str) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(os.path.dirname(path))


def _name(place: Any) -> str:
    return place.__name__ if isinstance(place, ModuleType) else f"{place.__module__}.{place.__qualname__}"


def _probe() -> torch.Tensor:
    """A little of what every training computes; an operation replaced beneath Python shows here."""
    x = torch.arange(-8.0, 8.0).view(1, 2, 2, 4).requires_grad_()
    y = torch.conv2d(x.detach(), torch.ones(2, 2, 1, 1)).softmax(1) * x.sigmoid().log()
    (y.exp() @ torch.ones(4, 4)).mean().backward()
    return torch.cat([y.detach(), x.grad])


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or torch.allclose(one, other)  # the second takes longer


def settle(who: str) -> list[str]:
    """Set the process back after a user's files were run; return what they had changed. Raises UserError
    where they replaced what other code calls.
    """
    names = replaced()
    if names:
        raise UserError(f"{who} replaces {_some(names)}, which other code calls; use a name of its own")
    changed = restore(SETTINGS | GRAD | HARMLESS)
    _between.clear()
    stuck = [name for name in changed if SETTINGS.get(name, (0, 0))[1] is None]
    if stuck:
        raise UserError(f"{who} changes {_some(stuck)}, which cannot be set back")
    return changed


def refuse(who: str) -> None:
    """Raise UserError where the process is not as it was: what was trained in it cannot be trusted."""
    restore(HARMLESS)
    names = dict.fromkeys([*_between, *replaced(), *restore(SETTINGS | GRAD)])
    _between.clear()
    if not names and not _alike(_probe(), fresh().probe):
        names = ["what operations of torch compute"]
    if names:
        raise UserError(f"{who} changed {_some(list(names))} while it trained; nothing is recorded")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# One call of a user's loss


def own(loss: Callable, cell: Cell, note: Callable[[list[str]], None]) -> Callable:
    """Return a user's loss as it is called in a cell, differentiated at once, so that all of its code runs
    here.

    What it draws depends on the data set, the seed and the step alone. What it changes is set back, and
    ``note`` hears of it. Whatever it raises is an ordinary error.
    """
    home, steps = os.getpid(), cell.recipe.steps

    def compute(logits: Tensor, target: Tensor, **supplied: Any) -> Any:
        _between.extend(restore())  # a network of the user's, or a thread
        training, error = torch.is_grad_enabled(), None
        # Training counts its steps from 0 to the last, validation those that are done.
        step = round(supplied["progress"] * (max(steps - 1, 1) if training else steps))
        with generators(seeds.integer("loss", f"{cell.stream} {training} {step}", cell.seed)):
            try:
                value, slope = _differentiated(loss, logits, target, supplied)
            except (KeyboardInterrupt, GeneratorExit) as raised:
                error = raised
            finally:
                if os.getpid() != home:  # the copy that it made of this process must not go on
                    os._exit(1)
                changed = restore()
                if torch.is_grad_enabled() != training:
                    torch.set_grad_enabled(training)
                    changed.append("grad mode")
                if changed:
                    note(changed)
        if error is not None:
            raise RuntimeError(f"it raised {type(error).__name__}") from error
        return value if slope is None else _Known.apply(logits, value, slope)

    return compute


def _differentiated(loss: Callable, logits: Tensor, target: Tensor, supplied: dict) -> tuple:
    """Return the value of a loss and its gradient by the logits, None where it has none."""
    leaf = logits.detach().requires_grad_(logits.requires_grad)
    value = loss(leaf.clone(), target, **supplied)  # it may write into what it is given
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        return value, None
    return value.detach(), torch.autograd.grad(value, leaf, allow_unused=True)[0]


class _Known(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple:
        return outer * ctx.saved_tensors[0], None, None


@contextmanager
def generators(seed: int) -> Iterator[None]:
    """Within, the global generators of torch, numpy and Python begin at a seed; afterwards they are as they
    were.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cards = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    if cards and torch.cuda.is_current_stream_capturing():
        cards = ()  # a recording of a loss that draws is not like its steps, and thrown away
    on_cards = [card.get_state() for card in cards]
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    for card in cards:
        card.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        for card, state in zip(cards, on_cards, strict=True):
            card.set_state(state)
