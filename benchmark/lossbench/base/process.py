"""This process: what it may use of the machine that it runs on, and a word for it, so that whoever meets its
files later can tell whether it still lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import signal
import sys
from functools import cache
from pathlib import Path


@cache
def host() -> str:
    """An 8-hex pseudonym of this boot of this host and its process namespace; the name itself is stored
    nowhere.
    """
    parts = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            parts.append(Path(source).read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def started(pid: int) -> str | None:
    """When a process of this host started, as an opaque word; None when it is gone (a zombie is gone); "?"
    unknown.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        except OSError:
            pass  # gone, or another user's where /proc is closed
    if sys.platform == "win32":  # os.kill(pid, 0) would end the process there
        import psutil

        return "?" if psutil.pid_exists(pid) else None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return "?"


def owner() -> str:
    """This process as a word: host pseudonym, pid and start, joined by "-"."""
    pid = os.getpid()
    return f"{host()}-{pid}-{started(pid)}"


def is_dead(word: str) -> bool:
    """Whether the owner of that word ran on this host and is gone. False for other hosts: nobody can know."""
    parts = word.split("-")
    if len(parts) != 3 or parts[0] != host() or not parts[1].isdigit():
        return False
    # Numbers of processes are used again; the time of the start tells two of them apart.
    now = started(int(parts[1]))
    return now is None or ("?" not in (now, parts[2]) and now != parts[2])


# --- what it may use


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity and its control group's quota considered."""
    # A container may see all cores of its machine and have two of them.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    return max(1, cores)


A_WORKER = 1e9  # bytes that a worker holds with small networks; whole images of 4 million pixels take 1.3e9


def usable_memory() -> float:
    """Return the bytes that this process may use: the machine's, or what its control group allows; inf where
    neither is known.
    """
    held = math.inf
    with contextlib.suppress(OSError, ValueError, AttributeError):
        held = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        held = min(held, float(int(Path("/sys/fs/cgroup/memory.max").read_text())))
    return held


def usable_workers(each: float = A_WORKER) -> int:
    """Return how many workers this machine bears: one a core, as far as its memory goes."""
    return max(1, int(min(usable_cores(), usable_memory() / each)))


def peak_memory() -> float:
    """Return the most bytes that this process, or one that it has started and ended, has held so far; nan
    where the platform does not say.
    """
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    held = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return held * (1 if sys.platform == "darwin" else 1024)  # bytes there, kilobytes elsewhere


def cache_root() -> Path:
    """Return LOSSBENCH_CACHE or the user's cache folder of this platform."""
    # Read on each call, so that a test, or a worker that is given another place, is followed at once.
    if os.environ.get("LOSSBENCH_CACHE"):
        return Path(os.environ["LOSSBENCH_CACHE"]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lossbench", appauthor=False)


def end_with_parent() -> None:
    """Ask Linux to end this process with the thread that started it: its own threads may never run again."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
