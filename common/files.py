"""Files that are whole or absent: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

__all__ = [
    "alone",
    "append_line",
    "claimed",
    "fsync_folder",
    "read_json",
    "sha256_bytes",
    "sha256_file",
    "write_atomic",
    "write_json",
]

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import BadInput, RunFailed


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step; a kill at any moment leaves the old file or the new one.

    `mode` is who may read it. Raises RunFailed, in one line, where the disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; free space or check permissions") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; free space or check permissions") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def fsync_folder(folder: Path) -> None:
    """Make the folder's list of names last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, keys in their order, floats with every digit; NaN is an error."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; BadInput where it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing in {path.parent.name}; is this the right folder?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path.name} is not valid JSON ({error}); restore it or start again") from None
    except OSError as error:
        raise BadInput(f"{path.name} cannot be read ({error.strerror}); is this the right folder?") from None


def append_line(path: Path, line: str) -> None:
    """Append one line and fsync it; after a line that a kill tore it begins a new one.

    Raises RunFailed, in one line, where the disk is full or not writable.
    """
    try:
        with path.open("ab+") as file:
            if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
                line = "\n" + line
            file.write((line + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunFailed(f"cannot write {path.name}: {error.strerror}; free space or check permissions") from None


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def sha256_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file, and hold it. Its folder is made where it is not there; OSError
    where that cannot be.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claimed(lock: Path, *, complaint: str) -> Iterator[None]:
    """Hold the lock file for one process; BadInput(`complaint`) where another has it. A kill gives it back.

    Its folder is made where it is not there; BadInput where that cannot be.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise BadInput(f"{lock.parent}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(complaint) from None
        yield
    finally:
        os.close(descriptor)
