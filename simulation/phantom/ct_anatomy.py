"""Axial sections through chest, abdomen and pelvis, and where in them a lesion of each type lies.

Organs are outlines in mm with plausible attenuation; a section remembers those that hold lesions.
"""

from __future__ import annotations

__all__ = ["SECTIONS", "Body", "Drawn", "Section", "draw_section", "section_of"]

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simulation.phantom.ct import SIDE, Canvas
from simulation.phantom.outline import ANGLES, Outline, harmonics
from simulation.phantom.physics import FloatImage
from simulation.phantom.texture import smooth_field

Rng = np.random.Generator
Section = Literal["hilum", "heart", "liver", "kidneys", "pelvis"]
SECTIONS: tuple[Section, ...] = ("hilum", "heart", "liver", "kidneys", "pelvis")
FAT, MUSCLE, WATER = -100.0, 52.0, 5.0


@dataclass(frozen=True, slots=True)
class Body:
    """A person and a study. width_mm, height_mm: of the trunk. fat_mm: beneath the skin. contrast: 0 none to 1.5."""

    width_mm: float
    height_mm: float
    fat_mm: float
    contrast: float


@dataclass(slots=True)
class Drawn:
    """A canvas, a body's half-axes within the fat, and the organs by name."""

    canvas: Canvas
    body: Body
    a: float
    b: float
    texture: FloatImage
    organs: dict[str, list[Outline]] = field(default_factory=dict)

    def add(
        self, rng: Rng, name: str, hu: float, x: float, y: float, across: float, down: float,
        *, rough: float = 0.04, tilt: float = 0.0, edge_mm: float = 0.9,
    ) -> Outline:  # fmt: skip
        """Paint an organ at (x, y), in mm, somewhat out of round, and remember it."""
        modulation = np.ones(ANGLES, np.float32)
        if rough:
            modulation = np.maximum(modulation + harmonics(rng, orders=range(2, 9), amplitude=rough), np.float32(0.5))
        organ = Outline(y, x, across, down, tilt, modulation)
        self.canvas.paint(organ, hu, edge_mm=edge_mm, texture=self.texture)
        self.organs.setdefault(name, []).append(organ)
        return organ


def section_of(rng: Rng, lesion_type: int) -> Section:
    """A section in which a lesion of the type, 1 to 8, is found."""
    match lesion_type:
        case 3:
            return "hilum"
        case 4:
            return "liver"
        case 6:
            return "kidneys"
        case 8:
            return "pelvis"
        case 5:
            return SECTIONS[int(rng.integers(0, 2))]
        case 2:
            return SECTIONS[int(rng.integers(2, 4))]
        case _:
            return SECTIONS[int(rng.integers(len(SECTIONS)))]


def draw_section(rng: Rng, section: Section, body: Body, *, spacing_mm: float, table: bool) -> Drawn:
    """Paint one section of a body."""
    canvas = Canvas(spacing_mm=spacing_mm)
    a, b = body.width_mm / 2, body.height_mm / 2
    texture = np.float32(5) * smooth_field(rng, (SIDE, SIDE), rows_px=5, columns_px=6)
    drawn = Drawn(canvas, body, a - body.fat_mm, b - body.fat_mm * 0.8, texture)
    shape = 1 + harmonics(rng, orders=range(2, 5), amplitude=0.012)
    if table:
        _couch(canvas, b)
    trunk = Outline(0, 0, a, b, 0, (_squarish() * shape).astype(np.float32))
    canvas.paint_layers(trunk, [(0, 20.0), (2, FAT)], edge_mm=0.8, texture=texture)
    bumps = 1 + harmonics(rng, orders=range(2, 9), amplitude=0.01)
    wall = Outline(1.5, 0, drawn.a, drawn.b, 0, (_squarish() * bumps).astype(np.float32))
    canvas.paint_layers(wall, [(0, MUSCLE), (6, -40.0), (8, MUSCLE)], edge_mm=1.0, texture=np.float32(2.5) * texture)
    drawn.organs |= {"trunk": [trunk], "wall": [wall]}
    match section:
        case "hilum" | "heart":
            _chest(rng, drawn, heart=section == "heart")
        case "liver" | "kidneys":
            _abdomen(rng, drawn, low=section == "kidneys")
        case "pelvis":
            _pelvis(rng, drawn)
    return drawn


