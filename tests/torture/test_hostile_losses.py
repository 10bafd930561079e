"""Losses that change, break, kill, block or flood their process: each costs its own cells at most."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from command import lossbench
from tiny import TINY

pytestmark = [pytest.mark.system, pytest.mark.slow]

SWEEP = TINY.replace('name = "tiny"', 'name = "hostile"').replace("seeds = 2", "seeds = 1")

HEAD = """
import builtins, ctypes, decimal, gc, json, os, random, resource, signal, sys, threading, time
import numpy as np
import torch
from lossbench import loss

def base(logits, target):
    return ((logits.softmax(1)[:, 1] - (target == 1).float()) ** 2).mean()

def limit(name, most):
    kind = getattr(resource, f"RLIMIT_{{name}}")
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

@loss("good{number}")
def good(logits, target, *, ignore_index=None):
    return base(logits, target)
"""

LOSS = """
@loss("{name}")
def {name}(logits, target, *, progress, ignore_index=None):
    value = base(logits, target)
    {code}
    return value
"""

# What is set back: the cell trains, and its numbers are those of the loss that does nothing.
SET_BACK = {
    "threads": "torch.set_num_threads(2)",
    "dtype": "torch.set_default_dtype(torch.float64)",
    "device": "torch.set_default_device('meta')",
    "grad_mode": "torch.set_grad_enabled(False)",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "autocast": "torch.set_autocast_enabled('cpu', True)",
    "denormals": "torch.set_flush_denormal(True)",
    "onednn": "torch._C._set_mkldnn_enabled(False)",
    "hooks": "torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 0)",
    "torch_seed": "torch.manual_seed(0)",
    "numpy_seed": "np.random.seed(0)",
    "python_seed": "random.seed(0)",
    "numpy_errors": "np.seterr(all='raise')",
    "folder": "os.chdir('/')",
    "collector": "gc.disable()",
    "recursion": "sys.setrecursionlimit(60)",
    "environment": "os.environ.update(LOSSBENCH_THREADS='2', OMP_NUM_THREADS='2')",
    "file_limit": "limit('FSIZE', 0)",
    "file_mask": "os.umask(0o777)",
    "decimals": "decimal.getcontext().prec = 1",
    "path": "sys.path[:] = []",
    "handlers": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "prints": "print('x' * 5_000_000)",
    "writes": "os.write(1, b'\\\\x00\\\\xff{\"out\": 1}\\\\n' * 1000)",
    "colours": "print('\\\\x1b[2J\\\\x1b]0;title\\\\x07', file=sys.stderr)",
    "closes_stdout": "sys.stdout.close()",
    "leaks": "globals().setdefault('kept', []).append(bytearray(10_000_000))",
    "forks": "os.fork()",
}

# What is random, and the same whenever it is trained.
DRAWS = {
    "torch_draws": "value = value * (1 + torch.rand(()))",
    "numpy_draws": "value = value * (1 + np.random.rand())",
    "python_draws": "value = value * (1 + random.random())",
    "dropout": "value = value + torch.nn.functional.dropout(logits, 0.5).mean()",
    "normal": "value = value + torch.randn_like(logits).mul(logits).mean()",
    "shuffles": "value = (value * torch.from_numpy(np.random.permutation(4) + 1.0)).float()[0]",
}

# What the records of its stack are refused for.
REFUSED = {
    "softmax": "torch.Tensor.softmax = lambda z, dim: z.sigmoid()",
    "backward": "torch.Tensor.backward = lambda *a, **k: None",
    "convolution": "torch.nn.functional.conv2d = torch.conv3d",
    "forward": "torch.nn.Conv2d.forward = lambda self, x: x",
    "total": "builtins.sum = lambda *a: 0",
    "numpy_mean": "np.mean = lambda *a, **k: 1.0",
    "scoring": "__import__('lossbench.training.outcome').training.outcome.score = lambda *a: {}",
    "store": "__import__('lossbench.store.store').store.store.Store.write = lambda *a: None",
    "beneath": "globals().setdefault('lib', torch.library.Library('aten', 'IMPL')).impl("
    "'softmax.int', lambda x, d, t=None: x * 0, 'CompositeImplicitAutograd') "
    "if 'lib' not in globals() else None",
}

# What costs the cell itself.
FAILS = {
    "kill": "os.kill(os.getpid(), 9)",
    "segfault": "ctypes.string_at(0)",
    "leave": "os._exit(0)",
    "abort": "os.abort()",
    "system_exit": "sys.exit(0)",
    "interrupt": "raise KeyboardInterrupt",
    "generator_exit": "raise GeneratorExit",
    "kill_parent": "progress > 0.9 and (os.kill(os.getppid(), 9) or time.sleep(9))",
    "fork_and_die": "os.fork() and os._exit(3)",
    "closes_all": "os.closerange(0, 200)",
    "deep": "(lambda f: f(f))(lambda f: f(f))",
    "huge": "bytearray(1 << 60)",
    "huge_tensor": "torch.empty(1 << 50)",
    "huge_array": "np.zeros(1 << 50)",
    "huge_list": "[0] * (1 << 60)",
    "memory_limit": "limit('AS', 1 << 30) or torch.ones(1 << 29)",
    "long_error": "raise ValueError('x' * 5_000_000)",
    "surrogate": "raise ValueError('\\\\ud800' * 10)",
    "asks": "input()",
}

HANGS = {
    "sleeps": "time.sleep(1000)",
    "loops": "[None for _ in iter(int, 1)]",
    "stops": "os.kill(os.getpid(), signal.SIGSTOP)",
    "waits": "threading.Lock().acquire() and threading.Event().wait()",
    "joins": "signal.pause()",
}

# What happens when the file is loaded, before any loss is called.
LOADING = {
    "loading_threads": ("torch.set_num_threads(2)", True),
    "loading_patch": ("torch.Tensor.softmax = torch.Tensor.sigmoid", False),
    "loading_exit": ("import os; os._exit(0)", False),
    "loading_sleep": ("import time; time.sleep(1000)", False),
    "loading_raise": ("raise KeyboardInterrupt", False),
}

# Of a file of data sets: what building one may do to the process that builds it.
DATA = """
import os
import numpy as np
from lossbench import dataset, get_dataset

