"""Every random draw has a name: the same seed and name give the same draws on every machine.

Not for privacy: noise and sampling coins of differential privacy come from the operating system.
"""

from __future__ import annotations

__all__ = ["derive", "derive_seed"]

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on each name, by SHA-256 (names cannot run into each other)."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") >> 1


def derive(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for the purpose that `names` spell, such as `derive(seed, "site", site_id,
    "round", 3)`.
    """
    return np.random.default_rng(derive_seed(seed, *names))
