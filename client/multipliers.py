"""A site's own multipliers: they follow from a secret that never leaves the site, and from whose patients they weigh.

    state/shift.key    0600: 32 bytes from the operating system, made when they are first needed

One secret for ever: the same patients have the same multipliers in every run and after every restart, so that a
question that is asked again has the same answer, and fresh draws cannot be collected. Other patients have others.
"""

from __future__ import annotations

__all__ = ["multipliers"]

import hmac

import numpy as np
from numpy.typing import NDArray

from client.keyed import site_secret
from client.site import Site


def multipliers(site: Site, rows: NDArray[np.int64]) -> np.random.Generator:
    """What draws the multipliers of the patients of the cases `rows` (N,); RunFailed where the secret cannot be had."""
    about = b"|".join((b"sonofed shift 1", site.data_sha256.encode(), rows.astype("<i8").tobytes()))
    drawn = hmac.new(site_secret(site, "shift.key"), about, "sha256").digest()
    return np.random.default_rng(int.from_bytes(drawn, "little"))
