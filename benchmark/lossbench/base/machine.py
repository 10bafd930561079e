"""What this process may use of the machine that it runs on: its cores, and a folder to remember things in."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores() -> int:
    """Return the cores that this process may use: its affinity and its control group's quota considered."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def cache_root() -> Path:
    """Return LOSSBENCH_CACHE or the user's cache folder of this platform."""
    # Read on each call, so that a test, or a worker that is given another place, is followed at once.
    if os.environ.get("LOSSBENCH_CACHE"):
        return Path(os.environ["LOSSBENCH_CACHE"]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lossbench", appauthor=False)
