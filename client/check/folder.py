"""The site folder itself: files that nobody names, and who may read what must stay private."""

from __future__ import annotations

__all__ = ["check_folder", "stray_files"]

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from client.check.finding import Finding
from client.check.table import Cases
from client.pseudonyms import KEY_NAME

_TABLES = ("site.toml", "cases.csv")
_OWN = ("private", "state")
"""Folders that hold other things than data."""


def check_folder(cases: Cases, strays: Sequence[str]) -> list[Finding]:
    """Findings about stray files, private/ and the key; no file is named but those that every site has."""
    return [*_strays(strays), *_private(cases.folder), *_key(cases.folder), *_writable(cases.folder)]


def stray_files(cases: Cases) -> list[str]:
    """Files, relative to the site folder, that neither cases.csv nor the folder's layout knows; sorted.

    A name may be a patient's: it belongs on the page under private/ and nowhere else.
    """
    named = {str(PurePosixPath(row[kind])) for row in cases.rows for kind in ("image", "mask") if row[kind]}
    known = named | set(_TABLES)
    found = []
    for parent, folders, files in os.walk(cases.folder):
        here = Path(parent).relative_to(cases.folder)
        if not here.parts:
            folders[:] = [name for name in folders if name not in _OWN]
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(here / name).as_posix() for name in (*files, *links)]
    return sorted(name for name in found if name not in known)


def _strays(strays: Sequence[str]) -> list[Finding]:
    places: Counter[str] = Counter()
    for name in strays:
        top = PurePosixPath(name).parts[0] if "/" in name else "the top"
        places[f"in {top}/" if top in ("images", "masks") else "at the top" if top == "the top" else "elsewhere"] += 1
    said = ", ".join(f"{number} {place}" for place, number in places.items())
    return [Finding("stray-files", said)] if strays else []


def _private(folder: Path) -> list[Finding]:
    private = folder / "private"
    if not private.is_dir():
        return [Finding("private-missing")]
    mode = stat.S_IMODE(private.stat().st_mode)
    return [Finding("private-mode", f"its mode is {mode:04o}")] if mode & 0o077 else []


def _key(folder: Path) -> list[Finding]:
    inside = any(KEY_NAME in files for _, _, files in os.walk(folder))
    findings = [Finding("key-inside")] if inside else []
    key = folder.resolve().parent / KEY_NAME
    if not key.exists():
        return [*findings, Finding("key-missing")]
    mode = stat.S_IMODE(key.stat().st_mode)
    return [*findings, *([Finding("key-mode", f"its mode is {mode:04o}")] if mode & 0o077 else [])]


def _writable(folder: Path) -> list[Finding]:
    open_ = [name for name in _TABLES if stat.S_IMODE((folder / name).stat().st_mode) & 0o022]
    return [Finding("writable", " and ".join(open_))] if open_ else []
