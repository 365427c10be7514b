"""Files that a table names: found one by one below the table's folder, so that nobody has to list that folder.

A name is hostile until shown otherwise: absolute names, `..` and links that lead out of the folder end the import.
Errors name the table's row, never the file.
"""

from __future__ import annotations

__all__ = ["NamedFile", "find_file"]

import os
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from client.importers.archive import MAX_MEMBER_BYTES
from common.errors import BadInput


@dataclass(frozen=True)
class NamedFile:
    """A file below `root`: its path inside (never to be shown), and how an error names it."""

    root: Path
    path: PurePosixPath
    where: str

    def read(self) -> bytes:
        """The whole content. Raises BadInput where it cannot be read or is too large."""
        try:
            with (self.root / self.path).open("rb") as file:
                content = file.read(MAX_MEMBER_BYTES + 1)
        except OSError as error:
            raise BadInput(f"{self.where}: cannot be read ({type(error).__name__}); restore the file") from None
        if len(content) > MAX_MEMBER_BYTES:
            raise BadInput(f"{self.where}: larger than {MAX_MEMBER_BYTES >> 20} MiB; no picture is that large")
        return content


def find_file(root: Path, name: str, *, where: str) -> NamedFile | None:
    """The file that `name` (with slashes or backslashes) means below `root`, None where there is none.

    A name is looked for as it is spelled and in both normal forms of Unicode, since systems store `ä` differently.
    Raises BadInput where the name or a link leads out of `root`.
    """
    spelled = PureWindowsPath(name)
    if spelled.drive or spelled.root or ".." in spelled.parts:
        raise BadInput(f"{where}: this name leads out of the table's folder; use names relative to it, without `..`")
    plain = spelled.as_posix()
    for path in dict.fromkeys((plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))):
        if os.path.isfile(f"{root}/{path}"):  # False, not an error, for a name that no file can have
            if not _is_below(root, path):
                raise BadInput(f"{where}: a link that leads out of the table's folder; copy the file")
            return NamedFile(root, PurePosixPath(path), where)
    return None


@lru_cache(maxsize=4096)  # a table may name one file in each of a million rows
def _is_below(root: Path, path: str) -> bool:
    return (root / path).resolve().is_relative_to(root.resolve())
