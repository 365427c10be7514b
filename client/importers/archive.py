"""A zip or a folder, read the same way: members by number, one at a time, nothing unpacked to disk.

Names inside an archive are hostile until shown otherwise: absolute names, `..`, links, clashes of case and members that
are too large end the import. Errors name the archive's label and the member's number, never its name.
"""

from __future__ import annotations

__all__ = ["MAX_MEMBER_BYTES", "Archive", "Member", "open_archive"]

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.errors import BadInput

MAX_MEMBER_BYTES = 256 * 2**20
"""Largest member that is read, unpacked, in bytes; an 8-bit picture of the most pixels is a quarter of it."""
MAX_MEMBERS = 1_000_000

_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


_Reader = Callable[[int], bytes]
"""Gives the content of the file at a place in `Archive.paths`."""


@dataclass(frozen=True)
class Member:
    """A file of an archive: its number from 1, its path inside (never to be shown), and how to read it."""

    archive: Archive
    number: int
    path: PurePosixPath

    @property
    def where(self) -> str:
        """How an error or private/skipped.csv names this file."""
        return f"{self.archive.label}, member {self.number}"

    def read(self) -> bytes:
        """The whole content. Raises BadInput where it is damaged, encrypted or too large."""
        return self.archive.read(self)


@dataclass(frozen=True, eq=False)
class Archive:
    """An open archive. `label` names it in errors."""

    label: str
    paths: tuple[PurePosixPath, ...]
    reader: _Reader

    def members(self) -> list[Member]:
        """All files, in the archive's own order (a folder's is sorted)."""
        return [Member(self, number, path) for number, path in enumerate(self.paths, start=1)]

    def read(self, member: Member) -> bytes:
        """See `Member.read`."""
        try:
            return self.reader(member.number - 1)
        except BadInput as error:
            raise BadInput(f"{member.where}: {error}") from None
        except _UNREADABLE as error:
            kind = type(error).__name__
            raise BadInput(f"{member.where}: cannot be read ({kind}); get the archive again") from None


@contextmanager
def open_archive(source: Path, *, label: str) -> Iterator[Archive]:
    """Open a zip or a folder and check every name in it. Raises BadInput."""
    if source.is_dir():
        paths = _folder_paths(source, label)
        yield Archive(label, paths, _folder_reader(source, paths))
        return
    try:
        opened = zipfile.ZipFile(source)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        raise BadInput(f"{label}: not a zip file, or damaged; get the archive again") from None
    with opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
        _check_zip(infos, label)
        yield Archive(label, tuple(PurePosixPath(info.filename) for info in infos), _zip_reader(opened, infos))


def _check_zip(infos: list[zipfile.ZipInfo], label: str) -> None:
    if len(infos) > MAX_MEMBERS:
        raise BadInput(f"{label}: more than {MAX_MEMBERS} members; no data set has as many")
    seen: set[str] = set()
    for number, info in enumerate(infos, start=1):
        where = f"{label}, member {number}"
        path = PurePosixPath(info.filename)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in path.parts[0]:
            raise BadInput(f"{where}: its name leads out of the archive; do not trust this file")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadInput(f"{where}: a symbolic link; do not trust this file")
        if info.file_size > MAX_MEMBER_BYTES:
            raise BadInput(f"{where}: unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB; do not trust this file")
        if info.flag_bits & 1:
            raise BadInput(f"{where}: encrypted; unpack the archive with its password and import the folder")
        folded = str(path).casefold()
        if folded in seen:
            raise BadInput(f"{where}: bears the name of an earlier member; get the archive again")
        seen.add(folded)


def _zip_reader(opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> _Reader:
    def read(place: int) -> bytes:
        with opened.open(infos[place]) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
        if len(content) > MAX_MEMBER_BYTES:
            raise BadInput(f"unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB; do not trust this file")
        return content

    return read


def _folder_paths(source: Path, label: str) -> tuple[PurePosixPath, ...]:
    """Every file below `source`, sorted. Raises BadInput where a link leads out of it."""
    root = source.resolve()
    found: list[PurePosixPath] = []
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            found.append(PurePosixPath(path.relative_to(source).as_posix()))
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise BadInput(f"{label}, member {len(found)}: a link that leads out of the folder; copy the file")
    if len(found) > MAX_MEMBERS:
        raise BadInput(f"{label}: more than {MAX_MEMBERS} files; no data set has as many")
    return tuple(found)


def _folder_reader(source: Path, paths: tuple[PurePosixPath, ...]) -> _Reader:
    def read(place: int) -> bytes:
        path = source / paths[place]
        if not path.is_file():
            raise BadInput("no ordinary file, or gone; take it out of the folder")
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise BadInput(f"larger than {MAX_MEMBER_BYTES >> 20} MiB; no picture is that large")
        return path.read_bytes()

    return read
