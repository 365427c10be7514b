"""What a center's images look like: a gray-level histogram and texture descriptors of its lesion crops.

All of it is sums over images, divided once at the end. With few images they say much about each one.
"""

from __future__ import annotations

__all__ = ["BINS", "Appearance", "appearance"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 64


@dataclass(frozen=True)
class Appearance:
    """`histogram` counts pixels by gray level (64 bins over 0..255, the crop's blank surround left out); `descriptors`
    holds (mean, standard deviation) over images."""

    n_images: int
    histogram: tuple[int, ...]
    descriptors: dict[str, tuple[float, float]]


def appearance(crops: NDArray[np.uint8]) -> Appearance:
    """Describe crops (N, S, S).

    Descriptors per image: mean gray (0..1), contrast (standard deviation, 0..1), entropy (bits), gradient energy (mean
    squared difference of neighbours over variance), and the speckle's correlation length in pixels, axial (down) and
    lateral (across): the lag at which the autocorrelation of the residual after local smoothing falls to 1/2 (Wagner,
    Smith, Sandrik and Lopez 1983 measure speckle size so).
    """
    histogram = np.zeros(BINS, dtype=np.int64)
    values: dict[str, list[float]] = {}
    for crop in crops:
        histogram += np.bincount(crop[crop > 0].ravel() >> 2, minlength=BINS)
        for name, value in _descriptors(crop).items():
            values.setdefault(name, []).append(value)
    summary = {name: (round(float(np.mean(v)), 6), round(float(np.std(v)), 6)) for name, v in values.items()}
    return Appearance(len(crops), tuple(int(count) for count in histogram), summary)


def _descriptors(crop: NDArray[np.uint8]) -> dict[str, float]:
    image = crop.astype(np.float32) / 255
    variance = float(image.var()) + 1e-6
    shares = np.bincount(crop.ravel() >> 2, minlength=BINS) / crop.size
    shares = shares[shares > 0]
    down, across = np.diff(image, axis=0), np.diff(image, axis=1)
    return {
        "mean gray": float(image.mean()),
        "contrast": variance**0.5,
        "entropy (bits)": float(-(shares * np.log2(shares)).sum()),
        "gradient energy": float((down**2).mean() + (across**2).mean()) / variance,
        "speckle length, axial (px)": _half_length(image, axis=0),
        "speckle length, lateral (px)": _half_length(image, axis=1),
    }


def _half_length(image: NDArray[np.floating], *, axis: int) -> float:
    """Lag, in pixels, at which the residual's autocorrelation along `axis` falls to one half; linear between lags."""
    from scipy.ndimage import uniform_filter

    residual = image - uniform_filter(image, size=9)
    residual = np.moveaxis(residual - residual.mean(), axis, 0)
    power = float((residual**2).mean()) + 1e-12
    before = 1.0
    for lag in range(1, 9):
        now = float((residual[lag:] * residual[:-lag]).mean()) / power
        if now < 0.5:
            return lag - 1 + (before - 0.5) / max(before - now, 1e-6)
        before = now
    return 8.0
