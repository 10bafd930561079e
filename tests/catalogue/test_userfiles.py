"""A loss of the user's is stale when anything changes that it computes with, in whatever form it comes in;
helpers of one name do not meet."""

from __future__ import annotations

import _ctypes
import importlib.util
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lossbench.base.errors import UserError
from lossbench.catalogue import userfiles
from lossbench.catalogue.entries import read_entries
from lossbench.catalogue.registry import get_loss

LOSS = """
{imports}
from lossbench import loss
{before}
@loss("mine"{facts})
def mine(logits, target, *, ignore_index=None):
    {inside}
    return logits.sum() * 0 + {value}
"""

NETWORK = """
from pathlib import Path
from torch import nn
from lossbench import network

@network("mine")
def mine(in_channels, classes, dims):
    size = int(Path(__file__).with_name(f"w{1}.txt").read_text())
    return nn.Conv2d(in_channels, classes, size, padding="same")
"""

HELPER = "FACTOR = 1.0\ndef f():\n    return FACTOR\nclass C:\n    weight = 1.0\n"

# name: (pieces of the loss, files beside it, file that is edited; all say 1.0 before and 2.0 after)
ONE = {"helper.py": HELPER}
PACKAGE = {"pkg/__init__.py": "", "pkg/sub.py": HELPER}
FORMS = {
    "import": ({"imports": "import helper", "value": "helper.f()"}, ONE),
    "import as": ({"imports": "import helper as h", "value": "h.f()"}, ONE),
    "from": ({"imports": "from helper import f", "value": "f()"}, ONE),
    "from as": ({"imports": "from helper import f as g", "value": "g()"}, ONE),
    "from star": ({"imports": "from helper import *", "value": "f()"}, ONE),
    "inside a function": ({"inside": "import helper", "value": "helper.f()"}, ONE),
    "from inside a function": ({"inside": "from helper import f", "value": "f()"}, ONE),
    "try": (
        {"imports": "try:\n    import helper\nexcept ImportError:\n    helper = None", "value": "helper.f()"},
        ONE,
    ),
    "if": ({"imports": "if True:\n    from helper import f", "value": "f()"}, ONE),
    "class body": ({"before": "class A:\n    from helper import f", "value": "A.f()"}, ONE),
    "package": (
        {"imports": "import pkg", "value": "pkg.f()"},
        {"pkg/__init__.py": HELPER},
    ),
    "module of a package": ({"imports": "import pkg.sub", "value": "pkg.sub.f()"}, PACKAGE),
    "module from a package": ({"imports": "from pkg import sub", "value": "sub.f()"}, PACKAGE),
    "name from a package's module": ({"imports": "from pkg.sub import f", "value": "f()"}, PACKAGE),
    "what a package imports": (
        {"imports": "import pkg", "value": "pkg.f()"},
        {"pkg/__init__.py": "from .sub import f", "pkg/sub.py": HELPER},
    ),
    "folder without init": ({"imports": "from pkg.sub import f", "value": "f()"}, {"pkg/sub.py": HELPER}),
    "star of a package": (
        {"imports": "from pkg import *", "value": "sub.f()"},
        {"pkg/__init__.py": "__all__ = ['sub']", "pkg/sub.py": HELPER},
    ),
    "helper of a helper": (
        {"imports": "import helper", "value": "helper.g()"},
        {"helper.py": "import deep\ndef g():\n    return deep.f()\n", "deep.py": HELPER},
    ),
    "importlib": (
        {"imports": "import importlib\nh = importlib.import_module('hel' + 'per')", "value": "h.f()"},
        ONE,
    ),
    "importlib inside": (
        {"imports": "import importlib", "value": "importlib.import_module('hel' + 'per').f()"},
        ONE,
    ),
    "__import__": ({"value": "__import__('hel' + 'per').f()"}, ONE),
    "import_module under a name of its own": (
        {"imports": "from importlib import import_module as get\nh = get('hel' + 'per')", "value": "h.f()"},
        ONE,
    ),
    "run_path under a name of its own": (
        {
            "imports": "from runpy import run_path as run\nh = run(f'{__file__[:-6]}helper.py')",
            "value": "h['f']()",
        },
        ONE,
    ),
    "a loader by its name as text": (
        {"imports": "import importlib as i", "value": "getattr(i, 'import_' + 'module')('hel' + 'per').f()"},
        ONE,
    ),
    "sys.path": (
        {
            "imports": "import sys, os\nsys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\n"
            "import far",
            "value": "far.f()",
        },
        {"lib/far.py": HELPER},
    ),
    "exec": (
        {
            "imports": "import os\nexec(open(os.path.dirname(__file__) + '/helper' + '.py').read())",
            "value": "f()",
        },
        ONE,
    ),
    "runpy": (
        {
            "imports": "import runpy, os\n"
            "h = runpy.run_path(os.path.join(os.path.dirname(__file__), 'helper.py'))",
            "value": "h['f']()",
        },
        ONE,
    ),
    "decorator": (
        {
            "imports": "from helper import scaled",
            "before": "@scaled(3)\ndef g():\n    return 1.0",
            "value": "g()",
        },
        {"helper.py": "def scaled(x):\n    return lambda f: lambda: f() * 1.0\n"},
    ),
    "base class": (
        {"imports": "import helper", "before": "class D(helper.C):\n    pass", "value": "D.weight"},
        ONE,
    ),
    "value in a file": (
        {
            "imports": "from pathlib import Path",
            "value": "float(Path(__file__).with_name('w.txt').read_text())",
        },
        {"w.txt": "1.0"},
    ),
    "value in a file in a folder": (
        {"imports": "import os", "value": "float(open(os.path.dirname(__file__) + f'/w/{1}.txt').read())"},
        {"w/1.txt": "1.0"},
    ),
    "value by a reader under a name of its own": (
        {"imports": "from numpy import loadtxt as get", "value": "float(get(f'{__file__[:-6]}w{1}.txt'))"},
        {"w1.txt": "1.0"},
    ),
    "value by open under a name of its own": (
        {"imports": "from io import open as get", "value": "float(get(f'{__file__[:-6]}w{1}.txt').read())"},
        {"w1.txt": "1.0"},
    ),
    "value by the loader": (
        {"value": "float(__loader__.get_data(f'{__file__[:-6]}w{1}.txt'))"},
        {"w1.txt": "1.0"},
    ),
    "value by a table reader": (
        {
            "imports": "import csv, fileinput",
            "value": "float(next(csv.reader(fileinput.input(f'{__file__[:-6]}w{1}.txt')))[0])",
        },
        {"w1.txt": "1.0"},
    ),
    "file of its own name": (
        {
            "imports": "from pathlib import Path",
            "value": "float(Path(__file__).with_suffix('.txt').read_text())",
        },
        {"own.txt": "1.0"},
    ),
    "depends": ({"facts": ", depends=['w.bin']", "value": "1.0"}, {"w.bin": "1.0"}),
    "constant in if": ({"before": "if True:\n    W = 1.0", "value": "W"}, {}),
    "constant in for": ({"before": "for W in [1.0]:\n    pass", "value": "W"}, {}),
    "constant in try": ({"before": "try:\n    W = 1.0\nfinally:\n    pass", "value": "W"}, {}),
    "added": ({"before": "W = 0\nW += 1.0", "value": "W"}, {}),
    "assigned twice": ({"before": "W = 1.0\nW = W * 3", "value": "W"}, {}),
    "item": ({"before": "W = {}\nW['a'] = 1.0", "value": "W['a']"}, {}),
    "method": ({"before": "W = []\nW.append(1.0)", "value": "W[0]"}, {}),
    "called when loaded": (
        {"before": "W = []\ndef fill():\n    W.append(1.0)\nfill()", "value": "W[0]"},
        {},
    ),
    "argument of a decorator": (
        {
            "before": "def by(x):\n    return lambda f: lambda: x\n@by(1.0)\ndef g():\n    pass",
            "value": "g()",
        },
        {},
    ),
    "name as text": ({"before": "W = 1.0", "value": "globals()['W']"}, {}),
}


def write(folder, pieces, files):
    empty = dict.fromkeys(("imports", "before", "facts"), "")
    (folder / "own.py").write_text(LOSS.format(**empty | {"inside": "pass", "value": "1.0"} | pieces))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "own.py"


def fingerprint(file):
    return read_entries(file)[0].fingerprint


# Found by running the file, for which a process starts.
RUN = (
    *("importlib", "importlib inside", "__import__", "sys.path", "exec", "runpy", "name as text"),
    *("value in a file", "value in a file in a folder", "file of its own name"),
    *("import_module under a name of its own", "run_path under a name of its own"),
    *("a loader by its name as text", "value by a reader under a name of its own"),
    *("value by open under a name of its own", "value by the loader", "value by a table reader"),
)


def forms():
    slow = [pytest.param(form, marks=pytest.mark.slow) for form in RUN[1:]]
    return [form for form in FORMS if form not in RUN[1:]] + slow


@pytest.mark.parametrize("form", forms())
def test_a_change_of_what_a_loss_computes_with_makes_it_stale(tmp_path, form):
    pieces, files = FORMS[form]
    own = write(tmp_path, pieces, files)
    before = fingerprint(own)
    (tmp_path / "other.txt").write_text("not of it")
    assert fingerprint(own) == before
    value = get_loss("mine", [own], check=False)(torch.ones(1, 2), None).item()
    assert value == 3 or value == 1
    edited = [name for name, text in files.items() if "1.0" in text] or ["own.py"]
    text = (tmp_path / edited[0]).read_text()
    (tmp_path / edited[0]).write_text(text.replace("1.0", "2.5"))
    assert fingerprint(own) != before


