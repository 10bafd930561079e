"""The pack of a results folder, ``records.zip``: finished records, deflated, under the names of the loose
files that they replace. Here it is read; pack.py writes it.

It is the form in which a study is committed, and the one that scales: a state follows from the archive's
directory, without a listing of thousands of files. Nothing is ever extracted to a path; ``python -m zipfile
-e records.zip .`` in the results folder gives the loose files back.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.store.record import DamagedRecord

NAME = "records.zip"
MEMBER = re.compile(r"cells/([0-9a-f]{2})/(\1[0-9a-f]{14})\.([0-9a-f]{8})\.json")
LARGEST = 256 << 20  # bytes of one record; an archive may promise more than a memory holds

# Whatever zipfile and zlib raise where bytes are damaged.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    OSError,
)

# Of a member before its data: signature, flags, lengths of its name and of what follows that.
_HEADER = struct.Struct("<4s2xH18xHH")

Pair = tuple[str, str]  # (key, first 8 hex of the loss fingerprint)


class Archive:
    """The pack, read-only; looked at again whenever its file has changed, empty where there is none."""

    def __init__(self, path: Path):
        self.path = path
        self.foreign: list[str] = []  # names of members that are no records; nothing is done with them
        self._mark: tuple | None = None  # of the file that the rest was read from
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[Pair, zipfile.ZipInfo] = {}
        self._sources: dict[str, list[str]] = {}

    def members(self) -> dict[Pair, zipfile.ZipInfo]:
        """Return what the archive's directory names now. UserError when the file is no archive."""
        try:
            facts = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            self.close()
            return self._members
        # Another process may have packed meanwhile: an old directory would miss what it moved.
        if mark(facts) != self._mark:
            self.close()
            self._open()
        return self._members

    def sources(self, key: str) -> list[str]:
        """Return the fingerprints under which a cell is packed; call ``members`` first."""
        return self._sources.get(key, [])

    def read(self, key: str, fp: str) -> bytes | None:
        """Return the bytes of a record, or None; DamagedRecord when its check sum does not fit or it promises
        too much.
        """
        info = self.members().get((key, fp[:8]))
        if info is None:
            return None
        if info.file_size > LARGEST:
            raise DamagedRecord(f"it would unfold to {info.file_size} bytes")
        try:
            data = self._plainly(info)
            return self._zip.read(info) if data is None else data
        except BROKEN as error:
            raise DamagedRecord(f"it cannot be unpacked ({error})") from None

    def _plainly(self, info: zipfile.ZipInfo) -> bytes | None:
        """Return a deflated member as pack.py writes it, read and unfolded in one go: half the time that
        zipfile takes. None where anything is otherwise; zipfile then reads it, or says what is wrong.
        """
        if not hasattr(os, "pread") or info.compress_type != zipfile.ZIP_DEFLATED:
            return None
        name = info.filename.encode()
        begin = _HEADER.size + len(name)
        raw = os.pread(self._zip.fp.fileno(), begin + info.compress_size, info.header_offset)
        if len(raw) < begin + info.compress_size or not raw.startswith(name, _HEADER.size):
            return None
        sign, flags, length, extra = _HEADER.unpack_from(raw)
        if (sign, flags & 1, length, extra) != (b"PK\3\4", 0, len(name), 0):
            return None
        unfold = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unfold.decompress(memoryview(raw)[begin:], info.file_size + 1)  # no more than it promises
        whole = unfold.eof and len(data) == info.file_size and zlib.crc32(data) == info.CRC
        return data if whole else None

    def close(self) -> None:
        """Forget everything; the next question opens the file again."""
        if self._zip is not None:
            self._zip.close()
        self._zip, self._mark, self._members, self._sources, self.foreign = None, None, {}, {}, []

    def _open(self) -> None:
        try:
            self._zip = zipfile.ZipFile(self.path)
            # Of the file that was opened, which may no longer be the one that was looked at.
            facts = os.fstat(self._zip.fp.fileno())
            self._probe()
        except BROKEN as error:
            again = "fetch it again, or move it away and its cells are trained again"
            raise UserError(f"{self.path} cannot be read ({error}); {again}") from None
        self._mark = mark(facts)
        for info in self._zip.infolist():
            name = MEMBER.fullmatch(info.filename)
            if name is None:
                self.foreign.append(info.filename)
                continue
            # Of two members of one name the later counts, as every unzip has it.
            self._members[name[2], name[3]] = info
            self._sources.setdefault(name[2], []).append(name[3])

    def _probe(self) -> None:
        """Raise when the directory is damaged: it fits neither the first nor the last member, or names fewer
        than it counts.
        """
        # zipfile trusts the directory; a damaged one would hide records, and their cells would be trained
        # again.
        infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        self._zip.fp.seek(-22, os.SEEK_END)
        end = self._zip.fp.read(22)
        count = struct.unpack("<H", end[10:12])[0]
        if end[:4] == b"PK\5\6" and count not in (len(infos), 0xFFFF):
            raise zipfile.BadZipFile(f"its directory names {len(infos)} of {count} members")
        for info in dict.fromkeys((*infos[:1], *infos[-1:])):
            with contextlib.suppress(*BROKEN):
                self._zip.open(info).close()
                return
        if infos:
            raise zipfile.BadZipFile("its directory is damaged")


def mark(facts: os.stat_result) -> tuple:
    """Return what tells a file from the one that took its place."""
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
