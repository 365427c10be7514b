"""A liver as a convex probe sees it: body wall, parenchyma, vessels, right kidney, gallbladder, diaphragm.

Fat in the liver shows in the four ways that readers grade it by: the liver grows brighter than the kidney, the deep
part grows dark because fat attenuates, and the walls of vessels and the diaphragm blur. Fibrosis makes the texture
coarse and the surface uneven. Levels in dB of amplitude, 0 dB being a liver without fat; attenuation in dB/cm/MHz.

Sources: Hamaguchi et al., Am J Gastroenterol 102 (2007), for the signs; Ferraioli and Soares Monteiro, World J
Gastroenterol 25 (2019), for attenuation from some .5 without fat to .9 with much.
"""

from __future__ import annotations

__all__ = ["VIEWS", "LiverLook", "LiverScene", "View", "draw_liver"]

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulation.phantom.outline import Outline, blob, harmonics, inside
from simulation.phantom.physics import FloatImage, Tissue
from simulation.phantom.sector import Sector
from simulation.phantom.texture import smooth_curve, smooth_field

Rng = np.random.Generator
View = Literal["kidney", "veins", "gallbladder", "plain"]
VIEWS: tuple[View, ...] = ("kidney", "veins", "gallbladder")

ECHO_PER_FAT = 20.0
"""dB of echo for a liver that were fat alone."""
ATTENUATION_PER_FAT = 0.75
"""dB/cm/MHz, one way."""


@dataclass(frozen=True, slots=True)
class LiverLook:
    """How a person's liver looks.

    fat: share of fat that shows, 0 to .5. fibrosis: 0 none to 1 cirrhosis. wall_mm: skin to liver. build: enlarges or
    shrinks everything. kidney_db: level of the renal cortex.
    """

    fat: float
    fibrosis: float
    wall_mm: float
    build: float
    kidney_db: float


@dataclass(frozen=True, slots=True)
class LiverScene:
    """A liver's tissue on the polar grid of `sector`. liver: share of each sample that is parenchyma."""

    echo_db: FloatImage
    excess: FloatImage
    liver: FloatImage
    sector: Sector

    def tissue(self) -> Tissue:
        """The scene as a machine takes it."""
        return Tissue(self.echo_db, self.excess, np.empty((0, 3)))


def draw_liver(rng: Rng, look: LiverLook, sector: Sector, *, view: View) -> LiverScene:
    """One plane through a liver."""
    x, z = sector.points()
    clear = float(np.clip(1 - 1.7 * look.fat, 0.12, 1))
    echo = np.float32(ECHO_PER_FAT * look.fat) + _parenchyma(rng, look, sector)
    excess = np.full(sector.shape, ATTENUATION_PER_FAT * look.fat, dtype=np.float32)
    liver = np.ones(sector.shape, dtype=np.float32)
    _vessels(rng, echo, x, z, look, clear=clear, large=view == "veins")
    match view:
        case "kidney":
            _kidney(rng, echo, excess, liver, sector, look)
        case "gallbladder":
            _gallbladder(rng, echo, excess, liver, x, z, look)
        case "veins" | "plain":
            pass
    _diaphragm(rng, echo, excess, liver, sector, look, clear=clear, near=view == "veins")
    _wall(rng, echo, excess, liver, sector, look)
    return LiverScene(echo, excess, liver, sector)


def _parenchyma(rng: Rng, look: LiverLook, sector: Sector) -> FloatImage:
    """(samples, beams) variation of level: fine, coarser and stronger with fibrosis."""
    mid = float(sector.beam_mm().mean())
    size = 2.5 + 3.0 * look.fibrosis
    fine = smooth_field(rng, sector.shape, rows_px=size / sector.sample_mm, columns_px=1.3 * size / mid)
    broad = smooth_field(rng, sector.shape, rows_px=25 / sector.sample_mm, columns_px=30 / mid)
    return np.float32(0.4 + 3.6 * look.fibrosis) * fine + np.float32(0.9) * broad


