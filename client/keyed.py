"""What only the site itself can compute: by secrets of its own, made when first needed, which never leave it.

state/card.key     names the site's data to who saw them named before, and tells nobody who is in them
state/shift.key    makes the multipliers of the shift panel (`client.multipliers`)
"""

from __future__ import annotations

__all__ = ["keyed_digest", "site_secret"]

import hmac
import os

from client.site import Site
from common.errors import RunFailed
from common.files import alone, write_atomic

_BYTES = 32


def keyed_digest(site: Site) -> str:
    """The digest of the site's data under a secret key of its own (HMAC-SHA-256), the same as long as both stay.

    Whoever knows all patients but one could compute a plain digest with that one and without, and compare.
    """
    return hmac.new(site_secret(site, "card.key"), site.data_sha256.encode(), "sha256").hexdigest()


def site_secret(site: Site, name: str) -> bytes:
    """The 32 bytes of `state/<name>`, from the operating system, made by whoever asks first; RunFailed where they
    cannot be had.
    """
    path = site.state / name
    try:
        with alone(site.state / f".{name}.lock"):
            if not path.exists():
                write_atomic(path, os.urandom(_BYTES), mode=0o600)
            secret = path.read_bytes()
    except OSError as error:
        raise RunFailed(
            f"site {site.id}: state/{name} cannot be had ({error.strerror}), so nothing that needs it is sent; let the "
            "client write to state/"
        ) from None
    if len(secret) != _BYTES:
        raise RunFailed(
            f"site {site.id}: state/{name} is torn; restore it, or remove it and what follows from it differs"
        )
    return secret
