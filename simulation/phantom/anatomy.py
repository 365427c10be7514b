"""A lymph node and its surroundings, from semantic features to a map of tissue.

Each feature is drawn into the picture as a sonographer would point at it. `visibility` says how clearly: at 1 as in a
textbook, at 0 not at all. Real nodes lie in between, since the saved picture is one plane of many, the hilum may lie
outside it, and calcifications hide in speckle.
"""

from __future__ import annotations

__all__ = ["DrawnNode", "draw_node"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.features import NodeFeatures
from simulation.phantom.outline import Outline, blob, harmonics, inside
from simulation.phantom.physics import FloatImage, Tissue
from simulation.phantom.surroundings import add_vessel, layered_tissue
from simulation.phantom.texture import smooth_field

TYPICAL_ASPECT = 0.52
"""Aspect ratio that the picture tends to where visibility falls: a node cut obliquely."""
CORTEX_DB = {"hypoechoic": -13.0, "isoechoic": -5.0, "hyperechoic": 2.0}
TYPICAL_CORTEX_DB = -10.0


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A node as drawn: its tissue, its mask, and the values that were put into the picture.

    mask: (H, W) bool. pixel_mm: size of a pixel. values: name → number, for `truth.csv`.
    """

    tissue: Tissue
    mask: NDArray[np.bool_]
    pixel_mm: float
    values: dict[str, float]


def draw_node(
    rng: np.random.Generator, features: NodeFeatures, shape: tuple[int, int], *, pixel_mm: float, visibility: float
) -> DrawnNode:
    """Draw one node near the middle of a frame of `shape`.

    pixel_mm is enlarged where the node would not fit. visibility: in [0, 1] and a little beyond.
    """
    clear = visibility * rng.uniform(0.5, 1.5)
    aspect = TYPICAL_ASPECT + clear * (features.aspect - TYPICAL_ASPECT) + rng.normal(0, 0.09)
    aspect = float(np.clip(aspect, 0.22, 0.95))
    pixel_mm = max(pixel_mm, features.max_mm / (0.82 * shape[1]), features.max_mm * aspect / (0.72 * shape[0]))
    outline = _outline(rng, features, shape, pixel_mm=pixel_mm, aspect=aspect, visibility=clear)
    distance = outline.distance(shape)
    mask = distance < 0

    echo = layered_tissue(rng, shape, pixel_mm=pixel_mm, layers=int(rng.integers(3, 7)))
    excess = np.zeros(shape, dtype=np.float32)
    if rng.uniform() < 0.35:
        side = rng.choice([0.08, 0.92])
        add_vessel(rng, echo, excess, pixel_mm=pixel_mm, row=shape[0] * rng.uniform(0.55, 0.95), column=shape[1] * side)

    blur = 0.25 + (1.6 * clear * features.ill_defined_margin) + abs(rng.normal(0, 0.25))
    cortex_db = TYPICAL_CORTEX_DB + clear * (CORTEX_DB[features.echo] - TYPICAL_CORTEX_DB) + rng.normal(0, 2.0)
    level = np.float32(cortex_db) + _echo_pattern(rng, features, shape, pixel_mm=pixel_mm, visibility=clear)
    hilum_db = _add_hilum(rng, level, features, outline, pixel_mm=pixel_mm, visibility=clear)
    _add_fluid(rng, level, excess, features, outline, pixel_mm=pixel_mm, visibility=clear)
    echo += inside(distance, width_px=blur / pixel_mm) * (level - echo)
    _add_capsule(rng, echo, distance, pixel_mm=pixel_mm, strength=rng.uniform(2, 6) / (1 + 2 * blur))
    excess += np.float32(rng.normal(0, 0.12)) * mask
    points = _calcifications(rng, excess, features, outline, pixel_mm=pixel_mm, visibility=clear)
    values = {
        "drawn_visibility": clear,
        "drawn_aspect": aspect,
        "drawn_margin_mm": blur,
        "drawn_cortex_db": cortex_db,
        "drawn_hilum_db": hilum_db,
        "drawn_calcifications": float(len(points)),
    }
    return DrawnNode(Tissue(echo, excess, points), mask, pixel_mm, values)


def _outline(
    rng: np.random.Generator,
    features: NodeFeatures,
    shape: tuple[int, int],
    *,
    pixel_mm: float,
    aspect: float,
    visibility: float,
) -> Outline:
    """The node's border: an ellipse, gently lobed, and jagged where the margin is irregular."""
    lobes = harmonics(rng, orders=range(2, 5), amplitude=0.04)
    jags = harmonics(rng, orders=range(4, 14), amplitude=1.0, decay=0.6)
    amplitude = 0.012 + 0.09 * visibility * features.irregular_margin
    modulation = np.maximum(1 + lobes + np.float32(amplitude) * jags, 0.4).astype(np.float32)
    semi = features.max_mm / 2 / pixel_mm
    return Outline(
        row=shape[0] * (0.5 + rng.normal(0, 0.035)),
        column=shape[1] * (0.5 + rng.normal(0, 0.03)),
        across=semi,
        down=semi * aspect,
        tilt=float(rng.normal(0, 0.16)),
        modulation=modulation,
    )


def _echo_pattern(
    rng: np.random.Generator,
    features: NodeFeatures,
    shape: tuple[int, int],
    *,
    pixel_mm: float,
    visibility: float,
) -> FloatImage:
    """Variation of level within the cortex: fine everywhere, in coarse patches where it is heterogeneous."""
    fine = smooth_field(rng, shape, rows_px=0.5 / pixel_mm, columns_px=0.9 / pixel_mm)
    patches = smooth_field(rng, shape, rows_px=1.1 / pixel_mm, columns_px=1.5 / pixel_mm)
    patchy = 1.2 + 4.5 * visibility * features.heterogeneous + abs(rng.normal(0, 0.6))
    return np.float32(1.3) * fine + np.float32(patchy) * patches


def _add_hilum(
    rng: np.random.Generator,
    level: FloatImage,
    features: NodeFeatures,
    outline: Outline,
    *,
    pixel_mm: float,
    visibility: float,
) -> float:
    """Draw the fatty hilum in place and return its contrast, dB: an echogenic center, off it in an eccentric cortex.

    A lost hilum leaves a trace at low visibility, and a kept one fades: the plane may miss it.
    """
    kept = 0.0 if features.hilum_lost else 1.0
    share = 0.5 + visibility * (kept - 0.5)
    contrast = float(max(13.0 * share + rng.normal(0, 2.5), 0.0))
    off = visibility * 0.4 * features.eccentric * rng.choice([-1.0, 1.0]) + rng.normal(0, 0.12)
    size = rng.uniform(0.8, 1.15)
    hilum = Outline(
        row=outline.row + off * outline.down,
        column=outline.column + rng.normal(0, 0.12) * outline.across,
        across=outline.across * 0.55 * size,
        down=outline.down * 0.33 * size,
        tilt=outline.tilt + float(rng.normal(0, 0.08)),
        modulation=np.float32(1) + harmonics(rng, orders=range(2, 9), amplitude=0.16, decay=0.7),
    )
    distance = hilum.distance((level.shape[0], level.shape[1]))
    strands = smooth_field(rng, level.shape, rows_px=0.25 / pixel_mm, columns_px=1.0 / pixel_mm)
    level += inside(distance, width_px=0.6 / pixel_mm) * (np.float32(contrast) + np.float32(1.5) * strands)
    return contrast


def _add_fluid(
    rng: np.random.Generator,
    level: FloatImage,
    excess: FloatImage,
    features: NodeFeatures,
    outline: Outline,
    *,
    pixel_mm: float,
    visibility: float,
) -> None:
    """Draw necrosis (ragged), cyst (round) and mixed component (a fluid part of the node) in place."""
    parts = (
        (features.necrosis, 0.42, 0.22, -9.0),
        (features.cyst, 0.34, 0.05, -16.0),
        (features.mixed, 0.62, 0.15, -12.0),
    )
    for present, size, roughness, depth_db in parts:
        at = rng.uniform(-0.4, 0.4, 2)
        area = blob(
            rng,
            row=outline.row + at[0] * outline.down,
            column=outline.column + at[1] * outline.across,
            across=min(outline.across, 1.6 * outline.down) * size,
            down=outline.down * size,
            roughness=roughness,
        )
        if present:
            share = inside(area.distance((level.shape[0], level.shape[1])), width_px=0.4 / pixel_mm)
            level += np.float32(depth_db * visibility) * share
            excess -= np.float32(0.45 * visibility) * share


def _add_capsule(
    rng: np.random.Generator, echo: FloatImage, distance: FloatImage, *, pixel_mm: float, strength: float
) -> None:
    """Draw the capsule in place: a thin bright line where it lies across the beam, broken here and there."""
    across = np.abs(np.gradient(distance, axis=0))
    broken = np.maximum(1 + 0.6 * smooth_field(rng, echo.shape, rows_px=2 / pixel_mm, columns_px=2 / pixel_mm), 0)
    line = np.exp(-((distance / np.float32(0.18 / pixel_mm)) ** 2))
    echo += np.float32(strength) * line * np.clip(across, 0, 1) ** 2 * broken


def _calcifications(
    rng: np.random.Generator,
    excess: FloatImage,
    features: NodeFeatures,
    outline: Outline,
    *,
    pixel_mm: float,
    visibility: float,
) -> NDArray[np.float64]:
    """(P, 3) row, column and amplitude (dB) of punctate calcifications; each casts a faint shadow into `excess`.

    A few bright specks that are no calcification lie in any node.
    """
    number = int(rng.poisson(1.0)) + (3 + int(rng.poisson(6)) if features.microcalcifications else 0)
    radius, angle = 0.85 * np.sqrt(rng.uniform(0, 1, number)), rng.uniform(0, 2 * np.pi, number)
    x, y = outline.across * radius * np.cos(angle), outline.down * radius * np.sin(angle)
    rows = outline.row + x * np.sin(outline.tilt) + y * np.cos(outline.tilt)
    columns = outline.column + x * np.cos(outline.tilt) - y * np.sin(outline.tilt)
    height, width = excess.shape
    rows, columns = np.clip(rows, 1, height - 2).round(), np.clip(columns, 2, width - 3).round()
    # One resolution cell holds some 10 to 30 pixels: a target must outshine their sum.
    level = rng.normal(10 + 14 * visibility, 3, number) + 20 * np.log10(0.065 / pixel_mm)
    for row, column in zip(rows.astype(int), columns.astype(int), strict=True):
        excess[row : row + 3, column - 1 : column + 2] += np.float32(0.6 * visibility)
    return np.stack([rows, columns, level], axis=1)