def _vessels(
    rng: Rng, echo: FloatImage, x: FloatImage, z: FloatImage, look: LiverLook, *, clear: float, large: bool
) -> None:
    """Draw veins in place: hepatic ones without a wall that shows, portal ones with a bright wall."""
    for _ in range(int(rng.integers(3, 8))):
        start = rng.uniform(-75, 75), rng.uniform(40, 120)
        portal = rng.uniform() < 0.5
        _tube(
            rng, echo, x, z, start, turn=float(rng.uniform(0, np.pi)), length=float(rng.uniform(8, 30)),
            width=float(rng.uniform(1.3, 3.0)), wall_db=(8.0 if portal else 2.0) * clear, clear=clear,
        )  # fmt: skip
    if large:
        junction = rng.uniform(-20, 20), look.build * rng.uniform(95, 115)
        for turn in rng.uniform(0.2, 0.9) * np.array([-1, 1]) + rng.normal(0, 0.15, 2) - np.pi / 2:
            _tube(
                rng, echo, x, z, junction, turn=float(turn), length=float(rng.uniform(45, 70)),
                width=float(rng.uniform(3.5, 5.5)), wall_db=2.5 * clear, clear=clear,
            )  # fmt: skip


def _tube(
    rng: Rng, echo: FloatImage, x: FloatImage, z: FloatImage, start: tuple[float, float],
    *, turn: float, length: float, width: float, wall_db: float, clear: float,
) -> None:  # fmt: skip
    """Draw a bent vessel of half-width `width` mm in place, thinner towards its end."""
    u = (x - np.float32(start[0])) * np.float32(np.cos(turn)) + (z - np.float32(start[1])) * np.float32(np.sin(turn))
    v = (z - np.float32(start[1])) * np.float32(np.cos(turn)) - (x - np.float32(start[0])) * np.float32(np.sin(turn))
    along = np.clip(u, 0, np.float32(length))
    bend = np.float32(rng.normal(0, 0.35) / length) * along * along
    gap = np.hypot(v - bend, u - along) - np.float32(width) * (1 - np.float32(0.4 / length) * along)
    blur = 0.8 + 2.2 * (1 - clear)
    lumen = inside(gap, width_px=blur)
    echo -= np.float32(5 + 13 * clear) * lumen
    echo += np.float32(wall_db) * np.exp(-(((gap - np.float32(0.9)) / np.float32(blur)) ** 2))


def _kidney(rng: Rng, echo: FloatImage, excess: FloatImage, liver: FloatImage, sector: Sector, look: LiverLook) -> None:
    """Draw the right kidney in place: a darker cortex, dark pyramids, a bright sinus, a thin rim of fat."""
    x, z = sector.points()
    size = look.build * rng.uniform(0.9, 1.1)
    kidney = Outline(
        row=look.wall_mm + float(rng.uniform(58, 74)) * look.build,
        column=float(rng.uniform(0, 32)),
        across=50 * size,
        down=24 * size,
        tilt=float(rng.normal(0.15, 0.12)),
        modulation=np.float32(1) + harmonics(rng, orders=range(2, 6), amplitude=0.03),
    )
    gap = kidney.distance_at(z, x)
    share = inside(gap, width_px=1.0)
    behind = inside(np.float32(kidney.row) + np.float32(0.12) * (x - np.float32(kidney.column)) - z, width_px=14)
    mid = float(sector.beam_mm().mean())
    bed = np.float32(3) * smooth_field(rng, sector.shape, rows_px=2.5 / sector.sample_mm, columns_px=9 / mid)
    echo += behind * (np.float32(look.kidney_db + 5) + bed - echo)
    echo += share * (np.float32(look.kidney_db) - echo)
    echo += np.float32(9) * np.exp(-(((gap - np.float32(1.3)) / np.float32(1.1)) ** 2))
    u = kidney.across * 0.62 * np.linspace(-0.9, 0.9, 5)
    for at in u:
        for side in (-1, 1):
            down = side * kidney.down * 0.52 * np.sqrt(1 - (at / kidney.across) ** 2)
            row = kidney.row + at * np.sin(kidney.tilt) + down
            pyramid = blob(rng, row=row, column=kidney.column + at, across=5.5 * size, down=4.5 * size)
            echo -= np.float32(5) * inside(pyramid.distance_at(z, x), width_px=2)
    sinus = Outline(
        row=kidney.row, column=kidney.column, across=kidney.across * 0.6, down=kidney.down * 0.36,
        tilt=kidney.tilt, modulation=np.float32(1) + harmonics(rng, orders=range(2, 10), amplitude=0.12, decay=0.7),
    )  # fmt: skip
    echo += np.float32(13) * inside(sinus.distance_at(z, x), width_px=3)
    outside = np.maximum(share, behind)
    excess *= 1 - outside
    liver *= 1 - outside


