"""The list of files of a public set with their hashes: ``python -m tools.register NAME FOLDER``.

Files are listed by their path below the folder, which is that of the pinned commit.
"""

from __future__ import annotations

from pathlib import Path

from lossbench.base.files import sha256_of
from lossbench.data.sources import REGISTRY
from tools import arguments


def register(name: str, folder: Path) -> Path:
    """Write registry/NAME.registry.txt and return its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} sha256:{sha256_of(path)}\n" for path in files]
    target = REGISTRY / f"{name}.registry.txt"
    target.write_text("".join(lines), encoding="utf-8")
    return target


if __name__ == "__main__":
    name, folder = arguments("NAME FOLDER", "the name of a public set and the folder of its files")
    print(register(name, Path(folder)))