def _squarish() -> FloatImage:
    """(ANGLES,) factor that makes an ellipse the shape of a trunk."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    return np.asarray((np.abs(np.cos(angle)) ** 2.3 + np.abs(np.sin(angle)) ** 2.3) ** (-1 / 2.3), dtype=np.float32)


def _couch(canvas: Canvas, b: float) -> None:
    """Paint the table's upper shell below the body."""
    at = ((np.arange(SIDE) - SIDE / 2) * canvas.spacing_mm).astype(np.float32)
    rows, columns = np.flatnonzero(at > b - 60), np.flatnonzero(np.abs(at) < 200)
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    gap = np.hypot(at[rows, None] - np.float32(b - 290), at[None, columns]) - np.float32(310)
    canvas.hu[window] += np.float32(900) * np.exp(-((gap / np.float32(1.2)) ** 2))


def _bone(rng: Rng, drawn: Drawn, x: float, y: float, across: float, down: float, *, tilt: float = 0.0) -> None:
    """A bone: a dense shell, marrow within."""
    drawn.add(rng, "bone", float(rng.normal(620, 60)), x, y, across, down, rough=0.05, tilt=tilt, edge_mm=0.7)
    shell = min(2.2, 0.4 * min(across, down))
    drawn.add(
        rng, "marrow", float(rng.normal(210, 40)), x, y, across - shell, down - shell, rough=0.05, tilt=tilt,
        edge_mm=1.0,
    )  # fmt: skip


def _spine(rng: Rng, drawn: Drawn, *, y: float, size: float = 1.0) -> None:
    """A vertebra with its arch and processes, and the muscles beside it."""
    for side in (-1, 1):
        drawn.add(rng, "muscle", MUSCLE + 8, side * 30 * size, y + 26, 24 * size, 17, rough=0.06, tilt=side * 0.2)
        _bone(rng, drawn, side * 19 * size, y + 20, 15, 4.5, tilt=side * 0.35)
    _bone(rng, drawn, 0, y + 36, 3.5, 15)
    drawn.add(rng, "arch", 560, 0, y + 17, 14, 11)
    drawn.add(rng, "canal", 30, 0, y + 16, 9, 8)
    _bone(rng, drawn, 0, y, 20 * size, 15 * size)


def _ribs(rng: Rng, drawn: Drawn, *, scale: float, number: int) -> None:
    """Cross-sections of ribs around the wall."""
    for angle in np.linspace(-0.25, np.pi + 0.25, number) + rng.normal(0, 0.06, number):
        for side in (-1, 1):
            x, y = side * scale * drawn.a * abs(np.sin(angle)), -scale * drawn.b * np.cos(angle)
            if abs(x) > 34:
                tilt = float(np.arctan2(scale * drawn.b * np.sin(angle), side * scale * drawn.a * np.cos(angle)))
                _bone(rng, drawn, x, y, float(rng.uniform(6, 13)), float(rng.uniform(3.2, 4.5)), tilt=tilt)


