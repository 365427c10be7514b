"""The federation's gray levels and amplitudes, from sums that add, and what carries a center's pictures to them.

Shapes: S pixels a side.
"""

from __future__ import annotations

__all__ = ["AmplitudeSums", "GrayCounts", "amplitude_gain", "gray_curve", "low_frequencies"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LEVELS = np.arange(256, dtype=np.float64)
BAND = 0.1
"""Up to how many cycles a pixel amplitudes are harmonised."""


@dataclass(frozen=True, eq=False)
class GrayCounts:
    """Pixels by gray value, (256,), of tissue beside lesions: what a lesion looks like is not a machine's doing."""

    counts: NDArray[np.int64]

    def __add__(self, other: GrayCounts) -> GrayCounts:
        return GrayCounts(self.counts + other.counts)


@dataclass(frozen=True, eq=False)
class AmplitudeSums:
    """Σ |Fourier transform| over `images` pictures of gray values 0..255, (S, S // 2 + 1)."""

    images: int
    total: Floats

    def __add__(self, other: AmplitudeSums) -> AmplitudeSums:
        if self.total.shape != other.total.shape:
            raise ValueError(
                f"amplitudes of shape {self.total.shape} and {other.total.shape} do not add; use one crop size"
            )
        return AmplitudeSums(self.images + other.images, self.total + other.total)


def gray_curve(own: GrayCounts, reference: GrayCounts, *, knots: int = 41) -> Floats:
    """The increasing curve (256,) that gives a center's gray values the reference's quantiles; values in 0..255.

    Matched at `knots` levels from .5 to 99.5 %, linear between them; beyond, the last step's shift goes on. One curve
    for the whole center, so that what tells its pictures apart stays. The identity where a side is empty.
    """
    if not own.counts.sum() or not reference.counts.sum():
        return _LEVELS.copy()
    at = np.linspace(0.005, 0.995, knots)
    from_, to = (_quantiles(side.counts, at) for side in (own, reference))
    # Several levels may fall on one gray value (a display that clips): their mean counts.
    known, group = np.unique(from_, return_inverse=True)
    target = np.bincount(group, weights=to) / np.bincount(group)
    curve = np.interp(_LEVELS, known, target)
    below, above = known[0] > _LEVELS, known[-1] < _LEVELS
    curve[below] = _LEVELS[below] * (target[0] / known[0] if known[0] > 0 else 1.0)
    curve[above] = 255 - (255 - _LEVELS[above]) * ((255 - target[-1]) / (255 - known[-1]) if known[-1] < 255 else 1.0)
    return np.asarray(np.maximum.accumulate(np.clip(curve, 0, 255)), dtype=np.float64)


def _quantiles(counts: NDArray[np.int64], at: Floats) -> Floats:
    """Gray values at shares `at`, a gray value's pixels spread evenly over it."""
    cumulative = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    rising = np.concatenate([[True], np.diff(cumulative) > 0])
    return np.asarray(np.interp(at, cumulative[rising], (np.arange(257) - 0.5)[rising]), dtype=np.float64)


def low_frequencies(size: int, *, band: float = BAND) -> NDArray[np.bool_]:
    """Which places of a picture's half Fourier transform, (S, S // 2 + 1), are harmonised."""
    return np.asarray(np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) <= band)


def amplitude_gain(own: AmplitudeSums, reference: AmplitudeSums, *, band: float = BAND) -> Floats:
    """What to multiply a picture's Fourier transform with, (S, S // 2 + 1): reference over own up to `band` cycles a
    pixel.

    It is 1 above, between 1/4 and 4 below. Phases stay, so does what tells a center's pictures apart: after Yang and
    Soatto 2020, with the ratio of mean amplitudes where they exchange single ones.
    """
    if not own.images or not reference.images:
        return np.ones_like(own.total)
    ratio = (reference.total / reference.images) / np.maximum(own.total / own.images, 1e-9)
    return np.where(low_frequencies(own.total.shape[0], band=band), np.clip(ratio, 0.25, 4.0), 1.0)
