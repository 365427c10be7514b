"""Folders that appear whole or not at all: filled under a hidden name beside their target, then renamed.

A killed process leaves only a hidden folder, which the next one sweeps away: the owner of a live one holds a lock
on it, and the system drops that lock with the process.
"""

from __future__ import annotations

__all__ = ["staged"]

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 60.0


@contextmanager
def staged(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A new hidden folder in `parent`; what is still in it at the end, or after an error, is removed.

    Rename what is finished out of it, or the folder itself. `parent` is made where it is not there, and goes again if
    it stays empty. Raises OSError where it cannot be written.
    """
    was_there = parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks only loses the protection against sweeping
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        if not was_there:
            with suppress(OSError):  # it holds something
                parent.rmdir()


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed processes left in `parent`: folders of that prefix, a minute old, that nobody has locked."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if time.time() - folder.stat().st_mtime > _GRACE_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
