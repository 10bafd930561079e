"""What is known about each public set before a byte of it is here, and where a copy of it may lie."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.base.process import cache_root

REGISTRY = Path(__file__).parent / "registry"

_LINE = re.compile(r"(\S+) sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Source:
    """One public set at one commit of a GitHub repository, as registry/sources.toml describes it.

    ``size`` in bytes; ``consent``: its licence is not open, so it is fetched by name only; ``archive``: the
    repository is small enough to come as one archive; ``prefix``: the folder that all paths lie below;
    ``published``: scores, each with metric, source, and whether ours can be compared with it;
    ``unpublished``: why there is none.
    """

    name: str
    title: str
    repository: str
    commit: str
    size: int
    licence: str
    citation: str
    consent: bool
    archive: bool
    prefix: str = ""
    published: list[dict[str, Any]] = field(default_factory=list)
    unpublished: str = ""

    @cached_property
    def files(self) -> dict[str, str]:
        """The sha256 of every registered file by its path inside the repository."""
        return read_registry(REGISTRY / f"{self.name}.registry.txt")

    @cached_property
    def copies(self) -> dict[str, tuple[str, str]]:
        """Path and sha256 of files that a local copy may hold in place of others: TIFF written again as
        PNG.
        """
        file = REGISTRY / f"{self.name}.copies.txt"
        # Where PNG came from TIFF the pixels are equal, and the hashes cannot be.
        # Most sets have no such file.
        copies = read_registry(file) if file.is_file() else {}
        return {str(PurePosixPath(path).with_suffix(".tif")): (path, mark) for path, mark in copies.items()}

    @property
    def folder(self) -> str:
        """The folder name of the raw files; both registries of CamVid describe one folder."""
        return self.name.removesuffix("_full")

    @property
    def url(self) -> str:
        return f"https://github.com/{self.repository}"

    def card(self) -> dict[str, Any]:
        """Return what a report says about where the data come from."""
        return {
            "licence": self.licence,
            "citation": self.citation,
            "url": self.url,
            "source": f"commit {self.commit[:10]}",
            "published": self.published,
            "unpublished": self.unpublished,
        }


def _read_sources() -> dict[str, Source]:
    # Read once at import: about ten kilobytes.
    described = tomllib.loads((REGISTRY / "sources.toml").read_text(encoding="utf-8"))
    return {name: Source(name, **facts) for name, facts in described.items()}


SOURCES = _read_sources()


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
        if not match or not _is_inside(match[1]):
            raise UserError(f"{path}:{number}: not a registry line '<path> sha256:<hash>'")
        files[match[1]] = match[2]
    return files


def _is_inside(path: str) -> bool:
    """Return whether a relative path stays inside its folder on every system."""
    parts = PurePosixPath(path).parts
    # Backslashes and drive letters are folders on Windows, and '~' is one to some tools.
    climbs = not parts or ".." in parts or path.startswith(("/", "~"))
    return not climbs and "\\" not in path and ":" not in path


@lru_cache(maxsize=32)
def registry_hash(name: str) -> str:
    """Return 16 hexadecimal digits over the set's registry files: what identifies the raw data."""
    digest = hashlib.sha256()  # part of every cell key of the set: these files never change their bytes
    for file in sorted(REGISTRY.glob(f"{name}.*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def tile_groups() -> list[dict[str, str]]:
    """Return rows (path, exposure, num, defect, group) of the magnetic tiles; we derived the groups."""
    with (REGISTRY / "magnetic_tile.groups.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def raw_folder(name: str) -> Path | None:
    """Return where the raw files of a set lie, below LOSSBENCH_DATA or the cache, or None.

    A complete place goes before one with gaps.
    """
    places = [fetched_folder(name)]
    if os.environ.get("LOSSBENCH_DATA"):
        # The user's own copy goes before what was downloaded.
        places.insert(0, Path(os.environ["LOSSBENCH_DATA"]).expanduser() / get_source(name).folder)
    places = [place for place in places if place.is_dir()]
    complete = [place for place in places if not absent(name, place)]
    return next(iter(complete or places), None)


def fetched_folder(name: str) -> Path:
    """Return where downloads of a set go."""
    return cache_root() / "raw" / get_source(name).folder


def absent(name: str, folder: Path) -> list[str]:
    """Return the registered paths that a folder does not hold, nor a copy in their place."""
    copies = get_source(name).copies
    # Looked for, not hashed: this is asked for every list and plan.
    gaps = [path for path in get_source(name).files if not (folder / path).is_file()]
    return [path for path in gaps if path not in copies or not (folder / copies[path][0]).is_file()]


def how_to_get(name: str) -> str:
    """Return the sentence for a set that is not on this machine."""
    source = get_source(name)
    return (
        f"data set '{name}' is not on this machine: 'lossbench data fetch {name}' downloads it "
        f"({source.size / 1e6:.0f} MB; licence: {source.licence}), or set LOSSBENCH_DATA to a folder "
        "that holds it"
    )


def missing_files(name: str) -> str:
    """Return the sentence for a set that is not here or has gaps; an empty string where it is complete."""
    folder = raw_folder(name)
    if folder is None:
        return how_to_get(name)
    gaps = absent(name, folder)
    if not gaps:
        return ""
    count = f"{len(gaps)} of {len(get_source(name).files)} files are missing in {folder} (such as {gaps[0]})"
    return f"data set '{name}': {count}; 'lossbench data fetch {name}' completes it"
