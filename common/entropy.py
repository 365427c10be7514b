"""Coins and noise that nobody outside can guess: a ChaCha20 stream whose key comes from the operating system.

Never from the experiment's seed: a server that knows who was sampled undoes the amplification by sampling, and one that
knows the noise subtracts it.
"""

from __future__ import annotations

__all__ = ["PIECE", "Coins", "Entropy"]

import os
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

PIECE = 1 << 17
"""Normal values drawn at a time, so that what they are made of stays in the processor's cache."""
_ZEROS = memoryview(bytes(1 << 20))
"""What is encrypted."""


class Entropy:
    """A stream of draws (RFC 8439's cipher on zeros), each byte used once.

    `insecure_demo` is a seed for demonstrations that must repeat; nothing drawn from it protects anyone.
    """

    def __init__(self, *, insecure_demo: int | None = None) -> None:
        self.secure = insecure_demo is None
        key = os.urandom(32) if insecure_demo is None else insecure_demo.to_bytes(32, "little")
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """`count` uniform 64-bit numbers."""
        drawn = np.empty(count, dtype=np.uint64)
        self._draw(drawn)
        return drawn

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`count` values in (0, 1), multiples of 2⁻⁵³ and a half."""
        return _to_uniform(self.words(count))

    def normal(self, count: int) -> NDArray[np.float32]:
        """`count` values of N(0, 1) by Box and Muller's transform; the radius in float64, so tails reach 8.6 σ."""
        values = np.empty(count, dtype=np.float32)
        for at in range(0, count, PIECE):
            values[at : at + PIECE] = self.coins(min(PIECE, count - at)).normal()
        return values

    def coins(self, count: int) -> Coins:
        """What `count` values of N(0, 1) are made of, so that making them may wait, or be done elsewhere."""
        half = -(-count // 2)
        words, turns = self.words(half), np.empty(half, dtype=np.int32)
        self._draw(turns)
        return Coins(words, turns, count)

    def _draw(self, into: NDArray[np.uint64] | NDArray[np.int32]) -> None:
        """Overwrite `into` with the stream's next bytes."""
        for at in range(0, into.nbytes, len(_ZEROS)):
            size = min(len(_ZEROS), into.nbytes - at)
            self._stream.update_into(_ZEROS[:size], into.view(np.uint8).data[at : at + size])


@dataclass(frozen=True)
class Coins:
    """Random bits for `count` normal values: 64 of each pair for the radius and 32 for the angle. Good for one use."""

    words: NDArray[np.uint64]
    turns: NDArray[np.int32]
    count: int

    def normal(self) -> NDArray[np.float32]:
        """The values; see `Entropy.normal`."""
        half = len(self.words)
        values = np.empty(2 * half, dtype=np.float32)
        square = np.log(_to_uniform(self.words))
        square *= -2
        radius = np.sqrt(square, out=square).astype(np.float32)
        turn = self.turns.astype(np.float32)
        turn *= np.float32(np.pi * 2.0**-31)
        np.multiply(radius, np.cos(turn), out=values[:half])
        np.multiply(radius, np.sin(turn, out=turn), out=values[half:])
        return values[: self.count]


def _to_uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    words >>= np.uint64(11)
    values = words.astype(np.float64)
    values += 0.5
    values *= 2.0**-53
    return values
