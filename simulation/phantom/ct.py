"""An axial CT slice: a canvas of Hounsfield units onto which organs are painted, and the scanner that reads it.

Rows run from the front of the body to its back, columns from the patient's right to the left. Lengths in mm from the
middle of the field unless a name ends in `_px`.
Source: Bushberg et al., The Essential Physics of Medical Imaging (2012), chapter 10, for noise that grows with sharper
kernels, thinner slices and thicker bodies.
"""

from __future__ import annotations

__all__ = ["AIR", "COMMON_SCANNER", "SCANNERS", "SIDE", "Canvas", "Scanner", "acquire_slice", "blend_scanner"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simulation.phantom.outline import Outline, inside
from simulation.phantom.physics import FloatImage
from simulation.phantom.texture import smooth_field

SIDE = 512
AIR = -1000.0


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner with its protocol.

    noise: standard deviation in a slice of 5 mm of an average body, HU. kernel_px: standard deviation of the
    reconstruction's blur. grain_px: correlation of its noise. spacing_mm: of the smallest body's pixels. thin: share of
    studies in slices of 1 mm. outside: HU of what lies outside the field of view. table: whether the couch is seen.
    """

    name: str
    noise: float
    kernel_px: float
    grain_px: float
    spacing_mm: float
    thin: float
    outside: int
    table: bool


COMMON_SCANNER = Scanner("common", 10.0, 0.75, 0.8, 0.70, 0.33, -1024, table=True)
SCANNERS = (
    Scanner("sharp", 14.0, 0.5, 0.55, 0.66, 0.5, -3024, table=True),
    Scanner("soft", 7.0, 1.1, 1.15, 0.74, 0.15, -1024, table=True),
    Scanner("older", 17.0, 0.8, 0.9, 0.80, 0.1, -2048, table=False),
    Scanner("common", 10.0, 0.75, 0.8, 0.70, 0.4, -1024, table=True),
)
"""The hospital's scanners at shift 1; at shift 0 every one is the common scanner."""


def blend_scanner(own: Scanner, *, shift: float) -> Scanner:
    """The common scanner at shift 0, `own` at 1, in a straight line and beyond."""

    def between(name: str, low: float, high: float) -> float:
        start, end = float(getattr(COMMON_SCANNER, name)), float(getattr(own, name))
        return float(np.clip(start + shift * (end - start), low, high))

    return Scanner(
        name=own.name if shift else COMMON_SCANNER.name,
        noise=between("noise", 2, 60),
        kernel_px=between("kernel_px", 0.35, 2.5),
        grain_px=between("grain_px", 0.4, 2.5),
        spacing_mm=between("spacing_mm", 0.5, 0.9),
        thin=between("thin", 0, 1),
        outside=own.outside if shift else COMMON_SCANNER.outside,
        table=own.table or not shift,
    )


class Canvas:
    """(SIDE, SIDE) HU that organs are painted onto, in mm from its middle."""

    def __init__(self, *, spacing_mm: float) -> None:
        self.spacing_mm = spacing_mm
        self.hu: FloatImage = np.full((SIDE, SIDE), AIR, dtype=np.float32)

    def distance(self, organ: Outline, *, edge_mm: float) -> tuple[tuple[slice, slice], FloatImage]:
        """Where an organ may be, and how far each pixel there is from its surface, mm, negative inside."""
        reach = max(organ.across, organ.down) * float(organ.modulation.max()) + 2 * edge_mm
        window = self._slice(organ.row, reach), self._slice(organ.column, reach)
        rows = self._mm(window[0])[:, None]
        columns = self._mm(window[1])[None, :]
        return window, organ.distance_at(rows, columns)

    def paint(self, organ: Outline, hu: float, *, edge_mm: float = 0.8, texture: FloatImage | None = None) -> None:
        """Fill the organ with `hu`, and with `texture`, (SIDE, SIDE) HU, on top of it."""
        self.paint_layers(organ, [(0.0, hu)], edge_mm=edge_mm, texture=texture)

    def paint_layers(
        self, organ: Outline, layers: Sequence[tuple[float, float]], *, edge_mm: float, texture: FloatImage | None
    ) -> None:
        """Fill the organ with layers, each from so many mm below its surface inwards, of so many HU."""
        window, distance = self.distance(organ, edge_mm=edge_mm)
        under = self.hu[window]
        for inset, hu in layers:
            share = inside(distance + np.float32(inset), width_px=max(edge_mm, 0.4))
            level = np.float32(hu) if texture is None else texture[window] + np.float32(hu)
            under += share * (level - under)

    def _slice(self, middle: float, reach: float) -> slice:
        low = int(np.floor((middle - reach) / self.spacing_mm + SIDE / 2))
        high = int(np.ceil((middle + reach) / self.spacing_mm + SIDE / 2)) + 1
        return slice(min(max(low, 0), SIDE), min(max(high, 0), SIDE))

    def _mm(self, window: slice) -> FloatImage:
        return np.asarray((np.arange(window.start, window.stop) - SIDE / 2) * self.spacing_mm, dtype=np.float32)


def acquire_slice(
    rng: np.random.Generator, canvas: Canvas, scanner: Scanner, *, thickness_mm: float, body_mm: float
) -> NDArray[np.int16]:
    """(SIDE, SIDE) HU as the scanner shows it. body_mm: mean diameter of the body, which makes noise."""
    seen = gaussian_filter(canvas.hu, scanner.kernel_px, truncate=3)
    strength = scanner.noise * np.sqrt(5 / max(thickness_mm, 1)) ** 0.6 * np.exp((body_mm - 280) / 160)
    grain = smooth_noise(rng, scanner.grain_px)
    streaks = smooth_field(rng, (SIDE, SIDE), rows_px=3, columns_px=90)
    seen += np.float32(strength) * (grain + np.float32(0.25) * streaks) * _deeper()
    hu = np.clip(np.rint(seen), -1024, 3071).astype(np.int16)
    hu[_corners()] = scanner.outside
    return hu


def smooth_noise(rng: np.random.Generator, grain_px: float) -> FloatImage:
    """(SIDE, SIDE) noise of variance 1 and short correlation."""
    white = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    soft = gaussian_filter(white, grain_px, mode="wrap", truncate=2.5)
    return np.asarray(soft / np.float32(soft[::8].std()))


@lru_cache(maxsize=1)
def _radius() -> FloatImage:
    at = (np.arange(SIDE, dtype=np.float32) - SIDE / 2 + 0.5) / np.float32(SIDE / 2)
    return np.asarray(np.hypot(at[:, None], at[None, :]), dtype=np.float32)


@lru_cache(maxsize=1)
def _deeper() -> FloatImage:
    """(SIDE, SIDE) noise is strongest in the middle of the body."""
    return np.asarray(np.float32(0.65) + np.float32(0.6) * np.exp(-((_radius() / np.float32(0.5)) ** 2)))


@lru_cache(maxsize=1)
def _corners() -> NDArray[np.bool_]:
    return np.asarray(_radius() > 1.0)
