"""From a lesion's attributes to a map of tissue: breast-like layers with the lesion drawn into them."""

from __future__ import annotations

__all__ = ["Scene", "draw_lesion"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.outline import ANGLES, Outline, blob, harmonics, inside
from simulation.phantom.physics import FloatImage, Tissue
from simulation.phantom.surroundings import layered_tissue
from simulation.phantom.texture import smooth_field

if TYPE_CHECKING:
    from simulation.phantom.lesions import LesionAttributes

SHADOW_DB = 1.6
"""Extra attenuation of a fully shadowing lesion, dB/cm/MHz, one way."""
ENHANCEMENT_DB = 0.7
"""Missing attenuation behind a fully enhancing one."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Tissue with a lesion, and the lesion's mask, (H, W)."""

    tissue: Tissue
    mask: NDArray[np.bool_]


def draw_lesion(
    rng: np.random.Generator, attributes: LesionAttributes, shape: tuple[int, int], *, pixel_mm: float
) -> Scene:
    """Draw one lesion somewhere in a frame of `shape` whose pixels measure `pixel_mm`."""
    outline = _outline(rng, attributes, shape, pixel_mm=pixel_mm)
    distance = outline.distance(shape)
    mask = distance < 0
    echo = _breast(rng, shape, pixel_mm=pixel_mm)
    share = inside(distance, width_px=(0.15 + 2.0 * attributes.blur) / pixel_mm)
    level, excess = _inside(rng, attributes, outline, shape, pixel_mm=pixel_mm)
    echo += share * (level - echo)
    if attributes.rim:
        reach = np.float32(0.9 / pixel_mm)
        echo += np.float32(7 * attributes.rim) * np.exp(-(((distance - reach) / reach) ** 2))
    if attributes.posterior < 0.5:
        excess += np.float32(SHADOW_DB * (1 - 2 * attributes.posterior)) * share
    else:
        excess -= np.float32(ENHANCEMENT_DB * (2 * attributes.posterior - 1)) * share
    points = _calcifications(rng, attributes, outline, mask, pixel_mm=pixel_mm)
    return Scene(Tissue(echo, excess, points), mask)


def _outline(
    rng: np.random.Generator, attributes: LesionAttributes, shape: tuple[int, int], *, pixel_mm: float
) -> Outline:
    """The lesion's border within the frame: ellipse, lobes, corners and spikes as the attributes say."""
    ratio = np.exp(2.2 * (attributes.tallness - 0.5))
    size = np.exp(rng.uniform(np.log(2.2), np.log(9.0))) / pixel_mm
    across, down = size / np.sqrt(ratio), size * np.sqrt(ratio)
    fit = min(1.0, 0.40 * shape[1] / across, 0.36 * shape[0] / down)
    across, down = max(across * fit, 12.0), max(down * fit, 12.0)
    lobes = harmonics(rng, orders=range(2, 6), amplitude=0.02 + 0.13 * attributes.lobulation, decay=0.3)
    modulation = 1 + lobes + _corners(rng) * 0.28 * attributes.angularity + _spikes(rng) * 0.5 * attributes.spiculation
    fine = harmonics(rng, orders=range(6, 30), amplitude=0.008 + 0.03 * attributes.angularity)
    return Outline(
        row=shape[0] * rng.uniform(0.34, 0.62),
        column=shape[1] * rng.uniform(0.38, 0.62),
        across=across,
        down=down,
        tilt=float(rng.normal(0, 0.22)),
        modulation=np.clip(modulation + fine, 0.35, 1.9).astype(np.float32),
    )


def _corners(rng: np.random.Generator) -> NDArray[np.float64]:
    """(ANGLES,) mean 0, pointed at 3 to 6 uneven directions."""
    turns = np.sort(rng.uniform(0, 1, int(rng.integers(3, 7))))
    place = np.arange(ANGLES) / ANGLES
    gap = np.abs((place[:, None] - turns[None, :] + 0.5) % 1 - 0.5).min(axis=1)
    wave = np.exp(-gap / 0.06)
    return np.asarray(wave - wave.mean())


def _spikes(rng: np.random.Generator) -> NDArray[np.float64]:
    """(ANGLES,) from 0: narrow spikes of random length in 6 to 16 directions."""
    number = int(rng.integers(6, 17))
    turns, length = rng.uniform(0, 1, number), rng.uniform(0.3, 1.4, number)
    place = np.arange(ANGLES) / ANGLES
    gap = np.abs((place[:, None] - turns[None, :] + 0.5) % 1 - 0.5)
    return np.asarray((length * np.exp(-gap / 0.012)).max(axis=1))


def _breast(rng: np.random.Generator, shape: tuple[int, int], *, pixel_mm: float) -> FloatImage:
    """(H, W) level of skin, fat lobules between bright septa, gland, muscle, and sometimes the chest wall."""
    echo = layered_tissue(rng, shape, pixel_mm=pixel_mm, layers=int(rng.integers(2, 6)), contrast_db=5.0)
    lobules = smooth_field(rng, shape, rows_px=rng.uniform(1.2, 3) / pixel_mm, columns_px=rng.uniform(3, 6) / pixel_mm)
    septa = np.exp(-((lobules / np.float32(0.12)) ** 2))
    echo += np.float32(rng.uniform(0, 9)) * septa + np.float32(rng.uniform(0, 3)) * lobules
    depth = pixel_mm * np.arange(shape[0], dtype=np.float32)[:, None]
    if rng.uniform() < 0.5:
        echo += np.float32(rng.uniform(4, 10)) * np.exp(-((depth / np.float32(rng.uniform(0.8, 1.8))) ** 4))
    if rng.uniform() < 0.3:
        wall = depth - np.float32(shape[0] * pixel_mm * rng.uniform(0.82, 0.98))
        echo += np.float32(12) * np.exp(-((wall / np.float32(0.35)) ** 2)) - np.float32(14) * (wall > 0.6)
    return echo


def _inside(
    rng: np.random.Generator,
    attributes: LesionAttributes,
    outline: Outline,
    shape: tuple[int, int],
    *,
    pixel_mm: float,
) -> tuple[FloatImage, FloatImage]:
    """(H, W) level of the lesion's own tissue, and attenuation that is missing in its fluid."""
    base = -32 + 34 * attributes.echo**0.6
    patches = smooth_field(rng, shape, rows_px=1.0 / pixel_mm, columns_px=1.4 / pixel_mm)
    level = np.float32(base) + np.float32(0.8 + 5.0 * attributes.heterogeneity) * patches
    excess = np.zeros(shape, dtype=np.float32)
    if attributes.cystic:
        size = 0.25 + 0.5 * attributes.cystic
        at = rng.uniform(-0.3, 0.3, 2)
        fluid = blob(
            rng,
            row=outline.row + at[0] * outline.down,
            column=outline.column + at[1] * outline.across,
            across=outline.across * size,
            down=outline.down * size,
        )
        share = inside(fluid.distance(shape), width_px=0.3 / pixel_mm)
        level += share * (np.float32(-30) - level)
        excess -= np.float32(0.4) * share
    return level, excess


def _calcifications(
    rng: np.random.Generator,
    attributes: LesionAttributes,
    outline: Outline,
    mask: NDArray[np.bool_],
    *,
    pixel_mm: float,
) -> NDArray[np.float64]:
    """(P, 3) row, column and amplitude of bright specks inside the lesion."""
    number = round(14 * attributes.calcification)
    points = rng.normal(0, 0.4, (number, 2)) * (outline.down, outline.across) + (outline.row, outline.column)
    rows = np.clip(points[:, 0], 0, mask.shape[0] - 1).astype(int)
    columns = np.clip(points[:, 1], 0, mask.shape[1] - 1).astype(int)
    within = mask[rows, columns]
    level = rng.normal(18, 4, number) + 20 * np.log10(0.065 / pixel_mm)
    return np.asarray(np.stack([rows, columns, level], axis=1)[within])
