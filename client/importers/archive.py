"""A zip or a folder, read the same way: members by number, one at a time, nothing unpacked to disk.

An encrypted zip (ZipCrypto or AES) is read through pyzipper, with the password on the first line of a file. Names
inside an archive are hostile until shown otherwise: absolute names, `..`, links, clashes of case and members that are
too large end the import. Errors name the archive's label and the member's number, never its name, and no password.
"""

from __future__ import annotations

__all__ = ["MAX_MEMBER_BYTES", "Archive", "Member", "open_archive"]

import os
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from common.errors import BadInput

MAX_MEMBER_BYTES = 256 * 2**20
"""Largest member that is read, unpacked, in bytes; an 8-bit picture of the most pixels is a quarter of it."""
MAX_MEMBERS = 1_000_000

_ENCRYPTED, _STRONGLY_ENCRYPTED = 1, 1 << 6
"""Bits of a member's flags."""
_TRIED = 8
"""Members on which a password is tried before any is read: a wrong one passes a single check once in 256 times."""

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

    @property
    def hidden(self) -> bool:
        """Whether it is a file that systems leave behind and people do not see."""
        clutter = (".", "~$", "__MACOSX")
        return any(part.startswith(clutter) for part in self.path.parts)

    @property
    def size(self) -> int:
        """Its length in bytes, unpacked, as the archive says."""
        return self.archive.sizes[self.number - 1]

    def read(self) -> bytes:
        """The whole content. Raises BadInput where it is damaged or too large."""
        return self.archive.read(self)


@dataclass(frozen=True, eq=False)
class Archive:
    """An open archive. `label` names it in errors; `sizes` are the files' lengths in bytes, in the order of `paths`."""

    label: str
    paths: tuple[PurePosixPath, ...]
    reader: _Reader
    sizes: tuple[int, ...] = ()

    def members(self) -> list[Member]:
        """All files, in the archive's own order (a folder's is sorted)."""
        return [Member(self, number, path) for number, path in enumerate(self.paths, start=1)]

    def read(self, member: Member) -> bytes:
        """See `Member.read`."""
        try:
            return self.reader(member.number - 1)
        except BadInput as error:
            raise BadInput(f"{member.where}: {error}") from None
        except Exception as error:  # the trust boundary: unpackers raise nearly anything on a damaged file
            kind = type(error).__name__
            raise BadInput(f"{member.where}: cannot be read ({kind}); get the archive again") from None


class _Zip(Protocol):
    """What zipfile.ZipFile and pyzipper.AESZipFile share."""

    def infolist(self) -> list[zipfile.ZipInfo]: ...

    def open(self, name: zipfile.ZipInfo) -> IO[bytes]: ...


@contextmanager
def open_archive(
    source: Path, *, label: str, password_file: str | None = None, any_size: bool = False
) -> Iterator[Archive]:
    """Open a zip or a folder and check every name in it, and the password where it is encrypted. Raises BadInput.

    With `any_size` a zip may hold members that are too large to be read; whoever gives it looks at `Member.size` first.
    """
    password = None if password_file is None else _password(Path(password_file))
    if source.is_dir():
        paths = _folder_paths(source, label)
        sizes = tuple((source / path).stat().st_size for path in paths)
        yield Archive(label, paths, _folder_reader(source, paths), sizes)
        return
    with _opened(source, label, password) as opened:
        infos = _files(opened)
        _check_zip(infos, label, any_size=any_size)
        _check_password(opened, infos, password, label)
        paths = tuple(PurePosixPath(info.filename) for info in infos)
        yield Archive(label, paths, _zip_reader(opened, infos), tuple(info.file_size for info in infos))


@contextmanager
def _opened(source: Path, label: str, password: bytes | None) -> Iterator[_Zip]:
    """The zip through the standard library, or through pyzipper where a password is at hand."""
    try:
        if password is None:
            opened = zipfile.ZipFile(source)
        else:
            import pyzipper

            opened = pyzipper.AESZipFile(source)
            opened.setpassword(password)
    except Exception:  # the trust boundary: a damaged directory raises nearly anything
        raise BadInput(f"{label}: not a zip file, or damaged; get the archive again") from None
    with opened:
        yield opened


def _password(path: Path) -> bytes:
    """The first line of a password file, as bytes. Raises BadInput."""
    try:
        with path.open("rb") as file:
            line = file.readline(4096).removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such name"
        raise BadInput(
            f"the password file cannot be read ({why}); put the archive's password on its first line"
        ) from None
    if not line:
        raise BadInput("the first line of the password file is empty; put the archive's password there")
    return line


def _files(opened: _Zip) -> list[zipfile.ZipInfo]:
    return [info for info in opened.infolist() if not info.filename.endswith("/")]  # is_dir() fails on an empty name


def _check_zip(infos: list[zipfile.ZipInfo], label: str, *, any_size: bool) -> None:
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
        if info.file_size > MAX_MEMBER_BYTES and not any_size:
            raise BadInput(f"{where}: unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB; do not trust this file")
        folded = unicodedata.normalize("NFC", str(path)).casefold()
        if folded in seen:
            raise BadInput(f"{where}: bears the name of an earlier member; get the archive again")
        seen.add(folded)


def _check_password(opened: _Zip, infos: list[zipfile.ZipInfo], password: bytes | None, label: str) -> None:
    """Try the password on the first encrypted members: opening one reads its header alone."""
    encrypted = ((number, info) for number, info in enumerate(infos, start=1) if info.flag_bits & _ENCRYPTED)
    for number, info in islice(encrypted, _TRIED):
        where = f"{label}, member {number}"
        if info.flag_bits & _STRONGLY_ENCRYPTED:
            raise BadInput(f"{where}: neither ZipCrypto nor AES; unpack the archive and import the folder")
        if password is None:
            raise BadInput(f"{where}: encrypted; name a file with the archive's password (--password-file)")
        try:
            opened.open(info).close()
        except NotImplementedError as error:  # a RuntimeError too
            raise BadInput(f"{where}: cannot be read ({error}); pack the archive again, deflated") from None
        except RuntimeError:
            raise BadInput(f"{where}: the password does not fit; correct the first line of the password file") from None
        except Exception as error:  # the trust boundary
            kind = type(error).__name__
            raise BadInput(f"{where}: cannot be read ({kind}); get the archive again") from None


def _zip_reader(opened: _Zip, infos: list[zipfile.ZipInfo]) -> _Reader:
    def read(place: int) -> bytes:
        try:
            with opened.open(infos[place]) as file:
                content = file.read(MAX_MEMBER_BYTES + 1)
        except Exception:  # a wrong password may show no earlier than here
            if infos[place].flag_bits & _ENCRYPTED:
                raise BadInput(
                    "cannot be read: damaged, or its password is another one; get the archive again"
                ) from None
            raise
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
