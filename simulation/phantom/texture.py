"""Smooth random fields and curves: how tissue varies on the scale of millimetres."""

from __future__ import annotations

__all__ = ["smooth_curve", "smooth_field"]

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.physics import FloatImage


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], *, rows_px: float, columns_px: float) -> FloatImage:
    """(H, W) stationary Gaussian field, mean 0, variance 1, of the given correlation length in each direction, px.

    White noise on a coarse grid, spread by a Gaussian kernel in each direction: two small matrix products.
    """
    down, across = _spread(shape[0], rows_px), _spread(shape[1], columns_px)
    coarse = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32)
    return np.asarray(down @ coarse @ across.T)


def smooth_curve(rng: np.random.Generator, length: int, *, scale_px: float) -> FloatImage:
    """(length,) stationary Gaussian curve, mean 0, variance 1."""
    spread = _spread(length, scale_px)
    return np.asarray(spread @ rng.standard_normal(spread.shape[1], dtype=np.float32))


def _spread(length: int, scale_px: float) -> NDArray[np.float32]:
    """(length, K) Gaussian weights of K coarse nodes `scale_px` apart; each row has unit sum of squares."""
    scale = max(scale_px, 1.0)
    nodes = np.arange(-2, int(np.ceil(length / scale)) + 3, dtype=np.float32) * np.float32(scale)
    offset = (np.arange(length, dtype=np.float32)[:, None] - nodes[None, :]) / np.float32(scale)
    weight = np.exp(-(offset**2) / np.float32(2 * 0.7**2))
    return np.asarray(weight / np.sqrt((weight**2).sum(axis=1, keepdims=True)))