def test_a_helper_on_the_path_counts_too(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    own = write(tmp_path, {"imports": "import helper", "value": "helper.f()"}, {})
    before = fingerprint(own)
    (tmp_path / "lib" / "helper.py").write_text(HELPER.replace("1.0", "2.0"))
    assert fingerprint(own) != before


def test_a_package_on_the_path_counts_though_a_folder_of_its_name_stands_beside_the_file(
    tmp_path, monkeypatch
):
    package = tmp_path / "lib" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    (tmp_path / "own" / "pkg").mkdir(parents=True)
    own = write(tmp_path / "own", {"imports": "import pkg", "value": "pkg.f()"}, {})
    before = fingerprint(own)
    (package / "__init__.py").write_text(HELPER.replace("1.0", "2.0"))
    assert fingerprint(own) != before


def test_a_helper_that_a_finder_leads_to_counts_too(tmp_path, monkeypatch):
    """As packages do that are installed in place."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "inplace.py").write_text(HELPER)
    spec = importlib.util.spec_from_file_location("inplace", tmp_path / "far" / "inplace.py")
    finder = SimpleNamespace(find_spec=lambda name, *_: spec if name == "inplace" else None)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    (tmp_path / "own").mkdir()
    own = write(tmp_path / "own", {"imports": "import inplace", "value": "inplace.f()"}, {})
    before = fingerprint(own)
    (tmp_path / "far" / "inplace.py").write_text(HELPER.replace("1.0", "2.0"))
    assert fingerprint(own) != before


@pytest.mark.parametrize("imports", ["import fast", "import ctypes\nctypes.CDLL(f'{__file__[:-6]}fast.so')"])
def test_a_compiled_helper_counts_too(tmp_path, imports):
    own = write(tmp_path, {"imports": imports}, {})
    (tmp_path / "fast.so").write_bytes(Path(_ctypes.__file__).read_bytes())
    before = fingerprint(own)
    (tmp_path / "fast.so").write_bytes((tmp_path / "fast.so").read_bytes() + b"more")
    assert fingerprint(own) != before


@pytest.mark.slow
def test_a_file_that_comes_later_counts(tmp_path):
    value = "sum(float(p.read_text()) for p in Path(__file__).parent.glob('*.t' + 'xt'))"
    own = write(tmp_path, {"imports": "from pathlib import Path", "value": value}, {"a.txt": "1.0"})
    before = fingerprint(own)
    (tmp_path / "b.txt").write_text("1.0")
    assert fingerprint(own) != before


@pytest.mark.slow
def test_what_the_builder_of_a_network_reads_counts_too(tmp_path):
    (tmp_path / "own.py").write_text(NETWORK)
    (tmp_path / "w1.txt").write_text("3")
    before = fingerprint(tmp_path / "own.py")
    (tmp_path / "w1.txt").write_text("5")
    assert fingerprint(tmp_path / "own.py") != before


def test_two_helpers_that_are_exchanged_count(tmp_path):
    pieces = {"imports": "import a, b", "value": "a.f() - 2 * b.f()"}
    own = write(tmp_path, pieces, {"a.py": HELPER, "b.py": HELPER.replace("1.0", "2.0")})
    before = fingerprint(own)
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    (tmp_path / "b.py").rename(tmp_path / "a.py")
    (tmp_path / "c.py").rename(tmp_path / "b.py")
    assert fingerprint(own) != before


def test_comments_other_losses_and_other_constants_change_nothing(tmp_path):
    own = write(tmp_path, {"imports": "import helper", "value": "helper.f()"}, ONE)
    before = fingerprint(own)
    (tmp_path / "helper.py").write_text("# why\n" + HELPER)
    own.write_text('"""Mine."""\n' + own.read_text() + "\nOTHER = 3\ndef other():\n    return OTHER\n")
    assert fingerprint(own) == before


def test_a_file_that_is_missing_is_named(tmp_path):
    own = write(tmp_path, {"facts": ", depends=['gone.csv']"}, {})
    with pytest.raises(UserError, match=r"'mine' depends on 'gone.csv', and there is no such file beside it"):
        fingerprint(own)


def test_helpers_of_one_name_in_two_folders_do_not_meet(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        pieces = {"imports": "import helper", "inside": "import late", "value": "helper.f() + late.f()"}
        files = {word: HELPER.replace("1.0", str(value)) for word in ("helper.py", "late.py")}
        write(tmp_path / name, pieces, files)
    losses = [get_loss("mine", [tmp_path / name / "own.py"], check=False) for name in "ab"]
    for _ in range(2):
        assert [loss(torch.ones(1, 2), None).item() for loss in losses] == [2.0, 4.0]
    assert not {"helper", "late"} & sys.modules.keys()


@pytest.mark.parametrize("how", ["time.sleep(100)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_a_file_whose_loss_hangs_is_still_marked_and_nothing_is_left_of_it(tmp_path, monkeypatch, how):
    own = write(tmp_path, {"imports": "import os, signal, time", "inside": how}, {})
    monkeypatch.setattr(userfiles, "CALL", 1.0)
    processes = []
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: processes.append(start(*a, **k)) or processes[-1]
    )
    assert len(fingerprint(own)) == 16
    (process,) = processes
    alive, end = True, time.monotonic() + 10  # a moment passes until the kernel has ended all
    while alive and time.monotonic() < end:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
            continue
        alive = False
    assert not alive


def test_listing_runs_nothing_and_a_file_that_hangs_is_still_marked(tmp_path, monkeypatch):
    own = write(tmp_path, {"imports": "import os, time\nopen(os.devnull)\ntime.sleep(100)"}, {})
    (entry,) = read_entries(own)
    assert entry.name == "mine" and not subprocess.run([sys.executable, "-c", ""], check=False).returncode
    monkeypatch.setattr(userfiles, "LIMIT", 1.0)
    monkeypatch.setattr(userfiles, "CALL", 1.0)
    assert len(entry.fingerprint) == 16


def test_a_folder_of_results_that_comes_beside_a_file_does_not_run_it_again(tmp_path, monkeypatch):
    own = write(tmp_path, {"imports": "import os\nopen(os.devnull)"}, {})
    runs, run = [], userfiles._opened
    monkeypatch.setattr(userfiles, "_opened", lambda path: runs.append(path) or run(path))
    first = fingerprint(own)
    (tmp_path / "results" / "leases").mkdir(parents=True)
    assert fingerprint(own) == first and len(runs) == 1
    (tmp_path / "helper.csv").write_text("1")
    assert fingerprint(own) == first and len(runs) == 2


def test_a_file_is_run_to_be_marked_and_that_is_said_before(tmp_path, caplog):
    own = write(tmp_path, {"imports": "import os\nopen(os.devnull)"}, {})
    says = f"{own.name}: trying out mine to see which files it reads; this may take a minute ..."
    fingerprint(own)
    assert caplog.messages == [says]
    fingerprint(own)
    assert caplog.messages == [says]
