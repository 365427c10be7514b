"""A name for a site's data that tells nobody who is in them: only the site itself could compute it."""

from __future__ import annotations

__all__ = ["keyed_digest"]

import hmac
import os

from client.site import Site
from common.files import write_atomic


def keyed_digest(site: Site) -> str:
    """The digest of the site's data under a secret key of its own (HMAC-SHA-256), the same as long as both stay.

    Whoever knows all patients but one could compute a plain digest with that one and without, and compare.
    """
    path = site.state / "card.key"
    if not path.exists():
        write_atomic(path, os.urandom(32), mode=0o600)
    return hmac.new(path.read_bytes(), site.data_sha256.encode(), "sha256").hexdigest()
