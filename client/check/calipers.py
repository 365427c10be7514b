"""Calipers burned into a gray image: small bright crosses, upright or diagonal, and rows of dots.

A cross is a point whose arms are all brighter than everything in the four gaps between them; speckle makes bright
blobs, hardly such crosses. A row of dots is six or more isolated bright points at even steps. Both are suspicions:
letters that are burned in (X, +) look alike, and calipers that are no brighter than the tissue are not seen.
"""

from __future__ import annotations

__all__ = ["NOTHING_SEEN", "SUSPICIOUS", "Suspicion", "calipers"]

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Offsets = Sequence[tuple[int, int]]

SUSPICIOUS = 0.5
"""From this score on an image counts as suspicious: one clear cross, two weak ones, or one row of dots."""

_CONTRAST = 35
"""Least difference, in gray levels, between the darkest pixel of the arms and the brightest of the gaps."""
_APART = 6
"""Least distance of two crosses, in pixels."""
_MARKS = 8
_DOT_CONTRAST, _DOT_SHARE, _MOST_DOTS = 50, 0.003, 400
_STEP_LOW, _STEP_HIGH, _RUN = 4.0, 16.0, 6
_EDGE = 0.06
"""Share of each side in which dots are a depth scale's, not a caliper's."""
_PAD = 4


class Suspicion(NamedTuple):
    """`score` in [0, 1], 0 where nothing was seen; `marks` are the (row, column) of what looks like a caliper."""

    score: float
    marks: tuple[tuple[int, int], ...]


NOTHING_SEEN = Suspicion(0.0, ())


def calipers(gray: Gray) -> Suspicion:
    """Look for calipers in an image (H, W), uint8. Crosses of 7 pixels or more are found."""
    crosses = _crosses(gray)
    doubts = [1 - _weight(contrast) for contrast, _, _ in crosses]
    marks = [(row, column) for _, row, column in crosses]
    line = _dotted_line(gray)
    if len(line) >= _RUN:
        doubts.append(max(0.1, 0.5 - 0.05 * (len(line) - _RUN)))
        marks += [line[0], line[-1]]
    return Suspicion(1 - float(np.prod(doubts)), tuple(marks))


def _weight(contrast: int) -> float:
    """How much one cross weighs: .2 at the least contrast, .5 at 60 gray levels, at most .9."""
    return min(0.9, (contrast - 20) / 80)


def _crosses(gray: Gray) -> list[tuple[int, int, int]]:
    """(contrast, row, column) of the strongest crosses, strongest first."""
    seen: list[tuple[int, int, int]] = []
    padded = np.pad(gray, _PAD, mode="edge")
    for arms, gaps in _SHAPES:
        found = _standing_out(padded, arms, gaps, least=_CONTRAST)
        seen += zip(*(values.tolist() for values in found), strict=True)
    kept: list[tuple[int, int, int]] = []
    for cross in sorted(seen, reverse=True):
        if all(abs(cross[1] - row) >= _APART or abs(cross[2] - column) >= _APART for _, row, column in kept):
            kept.append(cross)
        if len(kept) == _MARKS:
            break
    return kept


def _standing_out(padded: Gray, bright: Offsets, dark: Offsets, *, least: int) -> tuple[Numbers, Numbers, Numbers]:
    """(contrast, row, column) of the pixels at which every `bright` offset exceeds every `dark` one by `least`.

    The pixel itself and four dark offsets are compared over the whole image, the rest only where that leaves hope.
    """
    centre = _view(padded, 0, 0)
    around = _view(padded, *dark[0])
    for offset in dark[1:4]:
        around = np.maximum(around, _view(padded, *offset))
    rows, columns = np.nonzero(centre > np.where(around > 255 - least, 255, around + np.uint8(least - 1)))
    for chosen, extreme in ((dark, np.maximum), (bright, np.minimum)):
        values = padded[rows + _PAD + chosen[0][0], columns + _PAD + chosen[0][1]]
        for y, x in chosen[1:]:
            values = extreme(values, padded[rows + _PAD + y, columns + _PAD + x])
        if extreme is np.maximum:
            hope = padded[rows + _PAD, columns + _PAD].astype(np.int64) - values >= least
            rows, columns, darkest = rows[hope], columns[hope], values[hope].astype(np.int64)
    contrast = values.astype(np.int64) - darkest
    clear = contrast >= least
    return contrast[clear], rows[clear], columns[clear]


