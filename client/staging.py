"""Folders that appear whole or not at all: filled under a hidden name beside their target, then renamed.

A killed process leaves only a hidden folder, which the next one sweeps away: the owner of a live one holds a lock
on it, and the system drops that lock with the process.
"""

from __future__ import annotations

__all__ = ["continued", "staged"]

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 60.0
_KEPT_SECONDS = 24 * 3600.0
"""How long what a killed process left is kept for another to go on with."""


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


@contextmanager
def continued(parent: Path, *, name: str) -> Iterator[Path]:
    """As `staged`, but the hidden folder bears `name`, and holds what a killed process left in one of that name.

    It stays where the process is killed or interrupted (Ctrl-C), and goes after an error. While another process works
    in it, an own folder is made. What was left more than a day ago is removed. Raises OSError.
    """
    was_there = parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, f"{name.split('-')[0]}-", older=_KEPT_SECONDS)
    folder = parent / name
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        with staged(parent, prefix=f"{name}-") as own:
            yield own
        return
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
        if not was_there:
            with suppress(OSError):  # it holds something
                parent.rmdir()


def _sweep(parent: Path, prefix: str, *, older: float = _GRACE_SECONDS) -> None:
    """Remove what killed processes left in `parent`: folders of that prefix, `older` in seconds,
    that nobody has locked.
    """
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if time.time() - folder.stat().st_mtime > older:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
