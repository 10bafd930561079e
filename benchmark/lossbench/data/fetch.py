"""Downloading a public set: one archive of the pinned commit, or single files; every hash is compared.

pooch moves a file to its place once its hash is right; requests and urllib3 keep the connection and wait as
long as a busy server asks. The archive is unpacked here: its own hash is not stable (GitHub promises its
contents only), so every member is compared instead.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.base.files import sha256_of, write_atomically
from lossbench.data.cache import locked, reason
from lossbench.data.sources import Source, fetched_folder, get_source

ARCHIVES = "https://github.com"

SINGLES = "https://raw.githubusercontent.com"

BUSY = (429, 500, 502, 503, 504)

TRIES = 5  # of a request that a busy server refuses

LONGEST = 300  # seconds that a server may ask us to wait

PAUSE = 0.1  # seconds between single files, so that a server does not take us for an attack

LARGEST = 256 * 2**20  # bytes; no registered file comes near, and a member that claims more is not unpacked

DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError)

Progress = Callable[[str, int, int], None]  # what is done, how much of how much


class _Unreachable(Exception):
    """The server could not be asked at all."""


class _Refused(Exception):
    """The server answered, but did not give the file."""


def fetch(name: str, *, progress: Progress = lambda what, done, total: None) -> Path:
    """Download what is missing of a public set and return its folder.

    Files that are there and intact are not fetched again, so the next call goes on after an interruption.
    Where one way fails (archive or single files), the other stands in. No network, a refusal, a full disk or
    a foreign file raise UserError with one sentence.
    """
    source = get_source(name)
    folder = fetched_folder(name)
    try:
        # Two fetches at once would write the same files; the second finds them complete.
        with locked(folder):
            return _complete(source, folder, progress)
    except OSError as error:
        kept = "files already complete are kept, run the command again"
        raise UserError(f"{folder}: cannot be written ({reason(error)}); {kept}") from None


def _complete(source: Source, folder: Path, progress: Progress) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    needed = [path for path in source.files if not _is_intact(folder / path, source.files[path])]
    _check_room(source, folder, len(needed))
    # One archive where the repository is small: hundreds of single requests are held against us (429).
    ways = (_from_archive, _from_singles) if source.archive else (_from_singles, _from_archive)
    reasons = []
    for way in ways:
        if not needed:
            break
        try:
            way(source, folder, needed, progress)
        except (_Unreachable, _Refused) as error:
            reasons.append(error)
        needed = [path for path in needed if not (folder / path).is_file()]
    if needed:
        if len(needed) == len(source.files):
            shutil.rmtree(folder, ignore_errors=True)  # nothing came at all
        raise UserError(_sentence(source, len(needed), reasons))
    return folder


def _is_intact(file: Path, expected: str) -> bool:
    """Whether a file is the registered one; another file in its place is removed."""
    if file.is_file() and sha256_of(file) == expected:
        return True
    file.unlink(missing_ok=True)
    return False


def _check_room(source: Source, folder: Path, count: int) -> None:
    # A fifth more than the files: an archive lies beside them until it is unpacked.
    needed = 1.2 * source.size * count / len(source.files)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:.0f} MB are free, '{source.name}' needs {needed / 1e6:.0f} MB"
        )


def _sentence(source: Source, gaps: int, reasons: list[Exception]) -> str:
    total = len(source.files)
    here = f"{total - gaps} of {total} files of '{source.name}' are here"
    if all(isinstance(error, _Unreachable) for error in reasons):
        mend = f"connect to the network or set LOSSBENCH_DATA to a copy ({here})"
        return f"cannot download '{source.name}': {reasons[0]}; {mend}"
    return f"cannot complete '{source.name}': {reasons[-1]}; {here}, run the command again to go on"


def _from_archive(source: Source, folder: Path, needed: list[str], progress: Progress) -> None:
    """Download one archive and write the registered files that it holds."""
    url = f"{ARCHIVES}/{source.repository}/archive/{source.commit}.zip"
    part = folder.parent / f".{folder.name}.zip"
    try:
        # The archive itself is not compared with a hash, hence None.
        downloads = _Downloads({part.name: None}, {part.name: url}, part.parent)
        downloads.seen = lambda done, total: progress("downloading the archive", done, total)
        downloads.get(part.name)
        missing = _unpack(part, source, folder, set(needed), progress)
    except DAMAGED as error:
        raise _Refused(f"the archive {url} is damaged ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    if missing:
        raise _Refused(f"the archive {url} does not hold the registered {min(missing)}")


def _unpack(archive: Path, source: Source, folder: Path, wanted: set[str], progress: Progress) -> set[str]:
    """Write the wanted members whose hash is right; return the others.

    A member's path is only ever compared with the registry, and the registry's own path is written to, so
    nothing in an archive can reach outside the folder. Its first folder is named after repository and commit.
    """
    total, missing = len(wanted), set(wanted)
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            path = member.filename.partition("/")[2].removeprefix(source.prefix)
            if path not in missing or member.file_size > LARGEST:
                continue
            content = opened.read(member)
            if hashlib.sha256(content).hexdigest() == source.files[path]:
                write_atomically(folder / path, content)
                missing.discard(path)
                progress(f"unpacking {source.name}", total - len(missing), total)
    return missing


def _from_singles(source: Source, folder: Path, needed: list[str], progress: Progress) -> None:
    """Download file by file; one that is not the registered file is reported after all others came."""
    base = f"{SINGLES}/{source.repository}/{source.commit}/{urllib.parse.quote(source.prefix)}"
    registry = {path: f"sha256:{source.files[path]}" for path in needed}
    downloads = _Downloads(registry, {path: base + urllib.parse.quote(path) for path in needed}, folder)
    foreign = []  # kept for the end: one wrong file is no reason to leave out the others
    for done, path in enumerate(needed):
        progress(f"downloading {source.name}", done, len(needed))
        try:
            downloads.get(path)
        except ValueError:  # what pooch raises for a wrong hash
            foreign.append(
                f"{path} is not the registered file (expected sha256 {source.files[path][:12]}...)"
            )
        time.sleep(PAUSE)
    progress(f"downloading {source.name}", len(needed), len(needed))
    if foreign:
        raise _Refused(foreign[0])


class _Downloads:
    """Files of one server, by one connection; one that breaks off or comes wrong is tried three times."""

    def __init__(self, registry: dict[str, str | None], urls: dict[str, str], folder: Path):
        import pooch
        import requests
        from urllib3.util import Retry

        pooch.get_logger().setLevel("ERROR")
        self.seen: Callable[[int, int], None] = lambda done, total: None  # bytes of the file that is coming
        self.errors = requests.exceptions
        self.files = pooch.create(folder, "", registry=registry, urls=urls, retry_if_failed=2)
        # One session keeps its connection; without it each of thousands of files would greet the server anew.
        self.session = requests.Session()
        again = Retry(
            TRIES,
            connect=2,
            status_forcelist=BUSY,
            backoff_factor=1,
            raise_on_status=False,
            retry_after_max=LONGEST,
        )
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=again))

    def get(self, name: str) -> None:
        """Bring one file to its place; raises _Unreachable, _Refused, or ValueError for a wrong hash."""
        try:
            self.files.fetch(name, downloader=self._download)
        except self.errors.RequestException:
            raise _Refused(
                f"the connection to {_host(self.files.urls[name])} broke again and again"
            ) from None

    def _download(self, url: str, target: str, _) -> None:
        # Only what breaks off is worth another try; a refusal and a missing network are not.
        try:
            answer = self.session.get(url, stream=True, timeout=30)
        except self.errors.ConnectionError as error:
            raise _Unreachable(f"{_host(url)} cannot be reached ({type(error).__name__})") from None
        with answer, open(target, "wb") as file:
            if not answer.ok:
                raise _Refused(f"{_host(url)} answered {answer.status_code} ({answer.reason}) to {url}")
            total = int(answer.headers.get("Content-Length") or 0)
            for chunk in answer.iter_content(1 << 18):
                file.write(chunk)
                self.seen(file.tell(), max(total, file.tell()))


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc
