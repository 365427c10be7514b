"""A site's own multipliers: they follow from a secret that never leaves the site, and from whose patients they weigh.

    state/shift.key    0600: 32 bytes from the operating system, made when they are first needed

One secret for ever: the same patients have the same multipliers in every run and after every restart, so that a
question that is asked again has the same answer, and fresh draws cannot be collected. Other patients have others.
"""

from __future__ import annotations

__all__ = ["multipliers"]

import fcntl
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from common.errors import RunFailed
from common.files import write_atomic

_FILE, _BYTES = "shift.key", 32


def multipliers(site: Site, rows: NDArray[np.int64]) -> np.random.Generator:
    """What draws the multipliers of the patients of the cases `rows` (N,); RunFailed where the secret cannot be had."""
    about = b"|".join((b"sonofed shift 1", site.data_sha256.encode(), rows.astype("<i8").tobytes()))
    drawn = hmac.new(_secret(site), about, "sha256").digest()
    return np.random.default_rng(int.from_bytes(drawn, "little"))


def _secret(site: Site) -> bytes:
    """The site's own, made by whoever asks first."""
    path = site.state / _FILE
    try:
        site.state.mkdir(parents=True, exist_ok=True)
        with _alone(site.state / ".shift.lock"):
            if not path.exists():
                write_atomic(path, os.urandom(_BYTES), mode=0o600)
            secret = path.read_bytes()
    except OSError as error:
        raise RunFailed(
            f"site {site.id}: state/{_FILE} cannot be had ({error.strerror}), so no weighted sum is sent; let the "
            "client write to state/"
        ) from None
    if len(secret) != _BYTES:
        raise RunFailed(f"site {site.id}: state/{_FILE} is torn; restore it, or remove it and the next sums differ")
    return secret


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process makes the secret here."""
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
