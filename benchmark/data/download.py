"""Downloading a public set: one archive of the pinned commit or single files, every file checked before it gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmark.data import sources
from benchmark.data.files import locked, plain, sha256_of, write_whole
from benchmark.errors import UserError

TRIES = 6
PAUSE = 0.1  # seconds between single files, so that a server does not take us for an attack
LARGEST = 256 * 2**20  # bytes; no registered file comes near, an archive member that claims more is not unpacked
BUSY = (429, 500, 502, 503, 504)

Progress = Callable[[str, int, int], None]  # what is done, how much of how much


class _Unreachable(Exception):
    """The server could not be asked at all."""


class _Refused(Exception):
    """The server answered, but did not give the file."""


def fetch(name: str, *, progress: Progress = lambda what, done, total: None, wait: Callable[[float], None] = time.sleep) -> Path:
    """Download what is missing of a public set and return its folder; files that are there and intact are not fetched again.

    A small repository is fetched as one archive, of which only registered paths are written; a large one file by file; each way stands in for
    the other. Every file is compared with its sha256 before it is moved to its place, so an interruption leaves nothing half-written and the
    next call goes on. No network, a refusal, a full disk or a foreign file raise UserError with one sentence.
    """
    source = sources.source(name)
    folder = sources.fetched_folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            needed = _needed(source, folder)
            free = shutil.disk_usage(folder).free
            if needed and free < 1.2 * source.size * len(needed) / len(source.files):
                raise UserError(f"{folder}: {free / 1e6:.0f} MB are free, '{name}' needs {1.2 * source.size / 1e6:.0f} MB")
            ways = (_from_archive, _from_singles) if source.whole_archive else (_from_singles, _from_archive)
            reasons = []
            for way in ways:
                if not needed:
                    break
                try:
                    way(source, folder, needed, progress, wait)
                except (_Unreachable, _Refused) as error:
                    reasons.append(error)
                needed = [path for path in needed if not (folder / path).is_file()]
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({plain(error)}); files already complete are kept, run the command again") from None
    if needed:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where nothing came at all
        raise UserError(_sentence(source, len(needed), reasons))
    return folder


def _needed(source: sources.Source, folder: Path) -> list[str]:
    """Return the paths that are not there; a file that is there but is not the registered one is removed and counted."""
    needed = []
    for path, expected in source.files.items():
        file = folder / path
        if file.is_file() and sha256_of(file) == expected:
            continue
        file.unlink(missing_ok=True)
        needed.append(path)
    return needed


def _sentence(source: sources.Source, lacking: int, reasons: list[Exception]) -> str:
    have = f"{len(source.files) - lacking} of {len(source.files)} files of '{source.name}' are here"
    if reasons and all(isinstance(reason, _Unreachable) for reason in reasons):
        return f"cannot download '{source.name}': {reasons[0]}; connect to the network or set LOSSBENCH_DATA to a copy ({have})"
    return f"cannot complete '{source.name}': {reasons[-1]}; {have}, run the command again to go on"


# --- one archive ----------------------------------------------------------------------------------------------------


def _from_archive(source, folder: Path, needed: list[str], progress: Progress, wait) -> None:
    part = folder.parent / f".{folder.name}.zip.part"
    _download(source.archive_url, part, progress, wait)
    try:
        with zipfile.ZipFile(part) as archive:
            wanted = set(needed)
            for member in archive.infolist():
                # The first folder is named after repository and commit. The rest is only ever compared with the registry, and the
                # registry's own path is written to, so nothing in an archive can reach outside the folder.
                path = member.filename.partition("/")[2]
                if path not in wanted or member.file_size > LARGEST:
                    continue
                content = archive.read(member)
                if hashlib.sha256(content).hexdigest() == source.files[path]:
                    write_whole(folder / path, content)
                    wanted.discard(path)
                    progress(f"unpacking {source.name}", len(needed) - len(wanted), len(needed))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _Refused(f"the archive {source.archive_url} is damaged ({error})") from None
    finally:
        _forget(part)
    if wanted:
        raise _Refused(f"the archive {source.archive_url} lacks {sorted(wanted)[0]} or holds another version of it")


def _download(url: str, part: Path, progress: Progress, wait) -> None:
    """Download to a file, going on where an earlier attempt stopped if the server still has the very same content."""
    tag_file = part.with_suffix(".etag")
    for attempt in range(TRIES):
        tag, have = _tag(tag_file), part.stat().st_size if part.is_file() else 0
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if tag and have else {}
        try:
            with _open(url, headers) as answer:
                going_on = answer.status == 206
                write_whole(tag_file, json.dumps(answer.headers.get("ETag")).encode())
                done = have if going_on else 0
                total = done + int(answer.headers.get("Content-Length") or 0)
                with part.open("ab" if going_on else "wb") as file:
                    while chunk := answer.read(1 << 18):
                        file.write(chunk)
                        done += len(chunk)
                        progress("downloading the archive", done, max(total, done))
            if done >= total:
                return
            wait(_pause(attempt))
        except urllib.error.HTTPError as error:
            if error.code == 416:
                _forget(part)
            elif error.code not in BUSY or attempt == TRIES - 1:
                raise _Refused(f"{urllib.parse.urlsplit(url).netloc} answered {error.code} ({error.reason}) to {url}") from None
            wait(_pause(attempt, error))
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt >= 2:
                raise _unreachable(url, error) from None
            wait(_pause(attempt))
    raise _Refused(f"the connection to {urllib.parse.urlsplit(url).netloc} broke {TRIES} times")


def _tag(file: Path) -> str | None:
    try:
        tag = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) and not tag.startswith("W/") else None


def _forget(part: Path) -> None:
    for file in (part, part.with_suffix(".etag")):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


# --- single files ---------------------------------------------------------------------------------------------------


def _from_singles(source, folder: Path, needed: list[str], progress: Progress, wait) -> None:
    foreign = []
    for done, path in enumerate(needed):
        progress(f"downloading {source.name}", done, len(needed))
        content = _get(source.file_url + urllib.parse.quote(path), wait)
        found = hashlib.sha256(content).hexdigest()
        if found == source.files[path]:
            write_whole(folder / path, content)
        else:
            foreign.append(f"{path} is not the registered file (sha256 {found[:12]}..., expected {source.files[path][:12]}...)")
        wait(PAUSE)
    progress(f"downloading {source.name}", len(needed), len(needed))
    if foreign:
        raise _Refused(foreign[0])


def _get(url: str, wait) -> bytes:
    """Return the content behind an address; a busy server is asked again after the pause that it names, or ever longer ones."""
    for attempt in range(TRIES):
        try:
            with _open(url, {}) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or attempt == TRIES - 1:
                raise _Refused(f"{urllib.parse.urlsplit(url).netloc} answered {error.code} ({error.reason}) to {url}") from None
            wait(_pause(attempt, error))
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt >= 2:
                raise _unreachable(url, error) from None
            wait(_pause(attempt))
    raise AssertionError("every turn returns or raises")


def _open(url: str, headers: dict[str, str]):
    request = urllib.request.Request(url, headers={"User-Agent": "lossbench", **headers})
    return urllib.request.urlopen(request, timeout=30)


def _pause(attempt: int, error: urllib.error.HTTPError | None = None) -> float:
    asked = error.headers.get("Retry-After", "") if error is not None else ""
    return min(float(asked), 300.0) if asked.isdigit() else min(2.0**attempt, 60.0)


def _unreachable(url: str, error: Exception) -> _Unreachable:
    reason = getattr(error, "reason", None) or error
    return _Unreachable(f"{urllib.parse.urlsplit(url).netloc} cannot be reached ({reason or type(error).__name__})")
