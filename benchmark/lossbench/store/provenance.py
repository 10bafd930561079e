"""Where a record came from: code, packages and hardware, without anything secret; collected once a sweep by
the driver.

    facts = provenance.collect(results="results")   # the keys are those of record.Provenance
    record["provenance"] = {**facts, "threads": 1, "device": "cpu"}      # the worker adds what only it knows

Left out on purpose: environment variables, host and user names, home folders, addresses. The difference
between the code that ran and its commit is stored once, by its hash, in ``results/provenance/<hash>.diff``;
changes in the results folder are not changes of the code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lossbench.base.files import cannot_write, write_atomically
from lossbench.base.process import usable_cores

# Those that results can depend on: a list of all would say less.
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "distributed",
    "monai",
    "segmentation-models-pytorch",
    "kornia",
)

# Those of them that compute what every training computes.
NUMERIC = ("torch", "numpy", "scipy")

CODE = Path(__file__).resolve().parents[1]

# A difference that reads the same whatever the user's own settings are.
PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")

LARGEST = 2_000_000  # bytes of a difference that are stored; its hash covers all of it


def collect(
    results: str | Path = "results", *, command: Sequence[str] | None = None, code: Path = CODE
) -> dict[str, Any]:
    """Return what is known about code, packages and hardware; store the difference to the commit, if there is
    one.
    """
    difference, code_facts = _code(code, Path(results))
    if difference:
        code_facts["diff"] = _store(difference, Path(results))
    return {
        **code_facts,
        "version": _version("lossbench") or "",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": hardware(),
        "python": platform.python_version(),
        "platform": " ".join(filter(None, [platform.system(), platform.machine(), *platform.libc_ver()])),
        "command": typed(sys.argv if command is None else command),
    }


def hardware() -> dict[str, Any]:
    """Return {"cpu": model, "cores": usable, "memory_gb": of the machine, "gpus": [names]}."""
    return {"cpu": _cpu(), "cores": usable_cores(), "memory_gb": _memory_gb(), "gpus": gpus()}


def environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what, besides the code, decides the bits of a training: its processor, device, threads and the
    libraries that compute. ``facts``: the provenance of a record.
    """
    packages = facts.get("packages", {})
    same = {name: facts.get(name) for name in ("python", "platform", "threads", "device")}
    same["cpu"] = facts.get("hardware", {}).get("cpu")
    return same | {name: packages.get(name) for name in NUMERIC}


def is_tracked(folder: Path, *names: str) -> bool:
    """Whether git tracks one of these files of a folder; False where there is no git and no checkout."""
    return bool(_git(folder, "ls-files", "--", *names))


def typed(words: Sequence[str]) -> str:
    """Return a command line without what may tell who and where: folders of paths, addresses, values of
    secrets.
    """
    if not words:
        return ""
    shown = [Path(words[0]).stem if words[0].endswith(".py") else Path(words[0]).name]
    hide = False
    for word in words[1:]:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        shown.append(option + equals + ("..." if hide else _bare(value)))
        hide = word == "--scheduler"  # its value is an address, or a file that holds one
    return " ".join(shown)


def scrub(text: str) -> str:
    """Return a text with this user's home folder shortened to ``~``."""
    home = os.path.expanduser("~")
    return re.sub(rf"{re.escape(home)}(?=[/\\]|\b)", "~", text) if len(home) > 1 else text


def _bare(word: str) -> str:
    if "://" in word or "@" in word or re.fullmatch(r"[\w.-]+:\d+", word):
        return "..."
    return Path(word).name if word.startswith(("/", "~", "..")) or re.match(r"[A-Za-z]:\\", word) else word


def _code(code: Path, results: Path) -> tuple[bytes, dict[str, Any]]:
    """Return (difference to the commit, {"commit", "dirty", "diff"}) of the checkout that holds ``code``."""
    unknown = {"commit": None, "dirty": False, "diff": None}
    root, commit = _git(code, "rev-parse", "--show-toplevel").strip(), _git(code, "rev-parse", "HEAD").strip()
    # A package may have been installed below somebody's other checkout, whose commit says nothing about it.
    tracked = _git(code, "ls-files", "--error-unmatch", "--", str(code / "__init__.py"))
    if not root or not commit or not tracked:
        return b"", unknown
    difference = scrub(_git(Path(root), "diff", *PLAIN, "HEAD", "--", *_paths(results, Path(root))))
    # Of files that git does not know only those of the code count, and of these only the hash: they may be
    # anything.
    new = _git(Path(root), "ls-files", "--others", "--exclude-standard", "-z", "--", str(code))
    for name in sorted(filter(None, new.split("\0"))):
        with contextlib.suppress(OSError):
            digest = hashlib.sha256((Path(root) / name).read_bytes()).hexdigest()
            difference += f"new file {name} sha256 {digest}\n"
    return difference.encode(), {"commit": commit, "dirty": bool(difference), "diff": None}


def _paths(results: Path, root: Path) -> list[str]:
    """Return what of the checkout counts as code: all but its results, also where they lie elsewhere in
    it.
    """
    paths = [":(top)", ":(top,exclude)results"]
    with contextlib.suppress(ValueError, OSError):
        inside = results.resolve().relative_to(root.resolve()).as_posix()
        if inside not in (".", "results"):
            paths.append(f":(top,exclude){inside}")
    return paths


def _store(difference: bytes, results: Path) -> str:
    """Write a difference under its hash, unless it is there; return the hash (16 hex)."""
    # By its content: equal changes of code are one file, whoever swept when.
    name = hashlib.sha256(difference).hexdigest()[:16]
    path = results / "provenance" / f"{name}.diff"
    # Once for all records of a sweep: they name it by its hash.
    if not path.exists():
        kept = difference[:LARGEST]
        cut = f"\n[cut: {len(difference)} bytes in all]\n".encode() if len(difference) > LARGEST else b""
        try:
            write_atomically(path, kept + cut)
        except OSError as error:
            raise cannot_write(results, error) from None
    return name


def _git(folder: Path, *words: str) -> str:
    """What git says; nothing where there is no git, no checkout, or it refuses."""
    # Without locks, since several sweeps may ask at once; in English and without quotes, whoever asks.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-c", "core.quotepath=off", "-C", str(folder), *words]
    try:
        # A repository on a share that hangs must not keep a sweep from its start.
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware", "cpu model")):
                return " ".join(line.partition(":")[2].split())
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def gpus(driver: str | Path = "/proc/driver/nvidia/gpus") -> list[str]:
    """Names of NVIDIA GPUs as the driver says them, without loading torch."""
    names = []
    for file in sorted(Path(driver).glob("*/information")):
        with contextlib.suppress(OSError):
            lines = [line.partition(":") for line in file.read_text().splitlines()]
            names += [value.strip() for name, _, value in lines if name == "Model"]
    return names
