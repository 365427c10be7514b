"""How a machine draws tissue: intensity, texture and resolution of a crop, measured beside the lesion.

What the lesion itself looks like is left out, so that other patients (case mix) do not read as another machine. Counted
are the pixels outside the lesion's box and not straight below it, where lesions cast shadows and enhancement; a blank
surround (whole rows or columns of 0 at the edge) never counts. Where fewer than 64 such pixels are left, all of the
crop that is not blank counts.

Shapes: N images, S pixels a side, M pixels counted.
"""

from __future__ import annotations

__all__ = ["blank_edges", "describe", "tissue_mask"]

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.shift import DESCRIPTORS

_Floats = NDArray[np.float32]
_WINDOW = 9
_LAGS = 8
_ENOUGH = 64


def describe(crops: NDArray[np.uint8], *, margin: float) -> NDArray[np.float64]:
    """`DESCRIPTORS` of crops (N, S, S) whose lesion's box was widened by `margin` of its longer side; (N, 10).

    Gray values are in 0..1, lengths in pixels of the crop. Speckle length is the lag at which the autocorrelation of
    the residual after a 9 × 9 mean falls to one half, axial (down) and lateral (across): Wagner, Smith, Sandrik and
    Lopez 1983. Gradient energy is the mean squared difference of neighbours over the variance; the high-frequency share
    is that of the residual's power above half the Nyquist frequency; local contrast the mean standard deviation of 9 ×
    9 windows.
    """
    found = np.zeros((len(crops), len(DESCRIPTORS)))
    blank = blank_edges(crops)
    for edges in np.unique(blank, axis=0):
        which = np.flatnonzero((blank == edges).all(axis=1))
        mask = tissue_mask(crops.shape[-1], margin=margin, blank=(edges[0], edges[1], edges[2], edges[3]))
        for at in range(0, len(which), 256):
            some = which[at : at + 256]
            found[some] = _described(crops[some].astype(np.float32) / np.float32(255), mask)
    return found


def tissue_mask(size: int, *, margin: float, blank: tuple[int, int, int, int] = (0, 0, 0, 0)) -> NDArray[np.bool_]:
    """Which pixels of a crop (size, size) count; `blank` rows at the top and bottom, columns at the left and right."""
    top, bottom, left, right = blank
    seen = np.zeros((size, size), dtype=np.bool_)
    seen[top : size - bottom, left : size - right] = True
    if not seen.any():
        seen[:] = True
    start = int(np.floor(size * margin / (1 + 2 * margin)))
    beside = seen.copy()
    beside[start:, start : size - start] = False
    return beside if int(beside.sum()) >= _ENOUGH else seen


def blank_edges(crops: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many rows and columns at each edge are 0 throughout: top, bottom, left, right; (N, 4)."""
    found = []
    for axis in (2, 1):
        some = (crops != 0).any(axis=axis)
        nothing = ~some.any(axis=1)
        for order in (some, some[:, ::-1]):
            found.append(np.where(nothing, 0, order.argmax(axis=1)))
    return np.stack(found, axis=1).astype(np.int64)


def _described(images: _Floats, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Images (N, S, S) in 0..1 with one mask; (N, 10) in the order of `DESCRIPTORS`."""
    tissue_NM = images[:, mask]
    smooth = _smoother(mask)
    local = smooth(images)
    spread = np.sqrt(np.maximum(smooth(images**2) - local**2, 0))
    residual = np.where(mask, images - local, np.float32(0))
    variance = tissue_NM.var(axis=1) + 1e-6
    low, middle, high = np.quantile(tissue_NM, [0.05, 0.5, 0.95], axis=1)
    columns = (
        tissue_NM.mean(axis=1),
        np.sqrt(variance),
        low,
        middle,
        high,
        _gradients(images, mask) / variance,
        _half_length(residual, mask),
        _half_length(residual.transpose(0, 2, 1), mask.T),
        _high_share(residual),
        spread[:, mask].mean(axis=1),
    )
    return np.stack(columns, axis=1).astype(np.float64)


def _smoother(mask: NDArray[np.bool_]) -> Callable[[_Floats], _Floats]:
    """The mean over a 9 × 9 window of those pixels that count."""
    from scipy.ndimage import uniform_filter

    weight = mask.astype(np.float32)
    share = np.maximum(uniform_filter(weight, size=_WINDOW, mode="constant"), np.float32(1e-3))

    def smooth(images: _Floats) -> _Floats:
        mean = uniform_filter(images * weight, size=(1, _WINDOW, _WINDOW), mode="constant") / share
        return mean.astype(np.float32, copy=False)

    return smooth


def _gradients(images: _Floats, mask: NDArray[np.bool_]) -> _Floats:
    down, across = mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]
    steps = np.diff(images, axis=1)[:, down], np.diff(images, axis=2)[:, across]
    energy: _Floats = (steps[0] ** 2).mean(axis=1) + (steps[1] ** 2).mean(axis=1)
    return energy


def _half_length(residual: _Floats, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Lag along axis 1 at which the autocorrelation falls to one half, linear between lags, at most 8; (N,)."""
    power = np.einsum("nij,nij->n", residual, residual) / mask.sum() + 1e-12
    curve = [np.ones(len(residual))]
    for lag in range(1, _LAGS + 1):
        pairs = max(int((mask[lag:] & mask[:-lag]).sum()), 1)
        curve.append(np.einsum("nij,nij->n", residual[:, lag:], residual[:, :-lag]) / pairs / power)
    curve_NL = np.stack(curve, axis=1)
    below = curve_NL < 0.5
    first = np.where(below.any(axis=1), below.argmax(axis=1), _LAGS)
    rows = np.arange(len(residual))
    before, after = curve_NL[rows, first - 1], curve_NL[rows, first]
    found: NDArray[np.float64] = first - 1 + (before - 0.5) / np.maximum(before - after, 1e-6)
    return np.clip(found, 0, _LAGS)


def _high_share(residual: _Floats) -> NDArray[np.float64]:
    size = residual.shape[-1]
    power = np.abs(np.fft.rfft2(residual)) ** 2
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    twice = np.where(np.isin(np.arange(power.shape[-1]), (0, size / 2)), 1.0, 2.0)
    high: NDArray[np.float64] = (power * twice)[:, radius > 0.25].sum(axis=1) / (
        (power * twice).sum(axis=(1, 2)) + 1e-12
    )
    return high