def _chest(rng: Rng, drawn: Drawn, *, heart: bool) -> None:
    a, b, blood = drawn.a, drawn.b, 42 + 130 * drawn.body.contrast
    spine = 0.52 * b
    for side in (-1, 1):
        drawn.add(
            rng, "lung", float(rng.normal(-845, 25)), side * 0.47 * a, -0.03 * b, 0.39 * a, 0.72 * b,
            rough=0.04, tilt=side * -0.12, edge_mm=1.2,
        )  # fmt: skip
        drawn.add(rng, "scapula", MUSCLE, side * 0.72 * a, 0.62 * b, 0.16 * a, 0.12 * b, tilt=side * -0.5)
    _lung_vessels(rng, drawn)
    drawn.add(rng, "mediastinum", -75, 0, -0.12 * b, 0.17 * a, 0.62 * b, rough=0.06)
    _spine(rng, drawn, y=spine)
    _ribs(rng, drawn, scale=0.90, number=8)
    _bone(rng, drawn, 0, -0.84 * b, 17, 6)
    drawn.add(rng, "vessel", blood, 0.13 * a, spine - 10, 12, 12, rough=0.02)
    if heart:
        drawn.add(rng, "heart", 45 + 0.55 * (blood - 42), 0.16 * a, -0.26 * b, 0.34 * a, 0.40 * b, tilt=0.5)
        for x, y in ((0.0, -0.3), (0.22, -0.12), (-0.06, -0.02)):
            drawn.add(rng, "chamber", blood, x * a, y * b, 0.13 * a, 0.15 * b, rough=0.1, tilt=0.5, edge_mm=5)
    else:
        drawn.add(rng, "vessel", blood, -0.06 * a, -0.32 * b, 15, 16, rough=0.03)
        drawn.add(rng, "vessel", blood + 25, -0.17 * a, -0.25 * b, 8, 9, rough=0.05)
        drawn.add(rng, "vessel", blood, 0.10 * a, -0.18 * b, 20, 10, rough=0.06, tilt=-0.4)
        drawn.add(rng, "airway", -980, 0.0, 0.05 * b, 8, 8.5, rough=0.02, edge_mm=1.0)
    drawn.add(rng, "esophagus", 38, 0.04 * a, 0.24 * b, 7, 5)


def _lung_vessels(rng: Rng, drawn: Drawn) -> None:
    """Cut vessels in the lungs, larger and closer together towards the hilum."""
    for lung in drawn.organs["lung"]:
        side = np.sign(lung.column)
        for _ in range(34):
            away = float(rng.beta(1.1, 1.5))
            x = lung.column + side * lung.across * (1.5 * away - 0.72)
            y = lung.row + lung.down * float(rng.normal(0.05, 0.3))
            radius = float(rng.uniform(0.8, 1.4) + 2.6 * max(0.35 - away, 0))
            drawn.add(
                rng, "lung vessel", float(rng.uniform(-120, 60)), x, y, radius * float(rng.uniform(1, 2.4)), radius,
                rough=0, tilt=float(rng.uniform(0, np.pi)),
            )  # fmt: skip


def _abdomen(rng: Rng, drawn: Drawn, *, low: bool) -> None:
    a, b, contrast = drawn.a, drawn.b, drawn.body.contrast
    blood, spine = 42 + 130 * contrast, 0.46 * b
    drawn.add(rng, "cavity", FAT + 2, 0, -0.04 * b, 0.91 * a, 0.88 * b, rough=0.02)
    _spine(rng, drawn, y=spine, size=1.1)
    _ribs(rng, drawn, scale=0.94, number=6)
    for side in (-1, 1):
        drawn.add(rng, "psoas", MUSCLE + 8, side * 32, spine + 2, 13, 16, rough=0.05)
    if not low:
        liver = 58 + 50 * contrast
        drawn.add(rng, "liver", liver, -0.43 * a, -0.10 * b, 0.43 * a, 0.62 * b, rough=0.05, tilt=0.12)
        drawn.add(rng, "liver", liver, -0.06 * a, -0.45 * b, 0.34 * a, 0.24 * b, rough=0.06, tilt=0.1)
        drawn.add(rng, "spleen", 52 + 65 * contrast, 0.68 * a, 0.20 * b, 0.15 * a, 0.38 * b, rough=0.05, tilt=0.35)
        drawn.add(rng, "stomach", float(rng.uniform(10, 60)), 0.38 * a, -0.32 * b, 0.24 * a, 0.26 * b, rough=0.08)
        drawn.add(rng, "gas", -850, 0.38 * a, -0.47 * b, 0.13 * a, 0.08 * b, rough=0.1)
        for _ in range(7):
            x, y = -0.42 * a + rng.normal(0, 0.17 * a), -0.10 * b + rng.normal(0, 0.22 * b)
            drawn.add(
                rng, "liver vessel", liver + 45 * contrast + 4, x, y, float(rng.uniform(3, 12)),
                float(rng.uniform(1.5, 3)), tilt=float(rng.uniform(0, np.pi)), edge_mm=1.5,
            )  # fmt: skip
    if low or rng.uniform() < 0.6:
        for side in (-1, 1):
            _kidney(rng, drawn, side)
    drawn.add(rng, "pancreas", 45 + 45 * contrast, 0.08 * a, -0.06 * b, 0.24 * a, 0.08 * b, rough=0.16, tilt=-0.3)
    drawn.add(rng, "vessel", blood, 0.05 * a, spine - 29, 10, 10, rough=0.02)
    drawn.add(rng, "vessel", 42 + 90 * contrast, -0.13 * a, spine - 27, 12, 9, rough=0.05)
    _bowel(rng, drawn, number=11 if low else 4, area=(0.0, -0.3, 0.6, 0.3) if low else (0.25, 0.0, 0.3, 0.12))


