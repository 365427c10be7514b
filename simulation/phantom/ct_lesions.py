"""A lesion in the organ of its type, with the two diameters that a radiologist would have drawn across it."""

from __future__ import annotations

__all__ = ["TYPES", "CtLesion", "add_lesion"]

from dataclasses import dataclass

import numpy as np

from simulation.phantom.ct import SIDE
from simulation.phantom.ct_anatomy import Drawn
from simulation.phantom.outline import ANGLES, Outline, harmonics

Rng = np.random.Generator
TYPES = {1: "bone", 2: "abdomen", 3: "mediastinum", 4: "liver", 5: "lung", 6: "kidney", 7: "soft tissue", 8: "pelvis"}
"""Coarse lesion types by their number."""
HOMES = {
    1: ("marrow",),
    2: ("cavity",),
    3: ("mediastinum",),
    4: ("liver",),
    5: ("lung",),
    6: ("kidney",),
    7: ("wall", "trunk"),
    8: ("cavity",),
}
"""Organs that a lesion of each type lies in."""


@dataclass(frozen=True, slots=True)
class CtLesion:
    """A lesion as measured. ends: the long diameter's two ends, then the short one's, (column,
    row) in px. hu: inside.
    """

    ends: tuple[tuple[float, float], ...]
    hu: float

    @property
    def diameters_px(self) -> tuple[float, float]:
        """Long and short."""
        (a, b, c, d) = (np.array(end) for end in self.ends)
        first, second = float(np.hypot(*(a - b))), float(np.hypot(*(c - d)))
        return max(first, second), min(first, second)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, px: what the diameters span, 5 px wider."""
        columns, rows = zip(*self.ends, strict=True)
        sides = min(columns) - 5, min(rows) - 5, max(columns) + 5, max(rows) + 5
        left, top, right, bottom = (float(np.clip(side, 0, SIDE - 1)) for side in sides)
        return left, top, right, bottom


def add_lesion(rng: Rng, drawn: Drawn, lesion_type: int, *, clear: float) -> CtLesion:
    """Paint one lesion of the type, 1 to 8, and measure it. clear: 0 hardly any contrast, 1 as lesions have it."""
    size = float(np.clip(19 * np.exp(rng.normal(0, 0.62)), 5, 95))
    home = _home(rng, drawn, lesion_type)
    if lesion_type == 7:
        x, y, size = _in_the_wall(rng, drawn, size)
    else:
        size = min(size, 1.5 * min(home.across, home.down))
        x, y = _within(rng, home, size)
    hu = _level(rng, drawn, lesion_type, clear=clear)
    rough = float(rng.uniform(0.02, 0.09)) * (1.4 if lesion_type == 5 else 1)
    modulation = np.maximum(1 + harmonics(rng, orders=range(2, 10), amplitude=rough, decay=0.8), 0.5).astype(np.float32)
    ratio = float(np.clip(rng.normal(0.74, 0.15), 0.4, 1.0))
    lesion = Outline(y, x, size / 2, size / 2 * ratio, float(rng.uniform(0, np.pi)), modulation)
    drawn.canvas.paint(lesion, hu, edge_mm=float(rng.uniform(0.6, 2.4)), texture=np.float32(1.8) * drawn.texture)
    if lesion_type in {2, 4, 8} and rng.uniform() < 0.2:
        core = Outline(y, x, size / 4, size / 4 * ratio, lesion.tilt, modulation)
        drawn.canvas.paint(core, hu - 30 * clear, edge_mm=3)
    return CtLesion(_ends(lesion, drawn.canvas.spacing_mm), hu)


def _home(rng: Rng, drawn: Drawn, lesion_type: int) -> Outline:
    """One of the organs that may hold it, a large one rather than a small one."""
    homes = [organ for name in HOMES[lesion_type] for organ in drawn.organs.get(name, [])]
    area = np.array([organ.across * organ.down for organ in homes])
    return homes[int(rng.choice(len(homes), p=area / area.sum()))]


def _within(rng: Rng, home: Outline, size: float) -> tuple[float, float]:
    """A point of the organ at which the lesion mostly lies within it."""
    room = max(1 - 0.5 * size / min(home.across, home.down), 0.1)
    radius, angle = 0.92 * room * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    u, v = home.across * radius * np.cos(angle), home.down * radius * np.sin(angle)
    x = home.column + u * np.cos(home.tilt) - v * np.sin(home.tilt)
    return float(x), float(home.row + u * np.sin(home.tilt) + v * np.cos(home.tilt))


def _in_the_wall(rng: Rng, drawn: Drawn, size: float) -> tuple[float, float, float]:
    """A point in the muscle or the fat around the trunk, and a size that fits there."""
    size = min(size, 0.9 * drawn.body.fat_mm + 18)
    reach = rng.uniform(0.86, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    return float(drawn.a * reach * np.cos(angle)), float(drawn.b * reach * np.sin(angle)), size


def _level(rng: Rng, drawn: Drawn, lesion_type: int, *, clear: float) -> float:
    """HU inside, around what the type has."""
    contrast = drawn.body.contrast
    match lesion_type:
        case 1:
            middle = float(rng.choice([60.0, 620.0], p=[0.6, 0.4]))
            return float(210 + clear * (middle - 210) + rng.normal(0, 40))
        case 4:
            middle = float(rng.choice([-38.0, 30.0], p=[0.85, 0.15])) * (0.5 + 0.5 * contrast)
            return float(58 + 50 * contrast + clear * middle + rng.normal(0, 9))
        case 6:
            middle = float(rng.choice([8.0, 40 + 35 * contrast], p=[0.55, 0.45]))
            around = 35 + 125 * contrast
            return float(around + clear * (middle - around) + rng.normal(0, 8))
        case 5:
            return float(rng.normal(20, 25))
        case _:
            return float(45 + 30 * contrast * rng.uniform(0, 1) + rng.normal(0, 12))


def _ends(lesion: Outline, spacing_mm: float) -> tuple[tuple[float, float], ...]:
    """Ends of the lesion along its two axes, (column, row) in px."""
    ends = []
    for axis in (0.0, np.pi, np.pi / 2, 3 * np.pi / 2):
        reach = float(lesion.modulation[round(axis / (2 * np.pi) * ANGLES) % ANGLES])
        u, v = reach * lesion.across * np.cos(axis), reach * lesion.down * np.sin(axis)
        x = lesion.column + u * np.cos(lesion.tilt) - v * np.sin(lesion.tilt)
        y = lesion.row + u * np.sin(lesion.tilt) + v * np.cos(lesion.tilt)
        ends.append((float(x / spacing_mm + SIDE / 2), float(y / spacing_mm + SIDE / 2)))
    return tuple(ends)
