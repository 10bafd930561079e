"""How the engine gets its Dask workers: on this machine, through a batch system, or from a scheduler that
exists already; and how it gives them back.

The settings below are those that a sweep needs; each answers a trap that lost cells in trials."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shlex
import signal
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.engine import worker
from lossbench.engine.tasks import EngineOptions

NOISY = ("distributed", "tornado", "asyncio", "dask_jobqueue")

SILENT = logging.CRITICAL + 1

# Jobs in a row that ended, or were refused, with no worker alive: then the sweep ends with the reason.
FAILURES = 3

LINES = 3  # last lines of a job that are shown

_LONGEST = 60.0  # seconds until a failed job is replaced, at most

OPEN = (
    "without TLS anybody who reaches the scheduler runs code as you; '--insecure' says that nobody else does"
)

_CONNECT = 15  # seconds until a scheduler that does not answer is called unreachable

PRELOAD = worker.__name__  # what Dask imports in a worker process before anything else


@dataclass
class Connection:
    """A Dask client of the wanted workers, and what was started for it."""

    text: str  # which workers, for people
    client: Any = None
    cluster: Any = None
    watch: Watch | None = None  # over the jobs of a batch system

    def look(self) -> None:
        """Raise NoWorkers when jobs are submitted again and again and no worker comes of it."""
        if self.watch:
            self.watch.look(self.cluster)

    def close(self) -> None:
        """Close all, whatever state it is in; nothing that goes wrong here can cost a record."""
        if self.cluster is not None:
            stop_now(self.cluster)
        for thing in (self.client, self.cluster):
            if thing is not None:
                with contextlib.suppress(Exception):
                    thing.close(timeout=10)


@contextlib.contextmanager
def connected(options: EngineOptions) -> Iterator[Connection]:
    """A connection to the workers that the options ask for; closed afterwards, and with it all that was
    started for it.
    """
    from distributed import Client

    connection = None
    try:
        with interrupts_blocked():
            connection = CONNECT[options.launcher](options)
            if connection.client is None:
                connection.client = Client(connection.cluster, set_as_default=False)
        yield connection
    finally:
        with interrupts_blocked():
            if connection is not None:
                connection.close()


def settings(deaths: int, local: bool = True) -> dict[str, Any]:
    """Dask's configuration while a sweep runs, on workers of this machine or others."""
    return {
        "distributed.scheduler.allowed-failures": deaths - 1,  # Dask gives up at one more
        # no task waits on a worker and is blamed for its death
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.active-memory-manager.start": False,
        # After this a local worker that restarts slowly would be gone for good; a lost job is replaced no
        # sooner.
        "distributed.deploy.lost-worker-timeout": "1 day" if local else "10s",
        "distributed.worker.daemon": False,  # a data loader may need children
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.target": False,  # results live in the store, never in Dask
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,  # a paused worker stalls; the kernel ends what is too large
        "distributed.worker.memory.terminate": False,
        "distributed.comm.timeouts.connect": "60s",
        "distributed.nanny.pre-spawn-environ": dict(worker.ENVIRONMENT),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Dask logs every death and every closing; the engine reports what matters, so its loggers are silent
    meanwhile.
    """
    loggers = [logging.getLogger(name) for name in NOISY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Threads and processes started inside never see Ctrl-C: only the driver's main thread answers it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # started later, from a thread of Dask's, it would unblock the signal there
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def local(options: EngineOptions) -> Connection:
    """Start one single-threaded process a core, or ``per_gpu`` processes on each GPU, on the loopback
    interface only, and with certificates that nobody else has: other users of this machine reach it, too.
    """
    from distributed import Nanny, Scheduler
    from distributed.security import Security

    security = Security.temporary()
    # Without an address the dashboard would take port 8787 though it is off.
    common = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    common |= {"protocol": "tls://", "security": security}
    process = {**common, "nthreads": 1, "memory_limit": 0, "preload": [PRELOAD], "silence_logs": SILENT}
    env = dict(worker.ENVIRONMENT)
    if options.logs:
        env[worker.LOG_FOLDER] = str(options.logs)
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in options.gpus for _ in range(options.per_gpu)]
    slots = slots or [{}] * options.workers
    spec = {n: {"cls": Nanny, "options": {**process, "env": env | slot}} for n, slot in enumerate(slots)}
    cluster = _spec_cluster(
        workers=spec,
        scheduler={"cls": Scheduler, "options": {**common, "port": 0}},
        silence_logs=SILENT,
        name="lossbench",
        security=security,
    )
    text = f"{len(slots)} worker{'s' * (len(slots) != 1)} on this machine"
    return Connection(text + f", {options.per_gpu} a GPU" * bool(options.gpus), cluster=cluster)


def _spec_cluster(**facts: Any) -> Any:
    from distributed import SpecCluster

    try:
        return SpecCluster(**facts)
    except (RuntimeError, OSError):
        pass  # a worker died while it started: once more
    try:
        return SpecCluster(**facts)
    except (RuntimeError, OSError) as error:
        raise UserError(f"the workers on this machine did not start: {worker.sentence(error)}") from None


def from_file(engine: EngineOptions) -> Connection:
    """Start the cluster of a TOML file: ``type`` is a class of dask-jobqueue, ``jobs`` how many jobs to keep
    alive.

    What jobs print goes to ``logs``, else to the file's ``log_directory``, else to a folder in the user's
    cache."""
    path = engine.cluster
    options = _read(Path(path))
    tls = options.pop("tls", None)
    # Before the package is asked for: who installs it should know what comes next.
    if tls is False and not engine.insecure:
        raise UserError(f"{path}: tls = false: {OPEN}")
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue

        signal.signal(signal.SIGINT, before)  # importing it makes Ctrl-C a silent exit
    except ImportError:
        need = "a batch system needs dask-jobqueue: pip install 'lossbench[cluster]'"
        raise UserError(f"{path}: {need}") from None
    known = sorted(n for n in vars(dask_jobqueue) if n.endswith("Cluster") and n != "JobQueueCluster")
    kind, count = options.pop("type", None), options.pop("jobs", 1)
    if kind not in known:
        raise UserError(f"{path}: type: {kind!r} is not a batch system{nearest(str(kind), known)}")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f"{path}: jobs: must be a whole number of 1 or more (got {count!r})")
    options.setdefault("cores", 1)
    # One thread a process: the thread count is part of the protocol.
    options.setdefault("processes", options["cores"])
    if options["processes"] != options["cores"]:
        raise UserError(
            f"{path}: cores: must equal processes ({options['processes']}): a worker has one thread; ask for "
            "further CPUs with job_cpu or the system's own directives"
        )
    exports = [f"export {name}={value}" for name, value in worker.ENVIRONMENT.items()]
    exports += [f"export DASK_DISTRIBUTED__WORKER__{name}=False" for name in ("DAEMON", "PROFILE__ENABLED")]
    options["job_script_prologue"] = [*exports, *options.get("job_script_prologue", [])]
    options["worker_extra_args"] = [*options.get("worker_extra_args", []), "--preload", PRELOAD]
    if tls is not False:
        options |= _encryption()
    options["scheduler_options"] = {"dashboard_address": ":0", **options.get("scheduler_options", {})}
    folder = engine.logs or options.get("log_directory") or _own_folder("jobs")
    folder = Path(folder).expanduser().resolve()
    options["log_directory"] = str(folder)
    options.setdefault("silence_logs", SILENT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        watch, base = Watch(path, folder), getattr(dask_jobqueue, kind)
        cluster = base(job_cls=watch.of(base.job_cls), **options)
        # scale() would never replace a killed job.
        cluster.adapt(minimum_jobs=count, maximum_jobs=count, interval="1s")
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: {kind} did not start: {worker.sentence(error)}") from None
    return Connection(f"jobs submitted by {kind}; waiting", cluster=cluster, watch=watch)


def existing(engine: EngineOptions) -> Connection:
    """Connect to a Dask scheduler by its address (``tcp://host:8786``) or the path of its scheduler file."""
    from distributed import Client

    text = str(engine.scheduler)
    if "://" in text or (":" in text and not Path(text).exists()):
        options = {"address": text}
    elif Path(text).is_file():
        options = {"scheduler_file": text}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            text = f"{text} ({json.loads(Path(text).read_bytes())['address']})"
    else:
        raise UserError(
            f"--scheduler {text}: neither an address such as tcp://host:8786 nor a scheduler file"
        )
    if "tls://" not in text and not engine.insecure:
        raise UserError(f"--scheduler {text}: {OPEN}")
    try:
        client = Client(**options, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--scheduler {text}: no scheduler answers ({worker.sentence(error)})") from None
    threads = max(client.nthreads().values(), default=1)
    if threads > 1:
        client.close()
        raise UserError(
            f"--scheduler {text}: its workers run {threads} threads each; start them with --nthreads 1"
        )
    return Connection(f"{len(client.nthreads())} workers of a running Dask scheduler", client=client)


CONNECT = {"local": local, "cluster": from_file, "scheduler": existing}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _encryption() -> dict[str, Any]:
    """Certificates for one run: a Dask scheduler has no password, anybody on the network could use it."""
    from distributed.security import Security

    return {
        "protocol": "tls://",
        "security": Security.temporary(),
        "shared_temp_directory": str(_own_folder("keys")),
    }


def _own_folder(name: str) -> Path:
    """A folder in the home folder, which nodes share, that only its owner can read."""
    folder = Path.home() / ".cache" / "lossbench" / name
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    return folder


def stop_now(cluster: Any) -> None:
    """End the worker processes of a local cluster at once; whatever they were doing can be repeated."""
    from distributed import Nanny

    async def stop() -> None:
        nannies = [nanny for nanny in cluster.workers.values() if isinstance(nanny, Nanny)]
        await asyncio.gather(*(nanny.close(timeout=0.5) for nanny in nannies), return_exceptions=True)

    with contextlib.suppress(Exception):
        cluster.sync(stop)


class NoWorkers(UserError):
    """The batch system takes jobs, or refuses them, and no worker ever comes of it."""

    exit_code = 1


class Watch:
    """What became of the jobs of one cluster file.

    Dask submits jobs and waits for their workers; it never asks the batch system what became of a job. So
    each job says itself where it prints to and that it has ended, by two lines at the start of its script,
    whatever the batch system is; a refused submission speaks for itself."""

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
        """Count the jobs that ended without a worker, replace them, and raise NoWorkers when that leads
        nowhere.
        """
        workers = dict(cluster.scheduler_info.get("workers", {})).values()
        present = {str(facts.get("name")) for facts in workers}
        for name, job in list(self.started.items()):
            if any(other == str(name) or other.startswith(f"{name}-") for other in present):
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
        said = f"was refused: {job.refused}" if job.refused else _last_words(job.mark.with_suffix(".log"))
        self.reason = f"the last {said}"
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
    if not lines:
        return f"said nothing (in {log})"
    return f"said: {' | '.join(line[:200] for line in lines[-LINES:])} (all of it: {log})"


def _stderr(text: str) -> str:
    """The words of the submit command in dask-jobqueue's report of its failure."""
    words = text.partition("stderr:")[2].strip() or text.strip()
    return " | ".join(line.strip()[:200] for line in words.splitlines()[-LINES:])
