"""Jobs of a batch system that end before a worker arrives: noticed, replaced with patience, and told in the job's own last words.

Dask submits jobs and waits for their workers; it never asks the batch system what became of a job. So each job says itself where it
prints to and that it has ended, by two lines at the start of its script, whatever the batch system is; a refused submission speaks for
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import time
from pathlib import Path
from typing import Any

from benchmark.errors import UserError

FAILURES = 3  # jobs in a row that ended, or were refused, with no worker alive: then the sweep ends with the reason
LINES = 3  # last lines of a job that are told
_LONGEST = 60.0  # seconds until a failed job is replaced, at most


class NoWorkers(UserError):
    """The batch system takes jobs, or refuses them, and no worker ever comes of it."""

    exit_code = 1


class Watch:
    """What became of the jobs of one cluster file."""

    def __init__(self, file: str | Path, folder: Path):
        self.file, self.folder = file, folder
        self.started: dict[Any, Any] = {}  # name -> the job submitted under it
        self.failed = 0  # in a row
        self.reason = ""
        self._arrived: set[Any] = set()
        self._replace: dict[Any, float] = {}

    def of(self, kind: type) -> type:
        """Return the job class of dask-jobqueue that reports to this watch."""
        watch = self

        class Watched(kind):
            def __init__(self, *args: Any, job_script_prologue: Any = (), **options: Any):
                self.mark = watch.folder / f"job-{secrets.token_hex(6)}"
                self.refused = ""
                log, end = (shlex.quote(str(self.mark.with_suffix(suffix))) for suffix in (".log", ".ended"))
                first = [f"exec > {log} 2>&1", f"trap 'touch {end}' EXIT"]
                super().__init__(*args, job_script_prologue=[*first, *(job_script_prologue or ())], **options)

            async def start(self) -> None:
                watch.started[self.name] = self
                try:
                    await super().start()
                except (RuntimeError, ValueError, OSError) as error:
                    self.refused = _stderr(str(error))
                    raise

        Watched.__name__ = kind.__name__
        return Watched

    def look(self, cluster: Any) -> None:
        """Count the jobs that ended without a worker, replace them, and raise NoWorkers when that leads nowhere."""
        present = {str(worker.get("name")) for worker in dict(cluster.scheduler_info.get("workers", {})).values()}
        for name, job in list(self.started.items()):
            if any(worker == str(name) or worker.startswith(f"{name}-") for worker in present):
                self._arrived.add(job.mark)
                self.failed = 0
            elif job.refused or job.mark.with_suffix(".ended").exists():
                self._ended(name, job)
        if self.failed >= FAILURES and not present:
            raise NoWorkers(f"{self.file}: {self.failed} jobs ended and no worker arrived; {self.reason}")
        for name, due in list(self._replace.items()):
            if time.monotonic() >= due:
                del self._replace[name]
                with contextlib.suppress(Exception):
                    cluster.sync(_drop, cluster, name)

    def _ended(self, name: Any, job: Any) -> None:
        del self.started[name]
        if job.mark in self._arrived:
            return  # Dask replaces a job whose worker it has seen
        self.failed += 1
        self._replace[name] = time.monotonic() + min(_LONGEST, 2.0 ** (self.failed - 1))
        self.reason = f"the last was refused: {job.refused}" if job.refused else _last_words(job.mark.with_suffix(".log"))
        with contextlib.suppress(OSError):
            job.mark.with_suffix(".ended").unlink(missing_ok=True)


async def _drop(cluster: Any, name: Any) -> None:
    """Forget a job, as Dask does when a worker is lost, and submit another under its name."""
    job = cluster.workers.pop(name, None)
    if job is not None:
        with contextlib.suppress(Exception):
            await job.close()
    with contextlib.suppress(Exception):  # a second refusal is counted where it happens
        await asyncio.wait_for(cluster._correct_state(), 60)


def _last_words(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    told = f"said: {' | '.join(line[:200] for line in lines[-LINES:])} (all of it: {log})" if lines else f"said nothing (in {log})"
    return f"the last {told}"


def _stderr(text: str) -> str:
    """The words of the submit command in dask-jobqueue's report of its failure."""
    words = text.partition("stderr:")[2].strip() or text.strip()
    return " | ".join(line.strip()[:200] for line in words.splitlines()[-LINES:])
