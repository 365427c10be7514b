"""The tissue around a lesion: layers, fascia, muscle fibres, vessels. Levels in dB of amplitude, 0 dB being muscle."""

from __future__ import annotations

__all__ = ["add_vessel", "layered_tissue"]

import numpy as np

from simulation.phantom.outline import blob, inside
from simulation.phantom.physics import FloatImage
from simulation.phantom.texture import smooth_curve, smooth_field


def layered_tissue(
    rng: np.random.Generator, shape: tuple[int, int], *, pixel_mm: float, layers: int, contrast_db: float = 4.0
) -> FloatImage:
    """(H, W) level of a stack of wavy layers with bright fascia between them.

    layers: how many. contrast_db: standard deviation of a layer's level. Each layer is fibrous to its own degree: long
    streaks along the width, as muscle and the septa of fat have them.
    """
    height, width = shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    streaks = smooth_field(rng, shape, rows_px=0.22 / pixel_mm, columns_px=2.5 / pixel_mm)
    clouds = smooth_field(rng, shape, rows_px=1.2 / pixel_mm, columns_px=2.2 / pixel_mm)
    level = np.float32(rng.normal(0, contrast_db)) + np.float32(rng.uniform(1, 3.5)) * streaks
    tops = np.sort(rng.uniform(0.05, 0.95, layers - 1)) * height
    slope = rng.normal(0, 0.08)
    fascia = np.zeros(shape, dtype=np.float32)
    for top in tops:
        wave = smooth_curve(rng, width, scale_px=5.0 / pixel_mm) * np.float32(0.8 / pixel_mm)
        tilt = np.float32(slope + rng.normal(0, 0.03)) * (np.arange(width, dtype=np.float32) - width / 2)
        below = rows - (np.float32(top) + wave + tilt)[None, :]
        this = np.float32(rng.normal(0, contrast_db)) + np.float32(rng.uniform(0.5, 3.5)) * streaks
        level += inside(-below, width_px=0.5 / pixel_mm) * (this - level)
        strength = np.maximum(rng.uniform(4, 15) + 4 * smooth_curve(rng, width, scale_px=2.0 / pixel_mm), 0)
        thickness = np.float32(rng.uniform(0.10, 0.30) / pixel_mm)
        fascia += strength.astype(np.float32)[None, :] * np.exp(-((below / thickness) ** 2))
    return level + fascia + np.float32(2.0) * clouds


def add_vessel(
    rng: np.random.Generator, echo_db: FloatImage, excess: FloatImage, *, pixel_mm: float, row: float, column: float
) -> None:
    """Draw a large vessel across, in place: nearly free of echoes, with a bright wall and enhancement behind."""
    radius = rng.uniform(2.0, 3.6) / pixel_mm
    shape = (echo_db.shape[0], echo_db.shape[1])
    distance = blob(
        rng, row=row, column=column, across=radius * rng.uniform(1, 1.35), down=radius, roughness=0.03
    ).distance(shape)
    lumen = inside(distance, width_px=0.3 / pixel_mm)
    echo_db += lumen * (np.float32(-26) - echo_db)
    echo_db += np.float32(5) * np.exp(-(((distance - np.float32(0.25 / pixel_mm)) / np.float32(0.2 / pixel_mm)) ** 2))
    excess -= np.float32(0.4) * lumen