def _kidney(rng: Rng, drawn: Drawn, side: int) -> None:
    x, y = side * 0.46 * drawn.a, 0.36 * drawn.b + side * 4
    cortex = 35 + 125 * drawn.body.contrast
    drawn.add(rng, "kidney", cortex, x, y, 26, 31, rough=0.04, tilt=side * -0.35)
    drawn.add(rng, "sinus", -40, x - side * 9, y - 3, 11, 10, rough=0.15, edge_mm=3)


def _bowel(rng: Rng, drawn: Drawn, *, number: int, area: tuple[float, float, float, float]) -> None:
    """Loops with an enhancing wall and fluid, food or gas within. area: middle and spread, shares of the half-axes."""
    x, y, wide, high = area
    for _ in range(number):
        at = (x + wide * rng.uniform(-1, 1)) * drawn.a, (y + high * rng.uniform(-1, 1)) * drawn.b
        size = float(rng.uniform(9, 17)), float(rng.uniform(8, 13))
        tilt = float(rng.uniform(0, np.pi))
        drawn.add(rng, "bowel", 45 + 45 * drawn.body.contrast, *at, *size, rough=0.08, tilt=tilt)
        within = float(rng.choice([15.0, 35.0, 180.0, -750.0], p=[0.45, 0.25, 0.15, 0.15]))
        drawn.add(rng, "lumen", within, *at, size[0] - 2.5, size[1] - 2.5, rough=0.1, tilt=tilt)


def _pelvis(rng: Rng, drawn: Drawn) -> None:
    a, b, contrast = drawn.a, drawn.b, drawn.body.contrast
    drawn.add(rng, "fat", FAT, 0, -0.06 * b, 0.93 * a, 0.88 * b, rough=0.015)
    drawn.add(rng, "wall muscle", MUSCLE, 0, -0.74 * b, 0.5 * a, 0.06 * b)
    for side in (-1, 1):
        drawn.add(rng, "gluteus", MUSCLE, side * 0.52 * a, 0.55 * b, 0.40 * a, 0.30 * b, rough=0.05, tilt=side * -0.35)
        drawn.add(rng, "iliacus", MUSCLE, side * 0.52 * a, -0.02 * b, 0.15 * a, 0.38 * b, tilt=side * -0.15)
        _bone(rng, drawn, side * 0.62 * a, 0.16 * b, 8, 0.42 * b, tilt=side * 0.35)
        drawn.add(rng, "vessel", 42 + 120 * contrast, side * 0.36 * a, -0.18 * b, 6, 6)
        drawn.add(rng, "vessel", 42 + 60 * contrast, side * 0.35 * a, -0.06 * b, 7, 6)
    _bone(rng, drawn, 0, 0.62 * b, 0.26 * a, 0.13 * b)
    drawn.add(rng, "cavity", FAT + 4, 0, -0.05 * b, 0.34 * a, 0.5 * b, rough=0.03)
    _bowel(rng, drawn, number=7, area=(0.0, -0.35, 0.3, 0.25))
    if rng.uniform() < 0.6:
        drawn.add(rng, "bladder wall", 50, 0, -0.22 * b, 0.24 * a, 0.25 * b, rough=0.03)
        drawn.add(rng, "bladder", WATER, 0, -0.22 * b, 0.24 * a - 3, 0.25 * b - 3, rough=0.03)
    drawn.add(rng, "rectum", 45, 0, 0.34 * b, 15, 13, rough=0.06)
    drawn.add(rng, "gas", -800, 0, 0.33 * b, 6, 5, rough=0.1)