def _view(padded: Gray, down: int, right: int) -> Gray:
    height, width = padded.shape[0] - 2 * _PAD, padded.shape[1] - 2 * _PAD
    return padded[_PAD + down : _PAD + down + height, _PAD + right : _PAD + right + width]


def _upright(arm: int, gap: int) -> tuple[Offsets, Offsets]:
    """A plus with arms of `arm` pixels, at most 2 · gap − 1 thick: offsets of its pixels, and of the gaps between."""
    arms = [(step, 0) for step in range(-arm, arm + 1)] + [(0, step) for step in range(-arm, arm + 1) if step]
    corners = [
        (down * y, right * x) for down in (-1, 1) for right in (-1, 1) for y, x in ((gap, gap), (gap, arm), (arm, gap))
    ]
    return arms, corners


def _diagonal(arm: int) -> tuple[Offsets, Offsets]:
    """The same as a multiplication sign."""
    arms = [(step, sign * step) for step in range(-arm, arm + 1) for sign in (-1, 1) if step or sign > 0]
    return arms, [(arm, 0), (-arm, 0), (0, arm), (0, -arm)]


_SHAPES = (_upright(3, 2), _upright(4, 2), _upright(4, 3), _diagonal(3))


_RING = sorted(
    ((y, x) for y in range(-2, 3) for x in range(-2, 3) if max(abs(y), abs(x)) == 2), key=lambda offset: offset.count(0)
)[::-1]
"""The 16 pixels at distance 2; those straight above, below and beside come first, being nearest."""


def _dotted_line(gray: Gray) -> list[tuple[int, int]]:
    """The longest row of dots at even steps, as (row, column) from one end to the other; empty without three."""
    dots = _dots(gray)
    if len(dots) < _RUN:
        return []
    there = np.zeros((gray.shape[0] + 2, gray.shape[1] + 2), dtype=bool)
    for down in range(3):  # one pixel of tolerance
        for right in range(3):
            there[dots[:, 0] + down, dots[:, 1] + right] = True
    between = dots[None, :, :] - dots[:, None, :]
    length = np.hypot(between[..., 0], between[..., 1])
    first, second = np.nonzero((length >= _STEP_LOW) & (length <= _STEP_HIGH))
    place, step, run = dots[second], between[first, second], np.full(len(first), 2)
    best: list[tuple[int, int]] = []
    while len(place):
        place = place + step
        inside = np.flatnonzero(((place >= 0) & (place < gray.shape)).all(axis=1))
        inside = inside[there[place[inside, 0] + 1, place[inside, 1] + 1]]
        place, step, run = place[inside], step[inside], run[inside] + 1
        if len(place):
            end, stride, count = place[0], step[0], int(run[0])
            best = [(int(y), int(x)) for y, x in (end - stride * k for k in range(count - 1, -1, -1))]
    return best


def _dots(gray: Gray) -> Numbers:
    """(row, column) of isolated bright points away from the frame's edges, (n, 2), the clearest few."""
    padded = np.pad(gray, _PAD, mode="edge")
    contrast, rows, columns = _standing_out(padded, [(0, 0)], _RING, least=_DOT_CONTRAST)
    high, wide = (int(_EDGE * side) for side in gray.shape)
    inner = (rows >= high) & (rows < gray.shape[0] - high) & (columns >= wide) & (columns < gray.shape[1] - wide)
    near = [gray[rows, columns] >= padded[rows + _PAD + y, columns + _PAD + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    dots = np.flatnonzero(inner & np.logical_and.reduce(near))
    most = min(_MOST_DOTS, max(_RUN, int(_DOT_SHARE * gray.size)))
    dots = dots[np.argsort(-contrast[dots], kind="stable")[:most]]
    return np.stack([rows[dots], columns[dots]], axis=1)