def _gallbladder(
    rng: Rng, echo: FloatImage, excess: FloatImage, liver: FloatImage, x: FloatImage, z: FloatImage, look: LiverLook
) -> None:
    """Draw the gallbladder in place: free of echoes, a bright wall, enhancement behind."""
    place = Outline(
        row=look.wall_mm + float(rng.uniform(40, 60)) * look.build,
        column=float(rng.uniform(-25, 30)),
        across=float(rng.uniform(20, 32)),
        down=float(rng.uniform(9, 14)),
        tilt=float(rng.uniform(0.2, 1.0)),
        modulation=np.float32(1) + harmonics(rng, orders=range(1, 4), amplitude=0.08),
    )
    gap = place.distance_at(z, x)
    share = inside(gap, width_px=1.0)
    echo += share * (np.float32(-34) - echo)
    echo += np.float32(6) * np.exp(-(((gap - np.float32(0.8)) / np.float32(0.9)) ** 2))
    excess -= np.float32(0.55) * share
    liver *= 1 - share


def _diaphragm(
    rng: Rng, echo: FloatImage, excess: FloatImage, liver: FloatImage, sector: Sector, look: LiverLook,
    *, clear: float, near: bool,
) -> None:  # fmt: skip
    """Draw the diaphragm in place, an arc below the liver, with lung or its mirror image beyond."""
    x, z = sector.points()
    depth = look.wall_mm + look.build * (rng.uniform(100, 118) if near else rng.uniform(122, 140))
    center, radius = rng.uniform(-30, 10), rng.uniform(110, 150)
    gap = np.hypot(x - np.float32(center), z - np.float32(depth - radius)) - np.float32(radius)
    line = np.float32(4 + 18 * clear) * np.exp(-((gap / np.float32(1.0 + 2.0 * (1 - clear))) ** 2))
    beyond = inside(-gap, width_px=2.0)
    level = np.float32(rng.uniform(-14, -6)) + np.float32(0.05) * (-gap)
    echo += beyond * (level - echo) + line
    excess *= 1 - beyond
    liver *= 1 - beyond


def _wall(rng: Rng, echo: FloatImage, excess: FloatImage, liver: FloatImage, sector: Sector, look: LiverLook) -> None:
    """Draw skin, fat, muscle and the liver's capsule in place; fibrosis makes the capsule uneven."""
    mid = float(sector.beam_mm()[: sector.samples // 4].mean())
    uneven = smooth_curve(rng, sector.beams, scale_px=8 / mid) * np.float32(0.3 + 1.2 * look.fibrosis)
    bend = smooth_curve(rng, sector.beams, scale_px=50 / mid) * np.float32(1.2)
    # The wall follows the array's curve, so it is measured along the beam.
    along = sector.sample_mm * (np.arange(sector.samples, dtype=np.float32)[:, None] + np.float32(0.5))
    depth = along - (bend + uneven)[None, :]
    within = inside(depth - np.float32(look.wall_mm), width_px=0.8)
    streaks = smooth_field(rng, sector.shape, rows_px=0.9 / sector.sample_mm, columns_px=14 / mid)
    layers = np.float32(-5) + np.float32(5) * streaks
    muscle = inside(np.float32(0.6 * look.wall_mm) - depth, width_px=1.0)
    layers += muscle * np.float32(rng.uniform(0, 5))
    for share in (0.6, 1.0):
        layers += np.float32(10) * np.exp(-(((depth - np.float32(share * look.wall_mm)) / np.float32(0.7)) ** 2))
    layers += np.float32(12) * np.exp(-((along / np.float32(2.2)) ** 4))
    echo += within * (layers - echo)
    echo += np.float32(7) * np.exp(-(((depth - np.float32(look.wall_mm)) / np.float32(0.9)) ** 2))
    excess *= 1 - within
    liver *= 1 - within
