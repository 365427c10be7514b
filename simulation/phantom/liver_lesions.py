"""A focal lesion in a liver: hepatocellular carcinoma or hemangioma.

A carcinoma is a mosaic of darker and brighter parts with an uneven border and often a dark halo, in a scarred liver; a
hemangioma is even and bright with a sharp border. Neither always: small carcinomas are bright, a fifth of hemangiomas
are dark inside a bright rim. Levels in dB relative to the liver.
Source: Bartolotta, Taibbi, Midiri and Lagalla, "Focal liver lesions", Cancer Imaging 9 (2009), for the signs.
"""

from __future__ import annotations

__all__ = ["LesionLook", "add_lesion", "draw_lesion_look"]

from dataclasses import dataclass

import numpy as np

from simulation.phantom.liver import LiverScene
from simulation.phantom.outline import Outline, harmonics, inside
from simulation.phantom.texture import smooth_field

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class LesionLook:
    """How one lesion looks. size_mm: largest diameter. level_db: against the liver. mosaic_db: unevenness inside.

    rim_db: of the border zone, dark halo below 0. roughness: of the border, share of the radius. blur_mm: its width.
    behind_db: attenuation that is missing (> 0) or added inside, dB/cm/MHz.
    """

    size_mm: float
    level_db: float
    mosaic_db: float
    rim_db: float
    roughness: float
    blur_mm: float
    behind_db: float


TYPICAL = LesionLook(size_mm=25, level_db=2.0, mosaic_db=2.4, rim_db=-1.5, roughness=0.06, blur_mm=1.2, behind_db=0.07)
"""What both classes come near to where visibility falls."""


def draw_lesion_look(rng: Rng, *, carcinoma: bool, clear: float) -> LesionLook:
    """One lesion's look. clear: 0 both classes look alike, 1 as in a textbook."""
    atypical = rng.uniform() < 0.22
    if carcinoma:
        size = 26 * np.exp(rng.normal(0, 0.4))
        level = rng.normal(5, 2) if atypical else rng.normal(-5, 3)
        means = (level, 4.2, -5.0 * (rng.uniform() < 0.65), 0.11, 1.6, 0.03)
    else:
        size = 22 * np.exp(rng.normal(0, 0.4))
        level = rng.normal(-3, 2) if atypical else rng.normal(7.5, 2)
        means = (level, 1.4, 7.0 if atypical else 0.0, 0.045, 0.8, 0.13)
    typical = (2.0, 2.4, -1.5, 0.06, 1.2, 0.07)
    spread = (2.5, 0.9, 1.5, 0.02, 0.4, 0.06)
    level, mosaic, rim, roughness, blur, behind = (
        float(middle + clear * (mean - middle) + rng.normal(0, width))
        for mean, middle, width in zip(means, typical, spread, strict=True)
    )
    return LesionLook(
        size_mm=float(np.clip(size, 8, 75)),
        level_db=level,
        mosaic_db=max(mosaic, 0.6),
        rim_db=rim,
        roughness=max(roughness, 0.02),
        blur_mm=max(blur, 0.5),
        behind_db=behind,
    )


def add_lesion(rng: Rng, scene: LiverScene, look: LesionLook) -> Outline:
    """Draw the lesion into the parenchyma in place and return its outline in mm: row is z, column is x."""
    x, z = scene.sector.points()
    outline = _outline(rng, scene, look)
    gap = outline.distance_at(z, x)
    share = inside(gap, width_px=look.blur_mm)
    mid = float(scene.sector.beam_mm().mean())
    patch = float(np.clip(0.16 * look.size_mm, 2, 6))
    patches = smooth_field(
        rng, scene.sector.shape, rows_px=patch / scene.sector.sample_mm, columns_px=1.2 * patch / mid
    )
    middle = float(np.median(scene.echo_db[scene.liver > 0.9]))
    scene.echo_db[:] += share * (
        np.float32(middle + look.level_db) + np.float32(look.mosaic_db) * patches - scene.echo_db
    )
    ring = np.exp(-(((gap + np.float32(0.8)) / np.float32(1.6 + 0.02 * look.size_mm)) ** 2))
    scene.echo_db[:] += np.float32(look.rim_db) * ring
    scene.excess[:] -= np.float32(look.behind_db) * share
    return outline


def _outline(rng: Rng, scene: LiverScene, look: LesionLook) -> Outline:
    """A place where the lesion lies wholly within the liver, or the best of some tries."""
    x, z = scene.sector.points()
    ratio = float(rng.uniform(0.72, 1.0))
    across = look.size_mm / 2
    modulation = np.float32(1) + harmonics(rng, orders=range(2, 12), amplitude=look.roughness, decay=0.6)
    best, held = None, -1.0
    for _ in range(12):
        row, column = float(rng.uniform(32, 100)), float(rng.normal(0, 24))
        near = (np.abs(z - np.float32(row)) < across) & (np.abs(x - np.float32(column)) < across)
        within = float(scene.liver[near].mean()) if near.any() else 0.0
        # A lesion that leaves the sector meets fewer samples than its area holds.
        if within > held and abs(column) + across < (row + scene.sector.radius_mm) * np.tan(scene.sector.half_angle):
            best, held = (row, column), within
        if held > 0.97:
            break
    row, column = best or (65.0, 0.0)
    return Outline(row, column, across, across * ratio, float(rng.normal(0, 0.3)), np.maximum(modulation, 0.4))
