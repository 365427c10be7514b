"""Bins of a score that sites agree on: a fixed grid in logit for the first pass, quantiles of it for the second.

Bins are given by their inner edges, rising probabilities; a bin holds its lower edge. Edges travel as float64 and
scores are compared with them, never recomputed, so that every site means the same bin.
"""

from __future__ import annotations

__all__ = [
    "FIXED",
    "PLACES",
    "PLAIN_BINS",
    "SECURE_BINS",
    "bin_of",
    "equal_edges",
    "first_grid",
    "in_few_digits",
    "logit_edges",
    "place_in_bin",
    "quantile_edges",
    "secure_bins",
    "share_of_bin",
    "with_edge",
]

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from common.calibration import LOGIT_LIMIT

Floats = NDArray[np.float64]

PLAIN_BINS, SECURE_BINS = 64, 1024
"""Bins of the second pass: where the server sees each site's counts, and where it sees only totals."""

PLACES = 16
"""Equal parts of a bin, in logit, that a total over sites tells a case's place by."""

_BELOW, _ABOVE = 745.0, 37.0
"""Float64 knows no probability but 0 below expit(−745), and none but 1 above expit(37)."""
_LOGITS: Floats = np.concatenate(
    [
        -np.geomspace(_BELOW, LOGIT_LIMIT, 65),
        np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, 897)[1:-1],
        np.linspace(LOGIT_LIMIT, _ABOVE, 65),
    ]
)

FIXED: Floats = expit(_LOGITS[1:-1])
"""The first pass's inner edges, (1023,): 896 bins of .027 in logit within ±`LOGIT_LIMIT`, 64 wider ones on either side,
as far as float64 reaches."""
FIXED.setflags(write=False)

_WORDS = 64 * 1024 // 8
"""Words that a site may send of an evaluation under masks."""


def first_grid(questions: int) -> Floats:
    """The first pass's inner edges where so many questions are asked: all of `FIXED` for one, every fourth edge for
    three or four, every eighth up to eight, so that all questions together take no more bins than one.
    """
    step = _step(questions)
    return FIXED[step - 1 :: step]


def secure_bins(questions: int) -> int:
    """Bins of the second pass under masks, so that a site sends at most 64 KiB of all questions, both passes and the
    placements together: 1,024 for one question, 691 for three, 470 for four, 219 for eight. Never below `PLAIN_BINS`:
    with more than twenty classes a site sends more.

    The printed bound on a class's error, half the share of pairs in one bin, is about as much larger as there are fewer
    bins: 1.5 times with three classes, 2.2 with four, 4.7 with eight. Over data sets of five sites of 160 patients it
    is .0004, .0007 and .0016 of the macro AUC, whose error itself stays below 2e-5 by the places in the bins.
    """
    if questions == 1:
        return SECURE_BINS
    across = 5 * questions + 4 * questions**2
    left = (_WORDS - 256 - 41 * questions - across) // questions - 2 * (len(first_grid(questions)) + 1)
    return max(PLAIN_BINS, left // 3)


def _step(questions: int) -> int:
    """The power of two that is not below the number of questions."""
    return int(1 << (questions - 1).bit_length())


def bin_of(p: ArrayLike, edges: ArrayLike) -> NDArray[np.int64]:
    """The bin of each probability, (N,), 0 to len(edges)."""
    return np.searchsorted(np.asarray(edges), np.asarray(p, dtype=np.float64), side="right")


def equal_edges(bins: int) -> Floats:
    """Inner edges of bins of equal width in logit within ±`LOGIT_LIMIT`, (bins − 1,); the outer bins hold the rest."""
    return np.asarray(expit(np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, bins + 1)[1:-1]), dtype=np.float64)


def quantile_edges(cases: ArrayLike, bins: int) -> Floats:
    """Inner edges of at most `bins` bins that hold about equally many cases, from counts over a first grid: (1024,), or
    fewer by a power of two.

    Within a bin of the grid cases are taken as evenly spread in logit. Without cases, bins of equal width in logit.
    """
    reached = np.concatenate([[0.0], np.cumsum(np.asarray(cases, dtype=np.float64))])
    if reached[-1] <= 0:
        return equal_edges(bins)
    rising = np.append(np.diff(reached) > 0, True) | np.append(False, np.diff(reached) > 0)
    wanted = np.arange(1, bins) / bins * reached[-1]
    grid = _LOGITS[:: (len(_LOGITS) - 1) // (len(reached) - 1)]
    return np.unique(expit(np.interp(wanted, reached[rising], grid[rising])))


def in_few_digits(edges: ArrayLike) -> Floats:
    """Rising edges rounded to a twentieth of the narrower bin beside each, so that they travel in few bytes.

    Where an edge lies matters little, that all sites have the same one much. As many, and as apart.
    """
    inner = np.asarray(edges, dtype=np.float64)
    if len(inner) < 2:
        return inner
    gap = np.diff(inner)
    narrow = np.minimum(np.append(gap[0], gap), np.append(gap, gap[-1]))
    digits = np.ceil(-np.log10(narrow)).astype(np.int64) + 1
    short = np.array([round(edge, places) for edge, places in zip(inner.tolist(), digits.tolist(), strict=True)])
    return short if (np.diff(short) > 0).all() and short[0] > 0 and short[-1] < 1 else inner


def with_edge(edges: ArrayLike, p: float | None) -> Floats:
    """Rising edges with one more at the probability `p`; as they are where `p` is None, 0 or 1."""
    inner = np.asarray(edges, dtype=np.float64)
    return inner if p is None or not 0 < p < 1 else np.union1d(inner, [p])


def logit_edges(edges: ArrayLike) -> Floats:
    """All edges as logits, (bins + 1,), the outermost as far as float64 reaches."""
    inner = logit(np.clip(np.asarray(edges, dtype=np.float64), 5e-324, 1 - 2**-53))
    return np.concatenate([[-_BELOW], inner, [_ABOVE]])


def share_of_bin(p: ArrayLike, edges: ArrayLike) -> Floats:
    """How far up its bin each probability lies, (N,) in [0, 1], by logit;
    one half in the two outer bins, which are open.
    """
    score = np.asarray(p, dtype=np.float64)
    whole, index = logit_edges(edges), bin_of(score, edges)
    low, high = whole[index], whole[index + 1]
    x = logit(np.clip(score, 5e-324, 1 - 2**-53))
    inside = (index > 0) & (index < len(whole) - 2) & (high > low)
    share = np.divide(x - low, high - low, out=np.full(len(score), 0.5), where=inside)
    return np.asarray(np.clip(share, 0.0, 1.0), dtype=np.float64)


def place_in_bin(p: ArrayLike, edges: ArrayLike) -> NDArray[np.int64]:
    """Which of the `PLACES` parts of its bin each probability lies in, (N,), 0 to PLACES − 1."""
    return np.minimum(np.floor(share_of_bin(p, edges) * PLACES), PLACES - 1).astype(np.int64)