def scenes(seed):
    return get_dataset("scenes(foreground=0.1, size=32, n_train=8, n_val=4, n_test=4)", seed)

@dataset("leaves")
def leaves(*, seed):
    os._exit(0)

@dataset("interrupts")
def interrupts(*, seed):
    raise KeyboardInterrupt

@dataset("patches")
def patches(*, seed):
    np.mean = lambda *a, **k: 1.0
    return scenes(seed)
"""

GROUPS = {"set_back": SET_BACK, "draws": DRAWS, "refused": REFUSED, "fails": FAILS, "hangs": HANGS}

# They end by a time limit, in a sweep of their own beside the one of all others, which then needs none.
LATE = ("hangs", "loading_sleep")


def write(folder):
    """Write the experiment and all files; return these by name."""
    (folder / "hostile.toml").write_text(SWEEP)
    files = {}
    for number, (name, group) in enumerate(GROUPS.items()):
        losses = [LOSS.format(name=word, code=code.replace("\\\\", "\\")) for word, code in group.items()]
        files[name] = HEAD.format(number=number) + "".join(losses)
    for name, (code, _) in LOADING.items():
        files[name] = HEAD.format(number=0).replace('"good0"', f'"{name}"') + code + "\n"
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return {name: folder / f"{name}.py" for name in files}


def start(folder, results, *files, options=()):
    words = [sys.executable, "-m", "lossbench", "sweep", "hostile.toml", "--no-report", "--results", results]
    words += [word for file in files for word in ("--with", str(file))]
    with open(folder / f"_{results}.log", "wb") as log:
        return subprocess.Popen([*words, *options], cwd=folder, stdout=log, stderr=log)


def end(sweep, folder, results, code, patience=1500):
    """Wait for a sweep; return the results in its records, by loss, and what it said."""
    try:
        sweep.wait(patience)
    finally:
        sweep.terminate()  # which one that has ended does not hear
    assert sweep.returncode == code, (folder / f"_{results}.log").read_text(errors="replace")[-3000:]
    said = (folder / f"_{results}.log").read_text(errors="replace")
    assert "Traceback" not in said and len(said) < 200_000
    records = {}
    for path in (folder / results / "cells").rglob("*.json"):
        record = json.loads(path.read_text())
        if "metrics" in record:
            same = {key: record[key] for key in ("metrics", "images", "curves", "steps")}
            records[record["loss_label"]] = same
    return records, said


def test_hostile_losses_ruin_nothing_but_their_own_cells(tmp_path):
    assert sum(map(len, GROUPS.values())) + len(LOADING) >= 60
    files, began = write(tmp_path), time.monotonic()
    alone, _ = end(start(tmp_path, "alone", options=["--serial"]), tmp_path, "alone", code=0)
    # Enough for a process to start and train, however busy this machine is.
    took = time.monotonic() - began
    limit, patience = f"{max(60, 10 * took):.0f}", max(1500, 100 * took)
    late, others = ([files[name] for name in files if (name in LATE) is which] for which in (True, False))
    hanging = start(tmp_path, "late", *late, options=("--workers", "3", "--time-limit", limit))
    all_others = start(tmp_path, "others", *others, options=("--workers", "2"))
    records, said = end(all_others, tmp_path, "others", 1, patience)
    more, more_said = end(hanging, tmp_path, "late", 1, patience)
    for name in ("ce", "dice"):
        assert records[name] == more[name] == alone[name]
    records, said = records | more, said + more_said
    for number in range(len(GROUPS)):  # innocent, in files full of hostile ones
        assert records[f"good{number}"] == records["good0"]
    for name in SET_BACK:
        assert records[name]["metrics"] == records["good0"]["metrics"], name
    assert DRAWS.keys() <= records.keys()
    for name in (*REFUSED, *FAILS, *HANGS):
        assert name not in records
        assert f"'{name}'" in said, name
    for name, (_, trains) in LOADING.items():
        assert (name in records) is trains, name
    assert "with status 0" in said and "over its time limit" in said and "KeyboardInterrupt" in said
    for path in tmp_path.rglob("*.error.json"):
        text = path.read_text()
        assert len(text) < 20_000 and str(tmp_path) not in text

    serial = start(tmp_path, "again", files["draws"], options=("--stack", "2", "--serial"))
    again, _ = end(serial, tmp_path, "again", code=0)
    assert {name: again[name] for name in DRAWS} == {name: records[name] for name in DRAWS}


def test_a_data_set_of_a_users_file_is_opened_in_a_process_of_its_own(tmp_path):
    (tmp_path / "own.py").write_text(DATA)
    (tmp_path / "hostile.toml").write_text(SWEEP)
    mean, words = np.mean, ("sweep", "hostile.toml", "--with", "own.py", "--serial", "--no-report", "--data")
    assert "ended by itself with status 0" in lossbench(tmp_path, *words, "leaves", code=2)
    assert "KeyboardInterrupt" in lossbench(tmp_path, *words, "interrupts", code=2)
    assert "numpy.mean" in lossbench(tmp_path, *words, "patches", code=1)
    assert np.mean is mean
