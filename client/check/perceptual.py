"""Whether two images show the same picture: a 64-bit perceptual hash finds candidates, a closer look confirms them.

The hash is the sign of the 64 lowest frequencies of a 32×32 miniature against their median (Zauner 2010, "pHash").
Frames of one probe share their layout, bright near the skin and dark below, so hashes alone accuse strangers: a
candidate counts only if the miniatures, freed of their mean row and column, correlate.
"""

from __future__ import annotations

__all__ = ["ALIKE", "RADIUS", "Fingerprint", "close_pairs", "fingerprint", "likeness"]

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]

RADIUS = 11
"""Most differing bits of a candidate pair."""
ALIKE = 0.85
"""Least correlation of a pair that counts. On BUS-BRA and LymphUs phantoms copies that were re-encoded, brightened,
shrunk or moved by a pixel correlate at .955 or more; images of different patients at .66 or less, of one patient .74
(LOG.md)."""

_SIDE, _BITS, _BANDS = 32, 64, 4
_WIDTH = _BITS // _BANDS
_FREQUENCIES = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(_SIDE)[None, :] + 1) / (2 * _SIDE))
_BLOCK = 1 << 20


class Fingerprint(NamedTuple):
    """A picture's hash, 64 bits, and its miniature, (32, 32) uint8."""

    hash: int
    miniature: npt.NDArray[np.uint8]


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of a gray picture (mode L), whatever its size."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    miniature = np.asarray(small, dtype=np.uint8)
    waves = (_FREQUENCIES @ miniature @ _FREQUENCIES.T).ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False  # the mean brightness says nothing about the picture
    return Fingerprint(int.from_bytes(np.packbits(bits).tobytes(), "big"), miniature)


def likeness(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Correlation of two miniatures, in [−1, 1], after the mean of each row and column is taken away."""
    a, b = _detail(one), _detail(other)
    power = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / power if power > 0 else 0.0


def _detail(miniature: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    values = miniature.astype(np.float64)
    detail: npt.NDArray[np.float64] = values - values.mean(0, keepdims=True) - values.mean(1, keepdims=True)
    return detail + float(values.mean())


def close_pairs(hashes: Hashes, *, radius: int = RADIUS) -> Iterator[Pairs]:
    """Every pair i < j whose hashes (N,) differ in at most `radius` bits, once, as arrays (n, 2).

    Cut into four bands of 16 bits, such a pair differs in at most `radius` // 4 bits of some band: so each band is
    looked up among the others' under every change of so few bits, instead of comparing all with all. Pairs come in
    blocks, so that memory stays bounded where many hashes are equal.
    """
    codes = [
        ((hashes >> np.uint64(_WIDTH * band)) & np.uint64((1 << _WIDTH) - 1)).astype(np.int64) for band in range(4)
    ]
    flips = _changes(radius // _BANDS)
    for band, code in enumerate(codes):
        for i, j in _neighbours(code, flips):
            keep = (i < j) & (np.bitwise_count(hashes[i] ^ hashes[j]) <= radius)
            i, j = i[keep], j[keep]
            for earlier in codes[:band]:  # a pair that an earlier band gave already
                new = np.bitwise_count(earlier[i] ^ earlier[j]) > radius // _BANDS
                i, j = i[new], j[new]
            if len(i):
                yield np.stack([i, j], axis=1)


def _changes(most: int) -> npt.NDArray[np.int64]:
    """Every 16-bit pattern with at most `most` bits set."""
    patterns = np.arange(1 << _WIDTH, dtype=np.int64)
    return patterns[np.bitwise_count(patterns) <= most]


def _neighbours(code: Pairs, flips: Pairs) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs whose codes differ by one of `flips`, in blocks of about a million."""
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    starts = np.searchsorted(ordered, np.arange((1 << _WIDTH) + 1))
    for flip in flips:
        wanted = code ^ flip
        counts = starts[wanted + 1] - starts[wanted]
        for first, last in _blocks(counts):
            sizes = counts[first:last]
            i = np.repeat(np.arange(first, last), sizes)
            place = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            yield i, order[np.repeat(starts[wanted[first:last]], sizes) + place]


def _blocks(counts: Pairs) -> Iterator[tuple[int, int]]:
    """Ranges of consecutive rows with about `_BLOCK` pairs each."""
    total = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, before + _BLOCK, side="right")), first + 1)
        if total[last - 1] > before:
            yield first, last
        first = last
