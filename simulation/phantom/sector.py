"""A convex probe's picture: beams that diverge from a curved array, drawn in polar samples and converted to a frame.

Points are in mm: x to the right of the array's middle, z downwards from it. Axis 0 of the polar samples is depth along
the beam, axis 1 the beam.
"""

from __future__ import annotations

__all__ = ["ABDOMINAL", "Sector", "sector_picture"]

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.machines import COMMON_MACHINE, Machine, acquire
from simulation.phantom.physics import FloatImage, Tissue

ABDOMINAL = replace(
    COMMON_MACHINE,
    name="common abdominal",
    frequency_mhz=3.5,
    bandwidth=0.6,
    f_number=2.8,
    focus_mm=70,
    dynamic_range_db=60,
    noise_db=-66,
    smoothing=0.4,
    smooth_mm=0.5,
    edge=0.3,
    pixel_mm=0.4,
    depth_mm=1,
)
"""A convex abdominal probe; its class's typical numbers, not a product's. `pixel_mm` and `frame` are the sector's."""


@dataclass(frozen=True, slots=True)
class Sector:
    """Geometry of a convex frame.

    radius_mm: of the array's curve. half_angle: of the sector, radians. depth_mm: of the deepest sample. samples,
    beams: of the polar grid. height, width: of the frame, px.
    """

    radius_mm: float
    half_angle: float
    depth_mm: float
    samples: int
    beams: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and beams."""
        return self.samples, self.beams

    @property
    def sample_mm(self) -> float:
        """Distance of neighbouring samples along a beam."""
        return self.depth_mm / self.samples

    @property
    def frame_mm(self) -> float:
        """Size of a pixel of the frame."""
        left, top = self.radius_mm * (1 - np.cos(self.half_angle)), 2 * np.sin(self.half_angle)
        wide, high = top * (self.radius_mm + self.depth_mm), self.depth_mm + left
        return float(max(wide / self.width, high / self.height))

    def points(self) -> tuple[FloatImage, FloatImage]:
        """(samples, beams) x and z of every polar sample, mm."""
        return _points(self)

    def beam_mm(self) -> NDArray[np.float64]:
        """(samples,) distance of neighbouring beams at each depth, mm."""
        reach = self.radius_mm + self.sample_mm * (np.arange(self.samples) + 0.5)
        return np.asarray(reach * 2 * self.half_angle / self.beams)

    def pixel(self, x: float, z: float) -> tuple[float, float]:
        """Row and column of the frame at a point, px."""
        top = -self.radius_mm * (1 - np.cos(self.half_angle))
        return (z - top) / self.frame_mm, x / self.frame_mm + self.width / 2


@lru_cache(maxsize=16)
def _points(sector: Sector) -> tuple[FloatImage, FloatImage]:
    reach = sector.radius_mm + sector.sample_mm * (np.arange(sector.samples, dtype=np.float32)[:, None] + 0.5)
    angle = ((np.arange(sector.beams, dtype=np.float32) + 0.5) / sector.beams * 2 - 1) * np.float32(sector.half_angle)
    x, z = reach * np.sin(angle)[None, :], reach * np.cos(angle)[None, :] - np.float32(sector.radius_mm)
    return x.astype(np.float32), z.astype(np.float32)


def sector_picture(rng: np.random.Generator, tissue: Tissue, machine: Machine, sector: Sector) -> NDArray[np.uint8]:
    """The (height, width) frame that `machine` makes of `tissue`, which is given on the polar grid; black outside."""
    polar = acquire(rng, tissue, machine, pixel_mm=sector.sample_mm, beam_mm=sector.beam_mm())
    corners, weights, inside = _conversion(sector)
    values = polar.ravel().astype(np.float32)
    seen = sum(weight * values[corner] for corner, weight in zip(corners, weights, strict=True))
    frame = np.zeros((sector.height, sector.width), dtype=np.uint8)
    frame[inside] = np.asarray(seen + np.float32(0.5)).astype(np.uint8)
    return frame


@lru_cache(maxsize=16)
def _conversion(
    sector: Sector,
) -> tuple[tuple[NDArray[np.int32], ...], tuple[FloatImage, ...], NDArray[np.bool_]]:
    """For each pixel within the sector, its four polar neighbours and their bilinear weights;
    which pixels those are.
    """
    top = -sector.radius_mm * (1 - np.cos(sector.half_angle))
    z = top + (np.arange(sector.height) + 0.5)[:, None] * sector.frame_mm + sector.radius_mm
    x = (np.arange(sector.width) + 0.5 - sector.width / 2)[None, :] * sector.frame_mm
    row = (np.hypot(x, z) - sector.radius_mm) / sector.sample_mm - 0.5
    column = (np.arctan2(x, z) / sector.half_angle + 1) / 2 * sector.beams - 0.5
    inside = (row >= 0) & (row < sector.samples - 1) & (column >= 0) & (column < sector.beams - 1)
    row, column = row[inside], column[inside]
    i, j = np.floor(row).astype(np.int32), np.floor(column).astype(np.int32)
    down, across = (row - i).astype(np.float32), (column - j).astype(np.float32)
    first = i * np.int32(sector.beams) + j
    corners = (first, first + 1, first + sector.beams, first + sector.beams + 1)
    weights = ((1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across)
    return corners, weights, inside
