"""Patients' names for the site folder: keyed, so that without the site's key nobody can try identifiers on them."""

from __future__ import annotations

__all__ = ["KEY_NAME", "pseudonym", "site_key"]

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from common.errors import BadInput, RunFailed

KEY_NAME = ".pseudonym-key"
"""The key's file, beside the site folders and never inside one."""

_DIGITS = 16


def site_key(parent: Path) -> bytes:
    """The key of all site folders in `parent`: 32 bytes, made here on first use, mode 0600, never copied.

    Safe when two processes make it at once: both get the same key. Raises BadInput where others may read the file or it
    is no key, RunFailed where it cannot be written.
    """
    path = parent / KEY_NAME
    try:
        if not path.exists():
            _make_key(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(f"{path}: others may read the pseudonym key; run chmod 600 on it")
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    except OSError as error:
        raise RunFailed(f"{path}: cannot make or read this key ({error.strerror}); check permissions") from None
    if len(key) != 32:
        raise BadInput(f"{path}: not a pseudonym key; restore it, or choose another folder")
    return key


def _make_key(path: Path) -> None:
    """Write a new key under another name, then link it in place: whoever comes second finds it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def pseudonym(key: bytes, namespace: str, patient: str) -> str:
    """A patient's name in the site folder: 64 bits of HMAC-SHA-256 over the data set's name and the original id."""
    digest = hmac.new(key, f"{namespace}\x1f{patient}".encode(), hashlib.sha256).hexdigest()
    return f"p-{digest[:_DIGITS]}"
